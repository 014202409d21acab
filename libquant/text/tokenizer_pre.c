/* Pre-tokenizers. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

/* ---- GPT-2's byte alphabet ---- */

static bool printable(int b)
{
	return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

/* The others follow in order from U+0100: 0 to 32, 127 to 160, 173. */
static uint32_t byte_level_code(unsigned char b)
{
	return printable(b) ? b : b <= 32 ? 256u + b : b <= 160 ? 256u + 33 + (b - 127u) : 256 + 67;
}

int byte_level_byte(uint32_t code)
{
	if (code < 256)
		return printable((int)code) ? (int)code : -1;
	for (int b = 0; b < 256 && code <= 256 + 67; b++)
		if (byte_level_code((unsigned char)b) == code)
			return b;
	return -1;
}

void byte_level_encode(const char *s, size_t n, struct strbuf *out)
{
	char chunk[512];
	size_t used = 0;
	for (size_t i = 0; i < n; i++) {
		used += utf8_encode(byte_level_code((unsigned char)s[i]), chunk + used);
		if (used > sizeof chunk - 4) {
			strbuf_add(out, chunk, used);
			used = 0;
		}
	}
	strbuf_add(out, chunk, used);
}

/* ---- what to do with the matches ---- */

/* Joins a span to the one before it in place; `at` is the spans written so far. */
static void keep(struct spans *s, size_t *at, struct span one, bool join)
{
	if (join && *at > 0)
		s->at[*at - 1].end = one.end;
	else
		s->at[(*at)++] = one;
}

static void merge_forward(struct spans *s, bool contiguous)
{
	bool previous = false;
	size_t at = 0;
	for (size_t i = 0; i < s->count; i++) {
		struct span one = s->at[i];
		keep(s, &at, one, contiguous ? one.match == previous : one.match && !previous);
		previous = one.match;
	}
	s->count = at;
}

static void merge_with_next(struct spans *s)
{
	bool previous = false;
	size_t at = s->count;
	for (size_t i = s->count; i-- > 0;) {
		struct span one = s->at[i];
		if (one.match && !previous && at < s->count)
			s->at[at].start = one.start;
		else
			s->at[--at] = one;
		previous = one.match;
	}
	memmove(s->at, s->at + at, (s->count - at) * sizeof *s->at);
	s->count -= at;
}

static void emit_spans(struct spans *s, enum split_behavior behavior, bool invert, const struct split *from, struct splits *out)
{
	for (size_t i = 0; i < s->count && invert; i++)
		s->at[i].match = !s->at[i].match;
	if (behavior == SPLIT_CONTIGUOUS || behavior == SPLIT_PREVIOUS)
		merge_forward(s, behavior == SPLIT_CONTIGUOUS);
	else if (behavior == SPLIT_NEXT)
		merge_with_next(s);
	for (size_t i = 0; i < s->count; i++) {
		const struct span *p = &s->at[i];
		if (behavior == SPLIT_REMOVED && p->match)
			continue;
		splits_add(out, (struct split){ from->start + p->start, p->end - p->start, NO_TOKEN, from->first && p->start == 0 });
	}
}

/* The spans of one split: by the step's pattern, or of characters that pass a test. */
typedef bool char_test(uint32_t c);

static void char_spans(char_test *test, const char *text, size_t len, struct spans *s)
{
	size_t from = 0;
	s->count = 0;
	if (!len)
		spans_add(s, 0, 0, false);
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_length(text[i]);
		if (!test(utf8_code(text + i)))
			continue;
		if (from < i)
			spans_add(s, from, i, false);
		spans_add(s, i, i + n, true);
		from = i + n;
	}
	if (from < len)
		spans_add(s, from, len, false);
}

