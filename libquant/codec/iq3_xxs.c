/*
 * IQ3_XXS: 256 elements in 98 bytes; a codebook of 256 for four elements, even signs of eight, 4-bit scales of 32.
 *
 *	d:f16 | qs[64] | high[8]:u32
 *	qs byte k:       entry of elements 4 k ...                              k = 0..63
 *	high word j:     | sc 4 | signs 7 (elements 32 j + 24 ...) | 7 | 7 | 7 (32 j ...) |   j = 0..7
 *	value = d * (sc / 2 + 1 / 4) * level
 *
 * Signs as in IQ2_XXS.
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq3_xxs {
	uint8_t d[2], qs[64], high[32];
};
_Static_assert(sizeof(struct iq3_xxs) == 98, "IQ3_XXS block");

static const struct lattice iq3_xxs = {
	.grid = iq3_xxs_grid, .count = 256, .width = 4, .field = 3, .signs = SIGNS_EVEN, .magnitude = lattice_iq3_xxs_levels + 8,
	.scale_len = 32, .multiples = 16, .first = 0.25f, .step = 0.5f, .table = 3,
};

static void iq3_xxs_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq3_xxs *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 64; k++)
		b->qs[k] = (uint8_t)lattice_index(&iq3_xxs, codes + 4 * k);
	for (int j = 0; j < 8; j++) {
		uint32_t high = (uint32_t)p->sc[j] << 28;
		for (int k = 0; k < 4; k++)
			high |= (lattice_negative(&iq3_xxs, codes + 32 * j + 8 * k) & 127) << 7 * k;
		store_u32(b->high + 4 * j, high);
	}
}

static void iq3_xxs_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq3_xxs *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 8; j++)
		p->sc[j] = b->high[4 * j + 3] >> 4;
	for (int k = 0; k < 64; k++) {
		unsigned signs = lattice_even(load_u32(b->high + k / 8 * 4) >> k / 2 % 4 * 7);
		lattice_codes(&iq3_xxs, b->qs[k], signs >> k % 2 * 4, codes + 4 * k);
	}
	lattice_expand(c, p);
}

LATTICE_ROW(iq3_xxs, iq3_xxs, sizeof(struct iq3_xxs), 32, 4, lattice_iq3_xxs_levels, 18, "iq4_nl",
	    "3-bit codebook of 256, scales of 32 under a half-precision scale of 256");
