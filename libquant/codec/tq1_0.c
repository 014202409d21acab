/*
 * TQ1_0: 256 ternary elements in 54 bytes, five to a byte.
 *
 *	qs[48] | qh[4] | d:f16
 *	qs byte k:       elements k + 32 t          k = 0..31, t = 0..4
 *	qs byte 32 + k:  elements 160 + k + 16 t    k = 0..15, t = 0..4
 *	qh byte k:       elements 240 + k + 4 t     k = 0..3,  t = 0..3
 *	digit t of a byte b:  q = (b 3^t mod 256) 3 / 256, rounded down
 *	value = d * (q - 1)
 *
 * A byte is ceil(256 v / 243), where the digits of v in base 3 are the codes, the first one highest (of four, the last
 * digit is 0). The 13 byte values that this never gives, and 175 of a qh byte, mean what the digits say.
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "codec/rows.h"
#include "codec/single.h"

struct tq1_0 {
	uint8_t qs[52], d[2]; /* the last four are called qh elsewhere */
};
_Static_assert(sizeof(struct tq1_0) == 54, "TQ1_0 block");

/* The fourth code is never used: its level is that of the third. */
static const float tq1_0_levels[4] = { -1, 0, 1, 1 };

/* The elements of byte k: the first, how far apart, and how many. */
struct digits {
	int first, step, count;
};

static struct digits digits_of(int k)
{
	if (k < 32)
		return (struct digits){ k, 32, 5 };
	return k < 48 ? (struct digits){ 160 + k - 32, 16, 5 } : (struct digits){ 240 + k - 48, 4, 4 };
}

static void tq1_0_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct tq1_0 *b = dst;

	(void)c, (void)n;
	store_u16(b->d, p->d);
	for (int k = 0; k < 52; k++) {
		struct digits at = digits_of(k);
		unsigned v = 0;
		for (int t = 0; t < 5; t++)
			v = 3 * v + (t < at.count ? codes[at.first + t * at.step] : 0);
		b->qs[k] = (uint8_t)((256 * v + 242) / 243);
	}
}

static void tq1_0_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct tq1_0 *b = src;

	(void)c, (void)n;
	single_expand(p, load_u16(b->d));
	for (int k = 0; k < 52; k++) {
		struct digits at = digits_of(k);
		uint8_t v = b->qs[k];
		for (int t = 0; t < at.count; t++, v = (uint8_t)(3 * v))
			codes[at.first + t * at.step] = (uint8_t)(3 * v >> 8);
	}
}

struct size_weight {
	double size, weight;
};

static int larger_first(const void *a, const void *b)
{
	double x = ((const struct size_weight *)a)->size, y = ((const struct size_weight *)b)->size;
	return (x < y) - (x > y);
}

/*
 * The best scale there is: with the k largest magnitudes at one step the least squares scale is their weighted mean, and
 * it takes (sum w |x|)^2 / sum w off the error.
 */
static float best_step(const float *x, const float *w, size_t n)
{
	struct size_weight all[256];
	double sum = 0, mass = 0, most = 0;
	float best = 0;

	for (size_t i = 0; i < n; i++)
		all[i] = (struct size_weight){ isfinite(x[i]) ? fabs((double)x[i]) : 0, w ? (isfinite(w[i]) && w[i] > 0 ? (double)w[i] : 0) : 1 };
	qsort(all, n, sizeof *all, larger_first);
	for (size_t i = 0; i < n; i++) {
		sum += all[i].size * all[i].weight;
		mass += all[i].weight;
		if (mass > 0 && sum * (sum / mass) > most) {
			most = sum * (sum / mass);
			best = (float)(sum / mass);
		}
	}
	return best;
}

static double step_error(const struct codec *c, const float *x, const float *w, size_t n, const struct block_params *p)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		double e = x[i] - (double)codec_value(c, p->scale[0], p->offset[0], codec_round(c, p->scale[0], p->offset[0], x[i]));
		sum += (w ? (double)w[i] : 1.0) * e * e;
	}
	return sum;
}

static void tq1_0_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		      struct block_params *p)
{
	struct block_params found;

	single_set(p, single_amax(x, n));
	if (effort != FIT_SEARCH)
		return;
	single_set(&found, best_step(x, w, n));
	if (found.scale[0] != 0 && !(step_error(c, x, w, n, &found) > step_error(c, x, w, n, p)))
		*p = found;
}

const struct codec codec_tq1_0 = {
	.name = "tq1_0", .summary = "ternary weights, five to a byte, a half-precision scale of 256",
	.kind = CODEC_BLOCK, .block = 256, .block_bytes = sizeof(struct tq1_0), .sub = 256,
	.bits = 2, .levels = tq1_0_levels, .gguf_type = 34, .fallback = "q4_0",
	.kernel = BLOCK_tq1_0, .decode = codec_block_decode, .dot = codec_block_dot,
	.fit = tq1_0_fit, .pack = tq1_0_pack, .unpack = tq1_0_unpack, .store = single_store,
};
