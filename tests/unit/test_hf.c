#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/config_text.h"
#include "formats/hf.h"
#include "scratch.h"
#include "sides.h"

static struct err e;
static const char DEMO[] = "examples/demo";

static void put_text(const char *name, const char *text)
{
	scratch_put(scratch(name), text, strlen(text));
}

/* A safetensors file of U8 tensors with one byte each, named by the letters of `names`. */
static void put_shard(const char *name, const char *names)
{
	struct strbuf b = { 0 };
	strbuf_add(&b, "\0\0\0\0\0\0\0", 8);
	for (size_t i = 0; names[i]; i++)
		strbuf_printf(&b, "%c\"%c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i ? ',' : '{', names[i], i, i + 1);
	strbuf_putc(&b, '}');
	store_u64(b.data, b.len - 8);
	strbuf_puts(&b, names);
	scratch_put(scratch(name), b.data, b.len);
	strbuf_release(&b);
}

static struct checkpoint *open_ok(const char *path)
{
	struct checkpoint *c;
	if (checkpoint_open(path, &c, &e))
		fail_msg("%s", e.message);
	return c;
}

static void expect(const char *path, int code, const char *fragment)
{
	struct checkpoint *c;
	e.message[0] = '\0';
	int rc = checkpoint_open(path, &c, &e);
	if (rc != code || !strstr(e.message, fragment) || !strstr(e.message, path))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, fragment);
	assert_null(c);
}

static void opens_the_demo(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	assert_string_equal(c->format->name, "hf");
	assert_int_equal(side_count(c), 5);
	assert_true(checkpoint_has(c, "tokenizer.model"));
	assert_false(checkpoint_has(c, "chat_template.jinja"));
	assert_int_equal(c->fact_count, 1);
	assert_string_equal(c->facts[0].value, "pt");
	const struct tensor *t = source_find(c->source, "model.embed_tokens.weight");
	assert_non_null(t);
	assert_string_equal(t->codec->name, "bf16");
	assert_int_equal(t->nbytes, 2 * 1024 * 256);
	struct tensor_bytes b;
	assert_int_equal(c->source->get(c->source, source_position(c->source, t), &b, &e), ERR_OK);
	assert_int_equal(b.size, t->nbytes);
	assert_null(b.owned);
	uint8_t first = b.data[0];
	source_drop(c->source, b.data, b.size);
	assert_int_equal(b.data[0], first);
	tensor_bytes_release(&b);
	struct config config;
	if (checkpoint_config(c, &config, &e))
		fail_msg("%s", e.message);
	assert_int_equal(config.layers, 5);
	config_release(&config);
	checkpoint_close(c);

	c = open_ok("examples/demo/model.safetensors");
	assert_string_equal(c->format->name, "safetensors");
	assert_true(checkpoint_has(c, "config.json"));
	checkpoint_close(c);
	checkpoint_close(NULL);
}

static void opens_real_shards(void **state)
{
	(void)state;
	const char *shared = getenv("SHARED");
	char path[1024];
	snprintf(path, sizeof path, "%.900s/models/tiny1m", shared ? shared : "");
	if (!file_is_dir(path))
		skip();
	struct checkpoint *c = open_ok(path);
	assert_non_null(source_find(c->source, "lm_head.weight"));
	assert_string_equal(c->facts[c->fact_count - 1].key, "shards");
	assert_string_equal(c->facts[c->fact_count - 1].value, "3");
	checkpoint_close(c);
}

