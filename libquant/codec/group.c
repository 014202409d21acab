/*
 * Integer groups: quire's own layout of what other tools keep in separate
 * tensors for codes, scales and zero points. A row is a run of groups; the last
 * one of a row may be short. One group of n elements:
 *
 *	byte  0      1      [2]       [3]     then ceil(n bits / 8) bytes
 *	     |  scale      | zero    |       | codes ...
 *	     |f16 or bf16  | u8, -zp |       |
 *	     |             | as scale, -bias |
 *
 * The codes are a dense stream, low bits first: code i is bits i b .. i b + b - 1,
 * where bit k is bit k mod 8 of byte k / 8. With 4 bits:
 *
 *	byte j  |7..4 element 2 j + 1|3..0 element 2 j|
 *
 * and with 3 bits:
 *
 *	byte 0  |7 6 element 2 (low two)|5..3 element 1|2..0 element 0|
 *	byte 1  |7 element 5 (low one)|6..4 element 4|3..1 element 3|0 element 2 (high one)|
 *
 * Spare bits of the last byte are 0.
 *
 *	symmetric    value = scale (code - 2^(b-1))
 *	-zp          value = scale (code - zero), a whole zero in [0, 2^b - 1], so that 0 is always a value
 *	-bias        value = scale code + bias
 *
 * The first two are the integers q and zero points of compressed-tensors plus 2^(b-1), the last is MLX's.
 */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/fit.h"
#include "codec/gather.h"
#include "codec/rows.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

static float load_scale(const struct codec *c, uint16_t raw)
{
	return c->group_scale ? f32_from_bf16(raw) : f32_from_f16(raw);
}

/* The nearest scale the format has, but one whose furthest value is finite: 2^bits - 1 steps from a zero point. */
static uint16_t store_scale(const struct codec *c, float x)
{
	float most = c->group_scale ? 0x1.fcp127f / (float)(c->has_offset ? (1 << c->bits) - 1 : 1 << (c->bits - 1)) : 65504.0f;
	x = gather_clamp(x, most);
	return c->group_scale ? bf16_from_f32(x) : f16_from_f32(x);
}

static uint16_t store_bias(const struct codec *c, float x)
{
	x = gather_clamp(x, c->group_scale ? 0x1.fcp127f : 65504.0f);
	return c->group_scale ? bf16_from_f32(x) : f16_from_f32(x);
}

static void store(const struct codec *c, struct block_params *p, size_t n)
{
	(void)n;
	if (c->group_bias) {
		p->d = store_scale(c, p->scale[0]);
		p->dmin = store_bias(c, p->offset[0]);
		p->scale[0] = load_scale(c, p->d);
		p->offset[0] = load_scale(c, p->dmin);
		return;
	}
	int last = (1 << c->bits) - 1;
	float zero = c->has_offset && p->scale[0] != 0 ? -p->offset[0] / p->scale[0] + 0.5f : 0;
	p->mn[0] = (uint8_t)(!(zero > 0) ? 0 : zero < (float)last ? (int)zero : last);
	p->d = store_scale(c, p->scale[0]);
	p->scale[0] = load_scale(c, p->d);
	p->offset[0] = c->has_offset ? -(float)p->mn[0] * p->scale[0] : 0;
}

/*
 * Plain rounding. Symmetric: the scale that spreads the 2^b codes evenly over
 * [-amax, amax], as the field does; with 8 bits it leaves -128 out, which costs
 * nothing and keeps the codes symmetric. Zero point: the range with 0 in it.
 */
static void plain(const struct codec *c, const float *x, size_t n, struct block_params *p)
{
	float lo = c->group_bias && n ? x[0] : 0, hi = lo, last = (float)((1 << c->bits) - 1);
	for (size_t i = 0; i < n; i++) {
		lo = x[i] < lo ? x[i] : lo;
		hi = x[i] > hi ? x[i] : hi;
	}
	memset(p, 0, sizeof *p);
	if (!c->has_offset) {
		p->scale[0] = (hi > -lo ? hi : -lo) / (c->bits == 8 ? 127 : last / 2);
	} else {
		p->scale[0] = hi / last - lo / last; /* hi - lo may overflow */
		p->offset[0] = lo;
	}
	store(c, p, n);
}

/* The elements of a group and their weights, or NULL. */
struct group_at {
	const float *x, *w;
	size_t n;
};

