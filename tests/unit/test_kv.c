/* Keys and values in codecs: prefill and decoding agree, the cache is as small as it should be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/thread.h"
#include "calib/run/loaded.h"
#include "codec/codec.h"
#include "model/model.h"
#include "check.h"

enum { LEN = 24 };

static struct loaded demo;

static const char text[] = "There was once a child called Cora, who knew every corner of the workshop. On Sunday Clara went to the "
			   "workshop, and on Monday she went to the mill. Which was best? \"The workshop,\" said Clara, \"for "
			   "it is warm there, and the mill is cold.\" So Cora went home, and Clara stayed at the workshop until night.";

static void tokens_of(struct token_ids *ids)
{
	*ids = (struct token_ids){ 0 };
	ok(tokenizer_encode(demo.tokenizer, text, sizeof text - 1, true, ids, &e));
	assert_true(ids->count >= LEN);
}

static float *prefill(struct model *m, const int32_t *id, size_t len)
{
	const struct config *c = model_config(m);
	struct model_run *r = model_run_new(m, 1, len, &e);
	float *hidden = some(len * c->hidden, sizeof(float)), *out = some(len * c->vocab, sizeof(float));
	ok(model_forward(r, id, &(struct model_batch){ 1, len, NULL, NULL }, hidden, &e));
	ok(model_logits(r, hidden, len, out, &e));
	model_run_free(r);
	free(hidden);
	return out;
}

static float *decode(struct model *m, const int32_t *id, size_t len, size_t chunk, struct kv_codecs codecs)
{
	const struct config *c = model_config(m);
	struct model_run *r = model_run_new(m, 1, chunk, &e);
	struct kv_cache *cache = kv_cache_new_in(c, len, codecs, &e);
	float *hidden = some(chunk * c->hidden, sizeof(float)), *out = some(len * c->vocab, sizeof(float));
	assert_non_null(cache);
	for (size_t at = 0, n; at < len; at += n) {
		n = len - at < chunk ? len - at : chunk;
		ok(model_forward(r, id + at, &(struct model_batch){ 1, n, cache, NULL }, hidden, &e));
		ok(model_logits(r, hidden, n, out + at * c->vocab, &e));
	}
	kv_cache_free(cache);
	model_run_free(r);
	free(hidden);
	return out;
}

/* Root mean square of the difference over that of b. */
static double rms_distance(const float *a, const float *b, size_t n)
{
	double d = 0, s = 0;
	for (size_t i = 0; i < n; i++) {
		d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		s += (double)b[i] * b[i];
	}
	return sqrt(d / s);
}

/*
 * Prefill and decoding sum in another order, so that an element on the border between two codes may fall to either side
 * in a coarse codec: `same` allows for few of those. `least`: what the codec must change, to show that it is used.
 */
static const struct {
	const char *k, *v;
	bool rotate;
	double same, least, most;
} cases[] = {
	{ "f32", "f32", false, 1e-6, 0, 1e-9 },     { "f16", "f16", false, 2e-4, 1e-5, 2e-3 },
	{ "bf16", "bf16", false, 1e-3, 1e-4, 1e-2 }, { "f8_e4m3", "f8_e4m3", false, 1e-2, 2e-3, 0.3 },
	{ "q8_0", "q8_0", false, 1e-3, 3e-4, 2e-2 }, { "q4_0", "q4_0", false, 2e-2, 5e-3, 0.3 },
	{ "q5_1", "q4_1", false, 2e-2, 3e-3, 0.3 },  { "int8", "int8", false, 1e-3, 3e-4, 2e-2 },
	{ "int4", "int4", false, 2e-2, 5e-3, 0.3 },  { "int4-g32-zp", "int8-row", false, 2e-2, 3e-3, 0.3 },
	{ "q8_0", "q4_0", false, 2e-2, 3e-3, 0.3 },  { "f32", "f32", true, 1e-6, 1e-9, 1e-5 },
	{ "q4_0", "q4_0", true, 2e-2, 5e-3, 0.3 },
};
enum { CASES = sizeof cases / sizeof *cases };

static void decoding_agrees_with_prefill(void **state)
{
	(void)state;
	struct token_ids ids;
	tokens_of(&ids);
	size_t n = LEN * demo.config.vocab;
	float *plain = prefill(demo.model, ids.id, LEN);
	for (int i = 0; i < CASES; i++) {
		struct kv_codecs kv;
		ok(kv_codecs_find(&(struct kv_choice){ cases[i].k, cases[i].v, cases[i].rotate }, demo.config.head_dim, &kv, &e));
		model_set_kv(demo.model, kv);
		float *whole = prefill(demo.model, ids.id, LEN);
		double change = rms_distance(whole, plain, n);
		if (!(change >= cases[i].least && change <= cases[i].most))
			fail_msg("%s %s changes logits by %g", cases[i].k, cases[i].v, change);
		for (size_t chunk = 1; chunk <= LEN; chunk = chunk == 1 ? 7 : chunk == 7 ? LEN : LEN + 1) {
			float *parts = decode(demo.model, ids.id, LEN, chunk, kv);
			double d = rms_distance(parts, whole, n);
			if (!(d <= cases[i].same))
				fail_msg("%s %s in chunks of %zu: decoding differs by %g", cases[i].k, cases[i].v, chunk, d);
			free(parts);
		}
		free(whole);
	}
	model_set_kv(demo.model, (struct kv_codecs){ 0 });
	free(plain);
	token_ids_release(&ids);
}

