#include "codec/kquant.h"

#include <string.h>

#include "codec/gather.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

static void run(const struct kquant *q, struct search_job *job)
{
	const struct kernels *k = kernels();

	if (q->kind == KQ_AFFINE)
		k->search_affine(job);
	else if (q->kind == KQ_SCALED)
		k->search_scaled(job);
	else
		k->search_table(job);
}

/* The fields of the super-block in lanes [lane, lane + subs). */
static void take(const struct kquant *q, const struct search_job *job, int lane, struct block_params *p)
{
	p->d = f16_from_f32(job->d[lane]);
	p->dmin = f16_from_f32(job->dmin[lane]);
	for (int j = 0; j < q->grid.subs; j++) {
		p->sc[j] = kquant_sc_bits(q, job->sc[lane + j]);
		p->mn[j] = (uint8_t)job->mn[lane + j];
	}
	kquant_expand(q, p);
}

void kquant_expand(const struct kquant *q, struct block_params *p)
{
	float d = f32_from_f16(p->d), dmin = f32_from_f16(p->dmin);

	for (int j = 0; j < q->grid.subs; j++) {
		p->scale[j] = d * (float)kquant_sc(q, p->sc[j]);
		/* -0: adding it changes nothing, not even the sign of a zero */
		p->offset[j] = q->kind == KQ_AFFINE ? -(dmin * (float)p->mn[j]) : -0.0f;
	}
}

void kquant_fit(const struct kquant *q, const float *x, const float *w, enum fit_effort effort, struct block_params *p)
{
	struct gathered in;
	struct search_job job = {.grid = &q->grid, .plain = effort == FIT_RTN, .weighted = w != NULL, .x = in.x[0], .w = in.w[0]};

	gather(&q->grid, x, w, (size_t)q->grid.n * (size_t)q->grid.subs, &in);
	run(q, &job);
	take(q, &job, 0, p);
}

void kquant_fit_row(const struct kquant *q, const float *x, const float *w, size_t n, struct block_params *p)
{
	size_t run_of = (size_t)q->grid.n * SEARCH_LANES, block = (size_t)(q->grid.n * q->grid.subs);
	struct gathered in;
	struct search_job job = {.grid = &q->grid, .weighted = w != NULL, .x = in.x[0], .w = in.w[0]};

	for (size_t at = 0; at < n; at += block) {
		if (at % run_of == 0) {
			gather(&q->grid, x + at, w ? w + at : NULL, n - at, &in);
			run(q, &job);
		}
		take(q, &job, (int)(at % run_of / (size_t)q->grid.n), p++);
	}
}

void kquant_store(const struct kquant *q, struct block_params *p)
{
	struct search_job job = {.grid = &q->grid, .store = true};

	for (int j = 0; j < q->grid.subs; j++) {
		job.s[j] = gather_tame(p->scale[j]);
		job.o[j] = gather_tame(p->offset[j]);
	}
	run(q, &job);
	take(q, &job, 0, p);
}

static void round_block(const struct codec *c, const struct block_params *p, const float *x, uint8_t *codes)
{
	for (uint32_t i = 0; i < c->block; i += c->sub)
		codec_round_run(c, p->scale[i / c->sub], p->offset[i / c->sub], x + i, c->sub, codes + i);
}

void kquant_encode(const struct codec *c, const struct kquant *q, const struct row_job *row, void *dst)
{
	const struct search_grid *g = &q->grid;
	const float *x = row->x, *w = row->w;
	struct gathered in;
	struct search_job job = {.grid = g, .plain = row->effort == FIT_RTN, .weighted = w != NULL, .x = in.x[0], .w = in.w[0]};
	struct block_params p;
	uint8_t codes[CODEC_MAX_BLOCK], *out = dst;

	for (size_t at = 0; at < row->n; at += (size_t)g->n * SEARCH_LANES) {
		gather(g, x + at, w ? w + at : NULL, row->n - at, &in);
		run(q, &job);
		for (int lane = 0; lane < SEARCH_LANES; lane += g->subs) {
			size_t b = at + (size_t)(lane * g->n);
			if (b >= row->n)
				break;
			take(q, &job, lane, &p);
			round_block(c, &p, x + b, codes);
			c->pack(c, &p, codes, c->block, out);
			out += c->block_bytes;
		}
	}
}

/*
 *	s[0..3]    | hi2 of sc(4+k) | sc(k) 6 |
 *	s[4..7]    | hi2 of mn(4+k) | mn(k) 6 |
 *	s[8..11]   | low4 of mn(4+k) | low4 of sc(4+k) |        k = 0..3
 */
void kquant_pack_6bit(const uint8_t sc[8], const uint8_t mn[8], uint8_t out[12])
{
	for (int k = 0; k < 4; k++) {
		out[k] = (uint8_t)(sc[k] | (sc[4 + k] >> 4) << 6);
		out[4 + k] = (uint8_t)(mn[k] | (mn[4 + k] >> 4) << 6);
		out[8 + k] = (uint8_t)((sc[4 + k] & 15) | (mn[4 + k] & 15) << 4);
	}
}

void kquant_unpack_6bit(const uint8_t in[12], uint8_t sc[8], uint8_t mn[8])
{
	for (int k = 0; k < 4; k++) {
		sc[k] = in[k] & 63;
		mn[k] = in[4 + k] & 63;
		sc[4 + k] = (uint8_t)((in[8 + k] & 15) | (in[k] >> 6) << 4);
		mn[4 + k] = (uint8_t)((in[8 + k] >> 4) | (in[4 + k] >> 6) << 4);
	}
}