static void refuses_what_is_no_checkpoint(void **state)
{
	(void)state;
	expect(scratch("none"), ERR_IO, "No such file");
	expect(scratch_dir, ERR_INPUT, "the folder has neither model.safetensors nor");
	put_text("pytorch_model.bin", "PK");
	expect(scratch_dir, ERR_UNSUPPORTED, "only pytorch_model.bin");
	put_text("text", "hello, world");
	expect(scratch("text"), ERR_INPUT, "not a checkpoint of a known format");
	put_text("empty", "");
	expect(scratch("empty"), ERR_INPUT, "the file is empty");
	put_text("x.safetensors", "hello");
	expect(scratch("x.safetensors"), ERR_INPUT, "5 bytes are too short");
	put_text("empty.safetensors", "");
	expect(scratch("empty.safetensors"), ERR_INPUT, "0 bytes are too short");
	put_text("model.safetensors", "12345678{hello}");
	expect(scratch_dir, ERR_INPUT, "beyond the format's limit");
	assert_int_equal(unlink(scratch("model.safetensors")), 0);
	assert_int_equal(mkdir(scratch("model.safetensors"), 0755), 0);
	expect(scratch_dir, ERR_IO, "it is a folder");
}

#define MAP(s) "{\"metadata\":{},\"weight_map\":{" s "}}"

static void refuses_broken_folders(void **state)
{
	(void)state;
	static const struct {
		const char *index, *one, *two; /* tensors of 1.safetensors and 2.safetensors; NULL: no such file */
		int code;
		const char *fragment;
	} rows[] = {
		{ "", NULL, NULL, ERR_INPUT, "JSON" },
		{ "[]", NULL, NULL, ERR_INPUT, "no object 'weight_map'" },
		{ "{\"weight_map\":[\"a\"]}", NULL, NULL, ERR_INPUT, "no object 'weight_map'" },
		{ MAP(""), NULL, NULL, ERR_INPUT, "no object 'weight_map' with tensors" },
		{ MAP("\"a\":1"), "a", NULL, ERR_INPUT, "file of tensor 'a' is not a string" },
		{ MAP("\"a\":\"../1.safetensors\""), "a", NULL, ERR_INPUT, "'../1.safetensors' is not a plain file name" },
		{ MAP("\"a\":\"/etc/passwd\""), "a", NULL, ERR_INPUT, "not a plain file name" },
		{ MAP("\"a\":\"x\\\\1.safetensors\""), "a", NULL, ERR_INPUT, "not a plain file name" },
		{ MAP("\"a\":\"..\""), "a", NULL, ERR_INPUT, "not a plain file name" },
		{ MAP("\"a\":\"\""), "a", NULL, ERR_INPUT, "not a plain file name" },
		{ MAP("\"a\":\"1.safetensors\",\"a\":\"1.safetensors\""), "a", NULL, ERR_INPUT, "\"a\" twice" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""), "a", NULL, ERR_INPUT, "shard '2.safetensors' is missing" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""), "a", "c", ERR_INPUT, "2.safetensors: tensor 'c' is not in the index" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"1.safetensors\""), "a", NULL, ERR_INPUT, "tensor 'b' is not in its shard 1.safetensors" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""), "a", "ab", ERR_INPUT, "2.safetensors: tensor 'a' belongs into 1.safetensors" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""), "b", "a", ERR_INPUT, "belongs into" },
		{ MAP("\"a\":\"1.safetensors\",\"b\":\"3.safetensors\""), "a", NULL, ERR_INPUT, "3.safetensors: header length" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		put_text("model.safetensors.index.json", rows[i].index);
		put_text("3.safetensors", "\377\377\377\377\377\377\377\377{}");
		unlink(scratch("1.safetensors"));
		unlink(scratch("2.safetensors"));
		if (rows[i].one)
			put_shard("1.safetensors", rows[i].one);
		if (rows[i].two)
			put_shard("2.safetensors", rows[i].two);
		expect(scratch_dir, rows[i].code, rows[i].fragment);
	}
}

