#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "formats/file.h"
#include "formats/gguf.h"
#include "formats/imatrix.h"

static struct err e;

static struct imatrix golden(const char *path)
{
	struct strbuf b = { 0 };
	struct imatrix m;
	assert_int_equal(file_read(path, &b, 0, &e), ERR_OK);
	if (imatrix_parse(&m, b.data, b.len, &e))
		fail_msg("%s", e.message);
	strbuf_release(&b);
	return m;
}

static void reads_the_gguf_form(void **state)
{
	(void)state;
	struct imatrix m = golden("tests/golden/stats/tiny.gguf");
	assert_int_equal(m.count, 2);
	assert_int_equal(m.chunk_count, 2);
	assert_int_equal(m.chunk_size, 4);
	assert_int_equal(m.dataset_count, 2);
	assert_string_equal(m.datasets[1], "b.txt");
	assert_string_equal(m.entries[0].name, "blk.0.attn_q.weight");
	assert_int_equal(m.entries[0].n, 3);
	assert_true(m.entries[0].sum_squares[2] == 2 && m.entries[0].counts[0] == 8);
	assert_int_equal(m.entries[1].mats, 2);
	assert_true(m.entries[1].sum_squares[5] == 5 && m.entries[1].counts[1] == 8);
	imatrix_release(&m);
}

static void reads_the_older_form(void **state)
{
	(void)state;
	struct imatrix m = golden("tests/golden/stats/tiny.dat");
	assert_int_equal(m.count, 2);
	assert_int_equal(m.chunk_count, 2);
	assert_string_equal(m.datasets[0], "a.txt");
	/* stored values are means times calls */
	assert_true(m.entries[0].sum_squares[2] / m.entries[0].counts[0] == 2);
	/* zero calls: the value is the mean */
	assert_true(m.entries[1].sum_squares[1] / m.entries[1].counts[0] == 2);
	imatrix_release(&m);
}

static void writes_what_it_reads(void **state)
{
	(void)state;
	struct imatrix m = golden("tests/golden/stats/tiny.gguf"), again;
	struct strbuf out = { 0 };
	assert_int_equal(imatrix_print_gguf(&m, &out, &e), ERR_OK);
	assert_int_equal(imatrix_parse(&again, out.data, out.len, &e), ERR_OK);
	assert_int_equal(again.count, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct imatrix_entry *a = &m.entries[i], *b = &again.entries[i];
		assert_string_equal(a->name, b->name);
		assert_int_equal(a->mats, b->mats);
		assert_memory_equal(a->sum_squares, b->sum_squares, a->n * a->mats * sizeof(float));
		assert_memory_equal(a->counts, b->counts, a->mats * sizeof(float));
	}
	imatrix_release(&again);
	strbuf_clear(&out);
	assert_int_equal(imatrix_print_dat(&m, &out, &e), ERR_OK);
	assert_int_equal(imatrix_parse(&again, out.data, out.len, &e), ERR_OK);
	/* 8 tokens in chunks of 4 are two calls; the mean stays */
	assert_true(again.entries[0].counts[0] == 2);
	assert_true(again.entries[0].sum_squares[2] / 2 == m.entries[0].sum_squares[2] / 8);
	imatrix_release(&again);
	strbuf_release(&out);
	imatrix_release(&m);
}

