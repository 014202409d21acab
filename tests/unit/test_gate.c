/* Gates: coverage of the intervals and rates of verdicts, by simulation. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/judge/gate.h"

static void student_table(void **state)
{
	(void)state;
	/* from printed tables of the t distribution */
	const struct {
		double p, dof, t;
	} rows[] = { { 0.95, 1, 6.3138 }, { 0.95, 5, 2.0150 }, { 0.975, 10, 2.2281 }, { 0.99, 30, 2.4573 }, { 0.975, 1e6, 1.95996 }, { 0.5, 3, 0 } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_true(fabs(student_quantile(rows[i].p, rows[i].dof) - rows[i].t) < 2e-4);
}

struct coverage {
	double lower, upper; /* share of samples whose bound held */
};

static struct coverage cover(double (*draw)(struct rng *), double truth, size_t n, int trials)
{
	struct rng r = { 11 };
	struct coverage c = { 0 };
	struct err e;
	double x[100];
	for (int t = 0; t < trials; t++) {
		struct interval v;
		for (size_t i = 0; i < n; i++)
			x[i] = draw(&r);
		assert_int_equal(interval_mean(x, n, 0.95, &v, &e), ERR_OK);
		c.lower += v.lower <= truth;
		c.upper += v.upper >= truth;
	}
	c.lower /= trials;
	c.upper /= trials;
	return c;
}

/* Window means of KL look like the first; the others are worse than what has been seen. */
static double some_tail(struct rng *r)
{
	return exp(0.6 * rng_normal(r));
}

static double long_tail(struct rng *r)
{
	return exp(rng_normal(r));
}

static double half_gamma(struct rng *r)
{
	double z = rng_normal(r);
	return z * z / 2;
}

static void means_are_covered(void **state)
{
	(void)state;
	/* 800 samples: two standard deviations of a share of .95 are .015 */
	static const size_t windows[] = { 20, 50, 100 };
	for (size_t i = 0; i < 3; i++) {
		struct coverage c = cover(rng_normal, 0, windows[i], 800);
		assert_true(c.lower > 0.93 && c.upper > 0.93 && c.lower < 0.98 && c.upper < 0.98);
		c = cover(some_tail, exp(0.18), windows[i], 800);
		assert_true(c.lower > 0.93 && c.upper > 0.915);
		c = cover(long_tail, exp(0.5), windows[i], 800);
		assert_true(c.lower > 0.93 && c.upper > (windows[i] == 20 ? 0.875 : 0.915)); /* t alone: .82, .86 */
		c = cover(half_gamma, 0.5, windows[i], 800);
		assert_true(c.lower > 0.93 && c.upper > 0.915);
	}
	struct coverage c = cover(rng_normal, 0, 3, 800); /* t only */
	assert_true(c.lower > 0.93 && c.upper > 0.93 && c.upper < 0.97);
}

static void fill(struct measurement *m, struct rng *r, double shift, double spread)
{
	for (size_t w = 0; w < m->windows; w++) {
		double level = exp(0.6 * rng_normal(r));
		for (size_t i = 0; i < m->scored; i++) {
			size_t at = w * m->scored + i;
			m->reference_nll[at] = (float)(2 + rng_normal(r));
			m->nll[at] = (float)(m->reference_nll[at] + shift + spread * rng_normal(r));
			m->kl[at] = (float)(0.01 * level * -log(1 - rng_unit(r)));
			m->same_top[at] = rng_unit(r) < 0.97;
		}
	}
}

/* The share of samples in which the 95 % bounds of the 99th percentile hold the truth. */
static void quantile_cover(size_t windows, double spread, double least)
{
	enum { S = 40, ALL = 4000, TRIALS = 150 };
	struct rng r = { 3 };
	struct err e;
	static float v[100 * S], big[ALL * S];
	for (size_t w = 0; w < ALL; w++) {
		double level = exp(spread * rng_normal(&r));
		for (size_t i = 0; i < S; i++)
			big[w * S + i] = (float)(level * -log(1 - rng_unit(&r)));
	}
	struct interval truth, one;
	assert_int_equal(interval_quantile(&(struct window_values){ big, ALL, S }, 0.99, 0.95, &truth, &e), ERR_OK);
	int low = 0, high = 0;
	for (int t = 0; t < TRIALS; t++) {
		for (size_t w = 0; w < windows; w++)
			memcpy(v + w * S, big + rng_below(&r, ALL) * S, S * sizeof *v);
		assert_int_equal(interval_quantile(&(struct window_values){ v, windows, S }, 0.99, 0.95, &one, &e), ERR_OK);
		low += one.lower <= truth.estimate;
		high += one.upper >= truth.estimate;
	}
	assert_true(low > 0.93 * TRIALS && high > least * TRIALS);
}

static void quantiles_are_covered(void **state)
{
	(void)state;
	quantile_cover(20, 0.4, 0.93);
	quantile_cover(50, 0.4, 0.93);
	quantile_cover(100, 0.4, 0.93);
	quantile_cover(20, 0.8, 0.87); /* resamples alone: .70 */
	quantile_cover(50, 0.8, 0.90);
	quantile_cover(100, 0.8, 0.90);
}

