#include "calib/quant/latent.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffers.h"
#include "base/thread.h"
#include "codec/codec.h"

/* Rows of a matrix per piece of work. */
enum { ROWS = 16 };
/* How far from its code's level a latent starts at most, in distances of levels: half of one is the next code. */
static const float LEAN = 0.3f;

/* The grid's ends; a table of levels may have any order. */
static void level_range(const struct codec *c, float *lo, float *hi)
{
	*lo = *hi = codec_value(c, 1, 0, 0);
	for (int code = 1; code < 1 << c->bits; code++) {
		float level = codec_value(c, 1, 0, (uint8_t)code);
		*lo = level < *lo ? level : *lo;
		*hi = level > *hi ? level : *hi;
	}
}

static float level_gap(const struct codec *c)
{
	float lo, hi;
	level_range(c, &lo, &hi);
	return (hi - lo) / (float)((1 << c->bits) - 1);
}

struct sweep {
	struct latent *l;
	float *u;                /* the latent's, or its mean */
	const float *turn;
	const float *original;   /* [rows, n] */
	uint8_t *bytes;
	atomic_ullong moved;     /* codes */
	atomic_int failed;
};

/* Runs fn over pieces of a matrix's rows. */
static int each_row(struct sweep *s, void (*fn)(void *, size_t, int), struct err *e)
{
	atomic_init(&s->moved, 0);
	atomic_init(&s->failed, 0);
	thread_for((s->l->rows + ROWS - 1) / ROWS, fn, s);
	return atomic_load(&s->failed) ? err_nomem(e) : ERR_OK;
}

static size_t row_end(const struct latent *l, size_t item)
{
	return (item + 1) * ROWS < l->rows ? (item + 1) * ROWS : l->rows;
}

/*
 * A latent starts in its code's interval, on the side on which the original weight lies: a code that was a close decision
 * needs less to change.
 */
static void read_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	size_t row_bytes = (size_t)codec_row_bytes(c, l->n);
	float gap = level_gap(c);
	uint8_t *codes = malloc(l->n);
	(void)worker;
	for (size_t r = item * ROWS; codes && r < row_end(l, item); r++) {
		const uint8_t *src = l->bytes + r * row_bytes;
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			len = codec_block_len(c, at, l->n);
			c->unpack(c, src, &p, codes + at, len);
			src += codec_row_bytes(c, len);
			for (size_t i = 0; i < len; i += l->sub) {
				l->scale0[r * l->subs + (at + i) / l->sub] = p.scale[i / l->sub];
				l->offset0[r * l->subs + (at + i) / l->sub] = p.offset[i / l->sub];
			}
		}
		for (size_t i = 0; i < l->n; i++) {
			float scale = l->scale0[r * l->subs + i / l->sub], offset = l->offset0[r * l->subs + i / l->sub];
			float level = codec_value(c, 1, 0, codes[i]), lean = scale != 0 ? (s->original[r * l->n + i] - offset) / scale - level : 0;
			float most = LEAN * gap;
			lean = lean > most ? most : lean < -most ? -most : lean;
			l->u[r * l->n + i] = level + (isfinite(lean) ? lean : 0);
		}
	}
	if (!codes)
		atomic_store(&s->failed, 1);
	free(codes);
}

/* Sub-blocks under one super-scale move together: each by itself, storing would choose another one after every step. */
static bool super_scaled(const struct codec *c)
{
	return c->sub && c->sub < c->block;
}

/*
 * The parameters of the block at element `at` of a row, as the format can hold them. A block whose scales have not moved
 * keeps p, what it was unpacked to: storing again might choose other super-scales.
 */
static void block_of(const struct sweep *s, size_t r, size_t at, size_t len, struct block_params *p)
{
	const struct latent *l = s->l;
	size_t block = r * l->blocks + at / l->block, first = r * l->subs + at / l->sub, count = (len + l->sub - 1) / l->sub;
	float turn = s->turn[block], shift = s->turn[l->rows * l->blocks + block];
	if (turn == 1 && shift == 0)
		return;
	memset(p, 0, sizeof *p);
	for (size_t k = 0; k < count; k++) {
		float scale = l->scale0[first + k], offset = l->offset0[first + k];
		p->scale[k] = scale * turn;
		p->offset[k] = offset + shift * (super_scaled(l->codec) ? offset : scale * l->reach);
	}
	l->codec->store(l->codec, p, len);
}

/* The codes of latents, which are in units of levels; n ends with a sub-block or is less. */
static void round_levels(const struct codec *c, const float *u, size_t n, uint8_t *codes)
{
	for (size_t i = 0; i < n && c->together; i += c->together)
		c->round(c, &(struct code_target){ 1, 0, u + i, NULL }, codes + i);
	if (!c->together)
		codec_round_run(c, 1, 0, u, n, codes);
}

