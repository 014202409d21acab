/* Matrices in codes of GPTQ, AWQ and MLX mean what their programs say (tests/golden/make_codes.py, make_fp4.py), in a codec of the same grid where there is one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/safetensors.h"
#include "check.h"
#include "scratch.h"
#include "sides.h"

struct want {
	const char *name, *codec;
};

static const struct want gptq[] = {
	{ "b2", "int2-g32-zp" }, { "b3", "int3-g32-zp" }, { "b4", "int4-g32-zp" }, { "b8", "int8-g32-zp" }, { "sym", "int4-g32-zp" },
	{ "row", "int4-g64-zp" }, { "moved", "f32" }, { "moved3", "f32" }, { "long", "int4-g128-zp" }, { "short", "f32" },
	{ "brain", "int4-g32-zp-bf16" }, { NULL, NULL },
};
static const struct want awq[] = { { "g32", "int4-g32-zp" }, { "g64", "int4-g64-zp" }, { "row", "int4-g64-zp" }, { NULL, NULL } };
static const struct want mlx[] = {
	{ "b2", "int2-g32-bias" }, { "b3", "int3-g32-bias" }, { "b4", "int4-g32-bias" }, { "b5", "int5-g32-bias" }, { "b6", "int6-g32-bias" }, { "b8", "int8-g32-bias" }, { "g64", "int4-g64-bias-bf16" },
	{ "g128", "int3-g128-bias-bf16" }, { "wide", "f32" }, { "experts", "int4-g32-bias" }, { NULL, NULL },
};

/* make_fp4.py */
static const struct want ct[] = { { "mx", "mxfp4" }, { "nv", "f32" }, { "moved", "f32" }, { "one", "int4-row" }, { NULL, NULL } };
static const struct want modelopt[] = { { "nv", "f32" }, { NULL, NULL } };
static const struct want mlx_fp4[] = { { "mx", "mxfp4" }, { "nv", "f32" }, { NULL, NULL } };

static void compare(const char *folder, const struct want *rows, struct checkpoint *c, struct checkpoint *values)
{
	size_t count = 0;
	for (; rows[count].name; count++) {
		char name[64];
		float *got, *want;
		const struct tensor *t, *w;
		snprintf(name, sizeof name, "%s.weight", rows[count].name);
		ok(source_read_f32(c->source, name, &got, &t, &e));
		ok(source_read_f32(values->source, name, &want, &w, &e));
		assert_string_equal(t->codec->name, rows[count].codec);
		assert_int_equal(t->ndim, w->ndim);
		assert_memory_equal(t->dim, w->dim, w->ndim * sizeof *w->dim);
		for (uint64_t i = 0; i < tensor_elements(w); i++)
			if (!(fabsf(got[i] - want[i]) <= 1e-6f * fabsf(want[i]) + 1e-7f))
				fail_msg("%s %s[%u]: %.9g, want %.9g", folder, name, (unsigned)i, (double)got[i], (double)want[i]);
		free(got);
		free(want);
	}
	assert_int_equal(c->source->count, count + 1); /* and a plain one */
}

static void equals_their_programs(void **state)
{
	static const struct {
		const char *folder;
		const struct want *rows;
	} cases[] = { { "gptq", gptq }, { "gptq_v2", gptq }, { "awq", awq }, { "mlx", mlx }, { "ct", ct },
			{ "modelopt", modelopt }, { "mlx_fp4", mlx_fp4 } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int threads = 1; threads <= 3; threads += 2) {
			char path[128];
			struct checkpoint *c, *values;
			thread_set(threads);
			snprintf(path, sizeof path, "tests/golden/codes/%s", cases[i].folder);
			ok(checkpoint_open(path, &c, &e));
			assert_null(strstr(side_of(c, "config.json")->data, "quantization"));
			snprintf(path, sizeof path, "tests/golden/codes/%s/values.safetensors", cases[i].folder);
			ok(checkpoint_open(path, &values, &e));
			compare(cases[i].folder, cases[i].rows, c, values);
			checkpoint_close(values);
			checkpoint_close(c);
		}
	thread_set(0);
}

/* ---- and back */

/* Matrices of the golden files that the layout does not hold are left out, and, since AWQ has one, groups of other lengths. */
static void keep_what_fits(struct plan *p, const char *format)
{
	size_t n = 0;
	for (size_t i = 0; i < p->count; i++)
		if (!codec_quantizes(p->items[i].out.codec) ||
		    (format_find(format)->holds(p->items[i].out.codec) && (strcmp(format, "awq") || p->items[i].out.codec->block == 64)))
			p->items[n++] = p->items[i];
	p->count = n;
}

