#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "formats/codes.h"
#include "formats/file.h"
#include "formats/proof.h"
#include "formats/safetensors.h"
#include "scratch.h"
#include "sides.h"

static struct err e;

/* The format's worked examples: -8 -7 -1 0 1 2 6 7 in 4 bits, -128 -1 0 127 in 8. */
static void packs_as_the_format_says(void **state)
{
	static const uint8_t u4[32] = { 0, 1, 7, 8, 9, 10, 14, 15 }, u8[4] = { 0, 127, 128, 255 };
	struct codes x = { .layout = &codes_ct_packed, .rows = 1, .cols = 32, .group = 32, .groups = 1, .bits = 4 };
	uint8_t packed[64] = { 0 };
	(void)state;
	codes_ct_packed.put_codes(&x, u4, 0, 1, packed);
	assert_int_equal(load_u32(packed), 0xFEA98710);
	assert_int_equal(load_u32(packed + 4), 0);
	x.cols = 4;
	x.bits = 8;
	codes_ct_packed.put_codes(&x, u8, 0, 1, packed);
	assert_int_equal(load_u32(packed), 0xFF807F00);
}

/* Zero points -8 -4 -2 -1 0 1 3 7 of eight rows share one word. */
static void packs_zero_points_along_rows(void **state)
{
	static const uint8_t zeros[8] = { 0, 4, 6, 7, 8, 9, 11, 15 };
	struct codes x = { .layout = &codes_ct_packed, .rows = 8, .cols = 32, .group = 32, .groups = 1, .bits = 4 };
	uint8_t zero[4] = { 0 };
	(void)state;
	codes_ct_packed.put_zeros(&x, zeros, 0, 0, 8, zero);
	assert_int_equal(load_u32(zero), 0xFB987640);
}

/* Whatever the layout, the width and the shape. */
static void unpacks_what_it_packed(void **state)
{
	static const struct {
		const struct codes_layout *layout;
		int bits, end;
		uint64_t rows, cols, group;
	} rows[] = {
		{ &codes_ct_packed, 4, 4, 9, 128, 32 }, { &codes_ct_packed, 8, 8, 70, 131, 131 }, { &codes_ct_packed, 2, 3, 65, 96, 32 },
		{ &codes_ct_int8, 8, 8, 9, 33, 33 }, { &codes_gptq, 2, 4, 96, 64, 32 }, { &codes_gptq, 8, 8, 32, 64, 64 },
		{ &codes_awq, 4, 4, 72, 40, 20 }, { &codes_mlx, 2, 6, 67, 64, 32 }, { &codes_mlx, 8, 8, 3, 32, 32 },
	};
	static uint8_t codes[96 * 131], again[96 * 131], words[4 * 96 * 131], zeros[96], more[96];
	struct rng rng = { 5 };
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		for (int bits = rows[i].bits; bits <= rows[i].end; bits++) {
			const struct codes_layout *l = rows[i].layout;
			struct codes x = { .layout = l, .rows = rows[i].rows, .cols = rows[i].cols, .group = rows[i].group, .bits = bits,
					   .less = l == &codes_gptq };
			x.groups = (x.cols + x.group - 1) / x.group;
			for (size_t k = 0; k < x.rows * x.cols; k++)
				codes[k] = (uint8_t)rng_below(&rng, 1u << bits);
			memset(words, 0, sizeof words);
			for (uint64_t r = 0; r < x.rows; r += CODES_TILE)
				l->put_codes(&x, codes + r * x.cols, r, x.rows - r < CODES_TILE ? (size_t)(x.rows - r) : CODES_TILE, words);
			for (uint64_t r = 0; r < x.rows; r += CODES_TILE)
				l->codes(&x, words, r, x.rows - r < CODES_TILE ? (size_t)(x.rows - r) : CODES_TILE, again + r * x.cols);
			assert_memory_equal(codes, again, x.rows * x.cols);
			memset(words, 0, sizeof words);
			for (uint64_t g = 0; g < x.groups && l->put_zeros; g++) {
				for (size_t k = 0; k < 64 && k < x.rows; k++)
					zeros[k] = (uint8_t)(1 + rng_below(&rng, (1u << bits) - 1));
				l->put_zeros(&x, zeros, g, 0, x.rows < 64 ? (size_t)x.rows : 64, words);
				l->zeros(&x, words, g, 0, x.rows < 64 ? (size_t)x.rows : 64, more);
				assert_memory_equal(zeros, more, x.rows < 64 ? x.rows : 64);
			}
		}
}

/* ---- folders */

static const char CONFIG[] = "{\"architectures\": [\"X\"], \"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
			     "\"format\": \"pack-quantized\", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": %s}}}}";

