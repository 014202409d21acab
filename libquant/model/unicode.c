#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t utf8_encode(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(lead[n] | c);
	return n;
}

void strbuf_utf8(struct strbuf *b, uint32_t code)
{
	char bytes[4];
	strbuf_add(b, bytes, utf8_encode(code, bytes));
}

size_t utf8_back(const char *s, size_t n)
{
	do
		n--;
	while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80);
	return n;
}

/* Length of the well-formed character at s, or minus the length of the part to replace. */
static int well_formed(const unsigned char *s, size_t n)
{
	if (s[0] < 0x80)
		return 1;
	int want = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	if (!want)
		return -1;
	/* the second byte's limits exclude overlong forms, surrogates and code points past U+10FFFF */
	unsigned lo = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, hi = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
	for (int i = 1; i < want; i++) {
		if ((size_t)i >= n || s[i] < lo || s[i] > hi)
			return -i;
		lo = 0x80;
		hi = 0xbf;
	}
	return want;
}

void unicode_sanitize(const char *text, size_t n, struct strbuf *out)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t kept = 0, i = 0;
	while (i < n) {
		int step = well_formed(s + i, n - i);
		if (step > 0) {
			i += (size_t)step;
			continue;
		}
		strbuf_add(out, text + kept, i - kept);
		strbuf_utf8(out, UNICODE_REPLACEMENT);
		i += (size_t)-step;
		kept = i;
	}
	strbuf_add(out, text + kept, n - kept);
}

static utf8proc_category_t category(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)c);
}

bool unicode_is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
	       c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool unicode_is_numeric(uint32_t c)
{
	if (c < 0x80)
		return c >= '0' && c <= '9';
	utf8proc_category_t k = category(c);
	return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool unicode_is_punctuation(uint32_t c)
{
	if (c < 0x80)
		return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
	utf8proc_category_t k = category(c);
	return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool unicode_is_mark(uint32_t c)
{
	utf8proc_category_t k = category(c);
	return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool unicode_is_nonspacing(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_MN;
}

bool unicode_is_other(uint32_t c)
{
	utf8proc_category_t k = category(c);
	return k == UTF8PROC_CATEGORY_CN || k >= UTF8PROC_CATEGORY_CC;
}

bool unicode_is_word(uint32_t c)
{
	if (c < 0x80)
		return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
	utf8proc_category_t k = category(c);
	return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d ||
	       (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
	       (c >= 0x1f170 && c <= 0x1f189);
}

void unicode_lower(uint32_t c, struct strbuf *out)
{
	if (c < 0x80) {
		strbuf_putc(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
	} else if (c == 0x130) { /* the one character whose lower case is two without any context */
		strbuf_puts(out, "i\xcc\x87");
	} else {
		strbuf_utf8(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
	}
}

int unicode_normalize(enum unicode_form form, const char *s, size_t n, struct strbuf *out, struct err *e)
{
	static const int options[] = {
		[UNICODE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
		[UNICODE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
		[UNICODE_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
		[UNICODE_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
	};
	bool ascii = true;
	for (size_t i = 0; i < n && ascii; i++)
		ascii = (unsigned char)s[i] < 0x80;
	if (ascii) { /* every form leaves it alone */
		strbuf_add(out, s, n);
		return out->failed ? err_nomem(e) : ERR_OK;
	}
	utf8proc_uint8_t *to = NULL;
	utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &to, (utf8proc_option_t)options[form]);
	if (len == UTF8PROC_ERROR_NOMEM || len == UTF8PROC_ERROR_OVERFLOW)
		return err_nomem(e);
	if (len < 0) /* only ill-formed text, which callers exclude */
		return err_set(e, ERR_BUG, "normalization of text that is not UTF-8");
	strbuf_add(out, to, (size_t)len);
	free(to);
	return out->failed ? err_nomem(e) : ERR_OK;
}

size_t unicode_grapheme(const char *s, size_t n)
{
	utf8proc_int32_t state = 0;
	size_t at = utf8_length(*s);
	uint32_t last = utf8_code(s);
	while (at < n) {
		uint32_t next = utf8_code(s + at);
		if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)next, &state))
			break;
		last = next;
		at += utf8_length(s[at]);
	}
	return at;
}
