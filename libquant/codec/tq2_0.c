/*
 * TQ2_0: 256 elements in 66 bytes; made for ternary weights, though two bits have a fourth level.
 *
 *	qs[64] | d:f16
 *	qs byte 32 h + k:  | 128 h + 96 + k | 128 h + 64 + k | 128 h + 32 + k | 128 h + k |   h = 0..1, k = 0..31
 *	value = d * (q - 1)
 *
 * The plain rule gives -1, 0 and 1 with the largest magnitude as step, so that ternary weights keep their values. The
 * search uses the fourth level, 2, and negative scales as well.
 */
#include "base/bytes.h"
#include "codec/rows.h"
#include "codec/single.h"

struct tq2_0 {
	uint8_t qs[64], d[2];
};
_Static_assert(sizeof(struct tq2_0) == 66, "TQ2_0 block");

static void tq2_0_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct tq2_0 *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 64; k++) {
		const uint8_t *q = codes + 128 * (k / 32) + k % 32;
		b->qs[k] = (uint8_t)(q[0] | q[32] << 2 | q[64] << 4 | q[96] << 6);
	}
}

static void tq2_0_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct tq2_0 *b = src;

	(void)c, (void)n;
	single_expand(p, load_u16(b->d));
	for (int i = 0; i < 256; i++)
		codes[i] = b->qs[32 * (i / 128) + i % 32] >> (i % 128 / 32 * 2) & 3;
}

const struct codec codec_tq2_0 = {
	.name = "tq2_0", .summary = "ternary weights in 2-bit codes, a half-precision scale of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct tq2_0), .sub = 256,
	.bits = 2, .code_bias = -1, .gguf_type = 35, .fallback = "q4_0",
	.kernel = BLOCK_tq2_0, .decode = codec_block_decode, .dot = codec_block_dot,
	.fit = single_fit, .pack = tq2_0_pack, .unpack = tq2_0_unpack, .store = single_store,
};
