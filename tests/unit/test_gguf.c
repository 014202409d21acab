#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/gguf.h"
#include "scratch.h"
#include "tensor/half.h"

static struct err e;

/*
 * Containers as scripts of words: =TEXT bytes as they are, s:TEXT a string with its length, S:N a string of N letters x,
 * b: w: i: q: numbers of 1, 2, 4, 8 bytes, z:N zeros, a:N zeros up to a multiple of N.
 */
static void build(struct strbuf *b, const char *script)
{
	uint8_t raw[8];
	strbuf_clear(b);
	for (const char *p = script; *p;) {
		size_t n = strcspn(p, " ");
		const char *arg = p[0] == '=' ? p + 1 : p + 2;
		size_t len = (size_t)(p + n - arg);
		unsigned long long v = *arg == '-' ? (unsigned long long)strtoll(arg, NULL, 0) : strtoull(arg, NULL, 0);
		store_u64(raw, v);
		if (p[0] == '=') {
			strbuf_add(b, arg, len);
		} else if (p[0] == 's' || p[0] == 'S') {
			uint64_t count = p[0] == 's' ? len : v;
			store_u64(raw, count);
			strbuf_add(b, raw, 8);
			for (uint64_t i = 0; i < count; i++)
				strbuf_putc(b, p[0] == 's' ? arg[i] : 'x');
		} else if (p[0] == 'z' || p[0] == 'a') {
			uint64_t count = p[0] == 'z' ? v : (v - b->len % v) % v;
			for (uint64_t i = 0; i < count; i++)
				strbuf_putc(b, 0);
		} else {
			strbuf_add(b, raw, p[0] == 'b' ? 1 : p[0] == 'w' ? 2 : p[0] == 'i' ? 4 : 8);
		}
		p += n;
		p += strspn(p, " ");
	}
}

/* Parses a copy of exactly the right size, so that a sanitizer sees a read past its end. */
static int parse_copy(struct gguf *g, const void *data, size_t size, uint8_t **copy)
{
	*copy = malloc(size ? size : 1);
	memcpy(*copy, data, size);
	e.message[0] = '\0';
	return gguf_parse(g, *copy, size, &e);
}

#define HEAD(tensors, keys) "=GGUF i:3 q:" #tensors " q:" #keys " "
/* a tensor of 2 x 8 f32 at an offset, 64 bytes */
#define T8(name, offset) "s:" name " i:2 q:8 q:2 i:0 q:" #offset " "

