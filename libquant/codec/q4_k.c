/*
 * Q4_K: 256 elements in 144 bytes, eight sub-blocks of 32.
 *
 *	d:f16 | dmin:f16 | scales[12] | qs[128]
 *	qs byte 32 h + k:  | element 64 h + 32 + k | element 64 h + k |   h = 0..3, k = 0..31
 *	value = d * sc * q - dmin * mn
 */
#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct q4_k {
	uint8_t d[2], dmin[2], scales[12], qs[128];
};
_Static_assert(sizeof(struct q4_k) == 144, "Q4_K block");

static const struct kquant q4_k = {
	.grid = {.n = 32, .subs = 8, .level_lo = 0, .level_hi = 15, .sc_lo = 0, .sc_hi = 63, .mn_hi = 63},
	.kind = KQ_AFFINE,
};
KQUANT_METHODS(q4_k, q4_k)

static void q4_k_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q4_k *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	store_u16(b->dmin, p->dmin);
	kquant_pack_6bit(p->sc, p->mn, b->scales);
	for (int h = 0; h < 4; h++)
		for (int k = 0; k < 32; k++)
			b->qs[32 * h + k] = (uint8_t)(codes[64 * h + k] | codes[64 * h + 32 + k] << 4);
}

static void q4_k_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q4_k *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = load_u16(b->dmin);
	kquant_unpack_6bit(b->scales, p->sc, p->mn);
	kquant_expand(&q4_k, p);
	for (int h = 0; h < 4; h++)
		for (int k = 0; k < 32; k++) {
			codes[64 * h + k] = b->qs[32 * h + k] & 15;
			codes[64 * h + 32 + k] = b->qs[32 * h + k] >> 4;
		}
}

const struct codec codec_q4_k = {
	.name = "q4_k", .summary = "4-bit codes, 6-bit scales and offsets of 32 under two half-precision scales of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct q4_k), .sub = 32, .has_offset = true,
	.bits = 4, .gguf_type = 12, .fallback = "q5_0",
	.kernel = BLOCK_q4_k, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = q4_k_encode, .fit = q4_k_fit, .pack = q4_k_pack, .unpack = q4_k_unpack,
	.store = q4_k_store, .encode_search = q4_k_encode_search, .fit_row = q4_k_fit_row,
};
