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
#include "base/strbuf.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "plan/plan.h"
#include "tensor/half.h"

static struct err e;

/* A source in memory that counts what is dropped. */
struct memory {
	struct tensor_source source;
	struct tensor tensors[4];
	uint8_t *bytes[4];
	uint64_t dropped;
};

static int memory_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *x)
{
	(void)x;
	struct memory *m = (struct memory *)s;
	*out = (struct tensor_bytes){ m->bytes[i], m->tensors[i].nbytes, NULL };
	return ERR_OK;
}

static void memory_drop(struct tensor_source *s, const void *data, size_t size)
{
	(void)data;
	((struct memory *)s)->dropped += size;
}

static void memory_add(struct memory *m, const char *name, const char *codec, uint64_t rows, uint64_t cols)
{
	struct tensor *t = &m->tensors[m->source.count];
	*t = (struct tensor){ .name = name, .codec = codec_find(codec), .ndim = rows ? 2 : 1, .dim = { rows ? rows : cols, cols } };
	assert_int_equal(tensor_measure(t, &e), ERR_OK);
	struct rng r = { m->source.count + 5 };
	float *x = malloc(tensor_elements(t) * sizeof *x);
	for (uint64_t i = 0; i < tensor_elements(t); i++)
		x[i] = (float)rng_normal(&r);
	uint8_t *b = m->bytes[m->source.count] = malloc(t->nbytes);
	uint64_t row = codec_row_bytes(t->codec, cols);
	for (uint64_t i = 0; i < tensor_rows(t); i++)
		t->codec->encode(t->codec, x + i * cols, b + i * row, cols);
	free(x);
	m->source.count++;
	m->source.tensors = m->tensors;
	m->source.get = memory_get;
	m->source.drop = memory_drop;
	map_release(&m->source.index);
	assert_int_equal(source_index(&m->source, &e), ERR_OK);
}

static void memory_free(struct memory *m)
{
	for (size_t i = 0; i < m->source.count; i++)
		free(m->bytes[i]);
	map_release(&m->source.index);
}

/* A sink that keeps everything, or fails after `limit` bytes. */
struct keep {
	struct tensor_sink sink;
	struct strbuf all;
	size_t items, limit;
};

static int keep_item(struct tensor_sink *k, size_t index, struct err *x)
{
	(void)x;
	struct keep *s = (struct keep *)k;
	assert_int_equal(index, s->items);
	s->items++;
	return ERR_OK;
}

static int keep_bytes(struct tensor_sink *k, const void *data, size_t size, struct err *x)
{
	struct keep *s = (struct keep *)k;
	strbuf_add(&s->all, data, size);
	return s->limit && s->all.len > s->limit ? err_set(x, ERR_IO, "full") : ERR_OK;
}

static struct keep keep_new(void)
{
	return (struct keep){ .sink = { .item = keep_item, .bytes = keep_bytes } };
}

static int make(struct plan *p, struct memory *m, const char *scheme, const char *rule, bool again)
{
	struct recipe *r;
	assert_int_equal(recipe_new(scheme, &r, &e), ERR_OK);
	if (rule)
		assert_int_equal(recipe_override(r, rule, &e), ERR_OK);
	int rc = plan_make(p, &(struct plan_request){ .source = &m->source, .recipe = r, .method = method_find("rtn"), .allow_requantize = again }, &e);
	recipe_free(r);
	return rc;
}

