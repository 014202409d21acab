/* Keys of a GGUF through other formats: tests/golden/metadata/keys.gguf has every type of value (make_metadata.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/gguf_model.h"
#include "scratch.h"

static struct err e;
static const char KEYS[] = "tests/golden/metadata/keys.gguf";

/* As `convert` and `quantize` do: another scheme than NULL changes values. */
static void through(const char *from, const char *to, const char *scheme)
{
	struct checkpoint *c;
	struct config config;
	struct recipe *r = NULL;
	struct plan p;
	struct tensor_sink *k = NULL;
	struct write_options o = { .recipe = "test", .tool_version = "test", .gguf_file_type = scheme ? 7 : 0, .same_values = !scheme };
	if (checkpoint_open(from, &c, &e) || checkpoint_config(c, &config, &e) || recipe_new(scheme, &r, &e))
		fail_msg("%s", e.message);
	recipe_vectors(r, codec_find("f32"));
	if (plan_make(&p, &(struct plan_request){ .config = &config, .source = c->source, .recipe = r, .method = method_find("rtn") }, &e) ||
	    format_for_output(to)->create(to, &(struct write_request){ c, &config, &p, &o }, &k, &e) ||
	    plan_execute(&p, c->source, k, NULL, NULL, &e) || k->finish(k, &e))
		fail_msg("%s -> %s: %s", from, to, e.message);
	k->close(k);
	plan_release(&p);
	recipe_free(r);
	config_release(&config);
	checkpoint_close(c);
}

struct keys {
	struct mapped map;
	struct gguf g;
};

static void keys_open(struct keys *k, const char *path)
{
	if (mapped_open(&k->map, path, &e) || gguf_parse(&k->g, k->map.data, k->map.size, &e))
		fail_msg("%s", e.message);
}

static void keys_close(struct keys *k)
{
	gguf_release(&k->g);
	mapped_close(&k->map);
}

static bool same_value(const struct gguf_kv *a, const struct gguf_kv *b)
{
	return a && b && a->type == b->type && a->elem == b->elem && a->count == b->count && a->size == b->size &&
	       !memcmp(a->data, b->data, (size_t)a->size);
}

static bool describes_values(const char *key)
{
	return !strncmp(key, "quantize.", 9) || !strcmp(key, "general.file_type");
}

static void check(const char *path, bool same_values)
{
	struct keys old, new;
	uint64_t type;
	keys_open(&old, KEYS);
	keys_open(&new, path);
	for (size_t i = 0; i < old.g.kv_count; i++) {
		const struct gguf_kv *kv = &old.g.kv[i], *now = gguf_find(&new.g, kv->key);
		if (!same_values && describes_values(kv->key)) {
			assert_true(!strcmp(kv->key, "general.file_type") ? gguf_uint(now, 0, &type) && type == 7 : !now);
			continue;
		}
		if (!same_value(kv, now))
			fail_msg("%s: %s is %s", path, kv->key, now ? "another" : "missing");
	}
	keys_close(&old);
	keys_close(&new);
}

static void every_key_survives(void **state)
{
	(void)state;
	const char *gguf = scratch("a.gguf"), *quire = scratch("a.quire"), *again = scratch("b.quire"), *back = scratch("b.gguf");
	through(KEYS, gguf, NULL);
	check(gguf, true);
	through(KEYS, quire, NULL);
	through(quire, again, NULL);
	through(again, back, NULL);
	check(back, true);
}

static void what_quantizing_makes_untrue(void **state)
{
	(void)state;
	const char *gguf = scratch("a.gguf"), *quire = scratch("a.quire"), *back = scratch("b.gguf");
	through(KEYS, gguf, "q8_0");
	check(gguf, false);
	through(KEYS, quire, "q8_0");
	/* a copy of the quantized file does not bring them back */
	struct write_options o = { .gguf_file_type = 7, .same_values = true };
	struct checkpoint *c;
	struct config config;
	struct recipe *r = NULL;
	struct plan p;
	struct tensor_sink *k;
	assert_int_equal(checkpoint_open(quire, &c, &e) || checkpoint_config(c, &config, &e) || recipe_new(NULL, &r, &e), 0);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .config = &config, .source = c->source, .recipe = r }, &e), 0);
	assert_int_equal(format_for_output(back)->create(back, &(struct write_request){ c, &config, &p, &o }, &k, &e), 0);
	assert_int_equal(plan_execute(&p, c->source, k, NULL, NULL, &e) || k->finish(k, &e), 0);
	k->close(k);
	check(back, false);
	plan_release(&p);
	/* another model: its own numbers, other keys stay */
	config.context = 32;
	through(KEYS, gguf, NULL);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .config = &config, .source = c->source, .recipe = r }, &e), 0);
	assert_int_equal(format_for_output(back)->create(back, &(struct write_request){ c, &config, &p, &o }, &k, &e), 0);
	assert_int_equal(plan_execute(&p, c->source, k, NULL, NULL, &e) || k->finish(k, &e), 0);
	k->close(k);
	struct keys now;
	uint64_t n = 0;
	keys_open(&now, back);
	assert_true(gguf_uint(gguf_find(&now.g, "llama.context_length"), 0, &n) && n == 32);
	assert_non_null(gguf_find(&now.g, "llama.other_key"));
	assert_non_null(gguf_find(&now.g, "general.license"));
	keys_close(&now);
	plan_release(&p);
	recipe_free(r);
	config_release(&config);
	checkpoint_close(c);
}

