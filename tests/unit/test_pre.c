/* Pre-tokenizers by name: the cuts of llama.cpp and `tokenizers` (tests/golden/make_pre.py), and names found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/file.h"
#include "text/pre_known.h"
#include "text/tokenizer.h"

#define DIR "tests/golden/pre/"

static struct err e;

static char *slurp(const char *path)
{
	struct strbuf b = { 0 };
	if (file_read(path, &b, 0, &e))
		fail_msg("%s", e.message);
	return b.data;
}

/* The small vocabulary under a pre-tokenizer, given as JSON. */
static struct tokenizer *with_pre(const char *pre, const char *normalizer)
{
	char *base = slurp(DIR "base.json"), *rest = strchr(base, '{');
	struct strbuf json = { 0 };
	struct tokenizer *t = NULL;
	strbuf_printf(&json, "{\"pre_tokenizer\":%s,", pre);
	char *old = strstr(rest, "\"normalizer\":null");
	assert_non_null(old);
	strbuf_add(&json, rest + 1, (size_t)(old - rest - 1));
	strbuf_printf(&json, "\"normalizer\":%s%s", normalizer, old + strlen("\"normalizer\":null"));
	struct tokenizer_files f = { .json = json.data, .json_len = json.len };
	if (tokenizer_open(&f, &t, &e))
		fail_msg("%s: %s", pre, e.message);
	strbuf_release(&json);
	free(base);
	return t;
}

static void check_ids(const char *name, const char *who, const char *want)
{
	const struct pre_known *row = pre_known_find(name);
	struct strbuf pre = { 0 }, got = { 0 };
	struct json_writer w = { .out = &pre };
	struct token_ids ids = { 0 };
	struct pre_match m;
	if (!row)
		fail_msg("%s is not known", name);
	pre_known_json(&w, NULL, row->parts, false);
	struct tokenizer *t = with_pre(pre.data, "null");
	char *text = slurp(DIR "text.txt");
	assert_int_equal(tokenizer_encode(t, text, strlen(text), false, &ids, &e), 0);
	for (size_t i = 0; i < ids.count; i++)
		strbuf_printf(&got, i ? " %d" : "%d", (int)ids.id[i]);
	if (strcmp(got.data, want))
		fail_msg("%s: not the ids of %s\n%s\n%s", name, who, got.data, want);
	assert_int_equal(tokenizer_pre(t, &m, &e), 0);
	assert_non_null(m.known);
	assert_true(m.known->parts == row->parts);
	assert_false(m.probed || m.prefix_space || m.unreachable);
	tokenizer_close(t);
	free(text);
	token_ids_release(&ids);
	strbuf_release(&pre);
	strbuf_release(&got);
}

static void every_name(void **state)
{
	(void)state;
	char *all = slurp(DIR "names.tsv"), *line_end, *word_end;
	size_t count = 0;
	for (char *line = strtok_r(all, "\n", &line_end); line; line = strtok_r(NULL, "\n", &line_end)) {
		char *names = strchr(line, '\t'), *ids = names ? strchr(names + 1, '\t') : NULL;
		assert_non_null(ids);
		*names++ = *ids++ = '\0';
		for (char *name = strtok_r(names, " ", &word_end); name; name = strtok_r(NULL, " ", &word_end), count++)
			check_ids(name, line, ids);
	}
	assert_non_null(pre_known_row(count - 1));
	assert_null(pre_known_row(count)); /* no row without golden ids */
	free(all);
}

#define SPLIT(re, behavior, invert) \
	"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" re "\"},\"behavior\":\"" behavior "\",\"invert\":" invert "}"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define WORDS(prefix) "{\"type\":\"ByteLevel\",\"add_prefix_space\":" prefix ",\"trim_offsets\":true,\"use_regex\":true}"
#define ALONE(a)      "{\"type\":\"Sequence\",\"pretokenizers\":[" a "]}"
#define BOTH(a, b)    ALONE(a "," b)
#define CL100K "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define TIKTOKEN "'(?i:[sdmt]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}++|\\\\p{N}{1,3}+| ?[^\\\\s\\\\p{L}\\\\p{N}]++[\\\\r\\\\n]*+|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"

/* Other spellings of the same cuts have the name, other cuts have none. */
static void spellings(void **state)
{
	(void)state;
	static const struct {
		const char *pre, *name;
		bool probed, prefix;
	} want[] = {
		{ BOTH(SPLIT(CL100K, "Isolated", "false"), BYTES), "llama-bpe", false, false },
		{ BOTH(SPLIT(CL100K, "Removed", "true"), BYTES), "llama-bpe", true, false },
		{ BOTH(ALONE(SPLIT(CL100K, "Isolated", "false")), BYTES), "llama-bpe", false, false },
		{ BOTH(SPLIT("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
				 "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+", "Isolated", "false"), BYTES), "qwen2", true, false },
		{ BOTH(SPLIT(TIKTOKEN "+", "Isolated", "false"), BYTES), NULL, false, false }, /* {1,3}+ repeats in Oniguruma */
		{ BOTH(SPLIT(GPT2, "Isolated", "false"), BYTES), "gpt-2", true, false },
		{ BOTH("{\"type\":\"Digits\",\"individual_digits\":true}", BOTH(SPLIT(GPT2, "Isolated", "false"), BYTES)), "smollm", true, false },
		{ BOTH(SPLIT("\\\\p{N}", "Isolated", "false"), WORDS("false")), "smollm", true, false },
		{ WORDS("false"), "gpt-2", false, false },
		{ WORDS("true"), "gpt-2", false, true },
		{ BOTH(SPLIT(CL100K, "Isolated", "false"), WORDS("true")), NULL, false, false },
		{ BOTH(SPLIT(CL100K, "Contiguous", "false"), BYTES), NULL, false, false },
		{ BOTH(SPLIT("\\\\p{N}{1,2}", "Isolated", "false"), WORDS("false")), NULL, false, false },
		{ BOTH("{\"type\":\"Digits\",\"individual_digits\":false}", WORDS("false")), NULL, false, false },
		{ BOTH("{\"type\":\"WhitespaceSplit\"}", BYTES), NULL, false, false },
		{ ALONE(BYTES), NULL, false, false },
	};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct tokenizer *t = with_pre(want[i].pre, "null");
		struct pre_match m;
		assert_int_equal(tokenizer_pre(t, &m, &e), 0);
		if (strcmp(m.known ? m.known->name : "(none)", want[i].name ? want[i].name : "(none)"))
			fail_msg("%s: %s, want %s", want[i].pre, m.known ? m.known->name : "none", want[i].name ? want[i].name : "none");
		assert_int_equal(m.probed, want[i].probed);
		assert_int_equal(m.known && m.prefix_space, want[i].prefix);
		tokenizer_close(t);
	}
}

static void normalizers(void **state)
{
	(void)state;
	struct strbuf json = { 0 }, types = { 0 };
	struct tokenizer *t = with_pre(WORDS("false"), "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"}]}");
	assert_true(tokenizer_normalizer(t, &json));
	tokenizer_normalizer_types(t, &types);
	assert_string_equal(types.data, "NFKC, Lowercase");
	assert_non_null(strstr(json.data, "\"normalizers\":["));
	tokenizer_close(t);
	t = with_pre(WORDS("false"), "null");
	assert_false(tokenizer_normalizer(t, &json));
	tokenizer_close(t);
	strbuf_release(&json);
	strbuf_release(&types);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_name),
		cmocka_unit_test(spellings),
		cmocka_unit_test(normalizers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