static const struct {
	const char *script;
	int code;
	const char *fragment;
} hostile[] = {
	{ "", ERR_INPUT, "not a GGUF file" },
	{ "=GGU", ERR_INPUT, "not a GGUF file" },
	{ "=GGML i:3 q:0 q:0", ERR_INPUT, "not a GGUF file" },
	{ "=GGUF w:3", ERR_INPUT, "ends inside the GGUF header" },
	{ "=GGUF i:0 q:0 q:0", ERR_INPUT, "version 0" },
	{ "=GGUF i:1 q:0 q:0", ERR_UNSUPPORTED, "version 1" },
	{ "=GGUF i:4 q:0 q:0", ERR_UNSUPPORTED, "version 4" },
	{ "=GGUF i:0x03000000 q:0 q:0", ERR_UNSUPPORTED, "big-endian" },
	{ "=GGUF i:3 q:0 i:0", ERR_INPUT, "ends inside the GGUF header" },
	{ HEAD(-1, 0), ERR_INPUT, "claims -1 tensors" },
	{ HEAD(0, -1), ERR_INPUT, "claims -1 keys" },
	{ HEAD(0x100000000, 0) "z:64", ERR_INPUT, "more than the file can hold" },
	{ HEAD(0, 0x7fffffffffffffff) "z:64", ERR_INPUT, "more than the file can hold" },
	{ HEAD(0, 1) "s: i:4 i:1 z:8", ERR_INPUT, "key 0 has an empty name" },
	{ HEAD(0, 1) "q:100 =key z:8", ERR_INPUT, "the name of key 0 runs past the end" },
	{ HEAD(0, 1) "q:-1 =key z:8", ERR_INPUT, "the name of key 0 runs past the end" },
	{ HEAD(0, 1) "q:0x40000001 =key z:8", ERR_INPUT, "the name of key 0 runs past the end" },
	{ HEAD(0, 1) "s:\xff\xfe i:4 i:1 z:8", ERR_INPUT, "the name of key 0 is not text" },
	{ HEAD(0, 1) "q:2 =k b:0 i:4 i:1 z:8", ERR_INPUT, "the name of key 0 is not text" },
	{ HEAD(0, 2) "s:k i:4 i:1 s:k i:4 i:2 z:8", ERR_INPUT, "key 'k' appears twice" },
	{ HEAD(0, 1) "s:key i:13 i:1 z:8", ERR_INPUT, "unknown value type 13" },
	{ HEAD(0, 1) "s:key i:-1 i:1 z:8", ERR_INPUT, "unknown value type" },
	{ HEAD(0, 1) "s:key_ab w:4", ERR_INPUT, "key 'key_ab' runs past" },
	{ HEAD(0, 1) "s:key i:4 w:1", ERR_INPUT, "key 'key': its value runs past" },
	{ HEAD(0, 1) "s:key i:12 i:1", ERR_INPUT, "key 'key': its value runs past" },
	{ HEAD(0, 1) "s:key i:8 q:3 =ab", ERR_INPUT, "key 'key': its value runs past" },
	{ HEAD(0, 1) "s:key i:8 q:-1 =ab", ERR_INPUT, "too long" },
	{ HEAD(0, 1) "s:key i:8 q:0x40000001 =ab", ERR_INPUT, "too long" },
	{ HEAD(0, 1) "s:key i:9 i:4", ERR_INPUT, "key 'key' runs past" },
	{ HEAD(0, 1) "s:key i:9 i:9 q:1 z:20", ERR_UNSUPPORTED, "array of arrays" },
	{ HEAD(0, 1) "s:key i:9 i:13 q:1 z:20", ERR_INPUT, "unknown value type 13" },
	{ HEAD(0, 1) "s:key i:9 i:4 q:3 z:11", ERR_INPUT, "array of 3 elements runs past" },
	{ HEAD(0, 1) "s:key i:9 i:12 q:0x2000000000000001 z:8", ERR_INPUT, "too long" },
	{ HEAD(0, 1) "s:key i:9 i:0 q:0x40000001 z:8", ERR_INPUT, "too long" },
	{ HEAD(0, 1) "s:key i:9 i:8 q:2 s:a q:9 =b", ERR_INPUT, "array of 2 elements runs past" },
	{ HEAD(0, 1) "s:key i:9 i:8 q:2 s:a q:-1 =b", ERR_INPUT, "array of 2 elements runs past" },
	{ HEAD(0, 1) "s:general.alignment i:5 i:32", ERR_INPUT, "general.alignment is i32" },
	{ HEAD(0, 1) "s:general.alignment i:10 q:32", ERR_INPUT, "general.alignment is u64" },
	{ HEAD(0, 1) "s:general.alignment i:4 i:0", ERR_INPUT, "not a power of two" },
	{ HEAD(0, 1) "s:general.alignment i:4 i:48", ERR_INPUT, "not a power of two" },
	{ HEAD(1, 0) "s: i:1 q:1 i:0 q:0 z:64", ERR_INPUT, "tensor 0 has an empty name" },
	{ HEAD(1, 0) "q:99 =name z:64", ERR_INPUT, "the name of tensor 0 runs past" },
	{ HEAD(1, 0) "S:64 i:1 q:1 i:0 q:0 z:64", ERR_INPUT, "at most 63 bytes" },
	{ HEAD(2, 0) T8("t", 0) T8("t", 64) "z:300", ERR_INPUT, "tensor 't' appears twice" },
	{ HEAD(1, 0) "s:t i:5 q:1 q:1 q:1 q:1 q:1 i:0 q:0 z:64", ERR_INPUT, "5 dimensions" },
	{ HEAD(1, 0) "s:t i:-1 z:64", ERR_INPUT, "dimensions" },
	{ HEAD(1, 0) "s:tensor.with.a.name i:2 q:8 q:2", ERR_INPUT, "runs past the end" },
	{ HEAD(1, 0) "s:t i:2 q:-8 q:2 i:0 q:0 z:64", ERR_INPUT, "dimension 0 is negative" },
	{ HEAD(1, 0) "s:t i:2 q:0x100000000 q:0x80000000 i:0 q:0 z:64", ERR_INPUT, "too many elements" },
	{ HEAD(1, 0) "s:t i:3 q:0x7fffffffffffffff q:0x7fffffffffffffff q:4 i:0 q:0 z:64", ERR_INPUT, "too many elements" },
	{ HEAD(1, 0) "s:t i:1 q:0x7fffffffffffffff i:0 q:0 z:64", ERR_INPUT, "tensor 't'" },
	{ HEAD(1, 0) "s:t i:2 q:0x40000000 q:0x80000000 i:0 q:0 z:64", ERR_INPUT, "too many bytes" },
	{ HEAD(1, 0) "s:blk.0.x i:2 q:256 q:2 i:15 q:0 z:600", ERR_UNSUPPORTED, "'blk.0.x' has the tensor type 15 (Q8_K)" },
	{ HEAD(1, 0) "s:t i:2 q:32 q:2 i:9 q:0 z:600", ERR_UNSUPPORTED, "type 9 (Q8_1)" },
	{ HEAD(1, 0) "s:t i:2 q:32 q:2 i:4 q:0 z:600", ERR_INPUT, "type 4, which was removed" },
	{ HEAD(1, 0) "s:t i:2 q:32 q:2 i:38 q:0 z:600", ERR_INPUT, "type 38, which was removed" },
	{ HEAD(1, 0) "s:t i:2 q:32 q:2 i:43 q:0 z:600", ERR_UNSUPPORTED, "unknown tensor type 43" },
	{ HEAD(1, 0) "s:t i:2 q:32 q:2 i:-1 q:0 z:600", ERR_UNSUPPORTED, "unknown tensor type" },
	{ HEAD(1, 0) "s:t i:2 q:33 q:2 i:8 q:0 z:600", ERR_INPUT, "rows of 33 elements cannot be stored as q8_0" },
	{ HEAD(1, 0) "s:t i:2 q:128 q:2 i:12 q:0 z:600", ERR_INPUT, "rows of 128 elements cannot be stored as q4_k" },
	{ HEAD(1, 0) T8("t", 32) "z:300", ERR_INPUT, "claims offset 32" },
	{ HEAD(2, 0) T8("t", 0) T8("u", 0) "z:300", ERR_INPUT, "tensor 'u' claims offset 0; the tensors before it end at 64" },
	{ HEAD(2, 0) T8("t", 0) T8("u", 96) "z:300", ERR_INPUT, "tensor 'u' claims offset 96" },
	{ HEAD(2, 0) T8("t", 64) T8("u", 0) "z:300", ERR_INPUT, "tensor 't' claims offset 64" },
	{ HEAD(1, 0) T8("t", 0) "a:32 z:63", ERR_INPUT, "run past the end of the file (truncated?)" },
	{ HEAD(1, 0) T8("t", 0), ERR_INPUT, "run past the end of the file" },
	{ HEAD(2, 0) "s:a i:1 q:0x1000000000000000 i:0 q:0 s:b i:1 q:0x1000000000000000 i:0 q:0x4000000000000000 z:64", ERR_INPUT,
	  "too large" },
	{ HEAD(1, 0) T8("t", 0) "a:32 z:64 =junk", ERR_INPUT, "4 bytes follow the last of the 1 tensors" },
	{ HEAD(0, 0) "a:32 z:64", ERR_INPUT, "64 bytes follow the last of the 0 tensors" },
	{ HEAD(1, 0) T8("t", 0) T8("u", 64) "a:32 z:128", ERR_INPUT, "follow the last of the 1 tensors" },
};

