/* Normalizers. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

static int failed(const struct strbuf *out, struct err *e)
{
	return out->failed ? err_nomem(e) : ERR_OK;
}

static int parse_replace(const struct json *j, struct arena *a, struct norm_step *s, struct err *e)
{
	int rc = part_string(j, "content", a, &s->text, &s->text_len, e);
	if (!rc && !s->text)
		rc = err_set(e, ERR_INPUT, "Replace has no content");
	return rc ? rc : pattern_parse(json_get(j, "pattern"), a, &s->pattern, e);
}

static int parse_prepend(const struct json *j, struct arena *a, struct norm_step *s, struct err *e)
{
	int rc = part_string(j, "prepend", a, &s->text, &s->text_len, e);
	return rc || s->text ? rc : err_set(e, ERR_INPUT, "Prepend has no text");
}

static int parse_strip(const struct json *j, struct arena *a, struct norm_step *s, struct err *e)
{
	(void)a, (void)e;
	s->left = part_bool(j, "strip_left", true);
	s->right = part_bool(j, "strip_right", true);
	return ERR_OK;
}

static int parse_bert(const struct json *j, struct arena *a, struct norm_step *s, struct err *e)
{
	(void)a, (void)e;
	s->clean = part_bool(j, "clean_text", true);
	s->chinese = part_bool(j, "handle_chinese_chars", true);
	s->lower = part_bool(j, "lowercase", true);
	s->accents = part_bool(j, "strip_accents", s->lower);
	return ERR_OK;
}

static int base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

static int parse_precompiled(const struct json *j, struct arena *a, struct norm_step *s, struct err *e)
{
	(void)a;
	const char *text = json_string(json_get(j, "precompiled_charsmap"));
	if (!text)
		return err_set(e, ERR_INPUT, "Precompiled has no precompiled_charsmap");
	struct strbuf data = { 0 };
	uint32_t bits = 0;
	int have = 0;
	for (; *text && *text != '='; text++) {
		int d = base64_digit(*text);
		if (d < 0) {
			strbuf_release(&data);
			return err_set(e, ERR_INPUT, "precompiled_charsmap is not base64");
		}
		bits = bits << 6 | (uint32_t)d;
		if ((have += 6) >= 8)
			strbuf_putc(&data, (char)(bits >> (have -= 8)));
	}
	int rc = data.failed ? err_nomem(e) : data.len ? charsmap_open(data.data, data.len, &s->charsmap, e) : ERR_OK;
	strbuf_release(&data);
	return rc;
}

static int replace(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	struct spans spans = { 0 };
	struct pattern_use use = { 0 };
	int rc = pattern_spans(&s->pattern, &use, text, n, &spans, e);
	for (size_t i = 0; i < spans.count && !rc; i++) {
		const struct span *p = &spans.at[i];
		if (p->match)
			strbuf_add(out, s->text, s->text_len);
		else
			strbuf_add(out, text + p->start, p->end - p->start);
	}
	pattern_use_release(&use);
	free(spans.at);
	return rc ? rc : failed(out, e);
}

static int prepend(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	if (n)
		strbuf_add(out, s->text, s->text_len);
	strbuf_add(out, text, n);
	return failed(out, e);
}

static int form(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	return unicode_normalize((enum unicode_form)s->row->arg, text, n, out, e);
}

static int lowercase(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	(void)s;
	for (size_t i = 0; i < n; i += utf8_length(text[i]))
		unicode_lower(utf8_code(text + i), out);
	return failed(out, e);
}

static int strip(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	size_t from = 0, back;
	while (s->left && from < n && unicode_is_space(utf8_code(text + from)))
		from += utf8_length(text[from]);
	while (s->right && n > from && unicode_is_space(utf8_code(text + (back = utf8_back(text, n)))))
		n = back;
	strbuf_add(out, text + from, n - from);
	return failed(out, e);
}

static int strip_accents(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	(void)s;
	for (size_t i = 0, len; i < n; i += len) {
		len = utf8_length(text[i]);
		if (!unicode_is_mark(utf8_code(text + i)))
			strbuf_add(out, text + i, len);
	}
	return failed(out, e);
}

static int nmt(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	(void)s;
	for (size_t i = 0, len; i < n; i += len) {
		len = utf8_length(text[i]);
		uint32_t c = utf8_code(text + i);
		if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f)
			continue;
		if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
		    c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd)
			strbuf_putc(out, ' ');
		else
			strbuf_add(out, text + i, len);
	}
	return failed(out, e);
}

static bool is_chinese(uint32_t c)
{
	return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
	       (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
	       (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void bert_char(const struct norm_step *s, uint32_t c, struct strbuf *out)
{
	bool white = c == '\t' || c == '\n' || c == '\r';
	if (s->clean && (c == 0 || c == UNICODE_REPLACEMENT || (!white && unicode_is_other(c))))
		return;
	if (s->clean && unicode_is_space(c))
		c = ' ';
	if (s->chinese && is_chinese(c)) {
		strbuf_putc(out, ' ');
		strbuf_utf8(out, c);
		strbuf_putc(out, ' ');
	} else {
		strbuf_utf8(out, c);
	}
}

static int bert(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	struct strbuf a = { 0 }, b = { 0 };
	int rc = ERR_OK;
	for (size_t i = 0; i < n; i += utf8_length(text[i]))
		bert_char(s, utf8_code(text + i), &a);
	if (s->accents) {
		rc = unicode_normalize(UNICODE_NFD, a.data ? a.data : "", a.len, &b, e);
		strbuf_clear(&a);
		for (size_t i = 0; i < b.len; i += utf8_length(b.data[i]))
			if (!unicode_is_nonspacing(utf8_code(b.data + i)))
				strbuf_add(&a, b.data + i, utf8_length(b.data[i]));
	}
	if (!rc && a.failed)
		rc = err_nomem(e);
	for (size_t i = 0; i < a.len && !rc; i += utf8_length(a.data[i])) {
		if (s->lower)
			unicode_lower(utf8_code(a.data + i), out);
		else
			strbuf_add(out, a.data + i, utf8_length(a.data[i]));
	}
	strbuf_release(&a);
	strbuf_release(&b);
	return rc ? rc : failed(out, e);
}

static int byte_level(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	(void)s;
	byte_level_encode(text, n, out);
	return failed(out, e);
}

static int precompiled(const struct norm_step *s, const char *text, size_t n, struct strbuf *out, struct err *e)
{
	for (size_t i = 0, len; i < n && !out->failed; i += len) {
		len = unicode_grapheme(text + i, n - i);
		const char *to = s->charsmap && len < 6 ? charsmap_first(s->charsmap, text + i, len) : NULL;
		if (to) {
			strbuf_puts(out, to);
			continue;
		}
		for (size_t k = 0, one; k < len; k += one) {
			one = utf8_length(text[i + k]);
			to = s->charsmap ? charsmap_first(s->charsmap, text + i + k, one) : NULL;
			if (to)
				strbuf_puts(out, to);
			else
				strbuf_add(out, text + i + k, one);
		}
	}
	return failed(out, e);
}

static const struct norm_row rows[] = {
	{ "Replace", parse_replace, replace, 0 },
	{ "Prepend", parse_prepend, prepend, 0 },
	{ "NFC", NULL, form, UNICODE_NFC },
	{ "NFD", NULL, form, UNICODE_NFD },
	{ "NFKC", NULL, form, UNICODE_NFKC },
	{ "NFKD", NULL, form, UNICODE_NFKD },
	{ "Lowercase", NULL, lowercase, 0 },
	{ "Strip", parse_strip, strip, 0 },
	{ "StripAccents", NULL, strip_accents, 0 },
	{ "Nmt", NULL, nmt, 0 },
	{ "BertNormalizer", parse_bert, bert, 0 },
	{ "ByteLevel", NULL, byte_level, 0 },
	{ "Precompiled", parse_precompiled, precompiled, 0 },
};

static int parse_one(const struct json *j, struct arena *a, struct norm_steps *out, struct err *e)
{
	const char *type = json_string(json_get(j, "type"));
	if (!type)
		return err_set(e, ERR_INPUT, "tokenizer.json: a normalizer without a type");
	if (strcmp(type, "Sequence") == 0) {
		int rc = ERR_OK;
		for (j = json_first(json_get(j, "normalizers")); j && !rc; j = json_next(j))
			rc = parse_one(j, a, out, e);
		return rc;
	}
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(type, rows[i].type) == 0) {
			struct norm_step *s = &out->at[out->count++];
			s->row = &rows[i];
			return rows[i].parse ? rows[i].parse(j, a, s, e) : ERR_OK;
		}
	return err_set(e, ERR_UNSUPPORTED, "tokenizer normalizer %.60s is not handled", type);
}

int norm_parse(const struct json *j, struct arena *a, struct norm_steps *out, struct err *e)
{
	size_t n;
	if (json_is_null(j))
		return ERR_OK;
	int rc = part_steps(j, "normalizers", &n, e);
	if (rc)
		return rc;
	out->at = arena_array(a, n, sizeof *out->at);
	return out->at ? parse_one(j, a, out, e) : err_nomem(e);
}

void norm_release(struct norm_steps *n)
{
	for (size_t i = 0; i < n->count; i++) {
		regex_free(n->at[i].pattern.regex);
		charsmap_free(n->at[i].charsmap);
	}
}

int norm_apply(const struct norm_steps *n, const char *s, size_t len, struct strbuf *out, bool *stripped, struct err *e)
{
	size_t given = len, limit = out->limit;
	struct strbuf now = { .limit = growth_limit(len) }, next = now;
	int rc = ERR_OK;
	*stripped = false;
	out->limit = out->len + growth_limit(len);
	for (size_t i = 0; i < n->count && !rc; i++) {
		const struct norm_step *step = &n->at[i];
		strbuf_clear(&next);
		if (step->left && len && unicode_is_space(utf8_code(s)))
			*stripped = true;
		bool last = i + 1 == n->count;
		rc = step->row->apply(step, s, len, last ? out : &next, e);
		if (next.over || out->over)
			rc = growth_error("the normalizer", given, e);
		struct strbuf swap = now;
		now = next;
		next = swap;
		s = now.data ? now.data : "";
		len = now.len;
	}
	if (!n->count)
		strbuf_add(out, s, len);
	out->limit = limit;
	strbuf_release(&now);
	strbuf_release(&next);
	return rc ? rc : failed(out, e);
}