/* What llama.cpp's loaders (src/models/{llama,qwen2,qwen3}.cpp) have no room for, and what they run otherwise. */
static void limits(void **state)
{
	static const struct {
		const char *type, *keys;
		int code;
		const char *says;
	} rows[] = {
		{ "llama", "\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":12", 0, NULL },
		{ "llama", "\"kv_heads_per_layer\":[4,2]", ERR_UNSUPPORTED, "different heads" },
		{ "llama", "\"window_per_layer\":[0,8]", 0, "1 of 2 layers have a sliding window of 8" },
		{ "llama", "\"window_per_layer\":[64,64]", 0, NULL },
		{ "llama", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":16}", 0, NULL },
		{ "llama", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":16,\"beta_fast\":8}", 0,
		  "beta_fast 8" },
		{ "mistral", "\"num_key_value_heads\":2,\"sliding_window\":8", 0, "2 of 2 layers" },
		{ "qwen2", "\"num_key_value_heads\":2", 0, NULL },
		{ "qwen2", "\"num_key_value_heads\":2,\"head_dim\":12", ERR_UNSUPPORTED, "4 heads of 12" },
		{ "qwen2", "\"num_key_value_heads\":2,\"use_sliding_window\":true,\"sliding_window\":8,\"max_window_layers\":0", 0, "gives qwen2" },
		{ "gemma", "\"num_key_value_heads\":4,\"head_dim\":8", 0, NULL },
		{ "gemma", "\"num_key_value_heads\":4,\"head_dim\":8,\"tie_word_embeddings\":false", ERR_UNSUPPORTED, "a head of its own" },
		{ "qwen3", "\"num_key_value_heads\":2,\"head_dim\":16", 0, NULL },
		{ "qwen3", "\"num_key_value_heads\":2,\"head_dim\":16,\"attention_bias\":true", ERR_UNSUPPORTED, "attention_bias" },
		{ "olmo2", "\"num_key_value_heads\":2", 0, NULL },
		{ "olmo3", "\"rope_theta\":500000", 0, NULL },
		{ "olmoe", "\"num_key_value_heads\":2", ERR_UNSUPPORTED, "fewer KV heads (2)" },
		{ "olmoe", "\"norm_topk_prob\":true", ERR_UNSUPPORTED, "norm_topk_prob true" },
		{ "phi", "\"tie_word_embeddings\":true", ERR_UNSUPPORTED, "without a head of its own" },
		{ "olmo3", "\"rope_theta\":10000", ERR_UNSUPPORTED, "rope_local_theta 500000" },
		{ "olmo2", "\"tie_word_embeddings\":true", ERR_UNSUPPORTED, "without a head of its own" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[500];
		struct config c;
		struct notes n = { 0 };
		snprintf(text, sizeof text, "{\"model_type\":\"%s\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,"
			 "\"num_attention_heads\":4,\"vocab_size\":32,\"max_position_embeddings\":64,%s}", rows[i].type, rows[i].keys);
		if (config_parse(&c, text, strlen(text), &e))
			fail_msg("%s: %s", text, e.message);
		int rc = gguf_expressible(&c, &n, &e);
		const char *said = rc ? e.message : n.count ? n.line[0] : "";
		if (rc != rows[i].code || (rows[i].says ? !strstr(said, rows[i].says) : *said != '\0'))
			fail_msg("%s: %d, '%s'", text, rc, said);
		notes_release(&n);
		config_release(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_key_survives, scratch_setup, scratch_teardown),
		cmocka_unit_test(limits),
		cmocka_unit_test_setup_teardown(what_quantizing_makes_untrue, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