/* Every codec, sizes that leave part chunks, part slices and part rows: what is written is the plain encoding. */
static void bytes_are_the_codec_s(void **state)
{
	(void)state;
	static const char *const schemes[] = { "q4_k", "pure-q4_0", "q8_0", "int4-g128", "int8-row", "f32", "bf16", "f16" };
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		struct memory m = { 0 };
		memory_add(&m, "a.weight", "f16", 1000, 2560);
		memory_add(&m, "b.weight", "f16", 3, 256 * 300);
		memory_add(&m, "norm", "f16", 0, 70001);
		struct plan p;
		assert_int_equal(make(&p, &m, schemes[i], NULL, false), ERR_OK);
		assert_int_equal(p.count, 3);
		struct keep k = keep_new();
		if (plan_execute(&p, &m.source, &k.sink, NULL, NULL, &e))
			fail_msg("%s", e.message);
		assert_int_equal(k.all.len, p.bytes);
		assert_int_equal(k.items, 3);
		size_t at = 0;
		for (size_t t = 0; t < 3; t++) {
			const struct tensor *in = &m.tensors[t], *out = &p.items[t].out;
			uint64_t cols = tensor_cols(in), row = codec_row_bytes(out->codec, cols), in_row = codec_row_bytes(in->codec, cols);
			float *x = malloc(cols * sizeof *x);
			uint8_t *want = malloc(row), *scratch = malloc(cols + CODEC_MAX_BLOCK);
			for (uint64_t i2 = 0; i2 < tensor_rows(in); i2++, at += row) {
				in->codec->decode(in->codec, m.bytes[t] + i2 * in_row, x, cols);
				if (codec_quantizes(out->codec))
					codec_encode_row(out->codec, &(struct row_job){ x, NULL, cols, FIT_RTN }, scratch, want);
				else
					out->codec->encode(out->codec, x, want, cols);
				assert_memory_equal(k.all.data + at, want, row);
			}
			free(x);
			free(want);
			free(scratch);
		}
		uint64_t total = 0;
		for (size_t t = 0; t < 3; t++)
			total += m.tensors[t].nbytes;
		assert_int_equal(m.dropped, total);
		strbuf_release(&k.all);
		plan_release(&p);
		memory_free(&m);
	}
}

static void threads_do_not_matter(void **state)
{
	(void)state;
	struct keep k[2] = { keep_new(), keep_new() };
	for (int i = 0; i < 2; i++) {
		struct memory m = { 0 };
		struct plan p;
		memory_add(&m, "a.weight", "f32", 333, 4096);
		memory_add(&m, "v", "f32", 0, 100000);
		thread_set(i ? 5 : 1);
		assert_int_equal(make(&p, &m, "Q4_K_M", "v=bf16", false), ERR_OK);
		assert_int_equal(plan_execute(&p, &m.source, &k[i].sink, NULL, NULL, &e), ERR_OK);
		plan_release(&p);
		memory_free(&m);
	}
	thread_set(0);
	assert_int_equal(k[0].all.len, k[1].all.len);
	assert_memory_equal(k[0].all.data, k[1].all.data, k[0].all.len);
	strbuf_release(&k[0].all);
	strbuf_release(&k[1].all);
}

