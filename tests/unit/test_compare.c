/* Paired differences, Holm's adjustment, the Pareto front and the choice, against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/judge/variants.h"
#include "calib/judge/interval.h"

static bool near(double a, double b)
{
	return fabs(a - b) <= 1e-9 * (1 + fabs(b));
}

static void holm_by_hand(void **state)
{
	(void)state;
	/* sorted .005 .01 .03 .04: times 4 3 2 1 = .02 .03 .06 .04, made monotone: .02 .03 .06 .06 */
	double p[4] = { 0.01, 0.04, 0.03, 0.005 }, want[4] = { 0.03, 0.06, 0.06, 0.02 }, got[4];
	assert_int_equal(holm_adjust(p, 4, got, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_true(near(got[i], want[i]));
	double some[3] = { 0.9, NAN, 0.6 };
	assert_int_equal(holm_adjust(some, 3, got, NULL), 0);
	assert_true(got[0] == 1 && isnan(got[1]) && got[2] == 1);
	assert_int_equal(holm_adjust(NULL, 0, NULL, NULL), 0);
}

static void tail_by_table(void **state)
{
	(void)state;
	/* Student's table: P(T > 2.228) = .025 with 10 degrees of freedom, P(T > 12.706) = .025 with 1 */
	assert_true(fabs(student_tail(2.228139, 10) - 0.025) < 1e-6);
	assert_true(fabs(student_tail(12.70620, 1) - 0.025) < 1e-6);
	assert_true(near(student_tail(0, 5), 0.5));
}

/* n variants over 8 windows of 4 tokens; variant v has KL base + v * step, with the windows' own noise shared by all. */
static void fill(struct measurement *m, size_t n, double step, double own_noise)
{
	struct rng r = { 7 };
	for (size_t v = 0; v < n; v++)
		assert_int_equal(measurement_init(&m[v], 8, 4, true, NULL), 0);
	for (size_t i = 0; i < 32; i++) {
		double shared = rng_unit(&r);
		for (size_t v = 0; v < n; v++)
			m[v].kl[i] = (float)(1 + shared + step * (double)v + own_noise * rng_unit(&r));
	}
}

static void pairs_take_out_what_windows_share(void **state)
{
	(void)state;
	struct measurement m[3];
	const struct measurement *view[3] = { &m[0], &m[1], &m[2] };
	struct compare_pair *p;
	size_t n;
	fill(m, 3, 0.05, 0.01);
	assert_int_equal(compare_pairs(view, 3, 0.05, &p, &n, NULL), 0);
	assert_int_equal(n, 3);
	for (size_t k = 0; k < n; k++) {
		assert_int_equal(compare_pair_index(p[k].a, p[k].b, 3), k);
		assert_int_equal(compare_pair_index(p[k].b, p[k].a, 3), k);
		/* the windows' own spread is twenty times the step, but it is common to all */
		assert_true(p[k].significant && p[k].difference < -0.04 && p[k].p <= p[k].p_holm);
	}
	free(p);
	/* a variant against itself */
	view[1] = &m[0];
	assert_int_equal(compare_pairs(view, 2, 0.05, &p, &n, NULL), 0);
	assert_true(p[0].p == 1 && !p[0].significant);
	free(p);
	/* one window cannot decide */
	for (int v = 0; v < 3; v++)
		m[v].windows = 1;
	view[1] = &m[1];
	assert_int_equal(compare_pairs(view, 2, 0.05, &p, &n, NULL), 0);
	assert_true(isnan(p[0].p) && isnan(p[0].p_holm) && !p[0].significant);
	free(p);
	assert_int_equal(compare_pairs(view, 1, 0.05, &p, &n, NULL), 0);
	assert_true(!p && !n);
	for (int v = 0; v < 3; v++)
		measurement_release(&m[v]);
}

/* Under no difference at all, a family of ten pairs has a false alarm in at most one experiment in twenty. */
static void pairs_raise_few_false_alarms(void **state)
{
	(void)state;
	struct rng r = { 11 };
	struct measurement m[5];
	const struct measurement *view[5];
	int alarms = 0;
	enum { RUNS = 400 };
	for (size_t v = 0; v < 5; v++) {
		assert_int_equal(measurement_init(&m[v], 12, 2, true, NULL), 0);
		view[v] = &m[v];
	}
	for (int run = 0; run < RUNS; run++) {
		for (size_t v = 0; v < 5; v++)
			for (size_t w = 0; w < 12; w++) { /* tokens of a window move together */
				float x = (float)(rng_unit(&r) + rng_unit(&r));
				m[v].kl[2 * w] = m[v].kl[2 * w + 1] = x;
			}
		struct compare_pair *p;
		size_t n;
		bool any = false;
		assert_int_equal(compare_pairs(view, 5, 0.05, &p, &n, NULL), 0);
		for (size_t k = 0; k < n; k++)
			any = any || p[k].significant;
		free(p);
		alarms += any;
	}
	/* 20 expected; 36 is more than three and a half standard deviations above */
	assert_true(alarms <= 36);
	for (size_t v = 0; v < 5; v++)
		measurement_release(&m[v]);
}

static const struct candidate some[] = {
	{ .size = 100, .kl = 0.001, .kl_bound = 0.002, .seconds = 3 },
	{ .size = 60, .kl = 0.010, .kl_bound = 0.012, .seconds = 2 },
	{ .size = 70, .kl = 0.020, .kl_bound = 0.022, .seconds = 1 },  /* beaten by the one before */
	{ .size = 40, .kl = 0.100, .kl_bound = 0.120, .seconds = 4 },
};

static void front(void **state)
{
	(void)state;
	bool f[4];
	pareto_front(some, 4, f);
	assert_true(f[0] && f[1] && !f[2] && f[3]);
	struct candidate twins[2] = { some[0], some[0] };
	pareto_front(twins, 2, f);
	assert_true(f[0] && f[1]);
}

static void choices(void **state)
{
	(void)state;
	struct choice c;
	c = choose(some, 4, &(struct choice_limits){ .max_kl = 0.05 });
	assert_int_equal(c.index, 1); /* the smallest inside */
	c = choose(some, 4, &(struct choice_limits){ .max_size = 65 });
	assert_int_equal(c.index, 1); /* the nearest that fits */
	c = choose(some, 4, &(struct choice_limits){ .max_size = 200, .max_kl = 0.5 });
	assert_int_equal(c.index, 3);
	c = choose(some, 4, &(struct choice_limits){ .max_kl = 0.05, .fastest = true });
	assert_int_equal(c.index, 2);
	c = choose(some, 4, &(struct choice_limits){ .max_kl = 0.011 });
	assert_int_equal(c.index, 0); /* the estimate of 1 is inside, its bound is not */
	c = choose(some, 4, &(struct choice_limits){ .max_size = 30, .max_kl = 0.001 });
	assert_int_equal(c.index, CHOICE_NONE);
	assert_true(near(c.size_excess, 10) && near(c.kl_excess, 0.001));
	assert_true(c.smallest == 3 && c.nearest == 0);
	c = choose(some, 4, &(struct choice_limits){ .max_size = 50, .max_kl = 0.05 });
	assert_int_equal(c.index, CHOICE_NONE); /* each can be met alone */
	assert_true(c.size_excess == 0 && c.kl_excess == 0);
	struct candidate unsure = some[0];
	unsure.kl_bound = NAN;
	assert_int_equal(choose(&unsure, 1, &(struct choice_limits){ .max_kl = 1 }).index, CHOICE_NONE);
	assert_int_equal(choose(NULL, 0, &(struct choice_limits){ .max_kl = 1 }).index, CHOICE_NONE);
}

/* The figures of the side-by-side visitor are those of verify's, bit for bit. */
static void same_figures_as_verify(void **state)
{
	(void)state;
	enum { VOCAB = 50, N = 6 };
	static float logits[3][N * VOCAB];
	int32_t target[N];
	struct rng r = { 3 };
	for (int k = 0; k < 3; k++)
		for (int i = 0; i < N * VOCAB; i++)
			logits[k][i] = (float)(6 * rng_unit(&r));
	for (int i = 0; i < N; i++)
		target[i] = (int32_t)rng_below(&r, VOCAB);
	const float *view[3] = { logits[0], logits[1], logits[2] };
	struct eval_slice s = { .window = 4, .n = N, .vocab = VOCAB, .target = target, .logits = view };
	struct measurement a, b, both;
	struct measurement *list[2] = { &a, &b };
	assert_int_equal(measurement_init(&a, 1, N, true, NULL), 0);
	assert_int_equal(measurement_init(&b, 1, N, true, NULL), 0);
	assert_int_equal(measurement_init(&both, 1, N, true, NULL), 0);
	assert_int_equal(compare_visit(&(struct compare_arg){ list, 2, 4 }, &s, NULL), 0);
	for (size_t v = 0; v < 2; v++) {
		struct measure_arg arg = { .m = &both, .model = v + 1, .reference = 0, .first_window = 4 };
		assert_int_equal(measure_visit(&arg, &s, NULL), 0);
		assert_memory_equal(list[v]->nll, both.nll, N * sizeof(float));
		assert_memory_equal(list[v]->reference_nll, both.reference_nll, N * sizeof(float));
		assert_memory_equal(list[v]->kl, both.kl, N * sizeof(float));
		assert_memory_equal(list[v]->same_top, both.same_top, N);
	}
	logits[2][3] = NAN;
	assert_int_equal(compare_visit(&(struct compare_arg){ list, 2, 4 }, &s, NULL), ERR_GATE);
	measurement_release(&a);
	measurement_release(&b);
	measurement_release(&both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holm_by_hand), cmocka_unit_test(tail_by_table),
		cmocka_unit_test(pairs_take_out_what_windows_share), cmocka_unit_test(pairs_raise_few_false_alarms),
		cmocka_unit_test(front), cmocka_unit_test(choices), cmocka_unit_test(same_figures_as_verify),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
