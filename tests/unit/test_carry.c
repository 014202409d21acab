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
#include "formats/gguf.h"
#include "scratch.h"

static struct err e;
static const char KEYS[] = "tests/golden/metadata/keys.gguf";

/* As `convert` and `quantize` do: another scheme than NULL changes values. */
static void through(const char *from, const char *to, const char *scheme)
{
	struct checkpoint *c;
	struct config config;
	struct recipe *r;
	struct plan p;
	struct tensor_sink *k;
	struct write_options o = { .recipe = "test", .tool_version = "test", .gguf_file_type = scheme ? 7 : 0, .same_values = !scheme };
	if (checkpoint_open(from, &c, &e) || checkpoint_config(c, &config, &e) || recipe_new(scheme, &r, &e))
		fail_msg("%s", e.message);
	recipe_vectors(r, codec_find("f32"));
	if (plan_make(&p, &config, c->source, r, method_find("rtn"), false, &e) ||
	    format_for_output(to)->create(to, c, &config, &p, &o, &k, &e) ||
	    plan_execute(&p, c->source, k, NULL, NULL, NULL, &e) || k->finish(k, &e))
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
	struct recipe *r;
	struct plan p;
	struct tensor_sink *k;
	assert_int_equal(checkpoint_open(quire, &c, &e) || checkpoint_config(c, &config, &e) || recipe_new(NULL, &r, &e), 0);
	assert_int_equal(plan_make(&p, &config, c->source, r, NULL, false, &e), 0);
	assert_int_equal(format_for_output(back)->create(back, c, &config, &p, &o, &k, &e), 0);
	assert_int_equal(plan_execute(&p, c->source, k, NULL, NULL, NULL, &e) || k->finish(k, &e), 0);
	k->close(k);
	check(back, false);
	plan_release(&p);
	/* another model: its own numbers, other keys stay */
	config.context = 32;
	through(KEYS, gguf, NULL);
	assert_int_equal(plan_make(&p, &config, c->source, r, NULL, false, &e), 0);
	assert_int_equal(format_for_output(back)->create(back, c, &config, &p, &o, &k, &e), 0);
	assert_int_equal(plan_execute(&p, c->source, k, NULL, NULL, NULL, &e) || k->finish(k, &e), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_key_survives, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(what_quantizing_makes_untrue, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
