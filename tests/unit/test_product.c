#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "kernel/product.h"
#include "tensor/half.h"

/* How numbers are made: their size, how many bits they have, and what is special about them. */
struct kind {
	const char *name;
	int bits;               /* of the weights: 8 as bf16 has them, 16, 24 */
	bool outliers;          /* 1e4 here and there in x */
	bool cancels;           /* large products that cancel each other */
	float x, w;             /* sizes */
};

static const struct kind kinds[] = {
	{ "bf16", 8, false, false, 1, 1 },
	{ "two parts", 16, false, false, 1, 1 },
	{ "f32", 24, false, false, 1, 1 },
	{ "outliers", 24, true, false, 1, 1 },
	{ "outliers, bf16", 8, true, false, 1, 1 },
	{ "cancellation", 24, false, true, 1, 1 },
	{ "cancellation, bf16", 8, false, true, 1, 1 },
	{ "small", 24, false, false, 1e-11f, 1e-10f },
	{ "subnormal x", 24, false, false, 1e-41f, 1 },
	{ "subnormal w", 24, false, false, 1, 1e-41f },
	{ "large", 24, false, false, 1e18f, 1e18f },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* A row of x and one of w through memory of their own, so that a tool sees what is read past them. */
struct problem {
	size_t n, rows, cols;
	float *x, *w, *bias;
	uint8_t *bf16;
	bool usual;             /* no number so large or small that sgemm has to multiply it */
};

static float cut(float f, int bits)
{
	return f32_from_bits(f32_bits(f) & ~0u << (24 - bits));
}

static struct problem make(const struct kind *k, size_t n, size_t rows, size_t cols)
{
	struct rng r = { 7 };
	struct problem p = { n, rows, cols, malloc(n * cols * 4), malloc(rows * cols * 4), malloc(rows * 4), malloc(rows * cols * 2),
			     k->x > 1e-12f && k->w > 1e-12f && k->x < 1e12f };
	for (size_t i = 0; i < n * cols; i++) {
		p.x[i] = (float)rng_normal(&r) * k->x;
		if (k->outliers && i % 131 == 7)
			p.x[i] *= 1e4f;
		if (k->cancels && i % cols % 2)
			p.x[i] = -p.x[i - 1] * (1 + (float)(i % 5) * 0x1p-20f);
	}
	for (size_t i = 0; i < rows * cols; i++) {
		p.w[i] = cut((float)rng_normal(&r) * k->w, k->bits);
		if (k->cancels && i % cols % 2)
			p.w[i] = p.w[i - 1];
		p.bf16[2 * i] = (uint8_t)(f32_bits(p.w[i]) >> 16);
		p.bf16[2 * i + 1] = (uint8_t)(f32_bits(p.w[i]) >> 24);
	}
	for (size_t i = 0; i < rows; i++)
		p.bias[i] = 0.25f * (float)i * k->x * k->w;
	return p;
}

static void discard(struct problem *p)
{
	free(p->x);
	free(p->w);
	free(p->bias);
	free(p->bf16);
}

static void decode(const void *arg, size_t first, size_t n, float *out)
{
	const struct problem *p = arg;
	memcpy(out, p->w + first * p->cols, n * p->cols * sizeof *out);
}

/* Is there a row that does with instructions what the portable one does? */
static bool instructions(void)
{
	unsigned usable = 0;
	for (unsigned i = 0; products_row(i); i++)
		usable += products_row(i)->usable();
	return usable > 2;
}

static bool same(float a, float b)
{
	return a == b || (isnan(a) && isnan(b));
}

static size_t outputs(const struct problem *p)
{
	return p->n * (2 * p->rows - 1);
}

/* Two products that share x: with bias the whole, and without all rows but the last. sgemm sums by the shape of a matrix. */
static float *multiply(const struct product_row *row, const struct problem *p, enum product_form form, int threads)
{
	thread_set(threads);
	size_t floats = row->floats(p->n, p->rows, p->cols);
	float *scratch = malloc(floats * 4), *y = malloc(outputs(p) * 4);
	const void *data = form == PRODUCT_BF16 ? (const void *)p->bf16 : p->w;
	struct product_term t[2] = { { { p->rows, p->cols, form, data, decode, p }, p->bias, y },
				     { { p->rows - 1, p->cols, form, data, decode, p }, NULL, y + p->n * p->rows } };
	row->weights(&(struct product_job){ t, 2, p->x, p->n, scratch, floats });
	for (size_t i = 0; i < p->n; i++)
		for (size_t r = 0; row != &product_sgemm && p->usual && r + 1 < p->rows; r++)
			assert_true(same(y[i * p->rows + r], y[p->n * p->rows + i * (p->rows - 1) + r] + p->bias[r]));
	free(scratch);
	thread_set(0);
	return y;
}

/* Root mean square and largest of the errors, each against what its terms add up to without signs. */
struct error {
	double mean, most;
};

static struct error error_of(const struct problem *p, const float *y)
{
	struct error e = { 0, 0 };
	for (size_t i = 0; i < p->n; i++)
		for (size_t r = 0; r < p->rows; r++) {
			double sum = p->bias[r], size = fabs(sum) + 1e-300;
			for (size_t k = 0; k < p->cols; k++) {
				double d = (double)p->x[i * p->cols + k] * (double)p->w[r * p->cols + k];
				sum += d;
				size += fabs(d);
			}
			double d = fabs(sum - (double)y[i * p->rows + r]) / size;
			e.mean += d * d;
			e.most = d > e.most ? d : e.most;
		}
	e.mean = sqrt(e.mean / (double)(p->n * p->rows));
	return e;
}

/*
 * Every row's error against f64 is no larger than that of sgemm, in products large enough for its usual kernels (small ones
 * it may sum in more parts). The portable row has the bits of those with instructions, and is judged where there are none.
 */
static void accurate(void **state)
{
	(void)state;
	for (int i = 0; i < KINDS; i++) {
		struct problem p = make(&kinds[i], 32, 48, 1100);
		float *plain = multiply(&product_sgemm, &p, PRODUCT_CODED, 1);
		struct error least = error_of(&p, plain);
		const struct product_row *row;
		assert_true(least.mean < 1e-3);
		for (unsigned k = 0; (row = products_row(k)); k++) {
			if (!row->usable() || (row == &product_split && instructions()))
				continue;
			float *y = multiply(row, &p, kinds[i].bits == 8 ? PRODUCT_BF16 : PRODUCT_CODED, 1);
			struct error e = error_of(&p, y);
			if (e.mean > least.mean || e.most > 1.5 * least.most)
				fail_msg("%s, %s: %g (at most %g) is more than %g (%g)", row->name, kinds[i].name, e.mean, e.most, least.mean, least.most);
			free(y);
		}
		free(plain);
		discard(&p);
	}
}

/* The instructions give the bits of the portable version; neither threads nor the form of weights matter to any row. */
static void same_bits(void **state)
{
	(void)state;
	for (int i = 0; i < KINDS; i++) {
		struct problem p = make(&kinds[i], 5, 12, 520);
		float *portable = multiply(&product_split, &p, PRODUCT_F32, 1);
		const struct product_row *row;
		for (unsigned k = 0; (row = products_row(k)); k++) {
			if (!row->usable())
				continue;
			float *one = multiply(row, &p, PRODUCT_CODED, 1), *three = multiply(row, &p, PRODUCT_F32, 3);
			assert_memory_equal(one, three, outputs(&p) * 4);
			if (row != &product_sgemm)
				assert_memory_equal(one, portable, outputs(&p) * 4);
			free(one);
			free(three);
		}
		free(portable);
		discard(&p);
	}
}

/* Larger than what lies taken apart at once; every output is that of its row of x alone. */
static void cut_anyhow(void **state)
{
	enum { N = 700, ROWS = 1100, COLS = 40 };
	const struct product_row *row;
	struct problem p = make(&kinds[2], N, ROWS, COLS), some = p;
	(void)state;
	some.x += 333 * COLS;
	some.n = 3;
	for (unsigned k = 0; (row = products_row(k)); k++) {
		if (!row->usable() || row == &product_sgemm || row == &product_split)
			continue;
		float *all = multiply(row, &p, PRODUCT_CODED, 2), *three = multiply(row, &some, PRODUCT_CODED, 1);
		assert_memory_equal(all + 333 * ROWS, three, 3 * ROWS * 4);
		free(all);
		free(three);
	}
	discard(&p);
}

static float at(const float *a, size_t ld, bool t, size_t i, size_t k)
{
	return t ? a[k * ld + i] : a[i * ld + k];
}

/* C = alpha op(A) op(B) + beta C, all ways, beside what is not C. */
static void general(void **state)
{
	enum { M = 19, N = 21, K = 40, LD = 45 };
	static const float alphas[] = { 1, -1, 0.3f }, betas[] = { 0, 1, -0.7f };
	struct rng r = { 9 };
	float a[LD * LD], b[LD * LD], c[M * LD], d[M * LD];
	const struct product_row *row;
	(void)state;
	for (int i = 0; i < LD * LD; i++) {
		a[i] = (float)rng_normal(&r);
		b[i] = (float)rng_normal(&r);
	}
	for (int i = 0; i < M * LD; i++)
		c[i] = (float)rng_normal(&r);
	for (int mode = 0; mode < 12; mode++)
		for (unsigned k = 0; (row = products_row(k)); k++) {
			struct gemm g = { mode & 1, mode >> 1 & 1, M, N, K, alphas[mode / 4], a, LD, b, LD, betas[(mode / 4 + mode) % 3], d, LD };
			if (!row->usable())
				continue;
			memcpy(d, c, sizeof d);
			row->gemm(&g);
			for (size_t i = 0; i < M; i++)
				for (size_t j = 0; j < LD; j++) {
					double want = j < N ? (double)g.beta * c[i * LD + j] : c[i * LD + j];
					for (size_t q = 0; j < N && q < K; q++)
						want += (double)g.alpha * at(a, LD, g.ta, i, q) * at(b, LD, g.tb, q, j);
					assert_true(j < N ? fabs(d[i * LD + j] - want) < 2e-5 : d[i * LD + j] == c[i * LD + j]);
				}
		}
}

/* What is no number stays visible. */
static void not_numbers(void **state)
{
	const struct product_row *row;
	struct problem p = make(&kinds[0], 4, 40, 64);
	(void)state;
	p.w[3] = INFINITY;
	p.x[2 * 64 + 5] = NAN;
	for (unsigned k = 0; (row = products_row(k)); k++) {
		if (!row->usable())
			continue;
		float *y = multiply(row, &(struct problem){ 1, 40, 64, p.x, p.w, p.bias, p.bf16, false }, PRODUCT_CODED, 1);
		assert_false(isfinite(y[0]));
		assert_true(isfinite(y[1]) && isfinite(y[39]));
		free(y);
		y = malloc(4 * 40 * 4);
		row->gemm(&(struct gemm){ false, true, 4, 40, 64, 1, p.x, 64, p.w + 64, 64, 0, y, 40 });
		assert_true(isfinite(y[0]) && isnan(y[2 * 40]));
		free(y);
	}
	discard(&p);
}

static void chosen(void **state)
{
	(void)state;
	assert_true(products_select("sgemm"));
	assert_ptr_equal(products(), &product_sgemm);
	assert_true(products_select("split"));
	assert_false(products_select("abacus"));
	assert_ptr_equal(products(), &product_split);
	assert_true(products_select(NULL));
	assert_true(products() != &product_split);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accurate), cmocka_unit_test(same_bits), cmocka_unit_test(cut_anyhow),
		cmocka_unit_test(general), cmocka_unit_test(not_numbers), cmocka_unit_test(chosen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