/* Latents to the layer's weights; latents that left the grid come back to its end. */
static void round_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	float lo, hi;
	uint8_t codes[CODEC_MAX_BLOCK];
	(void)worker;
	level_range(c, &lo, &hi);
	for (size_t r = item * ROWS; r < row_end(l, item); r++) {
		float *u = s->u + r * l->n, *value = l->value + r * l->stride;
		for (size_t i = 0; i < l->n; i++)
			u[i] = u[i] < lo ? lo : u[i] > hi ? hi : u[i];
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			size_t first = r * l->subs + at / l->sub;
			len = codec_block_len(c, at, l->n);
			for (size_t k = 0; k * l->sub < len; k++) {
				p.scale[k] = l->scale0[first + k];
				p.offset[k] = l->offset0[first + k];
			}
			block_of(s, r, at, len, &p);
			for (size_t k = 0; k * l->sub < len; k++) {
				l->scale[first + k] = p.scale[k];
				l->offset[first + k] = p.offset[k];
			}
		}
		for (size_t at = 0, len; at < l->n; at += len) {
			size_t k = at / l->sub, end = (k + 1) * l->sub < l->n ? (k + 1) * l->sub : l->n;
			len = end - at < sizeof codes ? end - at : sizeof codes;
			round_levels(c, u + at, len, codes);
			for (size_t i = 0; i < len; i++)
				value[at + i] = codec_value(c, l->scale[r * l->subs + k], l->offset[r * l->subs + k], codes[i]);
		}
	}
}

static void follow_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	float k = l->shared->follow;
	size_t all = l->rows * l->blocks, first = item * ROWS * l->blocks, end = row_end(l, item) * l->blocks;
	(void)worker;
	for (size_t i = item * ROWS * l->n; i < row_end(l, item) * l->n; i++)
		l->mean_u[i] += k * (l->u[i] - l->mean_u[i]);
	for (size_t i = first; i < end; i++) {
		l->mean_turn[i] += k * (l->turn[i] - l->mean_turn[i]);
		l->mean_turn[all + i] += k * (l->turn[all + i] - l->mean_turn[all + i]);
	}
}

/* By the latents, and with the codes as they are by what moves the scales and offsets of each block. */
static void split_gradient(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	float *flat = l->shared->flat, *flat_scales = l->shared->flat_scales;
	size_t all = l->rows * l->blocks;
	(void)worker;
	for (size_t r = item * ROWS; r < row_end(l, item); r++) {
		const float *grad = l->grad + r * l->stride, *value = l->value + r * l->stride;
		memset(flat_scales + r * l->blocks, 0, l->blocks * sizeof *flat_scales);
		memset(flat_scales + all + r * l->blocks, 0, l->blocks * sizeof *flat_scales);
		for (size_t k = 0; k < l->subs; k++) {
			size_t block = r * l->blocks + k * l->sub / l->block, end = (k + 1) * l->sub < l->n ? (k + 1) * l->sub : l->n;
			float scale = l->scale[r * l->subs + k], offset = l->offset[r * l->subs + k];
			double by_scale = 0, sum = 0;
			for (size_t i = k * l->sub; i < end; i++) {
				flat[r * l->n + i] = grad[i] * scale;
				by_scale += (double)grad[i] * (double)(value[i] - offset);
				sum += (double)grad[i];
			}
			flat_scales[block] += (float)by_scale;
			if (l->codec->has_offset)
				flat_scales[all + block] += (float)(sum * (double)(super_scaled(l->codec) ? offset : scale * l->reach));
		}
	}
}

/* The bytes that the latents stand for, and how many codes are not those that error feedback chose. */
static void pack_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	size_t row_bytes = (size_t)codec_row_bytes(c, l->n);
	uint8_t *codes = malloc(2 * l->n), *was = codes ? codes + l->n : NULL;
	(void)worker;
	if (!codes) {
		atomic_store(&s->failed, 1);
		return;
	}
	unsigned long long moved = 0;
	for (size_t r = item * ROWS; r < row_end(l, item); r++) {
		const uint8_t *src = l->bytes + r * row_bytes;
		uint8_t *dst = s->bytes + r * row_bytes;
		round_levels(c, s->u + r * l->n, l->n, codes);
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			len = codec_block_len(c, at, l->n);
			c->unpack(c, src, &p, was, len);
			block_of(s, r, at, len, &p);
			c->pack(c, &p, codes + at, len, dst);
			for (size_t i = 0; i < len; i++)
				moved += was[i] != codes[at + i];
			src += codec_row_bytes(c, len);
			dst += codec_row_bytes(c, len);
		}
	}
	atomic_fetch_add(&s->moved, moved);
	free(codes);
}

/* How its rows are cut into blocks. */
static struct latent shape_of(const struct plan_item *item)
{
	const struct codec *c = item->out.codec;
	struct latent l = { .item = item, .codec = c, .rows = (size_t)tensor_rows(&item->out), .n = (size_t)tensor_cols(&item->out) };
	l.sub = c->sub ? c->sub : c->block ? c->block : l.n;
	l.subs = (l.n + l.sub - 1) / l.sub;
	l.block = c->block ? c->block : l.n;
	l.blocks = (l.n + l.block - 1) / l.block;
	return l;
}

