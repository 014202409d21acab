/* Checkpoints that others quantized: what is read equals transformers, what is not is refused by name. */
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
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/packed.h"
#include "model/model.h"
#include "check.h"
#include "scratch.h"
#include "sides.h"

enum { SEQS = 2, LEN = 24, SHOWN = LEN / 4 };

static void read_golden(const char *name, const char *file, void *out, size_t size)
{
	char path[256];
	struct strbuf b = { 0 };
	snprintf(path, sizeof path, "tests/golden/packed/%s/%s", name, file);
	ok(file_read(path, &b, 0, &e));
	assert_int_equal(b.len, size);
	memcpy(out, b.data, size);
	strbuf_release(&b);
}

static void compare_logits(const char *name, const struct config *c, struct model *m)
{
	int32_t tokens[SEQS * LEN];
	size_t n = (size_t)SEQS * LEN, v = c->vocab;
	float *want = some(SEQS * SHOWN * v, sizeof *want), *hidden = some(n * c->hidden, sizeof *hidden), *got = some(n * v, sizeof *got);
	struct model_run *r = model_run_new(m, SEQS, LEN, &e);
	assert_non_null(r);
	read_golden(name, "tokens.bin", tokens, sizeof tokens);
	read_golden(name, "logits.bin", want, SEQS * SHOWN * v * sizeof *want);
	ok(model_forward(r, tokens, &(struct model_batch){ SEQS, LEN, NULL, NULL }, hidden, &e));
	ok(model_logits(r, hidden, n, got, &e));
	for (size_t s = 0; s < SEQS * SHOWN; s++)
		if (!(distance(got + (4 * s + 3) * v, want + s * v, v) <= 2e-5))
			fail_msg("%s: logits differ by %g of the largest", name, distance(got + (4 * s + 3) * v, want + s * v, v));
	model_run_free(r);
	free(want);
	free(hidden);
	free(got);
}

static void equals_transformers(void **state)
{
	static const char *const cases[] = { "fp8-block", "fp8-static", "fp8-e5m2", "fbgemm", "bare",
					     "ct-tensor", "ct-channel", "ct-block", "ct-int8" };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char path[256];
		struct checkpoint *c;
		struct config config;
		struct model *m;
		snprintf(path, sizeof path, "tests/golden/packed/%s", cases[i]);
		ok(checkpoint_open(path, &c, &e));
		assert_int_equal(c->source->count, 21);
		assert_null(strstr(side_of(c, "config.json")->data, "quantization_config"));
		ok(checkpoint_config(c, &config, &e));
		ok(model_open(&config, c->source, &m, &e));
		compare_logits(cases[i], &config, m);
		model_close(m);
		config_release(&config);
		checkpoint_close(c);
	}
}

/* ---- folders with one or two tensors */

struct part {
	const char *name, *dtype, *shape;
	size_t size;
};

static void put_folder(const char *config, const struct part *parts, size_t count)
{
	struct strbuf b = { 0 };
	size_t at = 0;
	if (config)
		scratch_put(scratch("config.json"), config, strlen(config));
	else
		unlink(scratch("config.json"));
	strbuf_add(&b, "\0\0\0\0\0\0\0", 8);
	for (size_t i = 0; i < count; i++) {
		strbuf_printf(&b, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "{", parts[i].name,
			      parts[i].dtype, parts[i].shape, at, at + parts[i].size);
		at += parts[i].size;
	}
	strbuf_putc(&b, '}');
	while (b.len % 8)
		strbuf_putc(&b, ' ');
	store_u64(b.data, b.len - 8);
	for (size_t i = 0; i < at; i++)
		strbuf_putc(&b, 0x38); /* 1 in F8_E4M3 */
	scratch_put(scratch("model.safetensors"), b.data, b.len);
	strbuf_release(&b);
}

static void opens_as(int code, const char *says)
{
	struct checkpoint *c;
	e.message[0] = '\0';
	int rc = checkpoint_open(scratch_dir, &c, &e);
	if (!rc)
		checkpoint_close(c);
	if (rc != code || !strstr(e.message, says))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, says);
}

#define QUANT(text) "{\"quantization_config\": {" text "}}"

