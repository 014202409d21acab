/*
 * The 32-element blocks of GGUF.
 *
 *	Q4_0  18 B   d:f16 | qs[16]                    value = d (q - 8)
 *	Q4_1  20 B   d:f16 | m:f16 | qs[16]            value = d q + m
 *	Q5_0  22 B   d:f16 | qh:u32 | qs[16]           value = d (q - 16)
 *	Q5_1  24 B   d:f16 | m:f16 | qh:u32 | qs[16]   value = d q + m
 *	Q8_0  34 B   d:f16 | qs[32] int8               value = d q
 *
 *	byte j of qs (4 and 5 bits)  |7..4 element j + 16|3..0 element j|
 *	bit i of qh                  the fifth bit of element i
 *
 * Plain rounding is bit-exact to the reference: codes come from the scale
 * before it is rounded to half, by truncation after adding a half (Q8_0: round
 * half away from zero).
 */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/gather.h"
#include "codec/rows.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

enum { BLOCK = 32 };

static const float HALF_MAX = 65504.0f;

/* Rounds to half, but a finite one: an infinite scale would make the whole block useless. */
static uint16_t half_finite(float x)
{
	return f16_from_f32(gather_clamp(x, HALF_MAX));
}

static void store(const struct codec *c, struct block_params *p, size_t n)
{
	(void)n;
	p->d = half_finite(p->scale[0]);
	p->scale[0] = f32_from_f16(p->d);
	p->dmin = c->has_offset ? half_finite(p->offset[0]) : 0;
	p->offset[0] = c->has_offset ? f32_from_f16(p->dmin) : 0;
}

static void pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	uint8_t *out = dst;
	(void)n;
	store_u16(out, p->d);
	out += 2;
	if (c->has_offset) {
		store_u16(out, p->dmin);
		out += 2;
	}
	if (c->bits == 8) {
		for (int i = 0; i < BLOCK; i++)
			out[i] = (uint8_t)(codes[i] - 128);
		return;
	}
	if (c->bits == 5) {
		uint32_t high = 0;
		for (int i = 0; i < BLOCK; i++)
			high |= (uint32_t)(codes[i] >> 4 & 1) << i;
		store_u32(out, high);
		out += 4;
	}
	for (int j = 0; j < 16; j++)
		out[j] = (uint8_t)((codes[j] & 15) | codes[j + 16] << 4);
}

static void unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const uint8_t *in = src;
	uint32_t high = 0;
	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(in);
	p->scale[0] = f32_from_f16(p->d);
	in += 2;
	if (c->has_offset) {
		p->dmin = load_u16(in);
		p->offset[0] = f32_from_f16(p->dmin);
		in += 2;
	}
	if (c->bits == 8) {
		for (int i = 0; i < BLOCK; i++)
			codes[i] = (uint8_t)(in[i] + 128);
		return;
	}
	if (c->bits == 5) {
		high = load_u32(in);
		in += 4;
	}
	for (int j = 0; j < 16; j++) {
		codes[j] = (uint8_t)((in[j] & 15) | (high >> j & 1) << 4);
		codes[j + 16] = (uint8_t)(in[j] >> 4 | (high >> (j + 16) & 1) << 4);
	}
}

/* The plain scale and offset, not yet rounded to half. */
static void plain(const struct codec *c, const float *x, float *d, float *m)
{
	float lo, hi, top;
	kernels()->extremes(x, BLOCK, &lo, &hi);
	top = hi > -lo ? hi : lo;
	for (int i = 0; hi == -lo && i < BLOCK; i++) /* both signs: the first one counts */
		if (x[i] == lo || x[i] == hi) {
			top = x[i];
			break;
		}
	*m = c->has_offset ? lo : 0;
	if (c->bits == 8)
		*d = fabsf(top) / 127;
	else if (c->has_offset)
		*d = (hi - lo) / (float)((1 << c->bits) - 1);
	else
		*d = top / (float)c->code_bias; /* the largest magnitude becomes the lowest code, which has no opposite */
	/* Beyond half precision the reference writes an infinite scale; a cut one keeps the signs and the order. */
	if (!(fabsf(*d) <= HALF_MAX))
		*d = *d < 0 ? -HALF_MAX : HALF_MAX;
}

/* The largest element starts on levels past either end: with few levels it pays to sacrifice it, with many hardly. */
static const struct search_grid grids[] = {
	{.n = BLOCK, .subs = 1, .free = true, .level_lo = -8, .level_hi = 7, .plain_level = -8, .start_first = -0.7f,
	 .start_step = 0.5f, .starts = 9},
	{.n = BLOCK, .subs = 1, .free = true, .level_lo = -16, .level_hi = 15, .plain_level = -16, .start_first = -0.9f,
	 .start_step = 0.6f, .starts = 8},
	{.n = BLOCK, .subs = 1, .free = true, .level_lo = -128, .level_hi = 127, .plain_level = 127, .start_first = -0.8f,
	 .start_step = 1, .starts = 3},
	{.n = BLOCK, .subs = 1, .free = true, .level_lo = 0, .level_hi = 15},
	{.n = BLOCK, .subs = 1, .free = true, .level_lo = 0, .level_hi = 31},
};

