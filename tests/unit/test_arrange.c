/* Arranged channels: the function stays, inputs follow, and 8-bit activations lose less on text that was not looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/quant/arrange.h"
#include "calib/run/loaded.h"
#include "check.h"

enum { SEQS = 16, LEN = 64, TOKENS = SEQS * LEN, SEEN = 8 * LEN, BLOCK = 256 };

struct subject {
	struct config config;
	struct overlay *made;            /* a random model's tensors, or NULL */
	struct loaded loaded;            /* or the demo's */
	struct tensor_source *source;
	struct recipe *recipe;
	struct plan plan;
	struct windows text;
};

static void put_random(struct subject *s, enum role r, uint32_t layer, struct rng *rng)
{
	char name[96];
	struct tensor t = { .codec = codec_find("f32") };
	t.ndim = role_shape(&s->config, r, layer, t.dim);
	if (!t.ndim || !role_required(&s->config, r, layer))
		return;
	t.name = role_hf_name(s->config.arch, r, layer, name);
	ok(tensor_measure(&t, &e));
	size_t n = (size_t)tensor_elements(&t);
	float *x = some(n, sizeof *x);
	for (size_t i = 0; i < n; i++) /* rows of very different sizes make channels so */
		x[i] = role_rows[r].norm ? 1 + 0.1f * (float)rng_normal(rng)
					 : (float)rng_normal(rng) * (i / tensor_cols(&t) % 37 == 3 ? 0.4f : 0.06f);
	ok(overlay_put(s->made, &t, x, &e));
}

static void random_model(struct subject *s, bool bias)
{
	static struct tensor_source nothing;
	char json[512];
	struct rng rng = { 7 };
	snprintf(json, sizeof json, "{\"model_type\": \"llama\", \"hidden_size\": 256, \"intermediate_size\": 768, \"num_hidden_layers\": 2, "
		 "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 96, \"attention_bias\": %s, \"mlp_bias\": %s, "
		 "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5}", bias ? "true" : "false", bias ? "true" : "false");
	ok(config_parse(&s->config, json, strlen(json), &e));
	s->made = overlay_new(&nothing, &e);
	assert_non_null(s->made);
	for (unsigned r = 0; r < ROLE_COUNT; r++)
		for (uint32_t l = 0; l < (role_rows[r].per_layer ? s->config.layers : 1); l++)
			put_random(s, (enum role)r, l, &rng);
	s->source = overlay_source(s->made);
	s->text.tokens = some(TOKENS, sizeof(int32_t));
	for (size_t i = 0; i < TOKENS; i++)
		s->text.tokens[i] = (int32_t)rng_below(&rng, s->config.vocab);
}

static void demo(struct subject *s)
{
	static char text[40000];
	FILE *f = fopen("examples/demo.calib.txt", "r");
	assert_non_null(f);
	size_t n = fread(text, 1, sizeof text - 1, f);
	struct token_ids ids = { 0 };
	fclose(f);
	ok(loaded_open(&s->loaded, "examples/demo", &e));
	s->source = s->loaded.checkpoint->source;
	s->config = s->loaded.config;
	ok(tokenizer_encode(s->loaded.tokenizer, text, n, false, &ids, &e));
	assert_true(ids.count >= TOKENS);
	s->text.tokens = ids.id;
}

static void plan(struct subject *s, const char *scheme)
{
	s->text.count = SEQS;
	s->text.ctx = LEN;
	ok(recipe_new(scheme, &s->recipe, &e));
	ok(plan_make(&s->plan, &(struct plan_request){ .config = &s->config, .source = s->source, .recipe = s->recipe, .method = method_find("imatrix") }, &e));
}

static void release(struct subject *s)
{
	plan_release(&s->plan);
	recipe_free(s->recipe);
	free(s->text.tokens);
	if (s->made) {
		config_release(&s->config);
		overlay_free(s->made);
	} else {
		loaded_close(&s->loaded);
	}
}

struct seen {
	enum role role;
	float *x;            /* [layers, SEEN, dim] */
	size_t dim;
};

static void see(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct seen *s = arg;
	assert_int_equal(n, SEEN);
	if (r == s->role)
		memcpy(s->x + layer * SEEN * dim, x, n * dim * sizeof *x);
}

/* The last windows of the text: an arrangement of the first ones has not seen them. */
static void run(struct subject *s, struct tensor_source *source, struct seen *seen, float *logits)
{
	struct model *m;
	ok(model_open(&s->config, source, &m, &e));
	struct model_run *r = model_run_new(m, SEEN / LEN, LEN, &e);
	float *hidden = some(SEEN * s->config.hidden, sizeof *hidden);
	const struct model_tap tap = { .input = see, .arg = seen };
	assert_non_null(r);
	ok(model_forward(r, s->text.tokens + TOKENS - SEEN, &(struct model_batch){ SEEN / LEN, LEN, NULL, &tap }, hidden, &e));
	ok(model_logits(r, hidden, SEEN, logits, &e));
	free(hidden);
	model_run_free(r);
	model_close(m);
}

static struct arrangement *arrange(struct subject *s)
{
	struct arrangement *a = NULL;
	struct windows first = s->text;
	first.count -= SEEN / LEN;
	ok(arrangement_new(&(struct quant_job){ .config = &s->config, .source = s->source, .plan = &s->plan, .text = &first }, &a, &e));
	return a;
}

