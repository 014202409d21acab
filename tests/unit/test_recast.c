#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "model/family/family.h"
#include "model/model.h"
#include "model/recast.h"
#include "model/runtime.h"
#include "check.h"
#include "scratch.h"

/* The tiny models of transformers (tests/golden/make_model.py), folded as no fold would, and written as other families. */
enum { LEN = 24 };

struct tiny {
	struct checkpoint *c;
	struct config config;
	struct overlay *cut;
	struct tensor_source *source;
};

static void tiny_open(struct tiny *t, const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "tests/golden/model/%s", name);
	*t = (struct tiny){ 0 };
	ok(checkpoint_open(path, &t->c, &e));
	ok(checkpoint_config(t->c, &t->config, &e));
	t->source = t->c->source;
}

static void tiny_close(struct tiny *t)
{
	overlay_free(t->cut);
	config_release(&t->config);
	checkpoint_close(t->c);
}

/* The first KV head of a layer serves all queries. */
static void one_head(struct tiny *t, uint32_t layer)
{
	static const enum role roles[] = { ROLE_K, ROLE_V, ROLE_K_BIAS, ROLE_V_BIAS };
	t->cut = overlay_new(t->c->source, &e);
	t->config.layer[layer].kv_heads = 1;
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
		char name[96];
		const struct tensor *was = source_find(t->c->source, role_hf_name(t->config.arch, roles[i], layer, name));
		struct tensor_bytes b;
		if (!was)
			continue;
		struct tensor now = *was;
		now.dim[0] = t->config.head_dim;
		ok(tensor_measure(&now, &e));
		ok(t->c->source->get(t->c->source, source_position(t->c->source, was), &b, &e));
		void *bytes = some(1, (size_t)now.nbytes);
		memcpy(bytes, b.data, (size_t)now.nbytes);
		tensor_bytes_release(&b);
		ok(overlay_put(t->cut, &now, bytes, &e));
	}
	t->source = overlay_source(t->cut);
}

static void last_shares(struct tiny *t)
{
	uint32_t last = t->config.layers - 1;
	t->config.layer[last].kv_source = last - 1;
	t->config.layer[last].window = t->config.layer[last - 1].window;
	t->config.layer[last].local = t->config.layer[last - 1].local;
}

static float *logits(const struct config *c, struct tensor_source *source)
{
	struct model *m = NULL;
	int32_t tokens[LEN];
	for (int i = 0; i < LEN; i++)
		tokens[i] = (int32_t)((unsigned)(i * 7 + 3) % c->vocab);
	ok(model_open(c, source, &m, &e));
	struct model_run *r = model_run_new(m, 1, LEN, &e);
	assert_non_null(r);
	float *hidden = some((size_t)LEN * c->hidden, sizeof *hidden), *out = some((size_t)LEN * c->vocab, sizeof *out);
	ok(model_forward(r, tokens, &(struct model_batch){ 1, LEN, NULL, NULL }, hidden, &e));
	ok(model_logits(r, hidden, LEN, out, &e));
	model_run_free(r);
	model_close(m);
	free(hidden);
	return out;
}

/* Written, read back and run. */
static float *through(const struct config *c, struct tensor_source *source, const char *format, struct config *read)
{
	char path[128];
	struct recipe *r;
	struct plan plan;
	struct tensor_sink *k = NULL;
	struct checkpoint *back;
	struct write_options o = { .gguf_file_type = 0, .tool_version = "1" };
	snprintf(path, sizeof path, "%s/%s", scratch_dir, format);
	ok(recipe_new("f32", &r, &e));
	ok(plan_make(&plan, &(struct plan_request){ .config = c, .source = source, .recipe = r }, &e));
	ok(format_find(format)->create(path, &(struct write_request){ NULL, c, &plan, &o }, &k, &e));
	ok(plan_execute(&plan, source, k, NULL, NULL, &e));
	ok(k->finish(k, &e));
	k->close(k);
	plan_release(&plan);
	recipe_free(r);
	ok(checkpoint_open(path, &back, &e));
	ok(checkpoint_config(back, read, &e));
	float *out = logits(read, back->source);
	checkpoint_close(back);
	scratch_remove(path);
	unlink(path);
	return out;
}

enum change { HEADS = 1, SHARED = 2, WINDOWS = 4 };

static const struct {
	const char *model;
	int change;
	enum runtime runtime;
	const struct arch *as;
	double near;           /* of the logits, before GELU stands for SiLU */
} cases[] = {
	{ "llama-mha", HEADS, RUNTIME_LLAMA_CPP, &family_deci, 1e-6 },
	{ "llama-gqa-bias", HEADS, RUNTIME_LLAMA_CPP, &family_deci, 1e-6 },
	{ "qwen2-bias", HEADS, RUNTIME_LLAMA_CPP, &family_deci, 1e-6 },
	{ "qwen2-bias", HEADS, RUNTIME_VLLM, &family_deci, 1e-6 },
	{ "qwen3", HEADS, RUNTIME_LLAMA_CPP, &family_step35, 1e-6 },
	{ "qwen2-bias", HEADS | WINDOWS, RUNTIME_LLAMA_CPP, &family_step35, 1e-6 },
	{ "llama-mha", WINDOWS, RUNTIME_LLAMA_CPP, &family_step35, 1e-6 },
	{ "llama-mha", SHARED, RUNTIME_TRANSFORMERS, &family_gemma4, 2e-4 },
	{ "llama-mha", SHARED | WINDOWS, RUNTIME_TRANSFORMERS, &family_gemma4, 2e-4 },
	{ "qwen2-bias", SHARED, RUNTIME_TRANSFORMERS, &family_gemma4, 2e-4 },
	{ "qwen3", SHARED, RUNTIME_VLLM, &family_gemma4, 2e-4 },
	{ "gemma", SHARED, RUNTIME_LLAMA_CPP, &family_gemma4, 2e-4 },
	{ "gemma3-old", SHARED, RUNTIME_LLAMA_CPP, &family_gemma4, 2e-4 },
	{ "gemma3", SHARED, RUNTIME_TRANSFORMERS, &family_gemma4, 2e-4 },
	{ "llama-mha", SHARED, RUNTIME_LLAMA_CPP, &family_gemma4, 0.2 },
};

