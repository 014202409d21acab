#ifndef QUIRE_MODEL_NORM_H
#define QUIRE_MODEL_NORM_H
/* Norms of one row, and their derivatives: by root mean square (Zhang and Sennrich, arXiv 1910.07467), and by mean and deviation. */
#include <math.h>
#include <stddef.h>

#include "kernel/kernel.h"
#include "model/arch.h"

struct norm {
	enum norm_kind kind;
	const float *weight, *bias; /* [n]; weight NULL: ones, not of NORM_LAYER; bias NULL: none */
	size_t n;
	float eps;
};

struct moments_of_row {
	float mean, inverse;        /* of the deviation */
};

static inline struct moments_of_row norm_moments(const struct norm *a, const float *x)
{
	double mean = 0, square = 0;
	for (size_t i = 0; i < a->n; i++)
		mean += x[i];
	mean /= (double)a->n;
	for (size_t i = 0; i < a->n; i++)
		square += (x[i] - mean) * (x[i] - mean);
	return (struct moments_of_row){ (float)mean, (float)(1 / sqrt(square / (double)a->n + a->eps)) };
}

static inline float norm_inverse_rms(const struct norm *a, const float *x)
{
	return 1 / sqrtf(kernels()->sum_squares(x, a->n) / (float)a->n + a->eps);
}

/* y may be x. */
static inline void norm_row(const struct norm *a, const float *x, float *y)
{
	float one = a->kind == NORM_RMS_PLUS_ONE ? 1 : 0;
	if (a->kind == NORM_LAYER) {
		struct moments_of_row m = norm_moments(a, x);
		for (size_t i = 0; i < a->n; i++)
			y[i] = (x[i] - m.mean) * m.inverse * a->weight[i] + (a->bias ? a->bias[i] : 0);
		return;
	}
	float inverse = norm_inverse_rms(a, x);
	for (size_t i = 0; i < a->n; i++)
		y[i] = x[i] * inverse * (a->weight ? a->weight[i] + one : 1);
}

/* d, the gradient by y, becomes that by x. */
static inline void norm_row_back(const struct norm *a, const float *x, float *d)
{
	float one = a->kind == NORM_RMS_PLUS_ONE ? 1 : 0, dot = 0, sum = 0;
	if (a->kind == NORM_LAYER) {
		struct moments_of_row m = norm_moments(a, x);
		for (size_t i = 0; i < a->n; i++) {
			d[i] *= a->weight[i];
			sum += d[i];
			dot += d[i] * (x[i] - m.mean) * m.inverse;
		}
		for (size_t i = 0; i < a->n; i++)
			d[i] = m.inverse * (d[i] - (sum + (x[i] - m.mean) * m.inverse * dot) / (float)a->n);
		return;
	}
	float inverse = norm_inverse_rms(a, x);
	for (size_t i = 0; i < a->n; i++) {
		d[i] *= a->weight ? a->weight[i] + one : 1;
		dot += d[i] * x[i];
	}
	dot *= inverse * inverse / (float)a->n;
	for (size_t i = 0; i < a->n; i++)
		d[i] = inverse * (d[i] - x[i] * dot);
}

#endif
