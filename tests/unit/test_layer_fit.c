#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/thread.h"
#include "calib/run/attention_weights.h"
#include "formats/checkpoint.h"
#include "model/layer_fit.h"
#include "model/rope.h"
#include "check.h"

enum { SEQS = 2, CTX = 12, TOKENS = SEQS * CTX, LAYERS = 8 };

struct trained {
	struct checkpoint *checkpoint;
	struct config config;
	struct model *model;
	struct layer_fit *fit;
	struct layer_weights w[LAYERS], grad;
	int32_t tokens[TOKENS];
	float *teacher, *d;
	float *in[LAYERS + 1];   /* what goes into each layer, and comes out of the last */
};

static float *matrix(struct trained *t, enum role r, uint32_t layer)
{
	char name[96];
	float *out;
	const struct tensor *meta;
	ok(source_read_f32(t->checkpoint->source, role_hf_name(t->config.arch, r, layer, name), &out, &meta, &e));
	return out;
}

/* A golden model (flat: its second layer without positions), and as its teacher the same with other hidden states at the end. */
static void trained_open(struct trained *t, const char *name, bool flat)
{
	char path[256];
	struct rng rng = { 1 };
	*t = (struct trained){ 0 };
	snprintf(path, sizeof path, "tests/golden/model/%s", name);
	ok(checkpoint_open(path, &t->checkpoint, &e));
	ok(checkpoint_config(t->checkpoint, &t->config, &e));
	t->config.layer[1].rope = !flat;
	ok(model_open(&t->config, t->checkpoint->source, &t->model, &e));
	const struct config *c = &t->config;
	assert_true(c->layers <= LAYERS);
	assert_null(layer_fit_refusal(c));
	ok(layer_fit_new(t->model, SEQS, CTX, &t->fit, &e));
	for (uint32_t i = 0; i < c->layers; i++) {
		ok(attention_weights_read(c, t->checkpoint->source, i, &t->w[i].attention, &e));
		t->w[i].gate = matrix(t, ROLE_GATE, i);
		t->w[i].up = matrix(t, ROLE_UP, i);
		t->w[i].down = matrix(t, ROLE_DOWN, i);
	}
	ok(attention_weights_new(&t->grad.attention, &t->w[0].attention, c->layer[0].kv_heads, &e));
	t->grad.gate = some((size_t)c->ffn * c->hidden, sizeof(float));
	t->grad.up = some((size_t)c->ffn * c->hidden, sizeof(float));
	t->grad.down = some((size_t)c->ffn * c->hidden, sizeof(float));
	t->teacher = some(TOKENS * c->hidden, sizeof(float));
	t->d = some(TOKENS * c->hidden, sizeof(float));
	for (uint32_t i = 0; i <= c->layers; i++)
		t->in[i] = some(TOKENS * c->hidden, sizeof(float));
	for (size_t i = 0; i < TOKENS; i++)
		t->tokens[i] = (int32_t)rng_below(&rng, c->vocab);
	for (size_t i = 0; i < TOKENS * c->hidden; i++)
		t->teacher[i] = (float)rng_normal(&rng);
}

static void trained_close(struct trained *t)
{
	for (uint32_t i = 0; i < t->config.layers; i++) {
		attention_weights_release(&t->w[i].attention);
		free(t->w[i].gate);
		free(t->w[i].up);
		free(t->w[i].down);
	}
	for (uint32_t i = 0; i <= t->config.layers; i++)
		free(t->in[i]);
	attention_weights_release(&t->grad.attention);
	free(t->grad.gate);
	free(t->grad.up);
	free(t->grad.down);
	free(t->teacher);
	free(t->d);
	layer_fit_free(t->fit);
	model_close(t->model);
	config_release(&t->config);
	checkpoint_close(t->checkpoint);
}

/* Leaves the layers' inputs in t->in and, with a gradient, that by the last hidden states in t->d. */
static double loss(struct trained *t, bool gradient)
{
	size_t size = TOKENS * t->config.hidden;
	double kl;
	ok(model_embed(t->model, t->tokens, TOKENS, t->in[0], &e));
	for (uint32_t i = 0; i < t->config.layers; i++) {
		memcpy(t->in[i + 1], t->in[i], size * sizeof(float));
		ok(layer_fit_forward(t->fit, i, &t->w[i], t->in[i + 1], SEQS, &e));
	}
	ok(layer_fit_divergence(t->fit, t->teacher, t->in[t->config.layers], SEQS, 1, gradient ? t->d : NULL, &kl, &e));
	return kl;
}

static const char *const cases[] = { "llama-mha", "llama-gqa-bias", "llama-gelu", "llama-llama3", "llama-linear", "llama-yarn", "mistral-window", "qwen2-bias", "qwen3", "gemma" };
enum { CASES = sizeof cases / sizeof *cases };

/* The same hidden states as the reference forward pass gives. */
static void runs_the_model(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * CASES; i++) {
		struct trained t;
		trained_open(&t, cases[i / 2], i % 2);
		struct model_run *r = model_run_new(t.model, SEQS, CTX, &e);
		float *hidden = some(TOKENS * t.config.hidden, sizeof *hidden);
		ok(model_forward(r, t.tokens, SEQS, CTX, NULL, NULL, hidden, &e));
		loss(&t, false);
		double d = distance(t.in[t.config.layers], hidden, TOKENS * t.config.hidden);
		if (!(d < 1e-5))
			fail_msg("%s: hidden states differ by %g", cases[i / 2], d);
		free(hidden);
		model_run_free(r);
		trained_close(&t);
	}
}