static void fold_so(struct tiny *t, int change)
{
	if (change & HEADS)
		one_head(t, 1);
	if (change & WINDOWS)
		t->config.layer[0].window = 5;
	if (change & SHARED)
		last_shares(t);
}

static void other_families_compute_the_same(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tiny t;
		struct runtime_route route;
		struct recast *r;
		struct config read;
		bool gguf = cases[i].runtime == RUNTIME_LLAMA_CPP;
		print_message("# %s, change %d, for %s\n", cases[i].model, cases[i].change, runtime_rows[cases[i].runtime].name);
		tiny_open(&t, cases[i].model);
		fold_so(&t, cases[i].change);
		ok(runtime_route(&t.config, cases[i].runtime, false, &route, &e));
		assert_ptr_equal(route.as, cases[i].as);
		ok(recast_new(&(struct recast_request){ &t.config, t.source, route.as, gguf }, &r, &e));
		assert_int_equal(recast_approximates(r), cases[i].near > 0.1);
		const struct config *c = recast_config(r);
		size_t n = (size_t)LEN * c->vocab;
		float *was = logits(&t.config, t.source), *is = logits(c, recast_source(r)), *back = through(c, recast_source(r), gguf ? "gguf" : "hf", &read);
		assert_true(distance(is, was, n) < cases[i].near);
		assert_true(distance(back, is, n) < 1e-6);
		assert_ptr_equal(read.arch, route.as);
		for (uint32_t k = 0; k < c->layers; k++)
			assert_true(read.layer[k].kv_heads == c->layer[k].kv_heads && read.layer[k].kv_source == c->layer[k].kv_source &&
				    read.layer[k].window == c->layer[k].window && read.layer[k].ffn == c->layer[k].ffn);
		free(was);
		free(is);
		free(back);
		config_release(&read);
		recast_free(r);
		tiny_close(&t);
	}
}

static void what_no_program_can_say(void **state)
{
	static const struct {
		const char *model;
		int change;
		enum runtime runtime;
		const char *why;
	} no[] = {
		{ "gemma2", HEADS, RUNTIME_LLAMA_CPP, "gemma2 is not written as deci" },
		{ "gemma2", SHARED, RUNTIME_LLAMA_CPP, "cap on the scores" },
		{ "qwen2-bias", SHARED, RUNTIME_LLAMA_CPP, "no biases in GGUF" },
		{ "llama-mha", HEADS, RUNTIME_TRANSFORMERS, "--with-code" },
		{ "llama-mha", HEADS | SHARED, RUNTIME_VLLM, "shared caches besides" },
		{ "llama-gqa-bias", WINDOWS, RUNTIME_LLAMA_CPP, "step35 has biases of queries, keys and values only" },
		{ "gemma3", SHARED, RUNTIME_LLAMA_CPP, "scales the positions of all layers of gemma4, or of none" },
		{ "gpt-neox", SHARED, RUNTIME_TRANSFORMERS, "gpt_neox is not written as gemma4" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
		struct tiny t;
		struct runtime_route route;
		print_message("# %s, change %d, for %s\n", no[i].model, no[i].change, runtime_rows[no[i].runtime].name);
		tiny_open(&t, no[i].model);
		fold_so(&t, no[i].change);
		assert_int_equal(runtime_route(&t.config, no[i].runtime, false, &route, &e), ERR_UNSUPPORTED);
		assert_non_null(strstr(e.message, no[i].why));
		tiny_close(&t);
	}
}

/* Readers in the middle, or of a layer further up, are no suffix. */
static void only_the_last_may_share(void **state)
{
	struct tiny t;
	struct runtime_route route;
	(void)state;
	tiny_open(&t, "qwen2-window");
	assert_true(t.config.layers >= 3);
	for (uint32_t i = 0; i < t.config.layers; i++)
		t.config.layer[i].window = 0;
	t.config.layer[1].kv_source = 0;
	assert_int_equal(runtime_route(&t.config, RUNTIME_VLLM, false, &route, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "layer 1 reads layer 0"));
	ok(runtime_route(&t.config, RUNTIME_TRANSFORMERS, true, &route, &e));
	assert_true(route.code && !route.as);
	ok(runtime_route(&t.config, RUNTIME_QUIRE, false, &route, &e));
	assert_non_null(strstr(route.loaded_by, "quire itself only"));
	tiny_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_families_compute_the_same),
		cmocka_unit_test(what_no_program_can_say),
		cmocka_unit_test(only_the_last_may_share),
	};
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
