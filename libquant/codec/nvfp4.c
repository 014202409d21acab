/*
 * NVFP4 as ggml stores it: 64 elements in 36 bytes; E2M1 codes under an E4M3 scale per 16.
 *
 *	d[4] | qs[32]
 *	qs byte 8 j + k:  | element 16 j + 8 + k | element 16 j + k |   j = 0..3, k = 0..7
 *	code:             | sign | magnitude 3 |
 *	value = unit(d[j]) * level[q], the levels doubled so that they are integers
 *
 * unit is half the E4M3 number, the sign bit ignored; 0x7f is 0. A second scale of the whole tensor, where there is one, is
 * another tensor.
 */
#include <math.h>
#include <string.h>

#include "codec/rows.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

struct nvfp4 {
	uint8_t d[4], qs[32];
};
_Static_assert(sizeof(struct nvfp4) == 36, "NVFP4 block");

static const float nvfp4_levels[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

enum { NVFP4_TOP = 0x7e }; /* 448 */

static float nvfp4_unit(unsigned b)
{
	int exponent = (int)(b >> 3 & 15), fraction = (int)(b & 7);
	if (b == 0x7f)
		return 0;
	return exponent ? ldexpf((float)(8 + fraction), exponent - 11) : ldexpf((float)fraction, -10);
}

/* The byte whose unit is nearest. */
static uint8_t nvfp4_byte(float unit)
{
	int lo = 0, hi = NVFP4_TOP;

	if (!(unit > 0))
		return 0;
	while (lo < hi) { /* the largest that is not above */
		int mid = (lo + hi + 1) / 2;
		if (nvfp4_unit((unsigned)mid) <= unit)
			lo = mid;
		else
			hi = mid - 1;
	}
	if (lo < NVFP4_TOP && nvfp4_unit((unsigned)lo + 1) - unit < unit - nvfp4_unit((unsigned)lo))
		lo++;
	return (uint8_t)lo;
}

static void nvfp4_set(struct block_params *p, int j, uint8_t byte)
{
	p->sc[j] = byte;
	p->scale[j] = nvfp4_unit(byte);
	p->offset[j] = -0.0f;
}

/* The squared error of 16 elements under a unit. */
static double nvfp4_error(const float *x, const float *w, float unit)
{
	double sum = 0;

	for (int i = 0; i < 16; i++) {
		double t = unit > 0 ? fabs((double)x[i]) / (double)unit : 0;
		/* steps of 1 up to 4, of 2 up to 8, of 4 up to 12 */
		double q = t < 4 ? rint(t) : t < 8 ? 2 * rint(t / 2) : t < 12 ? 4 * rint(t / 4) : 12;
		double r = fabs((double)x[i]) - q * (double)unit;
		sum += (w ? (double)w[i] : 1.0) * r * r;
	}
	return sum;
}

/* One step of the scale byte is an eighth: from what clips nothing a third up, and down to twice the range. */
static uint8_t nvfp4_search(const float *x, const float *w, uint8_t plain)
{
	double best = nvfp4_error(x, w, nvfp4_unit(plain));
	uint8_t found = plain;

	for (int b = plain + 3 < NVFP4_TOP ? plain + 3 : NVFP4_TOP; b >= 0 && b >= plain - 8; b--) {
		double err = nvfp4_error(x, w, nvfp4_unit((unsigned)b));
		if (err < best) {
			best = err;
			found = (uint8_t)b;
		}
	}
	return found;
}

static void nvfp4_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		      struct block_params *p)
{
	(void)c, (void)n;
	p->d = p->dmin = 0;
	memset(p->mn, 0, sizeof p->mn);
	for (int j = 0; j < 4; j++, x += 16) {
		float top = 0;
		for (int i = 0; i < 16; i++)
			if (fabsf(x[i]) > top)
				top = fabsf(x[i]);
		uint8_t byte = nvfp4_byte(top / 12);
		if (effort == FIT_SEARCH && isfinite(top))
			byte = nvfp4_search(x, w ? w + 16 * j : NULL, byte);
		nvfp4_set(p, j, byte);
	}
}

static void nvfp4_store(const struct codec *c, struct block_params *p, size_t n)
{
	(void)c, (void)n;
	p->d = p->dmin = 0;
	memset(p->mn, 0, sizeof p->mn);
	for (int j = 0; j < 4; j++)
		nvfp4_set(p, j, nvfp4_byte(fabsf(p->scale[j])));
}

static void nvfp4_pack(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst)
{
	struct nvfp4 *b = dst;

	(void)c, (void)n;
	memcpy(b->d, p->sc, 4);
	for (int k = 0; k < 32; k++) {
		const uint8_t *q = codes + 16 * (k / 8) + k % 8;
		b->qs[k] = (uint8_t)(q[0] | q[8] << 4);
	}
}

static void nvfp4_unpack(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n)
{
	const struct nvfp4 *b = src;

	(void)c, (void)n;
	p->d = p->dmin = 0;
	memset(p->mn, 0, sizeof p->mn);
	for (int j = 0; j < 4; j++)
		nvfp4_set(p, j, b->d[j]);
	for (int k = 0; k < 32; k++) {
		uint8_t *q = codes + 16 * (k / 8) + k % 8;
		q[0] = b->qs[k] & 15;
		q[8] = b->qs[k] >> 4;
	}
}

const struct codec codec_nvfp4 = {
	.name = "nvfp4", .summary = "4-bit floats (E2M1) under an 8-bit float per 16, as NVIDIA's",
	.kind = CODEC_BLOCK, .block = 64, .block_bytes = sizeof(struct nvfp4), .sub = 16,
	.bits = 4, .levels = nvfp4_levels, .gguf_type = 40, .fallback = "mxfp4",
	.kernel = BLOCK_nvfp4, .decode = codec_block_decode, .dot = codec_block_dot,
	.fit = nvfp4_fit, .pack = nvfp4_pack, .unpack = nvfp4_unpack, .store = nvfp4_store,
};
