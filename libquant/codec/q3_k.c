/*
 * Q3_K: 256 elements in 110 bytes, sixteen sub-blocks of 16.
 *
 *	hmask[32] | qs[64] | scales[12] | d:f16
 *	qs byte 32 h + k:     | 128 h + 96 + k | 128 h + 64 + k | 128 h + 32 + k | 128 h + k |   low two bits
 *	hmask byte k, bit j:  third bit of element 32 j + k
 *	scales[0..7]:   | low4 of j + 8 | low4 of j |
 *	scales[8..11]:  | hi2 of k + 12 | hi2 of k + 8 | hi2 of k + 4 | hi2 of k |
 *	value = d * (sc - 32) * (q - 4)
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct q3_k {
	uint8_t hmask[32], qs[64], scales[12], d[2];
};
_Static_assert(sizeof(struct q3_k) == 110, "Q3_K block");

static const struct kquant q3_k = {
	.grid = {.n = 16, .subs = 16, .level_lo = -4, .level_hi = 3, .sc_lo = -32, .sc_hi = 31,
		 .start_first = -2, .start_step = 0.4f, .starts = 15},
	.kind = KQ_SCALED,
};
KQUANT_METHODS(q3_k, q3_k)

static void q3_k_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q3_k *b = dst;

	(void)c, (void)n;
	for (int k = 0; k < 32; k++) {
		unsigned high = 0;
		for (int j = 0; j < 8; j++)
			high |= (unsigned)(codes[32 * j + k] >> 2) << j;
		b->hmask[k] = (uint8_t)high;
	}
	for (int h = 0; h < 2; h++)
		for (int k = 0; k < 32; k++) {
			const uint8_t *q = codes + 128 * h + k;
			b->qs[32 * h + k] = (uint8_t)((q[0] & 3) | (q[32] & 3) << 2 | (q[64] & 3) << 4 | (q[96] & 3) << 6);
		}
	for (int j = 0; j < 8; j++)
		b->scales[j] = (uint8_t)((p->sc[j] & 15) | (p->sc[j + 8] & 15) << 4);
	for (int k = 0; k < 4; k++)
		b->scales[8 + k] = (uint8_t)(p->sc[k] >> 4 | p->sc[k + 4] >> 4 << 2 | p->sc[k + 8] >> 4 << 4 |
					     p->sc[k + 12] >> 4 << 6);
	store_u16(b->d, p->d);
}

static void q3_k_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q3_k *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = 0;
	memset(p->mn, 0, sizeof(p->mn));
	for (int j = 0; j < 16; j++) {
		int low = b->scales[j % 8] >> (j / 8 * 4) & 15;
		p->sc[j] = (uint8_t)(low | (b->scales[8 + j % 4] >> (j / 4 * 2) & 3) << 4);
	}
	kquant_expand(&q3_k, p);
	for (int i = 0; i < 256; i++) {
		int low = b->qs[32 * (i / 128) + i % 32] >> (i % 128 / 32 * 2) & 3;
		codes[i] = (uint8_t)(low | (b->hmask[i % 32] >> (i / 32) & 1) << 2);
	}
}

const struct codec codec_q3_k = {
	.name = "q3_k", .summary = "3-bit codes, 6-bit scales of 16 under a half-precision scale of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct q3_k), .sub = 16,
	.bits = 3, .code_bias = -4, .gguf_type = 11, .fallback = "q4_0",
	.kernel = BLOCK_q3_k, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = q3_k_encode, .fit = q3_k_fit, .pack = q3_k_pack, .unpack = q3_k_unpack,
	.store = q3_k_store, .encode_search = q3_k_encode_search, .fit_row = q3_k_fit_row,
};