static void values_that_must_not_be(void **state)
{
	(void)state;
	static const struct { const char *from, *scheme; float value; const char *says; } rows[] = {
		{ "f32", "q4_k", NAN, "is NaN" },           { "f32", "q8_0", INFINITY, "is infinite" },
		{ "f16", "pure-q4_0", -INFINITY, "is infinite" }, { "bf16", "f16", 1e6f, "999424 at row 700, column 5 is too large for f16" },
		{ "f32", "bf16", 3.4e38f, "too large for bf16" }, { "f32", "int4-g128", 1e9f, "too large for int4-g128" },
		{ "f32", NULL, NAN, "is NaN" },             { "bf16", NULL, INFINITY, "is infinite" }, { "f16", NULL, NAN, "is NaN" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		for (int later = 0; later < 2; later++) {   /* the first of several is named, whatever the threads do */
			struct memory m = { 0 };
			struct plan p;
			memory_add(&m, "a.weight", rows[i].from, 1000, 2560);
			uint64_t size = m.tensors[0].codec->block_bytes;
			for (uint64_t at = 700; at < (later ? 1000u : 701u); at += 33)
				m.tensors[0].codec->encode(m.tensors[0].codec, &rows[i].value, m.bytes[0] + (at * 2560 + 5) * size, 1);
			assert_int_equal(make(&p, &m, rows[i].scheme, NULL, false), ERR_OK);
			struct keep k = keep_new();
			assert_int_equal(plan_execute(&p, &m.source, &k.sink, NULL, NULL, &e), ERR_INPUT);
			if (!strstr(e.message, rows[i].says) || !strstr(e.message, "tensor a.weight") || !strstr(e.message, "row 700, column 5"))
				fail_msg("row %zu: '%s'", i, e.message);
			strbuf_release(&k.all);
			plan_release(&p);
			memory_free(&m);
		}
}

static void quantized_sources(void **state)
{
	(void)state;
	struct memory m = { 0 };
	struct plan p;
	memory_add(&m, "a.weight", "q8_0", 16, 256);
	assert_int_equal(make(&p, &m, "q4_k", NULL, false), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "a.weight is stored as q8_0 already"));
	assert_int_equal(make(&p, &m, "q4_k", NULL, true), ERR_OK);
	plan_release(&p);
	assert_int_equal(make(&p, &m, NULL, NULL, false), ERR_OK);   /* copied */
	struct keep k = keep_new();
	assert_int_equal(plan_execute(&p, &m.source, &k.sink, NULL, NULL, &e), ERR_OK);
	assert_memory_equal(k.all.data, m.bytes[0], m.tensors[0].nbytes);
	plan_release(&p);
	assert_int_equal(make(&p, &m, "bf16", NULL, false), ERR_OK); /* decoded */
	assert_int_equal(p.bytes, 16 * 256 * 2);
	plan_release(&p);
	strbuf_release(&k.all);
	memory_free(&m);
}

static bool cancel(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	assert_true(done <= total);
	return done < total / 2;
}

static void failing_sinks_and_cancelling(void **state)
{
	(void)state;
	struct memory m = { 0 };
	struct plan p;
	memory_add(&m, "a.weight", "f32", 3000, 2560);
	assert_int_equal(make(&p, &m, "q8_0", NULL, false), ERR_OK);
	struct keep k = keep_new();
	k.limit = 100;
	assert_int_equal(plan_execute(&p, &m.source, &k.sink, NULL, NULL, &e), ERR_IO);
	assert_string_equal(e.message, "full");
	k.limit = 0;
	k.items = 0;
	assert_int_equal(plan_execute(&p, &m.source, &k.sink, NULL, &(struct progress){ cancel, NULL }, &e), ERR_IO);
	assert_string_equal(e.message, "interrupted");
	strbuf_release(&k.all);
	plan_release(&p);
	memory_free(&m);
}

/* A method that wants the whole matrix gets it, once. */
static int whole_run(const struct quantize_job *j, struct err *x)
{
	assert_int_equal(j->rows, 70);
	assert_int_equal(j->cols, 2560);
	return method_find("rtn")->run(j, x);
}

static void whole_matrix_methods(void **state)
{
	(void)state;
	static const struct method whole = { .name = "whole", .summary = "", .run = whole_run };
	struct memory m = { 0 };
	struct plan p;
	struct recipe *r;
	memory_add(&m, "a.weight", "f16", 70, 2560);
	assert_int_equal(make(&p, &m, "q4_k", NULL, false), ERR_OK);
	struct keep a = keep_new(), b = keep_new();
	assert_int_equal(plan_execute(&p, &m.source, &a.sink, NULL, NULL, &e), ERR_OK);
	plan_release(&p);
	assert_int_equal(recipe_new("q4_k", &r, &e), ERR_OK);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .source = &m.source, .recipe = r, .method = &whole }, &e), ERR_OK);
	assert_true(p.scratch >= 70 * 2560 * 4);
	assert_int_equal(plan_execute(&p, &m.source, &b.sink, NULL, NULL, &e), ERR_OK);
	assert_int_equal(a.all.len, b.all.len);
	assert_memory_equal(a.all.data, b.all.data, a.all.len);
	plan_release(&p);
	recipe_free(r);
	strbuf_release(&a.all);
	strbuf_release(&b.all);
	memory_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_the_codec_s),
		cmocka_unit_test(threads_do_not_matter),
		cmocka_unit_test(values_that_must_not_be),
		cmocka_unit_test(quantized_sources),
		cmocka_unit_test(failing_sinks_and_cancelling),
		cmocka_unit_test(whole_matrix_methods),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
