/*
 * IQ1_S: 256 elements in 50 bytes; a codebook of 2048 ternary eights, 3-bit scales and the sign of an offset for 32.
 *
 *	d:f16 | qs[32] | qh[8]:u16
 *	qs byte k:       low eight bits of the entry of elements 8 k ...        k = 0..31
 *	qh word j:       | mn 1 | sc 3 | high three bits of entries 4 j + 3 | 4 j + 2 | 4 j + 1 | 4 j |
 *	value = d * (2 sc + 1) * (level + (mn ? -1/8 : 1/8))
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq1_s {
	uint8_t d[2], qs[32], qh[16];
};
_Static_assert(sizeof(struct iq1_s) == 50, "IQ1_S block");

static const struct lattice iq1_s = {
	.grid = iq1_s_grid, .count = 2048, .width = 8, .field = 2, .signs = SIGNS_IN_GRID, .magnitude = lattice_iq1_levels, .delta = 0.125f,
	.scale_len = 32, .multiples = 8, .first = 1, .step = 2, .table = 5,
};

static void iq1_s_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq1_s *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int j = 0; j < 8; j++) {
		unsigned high = (unsigned)p->mn[j] << 15 | (unsigned)p->sc[j] << 12;
		for (int k = 0; k < 4; k++) {
			unsigned index = lattice_index(&iq1_s, codes + 32 * j + 8 * k);
			b->qs[4 * j + k] = (uint8_t)index;
			high |= index >> 8 << 3 * k;
		}
		store_u16(b->qh + 2 * j, (uint16_t)high);
	}
}

static void iq1_s_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq1_s *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 8; j++) {
		unsigned high = load_u16(b->qh + 2 * j);
		p->sc[j] = high >> 12 & 7;
		p->mn[j] = (uint8_t)(high >> 15);
		for (int k = 0; k < 4; k++)
			lattice_codes(&iq1_s, b->qs[4 * j + k] | (high >> 3 * k & 7) << 8, 0, codes + 32 * j + 8 * k);
	}
	lattice_expand(c, p);
}

LATTICE_ROW(iq1_s, iq1_s, sizeof(struct iq1_s), 32, 2, lattice_iq1_levels, 19, "iq4_nl",
	    "1.5-bit codebook of 2048, scales of 32 under a half-precision scale of 256");
