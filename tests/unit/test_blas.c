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
#include "kernel/blas.h"

enum { M = 7, N = 5, K = 9, PAD = 3 };

static void noise(struct rng *r, double *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = rng_normal(r);
}

static void near(double a, double b, double tolerance)
{
	if (!(fabs(a - b) <= tolerance))
		fail_msg("%.17g is not %.17g", a, b);
}

/* op(A)[i][k] of a row-major matrix, perhaps transposed. */
static double at(const double *a, size_t ld, bool t, size_t i, size_t k)
{
	return t ? a[k * ld + i] : a[i * ld + k];
}

static void products(void **state)
{
	struct rng r = { 1 };
	(void)state;
	for (int mode = 0; mode < 4; mode++) {
		bool ta = mode & 1, tb = mode >> 1;
		size_t lda = (ta ? M : K) + PAD, ldb = (tb ? K : N) + PAD, ldc = N + PAD;
		double a[16 * 16], b[16 * 16], c[16 * 16], d[16 * 16];
		float fa[16 * 16], fb[16 * 16], fc[16 * 16];
		noise(&r, a, 256);
		noise(&r, b, 256);
		noise(&r, c, 256);
		memcpy(d, c, sizeof c);
		for (int i = 0; i < 256; i++) {
			fa[i] = (float)a[i];
			fb[i] = (float)b[i];
			fc[i] = (float)c[i];
		}
		blas_dgemm(ta, tb, M, N, K, 1.5, a, lda, b, ldb, -0.5, d, ldc);
		blas_gemm(ta, tb, M, N, K, 1.5f, fa, lda, fb, ldb, -0.5f, fc, ldc);
		for (size_t i = 0; i < M; i++)
			for (size_t j = 0; j < ldc; j++) {
				double want = c[i * ldc + j];
				if (j < N) {
					want *= -0.5;
					for (size_t k = 0; k < K; k++)
						want += 1.5 * at(a, lda, ta, i, k) * at(b, ldb, tb, k, j);
				}
				near(d[i * ldc + j], want, 1e-12);
				near((double)fc[i * ldc + j], want, 1e-4);
			}
	}
}

static void gram(void **state)
{
	struct rng r = { 2 };
	float a[K * (N + PAD)], c[N * (N + PAD)];
	(void)state;
	for (size_t i = 0; i < K * (N + PAD); i++)
		a[i] = (float)rng_normal(&r);
	for (size_t i = 0; i < N * (N + PAD); i++)
		c[i] = 1;
	blas_syrk(N, K, 2, a, N + PAD, 3, c, N + PAD);
	for (size_t i = 0; i < N; i++)
		for (size_t j = 0; j < N + PAD; j++) {
			double want = 3;
			for (size_t k = 0; k < K; k++)
				want += j <= i ? 2 * (double)a[k * (N + PAD) + i] * a[k * (N + PAD) + j] : 0;
			near((double)c[i * (N + PAD) + j], j <= i ? want : 1, 1e-4);
		}
}

/* A random positive definite matrix [n, n] with row stride ld; cells past n are 42. */
static void positive(struct rng *r, size_t n, double *a, size_t ld)
{
	double g[32 * 32];
	noise(r, g, n * n);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < ld; j++) {
			a[i * ld + j] = j < n ? (i == j) : 42;
			for (size_t k = 0; j < n && k < n; k++)
				a[i * ld + j] += g[i * n + k] * g[j * n + k];
		}
}

static void cholesky(void **state)
{
	enum { SIZE = 12, LD = SIZE + PAD, RHS = 4 };
	struct rng r = { 3 };
	double a[SIZE * LD], l[SIZE * LD], inverse[SIZE * LD], x[SIZE * LD], b[SIZE * LD];
	(void)state;
	positive(&r, SIZE, a, LD);
	memcpy(l, a, sizeof a);
	assert_int_equal(blas_cholesky(SIZE, l, LD), 0);
	for (size_t i = 0; i < SIZE; i++)
		for (size_t j = 0; j <= i; j++) {
			double sum = 0;
			for (size_t k = 0; k <= j; k++)
				sum += l[i * LD + k] * l[j * LD + k];
			near(sum, a[i * LD + j], 1e-10);
		}
	memcpy(inverse, l, sizeof l);
	assert_int_equal(blas_cholesky_inverse(SIZE, inverse, LD), 0);
	noise(&r, b, SIZE * LD);
	memcpy(x, b, sizeof b);
	assert_int_equal(blas_cholesky_solve(SIZE, RHS, l, LD, x, LD), 0);
	for (size_t i = 0; i < SIZE; i++) {
		for (size_t j = 0; j < SIZE; j++) {
			double sum = 0;
			for (size_t k = 0; k < SIZE; k++)
				sum += a[i * LD + k] * inverse[k * LD + j];
			near(sum, i == j, 1e-9);
		}
		for (size_t j = 0; j < LD; j++) {
			double sum = 0;
			for (size_t k = 0; k < SIZE; k++)
				sum += a[i * LD + k] * x[k * LD + j];
			near(j < RHS ? sum : x[i * LD + j], b[i * LD + j], 1e-9);
		}
		near(l[i * LD + SIZE], 42, 0);
		near(inverse[i * LD + SIZE], 42, 0);
	}
	a[5 * LD + 5] = -1;
	assert_int_equal(blas_cholesky(SIZE, a, LD), 6);
}

