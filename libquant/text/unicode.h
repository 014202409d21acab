#ifndef QUIRE_TEXT_UNICODE_H
#define QUIRE_TEXT_UNICODE_H
/*
 * Code points, character properties and normalization forms. All functions on
 * text but unicode_sanitize expect valid UTF-8.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

#define UNICODE_REPLACEMENT 0xfffd

/* Bytes of the character that starts with this byte (valid UTF-8). */
static inline size_t utf8_length(char lead)
{
	unsigned char c = (unsigned char)lead;
	return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* The code point at s, whose character is utf8_length(*s) bytes long. */
static inline uint32_t utf8_code(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	if (u[0] < 0x80)
		return u[0];
	if (u[0] < 0xe0)
		return (uint32_t)(u[0] & 0x1f) << 6 | (u[1] & 0x3f);
	if (u[0] < 0xf0)
		return (uint32_t)(u[0] & 0x0f) << 12 | (uint32_t)(u[1] & 0x3f) << 6 | (u[2] & 0x3f);
	return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3f) << 12 | (uint32_t)(u[2] & 0x3f) << 6 | (u[3] & 0x3f);
}

/* Writes 1 to 4 bytes; returns how many. */
size_t utf8_encode(uint32_t code, char out[4]);
void strbuf_utf8(struct strbuf *b, uint32_t code);
/* The character that ends right before s + n (n > 0): its byte offset. */
size_t utf8_back(const char *s, size_t n);

/*
 * Appends the text with every ill-formed part replaced by U+FFFD: one for each
 * maximal subpart of a well-formed sequence (Unicode 15, section 3.9, "best
 * practice"), as WHATWG decoders, Python and Rust do.
 */
void unicode_sanitize(const char *s, size_t n, struct strbuf *out);

/* A character of older Unicode with the same general category and length, for one added in 15.0 to 16.0; else c itself. */
uint32_t unicode_stand_in(uint32_t c);

bool unicode_is_space(uint32_t c);       /* White_Space */
bool unicode_is_numeric(uint32_t c);     /* Nd, Nl, No */
bool unicode_is_punctuation(uint32_t c); /* P*, and the ASCII symbols */
bool unicode_is_mark(uint32_t c);        /* M* */
bool unicode_is_nonspacing(uint32_t c);  /* Mn */
bool unicode_is_other(uint32_t c);       /* C* */
bool unicode_is_word(uint32_t c);        /* UTS 18 \w */
/* Appends the full lower case (without context: no final sigma). */
void unicode_lower(uint32_t c, struct strbuf *out);

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
/* Appends the normalized text. ERR_NOMEM. */
int unicode_normalize(enum unicode_form form, const char *s, size_t n, struct strbuf *out, struct err *e);

/* Bytes of the first extended grapheme cluster of s (n > 0), UAX 29. */
size_t unicode_grapheme(const char *s, size_t n);

#endif
