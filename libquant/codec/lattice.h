#ifndef QUIRE_CODEC_LATTICE_H
#define QUIRE_CODEC_LATTICE_H
/*
 * What the formats with codebooks share (iq1, iq2, iq3): eight weights are rounded as one, onto the entries of a codebook
 * of four or eight levels each, with signs apart; sub-blocks have small odd multiples of a half-precision super-scale:
 *
 *	value = d * (first + step * sc) * level + offset
 *
 * In codec.h's terms the codes of the eight are codes like all others, of which only some combinations are in the
 * codebook. A format gives its codebook, how its fields pack, and nothing else.
 */
#include "codec/codec.h"
#include "kernel/kernel.h"

enum { LATTICE_TOGETHER = 8 };

enum lattice_signs {
	SIGNS_IN_GRID, /* the levels have signs */
	SIGNS_FREE,
	SIGNS_EVEN,    /* an even number of the eight is negative: the last sign is not stored */
};

struct lattice {
	const uint16_t *grid;
	uint16_t count;
	uint8_t width;            /* levels of an entry: 8 or 4 */
	uint8_t field;            /* bits of one */
	enum lattice_signs signs;
	const float *magnitude;   /* [1 << field] what the bits of an entry mean */
	float delta;              /* iq1: offset is plus or minus this times the scale; else 0 */
	uint8_t scale_len;        /* elements under one stored scale: a sub-block or two */
	uint8_t multiples;        /* sc is in [0, multiples) */
	float first, step;
	int table;                /* a number for each codebook, below LATTICE_TABLES */
};
enum { LATTICE_TABLES = 6 };

/* The codebook as kernels take it; made when it is first asked for. */
struct lattice_table lattice_table(const struct lattice *l, float shift);

/* An entry's place in the codebook, for the codes of its elements; one that is near when they are no entry's. */
unsigned lattice_index(const struct lattice *l, const uint8_t *codes);
/* The codes of an entry; bit i of negative: element i's sign. */
void lattice_codes(const struct lattice *l, unsigned index, unsigned negative, uint8_t *codes);
/* Which of the eight codes are negative, one bit each. */
unsigned lattice_negative(const struct lattice *l, const uint8_t *codes);

/* Eight signs of seven, an even number of them negative. */
static inline unsigned lattice_even(unsigned seven)
{
	seven &= 127;
	return seven | (unsigned)__builtin_parity(seven) << 7;
}

/* Eight numbers become magnitudes, with the signs in the result, one bit each: see lattice_negative. Not where the grid has signs. */
unsigned lattice_magnitudes(const struct lattice *l, float *x, const float *w);

/* Scales and offsets from the raw fields, with a decoder's arithmetic. */
void lattice_expand(const struct codec *c, struct block_params *p);

/* The functions of a codec's row. */
void lattice_round(const struct codec *c, const struct code_target *t, uint8_t *codes);
void lattice_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort, struct block_params *p);
void lattice_store(const struct codec *c, struct block_params *p, size_t n);

/* The levels under the codes: of two bits and a sign, of three and a sign. */
extern const float lattice_iq2_levels[8], lattice_iq3_xxs_levels[16], lattice_iq3_s_levels[16], lattice_iq1_levels[4];

#define LATTICE_ROW(NAME, ID, BYTES, SUB, BITS, LEVELS, TYPE, FALLBACK, SUMMARY) \
	const struct codec codec_##NAME = { \
		.name = #NAME, .summary = SUMMARY, .kind = CODEC_BLOCK, .block = 256, .block_bytes = BYTES, .sub = SUB, \
		.bits = BITS, .levels = LEVELS, .gguf_type = TYPE, .fallback = FALLBACK, .has_offset = (BITS) == 2, \
		.together = LATTICE_TOGETHER, .lattice = &(ID), .round = lattice_round, \
		.kernel = BLOCK_##NAME, .decode = codec_block_decode, .dot = codec_block_dot, \
		.fit = lattice_fit, .store = lattice_store, .pack = NAME##_pack, .unpack = NAME##_unpack }

#endif
