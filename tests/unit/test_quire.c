#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define QUIRE_READ_ZLIB
#define QUIRE_READ_STATIC
#define QUIRE_READ_IMPLEMENTATION
#include "include/quire_read.h"

#include "base/bytes.h"
#include "base/rng.h"
#include "base/thread.h"
#include "base/zip.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/quire.h"
#include "formats/safetensors.h"
#include "scratch.h"
#include "sides.h"

static struct err e;
static const char DEMO[] = "examples/demo";

/* Packs the demo model; scheme NULL keeps it bf16. */
static void pack(const char *path, const char *scheme, bool compress)
{
	struct checkpoint *c;
	struct recipe *r;
	struct plan p;
	struct tensor_sink *k;
	static const struct fact facts[] = { { "sha256:model.safetensors", "00" }, { "note", "a \"quoted\" note" } };
	struct write_options o = { .recipe = "test", .tool_version = "quire test", .compress = compress, .facts = facts, .fact_count = 2 };
	assert_int_equal(checkpoint_open(DEMO, &c, &e), ERR_OK);
	assert_int_equal(recipe_new(scheme, &r, &e), ERR_OK);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .source = c->source, .recipe = r, .method = method_find("rtn") }, &e), ERR_OK);
	if (quire_create(path, &(struct write_request){ c, NULL, &p, &o }, &k, &e) || plan_execute(&p, c->source, k, NULL, NULL, &e) || k->finish(k, &e))
		fail_msg("%s", e.message);
	k->close(k);
	plan_release(&p);
	recipe_free(r);
	checkpoint_close(c);
}

static struct checkpoint *open_ok(const char *path)
{
	struct checkpoint *c;
	if (checkpoint_open(path, &c, &e))
		fail_msg("%s", e.message);
	return c;
}

static void same_tensors(const char *path_a, const char *path_b)
{
	struct checkpoint *a = open_ok(path_a), *b = open_ok(path_b);
	assert_int_equal(a->source->count, b->source->count);
	for (size_t i = 0; i < a->source->count; i++) {
		const struct tensor *t = &a->source->tensors[i], *u = source_find(b->source, t->name);
		struct tensor_bytes x, y;
		assert_non_null(u);
		assert_ptr_equal(t->codec, u->codec);
		assert_int_equal(t->ndim, u->ndim);
		assert_memory_equal(t->dim, u->dim, t->ndim * sizeof *t->dim);
		assert_int_equal(a->source->get(a->source, i, &x, &e), ERR_OK);
		assert_int_equal(b->source->get(b->source, source_position(b->source, u), &y, &e), ERR_OK);
		assert_int_equal(x.size, y.size);
		assert_memory_equal(x.data, y.data, x.size);
		tensor_bytes_release(&x);
		tensor_bytes_release(&y);
	}
	assert_int_equal(side_count(a), side_count(b));
	for (int i = 0; i < side_count(a); i++) {
		const struct side_file *f = side_of(a, checkpoint_file_name(a, (size_t)i)), *g = side_of(b, f->name);
		assert_int_equal(f->size, g->size);
		assert_memory_equal(f->data, g->data, f->size);
	}
	checkpoint_close(a);
	checkpoint_close(b);
}

static uint64_t file_size(const char *path)
{
	struct mapped m;
	assert_int_equal(mapped_open(&m, path, &e), ERR_OK);
	uint64_t n = m.size;
	mapped_close(&m);
	return n;
}

static void packing_loses_nothing(void **state)
{
	(void)state;
	pack(scratch("a.quire"), NULL, false);
	pack(scratch("b.quire"), NULL, true);
	same_tensors(DEMO, scratch("a.quire"));
	same_tensors(DEMO, scratch("b.quire"));
	/* trained bf16 weights shrink by a quarter or more */
	assert_true(file_size(scratch("b.quire")) * 4 < file_size(scratch("a.quire")) * 3);
	assert_int_equal(scratch_count(scratch_dir), 2);
	struct checkpoint *c = open_ok(scratch("b.quire"));
	assert_string_equal(c->format->name, "quire");
	assert_int_equal(c->fact_count, 4);
	assert_string_equal(c->facts[1].value, "test");
	assert_string_equal(c->facts[2].key, "note");
	assert_string_equal(c->facts[2].value, "a \"quoted\" note");
	assert_string_equal(c->facts[3].key, "sha256:model.safetensors");
	assert_int_equal(c->format->check(c, NULL, &e), ERR_OK);
	checkpoint_close(c);
}

