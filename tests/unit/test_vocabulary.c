/*
 * Vocabularies with special tokens in all places (tests/golden/make_vocabulary.py): through every container, ids are
 * those of llama.cpp, and the lists of a GGUF come back as they were.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "formats/file.h"
#include "formats/gguf.h"
#include "formats/proof_tokenizer.h"
#include "scratch.h"

#define DIR "tests/golden/vocabulary/"

static struct err e;

static struct checkpoint *open_ok(const char *path)
{
	struct checkpoint *c;
	if (checkpoint_open(path, &c, &e))
		fail_msg("%s", e.message);
	return c;
}

static struct tokenizer *tokenizer_of(const char *path)
{
	struct checkpoint *c = open_ok(path);
	struct tokenizer *t;
	if (checkpoint_tokenizer(c, &t, &e))
		fail_msg("%s", e.message);
	checkpoint_close(c);
	return t;
}

static void convert(const char *from, const char *to)
{
	char command[1000];
	const char *build = getenv("B");
	snprintf(command, sizeof command, "%s/bin/quire convert -q '%s' -o '%s'", build ? build : "build", from, to);
	if (system(command))
		fail_msg("%s", command);
}

/* Lines of a text in hex, a tab, and its ids. */
static void same_ids(const struct tokenizer *t, const char *tsv, const char *where)
{
	struct strbuf lines = { 0 }, ids = { 0 };
	assert_int_equal(file_read(tsv, &lines, 0, &e), 0);
	for (char *line = lines.data, *end; (end = strchr(line, '\n')); line = end + 1) {
		char text[200], *tab = strchr(line, '\t');
		size_t n = 0;
		struct token_ids got = { 0 };
		*end = '\0';
		for (; line + 2 * n < tab; n++) {
			unsigned byte;
			sscanf(line + 2 * n, "%2x", &byte);
			text[n] = (char)byte;
		}
		assert_int_equal(tokenizer_encode(t, text, n, true, &got, &e), 0);
		strbuf_clear(&ids);
		for (size_t i = 0; i < got.count; i++)
			strbuf_printf(&ids, "%s%d", i ? " " : "", (int)got.id[i]);
		if (strcmp(ids.data ? ids.data : "", tab + 1))
			fail_msg("%s: '%.*s' is %s, not %s", where, (int)n, text, ids.data, tab + 1);
		token_ids_release(&got);
	}
	strbuf_release(&ids);
	strbuf_release(&lines);
}

/* Every key of the first file's vocabulary has the same bytes in the second. */
static void same_lists(const char *a, const char *b, const char *where)
{
	struct mapped x, y;
	struct gguf g = { 0 }, h = { 0 };
	if (mapped_open(&x, a, &e) || mapped_open(&y, b, &e) || gguf_parse(&g, x.data, x.size, &e) || gguf_parse(&h, y.data, y.size, &e))
		fail_msg("%s", e.message);
	size_t compared = 0;
	for (size_t i = 0; i < g.kv_count; i++) {
		const struct gguf_kv *one = &g.kv[i], *other = gguf_find(&h, one->key);
		uint64_t u, v;
		if (strncmp(one->key, "tokenizer.ggml.", 15) || !strcmp(one->key, "tokenizer.ggml.pre"))
			continue;
		if (!other || one->type != other->type || one->elem != other->elem || one->count != other->count)
			fail_msg("%s: %s is another", where, one->key);
		if (gguf_uint(one, 0, &u) && (!gguf_uint(other, 0, &v) || u != v))
			fail_msg("%s: %s is another", where, one->key);
		for (uint64_t k = 0; one->type == GGUF_ARRAY && one->elem != GGUF_STRING && k < one->count; k++) {
			double p = 0, q = 1;
			if (gguf_uint(one, k, &u) ? !gguf_uint(other, k, &v) || u != v : !gguf_float(one, k, &p) || !gguf_float(other, k, &q) || p != q)
				fail_msg("%s: %s differs at %d", where, one->key, (int)k);
		}
		struct cursor c = gguf_strings(one), d = gguf_strings(other);
		const char *s, *t;
		size_t n, m;
		while (one->elem == GGUF_STRING && gguf_next_string(&c, &s, &n))
			if (!gguf_next_string(&d, &t, &m) || n != m || memcmp(s, t, n))
				fail_msg("%s: %s: '%.*s' is another", where, one->key, (int)n, s);
		compared++;
	}
	assert_true(compared >= 8);
	gguf_release(&g);
	gguf_release(&h);
	mapped_close(&x);
	mapped_close(&y);
}