/* The bytes of every part that another program wrote are there again: v is opened as plain tensors. */
static size_t same_parts(const char *was, const char *is, const char *end)
{
	struct mapped a, b;
	struct st_file f, g;
	size_t same = 0;
	ok(mapped_open(&a, was, &e));
	ok(mapped_open(&b, is, &e));
	ok(st_parse(&f, a.data, a.size, &e));
	ok(st_parse(&g, b.data, b.size, &e));
	for (size_t i = 0; i < f.count; i++)
		for (size_t k = 0; k < g.count; k++) {
			const struct st_entry *x = &f.entries[i], *y = &g.entries[k];
			size_t n = strlen(x->name), m = strlen(end);
			if (strcmp(x->name, y->name) || n < m || strcmp(x->name + n - m, end) || x->dtype != y->dtype ||
			    x->end - x->begin != y->end - y->begin) /* groups of 256 are two of 128 */
				continue;
			if (memcmp(f.data + x->begin, g.data + y->begin, x->end - x->begin))
				fail_msg("%s: %s is not what it was", was, x->name);
			same++;
		}
	st_release(&f);
	st_release(&g);
	mapped_close(&a);
	mapped_close(&b);
	return same;
}

static void writes_what_it_read(void **state)
{
	static const struct {
		const char *folder, *format, *end[3];
		size_t count[3];        /* of parts of matrices that are kept in codes and fit the layout */
	} cases[] = { { "gptq_v2", "gptq", { ".qweight", ".scales", ".qzeros" }, { 8, 7, 7 } }, { "awq", "awq", { ".qweight", ".scales", ".qzeros" }, { 2, 2, 2 } },
		      { "mlx_fp4", "mlx", { ".weight", ".scales", ".biases" }, { 2, 1, 0 } },
		      { "mlx", "mlx", { ".weight", ".scales", ".biases" }, { 10, 9, 9 } } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char path[128], out[160], again[200];
		struct checkpoint *c;
		struct recipe *r;
		struct plan p;
		struct tensor_sink *k;
		struct write_options o = { .tool_version = "x", .gguf_file_type = -1 };
		snprintf(path, sizeof path, "tests/golden/codes/%s", cases[i].folder);
		snprintf(out, sizeof out, "%s", scratch(cases[i].folder));
		snprintf(again, sizeof again, "%s/model.safetensors", out);
		ok(checkpoint_open(path, &c, &e));
		ok(recipe_new(NULL, &r, &e));
		ok(plan_make(&p, &(struct plan_request){ .source = c->source, .recipe = r }, &e));
		keep_what_fits(&p, cases[i].format);
		ok(format_find(cases[i].format)->create(out, &(struct write_request){ c, NULL, &p, &o }, &k, &e));
		ok(plan_execute(&p, c->source, k, NULL, NULL, &e));
		ok(k->finish(k, &e));
		k->close(k);
		snprintf(path, sizeof path, "tests/golden/codes/%s/model.safetensors", cases[i].folder);
		for (size_t n = 0; n < 3; n++)
			assert_int_equal(same_parts(path, again, cases[i].end[n]), cases[i].count[n]);
		plan_release(&p);
		recipe_free(r);
		checkpoint_close(c);
	}
}

/* ---- folders with one matrix, all bytes of a part alike */

struct part {
	const char *name, *dtype, *shape;
	size_t size;
	int fill;
};
enum { MOST_PARTS = 4 };

static void put_folder(const char *config, const struct part parts[MOST_PARTS])
{
	struct strbuf b = { 0 };
	size_t at = 0;
	scratch_put(scratch("config.json"), config, strlen(config));
	strbuf_add(&b, "\0\0\0\0\0\0\0", 8);
	for (size_t i = 0; i < MOST_PARTS && parts[i].name; at += parts[i++].size)
		strbuf_printf(&b, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "{", parts[i].name,
			      parts[i].dtype, parts[i].shape, at, at + parts[i].size);
	strbuf_putc(&b, '}');
	while (b.len % 8)
		strbuf_putc(&b, ' ');
	store_u64(b.data, b.len - 8);
	for (size_t i = 0; i < MOST_PARTS && parts[i].name; i++)
		for (size_t k = 0; k < parts[i].size; k++)
			strbuf_putc(&b, (char)parts[i].fill);
	scratch_put(scratch("model.safetensors"), b.data, b.len);
	strbuf_release(&b);
}

