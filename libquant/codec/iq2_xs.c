/*
 * IQ2_XS: 256 elements in 74 bytes; a codebook of 512 for eight elements, even signs, 4-bit scales of 16.
 *
 *	d:f16 | qs[32]:u16 | scales[8]
 *	qs word k:       | signs 7 | entry 9 |   of elements 8 k ...        k = 0..31
 *	scales byte j:   | sc of sub-block 2 j + 1 | 2 j |                  j = 0..7
 *	value = d * (sc / 4 + 1 / 8) * level
 *
 * Signs as in IQ2_XXS.
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq2_xs {
	uint8_t d[2], qs[64], scales[8];
};
_Static_assert(sizeof(struct iq2_xs) == 74, "IQ2_XS block");

static const struct lattice iq2_xs = {
	.grid = iq2_xs_grid, .count = 512, .width = 8, .field = 2, .signs = SIGNS_EVEN, .magnitude = lattice_iq2_levels + 4,
	.scale_len = 16, .multiples = 16, .first = 0.125f, .step = 0.25f, .table = 1,
};

static void iq2_xs_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq2_xs *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 32; k++) {
		const uint8_t *q = codes + 8 * k;
		store_u16(b->qs + 2 * k, (uint16_t)(lattice_index(&iq2_xs, q) | (lattice_negative(&iq2_xs, q) & 127) << 9));
	}
	for (int j = 0; j < 8; j++)
		b->scales[j] = (uint8_t)(p->sc[2 * j] | p->sc[2 * j + 1] << 4);
}

static void iq2_xs_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq2_xs *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 16; j++)
		p->sc[j] = b->scales[j / 2] >> j % 2 * 4 & 15;
	for (int k = 0; k < 32; k++) {
		unsigned q = load_u16(b->qs + 2 * k);
		lattice_codes(&iq2_xs, q & 511, lattice_even(q >> 9), codes + 8 * k);
	}
	lattice_expand(c, p);
}

LATTICE_ROW(iq2_xs, iq2_xs, sizeof(struct iq2_xs), 16, 3, lattice_iq2_levels, 17, "iq4_nl",
	    "2-bit codebook of 512, scales of 16 under a half-precision scale of 256");