static void opens_small_shards(void **state)
{
	(void)state;
	put_text("model.safetensors.index.json", MAP("\"c\":\"2.safetensors\",\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""));
	put_shard("1.safetensors", "a");
	put_shard("2.safetensors", "cb");
	put_shard("stray.safetensors", "z");
	struct checkpoint *c = open_ok(scratch_dir);
	struct config config;
	struct tokenizer *tokenizer;
	assert_int_equal(c->source->count, 3);
	assert_string_equal(c->source->tensors[0].name, "a");
	assert_string_equal(c->source->tensors[1].name, "c");
	assert_int_equal(checkpoint_config(c, &config, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "has no config.json"));
	assert_int_equal(checkpoint_tokenizer(c, &tokenizer, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "has no tokenizer.json or tokenizer.model"));
	checkpoint_close(c);
	put_text("config.json", "{");
	c = open_ok(scratch_dir);
	assert_int_equal(checkpoint_config(c, &config, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "config.json"));
	checkpoint_close(c);
}

/* A plan that copies a source, last tensor first: no writer may rely on the order. */
static void plan_copy(struct plan *p, const struct tensor_source *s)
{
	*p = (struct plan){ .count = s->count };
	p->items = arena_array(&p->arena, s->count + 1, sizeof *p->items);
	assert_non_null(p->items);
	for (size_t i = 0; i < s->count; i++) {
		p->items[i].source = s->count - 1 - i;
		p->items[i].out = s->tensors[s->count - 1 - i];
		p->bytes += p->items[i].out.nbytes;
	}
}

static int stream(const struct plan *p, struct tensor_source *s, struct tensor_sink *k)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < p->count && !rc; i++) {
		struct tensor_bytes b;
		rc = s->get(s, p->items[i].source, &b, &e);
		if (!rc)
			rc = k->item(k, i, &e);
		for (size_t at = 0, n; at < b.size && !rc; at += n) {
			n = b.size - at < 100003 ? b.size - at : 100003;
			rc = k->bytes(k, b.data + at, n, &e);
		}
		tensor_bytes_release(&b);
	}
	return rc;
}

static int copy_to(const char *path, const struct checkpoint *c, uint64_t shard_size)
{
	struct plan p;
	struct tensor_sink *k;
	struct write_options o = { .gguf_file_type = -1, .shard_size = shard_size };
	plan_copy(&p, c->source);
	int rc = format_for_output(path)->create(path, &(struct write_request){ c, NULL, &p, &o }, &k, &e);
	if (!rc) {
		rc = stream(&p, c->source, k);
		assert_false(file_exists(path));
		if (!rc)
			rc = k->finish(k, &e);
		k->close(k);
	}
	arena_release(&p.arena);
	return rc;
}

static void same_file(const char *a, const char *b)
{
	struct mapped x, y;
	assert_int_equal(mapped_open(&x, a, &e), ERR_OK);
	assert_int_equal(mapped_open(&y, b, &e), ERR_OK);
	assert_int_equal(x.size, y.size);
	assert_memory_equal(x.data, y.data, x.size);
	mapped_close(&x);
	mapped_close(&y);
}

static void same_tensors(struct checkpoint *a, struct checkpoint *b)
{
	assert_int_equal(a->source->count, b->source->count);
	for (size_t i = 0; i < a->source->count; i++) {
		const struct tensor *t = &a->source->tensors[i], *u = source_find(b->source, t->name);
		struct tensor_bytes x, y;
		assert_non_null(u);
		assert_ptr_equal(t->codec, u->codec);
		assert_int_equal(t->ndim, u->ndim);
		assert_memory_equal(t->dim, u->dim, sizeof t->dim);
		assert_int_equal(a->source->get(a->source, i, &x, &e), ERR_OK);
		assert_int_equal(b->source->get(b->source, source_position(b->source, u), &y, &e), ERR_OK);
		assert_int_equal(x.size, y.size);
		assert_memory_equal(x.data, y.data, x.size);
	}
}