static void refuses_hostile_files(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		struct gguf g;
		uint8_t *copy;
		build(&b, hostile[i].script);
		int rc = parse_copy(&g, b.data ? b.data : "", b.len, &copy);
		if (rc != hostile[i].code || !strstr(e.message, hostile[i].fragment))
			fail_msg("case %zu (%s): code %d, '%s'; want %d, '%s'", i, hostile[i].script, rc, e.message,
				 hostile[i].code, hostile[i].fragment);
		free(copy);
	}
	strbuf_release(&b);
}

static void accepts_the_edges(void **state)
{
	(void)state;
	static const char *const fine[] = {
		HEAD(0, 0),
		"=GGUF i:2 q:0 q:0",
		HEAD(0, 1) "s:k i:9 i:8 q:0",
		HEAD(1, 0) "S:63 i:1 q:1 i:0 q:0 a:32 i:1",                 /* the last padding may be missing */
		HEAD(1, 0) "s:t i:0 i:0 q:0 a:32 z:32",                      /* a scalar */
		HEAD(1, 0) "s:t i:2 q:0 q:0x7fffffffffffffff i:0 q:0",       /* no elements */
		HEAD(2, 1) "s:general.alignment i:4 i:1 s:a i:1 q:1 i:0 q:0 s:b i:1 q:1 i:0 q:4 z:8",
		HEAD(1, 0) "s:t i:1 q:1 i:0 q:0 a:32 z:32",                  /* or there */
	};
	struct strbuf b = { 0 };
	for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
		struct gguf g;
		uint8_t *copy;
		build(&b, fine[i]);
		if (parse_copy(&g, b.data, b.len, &copy))
			fail_msg("case %zu: %s", i, e.message);
		gguf_release(&g);
		free(copy);
	}
	strbuf_release(&b);
}