/*
 * Sixteen groups side by side, as kernel/search.h does it; n elements each. With
 * few levels it pays to sacrifice the largest elements, with many it hardly does.
 */
static void search_lanes(const struct codec *c, const float *x, const float *w, size_t n, size_t have, struct search_job *job)
{
	struct gathered in;
	float half = (float)(1 << c->bits) / 2;
	if (c->group_bias) {
		struct search_grid affine = { .n = (int)n, .subs = 1, .free = true, .level_hi = 2 * half - 1 };
		*job = (struct search_job){ .grid = &affine, .weighted = w != NULL, .x = in.x[0], .w = in.w[0] };
		gather(&affine, x, w, have, &in);
		kernels()->search_affine(job);
		return;
	}
	struct search_grid g = { .n = (int)n, .subs = 1, .free = true, .bf16 = c->group_scale, .level_lo = -half,
				 .level_hi = half - 1, .plain_level = c->bits == 8 ? 127 : half - 0.5f,
				 .start_first = -0.7f, .start_step = c->bits == 8 ? 1 : 0.5f, .starts = c->bits == 8 ? 3 : 9 };
	*job = (struct search_job){ .grid = &g, .weighted = w != NULL, .x = in.x[0], .w = in.w[0] };
	gather(&g, x, w, have, &in);
	kernels()->search_scaled(job);
}

static double error_of(const struct codec *c, const struct block_params *p, const float *x, const float *w, size_t n)
{
	uint8_t codes[SEARCH_MAX_SUB];
	double sum = 0;
	codec_round_run(c, p->scale[0], p->offset[0], x, n, codes);
	for (size_t i = 0; i < n; i++) {
		double miss = (double)x[i] - (double)(p->scale[0] * (float)codes[i] + p->offset[0]);
		sum += (w ? (double)w[i] : 1) * miss * miss;
	}
	return sum;
}

/* The search rounds biases to halves while it measures: where it gained nothing, the plain rule stands. */
static void settle(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	struct block_params first;
	plain(c, x, n, &first);
	if (!(error_of(c, p, x, w, n) < error_of(c, &first, x, w, n)))
		*p = first;
}

/* The group of n elements that a lane is of. */
static void take(const struct codec *c, const struct search_job *job, int lane, struct group_at at, struct block_params *p)
{
	memset(p, 0, sizeof *p);
	p->scale[0] = job->d[lane];
	p->offset[0] = c->group_bias ? -job->dmin[lane] : 0;
	store(c, p, 0);
	if (c->group_bias)
		settle(c, at.x, at.w, at.n, p);
}

static void fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		struct block_params *p)
{
	struct search_job job;
	if (effort == FIT_SEARCH && (!c->has_offset || c->group_bias) && n <= SEARCH_MAX_SUB) {
		search_lanes(c, x, w, n, n, &job);
		take(c, &job, 0, (struct group_at){ x, w, n }, p);
		return;
	}
	plain(c, x, n, p);
	if (effort == FIT_SEARCH)
		(c->has_offset ? fit_zero_point : fit_symmetric)(c, x, w, n, p);
}

static uint8_t *put_header(const struct codec *c, const struct block_params *p, uint8_t *out)
{
	store_u16(out, p->d);
	if (c->group_bias)
		store_u16(out + 2, p->dmin);
	else if (c->has_offset)
		out[2] = p->mn[0];
	return out + codec_group_header(c);
}

/* Collects codes low bits first and writes bytes as they fill. */
struct bit_writer {
	uint8_t *out;
	unsigned held, count;
};

static void put_bits(struct bit_writer *b, unsigned code, int bits)
{
	b->held |= code << b->count;
	b->count += (unsigned)bits;
	for (; b->count >= 8; b->count -= 8, b->held >>= 8)
		*b->out++ = (uint8_t)b->held;
}

static uint8_t *finish_bits(struct bit_writer *b)
{
	if (b->count)
		*b->out++ = (uint8_t)b->held;
	return b->out;
}

static void pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct bit_writer b = { .out = put_header(c, p, dst) };
	for (size_t i = 0; i < n; i++)
		put_bits(&b, codes[i], c->bits);
	finish_bits(&b);
}

