#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "calib/quant/correction.h"

enum { N = 6, ROWS = 5, TOKENS = 40 };
static struct err e;

struct sample {
	float w[ROWS * N];
	double s[TOKENS][N], t[TOKENS][N], r[TOKENS][ROWS];
	struct moments m;
};

static void make(struct sample *x, uint64_t seed)
{
	struct rng g = { seed };
	assert_int_equal(moments_init(&x->m, N, ROWS, true, &e), 0);
	for (int i = 0; i < ROWS * N; i++)
		x->w[i] = (float)((double)rng_u64(&g) * 0x1p-63 - 1);
	for (int k = 0; k < TOKENS; k++) {
		for (int i = 0; i < N; i++) {
			x->t[k][i] = (double)rng_u64(&g) * 0x1p-63 - 1;
			x->s[k][i] = 0.8 * x->t[k][i] + 0.3 * x->t[k][(i + 1) % N];
		}
		for (int r = 0; r < ROWS; r++)
			x->r[k][r] = (double)rng_u64(&g) * 0x1p-64;
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				x->m.own[i * N + j] += x->s[k][i] * x->s[k][j] / TOKENS;
				x->m.cross[i * N + j] += (x->t[k][i] - x->s[k][i]) * x->s[k][j] / TOKENS;
			}
		for (int r = 0; r < ROWS; r++)
			for (int j = 0; j < N; j++)
				x->m.residual[r * N + j] += x->r[k][r] * x->s[k][j] / TOKENS;
	}
	x->m.tokens = TOKENS;
}

/* E |W t + r - V s|^2, token by token. */
static double error_of(const struct sample *x, const float *v)
{
	double sum = 0;
	for (int k = 0; k < TOKENS; k++)
		for (int r = 0; r < ROWS; r++) {
			double d = x->r[k][r];
			for (int i = 0; i < N; i++)
				d += (double)x->w[r * N + i] * x->t[k][i] - (double)v[r * N + i] * x->s[k][i];
			sum += d * d / TOKENS;
		}
	return sum;
}

static void correction_is_the_minimum(void **state)
{
	struct sample x = { 0 };
	struct correction a;
	float v[ROWS * N], moved[ROWS * N];
	(void)state;
	make(&x, 1);
	assert_int_equal(correction_init(&a, &x.m, 1, 1, 1e-9, &e), 0);
	assert_int_equal(correction_weights(&a, &(struct some_rows){ x.w, ROWS, 1 }, 1, v, &e), 0);
	double best = error_of(&x, v);
	assert_true(best < error_of(&x, x.w));
	for (int i = 0; i < ROWS * N; i++)
		for (int sign = -1; sign <= 1; sign += 2) {
			memcpy(moved, v, sizeof v);
			moved[i] += (float)sign * 0.01f;
			assert_true(error_of(&x, moved) > best);
		}
	/* half of the way is the mean of both; none is where it was */
	assert_int_equal(correction_weights(&a, &(struct some_rows){ x.w, ROWS, 1 }, 0.5, moved, &e), 0);
	for (int i = 0; i < ROWS * N; i++)
		assert_true(fabsf(moved[i] - 0.5f * (v[i] + x.w[i])) < 1e-6f);
	assert_int_equal(correction_weights(&a, &(struct some_rows){ x.w, ROWS, 1 }, 0, moved, &e), 0);
	assert_memory_equal(moved, x.w, sizeof moved);
	correction_release(&a);
	moments_release(&x.m);
}

static void judge_is_the_error_token_by_token(void **state)
{
	struct sample x = { 0 };
	struct judged j;
	float v[ROWS * N], d[ROWS * N];
	(void)state;
	make(&x, 2);
	for (int i = 0; i < ROWS * N; i++) {
		d[i] = 0.1f * sinf((float)i);
		v[i] = x.w[i] + d[i];
	}
	struct correction a = { .m = &x.m, .input = 1, .residual = 1 };
	assert_int_equal(correction_judge(&a, &(struct some_rows){ x.w, ROWS, 1 }, d, &j, &e), 0);
	assert_true(fabs(j.square - 2 * j.linear - (error_of(&x, v) - error_of(&x, x.w))) < 1e-6);
	/* every second row alone */
	float w2[3 * N], d2[3 * N];
	double sum = 0;
	for (int r = 0; r < 3; r++) {
		struct judged one;
		memcpy(w2 + r * N, x.w + 2 * r * N, N * sizeof *w2);
		memcpy(d2 + r * N, d + 2 * r * N, N * sizeof *d2);
		float only[ROWS * N] = { 0 };
		memcpy(only + 2 * r * N, d + 2 * r * N, N * sizeof *only);
		assert_int_equal(correction_judge(&a, &(struct some_rows){ x.w, ROWS, 1 }, only, &one, &e), 0);
		sum += one.square - 2 * one.linear;
	}
	assert_int_equal(correction_judge(&a, &(struct some_rows){ w2, 3, 2 }, d2, &j, &e), 0);
	assert_true(fabs(j.square - 2 * j.linear - sum) < 1e-6);
	moments_release(&x.m);
}

static void parts_combine_to_the_whole(void **state)
{
	struct sample x = { 0 }, y = { 0 };
	(void)state;
	make(&x, 3);
	make(&y, 4);
	double want = 0.75 * x.m.own[7] + 0.25 * y.m.own[7], residual = 0.75 * x.m.residual[3] + 0.25 * y.m.residual[3];
	moments_combine(&x.m, 0.75, &y.m, 0.25);
	assert_true(fabs(x.m.own[7] - want) < 1e-12 && fabs(x.m.residual[3] - residual) < 1e-12);
	assert_int_equal(x.m.tokens, 2 * TOKENS);
	moments_release(&x.m);
	moments_release(&y.m);
}

static void singular_moments_are_said(void **state)
{
	struct moments m;
	struct correction a;
	(void)state;
	assert_int_equal(moments_init(&m, N, ROWS, false, &e), 0);
	m.own[0] = 1;
	m.own[N + 1] = -1;
	assert_int_equal(correction_init(&a, &m, 1, 1, 0, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "singular"));
	moments_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(correction_is_the_minimum),
		cmocka_unit_test(judge_is_the_error_token_by_token),
		cmocka_unit_test(parts_combine_to_the_whole),
		cmocka_unit_test(singular_moments_are_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
