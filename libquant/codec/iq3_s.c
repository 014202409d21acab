/*
 * IQ3_S: 256 elements in 110 bytes; a codebook of 512 for four elements, signs of their own, 4-bit scales of 32.
 *
 *	d:f16 | qs[64] | qh[8] | signs[32] | scales[4]
 *	qs byte k:       low eight bits of the entry of elements 4 k ...        k = 0..63
 *	qh byte j:       bit k: the ninth bit of entry 8 j + k
 *	signs byte k:    bit i: element 8 k + i
 *	scales byte j:   | sc of sub-block 2 j + 1 | 2 j |                      j = 0..3
 *	value = d * (2 sc + 1) * level
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/lattice.h"
#include "codec/rows.h"
#include "kernel/grids.h"

struct iq3_s {
	uint8_t d[2], qs[64], qh[8], signs[32], scales[4];
};
_Static_assert(sizeof(struct iq3_s) == 110, "IQ3_S block");

static const struct lattice iq3_s = {
	.grid = iq3_s_grid, .count = 512, .width = 4, .field = 3, .signs = SIGNS_FREE, .magnitude = lattice_iq3_s_levels + 8,
	.scale_len = 32, .multiples = 16, .first = 1, .step = 2, .table = 4,
};

static void iq3_s_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq3_s *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	memset(b->qh, 0, sizeof b->qh);
	for (int k = 0; k < 64; k++) {
		unsigned index = lattice_index(&iq3_s, codes + 4 * k);
		b->qs[k] = (uint8_t)index;
		b->qh[k / 8] |= (uint8_t)(index >> 8 << k % 8);
	}
	for (int k = 0; k < 32; k++)
		b->signs[k] = (uint8_t)lattice_negative(&iq3_s, codes + 8 * k);
	for (int j = 0; j < 4; j++)
		b->scales[j] = (uint8_t)(p->sc[2 * j] | p->sc[2 * j + 1] << 4);
}

static void iq3_s_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq3_s *b = src;

	(void)n;
	memset(p, 0, sizeof *p);
	p->d = load_u16(b->d);
	for (int j = 0; j < 8; j++)
		p->sc[j] = b->scales[j / 2] >> j % 2 * 4 & 15;
	for (int k = 0; k < 64; k++)
		lattice_codes(&iq3_s, b->qs[k] | (b->qh[k / 8] >> k % 8 & 1u) << 8, b->signs[k / 2] >> k % 2 * 4, codes + 4 * k);
	lattice_expand(c, p);
}

LATTICE_ROW(iq3_s, iq3_s, sizeof(struct iq3_s), 32, 4, lattice_iq3_s_levels, 21, "iq4_nl",
	    "3-bit codebook of 512, scales of 32 under a half-precision scale of 256");
