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

/*
 * Characters that Unicode 15.0, 15.1 and 16.0 added: the property tables of the
 * libraries may be older. Each range has a character that was there before,
 * of the same general category and as many bytes long.
 */
static const struct {
	uint32_t first, last, like;
} additions[] = {
	{ 0x897, 0x897, 0x1ab0 }, { 0xcf3, 0xcf3, 0x903 }, { 0xece, 0xece, 0x1ab0 }, { 0x1b4e, 0x1b4f, 0x2020 },
	{ 0x1b7f, 0x1b7f, 0x2020 }, { 0x1c89, 0x1c89, 0x1e00 }, { 0x1c8a, 0x1c8a, 0x1e01 }, { 0x2427, 0x2429, 0x2300 },
	{ 0x2ffc, 0x2fff, 0x2300 }, { 0x31e4, 0x31e5, 0x2300 }, { 0x31ef, 0x31ef, 0x2300 }, { 0xa7cb, 0xa7cc, 0x1e00 },
	{ 0xa7cd, 0xa7cd, 0x1e01 }, { 0xa7da, 0xa7da, 0x1e00 }, { 0xa7db, 0xa7db, 0x1e01 }, { 0xa7dc, 0xa7dc, 0x1e00 },
	{ 0x105c0, 0x105f3, 0x10000 }, { 0x10d40, 0x10d49, 0x104a0 }, { 0x10d4a, 0x10d4d, 0x10000 },
	{ 0x10d4e, 0x10d4e, 0x16b40 }, { 0x10d4f, 0x10d4f, 0x10000 }, { 0x10d50, 0x10d65, 0x10400 },
	{ 0x10d69, 0x10d6d, 0x101fd }, { 0x10d6e, 0x10d6e, 0x10ead }, { 0x10d6f, 0x10d6f, 0x16b40 }, { 0x10d70, 0x10d85, 0x10428 },
	{ 0x10d8e, 0x10d8f, 0x1d6c1 }, { 0x10ec2, 0x10ec4, 0x10000 }, { 0x10efc, 0x10eff, 0x101fd },
	{ 0x1123f, 0x11240, 0x10000 }, { 0x11241, 0x11241, 0x101fd }, { 0x11380, 0x11389, 0x10000 },
	{ 0x1138b, 0x1138b, 0x10000 }, { 0x1138e, 0x1138e, 0x10000 }, { 0x11390, 0x113b5, 0x10000 },
	{ 0x113b7, 0x113b7, 0x10000 }, { 0x113b8, 0x113ba, 0x11000 }, { 0x113bb, 0x113c0, 0x101fd },
	{ 0x113c2, 0x113c2, 0x11000 }, { 0x113c5, 0x113c5, 0x11000 }, { 0x113c7, 0x113ca, 0x11000 },
	{ 0x113cc, 0x113cd, 0x11000 }, { 0x113ce, 0x113ce, 0x101fd }, { 0x113cf, 0x113cf, 0x11000 },
	{ 0x113d0, 0x113d0, 0x101fd }, { 0x113d1, 0x113d1, 0x10000 }, { 0x113d2, 0x113d2, 0x101fd },
	{ 0x113d3, 0x113d3, 0x10000 }, { 0x113d4, 0x113d5, 0x10100 }, { 0x113d7, 0x113d8, 0x10100 },
	{ 0x113e1, 0x113e2, 0x101fd }, { 0x116d0, 0x116e3, 0x104a0 }, { 0x11b00, 0x11b09, 0x10100 },
	{ 0x11bc0, 0x11be0, 0x10000 }, { 0x11be1, 0x11be1, 0x10100 }, { 0x11bf0, 0x11bf9, 0x104a0 },
	{ 0x11f00, 0x11f01, 0x101fd }, { 0x11f02, 0x11f02, 0x10000 }, { 0x11f03, 0x11f03, 0x11000 },
	{ 0x11f04, 0x11f10, 0x10000 }, { 0x11f12, 0x11f33, 0x10000 }, { 0x11f34, 0x11f35, 0x11000 },
	{ 0x11f36, 0x11f3a, 0x101fd }, { 0x11f3e, 0x11f3f, 0x11000 }, { 0x11f40, 0x11f40, 0x101fd },
	{ 0x11f41, 0x11f41, 0x11000 }, { 0x11f42, 0x11f42, 0x101fd }, { 0x11f43, 0x11f4f, 0x10100 },
	{ 0x11f50, 0x11f59, 0x104a0 }, { 0x11f5a, 0x11f5a, 0x101fd }, { 0x1342f, 0x1342f, 0x10000 },
	{ 0x13439, 0x1343f, 0x110bd }, { 0x13440, 0x13440, 0x101fd }, { 0x13441, 0x13446, 0x10000 },
	{ 0x13447, 0x13455, 0x101fd }, { 0x13460, 0x143fa, 0x10000 }, { 0x16100, 0x1611d, 0x10000 },
	{ 0x1611e, 0x16129, 0x101fd }, { 0x1612a, 0x1612c, 0x11000 }, { 0x1612d, 0x1612f, 0x101fd },
	{ 0x16130, 0x16139, 0x104a0 }, { 0x16d40, 0x16d42, 0x16b40 }, { 0x16d43, 0x16d6a, 0x10000 },
	{ 0x16d6b, 0x16d6c, 0x16b40 }, { 0x16d6d, 0x16d6f, 0x10100 }, { 0x16d70, 0x16d79, 0x104a0 },
	{ 0x18cff, 0x18cff, 0x10000 }, { 0x1b132, 0x1b132, 0x1b150 }, { 0x1b155, 0x1b155, 0x1b164 },
	{ 0x1cc00, 0x1ccef, 0x1f300 }, { 0x1ccf0, 0x1ccf9, 0x104a0 }, { 0x1cd00, 0x1ceb3, 0x1f300 },
	{ 0x1d2c0, 0x1d2d3, 0x10107 }, { 0x1df25, 0x1df2a, 0x10428 }, { 0x1e030, 0x1e06d, 0x16b40 },
	{ 0x1e08f, 0x1e08f, 0x101fd }, { 0x1e4d0, 0x1e4ea, 0x10000 }, { 0x1e4eb, 0x1e4eb, 0x16b40 },
	{ 0x1e4ec, 0x1e4ef, 0x101fd }, { 0x1e4f0, 0x1e4f9, 0x104a0 }, { 0x1e5d0, 0x1e5ed, 0x10000 },
	{ 0x1e5ee, 0x1e5ef, 0x101fd }, { 0x1e5f0, 0x1e5f0, 0x10000 }, { 0x1e5f1, 0x1e5fa, 0x104a0 },
	{ 0x1e5ff, 0x1e5ff, 0x10100 }, { 0x1f6dc, 0x1f6dc, 0x1f300 }, { 0x1f774, 0x1f776, 0x1f300 },
	{ 0x1f77b, 0x1f77f, 0x1f300 }, { 0x1f7d9, 0x1f7d9, 0x1f300 }, { 0x1f8b2, 0x1f8bb, 0x1f300 },
	{ 0x1f8c0, 0x1f8c1, 0x1f300 }, { 0x1fa75, 0x1fa77, 0x1f300 }, { 0x1fa87, 0x1fa89, 0x1f300 },
	{ 0x1fa8f, 0x1fa8f, 0x1f300 }, { 0x1faad, 0x1faaf, 0x1f300 }, { 0x1fabb, 0x1fabf, 0x1f300 },
	{ 0x1fac6, 0x1fac6, 0x1f300 }, { 0x1face, 0x1facf, 0x1f300 }, { 0x1fada, 0x1fadc, 0x1f300 },
	{ 0x1fadf, 0x1fadf, 0x1f300 }, { 0x1fae8, 0x1fae9, 0x1f300 }, { 0x1faf7, 0x1faf8, 0x1f300 },
	{ 0x1fbcb, 0x1fbef, 0x1f300 }, { 0x2b739, 0x2b739, 0x20000 }, { 0x2ebf0, 0x2ee5d, 0x20000 },
	{ 0x31350, 0x323af, 0x20000 },
};

uint32_t unicode_stand_in(uint32_t c)
{
	size_t low = 0, high = sizeof additions / sizeof additions[0];
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (c > additions[middle].last)
			low = middle + 1;
		else
			high = middle;
	}
	return low < sizeof additions / sizeof additions[0] && c >= additions[low].first ? additions[low].like : c;
}

static utf8proc_category_t category(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)unicode_stand_in(c));
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
