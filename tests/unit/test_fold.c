#include <math.h>
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
#include "calib/fold/attention_fit.h"
#include "calib/fold/fold_layers.h"
#include "calib/run/attention_weights.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "check.h"

enum { SEQS = 3, LEN = 24, TOKENS = SEQS * LEN };

static float *noise(size_t n, struct rng *r, double scale)
{
	float *p = some(n, sizeof *p);
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(scale * rng_normal(r));
	return p;
}

/* --- a small model out of tests/golden, with tokens to run --- */

struct small {
	struct checkpoint *checkpoint;
	struct overlay *wide;          /* all in f32, so that nothing is rounded when it is written */
	struct tensor_source *source;
	struct config config;
	struct model *model;
	struct windows text;
};

static struct overlay *widen(struct tensor_source *s)
{
	struct overlay *o = overlay_new(s, &e);
	assert_non_null(o);
	for (size_t i = 0; i < s->count; i++) {
		struct tensor t = s->tensors[i];
		const struct tensor *meta;
		float *values;
		ok(source_read_f32(s, t.name, &values, &meta, &e));
		t.codec = codec_find("f32");
		ok(tensor_measure(&t, &e));
		ok(overlay_put(o, &t, values, &e));
	}
	return o;
}

static void small_open(struct small *s, const char *name, uint32_t rope)
{
	char path[256];
	struct rng r = { 5 };
	*s = (struct small){ 0 };
	snprintf(path, sizeof path, "tests/golden/model/%s", name);
	ok(checkpoint_open(path, &s->checkpoint, &e));
	ok(checkpoint_config(s->checkpoint, &s->config, &e));
	s->config.rope.dims = rope ? rope : s->config.rope.dims;
	s->wide = widen(s->checkpoint->source);
	s->source = overlay_source(s->wide);
	ok(model_open(&s->config, s->source, &s->model, &e));
	s->text = (struct windows){ .tokens = some(TOKENS, sizeof(int32_t)), .count = SEQS, .ctx = LEN };
	for (size_t i = 0; i < TOKENS; i++)
		s->text.tokens[i] = (int32_t)rng_below(&r, s->config.vocab);
}

static void small_close(struct small *s)
{
	free(s->text.tokens);
	model_close(s->model);
	config_release(&s->config);
	overlay_free(s->wide);
	checkpoint_close(s->checkpoint);
}

static float *logits_of(struct model *m, const struct windows *w)
{
	size_t n = w->count * w->ctx, width = model_config(m)->hidden;
	float *hidden = some(n * width, sizeof *hidden), *logits = some(n * model_config(m)->vocab, sizeof *logits);
	struct model_run *r = model_run_new(m, w->count, w->ctx, &e);
	assert_non_null(r);
	ok(model_forward(r, w->tokens, &(struct model_batch){ w->count, w->ctx, NULL, NULL }, hidden, &e));
	ok(model_logits(r, hidden, n, logits, &e));
	model_run_free(r);
	free(hidden);
	return logits;
}

static const char *const models[] = { "llama-mha", "llama-gqa-bias", "llama-llama3", "qwen2-bias", "qwen3", "mistral-window" };
enum { MODELS = sizeof models / sizeof *models };

/* --- the gradient --- */

struct shape {
	const char *name, *model;
	uint32_t rope;           /* rotated dimensions; 0: as in the model */
	enum fit_keys keys;
};

static const struct shape shapes[] = {
	{ "plain", "llama-mha", 0, FIT_OWN },
	{ "grouped, biases", "llama-gqa-bias", 0, FIT_OWN },
	{ "norms, partial rotary", "qwen3", 8, FIT_OWN },
	{ "window", "mistral-window", 0, FIT_OWN },
	{ "soft-cap", "gemma2", 0, FIT_OWN },
	{ "keys of another layer", "llama-gqa-bias", 0, FIT_GIVEN },
	{ "keys from another input", "qwen3", 0, FIT_OF_INPUT },
};

static float *part(const struct attention_weights *w, int i)
{
	return i == 0 ? w->q : i == 1 ? w->k : i == 2 ? w->v : w->o;
}

