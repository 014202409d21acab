/*
 * Q2_K: 256 elements in 84 bytes, sixteen sub-blocks of 16.
 *
 *	scales[16] | qs[64] | d:f16 | dmin:f16
 *	scales[j]:         | mn 4 | sc 4 |
 *	qs byte 32 h + k:  | 128 h + 96 + k | 128 h + 64 + k | 128 h + 32 + k | 128 h + k |   h = 0..1, k = 0..31
 *	value = d * sc * q - dmin * mn
 */
#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct q2_k {
	uint8_t scales[16], qs[64], d[2], dmin[2];
};
_Static_assert(sizeof(struct q2_k) == 84, "Q2_K block");

static const struct kquant q2_k = {
	.grid = {.n = 16, .subs = 16, .level_lo = 0, .level_hi = 3, .sc_lo = 0, .sc_hi = 15, .mn_hi = 15},
	.kind = KQ_AFFINE,
};
KQUANT_METHODS(q2_k, q2_k)

static void q2_k_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q2_k *b = dst;

	(void)c, (void)n;
	for (int j = 0; j < 16; j++)
		b->scales[j] = (uint8_t)(p->sc[j] | p->mn[j] << 4);
	for (int h = 0; h < 2; h++)
		for (int k = 0; k < 32; k++) {
			const uint8_t *q = codes + 128 * h + k;
			b->qs[32 * h + k] = (uint8_t)(q[0] | q[32] << 2 | q[64] << 4 | q[96] << 6);
		}
	store_u16(b->d, p->d);
	store_u16(b->dmin, p->dmin);
}

static void q2_k_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q2_k *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = load_u16(b->dmin);
	for (int j = 0; j < 16; j++) {
		p->sc[j] = b->scales[j] & 15;
		p->mn[j] = b->scales[j] >> 4;
	}
	kquant_expand(&q2_k, p);
	for (int i = 0; i < 256; i++)
		codes[i] = b->qs[32 * (i / 128) + i % 32] >> (i % 128 / 32 * 2) & 3;
}

const struct codec codec_q2_k = {
	.name = "q2_k", .summary = "2-bit codes, 4-bit scales and offsets of 16 under two half-precision scales of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct q2_k), .sub = 16, .has_offset = true,
	.bits = 2, .gguf_type = 10, .fallback = "q4_0",
	.kernel = BLOCK_q2_k, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = q2_k_encode, .fit = q2_k_fit, .pack = q2_k_pack, .unpack = q2_k_unpack,
	.store = q2_k_store, .encode_search = q2_k_encode_search, .fit_row = q2_k_fit_row,
};
