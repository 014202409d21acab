/* Every row of the kernel table against the portable one, bit for bit, and that one against plain arithmetic. */
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

enum { LONGEST = 1031, BLOCKS = 7 };

static bool same_bits(float a, float b)
{
	return (isnan(a) && isnan(b)) || f32_bits(a) == f32_bits(b);
}

static void assert_same(const char *row, const char *what, size_t n, const float *a, const float *b, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!same_bits(a[i], b[i]))
			fail_msg("%s %s n=%zu: element %zu is %a, not %a", row, what, n, i, (double)a[i], (double)b[i]);
}

/* Mostly ordinary numbers, some of every kind that has a rule of its own. */
static void fill(struct rng *r, float *x, size_t n, bool special)
{
	for (size_t i = 0; i < n; i++) {
		x[i] = (float)(rng_normal(r) * 8);
		uint64_t k = special ? rng_below(r, 12) : 12;
		if (k == 0)
			x[i] = f32_from_bits((uint32_t)rng_u64(r));
		else if (k == 1)
			x[i] = f32_from_f16((uint16_t)rng_u64(r));
		else if (k == 2)
			x[i] = -0.0f;
		else if (k == 3) /* half way between two halves */
			x[i] = f32_from_bits(f32_bits(f32_from_f16((uint16_t)rng_below(r, 0x7000))) + 0x1000);
	}
}

/* Lengths that cover every tail. */
static size_t next_length(size_t n)
{
	return n < 67 ? n + 1 : n < LONGEST ? LONGEST : 0;
}

static void conversions(const struct kernels *k, const struct kernels *s)
{
	static uint8_t raw[2 * 65536 + 1], a[2 * LONGEST + 3], b[2 * LONGEST + 3];
	static float x[65536], y[65536];
	struct rng r = { 1 };
	uint8_t *odd = raw + 1; /* not aligned */
	for (unsigned i = 0; i < 65536; i++)
		store_u16(odd + 2 * i, (uint16_t)i);
	k->f32_from_f16(odd, x, 65536);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(f32_bits(x[i]), f32_bits(f32_from_f16((uint16_t)i)));
	k->f32_from_bf16(odd, x, 65536);
	for (unsigned i = 0; i < 65536; i++)
		assert_int_equal(f32_bits(x[i]), f32_bits(f32_from_bf16((uint16_t)i)));
	for (size_t n = 1; n; n = next_length(n)) {
		fill(&r, x, n, true);
		memset(a, 0xee, sizeof a);
		memset(b, 0xee, sizeof b);
		k->f16_from_f32(x, a + 1, n);
		s->f16_from_f32(x, b + 1, n);
		assert_memory_equal(a, b, sizeof a);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(load_u16(a + 1 + 2 * i), f16_from_f32(x[i]));
		k->bf16_from_f32(x, a + 1, n);
		s->bf16_from_f32(x, b + 1, n);
		assert_memory_equal(a, b, sizeof a);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(load_u16(a + 1 + 2 * i), bf16_from_f32(x[i]));
		memset(y, 0xee, (n + 1) * sizeof *y);
		k->f32_from_f16(a + 1, y, n);
		assert_int_equal(f32_bits(y[n]), 0xeeeeeeee); /* nothing is written past the end */
	}
}

static void by_the_formula(const struct codec *c, const uint8_t *raw, const float *got, size_t n)
{
	static uint8_t codes[256 * BLOCKS];
	float want[256];
	for (size_t at = 0, len; at < n; at += len) {
		struct block_params p = { 0 };
		len = codec_block_len(c, at, n);
		c->unpack(c, raw, &p, codes, len);
		for (size_t i = 0; i < len; i++) {
			size_t sub = i / codec_sub_len(c, len);
			float level = c->levels ? c->levels[codes[i]] : (float)((int)codes[i] + c->code_bias);
			/* a group subtracts its zero point before the one rounding */
			want[i % 256] = c->kind == CODEC_GROUP && c->has_offset && !c->group_bias ? p.scale[0] * (float)((int)codes[i] - p.mn[0])
					: c->has_offset ? p.scale[sub] * level + p.offset[sub] : p.scale[sub] * level;
			assert_same("formula", c->name, at + i, got + at + i, want + i % 256, 1);
		}
		raw += codec_row_bytes(c, len);
	}
}