static const struct search_grid *grid_of(const struct codec *c)
{
	const struct search_grid *g = grids;
	while (g->level_lo != (float)c->code_bias || g->level_hi != (float)((1 << c->bits) - 1 + c->code_bias))
		g++;
	return g;
}

/* Up to sixteen blocks at once; `have` elements. */
static void search(const struct codec *c, const float *x, const float *w, size_t have, struct search_job *job)
{
	struct gathered in;
	job->grid = grid_of(c);
	job->weighted = w != NULL;
	job->x = in.x[0];
	job->w = in.w[0];
	gather(job->grid, x, w, have, &in);
	(c->has_offset ? kernels()->search_affine : kernels()->search_scaled)(job);
}

static void take(const struct codec *c, const struct search_job *job, int lane, struct block_params *p)
{
	memset(p, 0, sizeof *p);
	p->scale[0] = job->d[lane];
	p->offset[0] = -job->dmin[lane];
	store(c, p, BLOCK);
}

static void fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		struct block_params *p)
{
	struct search_job job;
	if (effort == FIT_SEARCH) {
		search(c, x, w, n, &job);
		take(c, &job, 0, p);
		return;
	}
	memset(p, 0, sizeof *p);
	plain(c, x, &p->scale[0], &p->offset[0]);
	store(c, p, n);
}

static void fit_row(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	struct search_job job;
	for (size_t b = 0; b < n / BLOCK; b++) {
		if (b % SEARCH_LANES == 0)
			search(c, x + b * BLOCK, w ? w + b * BLOCK : NULL, n - b * BLOCK, &job);
		take(c, &job, (int)(b % SEARCH_LANES), &p[b]);
	}
}

static void encode_search(const struct codec *c, const float *src, const float *w, void *dst, size_t n)
{
	struct search_job job;
	struct block_params p;
	uint8_t *out = dst, codes[BLOCK];
	for (size_t at = 0; at < n; at += BLOCK * SEARCH_LANES) {
		search(c, src + at, w ? w + at : NULL, n - at, &job);
		for (size_t b = at; b < n && b < at + BLOCK * SEARCH_LANES; b += BLOCK, out += c->block_bytes) {
			take(c, &job, (int)((b - at) / BLOCK), &p);
			codec_round_run(c, p.scale[0], p.offset[0], src + b, BLOCK, codes);
			pack(c, &p, codes, BLOCK, out);
		}
	}
}

static void encode(const struct codec *c, const float *src, void *dst, size_t n)
{
	uint8_t *out = dst, codes[BLOCK];
	for (size_t at = 0; at < n; at += BLOCK, src += BLOCK, out += c->block_bytes) {
		struct block_params p = { 0 };
		plain(c, src, &p.scale[0], &p.offset[0]);
		struct code_grid g = codec_grid(c, p.scale[0], p.offset[0]);
		if (c->bits == 8)
			kernels()->round_away(src, BLOCK, g.scale != 0 ? 1 / g.scale : 0, codes);
		else
			kernels()->round_down(src, BLOCK, &g, codes);
		store(c, &p, BLOCK);
		pack(c, &p, codes, BLOCK, out);
	}
}

#define LEGACY_ROW(NAME, BITS, BYTES, BIAS, OFFSET, GGUF, SUMMARY) \
	_Static_assert(BYTES == 2 + 2 * OFFSET + BLOCK * BITS / 8, "block layout"); \
	const struct codec codec_##NAME = { \
		.name = #NAME, .summary = SUMMARY, .kind = CODEC_BLOCK, .block = BLOCK, .block_bytes = BYTES, .sub = BLOCK, \
		.has_offset = OFFSET, .bits = BITS, .code_bias = BIAS, .gguf_type = GGUF, .fallback = "f16", \
		.kernel = BLOCK_##NAME, .decode = codec_block_decode, .dot = codec_block_dot, .encode = encode, \
		.fit = fit, .pack = pack, .unpack = unpack, .store = store, .encode_search = encode_search, .fit_row = fit_row }

LEGACY_ROW(q8_0, 8, 34, -128, 0, 8, "blocks of 32, 8 bits, scale (GGUF)");
LEGACY_ROW(q4_0, 4, 18, -8, 0, 2, "blocks of 32, 4 bits, scale (GGUF)");
LEGACY_ROW(q4_1, 4, 20, 0, 1, 3, "blocks of 32, 4 bits, scale and minimum (GGUF)");
LEGACY_ROW(q5_0, 5, 22, -16, 0, 6, "blocks of 32, 5 bits, scale (GGUF)");
LEGACY_ROW(q5_1, 5, 24, 0, 1, 7, "blocks of 32, 5 bits, scale and minimum (GGUF)");