/* The specification's worked example: one key and a 2 x 32 Q4_0 tensor. */
static const char EXAMPLE[] = HEAD(1, 1) "s:general.architecture i:8 s:llama s:t i:2 q:32 q:2 i:2 q:0 a:32 z:64";

static void reads_the_worked_example(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	struct gguf g;
	size_t len;
	build(&b, EXAMPLE);
	assert_int_equal(b.len, 192);
	assert_int_equal(gguf_parse(&g, b.data, b.len, &e), 0);
	assert_int_equal(g.version, 3);
	assert_int_equal(g.data_at, 128);
	assert_int_equal(g.tensors[0].at, 128);
	assert_int_equal(g.tensors[0].nbytes, 36);
	assert_string_equal(g.tensors[0].codec->name, "q4_0");
	assert_memory_equal(gguf_string(gguf_find(&g, "general.architecture"), &len), "llama", 5);
	assert_int_equal(len, 5);
	assert_null(gguf_find(&g, "general.architectur"));
	gguf_release(&g);
	/* every truncation is refused, up to the end of the tensor itself */
	for (size_t n = 0; n < 164; n++) {
		uint8_t *copy;
		if (parse_copy(&g, b.data, n, &copy) != ERR_INPUT)
			fail_msg("accepted when cut to %zu bytes", n);
		free(copy);
	}
	strbuf_release(&b);
}

static void writes_the_worked_example(void **state)
{
	(void)state;
	struct strbuf want = { 0 }, got = { 0 };
	struct gguf_writer w = { 0 };
	uint64_t offset = 7;
	build(&want, EXAMPLE);
	gguf_put_string(&w, "general.architecture", "llama", 5);
	assert_int_equal(gguf_add_tensor(&w, &(struct tensor){ .name = "t", .codec = codec_from_gguf(2), .ndim = 2, .dim = { 2, 32 } }, &offset, &e), 0);
	assert_int_equal(gguf_header(&w, &got, &e), 0);
	assert_int_equal(offset, 0);
	assert_int_equal(w.data_bytes, 64);
	assert_int_equal(got.len, 128);
	assert_memory_equal(got.data, want.data, 128);
	gguf_writer_release(&w);
	strbuf_release(&want);
	strbuf_release(&got);
}