static void bytes_do_not_depend_on_threads(void **state)
{
	(void)state;
	struct mapped a, b;
	thread_set(1);
	pack(scratch("a.quire"), NULL, true);
	thread_set(4);
	pack(scratch("b.quire"), NULL, true);
	thread_set(0);
	assert_int_equal(mapped_open(&a, scratch("a.quire"), &e), ERR_OK);
	assert_int_equal(mapped_open(&b, scratch("b.quire"), &e), ERR_OK);
	assert_int_equal(a.size, b.size);
	assert_memory_equal(a.data, b.data, a.size);
	mapped_close(&a);
	mapped_close(&b);
}

/* Any float tensor, of any length, comes back from planes; so do constants and noise. */
static void planes_round_trip(void **state)
{
	(void)state;
	static uint8_t src[QUIRE_CHUNK], packed[QUIRE_CHUNK + 4096], back[QUIRE_CHUNK];
	size_t sizes[] = { 4, 8, 1000, QUIRE_CHUNK };
	struct rng r = { 9 };
	for (unsigned planes = 2; planes <= 4; planes += 2)
		for (int kind = 0; kind < 3; kind++)
			for (size_t i = 0; i < 4; i++) {
				uint32_t s[QUIRE_MAX_PLANES];
				for (size_t k = 0; k < sizes[i]; k++)
					src[k] = kind == 0 ? 0x3f : kind == 1 ? (uint8_t)rng_u64(&r) : (uint8_t)(k * k >> 7);
				size_t n = planes_pack(planes, src, sizes[i], packed, s);
				assert_true(n > 0 && n <= planes_bound(planes, sizes[i]) && n <= sizes[i]);
				assert_int_equal(planes_unpack(planes, packed, s, back, sizes[i], &e), ERR_OK);
				assert_memory_equal(src, back, sizes[i]);
			}
}

/* The reader for devices, which shares no line with the library, agrees with it. */
static void independent_reader_agrees(void **state)
{
	(void)state;
	static const struct { const char *scheme; bool compress; } rows[] = { { NULL, false }, { NULL, true }, { "Q4_K_M", false }, { "f32", true } };
	for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
		pack(scratch("a.quire"), rows[k].scheme, rows[k].compress);
		struct quire_read q;
		assert_int_equal(quire_read_open(&q, scratch("a.quire")), QUIRE_READ_OK);
		assert_int_equal(quire_read_check(&q), QUIRE_READ_OK);
		struct checkpoint *c = open_ok(scratch("a.quire"));
		assert_int_equal(q.tensor_count, c->source->count);
		for (size_t i = 0; i < c->source->count; i++) {
			struct tensor_bytes b;
			const struct quire_read_tensor *t = quire_read_find(&q, c->source->tensors[i].name);
			assert_int_equal(c->source->get(c->source, i, &b, &e), ERR_OK);
			assert_non_null(t);
			assert_int_equal(t->bytes, b.size);
			assert_int_equal((t->stored - q.bytes) % 64, 0);
			uint8_t *mine = malloc(b.size);
			assert_int_equal(quire_read_bytes(t, 0, t->rows, mine), QUIRE_READ_OK);
			assert_memory_equal(mine, b.data, b.size);
			free(mine);
			tensor_bytes_release(&b);
		}
		checkpoint_close(c);
		quire_read_close(&q);
	}
}

/* One byte of each tensor's data flipped: check names that tensor. */
static void damage_is_named(void **state)
{
	(void)state;
	pack(scratch("a.quire"), NULL, true);
	pack(scratch("p.quire"), "Q4_K_M", false);
	for (int k = 0; k < 2; k++) {
		struct mapped m;
		struct st_file st;
		assert_int_equal(mapped_open(&m, scratch(k ? "p.quire" : "a.quire"), &e), ERR_OK);
		uint8_t *copy = malloc(m.size);
		memcpy(copy, m.data, m.size);
		assert_int_equal(st_parse(&st, copy, m.size, &e), ERR_OK);
		const size_t prefix = strlen(QUIRE_FILE_PREFIX);
		for (size_t i = 0; i < st.count; i++) {
			size_t at = (size_t)(st.data - copy) + (size_t)(st.entries[i].begin + st.entries[i].end) / 2;
			const struct side_file *f;
			const char *name = st.entries[i].name;
			bool file = !strncmp(name, QUIRE_FILE_PREFIX, prefix);
			if (i % 7 && !file)
				continue;
			name += file ? prefix : 0;
			copy[at] ^= 0x10;
			scratch_put(scratch("bad.quire"), copy, m.size);
			copy[at] ^= 0x10;
			/* a side file that is not asked for stands in nobody's way */
			struct checkpoint *c = open_ok(scratch("bad.quire"));
			assert_int_equal(c->format->check(c, NULL, &e), ERR_INPUT);
			if (!strstr(e.message, name) || !strstr(e.message, "bad.quire"))
				fail_msg("'%s' does not name %s", e.message, name);
			if (file) {
				assert_int_equal(checkpoint_file(c, name, &f, &e), ERR_INPUT);
				assert_null(f);
				assert_non_null(strstr(e.message, name));
			}
			checkpoint_close(c);
		}
		st_release(&st);
		free(copy);
		mapped_close(&m);
	}
}

