#ifndef QUIRE_BASE_SHA256_BLOCKS_H
#define QUIRE_BASE_SHA256_BLOCKS_H
/* The compression function of sha256.c for processors with instructions for it; chosen at run time. */
#include <stddef.h>
#include <stdint.h>

/* `count` blocks of 64 bytes into the state. sha256_accelerated() is NULL where this build or this machine has no such instructions. */
typedef void sha256_blocks(uint32_t state[8], const uint8_t *p, size_t count, const uint32_t k[64]);
sha256_blocks *sha256_accelerated(void);
/* For any machine, and the table of constants that all take as k. */
sha256_blocks sha256_portable;
extern const uint32_t sha256_k[64];

#endif