static const struct hostile {
	const char *what, *bytes;
	size_t size;
	const char *fragment;
} hostile[] = {
	{ "nothing", "", 0, "neither" },
	{ "three bytes", "\1\0\0", 3, "neither" },
	{ "no entries", "\0\0\0\0", 4, "neither" },
	{ "minus one entry", "\377\377\377\377", 4, "neither" },
	{ "a billion entries", "\0\312\232\073aaaaaaaaaaaaaaaaaaaaaaaaaa", 30, "neither" },
	{ "name of no length", "\1\0\0\0" "\0\0\0\0" "\1\0\0\0\1\0\0\0\0\0\200\077xxxx", 24, "no valid name" },
	{ "name of negative length", "\1\0\0\0" "\377\377\377\377" "\1\0\0\0\1\0\0\0\0\0\200\077", 20, "no valid name" },
	{ "name beyond the end", "\1\0\0\0" "\377\377\377\177" "\1\0\0\0\1\0\0\0\0\0\200\077", 20, "no valid name" },
	{ "control character in a name", "\1\0\0\0" "\1\0\0\0\033" "\1\0\0\0\1\0\0\0\0\0\200\077", 21, "no valid name" },
	{ "name that is not UTF-8", "\1\0\0\0" "\1\0\0\0\377" "\1\0\0\0\1\0\0\0\0\0\200\077", 21, "no valid name" },
	{ "no values", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\0\0\0\0\0\0\200\077", 21, "do not fit" },
	{ "negative values", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\377\377\377\377\0\0\200\077", 21, "do not fit" },
	{ "too many values", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\2\0\0\0\0\0\200\077", 21, "do not fit" },
	{ "2^31 - 1 values", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\377\377\377\177\0\0\200\077", 21, "do not fit" },
	{ "NaN", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\300\177", 21, "channel 0 is NaN" },
	{ "infinity", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\177", 21, "channel 0 is infinite" },
	{ "negative", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\277", 21, "channel 0 is negative" },
	{ "one entry of two", "\2\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\077" "\1\0\0\0b\1\0\0\0\1\0\0\0", 34, "do not fit" },
	{ "an entry twice", "\2\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\077" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\077", 38, "appears twice" },
	{ "bytes behind", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\077" "xyz", 24, "bytes after" },
	{ "text name too long", "\1\0\0\0" "\1\0\0\0a" "\1\0\0\0\1\0\0\0\0\0\200\077" "\1\0\0\0\5\0\0\0abc", 32, "bytes after" },
	{ "GGUF and nothing", "GGUF", 4, "" },
};

static void refuses_hostile_files(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		const struct hostile *h = &hostile[i];
		struct imatrix m;
		uint8_t *exact = malloc(h->size ? h->size : 1);
		assert_non_null(exact);
		memcpy(exact, h->bytes, h->size);
		int rc = imatrix_parse(&m, exact, h->size, &e);
		free(exact);
		if (rc != ERR_INPUT || !strstr(e.message, h->fragment))
			fail_msg("%s: code %d, '%s'", h->what, rc, rc ? e.message : "");
	}
}

/* A GGUF file with one pair of tensors of these shapes. */
static void make(struct strbuf *out, const char *type, const char *sums, uint64_t n, const char *counts, uint64_t mats)
{
	struct gguf_writer w = { 0 };
	uint64_t at;
	const struct codec *f32 = codec_find("f32");
	gguf_put_string(&w, "general.type", type, strlen(type));
	assert_int_equal(gguf_add_tensor(&w, &(struct tensor){ .name = sums, .codec = f32, .ndim = 2, .dim = { 1, n } }, &at, &e), ERR_OK);
	if (counts)
		assert_int_equal(gguf_add_tensor(&w, &(struct tensor){ .name = counts, .codec = f32, .ndim = 2, .dim = { mats, 1 } }, &at, &e), ERR_OK);
	assert_int_equal(gguf_header(&w, out, &e), ERR_OK);
	for (uint64_t i = 0; i < w.data_bytes; i++)
		strbuf_putc(out, 0);
	gguf_writer_release(&w);
}

static void refuses_gguf_files_that_are_something_else(void **state)
{
	(void)state;
	static const struct {
		const char *type, *sums, *counts;
		uint64_t n, mats;
		const char *fragment;
	} row[] = {
		{ "model", "a.in_sum2", "a.counts", 4, 1, "not an importance matrix" },
		{ "imatrix", "a.in_sum2", NULL, 4, 1, "no counts" },
		{ "imatrix", "a.in_sum2", "b.counts", 4, 1, "no counts" },
		{ "imatrix", "a.in_sum2", "a.counts", 4, 2, "another number of counts" },
		{ "imatrix", "a.weight", "a.counts", 4, 1, "does not belong" },
		{ "imatrix", "a.counts", NULL, 4, 1, "no entries" },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct strbuf b = { 0 };
		struct imatrix m;
		make(&b, row[i].type, row[i].sums, row[i].n, row[i].counts, row[i].mats);
		int rc = imatrix_parse(&m, b.data, b.len, &e);
		strbuf_release(&b);
		if (rc != ERR_INPUT || !strstr(e.message, row[i].fragment))
			fail_msg("row %zu: code %d, '%s'", i, rc, rc ? e.message : "");
	}
}

static void every_truncation_is_refused(void **state)
{
	(void)state;
	static const char *const paths[] = { "tests/golden/stats/tiny.gguf", "tests/golden/stats/tiny.dat" };
	for (int k = 0; k < 2; k++) {
		struct strbuf b = { 0 };
		assert_int_equal(file_read(paths[k], &b, 0, &e), ERR_OK);
		for (size_t n = 0; n < b.len; n++) {
			struct imatrix m;
			uint8_t *exact = malloc(n ? n : 1);
			assert_non_null(exact);
			memcpy(exact, b.data, n);
			/* without its optional tail, or the padding behind its last tensor, a file is whole */
			if (!imatrix_parse(&m, exact, n, &e)) {
				assert_true(n + 32 >= b.len);
				imatrix_release(&m);
			}
			free(exact);
		}
		strbuf_release(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_gguf_form),
		cmocka_unit_test(reads_the_older_form),
		cmocka_unit_test(writes_what_it_reads),
		cmocka_unit_test(refuses_hostile_files),
		cmocka_unit_test(refuses_gguf_files_that_are_something_else),
		cmocka_unit_test(every_truncation_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
