/*
 * Q1_0: 128 elements in 18 bytes; a sign each, under one scale.
 *
 *	d:f16 | qs[16]
 *	qs byte k:  | element 8 k + 7 | ... | element 8 k |
 *	value = q ? d : -d
 */
#include "base/bytes.h"
#include "codec/rows.h"
#include "codec/single.h"

struct q1_0 {
	uint8_t d[2], qs[16];
};
_Static_assert(sizeof(struct q1_0) == 18, "Q1_0 block");

static const float q1_0_levels[2] = { -1, 1 };

/*
 * The mean magnitude is the plain rule, and with every sign kept also the least squares scale; weighted it is the
 * weighted mean.
 */
static void q1_0_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		     struct block_params *p)
{
	double sum = 0, all = 0;

	(void)c;
	for (size_t i = 0; i < n; i++) {
		double k = w && effort == FIT_SEARCH ? (double)w[i] : 1;
		if (!isfinite(x[i]) || !(k >= 0) || !isfinite(k))
			continue;
		sum += k * fabs((double)x[i]);
		all += k;
	}
	if (!(all > 0) && w && effort == FIT_SEARCH)
		q1_0_fit(c, x, NULL, n, effort, p);
	else
		single_set(p, all > 0 ? (float)(sum / all) : 0);
}

static void q1_0_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct q1_0 *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 16; k++) {
		b->qs[k] = 0;
		for (int i = 0; i < 8; i++)
			b->qs[k] |= (uint8_t)(codes[8 * k + i] << i);
	}
}

static void q1_0_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct q1_0 *b = src;

	(void)c, (void)n;
	single_expand(p, load_u16(b->d));
	for (int i = 0; i < 128; i++)
		codes[i] = b->qs[i / 8] >> i % 8 & 1;
}

const struct codec codec_q1_0 = {
	.name = "q1_0", .summary = "signs alone, a half-precision scale of 128",
	.kind = CODEC_BLOCK, .block = 128, .block_bytes = sizeof(struct q1_0), .sub = 128,
	.bits = 1, .levels = q1_0_levels, .gguf_type = 41, .fallback = "q4_0",
	.kernel = BLOCK_q1_0, .decode = codec_block_decode, .dot = codec_block_dot,
	.fit = q1_0_fit, .pack = q1_0_pack, .unpack = q1_0_unpack, .store = single_store,
};