/* Builds a small file by hand: the manifest text, and entries after it. The good one is opened first. */
static const char GOOD[] = "{\"version\":1,\"tool\":\"t\",\"recipe\":\"r\",\"facts\":{},\"source\":{},"
			   "\"files\":[{\"name\":\"config.json\",\"size\":5,\"crc32\":\"3610a686\"}],"
			   "\"tensors\":[{\"name\":\"w\",\"codec\":\"q8_0\",\"shape\":[2,32],\"crc32\":\"00000000\"},"
			   "{\"name\":\"f\",\"codec\":\"f16\",\"shape\":[64],\"crc32\":\"00000000\",\"planes\":2},"
			   "{\"name\":\"g\",\"codec\":\"f32\",\"shape\":[3],\"crc32\":\"00000000\"}]}";

struct hostile { const char *from, *to; int code; const char *says; };

static void build(const char *path, const char *manifest, const char *version, const struct hostile *h)
{
	uint8_t file[100], plane[100];
	size_t nf = sizeof file, np = sizeof plane;
	static const uint8_t zeros[64];
	assert_int_equal(zip_deflate("hello", 5, ZIP_TEXT, file, &nf, &e), ERR_OK);
	assert_int_equal(zip_deflate(zeros, 64, ZIP_BYTES, plane, &np, &e), ERR_OK);
	uint8_t blob[200] = { 0 };
	store_u32(blob, (uint32_t)np);
	store_u32(blob + 4, 64);
	memcpy(blob + 8, plane, np);
	struct st_entry t[8] = {
		{ "__file__.config.json", st_dtype_find("U8"), 1, { nf }, 0, nf },
		{ "__pad__.0", st_dtype_find("U8"), 1, { 64 - nf }, nf, 64 },
		{ "w", st_dtype_find("U8"), 2, { 2, 34 }, 64, 132 },
		{ "__pad__.1", st_dtype_find("U8"), 1, { 60 }, 132, 192 },
		{ "f", st_dtype_find("U8"), 1, { 8 + np + 64 }, 192, 200 + np + 64 },
		{ "__pad__.2", st_dtype_find("U8"), 1, { 320 - (200 + np + 64) }, 200 + np + 64, 320 },
		{ "g", st_dtype_find("F32"), 1, { 3 }, 320, 332 },
	};
	struct fact meta[] = { { "quire", version }, { "quire.manifest", manifest } };
	struct strbuf out = { 0 };
	if (h && !strcmp(h->from, "@index"))
		store_u32(blob + 4, 63);
	if (h && !strcmp(h->from, "@dtype"))
		t[6].dtype = st_dtype_find("I32");
	if (h && !strcmp(h->from, "@rows"))
		t[2].dim[0] = 34, t[2].dim[1] = 2;
	if (h && !strcmp(h->from, "@pad"))
		t[3].name = "extra";
	if (h && !strcmp(h->from, "@align"))
		t[5].dim[0]--, t[5].end--, t[6].begin--, t[6].end--;
	if (h && !strcmp(h->from, "@file"))
		file[nf - 1] ^= 1;
	if (h && !strcmp(h->from, "@nofile"))
		t[0].name = "__pad__.9";
	assert_int_equal(st_header(&out, &(struct st_listing){ t, 7, meta, 2 }, 64, &e), ERR_OK);
	strbuf_add(&out, file, nf);
	for (size_t at = nf; at < 192; at++)
		strbuf_putc(&out, 0);
	strbuf_add(&out, blob, 8 + np + 64);
	for (size_t at = 200 + np + 64; at < t[6].end; at++)
		strbuf_putc(&out, 0);
	scratch_put(path, out.data, out.len);
	strbuf_release(&out);
}