static void eigen(void **state)
{
	enum { SIZE = 10, LD = SIZE + PAD };
	struct rng r = { 4 };
	double a[SIZE * LD], v[SIZE * LD], w[SIZE];
	(void)state;
	positive(&r, SIZE, a, LD);
	memcpy(v, a, sizeof a);
	assert_int_equal(blas_eigen(SIZE, v, LD, w), 0);
	for (size_t e = 0; e < SIZE; e++) {
		assert_true(e == 0 || w[e - 1] <= w[e]);
		for (size_t i = 0; i < SIZE; i++) {
			double av = 0, dot = 0;
			for (size_t k = 0; k < SIZE; k++) {
				av += a[i * LD + k] * v[e * LD + k];
				dot += v[i * LD + k] * v[e * LD + k];
			}
			near(av, w[e] * v[e * LD + i], 1e-9);
			near(dot, i == e, 1e-12);
		}
	}
}

static void check_svd(size_t m, size_t n)
{
	struct rng r = { 5 };
	double a[200], copy[200], u[200], s[20], vt[200];
	size_t k = m < n ? m : n;
	noise(&r, a, m * n);
	memcpy(copy, a, sizeof a);
	assert_int_equal(blas_svd(m, n, a, u, s, vt), 0);
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++) {
			double sum = 0;
			for (size_t q = 0; q < k; q++)
				sum += u[i * k + q] * s[q] * vt[q * n + j];
			near(sum, copy[i * n + j], 1e-12);
		}
	for (size_t p = 0; p < k; p++) {
		assert_true(s[p] >= 0 && (!p || s[p] <= s[p - 1]));
		for (size_t q = 0; q < k; q++) {
			double uu = 0, vv = 0;
			for (size_t i = 0; i < m; i++)
				uu += u[i * k + p] * u[i * k + q];
			for (size_t j = 0; j < n; j++)
				vv += vt[p * n + j] * vt[q * n + j];
			near(uu, p == q, 1e-12);
			near(vv, p == q, 1e-12);
		}
	}
}

static void svd(void **state)
{
	(void)state;
	check_svd(13, 6);
	check_svd(6, 13);
	check_svd(8, 8);
	check_svd(1, 5);
}

struct shared {
	const float *a, *b;
	float *c;
};
enum { BIG = 96 };

static void one_product(void *arg, size_t item, int worker)
{
	struct shared *s = arg;
	(void)worker;
	blas_gemm(false, true, BIG, BIG, BIG, 1, s->a, BIG, s->b, BIG, 0, s->c + item * BIG * BIG, BIG);
}

/* Products inside a parallel loop neither hang nor disturb each other. */
static void inside_threads(void **state)
{
	enum { COUNT = 24 };
	struct rng r = { 6 };
	static float a[BIG * BIG], b[BIG * BIG], c[COUNT * BIG * BIG];
	struct shared s = { a, b, c };
	(void)state;
	for (size_t i = 0; i < BIG * BIG; i++) {
		a[i] = (float)rng_normal(&r);
		b[i] = (float)rng_normal(&r);
	}
	blas_set_threads(2);
	thread_set(4);
	thread_for(COUNT, one_product, &s);
	for (size_t i = 1; i < COUNT; i++)
		assert_memory_equal(c, c + i * BIG * BIG, sizeof a);
	double want = 0;
	for (size_t k = 0; k < BIG; k++)
		want += (double)a[k] * b[BIG + k];
	near((double)c[1], want, 1e-4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products), cmocka_unit_test(gram), cmocka_unit_test(cholesky),
		cmocka_unit_test(eigen), cmocka_unit_test(svd), cmocka_unit_test(inside_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
