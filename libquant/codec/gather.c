#include "codec/gather.h"

#include <string.h>

/* Four floats: every 64-bit machine has them. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

static v4 select4(i4 mask, v4 a, v4 b)
{
	return (v4)((mask & (i4)a) | (~mask & (i4)b));
}

/* gather_tame() of four */
static v4 tame4(v4 v)
{
	const v4 limit = { 1e9f, 1e9f, 1e9f, 1e9f };

	v = (v4)((i4)v & (v == v));
	v = select4(v > limit, limit, v);
	return select4(v < -limit, -limit, v);
}

/* Four elements of four rows into four lanes of four rows. */
static void turn(const float *src, size_t stride, float *dst)
{
	v4 r[4];

	for (size_t k = 0; k < 4; k++) {
		memcpy(&r[k], src + k * stride, sizeof r[k]);
		r[k] = tame4(r[k]);
	}
	v4 a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
	v4 c = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
	r[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
	r[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
	r[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
	r[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
	for (int k = 0; k < 4; k++)
		memcpy(dst + k * SEARCH_LANES, &r[k], sizeof r[k]);
}

static void gather_values(const float *x, size_t n, size_t lanes, struct gathered *in)
{
	size_t four = n % 4 ? 0 : lanes & ~(size_t)3;

	if (lanes < SEARCH_LANES)
		memset(in->x, 0, n * sizeof in->x[0]);
	for (size_t lane = 0; lane < four; lane += 4)
		for (size_t i = 0; i < n; i += 4)
			turn(x + lane * n + i, n, &in->x[i][lane]);
	for (size_t lane = four; lane < lanes; lane++)
		for (size_t i = 0; i < n; i++)
			in->x[i][lane] = gather_tame(x[lane * n + i]);
}

/* Brings the weights of a super-block into [0, 1]; where all are zero every element counts alike. */
static void gather_weights(const struct search_grid *g, const float *w, int lane, struct gathered *in)
{
	float top = 0;

	for (int i = 0; i < g->n * g->subs; i++)
		if (w[i] > top)
			top = w[i];
	if (top > 1e30f)
		top = 1e30f;
	float inv = top > 1e-30f ? 1.0f / top : 0;
	for (int j = 0; j < g->subs; j++) {
		float sum = 0;
		for (int i = 0; i < g->n; i++) {
			float v = w[j * g->n + i] * inv;
			v = v > 0 ? (v < 1 ? v : 1) : 0;
			in->w[i][lane + j] = v;
			sum += v;
		}
		if (sum > 1e-20f)
			continue;
		/* nothing in this sub-block matters: fit it, without moving the super-scale */
		for (int i = 0; i < g->n; i++)
			in->w[i][lane + j] = inv > 0 ? 1e-9f : 1;
	}
}

void gather(const struct search_grid *g, const float *x, const float *w, size_t have, struct gathered *in)
{
	size_t n = (size_t)g->n, lanes = have / n < SEARCH_LANES ? have / n : SEARCH_LANES;

	gather_values(x, n, lanes, in);
	if (!w)
		return;
	if (lanes < SEARCH_LANES)
		memset(in->w, 0, n * sizeof in->w[0]);
	for (int lane = 0; lane < (int)lanes; lane += g->subs)
		gather_weights(g, w + lane * g->n, lane, in);
	for (int lane = (int)lanes; lane < SEARCH_LANES; lane++)
		for (size_t i = 0; i < n; i++)
			in->w[i][lane] = 1;
}
