#ifndef QUIRE_CODEC_SINGLE_H
#define QUIRE_CODEC_SINGLE_H
/* What the formats with one half-precision scale per block and nothing else share: q1_0, q2_0, tq1_0, tq2_0. */
#include <math.h>

#include "codec/codec.h"
#include "codec/fit.h"
#include "tensor/half.h"

static inline void single_expand(struct block_params *p, uint16_t d)
{
	p->d = d;
	p->dmin = 0;
	p->sc[0] = p->mn[0] = 0;
	p->scale[0] = f32_from_f16(d);
	p->offset[0] = -0.0f; /* adding it changes nothing, not even the sign of a zero */
}

/* The nearest scale that is a finite half. */
static inline void single_set(struct block_params *p, float scale)
{
	scale = scale > 65504 ? 65504 : scale < -65504 ? -65504 : scale == scale ? scale : 0;
	single_expand(p, f16_from_f32(scale));
}

static inline void single_store(const struct codec *c, struct block_params *p, size_t n)
{
	(void)c, (void)n;
	single_set(p, p->scale[0]);
}

/* The plain rule of the ternary formats: the largest magnitude is one step. Numbers that are not finite count as nothing. */
static inline float single_amax(const float *x, size_t n)
{
	float top = 0;
	for (size_t i = 0; i < n; i++)
		if (fabsf(x[i]) > top && fabsf(x[i]) <= 3.4e38f)
			top = fabsf(x[i]);
	return top;
}

/* Of the formats that have a fourth level, 2, for the search alone. */
static inline void single_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
			      struct block_params *p)
{
	single_set(p, single_amax(x, n));
	if (effort == FIT_SEARCH)
		fit_symmetric(c, x, w, n, p);
}

#endif
