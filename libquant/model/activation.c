#include "model/activation.h"

#include <math.h>
#include <string.h>

#include "kernel/kernel.h"

/* sqrt(2 / pi), 1 / sqrt(2), 1 / sqrt(2 pi) */
#define TANH_SCALE 0.79788456080286535588f
#define ERF_SCALE 0.70710678118654752440f
#define QUICK_SCALE 1.702f
#define DENSITY 0.39894228040143267794f

static float of(enum activation act, float x)
{
	switch (act) {
	case ACT_SILU: return x / (1 + expf(-x));
	case ACT_GELU_TANH: return 0.5f * x * (1 + tanhf(TANH_SCALE * (x + 0.044715f * x * x * x)));
	case ACT_GELU_ERF: return 0.5f * x * (1 + erff(x * ERF_SCALE));
	case ACT_GELU_QUICK: return x / (1 + expf(-QUICK_SCALE * x));
	case ACT_RELU: return x > 0 ? x : 0;
	case ACT_RELU2: return x > 0 ? x * x : 0;
	}
	return x;
}

void activation_run(enum activation act, const float *g, const float *up, float *y, size_t n)
{
	if (act == ACT_SILU && up) {
		if (y != g)
			memcpy(y, g, n * sizeof *y);
		kernels()->silu_mul(y, up, n);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float a = of(act, g[i]);
		y[i] = up ? a * up[i] : a;
	}
}

static void silu_slope(const float *g, float *y, float *slope, size_t n)
{
	for (size_t i = 0; i < n; i++)
		slope[i] = 1;
	memcpy(y, g, n * sizeof *y);
	kernels()->silu_mul(y, slope, n);
	for (size_t i = 0; i < n; i++) {
		float a = y[i], sigmoid = fabsf(g[i]) > 1e-3f ? a / g[i] : 0.5f + 0.25f * g[i];
		slope[i] = sigmoid + a * (1 - sigmoid);
	}
}

void activation_slope(enum activation act, const float *g, float *y, float *slope, size_t n)
{
	if (act == ACT_SILU) {
		silu_slope(g, y, slope, n);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float x = g[i];
		if (act == ACT_GELU_TANH) {
			float t = tanhf(TANH_SCALE * (x + 0.044715f * x * x * x));
			y[i] = 0.5f * x * (1 + t);
			slope[i] = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * TANH_SCALE * (1 + 3 * 0.044715f * x * x);
		} else if (act == ACT_RELU || act == ACT_RELU2) {
			y[i] = of(act, x);
			slope[i] = x <= 0 ? 0 : act == ACT_RELU ? 1 : 2 * x;
		} else if (act == ACT_GELU_QUICK) {
			float s = 1 / (1 + expf(-QUICK_SCALE * x));
			y[i] = x * s;
			slope[i] = s + QUICK_SCALE * x * s * (1 - s);
		} else {
			float p = 0.5f * (1 + erff(x * ERF_SCALE));
			y[i] = x * p;
			slope[i] = p + x * DENSITY * expf(-0.5f * x * x);
		}
	}
}
