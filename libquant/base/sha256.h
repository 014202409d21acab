#ifndef QUIRE_BASE_SHA256_H
#define QUIRE_BASE_SHA256_H
/* SHA-256 (FIPS 180-4), streaming. */
#include <stddef.h>
#include <stdint.h>

struct sha256 {
	uint32_t state[8];
	uint64_t length;     /* bytes so far */
	uint8_t block[64];   /* the unfinished block */
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t n);
void sha256_finish(struct sha256 *s, uint8_t digest[32]);
/* 64 hexadecimal digits and a NUL. */
void sha256_hex(const uint8_t digest[32], char text[65]);

#endif
