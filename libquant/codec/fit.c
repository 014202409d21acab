#include "codec/fit.h"

#include <math.h>

#include "kernel/kernel.h"

/*
 * How far the range may be cut: starting scales run from the one that covers
 * 1 / from of the largest magnitude to the one that covers 1 / to. With few
 * levels it pays to sacrifice the largest elements, with many it hardly does.
 * More steps find at most a few tenths of a percent of error and cost time in
 * proportion.
 */
static const struct range {
	int bits;
	float from, to, step;
} ranges[] = {
	{ 2, 0.70f, 2.50f, 0.09f },
	{ 3, 0.80f, 1.80f, 0.06f },
	{ 4, 0.88f, 1.45f, 0.045f },
	{ 5, 0.92f, 1.25f, 0.03f },
	{ 8, 0.985f, 1.035f, 0.01f },
};

static const struct range *range_of(const struct codec *c)
{
	const struct range *r = ranges;
	while (r->bits < c->bits && r < ranges + sizeof ranges / sizeof *ranges - 1)
		r++;
	return r;
}

/* Times a scale is fitted again to its codes: from each start, and from the best one. */
enum { REFITS = 1, FINAL_REFITS = 6 };

struct search {
	const struct codec *codec;
	const float *x, *w;
	size_t n;
	struct block_params best;
	double err, plain;           /* of the best so far, and of plain rounding (infinity when not measurable) */
};

static bool usable_scale(float s)
{
	return isfinite(s) && s != 0 && isfinite(1 / s);
}

/* The codes, counted from `zero`; the scale is still to be found. */
static struct code_grid counted_from(const struct codec *c, int zero)
{
	return (struct code_grid){ .lo = (float)-zero, .hi = (float)((1 << c->bits) - 1 - zero) };
}

/* Follows one start. The codes count from `zero`; symmetric codecs have zero = -bias and no offset. */
static void follow(struct search *s, float scale, int zero, int refits)
{
	const struct codec *c = s->codec;
	struct code_grid g = counted_from(c, zero);
	for (int k = 0; k <= refits; k++) {
		struct block_params p = { 0 };
		float sums[3];
		p.scale[0] = scale;
		p.offset[0] = c->has_offset ? -(float)zero * scale : 0;
		c->store(c, &p, s->n);
		if (!usable_scale(p.scale[0]) || p.scale[0] == g.scale)
			return;
		g.scale = p.scale[0];
		kernels()->grid_scale(s->x, s->w, s->n, &g, sums);
		if (sums[0] < s->err) {
			s->err = sums[0];
			s->best = p;
		}
		scale = sums[1] / sums[2];
		if (!(sums[2] > 0) || !isfinite(scale) || (c->has_offset && !(scale > 0)))
			return;
	}
}

/* Sum of w (x - value)^2 in double, each element rounded to its nearest code. */
static double exact_error(const struct search *s, const struct block_params *p)
{
	double sum = 0;
	for (size_t i = 0; i < s->n; i++) {
		float scale = p->scale[0], offset = p->offset[0];
		double e = s->x[i] - (double)codec_value(s->codec, scale, offset, codec_round(s->codec, scale, offset, s->x[i]));
		sum += (s->w ? s->w[i] : 1.0) * e * e;
	}
	return sum;
}

/* The sums above are single precision; a gain too small to be certain is measured again exactly. */
static void settle(const struct search *s, struct block_params *p)
{
	const double CERTAIN = 1 - 1e-3; /* sums of thousands of elements are good to 1e-4 */
	if ((s->plain < HUGE_VAL && s->err < s->plain * CERTAIN) || exact_error(s, &s->best) < exact_error(s, p))
		*p = s->best;
}

static void extremes(const float *x, size_t n, float *lo, float *hi)
{
	*lo = *hi = 0;
	for (size_t i = 0; i < n; i++) {
		*lo = x[i] < *lo ? x[i] : *lo;
		*hi = x[i] > *hi ? x[i] : *hi;
	}
}

/* The error of plain rounding, or infinity where its scale cannot be measured (zero, or not finite). */
static double plain_error(const struct search *s, int zero)
{
	struct code_grid g = counted_from(s->codec, zero);
	float sums[3];
	g.scale = s->best.scale[0];
	if (!usable_scale(g.scale))
		return HUGE_VAL;
	kernels()->grid_scale(s->x, s->w, s->n, &g, sums);
	return sums[0];
}

void fit_symmetric(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	struct search s = { c, x, w, n, *p, HUGE_VAL, HUGE_VAL };
	const struct range *r = range_of(c);
	float lo, hi, half = (float)(1 << c->bits) / 2;
	extremes(x, n, &lo, &hi);
	float amax = hi > -lo ? hi : -lo;
	if (!(amax > 0) || !isfinite(amax))
		return;
	s.err = s.plain = plain_error(&s, -c->code_bias);
	for (float cut = r->from; cut <= r->to; cut += r->step) {
		float scale = amax / (half * cut);
		follow(&s, scale, -c->code_bias, REFITS);
		follow(&s, -scale, -c->code_bias, REFITS);
	}
	follow(&s, s.best.scale[0], -c->code_bias, FINAL_REFITS);
	settle(&s, p);
}

void fit_zero_point(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p)
{
	struct search s = { c, x, w, n, *p, HUGE_VAL, HUGE_VAL };
	const struct range *r = range_of(c);
	int last = (1 << c->bits) - 1;
	float lo, hi;
	extremes(x, n, &lo, &hi);
	if (!(hi - lo > 0) || !isfinite(hi - lo))
		return;
	s.err = s.plain = plain_error(&s, p->mn[0]);
	for (float cut = r->from; cut <= r->to; cut += r->step) {
		float scale = (hi - lo) / ((float)last * cut);
		/* cutting both ends alike keeps the middle of the range in the middle of the codes */
		float centre = (float)last / 2 - (hi + lo) / 2 / scale + 0.5f;
		if (!(centre > -1 && centre < (float)last + 2))
			continue; /* the scale is too small for a float, or the range too lopsided */
		int middle = (int)centre;
		for (int zero = middle - 1; zero <= middle + 1; zero++)
			if (zero >= 0 && zero <= last)
				follow(&s, scale, zero, REFITS);
	}
	int zero = s.best.mn[0];
	follow(&s, s.best.scale[0], zero, FINAL_REFITS);
	settle(&s, p);
}