/* Every format against its unpack function and the formula of codec.h, and its dot product against decoding first. */
static void decoders(const struct kernels *k, const struct kernels *s)
{
	enum { ROWS = 6 }; /* four at once and a rest */
	static uint8_t raw[256 * 2 * BLOCKS * ROWS + 1];
	static float x[256 * BLOCKS], y[256 * BLOCKS + 1], z[256 * BLOCKS + 1];
	struct rng r = { 2 };
	for (unsigned t = 0; t < codec_row_count; t++) {
		const struct codec *c = codec_rows[t];
		size_t blocks = c->block ? BLOCKS : 1;
		for (int round = 0; c->dot && round < 40; round++) {
			size_t n = c->block > 1 ? (size_t)c->block * (blocks - (size_t)round % 3) : 256 + (size_t)round;
			if (c->ragged)
				n -= (size_t)round % 19;
			for (size_t i = 0; i < sizeof raw; i++)
				raw[i] = (uint8_t)rng_u64(&r);
			fill(&r, x, n, false);
			y[n] = z[n] = 7;
			kernels_select(k->name);
			float dot[ROWS], plain[ROWS];
			c->dot(c, raw + 1, x, n, dot, ROWS);
			for (size_t row = ROWS; row-- > 0;) { /* the first one stays in y */
				c->decode(c, raw + 1 + row * codec_row_bytes(c, n), y, n);
				plain[row] = kernels()->dot(y, x, n);
			}
			assert_same(k->name, c->name, n, dot, plain, ROWS);
			kernels_select(s->name);
			c->decode(c, raw + 1, z, n);
			assert_same(k->name, c->name, n, y, z, n + 1);
			if (codec_quantizes(c))
				by_the_formula(c, raw + 1, y, n);
		}
	}
	kernels_select(NULL);
}

static void sums(const struct kernels *k, const struct kernels *s)
{
	static float a[LONGEST], b[LONGEST], x[LONGEST + 1], y[LONGEST + 1];
	struct rng r = { 3 };
	for (size_t n = 1; n; n = next_length(n))
		for (int special = 0; special < 2; special++) {
			fill(&r, a, n, special);
			fill(&r, b, n, special);
			float u[4], v[4];
			for (int pass = 0; pass < 2; pass++) {
				const struct kernels *q = pass ? s : k;
				float *out = pass ? v : u, *z = pass ? y : x;
				out[0] = q->dot(a, b, n);
				out[1] = q->sum_squares(a, n);
				out[2] = q->max(a, n);
				memcpy(z, a, n * sizeof *z);
				z[n] = 7;
				q->axpy(z, 0.37f, b, n);
			}
			assert_same(k->name, "sums", n, u, v, 3);
			assert_same(k->name, "axpy", n, x, y, n + 1);
			for (int pass = 0; pass < 2; pass++) {
				const struct kernels *q = pass ? s : k;
				float *z = pass ? y : x;
				memcpy(z, a, n * sizeof *z);
				(pass ? v : u)[3] = q->exp_sum(z, 1.5f, n);
			}
			assert_same(k->name, "exp", n, x, y, n + 1);
			assert_same(k->name, "exp_sum", n, u + 3, v + 3, 1);
			for (int pass = 0; pass < 2; pass++) {
				const struct kernels *q = pass ? s : k;
				float *z = pass ? y : x;
				memcpy(z, a, n * sizeof *z);
				q->silu_mul(z, b, n);
			}
			assert_same(k->name, "silu_mul", n, x, y, n + 1);
		}
}

static void grids(const struct kernels *k, const struct kernels *s)
{
	static float x[LONGEST], w[LONGEST];
	const struct code_grid grid = { .scale = -0.9f, .lo = -8, .hi = 7 };
	struct rng r = { 4 };
	for (size_t n = 1; n; n = next_length(n))
		for (int weighted = 0; weighted < 2; weighted++) {
			float u[3], v[3];
			fill(&r, x, n, false);
			for (size_t i = 0; i < n; i++)
				w[i] = (float)rng_unit(&r);
			for (int pass = 0; pass < 2; pass++) {
				const struct kernels *q = pass ? s : k;
				q->grid_scale(x, weighted ? w : NULL, n, &grid, pass ? v : u);
			}
			assert_same(k->name, "grid", n, u, v, 3);
			double sum[3] = { 0 };
			for (size_t i = 0; i < n; i++) {
				double f = weighted ? (double)w[i] : 1, q = rint((double)(x[i] * (1 / -0.9f)));
				q = q < -8 ? -8 : q > 7 ? 7 : q;
				sum[0] += f * (x[i] + 0.9 * q) * (x[i] + 0.9 * q);
				sum[1] += f * x[i] * q;
				sum[2] += f * q * q;
			}
			for (int i = 0; i < 3; i++)
				assert_true(fabs(sum[i] - (double)u[i]) <= 1e-4 * (1 + fabs(sum[i])));
		}
}

