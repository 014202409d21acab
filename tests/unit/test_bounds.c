/* What a small tokenizer file must not make large: each limit, from both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "text/tokenizer_parts.h"

/* A byte-level vocabulary of a few letters around the parts that a test is about. */
static int open_parts(struct strbuf *parts, struct tokenizer **t, struct err *e)
{
	struct strbuf json = { 0 };
	strbuf_printf(&json, "{%s\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3,\" \":4},"
			     "\"merges\":[\"a b\"]}}", parts->data);
	struct tokenizer_files f = { .json = json.data, .json_len = json.len };
	int rc = tokenizer_open(&f, t, e);
	strbuf_release(&json);
	strbuf_release(parts);
	return rc;
}

static void repeat(struct strbuf *b, const char *one, const char *between, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		strbuf_puts(b, i ? between : "");
		strbuf_puts(b, one);
	}
}

static void refused(struct strbuf *parts, const char *why)
{
	struct tokenizer *t;
	struct err e;
	assert_int_equal(open_parts(parts, &t, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, why));
}

static void encodes(struct strbuf *parts, const char *text, size_t ids_wanted, const char *why)
{
	struct tokenizer *t;
	struct err e = { 0 };
	struct token_ids ids = { 0 };
	assert_int_equal(open_parts(parts, &t, &e), 0);
	int rc = tokenizer_encode(t, text, strlen(text), true, &ids, &e);
	assert_int_equal(rc, why ? ERR_INPUT : 0);
	if (why)
		assert_non_null(strstr(e.message, why));
	else
		assert_int_equal(ids.count, ids_wanted);
	token_ids_release(&ids);
	tokenizer_close(t);
}

