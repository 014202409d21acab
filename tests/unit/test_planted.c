/* Regressions planted into a real model: gates catch them, and the model itself passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/judge/baseline.h"
#include "calib/judge/gate.h"
#include "calib/run/loaded.h"
#include "calib/run/text.h"

enum { CTX = 128, WINDOWS = 10 };
static struct loaded model, changed;
static struct windows w;

static int setup(void **state)
{
	(void)state;
	struct token_ids ids;
	struct err e;
	if (loaded_open(&model, "examples/demo", &e) || loaded_open(&changed, "examples/demo", &e) ||
	    text_tokens(model.tokenizer, "examples/demo.eval.txt", &ids, &e) ||
	    windows_cut(&w, ids.id, ids.count,
			&(struct window_options){ PROTOCOL_LLAMA, CTX, WINDOWS, tokenizer_bos(model.tokenizer) }, &e))
		return -1;
	token_ids_release(&ids);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	windows_release(&w);
	loaded_close(&model);
	loaded_close(&changed);
	return 0;
}

static void measure(struct measurement *m)
{
	struct err e;
	struct model *models[2] = { changed.model, model.model };
	struct measure_arg arg = { .m = m, .reference = 1 };
	assert_int_equal(measurement_init(m, w.count, windows_scored(&w), true, &e), ERR_OK);
	struct evaluation all = { .models = models, .count = 2, .windows = &w, .to = w.count, .visit = measure_visit, .arg = &arg };
	assert_int_equal(evaluate(&all, &e), ERR_OK);
}

static enum gate_verdict verdict(const struct measurement *m, enum gate_metric metric, double limit)
{
	struct gate_result g;
	struct err e;
	assert_int_equal(gate_decide(m, metric, limit, 0.95, &g, &e), ERR_OK);
	return g.verdict;
}

/* "The same weights" is a limit of 1e-6: other kernels alone make 1e-13. */
static void scaled_by_two_percent(void **state)
{
	(void)state;
	static const enum role roles[] = { ROLE_Q, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN };
	for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
		const struct weight *original = model_weight(model.model, roles[k], 2);
		struct tensor t = *original->tensor;
		const struct codec *from = t.codec;
		uint64_t n = tensor_elements(&t);
		struct measurement m;
		struct err e;
		float *scaled = malloc(n * sizeof *scaled);
		assert_non_null(scaled);
		from->decode(from, original->bytes.data, scaled, n);
		for (uint64_t i = 0; i < n; i++)
			scaled[i] *= 1.02f;
		t.codec = codec_find("f32");
		t.nbytes = n * sizeof *scaled;
		assert_int_equal(model_replace(changed.model, roles[k], 2, &t, scaled, &e), ERR_OK);
		measure(&m);
		assert_int_equal(verdict(&m, GATE_KL, 1e-6), GATE_FAIL);
		/* and it is no more than it is */
		assert_int_equal(verdict(&m, GATE_KL, 0.05), GATE_PASS);
		measurement_release(&m);
		/* back to the original */
		t = *original->tensor;
		assert_int_equal(model_replace(changed.model, roles[k], 2, &t, original->bytes.data, &e), ERR_OK);
		free(scaled);
	}
}

/* Any ten of the windows, drawn with repetition, 200 times. */
static void passes_resampled(const struct measurement *m)
{
	struct measurement sample;
	struct rng r = { 17 };
	struct err e;
	assert_int_equal(measurement_init(&sample, m->windows, m->scored, true, &e), ERR_OK);
	for (int t = 0; t < 200; t++) {
		for (size_t k = 0; k < m->windows; k++) {
			size_t from = rng_below(&r, m->windows) * m->scored;
			for (size_t i = 0; i < m->scored; i++) {
				sample.nll[k * m->scored + i] = m->nll[from + i];
				sample.reference_nll[k * m->scored + i] = m->reference_nll[from + i];
				sample.kl[k * m->scored + i] = m->kl[from + i];
				sample.same_top[k * m->scored + i] = m->same_top[from + i];
			}
		}
		assert_int_equal(verdict(&sample, GATE_KL, 1e-6), GATE_PASS);
		assert_int_equal(verdict(&sample, GATE_KL_P99, 1e-6), GATE_PASS);
		assert_int_equal(verdict(&sample, GATE_PPL_RATIO, 1.0001), GATE_PASS);
		assert_int_equal(verdict(&sample, GATE_TOP1, 0.999), GATE_PASS);
	}
	measurement_release(&sample);
}

/* The model's own rows as a baseline keeps them, rounded and sampled. */
static int through_a_baseline(void *arg, const struct eval_slice *s, struct err *e)
{
	struct measurement *m = arg;
	struct baseline_rank *order = malloc(s->vocab * sizeof *order);
	(void)e;
	assert_non_null(order);
	for (size_t i = 0; i < s->n; i++) {
		struct baseline_row row;
		struct row_figures f;
		double variance;
		const float *logits = s->logits[0] + i * s->vocab;
		const struct baseline_sampling sampling = { 0.02, s->window << 20 | i };
		assert_true(baseline_row_make(&row, logits, s->vocab, s->target[i], &sampling, order));
		assert_true(baseline_row_figures(&row, logits, s->vocab, s->target[i], &f, &variance));
		measurement_put(m, s->window * s->n + i, &f);
	}
	free(order);
	return ERR_OK;
}

static void unchanged_passes_resampled(void **state)
{
	(void)state;
	struct measurement m;
	measure(&m);
	passes_resampled(&m);
	measurement_release(&m);
}

static void unchanged_passes_resampled_from_a_baseline(void **state)
{
	(void)state;
	struct measurement m;
	struct model *models[1] = { model.model };
	struct err e;
	double kl = 0;
	assert_int_equal(measurement_init(&m, w.count, windows_scored(&w), true, &e), ERR_OK);
	struct evaluation all = { .models = models, .count = 1, .windows = &w, .to = w.count, .visit = through_a_baseline, .arg = &m };
	assert_int_equal(evaluate(&all, &e), ERR_OK);
	for (size_t i = 0; i < m.windows * m.scored; i++)
		kl += m.kl[i];
	assert_true(kl > 0); /* rounding is there, or this would be the same test again */
	passes_resampled(&m);
	measurement_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unchanged_passes_resampled),
		cmocka_unit_test(unchanged_passes_resampled_from_a_baseline),
		cmocka_unit_test(scaled_by_two_percent),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
