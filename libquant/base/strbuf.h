#ifndef QUIRE_BASE_STRBUF_H
#define QUIRE_BASE_STRBUF_H
/*
 * A growing byte string, always NUL-terminated. Zero-initialise before use.
 * Running out of memory sets `failed` and later calls do nothing, so that a
 * caller checks once at the end. Growing beyond `limit` sets `over` as well.
 */
#include <stdbool.h>
#include <stddef.h>

struct strbuf {
	char *data;
	size_t len, cap;
	size_t limit; /* 0: none */
	bool failed, over;
};

void strbuf_add(struct strbuf *b, const void *bytes, size_t n);
void strbuf_puts(struct strbuf *b, const char *s);
void strbuf_putc(struct strbuf *b, char c);
void strbuf_printf(struct strbuf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void strbuf_clear(struct strbuf *b);       /* keeps the memory */
void strbuf_release(struct strbuf *b);

#endif
