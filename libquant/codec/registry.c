#include <string.h>

#include "base/bytes.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

/* One line per codec; help and documentation list them in this order. */
const struct codec *const codec_rows[] = {
	&codec_f32,
	&codec_f16,
	&codec_bf16,
	&codec_f64,
	&codec_e4m3,
	&codec_e5m2,
	&codec_i8,
	&codec_i16,
	&codec_i32,
	&codec_i64,
	&codec_u8,
	&codec_u16,
	&codec_u32,
	&codec_u64,
	&codec_boolean,
	&codec_q8_0,
	&codec_q4_0,
	&codec_q4_1,
	&codec_q5_0,
	&codec_q5_1,
	&codec_q2_k,
	&codec_q3_k,
	&codec_q4_k,
	&codec_q5_k,
	&codec_q6_k,
	&codec_iq4_nl,
	&codec_iq4_xs,
	&codec_mxfp4,
	&codec_nvfp4,
	&codec_q1_0,
	&codec_q2_0,
	&codec_tq1_0,
	&codec_tq2_0,
	&codec_iq1_s,
	&codec_iq1_m,
	&codec_iq2_xxs,
	&codec_iq2_xs,
	&codec_iq2_s,
	&codec_iq3_xxs,
	&codec_iq3_s,
#define ROW(BITS, TAG, GROUP) \
	&codec_int##BITS##_##TAG, &codec_int##BITS##_##TAG##_zp, \
	&codec_int##BITS##_##TAG##_bf16, &codec_int##BITS##_##TAG##_zp_bf16,
	CODEC_GROUP_ROWS(ROW)
#undef ROW
#define ROW(BITS, TAG, GROUP) &codec_int##BITS##_##TAG##_bias, &codec_int##BITS##_##TAG##_bias_bf16,
	CODEC_BIAS_ROWS(ROW)
#undef ROW
};
const unsigned codec_row_count = sizeof codec_rows / sizeof *codec_rows;

/* Names that other tools use for the same bytes. */
static const struct {
	const char *alias, *name;
} aliases[] = {
	{ "float32", "f32" },
	{ "fp32", "f32" },
	{ "float16", "f16" },
	{ "fp16", "f16" },
	{ "half", "f16" },
	{ "bfloat16", "bf16" },
	{ "float64", "f64" },
	{ "float8_e4m3fn", "f8_e4m3" },
	{ "float8_e5m2", "f8_e5m2" },
	{ "int8-channel", "int8-row" },
	{ "int4-channel", "int4-row" },
};

static char fold(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c == '-' ? '_' : c;
}

static bool same_name(const char *a, const char *b)
{
	for (; *a && fold(*a) == fold(*b); a++, b++)
		;
	return !*a && !*b;
}

const struct codec *codec_find(const char *name)
{
	for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
		if (same_name(aliases[i].alias, name))
			name = aliases[i].name;
	for (unsigned i = 0; i < codec_row_count; i++)
		if (same_name(codec_rows[i]->name, name))
			return codec_rows[i];
	return NULL;
}

const struct codec *codec_from_gguf(int type)
{
	for (unsigned i = 0; type >= 0 && i < codec_row_count; i++)
		if (codec_rows[i]->gguf_type == type)
			return codec_rows[i];
	return NULL;
}

const struct codec *codec_from_safetensors(const char *dtype)
{
	for (unsigned i = 0; i < codec_row_count; i++)
		if (codec_rows[i]->safetensors && strcmp(codec_rows[i]->safetensors, dtype) == 0)
			return codec_rows[i];
	return NULL;
}

/* Bytes of a block of n elements; 0 when the size overflows. */
static uint64_t block_bytes(const struct codec *c, uint64_t n)
{
	uint64_t bits;
	if (c->kind != CODEC_GROUP)
		return c->block_bytes;
	if (mul_overflows(n, (uint64_t)c->bits, &bits) || bits > UINT64_MAX - 64)
		return 0;
	return (uint64_t)codec_group_header(c) + (bits + 7) / 8;
}

uint64_t codec_row_bytes(const struct codec *c, uint64_t cols)
{
	uint64_t block = c->block ? c->block : cols, bytes;
	if (!cols)
		return 0;
	if (cols % block && !c->ragged)
		return 0;
	uint64_t one = block_bytes(c, block);
	if (!one || mul_overflows(cols / block, one, &bytes))
		return 0;
	if (cols % block && add_overflows(bytes, block_bytes(c, cols % block), &bytes))
		return 0;
	return bytes;
}