static void writes_a_folder(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	if (copy_to(scratch("out"), c, 0))
		fail_msg("%s", e.message);
	/* the demo was written by the reference writer */
	same_file("examples/demo/model.safetensors", scratch("out/model.safetensors"));
	const char *name;
	for (size_t i = 0; (name = checkpoint_file_name(c, i)); i++) {
		char *from = path_join(DEMO, name), *to = path_join(scratch("out"), name);
		same_file(from, to);
		free(from);
		free(to);
	}
	assert_int_equal(scratch_count(scratch("out")), side_count(c) + 1);
	assert_int_equal(scratch_count(scratch_dir), 1);
	struct tensor_sink *k;
	struct plan p;
	plan_copy(&p, c->source);
	assert_int_equal(format_find("hf")->create(scratch("out"), &(struct write_request){ c, NULL, &p, NULL }, &k, &e), ERR_USAGE);
	assert_non_null(strstr(e.message, "exists and is not empty"));
	arena_release(&p.arena);
	checkpoint_close(c);
}

static void writes_shards(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	if (copy_to(scratch("out"), c, 1000000))
		fail_msg("%s", e.message);
	assert_true(file_exists(scratch("out/model.safetensors.index.json")));
	assert_false(file_exists(scratch("out/model.safetensors")));
	struct checkpoint *d = open_ok(scratch("out"));
	same_tensors(c, d);
	checkpoint_close(d);
	assert_int_equal(copy_to(scratch("each"), c, 1), ERR_OK);
	d = open_ok(scratch("each"));
	assert_int_equal(scratch_count(scratch("each")), side_count(c) + (int)c->source->count + 1);
	same_tensors(c, d);
	checkpoint_close(d);
	checkpoint_close(c);
}

static void writes_one_file(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	assert_int_equal(copy_to(scratch("x.safetensors"), c, 0), ERR_OK);
	same_file("examples/demo/model.safetensors", scratch("x.safetensors"));
	assert_int_equal(scratch_count(scratch_dir), 1);
	checkpoint_close(c);
}