static void every_container(void **state)
{
	char gguf[200], tsv[200];
	static const char *const ways[][3] = { { "b.gguf" }, { "c.quire", "c.gguf" }, { "folder", "d.gguf" }, { "e.quire", "folder2", "f.gguf" } };
	snprintf(gguf, sizeof gguf, DIR "%s.gguf", (const char *)*state);
	snprintf(tsv, sizeof tsv, DIR "%s.tsv", (const char *)*state);
	struct tokenizer *t = tokenizer_of(gguf);
	same_ids(t, tsv, gguf);
	tokenizer_close(t);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		char from[300], to[300];
		snprintf(from, sizeof from, "%s", gguf);
		for (size_t k = 0; k < 3 && ways[i][k]; k++) {
			snprintf(to, sizeof to, "%s/%s-%s", scratch_dir, (const char *)*state, ways[i][k]);
			convert(from, to);
			t = tokenizer_of(to);
			same_ids(t, tsv, to);
			tokenizer_close(t);
			strcpy(from, to);
		}
		same_lists(gguf, from, from);
	}
}

/* What the proof is there for: another type, another text, another id in what was written. */
static void proof_sees(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to;
	} edits[] = {
		{ "\"unused\": [", "\"normal\": [" }, { "\"[INST]\": 4", "\"[INSX]\": 4" }, { "\"fim_pre\": 4", "\"fim_pre\": 5" },
		{ "\"eos\": 1", "\"eos\": 0" },
	};
	struct checkpoint *c = open_ok(DIR "bpe.gguf");
	struct proof_tokens said;
	char folder[200], path[300];
	for (size_t i = 0; i <= sizeof edits / sizeof *edits; i++) {
		bool edited = false;
		snprintf(folder, sizeof folder, "%s/proof%d", scratch_dir, (int)i);
		convert(DIR "bpe.gguf", folder);
		for (int file = 0; file < 2 && i < sizeof edits / sizeof *edits; file++) {
			struct strbuf text = { 0 };
			snprintf(path, sizeof path, "%s/%s", folder, file ? "tokenizer.json" : "tokenizer_config.json");
			assert_int_equal(file_read(path, &text, 0, &e), 0);
			char squeezed[40];
			size_t n = 0;
			for (const char *s = edits[i].from; *s; s++)
				if (!file || *s != ' ')
					squeezed[n++] = *s;
			squeezed[n] = '\0';
			char *at = strstr(text.data, squeezed);
			if (at) {
				FILE *f = fopen(path, "w");
				fwrite(text.data, 1, (size_t)(at - text.data), f);
				fputs(edits[i].to, f);
				fputs(at + n, f);
				fclose(f);
				edited = true;
			}
			strbuf_release(&text);
		}
		int rc = proof_tokenizer(c, folder, &said, &e);
		if (i < sizeof edits / sizeof *edits) {
			if (!edited || rc != ERR_IO)
				fail_msg("edit %d: %d, status %d", (int)i, edited, rc);
		} else {
			assert_int_equal(rc, 0);
			assert_int_equal(said.differ, 0);
			assert_true(said.tokens > 300 && said.strings > 300);
		}
	}
	checkpoint_close(c);
}

int main(void)
{
	static char bpe[] = "bpe", spm[] = "spm", bare[] = "spm-bare";
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(every_container, bpe), cmocka_unit_test_prestate(every_container, spm),
		cmocka_unit_test_prestate(every_container, bare), cmocka_unit_test(proof_sees),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