/* The same weights: nothing differs, so no resample of windows may raise an alarm. */
static void unchanged_always_passes(void **state)
{
	(void)state;
	struct measurement m;
	struct err e;
	struct rng r = { 5 };
	const struct {
		enum gate_metric metric;
		double limit;
	} gates[] = { { GATE_PPL_RATIO, 1.0001 }, { GATE_KL, 1e-6 }, { GATE_KL_P99, 1e-5 }, { GATE_TOP1, 0.999 } };
	assert_int_equal(measurement_init(&m, 30, 20, true, &e), ERR_OK);
	for (int t = 0; t < 200; t++) {
		for (size_t i = 0; i < m.windows * m.scored; i++) {
			/* another batch size and other kernels: the last digits differ */
			m.reference_nll[i] = (float)(2 + rng_normal(&r));
			m.nll[i] = m.reference_nll[i] + 1e-6f * (float)rng_normal(&r);
			m.kl[i] = 1e-9f * (float)rng_unit(&r);
			m.same_top[i] = 1;
		}
		for (size_t g = 0; g < sizeof gates / sizeof *gates; g++) {
			struct gate_result result;
			assert_int_equal(gate_decide(&m, gates[g].metric, gates[g].limit, 0.95, &result, &e), ERR_OK);
			assert_int_equal(result.verdict, GATE_PASS);
		}
	}
	measurement_release(&m);
}

/* A true figure on the limit: wrong verdicts of either kind are as rare as stated. Far from it: always decided. */
static void verdicts_keep_their_rate(void **state)
{
	(void)state;
	struct measurement m;
	struct err e;
	struct rng r = { 9 };
	int count[2][3] = { { 0 } };
	enum { TRIALS = 300 };
	assert_int_equal(measurement_init(&m, 40, 20, true, &e), ERR_OK);
	for (int t = 0; t < TRIALS; t++) {
		struct gate_result g;
		fill(&m, &r, 0.01, 0.1);
		assert_int_equal(gate_decide(&m, GATE_PPL_RATIO, exp(0.01), 0.95, &g, &e), ERR_OK);
		count[0][g.verdict]++;
		assert_true(g.verdict != GATE_UNDECIDED || g.windows_needed == 0 || g.windows_needed > m.windows);
		assert_int_equal(gate_decide(&m, GATE_KL, 0.01 * exp(0.18), 0.95, &g, &e), ERR_OK);
		count[1][g.verdict]++;
		assert_int_equal(gate_decide(&m, GATE_PPL_RATIO, 1.1, 0.95, &g, &e), ERR_OK);
		assert_int_equal(g.verdict, GATE_PASS);
		assert_int_equal(gate_decide(&m, GATE_KL, 0.002, 0.95, &g, &e), ERR_OK);
		assert_int_equal(g.verdict, GATE_FAIL);
		assert_int_equal(gate_decide(&m, GATE_TOP1, 0.9, 0.95, &g, &e), ERR_OK);
		assert_int_equal(g.verdict, GATE_PASS);
		assert_int_equal(gate_decide(&m, GATE_TOP1, 0.999, 0.95, &g, &e), ERR_OK);
		assert_int_equal(g.verdict, GATE_FAIL);
	}
	for (int k = 0; k < 2; k++) {
		assert_true(count[k][GATE_FAIL] <= 0.08 * TRIALS);
		assert_true(count[k][GATE_PASS] <= 0.10 * TRIALS);
		assert_true(count[k][GATE_UNDECIDED] > 0);
	}
	measurement_release(&m);
}

static void what_cannot_be_decided(void **state)
{
	(void)state;
	struct measurement m;
	struct err e;
	struct gate_result g;
	assert_int_equal(measurement_init(&m, 1, 10, true, &e), ERR_OK);
	assert_int_equal(gate_decide(&m, GATE_KL, 0.1, 0.95, &g, &e), ERR_OK);
	assert_int_equal(g.verdict, GATE_UNDECIDED); /* one window */
	assert_true(g.windows_needed > 1);
	measurement_release(&m);
	assert_int_equal(measurement_init(&m, 4, 10, false, &e), ERR_OK);
	assert_int_equal(gate_decide(&m, GATE_KL, 0.1, 0.95, &g, &e), ERR_USAGE);
	assert_non_null(strstr(e.message, "--max-kl"));
	assert_int_equal(gate_decide(&m, GATE_PPL, 2, 0.95, &g, &e), ERR_OK);
	assert_int_equal(g.verdict, GATE_PASS);
	measurement_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(student_table),
		cmocka_unit_test(means_are_covered),
		cmocka_unit_test(quantiles_are_covered),
		cmocka_unit_test(unchanged_always_passes),
		cmocka_unit_test(verdicts_keep_their_rate),
		cmocka_unit_test(what_cannot_be_decided),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