static void writer_refuses(void **state)
{
	(void)state;
	struct gguf_writer w = { 0 };
	uint64_t at;
	const struct codec *f32 = codec_find("f32");
	char name[80];
	struct tensor named = { .name = name, .codec = f32, .ndim = 1, .dim = { 1, 1, 1, 1, 64 } }, five = named;
	five.ndim = 5;
	memset(name, 'n', sizeof name);
	name[64] = '\0';
	assert_int_equal(gguf_add_tensor(&w, &named, &at, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "63 bytes"));
	five.name = "five";
	assert_int_equal(gguf_add_tensor(&w, &five, &at, &e), ERR_UNSUPPORTED);
	const struct tensor group = { .name = "g", .codec = codec_find("int4-g128"), .ndim = 1, .dim = { 64 } };
	assert_int_equal(gguf_add_tensor(&w, &group, &at, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "cannot hold the type int4-g128"));
	const struct tensor odd = { .name = "odd", .codec = codec_find("q8_0"), .ndim = 1, .dim = { 33 } };
	assert_int_equal(gguf_add_tensor(&w, &odd, &at, &e), ERR_UNSUPPORTED);
	name[63] = '\0';
	named.ndim = 4;
	assert_int_equal(gguf_add_tensor(&w, &named, &at, &e), 0);
	assert_int_equal(gguf_add_tensor(&w, &named, &at, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "appears twice"));
	gguf_writer_release(&w);
}

static void integers(const struct gguf *g, const char *key, uint64_t i, bool ok, uint64_t u, double d)
{
	uint64_t v = 0;
	double f = 0;
	if (gguf_uint(gguf_find(g, key), i, &v) != ok || v != u || !gguf_float(gguf_find(g, key), i, &f) || f != d)
		fail_msg("%s[%d]: %llu %g", key, (int)i, (unsigned long long)v, f);
}

static void reads_the_reference_writer(void **state)
{
	(void)state;
	struct mapped m;
	struct gguf g;
	bool b;
	size_t len;
	const char *s;
	if (mapped_open(&m, "tests/golden/gguf/types.gguf", &e) || gguf_parse(&g, m.data, m.size, &e))
		fail_msg("%s", e.message);
	assert_int_equal(g.alignment, 64);
	integers(&g, "t.u8", 0, true, 200, 200);
	integers(&g, "t.i8", 0, false, 0, -100);
	integers(&g, "t.u16", 0, true, 60000, 60000);
	integers(&g, "t.i16", 0, false, 0, -30000);
	integers(&g, "t.u32", 0, true, 4000000000u, 4000000000.0);
	integers(&g, "t.i32", 0, false, 0, -2000000000.0);
	integers(&g, "t.f32", 0, false, 0, 0.15625);
	integers(&g, "t.u64", 0, true, 18000000000000000000u, 18000000000000000000.0);
	integers(&g, "t.i64", 0, false, 0, -9000000000000000000.0);
	integers(&g, "t.f64", 0, false, 0, 1e300);
	integers(&g, "t.ints", 1, false, 0, -2);
	integers(&g, "t.ints", 2, true, 3, 3);
	integers(&g, "t.floats", 1, false, 0, -0.25);
	assert_true(gguf_bool(gguf_find(&g, "t.yes"), &b) && b);
	assert_true(gguf_bool(gguf_find(&g, "t.no"), &b) && !b);
	assert_false(gguf_bool(gguf_find(&g, "t.bools"), &b));
	s = gguf_string(gguf_find(&g, "t.string"), &len);
	assert_int_equal(len, 7);
	assert_memory_equal(s, "gr\xc3\xbc\xc3\x9f" "e", 7);
	struct cursor c = gguf_strings(gguf_find(&g, "t.strings"));
	assert_true(gguf_next_string(&c, &s, &len) && len == 1 && s[0] == 'a');
	assert_true(gguf_next_string(&c, &s, &len) && len == 0);
	assert_true(gguf_next_string(&c, &s, &len) && len == 3);
	assert_false(gguf_next_string(&c, &s, &len));
	/* wrong types and missing keys */
	uint64_t v;
	assert_false(gguf_uint(NULL, 0, &v) || gguf_uint(gguf_find(&g, "t.string"), 0, &v) || gguf_uint(gguf_find(&g, "t.ints"), 3, &v));
	assert_null(gguf_string(gguf_find(&g, "t.strings"), &len));
	c = gguf_strings(gguf_find(&g, "t.ints"));
	assert_false(gguf_next_string(&c, &s, &len));

	assert_int_equal(g.tensor_count, 7);
	assert_int_equal(g.tensors[0].ndim, 3);
	assert_int_equal(g.tensors[0].dim[0], 8);
	assert_int_equal(g.tensors[0].dim[2], 2);
	for (size_t i = 0; i < g.tensor_count; i++) {
		const struct gguf_tensor *t = &g.tensors[i];
		float x[64];
		size_t n = i == 0 || (i > 1 && i < 6) ? 64 : i == 1 ? 6 : 0;
		assert_int_equal(t->at % 64, 0);
		if (!n)
			continue;
		uint64_t cols = t->dim[0], row = codec_row_bytes(t->codec, cols);
		for (size_t r = 0; r * cols < n; r++)
			t->codec->decode(t->codec, m.data + t->at + r * row, x + r * cols, cols);
		/* the ramp -32, -31 ...; two bits of slack for the four-bit types */
		for (size_t k = 0; k < n; k++)
			if (!(x[k] - ((float)k - 32) < 2.2f && ((float)k - 32) - x[k] < 2.2f))
				fail_msg("tensor %s: element %zu is %g", t->name, k, (double)x[k]);
	}
	gguf_release(&g);
	mapped_close(&m);
}