#define QUANT(text) "{\"quantization_config\": {" text "}}"
#define GPTQ(more) QUANT("\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32" more)
#define AWQ(more) QUANT("\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 32" more)
#define MLX(bits) "{\"quantization\": {\"group_size\": 32, \"bits\": " bits "}}"
/* 8 rows of 32 columns in 4 bits; scales are 0x3838 */
#define WORDS { "a.qweight", "I32", "[4,8]", 128, 0xaa }
#define SCALES { "a.scales", "F16", "[1,8]", 16, 0x38 }
#define ZEROS(byte) { "a.qzeros", "I32", "[1,1]", 4, byte }

static void says(int code, const char *text)
{
	struct checkpoint *c;
	e.message[0] = '\0';
	int rc = checkpoint_open(scratch_dir, &c, &e);
	if (!rc)
		checkpoint_close(c);
	if (rc != code || !strstr(e.message, text))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, text);
}

static void refuses(void **state)
{
	static const struct {
		const char *config;
		struct part part[MOST_PARTS];
		int code;
		const char *says;
	} rows[] = {
		{ GPTQ(""), { WORDS, SCALES }, ERR_INPUT, "a.qzeros is missing" },
		{ GPTQ(""), { WORDS, ZEROS(0x77) }, ERR_INPUT, "a.scales is missing" },
		{ GPTQ(""), { SCALES, ZEROS(0x77) }, ERR_INPUT, "no codes for it" },
		{ GPTQ(""), { WORDS, ZEROS(0x77), { "a.scales", "F16", "[1,4]", 8, 0 } }, ERR_INPUT, "do not go together" },
		{ GPTQ(""), { WORDS, SCALES, { "a.qzeros", "I32", "[2,1]", 8, 0 } }, ERR_INPUT, "do not go together" },
		{ GPTQ(""), { WORDS, SCALES, { "a.qzeros", "I32", "[1,0]", 0, 0 } }, ERR_INPUT, "missing or empty" },
		{ GPTQ(""), { { "a.qweight", "I32", "[4,0]", 0, 0 }, SCALES, ZEROS(0x77) }, ERR_INPUT, "missing or empty" },
		{ GPTQ(""), { WORDS, ZEROS(0x77), { "a.scales", "I16", "[1,8]", 16, 0 } }, ERR_INPUT, "no floats" },
		{ GPTQ(""), { WORDS, SCALES, ZEROS(0x77), { "a.g_idx", "I32", "[31]", 124, 0 } }, ERR_INPUT, "a group for each column" },
		{ GPTQ(""), { WORDS, SCALES, ZEROS(0x77), { "a.g_idx", "I32", "[32]", 128, 1 } }, ERR_INPUT, "is of no group" },
		{ GPTQ(""), { WORDS, SCALES, ZEROS(0x77), { "a.g_idx", "I32", "[32]", 128, 0xff } }, ERR_INPUT, "is of no group" },
		{ GPTQ(", \"desc_act\": true"), { WORDS, SCALES, ZEROS(0x77) }, ERR_INPUT, "g_idx is missing" },
		{ GPTQ(""), { WORDS, { "a.scales", "F16", "[2,8]", 32, 0 }, { "a.qzeros", "I32", "[2,1]", 8, 0x77 }, { "a.g_idx", "I32", "[32]", 128, 0 } },
		  ERR_UNSUPPORTED, "a group that has no column" },
		{ GPTQ(", \"checkpoint_format\": \"marlin\""), { WORDS, SCALES, ZEROS(0x77) }, ERR_UNSUPPORTED, "GPTQ in another layout" },
		{ GPTQ(", \"pack_dtype\": \"int16\""), { WORDS, SCALES, ZEROS(0x77) }, ERR_UNSUPPORTED, "words of another size" },
		{ GPTQ(""), { { "a.qweight", "I32", "[5,32]", 640, 0 }, { "a.scales", "F16", "[1,32]", 64, 0 }, { "a.qzeros", "I32", "[1,5]", 20, 0 } },
		  ERR_UNSUPPORTED, "planes of bits" },
		{ QUANT("\"quant_method\": \"awq\", \"bits\": 3"), { { "a.qweight", "I32", "[32,1]", 128, 0 }, SCALES, ZEROS(0) }, ERR_UNSUPPORTED,
		  "other than 4 bits" },
		{ AWQ(""), { WORDS, SCALES, ZEROS(0) }, ERR_INPUT, "do not go together" },
		{ MLX("4"), { { "a.weight", "U32", "[8,4]", 128, 0 }, { "a.scales", "F16", "[8,1]", 16, 0 } }, ERR_INPUT, "a.biases is missing" },
		{ MLX("4"), { { "a.weight", "U32", "[8,4]", 128, 0 }, { "a.scales", "F16", "[8,1]", 16, 0 }, { "a.biases", "F16", "[8,2]", 32, 0 } },
		  ERR_INPUT, "do not go together" },
		{ MLX("8"), { { "a.weight", "U32", "[8,4]", 128, 0 }, { "a.scales", "F16", "[8,1]", 16, 0 }, { "a.biases", "F16", "[8,1]", 16, 0 } },
		  ERR_INPUT, "not that of 8 bits" },
		{ MLX("9"), { { "a.weight", "U32", "[8,4]", 128, 0 }, { "a.scales", "F16", "[8,1]", 16, 0 }, { "a.biases", "F16", "[8,1]", 16, 0 } },
		  ERR_INPUT, "9 bits" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		put_folder(rows[i].config, rows[i].part);
		says(rows[i].code, rows[i].says);
	}
}

/*
 * Codes 10 and scales 0x3838 = .52734375, zero points by the layout and by what a symmetric file of the other layout must be:
 * vLLM's readers meet such files.
 */
static void tells_the_layouts_of_gptq_apart(void **state)
{
	static const struct {
		const char *more;
		int zeros;
		float zero;
		const char *note;
	} rows[] = {
		{ "", 0x77, 8, NULL },
		{ ", \"checkpoint_format\": \"gptq\"", 0x22, 3, NULL },
		{ ", \"checkpoint_format\": \"gptq_v2\"", 0x77, 7, NULL },
		{ ", \"sym\": true", 0x77, 8, NULL },
		{ ", \"sym\": true", 0x88, 8, "read as gptq_v2" },
		{ ", \"sym\": false", 0x88, 9, NULL },
		{ ", \"sym\": true, \"checkpoint_format\": \"gptq_v2\"", 0x77, 8, "read as gptq" },
		{ ", \"sym\": true, \"checkpoint_format\": \"gptq_v2\"", 0x88, 8, NULL },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char config[256];
		struct checkpoint *c;
		const struct tensor *t;
		float *x;
		snprintf(config, sizeof config, GPTQ("%s"), rows[i].more);
		put_folder(config, (struct part[MOST_PARTS]){ WORDS, SCALES, ZEROS(rows[i].zeros) });
		ok(checkpoint_open(scratch_dir, &c, &e));
		ok(source_read_f32(c->source, "a.weight", &x, &t, &e));
		assert_string_equal(t->codec->name, rows[i].zero == 8 && !strstr(rows[i].more, "false") ? "int4-g32" : "int4-g32-zp");
		for (size_t k = 0; k < 256; k++)
			assert_true(x[k] == 0.52734375f * (10 - rows[i].zero));
		assert_int_equal(c->notes.count, rows[i].note != NULL);
		if (rows[i].note)
			assert_non_null(strstr(c->notes.line[0], rows[i].note));
		free(x);
		checkpoint_close(c);
	}
}

/* bitsandbytes: codes times the largest magnitude of a row, over 127; what says that rows are rows is no tensor of the model. */
static void reads_int8_of_bitsandbytes(void **state)
{
	struct checkpoint *c;
	const struct tensor *t;
	float *x;
	(void)state;
	put_folder(QUANT("\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true"),
		   (struct part[MOST_PARTS]){ { "a.weight", "I8", "[2,8]", 16, 0xfd }, { "a.SCB", "F32", "[2]", 8, 0x3f }, { "a.weight_format", "U8", "[]", 1, 0 } });
	ok(checkpoint_open(scratch_dir, &c, &e));
	assert_int_equal(c->source->count, 1);
	ok(source_read_f32(c->source, "a.weight", &x, &t, &e));
	for (size_t k = 0; k < 16; k++)
		assert_true(fabsf(x[k] - -3 * 0.747058809f / 127) < 1e-8f);
	free(x);
	checkpoint_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_their_programs),
		cmocka_unit_test_setup_teardown(writes_what_it_read, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(reads_int8_of_bitsandbytes, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(tells_the_layouts_of_gptq_apart, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
