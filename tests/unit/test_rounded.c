/* Products with rounded activations: every row of the kernel table against the portable one, and that one against plain arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

enum { MOST = 256 * 5, ROWS = 6, TOKENS = 6 };

/* What ggml rounds to, written out: a block's scale, and the byte of every element. */
static float plain_rounding(const float *x, size_t n, int8_t *q, float *sum)
{
	float top = 0, first = 0;
	int total = 0;
	for (size_t i = 0; i < n; i++)
		if (fabsf(x[i]) > top) {
			top = fabsf(x[i]);
			first = x[i];
		}
	float inverse = !top ? 0 : n == 32 ? 127 / top : -127 / first;
	for (size_t i = 0; i < n; i++) {
		q[i] = (int8_t)lrintf(x[i] * inverse); /* half to even */
		total += q[i];
	}
	*sum = f32_from_f16(f16_from_f32(top / 127 * (float)total));
	return !top ? 0 : n == 32 ? f32_from_f16(f16_from_f32(top / 127)) : 1 / inverse;
}

static void rounding(const struct kernels *k)
{
	static float x[MOST];
	static struct rounded32 r32[MOST / 64];
	static struct rounded256 r256[MOST / 256];
	struct rng r = { 1 };
	int8_t q[256];
	float sum;
	for (int pass = 0; pass < 20; pass++) {
		for (size_t i = 0; i < MOST; i++)
			x[i] = (float)rng_normal(&r) * (rng_below(&r, 60) ? 1 : 30);
		if (pass % 3 == 0)
			memset(x + 32 * (size_t)pass, 0, 32 * sizeof *x);
		for (size_t i = 0; pass == 1 && i < 256; i++) /* halves: ties */
			x[i] = i % 32 ? (float)(int)(i % 32) - 15.5f : -127;
		size_t n = MOST - 32 * (size_t)(pass % 2);
		memset(r32, 0xee, sizeof r32);
		k->round_32(x, n, r32);
		for (size_t i = 0; i < n; i += 32) {
			const struct rounded32 *o = r32 + i / 64;
			size_t at = i % 64;
			float scale = plain_rounding(x + i, 32, q, &sum);
			assert_memory_equal(o->q + at, q, 32);
			for (size_t lane = at / 4; lane < at / 4 + 8; lane++) {
				assert_true(o->scale[lane] == scale && o->sum[lane] * 8 == sum);
				assert_int_equal(o->four[lane], o->q[4 * lane] + o->q[4 * lane + 1] + o->q[4 * lane + 2] + o->q[4 * lane + 3]);
			}
		}
		for (size_t i = 8; n % 64 && i < 16; i++)
			assert_true(r32[n / 64].scale[i] == 0 && r32[n / 64].sum[i] == 0 && r32[n / 64].q[4 * i] == 0);
		k->round_256(x, MOST, r256);
		for (size_t i = 0; i < MOST; i += 256) {
			assert_true(r256[i / 256].scale == plain_rounding(x + i, 256, q, &sum));
			assert_memory_equal(r256[i / 256].q, q, 256);
			for (int j = 0, s = 0; j < 256; j++) {
				s = j % 16 ? s + q[j] : q[j];
				assert_true(j % 16 < 15 || r256[i / 256].sum[j / 16] == s);
			}
		}
	}
}

/* What the bytes stand for. Minima are taken from ggml's rounded sum in blocks of 32. */
static double plain_product(const struct codec *c, const uint8_t *src, const float *x, size_t n)
{
	double sum = 0;
	uint8_t codes[256];
	int8_t q[256];
	for (size_t at = 0; at < n; at += c->block, src += c->block_bytes) {
		struct block_params p = { 0 };
		float rounded, scale = plain_rounding(x + at, c->block, q, &rounded);
		c->unpack(c, src, &p, codes, c->block);
		for (size_t i = 0; i < c->block; i++) {
			size_t sub = i / codec_sub_len(c, c->block);
			double level = c->levels ? (double)c->levels[codes[i]] : codes[i] + c->code_bias;
			sum += (double)p.scale[sub] * level * (double)scale * q[i];
			if (c->has_offset && c->block == 256)
				sum += (double)p.offset[sub] * (double)scale * q[i];
		}
		if (c->has_offset && c->block == 32)
			sum += (double)p.offset[0] * (double)rounded;
	}
	return sum;
}

