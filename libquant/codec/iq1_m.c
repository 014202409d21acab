/*
 * IQ1_M: 256 elements in 56 bytes; the codebook of IQ1_S, 3-bit scales of 16, the sign of an offset for eight.
 *
 *	qs[32] | qh[16] | scales[4]:u16
 *	qs byte k:       low eight bits of the entry of elements 8 k ...        k = 0..31
 *	qh byte j:       | mn 1, high three bits of entry 2 j + 1 | mn, high three of entry 2 j |
 *	scales word j:   | bits 4 j of d 4 | sc of elements 64 j + 48 ... 3 | 3 | 3 | 64 j ... 3 |
 *	value = d * (2 sc + 1) * (level + (mn ? -1/8 : 1/8))
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq1_m {
	uint8_t qs[32], qh[16], scales[8];
};
_Static_assert(sizeof(struct iq1_m) == 56, "IQ1_M block");

static const struct lattice iq1_m = {
	.grid = iq1_s_grid, .count = 2048, .width = 8, .field = 2, .signs = SIGNS_IN_GRID, .magnitude = lattice_iq1_levels, .delta = 0.125f,
	.scale_len = 16, .multiples = 8, .first = 1, .step = 2, .table = 5,
};

static void iq1_m_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq1_m *b = dst;

	(void)c, (void)n;
	memset(b->qh, 0, sizeof b->qh);
	for (int k = 0; k < 32; k++) {
		unsigned index = lattice_index(&iq1_m, codes + 8 * k);
		b->qs[k] = (uint8_t)index;
		b->qh[k / 2] |= (uint8_t)((index >> 8 | (unsigned)p->mn[k] << 3) << k % 2 * 4);
	}
	for (int j = 0; j < 4; j++) {
		unsigned word = (unsigned)(p->d >> 4 * j & 15) << 12;
		for (int t = 0; t < 4; t++)
			word |= (unsigned)p->sc[8 * j + 2 * t] << 3 * t;
		store_u16(b->scales + 2 * j, (uint16_t)word);
	}
}

static void iq1_m_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq1_m *b = src;
	unsigned d = 0;

	(void)n;
	memset(p, 0, sizeof *p);
	for (int j = 0; j < 4; j++)
		d |= (unsigned)(load_u16(b->scales + 2 * j) >> 12) << 4 * j;
	p->d = (uint16_t)d;
	for (int k = 0; k < 32; k++) {
		unsigned high = b->qh[k / 2] >> k % 2 * 4 & 15u;
		p->sc[k] = load_u16(b->scales + 2 * (k / 8)) >> k / 2 % 4 * 3 & 7;
		p->mn[k] = (uint8_t)(high >> 3);
		lattice_codes(&iq1_m, b->qs[k] | (high & 7) << 8, 0, codes + 8 * k);
	}
	lattice_expand(c, p);
}

LATTICE_ROW(iq1_m, iq1_m, sizeof(struct iq1_m), 8, 2, lattice_iq1_levels, 29, "iq4_nl",
	    "1.8-bit codebook of 2048, scales of 16 under a half-precision scale of 256");
