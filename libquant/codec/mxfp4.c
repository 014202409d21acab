/*
 * MXFP4 (OCP Microscaling Formats): 32 elements in 17 bytes; E2M1 codes under a power of two.
 *
 *	e:u8 | qs[16]
 *	qs byte k:  | element k + 16 | element k |   k = 0..15
 *	code:       | sign | magnitude 3 |
 *	value = 2^(e - 128) * level[q], the levels doubled so that they are integers
 */
#include <math.h>
#include <string.h>

#include "codec/rows.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

struct mxfp4 {
	uint8_t e, qs[16];
};
_Static_assert(sizeof(struct mxfp4) == 17, "MXFP4 block");

static const float mxfp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* The largest exponent byte under which every level is a finite float: 12 * 2^(252 - 128). */
enum { MXFP4_TOP = 252 };

static float mxfp4_scale(int e)
{
	return ldexpf(1.0f, e - 128);
}

/* The squared error of a block under exponent byte e. */
static double mxfp4_error(const float *x, const float *w, size_t n, int e)
{
	double sum = 0;
	double inv = ldexp(1.0, 128 - e), step = ldexp(1.0, e - 128);

	for (size_t i = 0; i < n; i++) {
		double t = fabs((double)x[i]) * inv;
		/* steps of 1 up to 4, of 2 up to 8, of 4 up to 12 */
		double q = t < 4 ? rint(t) : t < 8 ? 2 * rint(t / 2) : t < 12 ? 4 * rint(t / 4) : 12;
		double r = (t - q) * step;
		sum += (w ? (double)w[i] : 1.0) * r * r;
	}
	return sum;
}

static void mxfp4_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		      struct block_params *p)
{
	float top = 0;
	int e = 0;

	(void)c;
	for (size_t i = 0; i < n; i++)
		if (fabsf(x[i]) > top)
			top = fabsf(x[i]);
	if (top > 0) {
		/* floor(log2(top)) - 2 + 127: the largest element falls into the last octave of E2M1 */
		int exponent;
		frexpf(isfinite(top) ? top : 0x1p127f, &exponent);
		e = exponent - 1 - 2 + 127;
		e = e < 0 ? 0 : e > MXFP4_TOP ? MXFP4_TOP : e;
	}
	if (effort == FIT_SEARCH && top > 0 && isfinite(top)) {
		double best = mxfp4_error(x, w, n, e);
		int plain = e;
		/* one octave up spares clipping; octaves down pay where the large elements matter little */
		for (int t = plain < MXFP4_TOP ? plain + 1 : plain; t >= 0 && t >= plain - 3; t--) {
			double err = mxfp4_error(x, w, n, t);
			if (err < best) {
				best = err;
				e = t;
			}
		}
	}
	p->d = (uint16_t)e;
	p->dmin = 0;
	p->scale[0] = mxfp4_scale(e);
	p->offset[0] = -0.0f;
}

/* The power of two nearest to the free scale, in the ratio. */
static void mxfp4_store(const struct codec *c, struct block_params *p, size_t n)
{
	int exponent;
	float m = frexpf(fabsf(p->scale[0]), &exponent);

	(void)c, (void)n;
	int e = m == 0 ? 0 : exponent - 1 + (m > 0.70710678f) + 128;
	e = !isfinite(p->scale[0]) ? MXFP4_TOP : e < 0 ? 0 : e > MXFP4_TOP ? MXFP4_TOP : e;
	p->d = (uint16_t)e;
	p->dmin = 0;
	p->scale[0] = mxfp4_scale(e);
	p->offset[0] = -0.0f;
}

static void mxfp4_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct mxfp4 *b = dst;

	(void)c, (void)n;
	b->e = (uint8_t)p->d;
	for (int k = 0; k < 16; k++)
		b->qs[k] = (uint8_t)(codes[k] | codes[k + 16] << 4);
}

static void mxfp4_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct mxfp4 *b = src;

	(void)c, (void)n;
	p->d = b->e;
	p->dmin = 0;
	p->scale[0] = mxfp4_scale(b->e);
	p->offset[0] = -0.0f;
	for (int k = 0; k < 16; k++) {
		codes[k] = b->qs[k] & 15;
		codes[k + 16] = b->qs[k] >> 4;
	}
}

static void mxfp4_rows(const struct codec *c, const float *src, const float *w, enum fit_effort effort, uint8_t *dst,
		       size_t n)
{
	struct block_params p;
	uint8_t codes[32];

	for (size_t at = 0; at < n; at += 32, dst += sizeof(struct mxfp4)) {
		mxfp4_fit(c, src + at, w ? w + at : NULL, 32, effort, &p);
		codec_round_run(c, p.scale[0], p.offset[0], src + at, 32, codes);
		mxfp4_pack(c, &p, codes, 32, dst);
	}
}

static void mxfp4_encode(const struct codec *c, const float *src, void *dst, size_t n)
{
	mxfp4_rows(c, src, NULL, FIT_RTN, dst, n);
}

static void mxfp4_encode_search(const struct codec *c, const float *src, const float *w, void *dst, size_t n)
{
	mxfp4_rows(c, src, w, FIT_SEARCH, dst, n);
}

const struct codec codec_mxfp4 = {
	.name = "mxfp4", .summary = "4-bit floats (E2M1) under a power of two per 32, as OCP MX",
	.kind = CODEC_BLOCK, .block = 32, .block_bytes = sizeof(struct mxfp4), .sub = 32,
	.bits = 4, .levels = mxfp4_levels, .gguf_type = 39, .fallback = "f16",
	.kernel = BLOCK_mxfp4, .decode = codec_block_decode, .dot = codec_block_dot,
	.encode = mxfp4_encode, .fit = mxfp4_fit, .pack = mxfp4_pack, .unpack = mxfp4_unpack,
	.store = mxfp4_store, .encode_search = mxfp4_encode_search,
};