/* A folder with one weight of 2 rows of 32 in groups of 32; shape says what weight_shape holds. */
static void put_folder(const char *weights, const char *packed, uint64_t rows, uint64_t cols)
{
	struct strbuf b = { 0 };
	char config[1024];
	snprintf(config, sizeof config, CONFIG, weights);
	scratch_put(scratch("config.json"), config, strlen(config));
	strbuf_add(&b, "\0\0\0\0\0\0\0", 8);
	strbuf_printf(&b, "{\"a.weight_packed\":{\"dtype\":\"I32\",\"shape\":%s,\"data_offsets\":[0,32]},"
		      "\"a.weight_scale\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[32,36]},"
		      "\"a.weight_shape\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[36,52]}}", packed);
	while (b.len % 8)
		strbuf_putc(&b, ' ');
	store_u64(b.data, b.len - 8);
	uint8_t data[52] = { 0x10, 0x87, 0xa9, 0xfe };
	store_u16(data + 32, 0x3c00);
	store_u16(data + 34, 0x4000);
	store_u64(data + 36, rows);
	store_u64(data + 44, cols);
	strbuf_add(&b, data, sizeof data);
	scratch_put(scratch("model.safetensors"), b.data, b.len);
	strbuf_release(&b);
}

static const char G32[] = "{\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\", \"group_size\": 32}";

static void reads_a_folder(void **state)
{
	struct checkpoint *c;
	const struct tensor *meta;
	float *x;
	(void)state;
	put_folder(G32, "[2,4]", 2, 32);
	if (checkpoint_open(scratch_dir, &c, &e))
		fail_msg("%s", e.message);
	assert_int_equal(c->source->count, 1);
	assert_int_equal(source_read_f32(c->source, "a.weight", &x, &meta, &e), 0);
	assert_string_equal(meta->codec->name, "int4-g32");
	static const float want[] = { -8, -7, -1, 0, 1, 2, 6, 7, -8 };
	for (size_t i = 0; i < 9; i++)
		assert_true(x[i] == want[i]);
	assert_true(x[32] == -16);
	free(x);
	assert_null(strstr(side_of(c, "config.json")->data, "quantization_config"));
	checkpoint_close(c);
}

static void refused(const char *weights, const char *packed, uint64_t rows, uint64_t cols, int code, const char *fragment)
{
	struct checkpoint *c;
	put_folder(weights, packed, rows, cols);
	e.message[0] = '\0';
	int rc = checkpoint_open(scratch_dir, &c, &e);
	if (rc != code || !strstr(e.message, fragment))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, fragment);
}

static void refuses_what_does_not_fit(void **state)
{
	(void)state;
	refused(G32, "[2,4]", 3, 32, ERR_INPUT, "weight_shape contradicts");
	refused(G32, "[2,4]", 2, 0, ERR_INPUT, "weight_shape contradicts");
	refused(G32, "[2,4]", 2, UINT64_MAX, ERR_INPUT, "weight_shape contradicts");
	refused(G32, "[2,4]", 2, 64, ERR_INPUT, "no group of quantization_config");
	refused(G32, "[8]", 2, 32, ERR_INPUT, "two dimensions");
	refused("{\"num_bits\": 4, \"symmetric\": false, \"strategy\": \"group\", \"group_size\": 32}", "[2,4]", 2, 32, ERR_INPUT,
		"no group of quantization_config");
	refused("{\"num_bits\": 4, \"strategy\": \"group\", \"group_size\": 16}", "[2,4]", 2, 32, ERR_INPUT, "no group of");
	refused("{\"num_bits\": 9, \"strategy\": \"group\", \"group_size\": 32}", "[2,4]", 2, 32, ERR_UNSUPPORTED, "2 to 8 bits");
	refused("{\"num_bits\": 4, \"strategy\": \"tensor\"}", "[2,4]", 2, 32, ERR_INPUT, "no group of");
	refused("{\"num_bits\": 4, \"strategy\": \"block\"}", "[2,4]", 2, 32, ERR_UNSUPPORTED, "strategies");
}

/* ---- proof */

/* Writes the demo as int4 and q8_0 through a proof; what then happens to the file is up to the caller. */
struct written {
	struct checkpoint *in;
	struct plan plan;
	struct recipe *recipe;
	struct proof *proof;
	struct tensor_sink *sink;
	const char *path, *sealed;  /* its name, and where it is until it gets it */
};