static struct seen seen_new(const struct subject *s, enum role r)
{
	size_t dim = r == ROLE_DOWN ? s->config.ffn : (size_t)s->config.heads * s->config.head_dim;
	return (struct seen){ .role = r, .dim = dim, .x = some(s->config.layers * SEEN * dim, sizeof(float)) };
}

/* Inputs of the original, converted, are those of the arranged model, and the logits are the same. */
static void function_stays(struct subject *s, enum role watched)
{
	struct arrangement *a = arrange(s);
	struct seen old = seen_new(s, watched), new = seen_new(s, watched);
	size_t n = (size_t)SEEN * s->config.vocab, inputs = s->config.layers * SEEN * old.dim;
	float *x = some(n, sizeof *x), *y = some(n, sizeof *y), *scratch = some(old.dim, sizeof *scratch);
	run(s, s->source, &old, x);
	run(s, arrangement_source(a), &new, y);
	assert_true(distance(y, x, n) < 1e-4);
	assert_true(distance(new.x, old.x, inputs) > 1e-2);
	for (uint32_t l = 0; l < s->config.layers; l++)
		arrangement_input(a, watched, l, old.x + l * SEEN * old.dim, SEEN, scratch);
	assert_true(distance(new.x, old.x, inputs) < 1e-4);
	free(x);
	free(y);
	free(scratch);
	free(old.x);
	free(new.x);
	arrangement_free(a);
}

static void down_stays(void **state)
{
	for (int bias = 0; bias < 2; bias++) {
		struct subject s = { 0 };
		(void)state;
		random_model(&s, bias);
		plan(&s, "q4_k");
		function_stays(&s, ROLE_DOWN);
		release(&s);
	}
}

static void o_stays(void **state)
{
	struct subject s = { 0 };
	(void)state;
	random_model(&s, false);
	plan(&s, "q5_k");
	function_stays(&s, ROLE_O);
	release(&s);
}

/* Squared error of 8 bits per value in blocks that share a step, as down's output sees it, over its energy. */
static double rounding(struct subject *s, struct tensor_source *source, uint32_t layer, const float *x)
{
	const struct tensor *meta;
	char name[96];
	float *w;
	ok(source_read_f32(source, role_hf_name(s->config.arch, ROLE_DOWN, layer, name), &w, &meta, &e));
	size_t rows = (size_t)tensor_rows(meta), n = (size_t)tensor_cols(meta);
	float *d = some(n, sizeof *d);
	double error = 0, energy = 0;
	for (size_t t = 0; t < SEEN; t += 4) {
		for (size_t b = 0; b < n; b += BLOCK) {
			float most = 0;
			for (size_t i = b; i < b + BLOCK; i++)
				most = fabsf(x[t * n + i]) > most ? fabsf(x[t * n + i]) : most;
			for (size_t i = b; i < b + BLOCK; i++)
				d[i] = most > 0 ? roundf(x[t * n + i] * 127 / most) * most / 127 - x[t * n + i] : 0;
		}
		for (size_t r = 0; r < rows; r++) {
			double p = 0, q = 0;
			for (size_t i = 0; i < n; i++) {
				p += (double)w[r * n + i] * d[i];
				q += (double)w[r * n + i] * x[t * n + i];
			}
			error += p * p;
			energy += q * q;
		}
	}
	free(d);
	free(w);
	return error / energy;
}

static void activations_lose_less(void **state)
{
	struct subject s = { 0 };
	(void)state;
	demo(&s);
	plan(&s, "q4_k");
	struct arrangement *a = arrange(&s);
	struct seen old = seen_new(&s, ROLE_DOWN), new = seen_new(&s, ROLE_DOWN);
	float *logits = some((size_t)SEEN * s.config.vocab, sizeof *logits);
	run(&s, s.source, &old, logits);
	run(&s, arrangement_source(a), &new, logits);
	for (uint32_t l = 0; l < s.config.layers; l++) {
		size_t at = l * SEEN * old.dim;
		double before = rounding(&s, s.source, l, old.x + at), after = rounding(&s, arrangement_source(a), l, new.x + at);
		assert_true(before > 0);
		assert_true(after < 0.85 * before);
	}
	free(logits);
	free(old.x);
	free(new.x);
	arrangement_free(a);
	release(&s);
}

/* Nothing moves where nothing is gained, or where something would have to be rounded that the plan keeps. */
static void others_are_left_alone(void **state)
{
	static const char *const schemes[] = { "q4_0", "int4-g32", "q4_k" };
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct subject s = { 0 };
		random_model(&s, false);
		s.text.count = SEQS;
		s.text.ctx = LEN;
		ok(recipe_new(schemes[i], &s.recipe, &e));
		if (i == 2) {
			ok(recipe_override(s.recipe, "ffn_gate=f16", &e));
			ok(recipe_override(s.recipe, "attn_v=f16", &e));
		}
		ok(plan_make(&s.plan, &(struct plan_request){ .config = &s.config, .source = s.source, .recipe = s.recipe, .method = method_find("imatrix") }, &e));
		struct arrangement *a = arrange(&s);
		struct tensor_source *now = arrangement_source(a);
		assert_int_equal(now->count, s.source->count);
		for (size_t t = 0; t < now->count; t++) {
			struct tensor_bytes x, y;
			ok(now->get(now, t, &x, &e));
			ok(s.source->get(s.source, t, &y, &e));
			assert_ptr_equal(x.data, y.data);
		}
		arrangement_free(a);
		release(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(down_stays),
		cmocka_unit_test(o_stays),
		cmocka_unit_test(activations_lose_less),
		cmocka_unit_test(others_are_left_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