/* Scaling and attention factor are in the phases, also of positions further on; what the table holds is not made again. */
static void phases_of_layers(void **state)
{
	struct trained t;
	struct phase_table p = { 0 };
	float inverse[64], cosine[64], sine[64];
	(void)state;
	trained_open(&t, "llama-yarn", true);
	const struct rope *r = &t.config.rope;
	size_t half = r->dims / 2;
	assert_null(phases_of(&p, 0).cosine);
	float scale = rope_frequencies(r, inverse);
	assert_true(scale > 1.05f);
	for (size_t first = 0; first < 80; first += 40) {
		ok(phase_table_fill(&p, t.model, first, CTX, &e));
		struct phases a = phases_of(&p, 0);
		rope_table(inverse, half, scale, first + CTX - 1, 1, cosine, sine);
		assert_memory_equal(a.cosine + (CTX - 1) * half, cosine, half * sizeof *cosine);
		assert_memory_equal(a.sine + (CTX - 1) * half, sine, half * sizeof *sine);
		assert_null(phases_of(&p, 1).cosine);
		assert_null(phases_of(&p, 1).sine);
		ok(phase_table_fill(&p, t.model, first, CTX - 1, &e));
		assert_ptr_equal(phases_of(&p, 0).cosine, a.cosine);
	}
	assert_int_equal(phase_table_fill(&p, t.model, 0, SIZE_MAX / 8, &e), ERR_NOMEM);
	assert_null(phases_of(&p, 0).cosine);
	phase_table_release(&p);
	trained_close(&t);
}

/* The slope of the loss along the gradient itself, measured, is the gradient's square. */
static void check_slope(struct trained *t, const char *name, const char *what, float *w, const float *grad, size_t n)
{
	float *was = some(n, sizeof *was);
	double square = 0, norm = 0;
	memcpy(was, w, n * sizeof *w);
	for (size_t i = 0; i < n; i++) {
		square += (double)grad[i] * grad[i];
		norm += (double)w[i] * w[i];
	}
	assert_true(square > 0);
	double step = 2e-3 * sqrt(norm / square), side[2];
	for (int s = 0; s < 2; s++) {
		for (size_t i = 0; i < n; i++)
			w[i] = was[i] + (float)((s ? -step : step) * (double)grad[i]);
		side[s] = loss(t, false);
	}
	memcpy(w, was, n * sizeof *w);
	free(was);
	double slope = (side[0] - side[1]) / (2 * step);
	if (!(fabs(slope / square - 1) < 0.01))
		fail_msg("%s, %s: the gradient's square is %g, the measured slope %g", name, what, square, slope);
}

static void gradients_are_slopes(void **state)
{
	(void)state;
	for (size_t i = 0; i < CASES; i++)
		for (uint32_t layer = 0; layer < 2; layer++) {
			struct trained t;
			trained_open(&t, cases[i], false);
			struct layer_weights *g = &t.grad, *w = &t.w[layer];
			size_t ffn = (size_t)t.config.ffn * t.config.hidden;
			loss(&t, true);
			for (uint32_t k = t.config.layers; k-- > layer;)
				ok(layer_fit_back(t.fit, k, &t.w[k], t.in[k], t.d, g, SEQS, &e));
			check_slope(&t, cases[i], "q", w->attention.q, g->attention.q, attention_weights_count(&w->attention, 0));
			check_slope(&t, cases[i], "k", w->attention.k, g->attention.k, attention_weights_count(&w->attention, 1));
			check_slope(&t, cases[i], "v", w->attention.v, g->attention.v, attention_weights_count(&w->attention, 2));
			check_slope(&t, cases[i], "o", w->attention.o, g->attention.o, attention_weights_count(&w->attention, 3));
			check_slope(&t, cases[i], "gate", w->gate, g->gate, ffn);
			check_slope(&t, cases[i], "up", w->up, g->up, ffn);
			check_slope(&t, cases[i], "down", w->down, g->down, ffn);
			trained_close(&t);
		}
}

static void threads_do_not_change_bits(void **state)
{
	float *was = NULL;
	(void)state;
	for (int threads = 1; threads <= 3; threads += 2) {
		struct trained t;
		thread_set(threads);
		trained_open(&t, "llama-gqa-bias", false);
		size_t size = TOKENS * t.config.hidden, n = attention_weights_count(&t.w[0].attention, 1);
		was = was ? was : some(size + n, sizeof *was);
		loss(&t, true);
		for (uint32_t k = t.config.layers; k-- > 0;)
			ok(layer_fit_back(t.fit, k, &t.w[k], t.in[k], t.d, &t.grad, SEQS, &e));
		if (threads == 1) {
			memcpy(was, t.d, size * sizeof *was);
			memcpy(was + size, t.grad.attention.k, n * sizeof *was);
		}
		assert_memory_equal(was, t.d, size * sizeof *was);
		assert_memory_equal(was + size, t.grad.attention.k, n * sizeof *was);
		trained_close(&t);
	}
	thread_set(0);
	free(was);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_the_model),
		cmocka_unit_test(phases_of_layers),
		cmocka_unit_test(gradients_are_slopes),
		cmocka_unit_test(threads_do_not_change_bits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
