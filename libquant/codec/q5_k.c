/*
 * Q5_K: 256 elements in 176 bytes, eight sub-blocks of 32.
 *
 *	d:f16 | dmin:f16 | scales[12] | qh[32] | qs[128]
 *	qs byte 32 h + k:  | low4 of element 64 h + 32 + k | low4 of element 64 h + k |   h = 0..3, k = 0..31
 *	qh byte k, bit j:  fifth bit of element 32 j + k
 *	value = d * sc * q - dmin * mn
 */
#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct q5_k {
	uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
};
_Static_assert(sizeof(struct q5_k) == 176, "Q5_K block");

static const struct kquant q5_k = {
	.grid = {.n = 32, .subs = 8, .level_lo = 0, .level_hi = 31, .sc_lo = 0, .sc_hi = 63, .mn_hi = 63},
	.kind = KQ_AFFINE,
};
KQUANT_METHODS(q5_k, q5_k)

static void q5_k_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q5_k *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	store_u16(b->dmin, p->dmin);
	kquant_pack_6bit(p->sc, p->mn, b->scales);
	for (int k = 0; k < 32; k++) {
		unsigned high = 0;
		for (int j = 0; j < 8; j++)
			high |= (unsigned)(codes[32 * j + k] >> 4) << j;
		b->qh[k] = (uint8_t)high;
	}
	for (int h = 0; h < 4; h++)
		for (int k = 0; k < 32; k++)
			b->qs[32 * h + k] = (uint8_t)((codes[64 * h + k] & 15) | codes[64 * h + 32 + k] << 4);
}

static void q5_k_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q5_k *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = load_u16(b->dmin);
	kquant_unpack_6bit(b->scales, p->sc, p->mn);
	kquant_expand(&q5_k, p);
	for (int i = 0; i < 256; i++) {
		int low = b->qs[32 * (i / 64) + i % 32] >> (i % 64 / 32 * 4) & 15;
		codes[i] = (uint8_t)(low | (b->qh[i % 32] >> (i / 32) & 1) << 4);
	}
}

const struct codec codec_q5_k = {
	.name = "q5_k", .summary = "5-bit codes, 6-bit scales and offsets of 32 under two half-precision scales of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct q5_k), .sub = 32, .has_offset = true,
	.bits = 5, .gguf_type = 13, .fallback = "q5_1",
	.kernel = BLOCK_q5_k, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = q5_k_encode, .fit = q5_k_fit, .pack = q5_k_pack, .unpack = q5_k_unpack,
	.store = q5_k_store, .encode_search = q5_k_encode_search, .fit_row = q5_k_fit_row,
};