static size_t bytes(const char *k, const char *v, size_t capacity)
{
	struct kv_codecs kv;
	ok(kv_codecs_find(&(struct kv_choice){ k, v, false }, demo.config.head_dim, &kv, &e));
	struct kv_cache *cache = kv_cache_new_in(&demo.config, capacity, kv, &e);
	assert_non_null(cache);
	size_t n = kv_cache_bytes(cache);
	kv_cache_free(cache);
	return n;
}

static void cache_shrinks(void **state)
{
	(void)state;
	const struct config *c = &demo.config;
	size_t rows = 100 * (size_t)c->layers * c->kv_heads;
	assert_int_equal(c->head_dim, 32);
	assert_int_equal(bytes(NULL, NULL, 100), rows * 2 * 128);
	assert_int_equal(bytes("f16", NULL, 100), rows * 2 * 64);
	assert_int_equal(bytes("q8_0", NULL, 100), rows * 2 * 34);
	assert_int_equal(bytes("q4_0", NULL, 100), rows * 2 * 18);
	assert_int_equal(bytes("int8", NULL, 100), rows * 2 * 34);
	assert_int_equal(bytes("q8_0", "q4_0", 100), rows * (34 + 18));
	assert_int_equal(bytes(NULL, "q4_0", 100), rows * (128 + 18));
}

/* Layers that read another layer's cache keep none, in any codec, and read it through the codec. */
static void shared_layers_in_a_codec(void **state)
{
	(void)state;
	struct token_ids ids;
	tokens_of(&ids);
	struct kv_codecs kv;
	ok(kv_codecs_find(&(struct kv_choice){ "q8_0", NULL, false }, demo.config.head_dim, &kv, &e));
	size_t all = bytes("q8_0", NULL, 100), n = LEN * demo.config.vocab;
	demo.config.layer[2].kv_source = 1;
	demo.config.layer[4].kv_source = 1;
	assert_int_equal(bytes("q8_0", NULL, 100), all * 3 / 5);
	model_set_kv(demo.model, kv);
	float *whole = prefill(demo.model, ids.id, LEN), *parts = decode(demo.model, ids.id, LEN, 5, kv);
	assert_true(rms_distance(parts, whole, n) <= 1e-3);
	model_set_kv(demo.model, (struct kv_codecs){ 0 });
	float *plain = prefill(demo.model, ids.id, LEN);
	assert_true(rms_distance(whole, plain, n) > 1e-5);
	demo.config.layer[2].kv_source = 2;
	demo.config.layer[4].kv_source = 4;
	free(whole);
	free(parts);
	free(plain);
	token_ids_release(&ids);
}

/* A window's buffer moves coded rows. */
static void windows_in_a_codec(void **state)
{
	enum { LONG = 120 };
	(void)state;
	int32_t id[LONG];
	struct rng rng = { 5 };
	struct kv_codecs kv;
	for (int i = 0; i < LONG; i++)
		id[i] = (int32_t)rng_below(&rng, demo.config.vocab);
	ok(kv_codecs_find(&(struct kv_choice){ "q8_0", "f16", false }, demo.config.head_dim, &kv, &e));
	for (uint32_t i = 1; i < demo.config.layers; i++)
		demo.config.layer[i].window = 20;
	model_set_kv(demo.model, kv);
	float *whole = prefill(demo.model, id, LONG);
	for (size_t chunk = 1; chunk < LONG; chunk = chunk == 1 ? 70 : LONG) {
		float *parts = decode(demo.model, id, LONG, chunk, kv);
		assert_true(rms_distance(parts, whole, LONG * demo.config.vocab) <= 1e-3);
		free(parts);
	}
	for (uint32_t i = 1; i < demo.config.layers; i++)
		demo.config.layer[i].window = 0;
	model_set_kv(demo.model, (struct kv_codecs){ 0 });
	free(whole);
}

