#ifndef QUIRE_FORMATS_QUIRE_H
#define QUIRE_FORMATS_QUIRE_H
/*
 * What the reader and the writer of .quire share; docs/formats/quire.md is the
 * specification. A .quire file is a safetensors file whose metadata has a
 * manifest, whose tensors begin at multiples of 64, and which holds side files
 * and padding as U8 tensors.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"

enum {
	QUIRE_VERSION_NOW = 1,
	QUIRE_ALIGN = 64,              /* a cache line, and the widest vector load */
	QUIRE_CHUNK = 1 << 20,         /* raw bytes that a worker packs at once; part of the format */
	QUIRE_MAX_PLANES = 4,
};
#define QUIRE_FILE_PREFIX "__file__."
#define QUIRE_PAD_PREFIX "__pad__."
#define QUIRE_SOURCE_FACT "sha256:"    /* facts of this prefix are the manifest's "source" */

/*
 * Byte planes of 16- and 32-bit floats: each word is rotated left by one, so that its top byte is the exponent (bf16,
 * f32) or the exponent and the first bits of the mantissa (f16); plane p holds byte p of every word, p = 0 the lowest.
 */
unsigned planes_of(const struct codec *c);                /* 2 or 4; 0: this codec is not stored in planes */
size_t planes_bound(unsigned planes, size_t raw);         /* room for a packed chunk of raw bytes */
/* Packs one chunk; sizes[p] is what plane p takes in dst, one after the other. Returns the sum, 0 when out of memory. */
size_t planes_pack(unsigned planes, const uint8_t *src, size_t raw, uint8_t *dst, uint32_t sizes[QUIRE_MAX_PLANES]);
/* Unpacks one chunk; size is the sum of sizes. ERR_INPUT when damaged. */
int planes_unpack(unsigned planes, const uint8_t *src, const uint32_t sizes[QUIRE_MAX_PLANES], uint8_t *dst, size_t raw,
		  struct err *e);

static inline uint64_t quire_chunks(uint64_t nbytes)
{
	return nbytes / QUIRE_CHUNK + (nbytes % QUIRE_CHUNK != 0);
}

int quire_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);

#endif