static void check_gradient(const struct shape *s)
{
	enum { CTX = 70, N = 2 }; /* more than a tile of the way back through scores */
	struct rng r = { 11 };
	struct small m;
	struct attention_weights w, grad;
	small_open(&m, s->model, s->rope);
	ok(attention_weights_read(&m.config, m.source, 1, &w, &e));
	ok(attention_weights_new(&grad, &w, w.kv_heads, &e));
	const struct attention_fit_layer l = { .model = m.model, .config = &m.config, .layer = 1, .keys = s->keys };
	struct attention_fit f;
	ok(attention_fit_init(&f, &l, &w, N, CTX, &e));
	size_t n = N * CTX, kv = (size_t)w.kv_heads * w.dim;
	float *in = noise(n * w.cols, &r, 1), *other = noise(n * w.cols, &r, 1), *target = noise(n * w.hidden, &r, 1), *keys = noise(n * kv, &r, 1);
	for (size_t i = 0; i < n && w.cols > w.hidden; i++)
		in[i * w.cols + w.hidden] = other[i * w.cols + w.hidden] = 1;
	struct attention_batch b = { .seqs = N, .x = in, .x_kv = other, .target = target, .keys = keys, .values = keys };
	double loss, up, down;
	ok(attention_fit_run(&f, &w, &b, &grad, &loss, &e));
	for (int i = 0; i < 4; i++) {
		if (s->keys == FIT_GIVEN && (i == 1 || i == 2))
			continue;
		for (size_t k = 0; k < attention_weights_count(&w, i); k += 61) {
			float *p = &part(&w, i)[k], was = *p, h = 0.005f;
			*p = was + h;
			ok(attention_fit_run(&f, &w, &b, NULL, &up, &e));
			*p = was - h;
			ok(attention_fit_run(&f, &w, &b, NULL, &down, &e));
			*p = was;
			double measured = (up - down) / (2 * (double)h), computed = part(&grad, i)[k];
			if (fabs(measured - computed) > 0.01 * (fabs(measured) + fabs(computed)) + 0.15)
				fail_msg("%s: part %d, %zu: measured %g, computed %g", s->name, i, k, measured, computed);
		}
	}
	free(in);
	free(other);
	free(target);
	free(keys);
	attention_fit_release(&f);
	attention_weights_release(&w);
	attention_weights_release(&grad);
	small_close(&m);
}

static void test_gradient(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		check_gradient(&shapes[i]);
}

/* --- attention_fit is the model's attention --- */

struct seen {
	float *x, *heads;
	uint32_t layer;
	size_t cols;
};

static void see(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct seen *s = arg;
	if (layer != s->layer)
		return;
	for (size_t i = 0; r == ROLE_Q && i < n; i++) {
		memcpy(s->x + i * s->cols, x + i * dim, dim * sizeof *x);
		if (s->cols > dim)
			s->x[i * s->cols + dim] = 1;
	}
	if (r == ROLE_O)
		memcpy(s->heads, x, n * dim * sizeof *x);
}

static void check_forward(const char *name)
{
	struct small s;
	struct attention_weights w;
	small_open(&s, name, 0);
	const struct config *c = &s.config;
	uint32_t layer = c->layers - 1;
	ok(attention_weights_read(c, s.source, layer, &w, &e));
	size_t q = (size_t)w.heads * w.dim;
	struct seen seen = { some(TOKENS * w.cols, sizeof(float)), some(TOKENS * q, sizeof(float)), layer, w.cols };
	struct model_tap tap = { .input = see, .arg = &seen };
	float *hidden = some(TOKENS * c->hidden, sizeof *hidden);
	struct model_run *r = model_run_new(s.model, SEQS, LEN, &e);
	ok(model_forward(r, s.text.tokens, &(struct model_batch){ SEQS, LEN, NULL, &tap }, hidden, &e));
	struct attention_fit f;
	ok(attention_fit_init(&f, &(struct attention_fit_layer){ .model = s.model, .config = c, .layer = layer }, &w, SEQS, LEN, &e));
	struct attention_batch b = { .seqs = SEQS, .x = seen.x };
	double loss;
	ok(attention_fit_run(&f, &w, &b, NULL, &loss, &e));
	double apart = distance(seen.heads, attention_fit_heads(&f), TOKENS * q);
	if (!(apart < 1e-4))
		fail_msg("%s: heads differ by %g", name, apart);
	attention_fit_release(&f);
	model_run_free(r);
	free(hidden);
	free(seen.x);
	free(seen.heads);
	attention_weights_release(&w);
	small_close(&s);
}

static void test_forward(void **state)
{
	(void)state;
	for (int i = 0; i < MODELS; i++)
		check_forward(models[i]);
}

/* --- what must not change a model --- */

