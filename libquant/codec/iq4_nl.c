/*
 * IQ4_NL: 32 elements in 18 bytes; sixteen levels that crowd around zero.
 *
 *	d:f16 | qs[16]
 *	qs byte k:  | element k + 16 | element k |   k = 0..15
 *	value = d * level[q]
 */
#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct iq4_nl {
	uint8_t d[2], qs[16];
};
_Static_assert(sizeof(struct iq4_nl) == 18, "IQ4_NL block");

/* The field's table for 4-bit codes of bell-shaped weights; part of the format. */
const float iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static const struct kquant iq4_nl = {
	.grid = {.n = 32, .subs = 1, .level_lo = -127, .level_hi = 113, .sc_lo = 1, .sc_hi = 1, .levels = iq4_levels,
		 .start_first = -32, .start_step = 6.4f, .starts = 15},
	.kind = KQ_TABLE,
};
KQUANT_METHODS(iq4_nl, iq4_nl)

static void iq4_nl_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct iq4_nl *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 16; k++)
		b->qs[k] = (uint8_t)(codes[k] | codes[k + 16] << 4);
}

static void iq4_nl_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct iq4_nl *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = 0;
	p->sc[0] = p->mn[0] = 0;
	kquant_expand(&iq4_nl, p);
	for (int k = 0; k < 16; k++) {
		codes[k] = b->qs[k] & 15;
		codes[k + 16] = b->qs[k] >> 4;
	}
}

const struct codec codec_iq4_nl = {
	.name = "iq4_nl", .summary = "4-bit codes of uneven levels, a half-precision scale of 32",
	.kind = CODEC_BLOCK, .block = 32, .block_bytes = sizeof(struct iq4_nl), .sub = 32,
	.bits = 4, .levels = iq4_levels, .gguf_type = 20, .fallback = "f16",
	.kernel = BLOCK_iq4_nl, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = iq4_nl_encode, .fit = iq4_nl_fit, .pack = iq4_nl_pack,
	.unpack = iq4_nl_unpack, .store = iq4_nl_store, .encode_search = iq4_nl_encode_search, .fit_row = iq4_nl_fit_row,
};
