/*
 * IQ2_S: 256 elements in 82 bytes; a codebook of 1024 for eight elements, signs of their own, 4-bit scales of 16.
 *
 *	d:f16 | qs[32] | signs[32] | qh[8] | scales[8]
 *	qs byte k:       low eight bits of the entry of elements 8 k ...        k = 0..31
 *	qh byte j:       high two bits of entries 4 j + 3 | 4 j + 2 | 4 j + 1 | 4 j
 *	signs byte k:    bit i: element 8 k + i
 *	scales byte j:   | sc of sub-block 2 j + 1 | 2 j |                      j = 0..7
 *	value = d * (sc / 4 + 1 / 8) * level
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq2_s {
	uint8_t d[2], qs[32], signs[32], qh[8], scales[8];
};
_Static_assert(sizeof(struct iq2_s) == 82, "IQ2_S block");

static const struct lattice iq2_s = {
	.grid = iq2_s_grid, .count = 1024, .width = 8, .field = 2, .signs = SIGNS_FREE, .magnitude = lattice_iq2_levels + 4,
	.scale_len = 16, .multiples = 16, .first = 0.125f, .step = 0.25f, .table = 2,
};

static void iq2_s_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq2_s *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	memset(b->qh, 0, sizeof b->qh);
	for (int k = 0; k < 32; k++) {
		unsigned index = lattice_index(&iq2_s, codes + 8 * k);
		b->qs[k] = (uint8_t)index;
		b->qh[k / 4] |= (uint8_t)(index >> 8 << k % 4 * 2);
		b->signs[k] = (uint8_t)lattice_negative(&iq2_s, codes + 8 * k);
	}
	for (int j = 0; j < 8; j++)
		b->scales[j] = (uint8_t)(p->sc[2 * j] | p->sc[2 * j + 1] << 4);
}

static void iq2_s_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq2_s *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 16; j++)
		p->sc[j] = b->scales[j / 2] >> j % 2 * 4 & 15;
	for (int k = 0; k < 32; k++)
		lattice_codes(&iq2_s, b->qs[k] | (b->qh[k / 4] >> k % 4 * 2 & 3u) << 8, b->signs[k], codes + 8 * k);
	lattice_expand(c, p);
}

LATTICE_ROW(iq2_s, iq2_s, sizeof(struct iq2_s), 16, 3, lattice_iq2_levels, 22, "iq4_nl",
	    "2-bit codebook of 1024, scales of 16 under a half-precision scale of 256");