static void write_sealed(struct written *w, const char *name, const char *scheme, const struct method *method)
{
	struct config config;
	struct write_options o = { .recipe = "x", .tool_version = "x", .gguf_file_type = -1 };
	w->path = scratch(name);
	assert_int_equal(checkpoint_open("examples/demo", &w->in, &e), 0);
	assert_int_equal(checkpoint_config(w->in, &config, &e), 0);
	assert_int_equal(recipe_new(scheme, &w->recipe, &e), 0);
	const struct format *format = format_find(name) ? format_find(name) : format_for_output(w->path);
	if (format->suffix == NULL)
		recipe_folder(w->recipe, &(struct recipe_folder){ format->holds, !format->f16_scales, format->ends });
	assert_int_equal(plan_make(&w->plan, &(struct plan_request){ .config = &config, .source = w->in->source, .recipe = w->recipe, .method = method }, &e), 0);
	if (format->create(w->path, &(struct write_request){ w->in, &config, &w->plan, &o }, &w->sink, &e))
		fail_msg("%s", e.message);
	assert_int_equal(proof_new(&w->plan, w->sink, &w->proof, &e), 0);
	assert_int_equal(plan_execute(&w->plan, w->in->source, proof_sink(w->proof), NULL, NULL, &e), 0);
	if (w->sink->seal(w->sink, &w->sealed, &e))
		fail_msg("%s", e.message);
	config_release(&config);
}

static void write_one(struct written *w, const char *name, const char *scheme, const struct method *method)
{
	write_sealed(w, name, scheme, method);
	assert_int_equal(w->sink->finish(w->sink, &e), 0);
	w->sink->close(w->sink);
}

static void written_release(struct written *w)
{
	proof_free(w->proof);
	plan_release(&w->plan);
	recipe_free(w->recipe);
	checkpoint_close(w->in);
}

static void proves_what_was_written(void **state)
{
	static const char *const cases[][2] = { { "x.quire", "int4-g64-zp" }, { "x.gguf", "q4_k" }, { "folder", "int4-g128-zp" },
						{ "rows", "int8-row" }, { "bytes", "W8A8" }, { "gptq", "int4-g32" },
						{ "awq", "int4-g64" }, { "mlx", "int6-g32-bias" } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct written w;
		struct proof_result r;
		write_one(&w, cases[i][0], cases[i][1], method_find("rtn"));
		if (proof_check(w.proof, w.path, w.in->source, &r, NULL, &e))
			fail_msg("%s: %s", cases[i][1], e.message);
		assert_int_equal(r.tensors, w.plan.count);
		assert_true(r.blocks > 0);
		assert_int_equal(r.constant, 0);
		written_release(&w);
	}
}

static void change_byte(const char *path, long from_end)
{
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	fseek(f, from_end, SEEK_END);
	int c = fgetc(f);
	fseek(f, from_end, SEEK_END);
	fputc(c ^ 0x40, f);
	fclose(f);
}

static void finds_a_changed_byte(void **state)
{
	static const long places[] = { -9, -100003, -1000001 };
	struct written w;
	struct proof_result r;
	(void)state;
	write_one(&w, "y.gguf", "q4_k", method_find("rtn"));
	for (size_t i = 0; i < 3; i++) {
		change_byte(w.path, places[i]);
		e.message[0] = '\0';
		assert_int_equal(proof_check(w.proof, w.path, w.in->source, &r, NULL, &e), ERR_IO);
		assert_non_null(strstr(e.message, "other bytes"));
		assert_non_null(strstr(e.message, "tensor "));
		change_byte(w.path, places[i]);
	}
	assert_int_equal(proof_check(w.proof, w.path, w.in->source, &r, NULL, &e), 0);
	written_release(&w);
}

/* Where the safetensors header says that an entry lies in the file at path; the distance from its end. */
static long entry_place(const char *path, const char *start)
{
	struct mapped m;
	struct st_file st;
	long at = 0;
	assert_int_equal(mapped_open(&m, path, &e), 0);
	assert_int_equal(st_parse(&st, m.data, m.size, &e), 0);
	for (size_t i = 0; i < st.count && !at; i++)
		if (!strncmp(st.entries[i].name, start, strlen(start)))
			at = (long)(st.data - m.data) + (long)(st.entries[i].begin + st.entries[i].end) / 2 - (long)m.size;
	st_release(&st);
	mapped_close(&m);
	assert_true(at < 0);
	return at;
}

/* A .quire is read once: tensors against what was meant, and whatever else has a checksum, with or without a proof. */
static void finds_a_changed_byte_anywhere(void **state)
{
	static const char *const places[][2] = { { "model.layers.2.mlp.up_proj.weight", "tensor model.layers.2.mlp.up_proj.weight" },
						 { "__file__.tokenizer.json", "file tokenizer.json" }, { "__pad__.", "padding __pad__." } };
	struct written w;
	struct proof_result r;
	(void)state;
	write_one(&w, "y.quire", "int4-g64", method_find("rtn"));
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		long at = entry_place(w.path, places[i][0]);
		change_byte(w.path, at);
		for (int proved = 0; proved < 2; proved++) {
			e.message[0] = '\0';
			assert_int_equal(proved ? proof_check(w.proof, w.path, w.in->source, &r, NULL, &e) : proof_checksums(w.path, NULL, &e), ERR_IO);
			if (!strstr(e.message, places[i][1]))
				fail_msg("'%s' does not name %s", e.message, places[i][1]);
		}
		change_byte(w.path, at);
	}
	assert_int_equal(proof_check(w.proof, w.path, w.in->source, &r, NULL, &e), 0);
	assert_int_equal(proof_checksums(w.path, NULL, &e), 0);
	written_release(&w);
}