static void replace(char *dst, size_t room, const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	if (!at)
		fail_msg("no '%s' in the manifest", from);
	snprintf(dst, room, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

/* asked: it opens, and the damage is found when its side file is asked for. */
static void refused(const struct hostile *h, bool asked)
{
	char text[2000];
	struct checkpoint *c;
	const struct side_file *f;
	if (h->to)
		replace(text, sizeof text, GOOD, h->from, h->to);
	build(scratch("bad.quire"), h->to ? text : GOOD, "1", h);
	int rc = checkpoint_open(scratch("bad.quire"), &c, &e);
	if (asked) {
		assert_int_equal(rc, ERR_OK);
		rc = checkpoint_file(c, "config.json", &f, &e);
		checkpoint_close(c);
	}
	struct quire_read q;
	int by_reader = quire_read_open(&q, scratch("bad.quire"));
	if (asked) {
		assert_int_equal(by_reader, QUIRE_READ_OK);
		const struct quire_read_file *side = quire_read_find_file(&q, "config.json");
		uint8_t *inflated = side ? malloc((size_t)side->size + 1) : NULL;
		assert_non_null(inflated);
		by_reader = quire_read_inflate(side, inflated);
		free(inflated);
	}
	quire_read_close(&q);
	/* what a device has no use for it does not look at */
	bool ignored = strstr(h->from, "\"tool\"") || strstr(h->from, "\"facts\"") || strstr(h->from, "\"source\"");
	if (!by_reader != ignored)
		fail_msg("%s -> %s: the reader for devices says %d", h->from, h->to ? h->to : "", by_reader);
	if (rc != h->code || !strstr(e.message, h->says) || !strstr(e.message, "bad.quire"))
		fail_msg("%s -> %s: code %d, '%s'", h->from, h->to ? h->to : "", rc, rc ? e.message : "opened");
}

static void hostile_manifests(void **state)
{
	(void)state;
	static const struct hostile rows[] = {
		{ "{\"version\"", "[\"version\"", ERR_INPUT, "JSON" },
		{ "\"version\":1", "\"version\":2", ERR_INPUT, "version" },
		{ "\"tool\":\"t\",", "", ERR_INPUT, "tool" },
		{ "\"facts\":{}", "\"facts\":[]", ERR_INPUT, "facts must be an object" },
		{ "\"source\":{}", "\"source\":{\"a\":1}", ERR_INPUT, "source must hold strings" },
		{ "\"files\":[", "\"file\":[", ERR_INPUT, "must be lists" },
		{ "\"size\":5", "\"size\":-5", ERR_INPUT, "bad size" },
		{ "\"size\":5", "\"size\":500000000", ERR_INPUT, "cannot hold" },
		{ "\"size\":5", "\"size\":1e300", ERR_INPUT, "bad size" },
		{ "3610a686", "3610A686", ERR_INPUT, "crc32" },
		{ "config.json", "../config", ERR_INPUT, "bad name" },
		{ "config.json", "a/b", ERR_INPUT, "bad name" },
		{ "config.json", "other", ERR_INPUT, "__file__.other" },
		{ "\"name\":\"w\"", "\"name\":\"x\"", ERR_INPUT, "tensor x: in the manifest, but not in the header" },
		{ "\"name\":\"w\"", "\"name\":\"f\"", ERR_INPUT, "tensor f" },
		{ "\"name\":\"w\"", "\"name\":\"\"", ERR_INPUT, "no name" },
		{ "\"name\":\"w\"", "\"name\":\"__pad__.1\"", ERR_INPUT, "__pad__.1" },
		{ "q8_0", "q9_9", ERR_UNSUPPORTED, "tensor w: codec 'q9_9'" },
		{ "q8_0", "q4_0", ERR_INPUT, "tensor w: the shape" },
		{ "q8_0", "f16", ERR_INPUT, "tensor w: its dtype" },
		{ "[2,32]", "[2,64]", ERR_INPUT, "tensor w: the shape" },
		{ "[2,32]", "[2,33]", ERR_UNSUPPORTED, "tensor w" },
		{ "[2,32]", "[2,32.5]", ERR_INPUT, "bad shape" },
		{ "[2,32]", "[-2,32]", ERR_INPUT, "bad shape" },
		{ "[2,32]", "[9007199254740992,9007199254740992]", ERR_INPUT, "tensor w" },
		{ "[2,32]", "[1,1,1,1,1,1,1,2,32]", ERR_INPUT, "bad shape" },
		{ "[2,32]", "{}", ERR_INPUT, "bad shape" },
		{ "\"planes\":2", "\"planes\":4", ERR_INPUT, "planes" },
		{ "\"planes\":2", "\"planes\":0", ERR_INPUT, "planes" },
		{ ",\"planes\":2", "", ERR_INPUT, "tensor f: its dtype" },
		{ "\"shape\":[64]", "\"shape\":[63]", ERR_INPUT, "tensor f: block" },
		{ "\"shape\":[64]", "\"shape\":[6000000]", ERR_INPUT, "tensor f" },
		{ "\"shape\":[64]", "\"shape\":[100000000000]", ERR_INPUT, "tensor f" },
		{ "\"shape\":[3]", "\"shape\":[1,3]", ERR_INPUT, "tensor g: the shape" },
		{ "\"crc32\":\"00000000\"}", "\"crc32\":\"0000000\"}", ERR_INPUT, "tensor w: bad crc32" },
		{ ",{\"name\":\"g\",\"codec\":\"f32\",\"shape\":[3],\"crc32\":\"00000000\"}", "", ERR_INPUT, "tensor g is not in the manifest" },
		{ "@index", NULL, ERR_INPUT, "tensor f: blocks add up" },
		{ "@dtype", NULL, ERR_INPUT, "tensor g: its dtype is I32" },
		{ "@rows", NULL, ERR_INPUT, "tensor w: the shape" },
		{ "@pad", NULL, ERR_INPUT, "tensor extra is not in the manifest" },
		{ "@align", NULL, ERR_INPUT, "tensor g: does not begin at a multiple of 64" },
		{ "@nofile", NULL, ERR_INPUT, "__file__.config.json" },
	};
	static const struct hostile sides[] = {
		{ "\"size\":5", "\"size\":4", ERR_INPUT, "config.json" },
		{ "\"size\":5", "\"size\":6", ERR_INPUT, "config.json" },
		{ "3610a686", "3610a687", ERR_INPUT, "file config.json: the checksum does not match" },
		{ "@file", NULL, ERR_INPUT, "file config.json" },
	};
	struct checkpoint *c;
	build(scratch("good.quire"), GOOD, "1", NULL);
	checkpoint_close(open_ok(scratch("good.quire")));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		refused(&rows[i], false);
	for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
		refused(&sides[i], true);
	build(scratch("bad.quire"), GOOD, "2", NULL);
	assert_int_equal(checkpoint_open(scratch("bad.quire"), &c, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "version 2"));
	struct quire_read q;
	assert_int_equal(quire_read_open(&q, scratch("bad.quire")), QUIRE_READ_UNSUPPORTED);
}

static void cut_anywhere(void **state)
{
	(void)state;
	struct mapped m;
	struct checkpoint *c;
	build(scratch("good.quire"), GOOD, "1", NULL);
	assert_int_equal(mapped_open(&m, scratch("good.quire"), &e), ERR_OK);
	for (size_t n = 0; n < m.size; n += n < 16 ? 1 : 13) {
		scratch_put(scratch("cut.quire"), m.data, n);
		assert_int_equal(checkpoint_open(scratch("cut.quire"), &c, &e), ERR_INPUT);
	}
	mapped_close(&m);
}

/* A sink that is closed without finish, or that gets the wrong number of bytes, leaves nothing. */
static void unfinished_writes_leave_nothing(void **state)
{
	(void)state;
	struct checkpoint *c = open_ok(DEMO);
	struct recipe *r;
	struct plan p;
	struct tensor_sink *k;
	struct write_options o = { 0 };
	assert_int_equal(recipe_new(NULL, &r, &e), ERR_OK);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .source = c->source, .recipe = r }, &e), ERR_OK);
	assert_int_equal(quire_create(scratch("a.quire"), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_OK);
	assert_int_equal(k->item(k, 0, &e), ERR_OK);
	assert_int_equal(k->bytes(k, "abc", 3, &e), ERR_OK);
	assert_int_equal(k->item(k, 1, &e), ERR_BUG);
	k->close(k);
	assert_int_equal(scratch_count(scratch_dir), 0);
	struct tensor reserved = p.items[0].out;
	p.items[0].out.name = "__pad__.0";
	assert_int_equal(quire_create(scratch("a.quire"), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_UNSUPPORTED);
	p.items[0].out = reserved;
	assert_int_equal(quire_create(scratch("no/such/a.quire"), &(struct write_request){ c, NULL, &p, &o }, &k, &e), ERR_IO);
	plan_release(&p);
	recipe_free(r);
	checkpoint_close(c);
}

#define WITH_FILES(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FILES(packing_loses_nothing),
		WITH_FILES(bytes_do_not_depend_on_threads),
		cmocka_unit_test(planes_round_trip),
		WITH_FILES(independent_reader_agrees),
		WITH_FILES(damage_is_named),
		WITH_FILES(hostile_manifests),
		WITH_FILES(cut_anywhere),
		WITH_FILES(unfinished_writes_leave_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