/* config.json names the layout, whatever the tensors are. */
static void refuses_by_configuration(void **state)
{
	static const struct part plain[] = { { "a.weight", "F16", "[2,4]", 16 } };
	static const char *const rows[][2] = {
		{ QUANT("\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true"), "bitsandbytes" },
		{ QUANT("\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\""), "AWQ in another layout" },
		{ QUANT("\"quant_method\": \"auto-round\", \"packing_format\": \"auto_round:exllamav2\""), "AutoRound" },
		{ QUANT("\"quant_method\": \"hqq\""), "HQQ" },
		{ QUANT("\"quant_method\": \"aqlm\""), "AQLM" },
		{ QUANT("\"quant_method\": \"eetq\""), "EETQ" },
		{ QUANT("\"quant_method\": \"quanto\""), "quanto" },
		{ QUANT("\"quant_method\": \"torchao\""), "torchao" },
		{ QUANT("\"quant_method\": \"mxfp4\""), "MXFP4" },
		{ QUANT("\"quant_method\": \"compressed-tensors\", \"format\": \"marlin-24\""), "compressed-tensors" },
		{ QUANT("\"quant_method\": \"what-is-new\""), "what-is-new" },
		{ "{\"quantization\": {\"group_size\": 32, \"bits\": 4, \"mode\": \"mxfp8\"}}", "MLX in a mode other than affine" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		put_folder(rows[i][0], plain, 1);
		opens_as(ERR_UNSUPPORTED, rows[i][1]);
		assert_non_null(strstr(e.message, "dequantize"));
	}
}

/* Without a word in config.json, tensors say it. */
static void refuses_by_tensors(void **state)
{
	static const struct {
		struct part part[2];
		const char *says;
	} rows[] = {
		{ { { "a.weight", "U8", "[8,1]", 8 }, { "a.weight.absmax", "F32", "[2]", 8 } }, "bitsandbytes" },
		{ { { "a.weight", "U8", "[8,1]", 8 }, { "a.weight.quant_state.bitsandbytes__nf4", "U8", "[4]", 4 } }, "bitsandbytes" },
		{ { { "a.qweight", "I32", "[2,4]", 32 }, { "a.g_idx", "I32", "[2]", 8 } }, "GPTQ" },
		{ { { "a.qweight", "I32", "[2,4]", 32 }, { "a.scales", "F16", "[2]", 4 } }, "GPTQ or AWQ" },
		{ { { "a.weight", "U32", "[2,4]", 32 }, { "a.scales", "F16", "[2]", 4 } }, "MLX" },
		{ { { "a.weight", "U8", "[2,4]", 8 }, { "a.weight_scale_2", "F32", "[]", 4 } }, "NVFP4" },
		{ { { "a.weight_packed", "U8", "[2,4]", 8 }, { "a.weight_global_scale", "F32", "[1]", 4 } }, "NVFP4" },
		{ { { "a.down_proj_blocks", "U8", "[2,4]", 8 }, { "a.down_proj_scales", "U8", "[2]", 2 } }, "MXFP4" },
		{ { { "a.W_q", "U8", "[2,4]", 8 }, { "a.scale", "F16", "[2]", 4 } }, "HQQ" },
		{ { { "a.codes", "I8", "[2,4]", 8 }, { "a.codebooks", "F16", "[2]", 4 } }, "AQLM" },
		{ { { "a.weight", "I8", "[2,4]", 8 }, { "a.weight_scales", "F16", "[2]", 4 } }, "EETQ" },
		{ { { "a.weight._data", "I8", "[2,4]", 8 }, { "a.weight._scale", "F16", "[2]", 4 } }, "quanto" },
		{ { { "a._weight_qdata", "I8", "[2,4]", 8 }, { "a._weight_scale", "F16", "[2]", 4 } }, "torchao" },
		{ { { "a.weight", "U8", "[2,4]", 8 }, { "a.other", "F16", "[2]", 4 } }, "integer codes" },
		{ { { "a.weight_packed", "I32", "[2,4]", 32 }, { "a.weight_scale", "F16", "[2,1]", 4 } }, "pack-quantized" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		put_folder(NULL, rows[i].part, 2);
		opens_as(ERR_UNSUPPORTED, rows[i].says);
	}
}

static void refuses_scales_that_do_not_fit(void **state)
{
	static const char block[] = QUANT("\"quant_method\": \"fp8\", \"weight_block_size\": [2, 2]");
	static const struct {
		const char *config;
		struct part part[2];
		const char *says;
	} rows[] = {
		{ block, { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "a.weight_scale_inv", "F32", "[1,3]", 12 } }, "is no scale of" },
		{ block, { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "a.weight_scale_inv", "F32", "[1]", 4 } }, "is no scale of" },
		{ block, { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "a.weight_scale_inv", "F32", "[0,2]", 0 } }, "is no scale of" },
		{ block, { { "a.weight", "F8_E4M3", "[0,4]", 0 }, { "a.weight_scale_inv", "F32", "[1,2]", 8 } }, "is no scale of" },
		{ block, { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "b.weight", "F16", "[2]", 4 } }, "scale is missing" },
		{ block, { { "a.weight", "F16", "[2,4]", 16 }, { "a.weight_scale_inv", "F32", "[1,2]", 8 } }, "not in 8 bits" },
		{ block, { { "a.weight", "F16", "[2,4]", 16 }, { "b.weight_scale_inv", "F32", "[1,2]", 8 } }, "not there" },
		{ NULL, { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "a.weight_scale", "F32", "[3]", 12 } }, "is no scale of" },
		{ QUANT("\"quant_method\": \"fp8\", \"weight_block_size\": [0, 2]"),
		  { { "a.weight", "F8_E4M3", "[2,4]", 8 }, { "a.weight_scale_inv", "F32", "[1,2]", 8 } }, "whole numbers from 1" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		put_folder(rows[i].config, rows[i].part, 2);
		opens_as(ERR_INPUT, rows[i].says);
	}
}

/* Experts in one tensor, a scale each, per column, and in blocks: 1 times 0x38383838 as f32, whatever the axis. */
static void spreads_over_three_axes(void **state)
{
	static const char *const scales[][2] = { { "[2]", "8" }, { "[2,1,1]", "8" }, { "[2,1,4]", "32" }, { "[2,2,2]", "32" }, { "[]", "4" } };
	(void)state;
	for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
		struct part parts[] = { { "x.up_proj", "F8_E4M3", "[2,3,4]", 24 }, { "x.up_proj_scale", "F32", scales[i][0], 0 } };
		struct checkpoint *c;
		const struct tensor *t;
		float *x, want;
		parts[1].size = (size_t)atoi(scales[i][1]);
		put_folder(QUANT("\"quant_method\": \"fbgemm_fp8\""), parts, 2);
		ok(checkpoint_open(scratch_dir, &c, &e));
		assert_int_equal(c->source->count, 1);
		ok(source_read_f32(c->source, "x.up_proj", &x, &t, &e));
		memcpy(&want, "8888", 4);
		for (size_t k = 0; k < 24; k++)
			assert_true(x[k] == want);
		free(x);
		checkpoint_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_transformers),
		cmocka_unit_test_setup_teardown(refuses_by_configuration, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses_by_tensors, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses_scales_that_do_not_fit, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(spreads_over_three_axes, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