static void writes_what_it_reads(void **state)
{
	(void)state;
	struct gguf_writer w = { 0 };
	struct strbuf b = { 0 };
	struct gguf g;
	bool yes;
	double f;
	uint64_t v;
	gguf_put_u16(&w, "a.u16", 65535);
	gguf_put_u64(&w, "a.u64", UINT64_MAX);
	gguf_put_i32(&w, "a.i32", -5);
	gguf_put_f32(&w, "a.f32", -1.5f);
	gguf_put_bool(&w, "a.bool", true);
	gguf_put_u32s(&w, "a.u32s", (const uint32_t[]){ 1, 2, 4000000000u }, 3);
	gguf_put_bools(&w, "a.bools", 2);
	gguf_array_bool(&w, true);
	gguf_array_bool(&w, false);
	gguf_begin_strings(&w, "a.none");
	gguf_end_strings(&w);
	assert_int_equal(gguf_header(&w, &b, &e), 0);
	assert_int_equal(gguf_parse(&g, b.data, b.len, &e), 0);
	assert_int_equal(g.kv_count, 8);
	assert_true(gguf_uint(gguf_find(&g, "a.u16"), 0, &v) && v == 65535);
	assert_true(gguf_uint(gguf_find(&g, "a.u64"), 0, &v) && v == UINT64_MAX);
	assert_true(gguf_float(gguf_find(&g, "a.i32"), 0, &f) && f == -5);
	assert_true(gguf_float(gguf_find(&g, "a.f32"), 0, &f) && f == -1.5);
	assert_true(gguf_bool(gguf_find(&g, "a.bool"), &yes) && yes);
	assert_true(gguf_uint(gguf_find(&g, "a.u32s"), 2, &v) && v == 4000000000u);
	assert_int_equal(gguf_find(&g, "a.bools")->count, 2);
	assert_int_equal(gguf_find(&g, "a.none")->count, 0);
	gguf_release(&g);
	gguf_writer_release(&w);
	strbuf_release(&b);
}

static void names_file_types(void **state)
{
	(void)state;
	assert_string_equal(gguf_file_type_name(0), "F32");
	assert_string_equal(gguf_file_type_name(15), "Q4_K_M");
	assert_string_equal(gguf_file_type_name(30), "IQ4_XS");
	assert_string_equal(gguf_file_type_name(38), "MXFP4_MOE");
	assert_string_equal(gguf_file_type_name(1024 + 7), "Q8_0");
	assert_null(gguf_file_type_name(4));
	assert_null(gguf_file_type_name(4000000000u));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_hostile_files),
		cmocka_unit_test(accepts_the_edges),
		cmocka_unit_test(reads_the_worked_example),
		cmocka_unit_test(writes_the_worked_example),
		cmocka_unit_test(writer_refuses),
		cmocka_unit_test(reads_the_reference_writer),
		cmocka_unit_test(writes_what_it_reads),
		cmocka_unit_test(names_file_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