static void products(const struct kernels *k, const struct kernels *s, const struct codec *c, struct rng *r)
{
	static uint8_t src[ROWS * MOST * 4], scratch[256];
	static float x[TOKENS * MOST], w[MOST], y[2][TOKENS * ROWS];
	static struct rounded32 r32[TOKENS * (MOST / 64 + 1)];
	static struct rounded256 r256[TOKENS * (MOST / 256)];
	size_t n = c->block * (1 + rng_below(r, MOST / c->block)), bytes = codec_row_bytes(c, n);
	size_t line = c->block == 32 ? (n + 63) / 64 : n / 256;
	bool wild = rng_below(r, 2);
	for (size_t i = 0; i < TOKENS * n; i++)
		x[i] = (float)rng_normal(r) * (rng_below(r, 60) ? 1 : 1e4f);
	for (size_t row = 0; row < ROWS; row++) {
		for (size_t i = 0; i < n; i++)
			w[i] = (float)rng_normal(r);
		const struct row_job job = { .x = w, .n = n, .effort = FIT_RTN };
		codec_encode_row(c, &job, scratch, src + row * bytes);
	}
	for (size_t i = 0; wild && i < ROWS * bytes; i++) /* every code and scale there is, not numbers among them */
		src[i] = (uint8_t)rng_u64(r);
	struct rounded_product p = { .src = src, .n = n, .rows = 1 + rng_below(r, ROWS), .tokens = 1 + rng_below(r, TOKENS), .stride = ROWS };
	for (int pass = 0; pass < 2; pass++) {
		const struct kernels *row = pass ? s : k;
		memset(r32, 0xee, sizeof r32);
		for (size_t t = 0; t < p.tokens; t++)
			if (c->block == 32)
				row->round_32(x + t * n, n, r32 + t * line);
			else
				row->round_256(x + t * n, n, r256 + t * line);
		p.x = c->block == 32 ? (void *)r32 : (void *)r256;
		p.y = y[pass];
		memset(y[pass], 0xee, sizeof y[pass]);
		row->block[c->kernel].product(&p);
	}
	for (size_t i = 0; i < TOKENS * ROWS; i++)
		if (f32_bits(y[0][i]) != f32_bits(y[1][i]) && !(isnan(y[0][i]) && isnan(y[1][i])))
			fail_msg("%s %s n=%zu: element %zu is %a, not %a", k->name, c->name, n, i, (double)y[0][i], (double)y[1][i]);
	for (size_t t = 0; k == s && !wild && t < p.tokens; t++)
		for (size_t row = 0; row < p.rows; row++) {
			double want = plain_product(c, src + row * bytes, x + t * n, n), size = 0;
			for (size_t i = 0; i < n; i++)
				size += 8 * fabs((double)x[t * n + i]); /* codes and minima may be larger than the values */
			if (fabs((double)y[0][t * ROWS + row] - want) > 3e-7 * size)
				fail_msg("%s n=%zu: %g, not %g", c->name, n, (double)y[0][t * ROWS + row], want);
		}
}

static void rows_agree(void **state)
{
	const struct kernels *s = kernels_row(0), *k;
	(void)state;
	for (unsigned i = 0; (k = kernels_row(i)); i++) {
		struct rng r = { 2 };
		if (!k->usable())
			continue;
		rounding(k);
		for (unsigned t = 0; t < codec_row_count; t++)
			for (int pass = 0; codec_rows[t]->kind == CODEC_BLOCK && k->block[codec_rows[t]->kernel].product && pass < 40; pass++)
				products(k, s, codec_rows[t], &r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_agree),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