static const uint8_t *get_header(const struct codec *c, const uint8_t *in, struct block_params *p)
{
	memset(p, 0, sizeof *p);
	p->d = load_u16(in);
	p->scale[0] = load_scale(c, p->d);
	if (c->group_bias) {
		p->dmin = load_u16(in + 2);
		p->offset[0] = load_scale(c, p->dmin);
	} else if (c->has_offset) {
		p->mn[0] = in[2];
		p->offset[0] = -(float)p->mn[0] * p->scale[0];
	}
	return in + codec_group_header(c);
}

static void unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const uint8_t *in = get_header(c, src, p);
	unsigned held = 0, count = 0, mask = (1u << c->bits) - 1;
	for (size_t i = 0; i < n; i++) {
		if (count < (unsigned)c->bits) {
			held |= (unsigned)*in++ << count;
			count += 8;
		}
		codes[i] = (uint8_t)(held & mask);
		held >>= c->bits;
		count -= (unsigned)c->bits;
	}
}

static void encode(const struct codec *c, const float *src, void *dst, size_t n)
{
	uint8_t *out = dst;
	for (size_t at = 0; at < n;) {
		size_t len = codec_block_len(c, at, n);
		struct block_params p;
		plain(c, src + at, len, &p);
		struct bit_writer b = { .out = put_header(c, &p, out) };
		for (size_t i = 0; i < len; i++)
			put_bits(&b, codec_round(c, p.scale[0], p.offset[0], src[at + i]), c->bits);
		out = finish_bits(&b);
		at += len;
	}
}

/* A row of symmetric groups of a fixed length, fitted from front to back, as many groups at once as there are lanes. */
struct group_row {
	const float *x, *w;
	size_t n, at;
	struct search_job job; /* of the lanes that `at` is in */
};

/* The parameters of the next group, and its length. */
static size_t next_group(const struct codec *c, struct group_row *r, struct block_params *p)
{
	size_t n = r->n, at = r->at, whole = n - n % c->block, step = (size_t)c->block * SEARCH_LANES;
	size_t len = at < whole ? c->block : n - at;
	if (at % step == 0 || at == whole)
		search_lanes(c, r->x + at, r->w ? r->w + at : NULL, len, at < whole ? whole - at : len, &r->job);
	take(c, &r->job, at < whole ? (int)(at % step / c->block) : 0, (struct group_at){ r->x + at, r->w ? r->w + at : NULL, len }, p);
	r->at += c->block;
	return len;
}

static void encode_search(const struct codec *c, const float *src, const float *w, void *dst, size_t n)
{
	uint8_t *out = dst, codes[SEARCH_MAX_SUB];
	struct group_row r = { .x = src, .w = w, .n = n };
	struct block_params p;
	for (size_t at = 0; at < n; at += c->block, out += c->block_bytes) {
		size_t len = next_group(c, &r, &p);
		codec_round_run(c, p.scale[0], p.offset[0], src + at, len, codes);
		pack(c, &p, codes, len, out);
	}
}

static void fit_row(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	struct group_row r = { .x = x, .w = w, .n = n };
	while (r.at < n)
		next_group(c, &r, p++);
}

/*
 * One group for the kernels, which take scale * (code - zero): the difference is exact, so there is one rounding, and the
 * value equals scale * code + offset wherever that is exact.
 */
static struct code_run group_at(const struct codec *c, const uint8_t *in)
{
	return (struct code_run){ .codes = in + codec_group_header(c), .bits = c->bits, .scale = load_scale(c, load_u16(in)),
				  .zero = (float)(c->has_offset ? in[2] : -c->code_bias) };
}

static size_t code_bytes(const struct codec *c, size_t n)
{
	return (n * (size_t)c->bits + 7) / 8;
}

static void decode(const struct codec *c, const void *src, float *dst, size_t n)
{
	const uint8_t *in = src;
	for (size_t at = 0, len; at < n; at += len) {
		struct code_run g = group_at(c, in);
		len = codec_block_len(c, at, n);
		kernels()->codes_decode(&g, dst + at, len);
		in = g.codes + code_bytes(c, len);
	}
}

/* scale * code is exact, so that there is one rounding here as well. */
static void decode_bias(const struct codec *c, const void *src, float *dst, size_t n)
{
	const uint8_t *in = src;
	uint8_t codes[128];
	for (size_t at = 0, len; at < n; at += len) {
		struct block_params p;
		struct code_run g = { .codes = in + codec_group_header(c), .bits = c->bits, .scale = load_scale(c, load_u16(in)) };
		len = codec_block_len(c, at, n);
		if (c->bits == 5 || c->bits == 6) {
			unpack(c, in, &p, codes, len);
			for (size_t i = 0; i < len; i++)
				dst[at + i] = g.scale * (float)codes[i];
		} else {
			kernels()->codes_decode(&g, dst + at, len);
		}
		float bias = load_scale(c, load_u16(in + 2));
		for (size_t i = 0; i < len; i++)
			dst[at + i] += bias;
		in = g.codes + code_bytes(c, len);
	}
}

