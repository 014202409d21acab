#ifndef QUIRE_BASE_ZIP_H
#define QUIRE_BASE_ZIP_H
/*
 * zlib (RFC 1950), gzip (RFC 1952) and CRC-32 over whole buffers. The only
 * place that sees zlib's header. Inflating never writes more than the caller
 * allowed, whatever the stream claims.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

enum zip_kind {
	ZIP_TEXT,   /* repeated strings: default strategy, level 6 */
	ZIP_BYTES,  /* skewed bytes without repeats (exponent planes): run lengths and Huffman codes only */
};

/* CRC-32 as in zlib, PNG and gzip; start with crc 0. Splits large buffers over the workers; the result is the same. */
uint32_t zip_crc32(uint32_t crc, const void *data, size_t size);
uint32_t zip_crc32_combine(uint32_t a, uint32_t b, uint64_t size_b);

/* Largest size that zip_deflate makes of n bytes. */
size_t zip_bound(size_t n);
/* One zlib stream into dst; *dst_size is the room on entry and the size on return. */
int zip_deflate(const void *src, size_t n, enum zip_kind kind, void *dst, size_t *dst_size, struct err *e);
/* One zlib stream of exactly `size` bytes that uses up the whole input; ERR_INPUT otherwise. Thread-safe. */
int zip_inflate(const void *src, size_t n, void *dst, size_t size, struct err *e);
/* gzip, any number of members, appended to out; ERR_INPUT when damaged, truncated or longer than limit. */
int zip_gunzip(const void *src, size_t n, struct strbuf *out, size_t limit, struct err *e);

#endif