/* Readers of a window's cache come after it has moved on: a long chunk goes through the layers in parts. */
static void windows_that_others_read(void **state)
{
	enum { LONG = 200, WINDOW = 12 };
	(void)state;
	int32_t id[LONG];
	struct rng rng = { 6 };
	struct kv_codecs kv = { 0 };
	struct config *c = &demo.config;
	size_t n = LONG * c->vocab, row = 2 * sizeof(float) * c->kv_heads * c->head_dim, full = bytes(NULL, NULL, LONG);
	for (int i = 0; i < LONG; i++)
		id[i] = (int32_t)rng_below(&rng, c->vocab);
	for (uint32_t i = 1; i < c->layers; i++)
		c->layer[i].window = WINDOW;
	c->layer[2].kv_source = 1;
	c->layer[4].kv_source = 3;
	/* one whole layer, two windows and what they need to move on */
	assert_true(bytes(NULL, NULL, LONG) < full / 5 + 2 * row * (WINDOW + 64 + WINDOW) + 1);
	float *whole = prefill(demo.model, id, LONG);
	for (size_t chunk = 1; chunk <= LONG; chunk = chunk == 1 ? 90 : chunk == 90 ? LONG : LONG + 1) {
		float *parts = decode(demo.model, id, LONG, chunk, kv);
		double d = rms_distance(parts, whole, n);
		if (!(d <= 1e-4))
			fail_msg("chunks of %zu: decoding differs by %g", chunk, d);
		free(parts);
	}
	/* a reader that sees all needs all */
	c->layer[4].window = 0;
	assert_true(bytes(NULL, NULL, LONG) > 2 * full / 5);
	float *other = prefill(demo.model, id, LONG), *parts = decode(demo.model, id, LONG, 90, kv);
	assert_true(rms_distance(other, whole, n) > 1e-4 && rms_distance(parts, other, n) <= 1e-4);
	for (uint32_t i = 1; i < c->layers; i++) {
		c->layer[i].window = 0;
		c->layer[i].kv_source = i;
	}
	free(whole);
	free(other);
	free(parts);
}

static void threads_do_not_change_bits(void **state)
{
	(void)state;
	struct token_ids ids;
	tokens_of(&ids);
	struct kv_codecs kv;
	ok(kv_codecs_find(&(struct kv_choice){ "q4_0", NULL, true }, demo.config.head_dim, &kv, &e));
	model_set_kv(demo.model, kv);
	thread_set(1);
	float *one = prefill(demo.model, ids.id, LEN), *one_cached = decode(demo.model, ids.id, LEN, 9, kv);
	thread_set(3);
	float *three = prefill(demo.model, ids.id, LEN), *three_cached = decode(demo.model, ids.id, LEN, 9, kv);
	thread_set(0);
	assert_memory_equal(one, three, LEN * demo.config.vocab * sizeof *one);
	assert_memory_equal(one_cached, three_cached, LEN * demo.config.vocab * sizeof *one);
	model_set_kv(demo.model, (struct kv_codecs){ 0 });
	free(one);
	free(one_cached);
	free(three);
	free(three_cached);
	token_ids_release(&ids);
}

static void what_is_refused(void **state)
{
	(void)state;
	struct kv_codecs kv;
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "q4_k", NULL, false }, 32, &kv, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "whole blocks of 256"));
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "q8_0", NULL, false }, 80, &kv, &e), ERR_UNSUPPORTED);
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "i8", NULL, false }, 32, &kv, &e), ERR_USAGE);
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "q99", NULL, false }, 32, &kv, &e), ERR_USAGE);
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "q8_0", "q99", false }, 32, &kv, &e), ERR_USAGE);
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ "int8", NULL, true }, 33, &kv, &e), ERR_UNSUPPORTED);
	assert_int_equal(kv_codecs_find(&(struct kv_choice){ NULL, NULL, true }, 32, &kv, &e), ERR_USAGE);
	ok(kv_codecs_find(&(struct kv_choice){ "int8", NULL, true }, 80, &kv, &e));
	ok(kv_codecs_find(&(struct kv_choice){ NULL, NULL, false }, 33, &kv, &e));
}

/* Rotation is its own inverse for any even size. */
static void rotation_is_exact(void **state)
{
	(void)state;
	static const size_t dims[] = { 2, 24, 64, 80, 128 };
	for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
		struct kv_codec c;
		float x[128], y[128], out[128], scratch[128];
		struct rng rng = { i + 1 };
		ok(kv_codec_find("f32", true, dims[i], &c, &e));
		for (size_t j = 0; j < dims[i]; j++)
			x[j] = (float)rng_unit(&rng) - 0.5f;
		thread_set(1);
		kv_codec_encode(&c, x, 1, dims[i], out, scratch);
		thread_set(0);
		assert_true(rms_distance(out, x, dims[i]) > 0.1);
		kv_codec_decode(&c, out, y, dims[i]);
		assert_true(rms_distance(y, x, dims[i]) < 1e-6);
	}
}

static int open_demo(void **state)
{
	(void)state;
	return loaded_open(&demo, "examples/demo", &e);
}

static int close_demo(void **state)
{
	(void)state;
	loaded_close(&demo);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoding_agrees_with_prefill), cmocka_unit_test(cache_shrinks),
		cmocka_unit_test(shared_layers_in_a_codec),     cmocka_unit_test(windows_in_a_codec),
		cmocka_unit_test(windows_that_others_read),
		cmocka_unit_test(threads_do_not_change_bits),   cmocka_unit_test(what_is_refused),
		cmocka_unit_test(rotation_is_exact),
	};
	return cmocka_run_group_tests(tests, open_demo, close_demo);
}
