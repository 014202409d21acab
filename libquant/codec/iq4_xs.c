/*
 * IQ4_XS: 256 elements in 136 bytes; the levels of IQ4_NL, eight sub-blocks of 32.
 *
 *	d:f16 | scales_h:u16 | scales_l[4] | qs[128]
 *	scales_l byte k:   | low4 of sub-block 2 k + 1 | low4 of sub-block 2 k |
 *	scales_h:          two high bits of sub-block j at bit 2 j
 *	qs byte 16 j + k:  | element 32 j + 16 + k | element 32 j + k |   k = 0..15
 *	value = d * (sc - 32) * level[q]
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct iq4_xs {
	uint8_t d[2], scales_h[2], scales_l[4], qs[128];
};
_Static_assert(sizeof(struct iq4_xs) == 136, "IQ4_XS block");

static const struct kquant iq4_xs = {
	.grid = {.n = 32, .subs = 8, .level_lo = -127, .level_hi = 113, .sc_lo = -32, .sc_hi = 31,
		 .levels = iq4_levels,
		 .start_first = -32, .start_step = 6.4f, .starts = 15},
	.kind = KQ_TABLE,
};
KQUANT_METHODS(iq4_xs, iq4_xs)

static void iq4_xs_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq4_xs *b = dst;
	unsigned high = 0;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int j = 0; j < 8; j++)
		high |= (unsigned)(p->sc[j] >> 4) << 2 * j;
	store_u16(b->scales_h, (uint16_t)high);
	for (int k = 0; k < 4; k++)
		b->scales_l[k] = (uint8_t)((p->sc[2 * k] & 15) | (p->sc[2 * k + 1] & 15) << 4);
	for (int j = 0; j < 8; j++)
		for (int k = 0; k < 16; k++)
			b->qs[16 * j + k] = (uint8_t)(codes[32 * j + k] | codes[32 * j + 16 + k] << 4);
}

static void iq4_xs_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq4_xs *b = src;
	unsigned high = load_u16(b->scales_h);

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = 0;
	memset(p->mn, 0, sizeof(p->mn));
	for (int j = 0; j < 8; j++)
		p->sc[j] = (uint8_t)((b->scales_l[j / 2] >> (j % 2 * 4) & 15) | (high >> 2 * j & 3) << 4);
	kquant_expand(&iq4_xs, p);
	for (int j = 0; j < 8; j++)
		for (int k = 0; k < 16; k++) {
			codes[32 * j + k] = b->qs[16 * j + k] & 15;
			codes[32 * j + 16 + k] = b->qs[16 * j + k] >> 4;
		}
}

const struct codec codec_iq4_xs = {
	.name = "iq4_xs", .summary = "4-bit codes of uneven levels, 6-bit scales of 32 under a half-precision scale of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct iq4_xs), .sub = 32,
	.bits = 4, .levels = iq4_levels, .gguf_type = 23, .fallback = "iq4_nl",
	.kernel = BLOCK_iq4_xs, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = iq4_xs_encode, .fit = iq4_xs_fit, .pack = iq4_xs_pack,
	.unpack = iq4_xs_unpack, .store = iq4_xs_store, .encode_search = iq4_xs_encode_search, .fit_row = iq4_xs_fit_row,
};