/* Checksums that match say that a file is whole, not that it is the one that was meant. */
static void finds_another_whole_file(void **state)
{
	struct written w, other;
	struct proof_result r;
	(void)state;
	write_one(&w, "y.quire", "int4-g64", method_find("rtn"));
	write_one(&other, "z.quire", "int4-g64", method_find("search"));
	assert_int_equal(proof_checksums(other.path, NULL, &e), 0);
	assert_int_equal(proof_check(w.proof, other.path, w.in->source, &r, NULL, &e), ERR_IO);
	assert_non_null(strstr(e.message, "reads back with other bytes than were written"));
	assert_int_equal(proof_check(other.proof, other.path, w.in->source, &r, NULL, &e), 0);
	written_release(&w);
	written_release(&other);
}

/* Until it is proven, what was written has no name: what was there stays, and a failed proof leaves nothing else. */
static void a_failed_proof_leaves_what_was_there(void **state)
{
	static const char *const cases[][2] = { { "x.quire", "int4-g64-zp" }, { "x.gguf", "q4_k" }, { "folder", "int4-g128-zp" },
						{ "x.safetensors", "bf16" } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct written w;
		struct proof_result r;
		struct strbuf old = { 0 }, part = { 0 };
		bool folder = !format_for_output(scratch(cases[i][0]))->suffix;
		if (!folder)
			assert_int_equal(file_write(scratch(cases[i][0]), "old", 3, &e), 0);
		int before = scratch_count(scratch_dir);
		write_sealed(&w, cases[i][0], cases[i][1], method_find("rtn"));
		assert_int_equal(proof_check(w.proof, w.sealed, w.in->source, &r, NULL, &e), 0);
		strbuf_printf(&part, "%s%s", w.sealed, folder ? "/model.safetensors" : "");
		change_byte(part.data, -9);
		assert_int_equal(proof_check(w.proof, w.sealed, w.in->source, &r, NULL, &e), ERR_IO);
		w.sink->close(w.sink);
		assert_int_equal(scratch_count(scratch_dir), before);
		if (!folder) {
			assert_int_equal(file_read(w.path, &old, 0, &e), 0);
			assert_string_equal(old.data, "old");
		}
		strbuf_release(&old);
		strbuf_release(&part);
		written_release(&w);
	}
}

/* Methods that break the first row of what they get: all zero, or an infinite scale. */
static int break_row(const struct quantize_job *job, uint16_t d, struct err *err)
{
	int rc = method_find("rtn")->run(job, err);
	uint64_t row = codec_row_bytes(job->codec, job->cols);
	memset(job->dst, 0, row);
	store_u16(job->dst, d);
	job->dst[20] = 1;
	return rc;
}

static int zero_run(const struct quantize_job *job, struct err *err)
{
	return break_row(job, 0, err);
}

static int infinite_run(const struct quantize_job *job, struct err *err)
{
	return break_row(job, 0x7c00, err);
}

static void alarms_at_broken_blocks(void **state)
{
	static const struct method zero = { .name = "zero", .by_rows = true, .run = zero_run };
	static const struct method infinite = { .name = "infinite", .by_rows = true, .run = infinite_run };
	struct written w;
	struct proof_result r;
	(void)state;
	write_one(&w, "zero.quire", "q4_0", &zero);
	if (proof_check(w.proof, w.path, w.in->source, &r, NULL, &e))
		fail_msg("%s", e.message);
	assert_true(r.constant > 0);
	assert_non_null(strstr(r.first, "tensor model."));
	written_release(&w);
	write_one(&w, "infinite.quire", "q4_0", &infinite);
	assert_int_equal(proof_check(w.proof, w.path, w.in->source, &r, NULL, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "is not finite"));
	written_release(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packs_as_the_format_says),
		cmocka_unit_test(packs_zero_points_along_rows),
		cmocka_unit_test(unpacks_what_it_packed),
		cmocka_unit_test_setup_teardown(reads_a_folder, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses_what_does_not_fit, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(proves_what_was_written, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(finds_a_changed_byte, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(finds_a_changed_byte_anywhere, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(finds_another_whole_file, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(a_failed_proof_leaves_what_was_there, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(alarms_at_broken_blocks, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