/* Cuts every split by a pattern or test; the text stays as it is. */
static int cut(struct splits *s, const struct pattern *pattern, char_test *test, enum split_behavior behavior, bool invert, struct err *e)
{
	struct splits out = { 0 };
	struct spans spans = { 0 };
	struct pattern_use use = { 0 };
	int rc = ERR_OK;
	for (size_t i = 0; i < s->count && !rc; i++) {
		const struct split *one = &s->at[i];
		if (one->id >= 0) {
			splits_add(&out, *one);
			continue;
		}
		if (test)
			char_spans(test, s->text.data + one->start, one->len, &spans);
		else
			rc = pattern_spans(pattern, &use, s->text.data + one->start, one->len, &spans, e);
		if (!rc)
			emit_spans(&spans, behavior, invert, one, &out);
	}
	pattern_use_release(&use);
	if (!rc && (out.failed || spans.failed))
		rc = err_nomem(e);
	free(spans.at);
	free(s->at);
	s->at = out.at;
	s->count = out.count;
	s->cap = out.cap;
	return rc;
}

/* Rewrites the text of every split that is not a token. */
static int rewrite(struct splits *s, void (*fn)(const void *arg, const struct split *one, const char *text, struct strbuf *out),
		   const void *arg, struct err *e)
{
	struct strbuf text = { .limit = s->text.limit };
	for (size_t i = 0; i < s->count; i++) {
		struct split *one = &s->at[i];
		size_t start = text.len;
		if (one->id >= 0)
			continue;
		fn(arg, one, s->text.data + one->start, &text);
		one->start = start;
		one->len = text.len - start;
	}
	strbuf_release(&s->text);
	s->text = text;
	return text.failed ? err_nomem(e) : ERR_OK;
}

/* ---- the pre-tokenizers ---- */

static const char *const behaviors[] = {
	[SPLIT_REMOVED] = "Removed",
	[SPLIT_ISOLATED] = "Isolated",
	[SPLIT_PREVIOUS] = "MergedWithPrevious",
	[SPLIT_NEXT] = "MergedWithNext",
	[SPLIT_CONTIGUOUS] = "Contiguous",
};

static int parse_behavior(const struct json *j, struct pre_step *s, struct err *e)
{
	const char *name = json_string(json_get(j, "behavior"));
	for (size_t i = 0; name && i < sizeof behaviors / sizeof behaviors[0]; i++)
		if (strcmp(name, behaviors[i]) == 0) {
			s->behavior = (enum split_behavior)i;
			return ERR_OK;
		}
	return err_set(e, ERR_UNSUPPORTED, "split behavior %.60s is not handled", name ? name : "(none)");
}

static int parse_split(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	size_t len;
	s->invert = part_bool(j, "invert", false);
	int rc = parse_behavior(j, s, e);
	if (!rc)
		rc = part_string(json_get(j, "pattern"), "Regex", a, &s->regex_text, &len, e);
	return rc ? rc : pattern_parse(json_get(j, "pattern"), a, &s->pattern, e);
}

static int apply_split(const struct pre_step *p, struct splits *s, struct err *e)
{
	return cut(s, &p->pattern, NULL, p->behavior, p->invert, e);
}

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static int parse_byte_level(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	(void)a;
	s->prefix_space = part_bool(j, "add_prefix_space", true);
	s->use_regex = part_bool(j, "use_regex", true);
	return s->use_regex ? regex_compile(gpt2_pattern, sizeof gpt2_pattern - 1, &s->pattern.regex, e) : ERR_OK;
}

static void add_space(const void *arg, const struct split *one, const char *text, struct strbuf *out)
{
	(void)arg;
	if (text[0] != ' ')
		strbuf_putc(out, ' ');
	strbuf_add(out, text, one->len);
}

static void to_bytes(const void *arg, const struct split *one, const char *text, struct strbuf *out)
{
	(void)arg;
	byte_level_encode(text, one->len, out);
}

static int apply_byte_level(const struct pre_step *p, struct splits *s, struct err *e)
{
	int rc = p->prefix_space ? rewrite(s, add_space, NULL, e) : ERR_OK;
	if (!rc && p->use_regex)
		rc = cut(s, &p->pattern, NULL, SPLIT_ISOLATED, false, e);
	return rc ? rc : rewrite(s, to_bytes, NULL, e);
}

