/*
 * Q6_K: 256 elements in 210 bytes, sixteen sub-blocks of 16.
 *
 *	ql[128] | qh[64] | scales[16] int8 | d:f16
 *	element i, h = i / 128, r = i mod 128:
 *	low four   ql[64 h + r mod 64], nibble r / 64
 *	high two   qh[32 h + r mod 32], bits 2 (r / 32) and up
 *	value = d * scales[i / 16] * (q - 32)
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/kquant.h"
#include "codec/rows.h"
#include "kernel/kernel.h"

struct q6_k {
	uint8_t ql[128], qh[64], scales[16], d[2];
};
_Static_assert(sizeof(struct q6_k) == 210, "Q6_K block");

static const struct kquant q6_k = {
	.grid = {.n = 16, .subs = 16, .level_lo = -32, .level_hi = 31, .sc_lo = -128, .sc_hi = 127,
		 .start_first = -10, .start_step = 0.65f, .starts = 34},
	.kind = KQ_SCALED,
};
KQUANT_METHODS(q6_k, q6_k)

static void q6_k_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q6_k *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	memcpy(b->scales, p->sc, 16);
	for (int h = 0; h < 2; h++)
		for (int k = 0; k < 32; k++) {
			const uint8_t *q = codes + 128 * h + k;
			b->ql[64 * h + k] = (uint8_t)((q[0] & 15) | q[64] << 4);
			b->ql[64 * h + 32 + k] = (uint8_t)((q[32] & 15) | q[96] << 4);
			b->qh[32 * h + k] = (uint8_t)(q[0] >> 4 | q[32] >> 4 << 2 | q[64] >> 4 << 4 | q[96] >> 4 << 6);
		}
}

static void q6_k_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q6_k *b = src;

	(void)c, (void)n;
	p->d = load_u16(b->d);
	p->dmin = 0;
	memcpy(p->sc, b->scales, 16);
	memset(p->mn, 0, sizeof(p->mn));
	kquant_expand(&q6_k, p);
	for (int i = 0; i < 256; i++) {
		int h = i / 128, r = i % 128;
		int low = b->ql[64 * h + r % 64] >> (r / 64 * 4) & 15;
		codes[i] = (uint8_t)(low | (b->qh[32 * h + r % 32] >> (r / 32 * 2) & 3) << 4);
	}
}

const struct codec codec_q6_k = {
	.name = "q6_k", .summary = "6-bit codes, 8-bit scales of 16 under a half-precision scale of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct q6_k), .sub = 16,
	.bits = 6, .code_bias = -32, .gguf_type = 14, .fallback = "q8_0",
	.kernel = BLOCK_q6_k, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = q6_k_encode, .fit = q6_k_fit, .pack = q6_k_pack, .unpack = q6_k_unpack,
	.store = q6_k_store, .encode_search = q6_k_encode_search, .fit_row = q6_k_fit_row,
};
