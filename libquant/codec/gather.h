#ifndef QUIRE_CODEC_GATHER_H
#define QUIRE_CODEC_GATHER_H
/* Sub-blocks side by side, one per lane, as kernel/search.h takes them. */
#include <stddef.h>

#include "kernel/search.h"

struct gathered {
	_Alignas(64) float x[SEARCH_MAX_SUB][SEARCH_LANES];
	_Alignas(64) float w[SEARCH_MAX_SUB][SEARCH_LANES];
};

/*
 * Up to SEARCH_LANES sub-blocks that follow each other in x, whole super-blocks, `have` elements in all; lanes past them
 * are zeros. Weights (w may be NULL) are scaled into [0, 1] within each super-block.
 */
void gather(const struct search_grid *g, const float *x, const float *w, size_t have, struct gathered *in);

/* Within [-limit, limit]; NaN becomes 0. */
static inline float gather_clamp(float v, float limit)
{
	if (v > limit)
		return limit;
	if (v < -limit)
		return -limit;
	return v == v ? v : 0;
}

/* Past anything the formats can hold, and its square still far from overflow. */
static inline float gather_tame(float v)
{
	return gather_clamp(v, 1e9f);
}

#endif