enum { BUFFERS = 8 };
static void buffers_of(struct latent *l, struct buffer out[BUFFERS])
{
	size_t all = l->rows * l->subs;
	out[0] = (struct buffer){ &l->scale, all, sizeof(float) };
	out[1] = (struct buffer){ &l->offset, all, sizeof(float) };
	out[2] = (struct buffer){ &l->scale0, all, sizeof(float) };
	out[3] = (struct buffer){ &l->offset0, all, sizeof(float) };
	out[4] = (struct buffer){ &l->turn, 2 * l->rows * l->blocks, sizeof(float) };
	out[5] = (struct buffer){ &l->u, l->rows * l->n, sizeof(float) };
	out[6] = (struct buffer){ &l->mean_turn, 2 * l->rows * l->blocks, sizeof(float) };
	out[7] = (struct buffer){ &l->mean_u, l->rows * l->n, sizeof(float) };
}

uint64_t latent_memory(const struct plan_item *item)
{
	struct latent l = shape_of(item);
	struct buffer b[BUFFERS];
	buffers_of(&l, b);
	return buffers_size(b, BUFFERS) + 2 * 4 * (uint64_t)l.rows * (l.n + 2 * l.blocks) + item->out.nbytes;
}

int latent_open(struct latent *l, const struct plan_item *item, struct tensor_source *quantized, struct tensor_source *source,
		const struct latent_room *room, struct err *e)
{
	const struct latent_shared *shared = room->shared;
	const struct tensor *t = source_find(quantized, item->out.name), *meta;
	struct tensor_bytes bytes;
	float *original = NULL;
	if (!t || t->codec != item->out.codec)
		return err_set(e, ERR_BUG, "%s is not quantized", item->out.name);
	int rc = quantized->get(quantized, source_position(quantized, t), &bytes, e);
	if (rc)
		return rc;
	*l = shape_of(item);
	l->bytes = bytes.data;
	l->value = room->value;
	l->grad = room->grad;
	l->stride = room->stride;
	l->shared = shared;
	l->reach = level_gap(l->codec) * (float)((1 << l->codec->bits) - 1) / 2;
	size_t turns = l->rows * l->blocks;
	struct buffer b[BUFFERS];
	buffers_of(l, b);
	if (buffers_take(b, BUFFERS, e))
		return e->code;
	for (size_t i = 0; i < turns; i++) {
		l->turn[i] = 1;
		l->turn[turns + i] = 0;
	}
	rc = source_read_f32(source, item->out.name, &original, &meta, e);
	struct sweep s = { .l = l, .u = l->u, .turn = l->turn, .original = original };
	if (!rc)
		rc = each_row(&s, read_rows, e);
	free(original);
	if (!rc)
		rc = each_row(&s, round_rows, e);
	memcpy(l->mean_u, l->u, l->rows * l->n * sizeof *l->u);
	memcpy(l->mean_turn, l->turn, 2 * turns * sizeof *l->turn);
	if (!rc)
		rc = adam_init(&l->codes, 1, shared->steps, shared->rate, e);
	if (!rc)
		rc = adam_add(&l->codes, l->u, shared->flat, l->rows * l->n, e);
	if (!rc)
		rc = adam_init(&l->scales, 1, shared->steps, shared->rate * shared->scale_rate * (double)(level_gap(l->codec) / l->reach), e);
	if (!rc)
		rc = adam_add(&l->scales, l->turn, shared->flat_scales, 2 * turns, e);
	if (!rc) {
		l->codes.matrix[0].scale = (double)level_gap(l->codec);
		l->scales.matrix[0].scale = 1;
	}
	return rc;
}

void latent_close(struct latent *l)
{
	adam_release(&l->codes);
	adam_release(&l->scales);
	free(l->scale);
	free(l->offset);
	free(l->scale0);
	free(l->offset0);
	free(l->turn);
	free(l->u);
	free(l->mean_turn);
	free(l->mean_u);
	free(l->best);
}

int latent_step(struct latent *l, struct err *e)
{
	struct sweep s = { .l = l, .u = l->u, .turn = l->turn };
	int rc = each_row(&s, split_gradient, e);
	adam_step(&l->codes);
	adam_step(&l->scales);
	if (!rc)
		rc = each_row(&s, round_rows, e);
	return rc ? rc : each_row(&s, follow_rows, e);
}

int latent_show(struct latent *l, bool means, struct err *e)
{
	struct sweep s = { .l = l, .u = means ? l->mean_u : l->u, .turn = means ? l->mean_turn : l->turn };
	return each_row(&s, round_rows, e);
}

int latent_keep(struct latent *l, uint64_t *moved, struct err *e)
{
	if (!l->best && !(l->best = malloc(l->item->out.nbytes)))
		return err_nomem(e);
	struct sweep s = { .l = l, .u = l->mean_u, .turn = l->mean_turn, .bytes = l->best };
	int rc = each_row(&s, pack_rows, e);
	*moved = atomic_load(&s.moved);
	return rc;
}
