#ifndef QUIRE_MODEL_RMS_H
#define QUIRE_MODEL_RMS_H
/* The root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467) of one row, and its derivative. */
#include <math.h>
#include <stddef.h>

#include "kernel/kernel.h"

static inline float rms_inverse(const float *x, size_t n, float eps)
{
	return 1 / sqrtf(kernels()->sum_squares(x, n) / (float)n + eps);
}

/* y[n] = x / rms(x) * (weight + one); returns 1 / rms(x). y may be x. */
static inline float rms_norm(const float *x, const float *weight, float one, size_t n, float eps, float *y)
{
	float inverse = rms_inverse(x, n, eps);
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] * inverse * (weight[i] + one);
	return inverse;
}

/* d[n], the gradient by y, becomes that by x. */
static inline void rms_norm_back(float *d, const float *x, float inverse, const float *weight, float one, size_t n)
{
	float dot = 0;
	for (size_t i = 0; i < n; i++) {
		d[i] *= weight[i] + one;
		dot += d[i] * x[i];
	}
	dot *= inverse * inverse / (float)n;
	for (size_t i = 0; i < n; i++)
		d[i] = inverse * (d[i] - x[i] * dot);
}

#endif