const struct codec *codec_for_row(const struct codec *c, uint64_t cols)
{
	while (!codec_row_bytes(c, cols) && c->fallback) {
		const struct codec *next = codec_find(c->fallback);
		if (!next)
			break;
		c = next;
	}
	return codec_row_bytes(c, cols) ? c : &codec_f16;
}

double codec_bits_per_weight(const struct codec *c, uint64_t cols)
{
	if (c->block)
		return 8.0 * c->block_bytes / c->block;
	return cols ? 8.0 * (double)codec_row_bytes(c, cols) / (double)cols : c->bits;
}

/*
 * Rounds to the nearest integer, half to even, without a call or a change of
 * rounding mode: at 1.5 * 2^23 floats are one apart. Only for |x| < 2^22.
 */
static float round_even(float x)
{
	float y = x + 12582912.0f;
	return y - 12582912.0f;
}

uint8_t codec_round(const struct codec *c, float scale, float offset, float x)
{
	int last = (1 << c->bits) - 1;
	/* written so that NaN, from a zero scale or from outside, gives the code nearest zero */
	float t = scale != 0 ? (x - offset) / scale : 0;
	if (!(t == t))
		t = 0;
	if (!c->levels) {
		float lo = (float)c->code_bias, hi = (float)(last + c->code_bias);
		t = t < lo ? lo : t > hi ? hi : t;
		return (uint8_t)((int)round_even(t) - c->code_bias);
	}
	uint8_t best = 0;
	float least = __builtin_inff();
	for (int k = 0; k <= last; k++) {
		float miss = c->levels[k] > t ? c->levels[k] - t : t - c->levels[k];
		if (miss < least) {
			least = miss;
			best = (uint8_t)k;
		}
	}
	return best;
}

struct code_grid codec_grid(const struct codec *c, float scale, float offset)
{
	return (struct code_grid){ .scale = scale, .offset = offset, .lo = (float)c->code_bias,
				   .hi = (float)((1 << c->bits) - 1 + c->code_bias), .levels = c->levels, .bits = c->bits };
}

void codec_round_run(const struct codec *c, float scale, float offset, const float *x, size_t n, uint8_t *codes)
{
	size_t whole = n & ~(size_t)15;
	struct code_grid g = codec_grid(c, scale, offset);
	if (whole && c->levels)
		kernels()->round_table(x, whole, &g, codes);
	else if (whole)
		kernels()->round_uniform(x, whole, &g, codes);
	for (size_t i = whole; i < n; i++)
		codes[i] = codec_round(c, scale, offset, x[i]);
}

void codec_round_block(const struct codec *c, const struct block_params *p, const float *x, const float *w, size_t n, uint8_t *codes)
{
	size_t sub = codec_sub_len(c, n);
	for (size_t i = 0; i < n && !c->together; i += sub)
		codec_round_run(c, p->scale[i / sub], p->offset[i / sub], x + i, n - i < sub ? n - i : sub, codes + i);
	for (size_t i = 0; i < n && c->together; i += c->together) {
		struct code_target t = { p->scale[i / sub], p->offset[i / sub], x + i, w ? w + i : NULL };
		c->round(c, &t, codes + i);
	}
}

void codec_block_decode(const struct codec *c, const void *src, float *dst, size_t n)
{
	kernels()->block[c->kernel].decode(src, dst, n);
}

void codec_block_dot(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows)
{
	kernels()->block[c->kernel].dot(src, x, n, y, rows);
}

void codec_fit_row(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	if (c->fit_row) {
		c->fit_row(c, x, w, n, p);
		return;
	}
	for (size_t at = 0, len; at < n; at += len) {
		len = codec_block_len(c, at, n);
		c->fit(c, x + at, w ? w + at : NULL, len, FIT_SEARCH, p++);
	}
}

void codec_encode_row(const struct codec *c, const struct row_job *row, uint8_t *scratch, void *dst)
{
	const float *x = row->x, *w = row->w;
	size_t n = row->n;
	if (!codec_quantizes(c) || (row->effort == FIT_RTN && c->encode)) {
		if (c->encode)
			c->encode(c, x, dst, n);
		return;
	}
	if (row->effort == FIT_SEARCH && c->encode_search) {
		c->encode_search(c, x, w, dst, n);
		return;
	}
	uint8_t *out = dst;
	for (size_t at = 0; at < n;) {
		size_t len = codec_block_len(c, at, n);
		struct block_params p = { 0 };
		c->fit(c, x + at, w ? w + at : NULL, len, row->effort, &p);
		codec_round_block(c, &p, x + at, w && row->effort == FIT_SEARCH ? w + at : NULL, len, scratch);
		c->pack(c, &p, scratch, len, out);
		out += block_bytes(c, len);
		at += len;
	}
}
