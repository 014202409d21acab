/*
 * IQ2_XXS: 256 elements in 66 bytes; a codebook of 256 for eight elements, even signs, 4-bit scales of 32.
 *
 *	d:f16 | qs[64]
 *	qs byte 8 j + k:      entry of elements 32 j + 8 k ...           j = 0..7, k = 0..3
 *	qs u32 at 8 j + 4:    | sc 4 | signs 7 (k = 3) | 7 | 7 | 7 (k = 0) |
 *	value = d * (sc / 4 + 1 / 8) * level
 *
 * Bit i of seven signs is that of element i; the eighth makes the number of negative ones even.
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq2_xxs {
	uint8_t d[2], qs[64];
};
_Static_assert(sizeof(struct iq2_xxs) == 66, "IQ2_XXS block");

static const struct lattice iq2_xxs = {
	.grid = iq2_xxs_grid, .count = 256, .width = 8, .field = 2, .signs = SIGNS_EVEN, .magnitude = lattice_iq2_levels + 4,
	.scale_len = 32, .multiples = 16, .first = 0.125f, .step = 0.25f, .table = 0,
};

static void iq2_xxs_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq2_xxs *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int j = 0; j < 8; j++) {
		uint32_t high = (uint32_t)p->sc[j] << 28;
		for (int k = 0; k < 4; k++) {
			const uint8_t *q = codes + 32 * j + 8 * k;
			b->qs[8 * j + k] = (uint8_t)lattice_index(&iq2_xxs, q);
			high |= (lattice_negative(&iq2_xxs, q) & 127) << 7 * k;
		}
		store_u32(b->qs + 8 * j + 4, high);
	}
}

static void iq2_xxs_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq2_xxs *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 8; j++) {
		uint32_t high = load_u32(b->qs + 8 * j + 4);
		p->sc[j] = (uint8_t)(high >> 28);
		for (int k = 0; k < 4; k++)
			lattice_codes(&iq2_xxs, b->qs[8 * j + k], lattice_even(high >> 7 * k), codes + 32 * j + 8 * k);
	}
	lattice_expand(c, p);
}

LATTICE_ROW(iq2_xxs, iq2_xxs, sizeof(struct iq2_xxs), 32, 3, lattice_iq2_levels, 16, "iq4_nl",
	    "2-bit codebook of 256, scales of 32 under a half-precision scale of 256");