static int parse_metaspace(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	static const char *const schemes[] = { "never", "first", "always" };
	const char *scheme = json_string(json_get(j, "prepend_scheme"));
	int rc = part_string(j, "replacement", a, &s->text, &s->text_len, e);
	if (rc)
		return rc;
	if (!s->text_len || utf8_length(s->text[0]) != s->text_len)
		return err_set(e, ERR_INPUT, "Metaspace: the replacement is not one character");
	s->prepend = scheme ? -1 : 2;
	for (int i = 0; i < 3 && scheme; i++)
		if (strcmp(scheme, schemes[i]) == 0)
			s->prepend = i;
	if (s->prepend < 0)
		return err_set(e, ERR_UNSUPPORTED, "Metaspace: prepend_scheme %.60s is not handled", scheme);
	if (!part_bool(j, "add_prefix_space", true))
		s->prepend = 0;
	s->split = part_bool(j, "split", true);
	s->pattern.text = s->text;
	s->pattern.len = s->text_len;
	return ERR_OK;
}

static void to_metaspace(const void *arg, const struct split *one, const char *text, struct strbuf *out)
{
	const struct pre_step *p = arg;
	const char *end = text + one->len;
	bool begins = text[0] == ' ' || (one->len >= p->text_len && memcmp(text, p->text, p->text_len) == 0);
	if (!begins && (p->prepend == 2 || (p->prepend == 1 && one->first)))
		strbuf_add(out, p->text, p->text_len);
	while (text < end) {
		const char *space = memchr(text, ' ', (size_t)(end - text));
		strbuf_add(out, text, (size_t)((space ? space : end) - text));
		if (space)
			strbuf_add(out, p->text, p->text_len);
		text = space ? space + 1 : end;
	}
}

static int apply_metaspace(const struct pre_step *p, struct splits *s, struct err *e)
{
	int rc = rewrite(s, to_metaspace, p, e);
	return rc || !p->split ? rc : cut(s, &p->pattern, NULL, SPLIT_NEXT, false, e);
}

/* \w+|[^\w\s]+, where \w is that of UTS 18 with the joiners */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"
static const char words[] = "[" WORD "]+|[^" WORD "\\s]+";

static int parse_whitespace(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	(void)j, (void)a;
	return regex_compile(words, sizeof words - 1, &s->pattern.regex, e);
}

static int apply_whitespace(const struct pre_step *p, struct splits *s, struct err *e)
{
	return cut(s, &p->pattern, NULL, SPLIT_REMOVED, true, e);
}

static int apply_whitespace_split(const struct pre_step *p, struct splits *s, struct err *e)
{
	(void)p;
	return cut(s, NULL, unicode_is_space, SPLIT_REMOVED, false, e);
}

