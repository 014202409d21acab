/* The figures of verify against values worked out by hand and by brute force. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/judge/measure.h"

static void row_by_hand(void **state)
{
	(void)state;
	/* p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL(p||q) = 1/2 ln 2 - 1/4 ln 2 = ln 2 / 4 */
	float p[3] = { logf(2), 0, 0 }, q[3] = { 5, 5 + logf(2), 5 };
	struct row_figures f;
	assert_true(measure_row(q, p, 3, 1, &f));
	assert_true(fabs(f.kl - log(2) / 4) < 1e-6);
	assert_true(fabs(f.nll - log(2)) < 1e-6);
	assert_true(fabs(f.reference_nll - log(4)) < 1e-6);
	assert_false(f.same_top);
	assert_true(measure_row(p, p, 3, 0, &f));
	assert_true(f.kl == 0 && f.same_top);
}

static void row_refuses_nan(void **state)
{
	(void)state;
	float good[2] = { 0, 1 }, nan[2] = { NAN, 1 }, inf[2] = { 0, INFINITY };
	struct row_figures f;
	assert_false(measure_row(nan, NULL, 2, 0, &f));
	assert_false(measure_row(inf, NULL, 2, 0, &f));
	assert_false(measure_row(good, nan, 2, 0, &f));
	assert_true(measure_row(good, NULL, 2, 0, &f));
}

static void windows_of_llama(void **state)
{
	(void)state;
	int32_t ids[11] = { 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 };
	struct windows w;
	struct err e = { 0 };
	assert_int_equal(windows_cut(&w, ids, 11, &(struct window_options){ PROTOCOL_LLAMA, 4, 0, 1 }, &e), ERR_OK);
	assert_int_equal(w.count, 2); /* the tail of three tokens is dropped */
	assert_int_equal(w.tokens[4], 1);
	assert_int_equal(w.tokens[5], 9);
	assert_int_equal(windows_scored(&w), 1); /* of positions 0..3 only position 2 scores: ctx/2 .. ctx-2 */
	windows_release(&w);
	assert_int_equal(windows_cut(&w, ids, 11, &(struct window_options){ PROTOCOL_FULL, 4, 1, 1 }, &e), ERR_OK);
	assert_int_equal(w.count, 1);
	assert_int_equal(windows_scored(&w), 3);
	windows_release(&w);
	assert_int_equal(windows_cut(&w, ids, 3, &(struct window_options){ PROTOCOL_FULL, 4, 0, 1 }, &e), ERR_INPUT);
	windows_release(&w);
}

/* Over many samples whose windows share an offset, the interval must cover the true mean as often as it says. */
static void clustered_error_covers(void **state)
{
	(void)state;
	enum { W = 40, S = 8, TRIALS = 2000 };
	struct rng r = { 7 };
	float v[W * S];
	int inside = 0;
	for (int t = 0; t < TRIALS; t++) {
		for (int w = 0; w < W; w++) {
			double shared = rng_normal(&r);
			for (int i = 0; i < S; i++)
				v[w * S + i] = (float)(shared + 0.5 * rng_normal(&r));
		}
		double error, mean = clustered_mean(v, W, S, &error);
		inside += fabs(mean) < 2.0227 * error; /* Student t, 39 degrees of freedom, 95 % */
	}
	double coverage = (double)inside / TRIALS;
	assert_true(coverage > 0.93 && coverage < 0.97);
}

static void summary_by_hand(void **state)
{
	(void)state;
	struct measurement m;
	struct summary s;
	struct err e = { 0 };
	assert_int_equal(measurement_init(&m, 2, 2, true, &e), ERR_OK);
	float nll[4] = { 1, 2, 3, 4 }, ref[4] = { 1, 2, 3, 2 }, kl[4] = { 0, 0.5f, 0, 1.5f };
	for (int i = 0; i < 4; i++) {
		m.nll[i] = nll[i];
		m.reference_nll[i] = ref[i];
		m.kl[i] = kl[i];
		m.same_top[i] = i != 3;
	}
	assert_int_equal(measurement_summary(&m, &s, &e), ERR_OK);
	assert_true(fabs(s.perplexity - exp(2.5)) < 1e-9);
	assert_true(fabs(s.perplexity_error - exp(2.5) * sqrt(1.25 / 3)) < 1e-9);
	assert_true(fabs(s.perplexity_ratio - exp(0.5)) < 1e-9);
	assert_true(fabs(s.kl_mean - 0.5) < 1e-9 && fabs(s.kl_mean_error - 0.25) < 1e-9);
	assert_true(fabs(s.top1 - 0.75) < 1e-9 && fabs(s.kl_max - 1.5) < 1e-9);
	measurement_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(row_by_hand),
		cmocka_unit_test(row_refuses_nan),
		cmocka_unit_test(windows_of_llama),
		cmocka_unit_test(clustered_error_covers),
		cmocka_unit_test(summary_by_hand),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