static void template_of(struct strbuf *b, size_t parts, size_t ids)
{
	strbuf_puts(b, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
	repeat(b, "{\"SpecialToken\":{\"id\":\"s\",\"type_id\":0}}", ",", parts);
	strbuf_puts(b, ",{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"s\":{\"id\":\"s\",\"ids\":[");
	repeat(b, "1", ",", ids);
	strbuf_puts(b, "]}}},");
}

static void templates(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	template_of(&b, 1000, 1);
	encodes(&b, "b", 1001, NULL);
	template_of(&b, 40000, 1);
	refused(&b, "more than 1024 tokens");
	template_of(&b, 100, 100);
	refused(&b, "more than 1024 tokens");
	strbuf_puts(&b, "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[");
	repeat(&b, "{\"type\":\"BertProcessing\",\"cls\":[\"a\",1],\"sep\":[\"b\",2]}", ",", 600);
	strbuf_puts(&b, "]},");
	refused(&b, "more than 1024 tokens");
}

static void steps(void **state)
{
	(void)state;
	static const char *const lists[][3] = {
		{ "normalizer", "normalizers", "{\"type\":\"NFC\"}" },
		{ "pre_tokenizer", "pretokenizers", "{\"type\":\"WhitespaceSplit\"}" },
		{ "decoder", "decoders", "{\"type\":\"Fuse\"}" },
	};
	struct strbuf b = { 0 };
	for (int i = 0; i < 3; i++)
		for (int many = 0; many < 2; many++) {
			strbuf_printf(&b, "\"%s\":{\"type\":\"Sequence\",\"%s\":[", lists[i][0], lists[i][1]);
			repeat(&b, lists[i][2], ",", many ? 1000 : 999);
			strbuf_puts(&b, "]},");
			if (many)
				refused(&b, "the limit is 1000");
			else
				encodes(&b, "ab", 1, NULL);
		}
}

static void replacing(struct strbuf *b, const char *part, const char *list, size_t content, size_t times)
{
	struct strbuf one = { 0 };
	strbuf_puts(&one, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"");
	repeat(&one, "a", "", content);
	strbuf_puts(&one, "\"}");
	strbuf_printf(b, "\"%s\":{\"type\":\"Sequence\",\"%s\":[", part, list);
	repeat(b, one.data, ",", times);
	strbuf_puts(b, "]},");
	strbuf_release(&one);
}

static void growth(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	replacing(&b, "normalizer", "normalizers", 100, 1);
	encodes(&b, "aaa", 300, NULL);
	replacing(&b, "normalizer", "normalizers", 100, 8);
	encodes(&b, "aaa", 0, "the normalizer of the tokenizer makes more than 1792 bytes of a text of 3");
	replacing(&b, "normalizer", "normalizers", 100000, 1);
	encodes(&b, "aaa", 0, "the normalizer of the tokenizer makes more than");
	/* added tokens are normalized when the file is read */
	strbuf_puts(&b, "\"added_tokens\":[{\"content\":\"aa\",\"normalized\":true}],");
	replacing(&b, "normalizer", "normalizers", 100, 8);
	refused(&b, "the normalizer of the tokenizer makes more than");
	strbuf_puts(&b, "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
	repeat(&b, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", ",", 60);
	strbuf_puts(&b, "]},");
	encodes(&b, " ", 0, "the pre-tokenizer of the tokenizer makes more than");
	for (int times = 1; times < 9; times += 7) {
		struct tokenizer *t;
		struct strbuf out = { 0 };
		struct err e;
		replacing(&b, "decoder", "decoders", 100, (size_t)times);
		assert_int_equal(open_parts(&b, &t, &e), 0);
		assert_int_equal(tokenizer_decode(t, (int32_t[]){ 1, 2 }, 2, false, &out, &e), times == 1 ? 0 : ERR_INPUT);
		if (times == 1)
			assert_int_equal(out.len, 101);
		else
			assert_non_null(strstr(e.message, "the decoder of the tokenizer makes more than"));
		strbuf_release(&out);
		tokenizer_close(t);
	}
}

static void split_by(struct strbuf *b, const char *regex, size_t times)
{
	strbuf_puts(b, "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":\"");
	repeat(b, regex, "", times);
	strbuf_puts(b, "\"}},");
}

static void patterns(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	split_by(&b, "(x+x+)+y|.", 1);
	encodes(&b, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0, "match limit exceeded");
	split_by(&b, "a", 70000);
	refused(&b, "a pattern of 70000 bytes; the limit is 65536");
	split_by(&b, "(?:(?:(?:a{1,60}){1,60}){1,60}){1,60}", 1);
	refused(&b, "too large");
}

static void vocabularies(void **state)
{
	(void)state;
	struct tokenizer *t;
	struct err e;
	struct strbuf b = { 0 };
	static const char far[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":9999999},\"merges\":[]}}";
	struct tokenizer_files f = { .json = far, .json_len = sizeof far - 1 };
	assert_int_equal(tokenizer_open(&f, &t, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "out of range"));
	/* a merge of nothing but spaces is not tried at every cut */
	strbuf_puts(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\" \":0},\"merges\":[\"");
	repeat(&b, " ", "", 1000000);
	strbuf_puts(&b, "\"]}}");
	f = (struct tokenizer_files){ .json = b.data, .json_len = b.len };
	assert_int_equal(tokenizer_open(&f, &t, &e), ERR_INPUT);
	strbuf_clear(&b);
	strbuf_puts(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"");
	repeat(&b, "w", "", 100);
	strbuf_puts(&b, "\"}}");
	f = (struct tokenizer_files){ .json = b.data, .json_len = b.len };
	assert_int_equal(tokenizer_open(&f, &t, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "more than 64 bytes"));
	strbuf_release(&b);
}

/* Patterns become machine code on the way; what they match must not depend on it. */
static void long_texts(void **state)
{
	(void)state;
	static const char text[] = "ab abba  b a\tab";
	struct strbuf b = { 0 }, long_text = { 0 };
	struct tokenizer *t;
	struct err e;
	struct token_ids before = { 0 }, after = { 0 }, all = { 0 };
	split_by(&b, "a[^ ]|\\\\s+(?!\\\\S)|.", 1);
	assert_int_equal(open_parts(&b, &t, &e), 0);
	assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, true, &before, &e), 0);
	repeat(&long_text, text, "", 1000);
	assert_int_equal(tokenizer_encode(t, long_text.data, long_text.len, true, &all, &e), 0);
	assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, true, &after, &e), 0);
	assert_int_equal(before.count, after.count);
	assert_memory_equal(before.id, after.id, before.count * sizeof *before.id);
	assert_int_equal(all.count, 1000 * before.count);
	assert_memory_equal(all.id + 999 * before.count, before.id, before.count * sizeof *before.id);
	token_ids_release(&before);
	token_ids_release(&after);
	token_ids_release(&all);
	strbuf_release(&long_text);
	tokenizer_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(templates), cmocka_unit_test(steps), cmocka_unit_test(growth), cmocka_unit_test(patterns),
		cmocka_unit_test(vocabularies), cmocka_unit_test(long_texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