/* A well-conditioned random matrix and its inverse: a rotation in every plane (i, i + 1), and scales. */
static void random_basis(size_t d, double *f, double *inverse, struct rng *r)
{
	memset(f, 0, d * d * sizeof *f);
	memset(inverse, 0, d * d * sizeof *f);
	for (size_t i = 0; i < d; i++) {
		double s = exp(0.5 * rng_normal(r));
		f[i * d + i] = s;
		inverse[i * d + i] = 1 / s;
	}
	for (size_t i = 0; i + 1 < d; i++) {
		double angle = 6 * rng_unit(r), c = cos(angle), s = sin(angle);
		for (size_t j = 0; j < d; j++) {
			double a = f[i * d + j], b = f[(i + 1) * d + j];
			f[i * d + j] = c * a - s * b;
			f[(i + 1) * d + j] = s * a + c * b;
			a = inverse[j * d + i];
			b = inverse[j * d + i + 1];
			inverse[j * d + i] = c * a - s * b;
			inverse[j * d + i + 1] = s * a + c * b;
		}
	}
}

static void check_basis(const char *name)
{
	struct small s;
	struct rng r = { 3 };
	small_open(&s, name, 0);
	const struct config *c = &s.config;
	size_t d = c->head_dim;
	double *f = some(d * d, sizeof *f), *inverse = some(d * d, sizeof *f), *phase = some(d + 1, sizeof *phase);
	struct overlay *out = overlay_new(s.source, &e);
	for (uint32_t i = 0; i < c->layers; i++) {
		struct attention_weights w;
		ok(attention_weights_read(c, s.source, i, &w, &e));
		for (uint32_t h = 0; h < w.kv_heads; h++) {
			random_basis(d, f, inverse, &r);
			for (uint32_t l = 0; l < fold_pairs(w.dim); l++) {
				/* what a norm per head leaves alone is nothing but one */
				double turn = w.qk_norm ? 0 : 6 * rng_unit(&r), scale = w.qk_norm ? 1 : exp(rng_normal(&r));
				phase[2 * l] = scale * cos(turn);
				phase[2 * l + 1] = scale * sin(turn);
			}
			fold_change_basis(&w, h, &(struct fold_basis){ phase, f, inverse });
		}
		ok(attention_weights_write(&(struct weights_sink){ c, s.source, out, NULL }, i, &w, &e));
		attention_weights_release(&w);
	}
	struct model *changed;
	ok(model_open(c, overlay_source(out), &changed, &e));
	float *a = logits_of(s.model, &s.text), *b = logits_of(changed, &s.text);
	double apart = distance(a, b, (size_t)TOKENS * c->vocab);
	if (!(apart < 1e-4))
		fail_msg("%s: logits moved by %g", name, apart);
	free(a);
	free(b);
	free(f);
	free(inverse);
	free(phase);
	model_close(changed);
	overlay_free(out);
	small_close(&s);
}

static void test_basis(void **state)
{
	(void)state;
	for (int i = 0; i < MODELS; i++)
		check_basis(models[i]);
}

/* Makes KV heads that are to be folded together equal: head h becomes a copy of the first of its group. */
static void equal_heads(struct small *s, const uint32_t *leader, struct overlay **out)
{
	const struct config *c = &s->config;
	*out = overlay_new(s->source, &e);
	for (uint32_t i = 0; i < c->layers; i++) {
		struct attention_weights w;
		ok(attention_weights_read(c, s->source, i, &w, &e));
		size_t head = (size_t)w.dim * w.cols;
		for (uint32_t h = 0; h < w.kv_heads; h++) {
			memmove(w.k + h * head, w.k + leader[h] * head, head * sizeof(float));
			memmove(w.v + h * head, w.v + leader[h] * head, head * sizeof(float));
		}
		ok(attention_weights_write(&(struct weights_sink){ c, s->source, *out, NULL }, i, &w, &e));
		attention_weights_release(&w);
	}
}

static double fold_distance(struct small *s, struct overlay *equal, uint32_t groups, enum fold_method method, bool search)
{
	struct model *before, *after;
	struct config to;
	struct overlay *out = overlay_new(overlay_source(equal), &e);
	struct fold_report *report = some(s->config.layers, sizeof *report);
	struct fold_options o = { .method = method, .search = search, .refit = refit_defaults, .residual = 1, .ffn = true };
	o.refit.steps = 2;
	o.refit.batch = 2;
	o.refit.rate = 1e-6;
	ok(checkpoint_config(s->checkpoint, &to, &e));
	for (uint32_t i = 0; i < to.layers; i++)
		to.layer[i].kv_heads = groups;
	ok(model_open(&s->config, overlay_source(equal), &before, &e));
	struct fold_job job = { before, overlay_source(equal), &to, &s->text, 1, out, NULL };
	ok(fold_run(&job, &o, report, &e));
	ok(model_open(&to, overlay_source(out), &after, &e));
	float *a = logits_of(before, &s->text), *b = logits_of(after, &s->text);
	double apart = distance(a, b, (size_t)TOKENS * to.vocab);
	free(a);
	free(b);
	model_close(before);
	model_close(after);
	overlay_free(out);
	fold_report_release(report, to.layers);
	config_release(&to);
	return apart;
}