static int parse_digits(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	(void)a, (void)e;
	s->behavior = part_bool(j, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
	return ERR_OK;
}

static int apply_digits(const struct pre_step *p, struct splits *s, struct err *e)
{
	return cut(s, NULL, unicode_is_numeric, p->behavior, false, e);
}

static int parse_punctuation(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	(void)a;
	s->behavior = SPLIT_ISOLATED;
	return json_get(j, "behavior") ? parse_behavior(j, s, e) : ERR_OK;
}

static int apply_punctuation(const struct pre_step *p, struct splits *s, struct err *e)
{
	return cut(s, NULL, unicode_is_punctuation, p->behavior, false, e);
}

static int apply_bert(const struct pre_step *p, struct splits *s, struct err *e)
{
	int rc = apply_whitespace_split(p, s, e);
	return rc ? rc : cut(s, NULL, unicode_is_punctuation, SPLIT_ISOLATED, false, e);
}

static int parse_delimiter(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	int rc = part_string(j, "delimiter", a, &s->pattern.text, &s->pattern.len, e);
	if (!rc && (!s->pattern.len || utf8_length(s->pattern.text[0]) != s->pattern.len))
		rc = err_set(e, ERR_INPUT, "CharDelimiterSplit: the delimiter is not one character");
	s->behavior = SPLIT_REMOVED;
	return rc;
}

static int parse_fixed(const struct json *j, struct arena *a, struct pre_step *s, struct err *e)
{
	(void)a;
	int64_t n = 5;
	if (json_get(j, "length") && (!json_int(json_get(j, "length"), &n) || n < 1))
		return err_set(e, ERR_INPUT, "FixedLength: the length is not a positive integer");
	s->length = (size_t)n;
	return ERR_OK;
}

static int apply_fixed(const struct pre_step *p, struct splits *s, struct err *e)
{
	struct splits out = { 0 };
	for (size_t i = 0; i < s->count; i++) {
		struct split one = s->at[i];
		const char *text = s->text.data + one.start;
		size_t from = 0, count = 0;
		for (size_t k = 0; k < one.len && one.id < 0; k += utf8_length(text[k]))
			if (count++ == p->length) {
				splits_add(&out, (struct split){ one.start + from, k - from, NO_TOKEN, one.first && !from });
				from = k;
				count = 1;
			}
		splits_add(&out, (struct split){ one.start + from, one.len - from, one.id, one.first && !from });
	}
	free(s->at);
	s->at = out.at;
	s->count = out.count;
	s->cap = out.cap;
	return out.failed ? err_nomem(e) : ERR_OK;
}

static const struct pre_row rows[] = {
	{ "ByteLevel", parse_byte_level, apply_byte_level },
	{ "Split", parse_split, apply_split },
	{ "Metaspace", parse_metaspace, apply_metaspace },
	{ "Whitespace", parse_whitespace, apply_whitespace },
	{ "WhitespaceSplit", NULL, apply_whitespace_split },
	{ "Digits", parse_digits, apply_digits },
	{ "Punctuation", parse_punctuation, apply_punctuation },
	{ "BertPreTokenizer", NULL, apply_bert },
	{ "CharDelimiterSplit", parse_delimiter, apply_split },
	{ "FixedLength", parse_fixed, apply_fixed },
};

static int parse_one(const struct json *j, struct arena *a, struct pre_steps *out, struct err *e)
{
	const char *type = json_string(json_get(j, "type"));
	if (!type)
		return err_set(e, ERR_INPUT, "tokenizer.json: a pre-tokenizer without a type");
	if (strcmp(type, "Sequence") == 0) {
		int rc = ERR_OK;
		for (j = json_first(json_get(j, "pretokenizers")); j && !rc; j = json_next(j))
			rc = parse_one(j, a, out, e);
		return rc;
	}
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(type, rows[i].type) == 0) {
			struct pre_step *s = &out->at[out->count++];
			s->row = &rows[i];
			return rows[i].parse ? rows[i].parse(j, a, s, e) : ERR_OK;
		}
	return err_set(e, ERR_UNSUPPORTED, "tokenizer pre-tokenizer %.60s is not handled", type);
}

int pre_parse(const struct json *j, struct arena *a, struct pre_steps *out, struct err *e)
{
	size_t n;
	if (json_is_null(j))
		return ERR_OK;
	int rc = part_steps(j, "pretokenizers", &n, e);
	if (rc)
		return rc;
	out->at = arena_array(a, n, sizeof *out->at);
	return out->at ? parse_one(j, a, out, e) : err_nomem(e);
}

void pre_release(struct pre_steps *p)
{
	for (size_t i = 0; i < p->count; i++)
		regex_free(p->at[i].pattern.regex);
}

int pre_apply(const struct pre_steps *p, struct splits *s, struct err *e)
{
	size_t given = s->text.len;
	int rc = ERR_OK;
	s->text.limit = growth_limit(given);
	for (size_t i = 0; i < p->count && !rc; i++)
		rc = p->at[i].row->apply(&p->at[i], s, e);
	return s->text.over ? growth_error("the pre-tokenizer", given, e) : rc;
}