/* The plain rules: the same on every row, and as one would write them. */
static void plain_rules(const struct kernels *k, const struct kernels *s)
{
	float x[64];
	uint8_t codes[64], same[64];
	struct rng r = { 9 };
	for (int pass = 0; pass < 200; pass++) {
		size_t n = 16 * (1 + rng_u64(&r) % 4);
		fill(&r, x, n, pass % 2);
		float u[2], v[2], inv = pass % 3 ? 9.5f : -0.3f;
		k->extremes(x, n, &u[0], &u[1]);
		s->extremes(x, n, &v[0], &v[1]);
		assert_same(k->name, "extremes", n, u, v, 2);
		float lo = 0, hi = 0;
		for (size_t i = 0; i < n; i++) {
			float a = x[i] == x[i] ? x[i] : 0;
			lo = i && lo < a ? lo : a;
			hi = i && hi > a ? hi : a;
		}
		assert_true(u[0] == lo && u[1] == hi);
		k->round_away(x, n, inv, codes);
		s->round_away(x, n, inv, same);
		assert_memory_equal(codes, same, n);
		for (size_t i = 0; i < n; i++) {
			float t = x[i] * inv, q = t == t ? roundf(t < -127 ? -127 : t > 127 ? 127 : t) : 0;
			assert_int_equal(codes[i], 128 + (int)q);
		}
		const struct code_grid grid = { .scale = 1 / inv, .offset = 0.25f, .lo = -8, .hi = 7 };
		k->round_down(x, n, &grid, codes);
		s->round_down(x, n, &grid, same);
		assert_memory_equal(codes, same, n);
		for (size_t i = 0; i < n; i++) {
			float t = (x[i] - 0.25f) * (1 / grid.scale) + 8.5f;
			assert_int_equal(codes[i], !(t > 0) ? 0 : t < 15 ? (int)t : 15);
		}
	}
}

static void rows_agree(void **state)
{
	const struct kernels *s = kernels_row(0), *k;
	(void)state;
	assert_string_equal(s->name, "scalar");
	for (unsigned i = 0; (k = kernels_row(i)); i++) {
		if (!k->usable())
			continue;
		conversions(k, s);
		decoders(k, s);
		sums(k, s);
		grids(k, s);
		plain_rules(k, s);
	}
}

static void rows_are_complete(void **state)
{
	const struct kernels *k;
	(void)state;
	for (unsigned i = 0; (k = kernels_row(i)); i++)
		for (size_t at = 0; at < sizeof *k; at += sizeof(void (*)(void))) {
			void (*f)(void);
			size_t in = at - offsetof(struct kernels, block);
			bool optional = at >= offsetof(struct kernels, block) && in < sizeof k->block &&
					in % sizeof *k->block == offsetof(struct block_kernel, product);
			memcpy(&f, (const char *)k + at, sizeof f);
			assert_true(f != NULL || optional);
		}
}

static void selection(void **state)
{
	const struct kernels *k;
	(void)state;
	assert_non_null(kernels());
	assert_false(kernels_select("abacus"));
	for (unsigned i = 0; (k = kernels_row(i)); i++) {
		assert_int_equal(kernels_select(k->name), k->usable());
		if (k->usable())
			assert_ptr_equal(kernels(), k);
	}
	assert_true(kernels_select("scalar"));
	assert_true(kernels_select("auto"));
	k = kernels();
	assert_true(kernels_select("scalar"));
	assert_true(kernels_select(NULL));
	assert_ptr_equal(kernels(), k);
}

/* Distance in steps of the float grid; a result may be subnormal or zero. */
static double ulps(float got, double want)
{
	float w = (float)want;
	if (got == w)
		return 0;
	double step = (double)nextafterf(w, INFINITY) - (double)w;
	return fabs((double)got - want) / step;
}

static void exponential_is_accurate(void **state)
{
	const struct kernels *k = kernels();
	(void)state;
	for (float x = -110; x < 89; x += 0.00390625f * 1.013f) {
		float y = x;
		assert_true(k->exp_sum(&y, 0, 1) == y);
		if (exp((double)x) < 3.4e38)
			assert_true(ulps(y, exp((double)x)) <= 2);
		else
			assert_true(y > 3.3e38f);
		float g = x, one = 1;
		k->silu_mul(&g, &one, 1);
		assert_true(fabs((double)g - (double)x / (1 + exp(-(double)x))) <= 1e-6 * fabs((double)x) + 1e-44);
	}
	float edge[] = { -INFINITY, INFINITY, NAN, 0, -1e30f, 1e30f };
	k->exp_sum(edge, 0, 6);
	assert_true(edge[0] == 0 && isinf(edge[1]) && isnan(edge[2]) && edge[3] == 1 && edge[4] == 0 && isinf(edge[5]));
}

static void sums_are_right(void **state)
{
	static float a[LONGEST], b[LONGEST];
	const struct kernels *k = kernels();
	struct rng r = { 5 };
	(void)state;
	assert_true(k->dot(a, b, 0) == 0 && k->sum_squares(a, 0) == 0);
	for (size_t n = 1; n; n = next_length(n)) {
		double dot = 0, squares = 0, most = -INFINITY, size = 0;
		fill(&r, a, n, false);
		fill(&r, b, n, false);
		for (size_t i = 0; i < n; i++) {
			dot += (double)a[i] * b[i];
			size += fabs((double)a[i] * b[i]);
			squares += (double)a[i] * a[i];
			most = a[i] > most ? a[i] : most;
		}
		assert_true(fabs(dot - k->dot(a, b, n)) <= 1e-5 * size);
		assert_true(fabs(squares - k->sum_squares(a, n)) <= 1e-5 * squares);
		assert_true(most == k->max(a, n));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_complete),
		cmocka_unit_test(rows_agree),
		cmocka_unit_test(exponential_is_accurate),
		cmocka_unit_test(sums_are_right),
		cmocka_unit_test(selection),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
