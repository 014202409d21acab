/*
 * Q2_0: 64 elements in 18 bytes; four evenly spaced levels, one more on the scale's side.
 *
 *	d:f16 | qs[16]
 *	qs byte k:  | element 4 k + 3 | 4 k + 2 | 4 k + 1 | 4 k |   two bits each
 *	value = d * (q - 1)
 *
 * The plain rule uses three of the levels: the largest magnitude is one step. The search uses all four, and
 * negative scales.
 */
#include "base/bytes.h"
#include "codec/rows.h"
#include "codec/single.h"

struct q2_0 {
	uint8_t d[2], qs[16];
};
_Static_assert(sizeof(struct q2_0) == 18, "Q2_0 block");

static void q2_0_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q2_0 *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 16; k++) {
		const uint8_t *q = codes + 4 * k;
		b->qs[k] = (uint8_t)(q[0] | q[1] << 2 | q[2] << 4 | q[3] << 6);
	}
}

static void q2_0_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q2_0 *b = src;

	(void)c, (void)n;
	single_expand(p, load_u16(b->d));
	for (int i = 0; i < 64; i++)
		codes[i] = b->qs[i / 4] >> i % 4 * 2 & 3;
}

const struct codec codec_q2_0 = {
	.name = "q2_0", .summary = "2-bit codes, a half-precision scale of 64",
	.kind = CODEC_BLOCK, .block = 64, .block_bytes = sizeof(struct q2_0), .sub = 64,
	.bits = 2, .code_bias = -1, .gguf_type = 42, .fallback = "q4_0",
	.kernel = BLOCK_q2_0, .decode = codec_block_decode, .dot = codec_block_dot,
	.fit = single_fit, .pack = q2_0_pack, .unpack = q2_0_unpack, .store = single_store,
};