static void dot(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows)
{
	const struct kernels *k = kernels();
	const uint8_t *in = src;
	for (size_t r = 0; r < rows; r++) {
		float lanes[16] = { 0 };
		for (size_t at = 0, len; at < n; at += len) {
			struct code_run g = group_at(c, in);
			len = codec_block_len(c, at, n);
			k->codes_dot(&g, x + at, len, lanes);
			in = g.codes + code_bytes(c, len);
		}
		y[r] = k->lanes_sum(lanes);
	}
}

#define GROUP_ROW(ID, NAME, BITS, GROUP, ZERO, BF16, SUMMARY) \
	const struct codec codec_##ID = { \
		.name = NAME, .summary = SUMMARY, .kind = CODEC_GROUP, .block = GROUP, \
		.block_bytes = GROUP ? 2 + ZERO + (GROUP * BITS + 7) / 8 : 0, .sub = GROUP, .ragged = true, \
		.has_offset = ZERO, .bits = BITS, .code_bias = ZERO ? 0 : -(1 << (BITS - 1)), .gguf_type = -1, \
		.group_scale = BF16, .decode = decode, .dot = dot, .encode = encode, .fit = fit, .pack = pack, \
		.unpack = unpack, \
		.store = store, .encode_search = GROUP && !ZERO ? encode_search : NULL, \
		.fit_row = GROUP && !ZERO ? fit_row : NULL };

#define SPAN_g32 "groups of 32"
#define SPAN_g64 "groups of 64"
#define SPAN_g128 "groups of 128"
#define SPAN_row "whole rows"
#define GROUP_ROWS(BITS, TAG, GROUP) \
	GROUP_ROW(int##BITS##_##TAG, "int" #BITS "-" #TAG, BITS, GROUP, 0, 0, \
		  SPAN_##TAG ", " #BITS " bits, f16 scale") \
	GROUP_ROW(int##BITS##_##TAG##_zp, "int" #BITS "-" #TAG "-zp", BITS, GROUP, 1, 0, \
		  SPAN_##TAG ", " #BITS " bits, f16 scale and zero point") \
	GROUP_ROW(int##BITS##_##TAG##_bf16, "int" #BITS "-" #TAG "-bf16", BITS, GROUP, 0, 1, \
		  SPAN_##TAG ", " #BITS " bits, bf16 scale") \
	GROUP_ROW(int##BITS##_##TAG##_zp_bf16, "int" #BITS "-" #TAG "-zp-bf16", BITS, GROUP, 1, 1, \
		  SPAN_##TAG ", " #BITS " bits, bf16 scale and zero point")

CODEC_GROUP_ROWS(GROUP_ROWS)

#define BIAS_ROW(ID, NAME, BITS, GROUP, BF16, SUMMARY) \
	const struct codec codec_##ID = { \
		.name = NAME, .summary = SUMMARY, .kind = CODEC_GROUP, .block = GROUP, .block_bytes = 4 + (GROUP * BITS + 7) / 8, \
		.sub = GROUP, .ragged = true, .has_offset = true, .group_bias = true, .bits = BITS, .gguf_type = -1, .group_scale = BF16, \
		.decode = decode_bias, .encode = encode, .fit = fit, .pack = pack, .unpack = unpack, .store = store, \
		.encode_search = encode_search, .fit_row = fit_row };
#define BIAS_ROWS(BITS, TAG, GROUP) \
	BIAS_ROW(int##BITS##_##TAG##_bias, "int" #BITS "-" #TAG "-bias", BITS, GROUP, 0, SPAN_##TAG ", " #BITS " bits, f16 scale and bias") \
	BIAS_ROW(int##BITS##_##TAG##_bias_bf16, "int" #BITS "-" #TAG "-bias-bf16", BITS, GROUP, 1, \
		 SPAN_##TAG ", " #BITS " bits, bf16 scale and bias")

CODEC_BIAS_ROWS(BIAS_ROWS)