static void interrupted_writes(void **state)
{
	(void)state;
	static const char *const targets[] = { "out", "x.safetensors" };
	struct checkpoint *c = open_ok(DEMO);
	struct plan p;
	struct write_options o = { .shard_size = 1000000 };
	plan_copy(&p, c->source);
	for (int i = 0; i < 2; i++) {
		const struct format *f = format_for_output(targets[i]);
		struct tensor_sink *k;
		/* closed without finish */
		assert_int_equal(f->create(scratch(targets[i]), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_OK);
		assert_int_equal(stream(&p, c->source, k), ERR_OK);
		k->close(k);
		assert_int_equal(scratch_count(scratch_dir), 0);
		/* finished too early, and more bytes than planned */
		assert_int_equal(f->create(scratch(targets[i]), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_OK);
		assert_int_equal(k->finish(k, &e), ERR_BUG);
		assert_int_equal(k->item(k, 1, &e), ERR_BUG);
		assert_int_equal(k->item(k, 0, &e), ERR_OK);
		assert_int_equal(k->bytes(k, DEMO, 1, &e), ERR_OK);
		assert_int_equal(k->item(k, 1, &e), ERR_BUG);
		assert_int_equal(k->bytes(k, DEMO, (size_t)p.items[0].out.nbytes, &e), ERR_BUG);
		k->close(k);
		assert_int_equal(scratch_count(scratch_dir), 0);
		/* a signal */
		assert_int_equal(f->create(scratch(targets[i]), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_OK);
		assert_int_equal(stream(&p, c->source, k), ERR_OK);
		assert_true(in_child(file_cleanup));
		assert_int_equal(scratch_count(scratch_dir), 0);
		k->close(k);
	}
	arena_release(&p.arena);
	checkpoint_close(c);
}

static void refuses_to_write(void **state)
{
	(void)state;
	struct codec odd = *codec_find("f32"); /* as a block type, which has no name in safetensors */
	odd.name = "odd";
	odd.safetensors = NULL;
	struct checkpoint *c = open_ok(DEMO);
	struct tensor_sink *k;
	struct plan p;
	plan_copy(&p, c->source);
	assert_true(format_find("hf")->holds(p.items[0].out.codec));
	assert_false(format_find("hf")->holds(&odd));
	p.items[0].out.name = p.items[1].out.name;
	assert_int_equal(format_find("hf")->create(scratch("out"), &(struct write_request){ c, NULL, &p, NULL }, &k, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "written twice"));
	p.items[0].out.name = "x";
	p.items[0].out.codec = &odd;
	assert_int_equal(format_find("safetensors")->create(scratch("out.safetensors"), &(struct write_request){ c, NULL, &p, NULL }, &k, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "'x': odd cannot be stored"));
	arena_release(&p.arena);
	checkpoint_close(c);
	assert_int_equal(scratch_count(scratch_dir), 0);
}

static void formats_by_name(void **state)
{
	(void)state;
	assert_string_equal(format_for_output("x.safetensors")->name, "safetensors");
	assert_string_equal(format_for_output("a/b")->name, "hf");
	assert_string_equal(format_for_output(".safetensors")->name, "hf");
	assert_null(format_find("none"));
}

static void config_texts(void **state)
{
	(void)state;
	static const struct {
		const char *before, *after;
	} rows[] = {
		{ "{\"torch_dtype\": \"bfloat16\", \"a\": 1.0}", "{\"torch_dtype\": \"float16\", \"a\": 1.0}" },
		{ "{\"a\":{\"torch_dtype\":\"x\"},\"torch_dtype\" : \"x\"}", "{\"a\":{\"torch_dtype\":\"x\"},\"torch_dtype\" : \"float16\"}" },
		{ "{\"a\":\"torch_dtype\",\"b\":\"}\\\"{\",\"torch_dtype\":\"x\"}", "{\"a\":\"torch_dtype\",\"b\":\"}\\\"{\",\"torch_dtype\":\"float16\"}" },
		{ "{\"torch_dtype\":null}", "{\"torch_dtype\":null}" },
		{ "{\"torch_dtype\":\"x", "{\"torch_dtype\":\"x" },
		{ "{\"torch_dtype\":", "{\"torch_dtype\":" },
		{ "{\"x\\", "{\"x\\" },
		{ "{}", "{}" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct strbuf out = { 0 };
		config_text_replace(rows[i].before, strlen(rows[i].before), "torch_dtype", "\"float16\"", &out);
		assert_string_equal(out.data, rows[i].after);
		strbuf_release(&out);
	}
}

/* All floats become one type: config.json says so, and nothing else in it changes. */
static void dtype_in_config(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	struct plan p;
	struct tensor_sink *k;
	struct config config;
	struct strbuf a = { 0 }, b = { 0 };
	const struct side_file *f = side_of(c, "config.json");
	plan_copy(&p, c->source);
	for (size_t i = 0; i < p.count; i++)
		p.items[i].out.codec = codec_find("f16"); /* as wide as bf16: the bytes can stand in */
	assert_int_equal(checkpoint_config(c, &config, &e), ERR_OK);
	if (format_find("hf")->create(scratch("out"), &(struct write_request){ c, &config, &p, NULL }, &k, &e) || stream(&p, c->source, k) || k->finish(k, &e))
		fail_msg("%s", e.message);
	k->close(k);
	config_text_replace(f->data, f->size, "torch_dtype", "\"float16\"", &a);
	assert_int_equal(file_read(scratch("out/config.json"), &b, 0, &e), ERR_OK);
	assert_string_equal(a.data, b.data);
	assert_non_null(strstr(b.data, "float16\""));
	assert_null(strstr(b.data, "bfloat16"));
	strbuf_release(&a);
	strbuf_release(&b);
	config_release(&config);
	arena_release(&p.arena);
	checkpoint_close(c);
}

#define row(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_the_demo), cmocka_unit_test(opens_real_shards), row(refuses_what_is_no_checkpoint),
		row(refuses_broken_folders), row(opens_small_shards), row(writes_a_folder), row(writes_shards), row(writes_one_file),
		row(interrupted_writes), row(refuses_to_write), cmocka_unit_test(formats_by_name), cmocka_unit_test(config_texts),
		row(dtype_in_config),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
