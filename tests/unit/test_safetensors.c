#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "formats/file.h"
#include "formats/safetensors.h"

static struct err e;

/* A file in memory of exactly its size, so that a sanitizer sees an over-read. header_len < 0: that of the text. */
static uint8_t *make(const char *header, long long header_len, size_t data, size_t *size)
{
	size_t n = strlen(header);
	*size = 8 + n + data;
	uint8_t *p = calloc(1, *size);
	assert_non_null(p);
	store_u64(p, header_len < 0 ? n : (uint64_t)header_len);
	memcpy(p + 8, header, n);
	return p;
}

#define T(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define WITH(member) "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]" member "}}"

static const struct hostile {
	const char *what, *header;
	size_t data;
	int code;
	const char *fragment;
} hostile[] = {
	{ "not an object", "[]", 0, ERR_INPUT, "does not begin with '{'" },
	{ "leading space", " {}", 0, ERR_INPUT, "does not begin with '{'" },
	{ "empty header", "", 0, ERR_INPUT, "does not begin with '{'" },
	{ "unfinished", "{", 0, ERR_INPUT, "expected a string" },
	{ "unfinished name", "{\"a", 0, ERR_INPUT, "unfinished string" },
	{ "unfinished escape", "{\"a\\", 0, ERR_INPUT, "unfinished string" },
	{ "no colon", "{\"a\" 1}", 0, ERR_INPUT, "expected ':'" },
	{ "trailing comma", "{\"a\":" T("U8", "[2]", 0, 2) ",}", 2, ERR_INPUT, "expected a string" },
	{ "no comma", "{\"a\":" T("U8", "[2]", 0, 2) "\"b\":1}", 2, ERR_INPUT, "expected ',' or '}'" },
	{ "text behind", "{}x", 0, ERR_INPUT, "text after the end" },
	{ "two objects", "{}{}", 0, ERR_INPUT, "text after the end" },
	{ "bad utf8", "{\"\xff\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "not valid UTF-8" },
	{ "overlong utf8", "{\"\xc0\x80\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "not valid UTF-8" },
	{ "surrogate in utf8", "{\"\xed\xa0\x80\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "not valid UTF-8" },
	{ "bad escape", "{\"\\x\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "bad escape" },
	{ "short escape", "{\"\\u12\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "bad escape" },
	{ "lone surrogate", "{\"\\ud800\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "surrogate" },
	{ "lone low surrogate", "{\"\\udc00\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "surrogate" },
	{ "NUL in name", "{\"a\\u0000b\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "NUL in a string" },
	{ "raw newline in name", "{\"a\nb\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "control character" },
	{ "escaped newline in name", "{\"a\\nb\":" T("U8", "[2]", 0, 2) "}", 2, ERR_UNSUPPORTED, "'a\\x0a...' has control" },
	{ "terminal escape in name", "{\"\\u001b[2J\":" T("U8", "[2]", 0, 2) "}", 2, ERR_UNSUPPORTED, "control characters" },
	{ "name twice", "{\"a\":" T("U8", "[2]", 0, 2) ",\"a\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "'a': named twice" },
	{ "name twice, once escaped", "{\"a\":" T("U8", "[2]", 0, 2) ",\"\\u0061\":" T("U8", "[2]", 2, 4) "}", 4, ERR_INPUT, "'a': named twice" },
	{ "metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, ERR_INPUT, "'__metadata__' appears twice" },
	{ "metadata key twice", "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, ERR_INPUT, "'__metadata__' names 'a' twice" },
	{ "metadata number", "{\"__metadata__\":{\"a\":1}}", 0, ERR_INPUT, "value of 'a' is not a string" },
	{ "metadata null", "{\"__metadata__\":{\"a\":null}}", 0, ERR_INPUT, "value of 'a' is not a string" },
	{ "metadata array", "{\"__metadata__\":[]}", 0, ERR_INPUT, "'__metadata__' is not an object" },
	{ "tensor is a number", "{\"a\":1}", 0, ERR_INPUT, "tensor 'a': header: not an object" },
	{ "no dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,2]}}", 2, ERR_INPUT, "tensor 'a': 'dtype' is missing" },
	{ "no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,2]}}", 2, ERR_INPUT, "tensor 'a': 'shape' is missing" },
	{ "no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2]}}", 2, ERR_INPUT, "tensor 'a': 'data_offsets' is missing" },
	{ "empty tensor", "{\"a\":{}}", 0, ERR_INPUT, "'dtype' is missing" },
	{ "dtype twice", WITH(",\"dtype\":\"U8\""), 2, ERR_INPUT, "tensor 'a': 'dtype' appears twice" },
	{ "dtype number", "{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,2]}}", 2, ERR_INPUT, "expected a string" },
	{ "dtype unknown", "{\"a\":" T("Q4", "[2]", 0, 2) "}", 2, ERR_UNSUPPORTED, "tensor 'a': dtype 'Q4' is not known" },
	{ "dtype in lower case", "{\"a\":" T("f32", "[2]", 0, 8) "}", 8, ERR_UNSUPPORTED, "dtype 'f32' is not known" },
	{ "shape number", "{\"a\":" T("U8", "2", 0, 2) "}", 2, ERR_INPUT, "'shape' is not an array" },
	{ "shape of a string", "{\"a\":" T("U8", "[\"2\"]", 0, 2) "}", 2, ERR_INPUT, "expected a whole number" },
	{ "shape 2.0", "{\"a\":" T("U8", "[2.0]", 0, 2) "}", 2, ERR_INPUT, "not written as a whole number" },
	{ "shape 2e0", "{\"a\":" T("U8", "[2e0]", 0, 2) "}", 2, ERR_INPUT, "not written as a whole number" },
	{ "shape -2", "{\"a\":" T("U8", "[-2]", 0, 2) "}", 2, ERR_INPUT, "negative number" },
	{ "shape -0", "{\"a\":" T("U8", "[-0]", 0, 0) "}", 0, ERR_INPUT, "negative number" },
	{ "shape +2", "{\"a\":" T("U8", "[+2]", 0, 2) "}", 2, ERR_INPUT, "expected a whole number" },
	{ "shape 02", "{\"a\":" T("U8", "[02]", 0, 2) "}", 2, ERR_INPUT, "leading zeros" },
	{ "shape 2^64", "{\"a\":" T("U8", "[18446744073709551616]", 0, 2) "}", 2, ERR_INPUT, "beyond 64 bits" },
	{ "shape 1e30 digits", "{\"a\":" T("U8", "[1000000000000000000000000000000]", 0, 2) "}", 2, ERR_INPUT, "beyond 64 bits" },
	{ "shape trailing comma", "{\"a\":" T("U8", "[2,]", 0, 2) "}", 2, ERR_INPUT, "expected a whole number" },
	{ "shape unfinished", "{\"a\":" T("U8", "[2", 0, 2) "}", 2, ERR_INPUT, "expected a whole number" },
	{ "nine dimensions", "{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, ERR_UNSUPPORTED, "tensor 'a': more than 8 dimensions" },
	{ "one offset", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0]}}", 2, ERR_INPUT, "'data_offsets' is not two numbers" },
	{ "three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2,4]}}", 2, ERR_INPUT, "'data_offsets' is not two numbers" },
	{ "offset 2.0", "{\"a\":" T("U8", "[2]", 0, 2.0) "}", 2, ERR_INPUT, "not written as a whole number" },
	{ "offset negative", "{\"a\":" T("U8", "[2]", -2, 0) "}", 2, ERR_INPUT, "negative number" },
	{ "offset huge", "{\"a\":" T("U8", "[2]", 18446744073709551614, 18446744073709551615) "}", 2, ERR_INPUT, "tensor 'a': data begins at" },
	{ "end before begin", "{\"a\":" T("U8", "[2]", 2, 0) "}", 2, ERR_INPUT, "tensor 'a': data ends (0) before it begins (2)" },
	{ "hole at the front", "{\"a\":" T("U8", "[2]", 1, 3) "}", 3, ERR_INPUT, "tensor 'a': data begins at 1, leaving a hole after 0" },
	{ "hole between", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 3, 5) "}", 5, ERR_INPUT, "tensor 'b': data begins at 3, leaving a hole after 2" },
	{ "overlap", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 1, 3) "}", 3, ERR_INPUT, "tensor 'b': data begins at 1, overlapping" },
	{ "alias", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 0, 2) "}", 2, ERR_INPUT, "tensor 'b': data begins at 0, overlapping" },
	{ "too few bytes", "{\"a\":" T("F32", "[2]", 0, 4) "}", 4, ERR_INPUT, "tensor 'a': has 4 bytes of data, its dtype F32 and shape need 8" },
	{ "too many bytes", "{\"a\":" T("F16", "[1]", 0, 4) "}", 4, ERR_INPUT, "has 4 bytes of data, its dtype F16 and shape need 2" },
	{ "shape overflow", "{\"a\":" T("U8", "[4294967296,4294967296]", 0, 2) "}", 2, ERR_INPUT, "tensor 'a': the product of its shape overflows" },
	{ "shape overflow, then 0", "{\"a\":" T("U8", "[4294967296,4294967296,0]", 0, 0) "}", 0, ERR_INPUT, "shape overflows" },
	{ "bits overflow", "{\"a\":" T("F64", "[1152921504606846976]", 0, 2) "}", 2, ERR_INPUT, "shape overflows" },
	{ "half a byte", "{\"a\":" T("F4", "[3]", 0, 1) "}", 1, ERR_INPUT, "do not fill whole bytes" },
	{ "truncated data", "{\"a\":" T("U8", "[9]", 0, 9) "}", 8, ERR_INPUT, "tensor 'a': data ends at 9, but the file holds 8 bytes" },
	{ "no data", "{\"a\":" T("U8", "[9]", 0, 9) "}", 0, ERR_INPUT, "truncated?" },
	{ "bytes behind", "{\"a\":" T("U8", "[2]", 0, 2) "}", 5, ERR_INPUT, "3 bytes after the last tensor's data" },
	{ "bytes without tensors", "{}", 1, ERR_INPUT, "1 bytes after the last tensor's data" },
	{ "bad extra value", WITH(",\"x\":tru"), 2, ERR_INPUT, "bad number" },
	{ "bad extra number", WITH(",\"x\":1."), 2, ERR_INPUT, "bad number" },
	{ "bad extra array", WITH(",\"x\":[1 2]"), 2, ERR_INPUT, "expected ',' or ']'" },
	{ "bad extra object", WITH(",\"x\":{\"a\" 1}"), 2, ERR_INPUT, "expected ':'" },
};

static void refuses(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		const struct hostile *h = &hostile[i];
		struct st_file f;
		size_t size;
		uint8_t *p = make(h->header, -1, h->data, &size);
		e.message[0] = '\0';
		int rc = st_parse(&f, p, size, &e);
		if (rc != h->code || !strstr(e.message, h->fragment))
			fail_msg("%s: code %d, '%s'; want %d, '%s'", h->what, rc, e.message, h->code, h->fragment);
		free(p);
	}
}

static void refuses_lengths(void **state)
{
	(void)state;
	static const struct {
		uint64_t length;
		const char *fragment;
	} rows[] = {
		{ 100000001, "beyond the format's limit" }, { UINT64_MAX, "beyond the format's limit" },
		{ UINT64_MAX - 7, "beyond the format's limit" }, { 3, "beyond the end of the file" },
		{ 100000000, "beyond the end of the file" }, { 1, "expected a string" },
	};
	struct st_file f;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		size_t size;
		uint8_t *p = make("{}", (long long)(rows[i].length >> 1), 0, &size);
		store_u64(p, rows[i].length);
		assert_int_equal(st_parse(&f, p, size, &e), ERR_INPUT);
		if (!strstr(e.message, rows[i].fragment))
			fail_msg("'%s', want '%s'", e.message, rows[i].fragment);
		free(p);
	}
	for (size_t n = 0; n < 8; n++) {
		uint8_t *p = calloc(1, n + 1);
		assert_int_equal(st_parse(&f, p, n, &e), ERR_INPUT);
		assert_non_null(strstr(e.message, "too short"));
		free(p);
	}
}

/* Every file cut short is refused, wherever the cut is. */
static void refuses_every_cut(void **state)
{
	(void)state;
	size_t size;
	uint8_t *p = make("{\"__metadata__\":{\"k\":\"v\"},\"a\":" T("F32", "[2,1]", 0, 8) "}  ", -1, 8, &size);
	struct st_file f;
	for (size_t n = 0; n < size; n++) {
		uint8_t *cut = malloc(n + 1);
		memcpy(cut, p, n);
		assert_int_equal(st_parse(&f, cut, n, &e), ERR_INPUT);
		free(cut);
	}
	assert_int_equal(st_parse(&f, p, size, &e), ERR_OK);
	st_release(&f);
	free(p);
}

static void deep_nesting(void **state)
{
	(void)state;
	size_t n = 1 << 20, size;
	char *text = malloc(n + 64);
	strcpy(text, "{\"a\":{\"x\":");
	memset(text + 10, '[', n);
	text[10 + n] = '\0';
	uint8_t *p = make(text, -1, 0, &size);
	struct st_file f;
	assert_int_equal(st_parse(&f, p, size, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "nested too deeply"));
	free(p);
	free(text);
}

static void reads(void **state)
{
	(void)state;
	size_t size;
	uint8_t *p = make("{\"z\":" T("F32", "[]", 4, 8) ",\n\"__metadata__\" : {\"format\":\"pt\",\"\\ud83d\\ude00\":\"\\\"\\n\"},\r"
			  "\"a\\/b\":{\"x\":[1.5e-3,{\"y\":[null,true,false,-0.1]}],\"shape\":[2, 2],\"data_offsets\":[0,4],"
			  "\"dtype\":\"U8\"},\t\"none\":" T("BF16", "[3,0,5]", 4, 4) ",\"\":" T("C64", "[1]", 8, 16) "} \n ",
			  -1, 16, &size);
	struct st_file f;
	if (st_parse(&f, p, size, &e))
		fail_msg("%s", e.message);
	assert_int_equal(f.count, 4);
	assert_string_equal(f.entries[0].name, "a/b");
	assert_string_equal(f.entries[0].dtype->name, "U8");
	assert_int_equal(f.entries[0].ndim, 2);
	assert_int_equal(f.entries[0].dim[1], 2);
	assert_string_equal(f.entries[1].name, "none");
	assert_int_equal(f.entries[1].begin, 4);
	assert_int_equal(f.entries[1].end, 4);
	assert_string_equal(f.entries[2].name, "z");
	assert_int_equal(f.entries[2].ndim, 0);
	assert_string_equal(f.entries[3].name, "");
	assert_int_equal(f.data_size, 16);
	assert_ptr_equal(f.data, p + size - 16);
	assert_int_equal(f.meta_count, 2);
	assert_string_equal(st_meta(&f, "format"), "pt");
	assert_string_equal(st_meta(&f, "\xf0\x9f\x98\x80"), "\"\n");
	assert_null(st_meta(&f, "none"));
	struct tensor t;
	assert_int_equal(st_tensor(&f.entries[2], &t, &e), ERR_OK);
	assert_int_equal(t.nbytes, 4);
	assert_int_equal(st_tensor(&f.entries[3], &t, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "dtype C64 is not supported"));
	st_release(&f);
	free(p);
	p = make("{}", -1, 0, &size);
	assert_int_equal(st_parse(&f, p, size, &e), ERR_OK);
	assert_int_equal(f.count, 0);
	st_release(&f);
	free(p);
}

static void many_tensors(void **state)
{
	(void)state;
	enum { N = 20000 };
	struct strbuf text = { 0 };
	strbuf_putc(&text, '{');
	for (unsigned i = 0; i < N; i++) /* against the buffer's order */
		strbuf_printf(&text, "%s\"t%u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%u,%u]}", i ? "," : "", i, N - 1 - i, N - i);
	strbuf_putc(&text, '}');
	size_t size;
	uint8_t *p = make(text.data, -1, N, &size);
	struct st_file f;
	assert_int_equal(st_parse(&f, p, size, &e), ERR_OK);
	assert_int_equal(f.count, N);
	assert_string_equal(f.entries[0].name, "t19999");
	st_release(&f);
	free(p);
	strbuf_release(&text);
}

static struct st_entry entry(const char *name, const char *dtype, uint32_t ndim, uint64_t a, uint64_t b)
{
	return (struct st_entry){ .name = name, .dtype = st_dtype_find(dtype), .ndim = ndim, .dim = { a, b } };
}

/* Byte for byte the reference writer's file: tests/golden/make_safetensors.py. */
static void canonical(void **state)
{
	(void)state;
	struct st_entry t[] = {
		entry("w", "F16", 1, 2, 0),       entry("b", "F32", 1, 1, 0),      entry("model.z", "BF16", 2, 2, 3),
		entry("model.a", "BF16", 2, 1, 2), entry("scalar", "I64", 0, 0, 0), entry("empty", "F32", 2, 0, 7),
		entry("q\"\\\xc3\xa9/", "U8", 1, 3, 0), entry("flag", "BOOL", 1, 1, 0),
	};
	enum { N = sizeof t / sizeof *t };
	static const struct fact meta = { "format", "pt" };
	struct strbuf out = { 0 };
	struct mapped golden;
	assert_int_equal(st_layout(t, N, &e), ERR_OK);
	assert_int_equal(st_header(&out, &(struct st_listing){ t, N, &meta, 1 }, 8, &e), ERR_OK);
	for (uint64_t i = 0; i < t[N - 1].end; i++) /* the script fills the buffer with 1, 2, 3 ... */
		strbuf_putc(&out, (char)(i + 1));
	if (mapped_open(&golden, "tests/golden/safetensors/canonical.safetensors", &e))
		fail_msg("%s", e.message);
	assert_int_equal(out.len, golden.size);
	assert_memory_equal(out.data, golden.data, golden.size);
	struct st_file f;
	assert_int_equal(st_parse(&f, golden.data, golden.size, &e), ERR_OK);
	assert_int_equal(f.count, N);
	st_release(&f);
	mapped_close(&golden);
	strbuf_release(&out);
}

static void header_alignment(void **state)
{
	(void)state;
	struct st_entry t = entry("x", "U8", 1, 3, 0);
	for (uint64_t align = 1; align <= 64; align *= 2) {
		struct strbuf out = { 0 };
		assert_int_equal(st_layout(&t, 1, &e), ERR_OK);
		assert_int_equal(st_header(&out, &(struct st_listing){ &t, 1, NULL, 0 }, align, &e), ERR_OK);
		assert_int_equal(out.len % align, 0);
		assert_null(strstr(out.data + 8, "__metadata__"));
		strbuf_add(&out, "abc", 3);
		struct st_file f;
		assert_int_equal(st_parse(&f, (const uint8_t *)out.data, out.len, &e), ERR_OK);
		assert_memory_equal(f.data, "abc", 3);
		st_release(&f);
		strbuf_release(&out);
	}
	struct st_entry big[] = { entry("a", "U8", 1, UINT64_MAX / 8, 0), entry("b", "U8", 1, UINT64_MAX / 8, 0), entry("c", "U64", 1, UINT64_MAX, 0) };
	assert_int_equal(st_layout(big, 3, &e), ERR_INPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses),      cmocka_unit_test(refuses_lengths), cmocka_unit_test(refuses_every_cut),
		cmocka_unit_test(deep_nesting), cmocka_unit_test(reads),           cmocka_unit_test(many_tensors),
		cmocka_unit_test(canonical),    cmocka_unit_test(header_alignment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