static void check_equal(const char *name, const uint32_t *leader, uint32_t groups, bool search)
{
	struct small s;
	struct overlay *equal;
	small_open(&s, name, 0);
	equal_heads(&s, leader, &equal);
	for (unsigned m = 0; m < fold_method_row_count; m++) {
		double apart = fold_distance(&s, equal, groups, fold_method_rows[m].method, search);
		if (!(apart < 1e-4))
			fail_msg("%s, %s: logits moved by %g", name, fold_method_rows[m].name, apart);
	}
	overlay_free(equal);
	small_close(&s);
}

static void test_equal(void **state)
{
	(void)state;
	static const uint32_t all[16] = { 0 };
	for (int i = 0; i < MODELS; i++)
		check_equal(models[i], all, 1, false);
}

/* Heads that are equal but not neighbours are found. */
static void test_search(void **state)
{
	(void)state;
	static const uint32_t leader[] = { 0, 1, 1, 0 };
	struct small s;
	struct overlay *equal;
	small_open(&s, "llama-mha", 0);
	assert_int_equal(s.config.layer[0].kv_heads, 4);
	equal_heads(&s, leader, &equal);
	assert_true(fold_distance(&s, equal, 2, FOLD_PCA, true) < 1e-4);
	assert_true(fold_distance(&s, equal, 2, FOLD_PCA, false) > 1e-2);
	overlay_free(equal);
	small_close(&s);
}

/* The result is the same bytes for any number of threads. */
static void test_threads(void **state)
{
	(void)state;
	struct small s;
	float *logits[2];
	small_open(&s, "qwen2-bias", 0);
	for (int k = 0; k < 2; k++) {
		struct config to;
		struct overlay *out = overlay_new(s.source, &e);
		struct fold_report *report = some(s.config.layers, sizeof *report);
		struct fold_options o = { .method = FOLD_REFIT, .search = true, .refit = refit_defaults, .residual = 1, .ffn = true };
		struct model *after;
		o.refit.steps = 5;
		ok(checkpoint_config(s.checkpoint, &to, &e));
		for (uint32_t i = 0; i < to.layers; i++)
			to.layer[i].kv_heads = 1;
		thread_set(k ? 3 : 1);
		struct fold_job job = { s.model, s.source, &to, &s.text, 1, out, NULL };
		ok(fold_run(&job, &o, report, &e));
		ok(model_open(&to, overlay_source(out), &after, &e));
		logits[k] = logits_of(after, &s.text);
		model_close(after);
		overlay_free(out);
		fold_report_release(report, to.layers);
		config_release(&to);
	}
	thread_set(0);
	assert_memory_equal(logits[0], logits[1], (size_t)TOKENS * s.config.vocab * sizeof(float));
	free(logits[0]);
	free(logits[1]);
	small_close(&s);
}

static void test_check(void **state)
{
	(void)state;
	struct small s;
	uint32_t to[64];
	small_open(&s, "llama-mha", 0);
	for (uint32_t i = 0; i < s.config.layers; i++)
		to[i] = 4;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_OK);
	to[0] = 3;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_USAGE);
	assert_non_null(strstr(e.message, "must divide"));
	to[0] = 8;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_USAGE);
	to[0] = 0;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_USAGE);
	to[0] = 2;
	s.config.layer[1].kv_source = 0;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_UNSUPPORTED);
	small_close(&s);
	small_open(&s, "olmo2", 0);
	to[0] = to[1] = 2;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_OK);
	to[1] = 1;
	assert_int_equal(fold_check(&s.config, s.source, to, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "layer 1 norms the keys of all its heads at once"));
	small_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gradient), cmocka_unit_test(test_forward), cmocka_unit_test(test_basis),
		cmocka_unit_test(test_equal),	 cmocka_unit_test(test_search),	 cmocka_unit_test(test_threads),
		cmocka_unit_test(test_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
