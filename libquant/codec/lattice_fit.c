/*
 * The search for formats with codebooks. The error of eight (or four) weights under a scale s is, but for a constant, the
 * least s^2 b - 2 s a of the codebook, where a = sum w x level and b = sum w level^2 do not depend on s. Over s these are
 * lines (of s b - 2 a), and only the few entries on their lower envelope are ever chosen:
 *
 * 1. each codebook is summed up once against each entry's weights, and the best entries for a row of scales kept;
 * 2. the best free scale of each sub-block, from a row of starts and least squares;
 * 3. the super-scale under whose multiples these scales fit best, by the quadratic that least squares leaves;
 * 4. the multiples next to each free scale, and the least squares super-scale for what was chosen, as long as it helps.
 *
 * Rounding looks through the whole codebook again.
 */
#include "codec/lattice.h"

#include <math.h>
#include <string.h>

#include "codec/gather.h"
#include "tensor/half.h"

enum { BLOCK = 256, UNITS = 16, GROUP = LATTICE_TOGETHER, ENTRIES = 64, SCALES = 7 };

/* The entries that some scale chooses. */
struct envelope {
	float a[SCALES], b[SCALES];
	unsigned at[SCALES];
	int count;
};

struct fit {
	const struct codec *c;
	const struct lattice *l;
	int units, subs, entries;      /* of a block, under one stored scale each; sub-blocks of a unit; entries of a sub-block */
	int variants;                  /* offsets to choose from: 1 or 2 */
	float x[BLOCK], w[BLOCK], xw[BLOCK]; /* magnitudes (see lattice_magnitudes), weights in [0, 1] */
	struct envelope envelope[2][ENTRIES];
};

/* What was chosen for a block, with its error less that of zeros. */
struct choice {
	double gain;                   /* negative is better than zeros */
	double a, b;                   /* of d: sum of multiple * a, of multiple^2 * b */
	uint16_t d;
	uint8_t sc[UNITS], mn[CODEC_MAX_SUBS];
};

static float multiple(const struct lattice *l, int sc)
{
	return l->first + l->step * (float)sc;
}

/* The stored multiple nearest to s / d. */
static int nearest_multiple(const struct lattice *l, float s, float d)
{
	float t = d > 0 ? (s / d - l->first) / l->step + 0.5f : 0;
	return !(t > 0) ? 0 : t < l->multiples - 1 ? (int)t : l->multiples - 1;
}

static float unit_amax(const struct fit *f, int u)
{
	float top = 0;
	for (int i = u * f->l->scale_len; i < (u + 1) * f->l->scale_len; i++)
		top = fabsf(f->x[i]) > top ? fabsf(f->x[i]) : top;
	return top;
}

static float top_level(const struct lattice *l)
{
	float top = 0;
	for (int q = 0; q < 1 << l->field; q++)
		top = l->magnitude[q] > top ? l->magnitude[q] : top;
	return top + l->delta;
}

/* The largest scale worth a look: the largest element gets two thirds of the largest level. The last: all of one size. */
static float scale_of(const struct lattice *l, float top, int k, int scales, float step)
{
	if (k == scales - 1)
		return top / (fabsf(l->magnitude[0]) + l->delta);
	return top / (top_level(l) * 0.65f) * powf(step, (float)k);
}

static void keep_entry(struct envelope *v, const float *a, const float *b, unsigned at)
{
	for (int k = 0; k < v->count; k++)
		if (v->at[k] == at)
			return;
	v->a[v->count] = a[at];
	v->b[v->count] = b[at];
	v->at[v->count++] = at;
}

static void envelopes(struct fit *f)
{
	const struct lattice *l = f->l;
	_Alignas(64) float a[2048], b[2048];
	int per_unit = f->subs * f->entries;
	float scale[SCALES];
	for (int e = 0; e < f->units * per_unit; e++) {
		float top = unit_amax(f, e / per_unit);
		for (int k = 0; k < SCALES && e % per_unit == 0; k++)
			scale[k] = scale_of(l, top, k, SCALES, 0.72f);
		for (int v = 0; v < f->variants; v++) {
			struct lattice_table t = lattice_table(l, v ? -l->delta : l->delta);
			f->envelope[v][e].count = 0;
			kernels()->lattice_sums(&t, f->xw + e * l->width, f->w + e * l->width, a, b);
			for (int k = 0; k < SCALES; k++)
				keep_entry(&f->envelope[v][e], a, b, kernels()->lattice_at(a, b, l->count, scale[k]));
		}
	}
}

static int least_of(const struct envelope *v, float s)
{
	int best = 0;
	for (int k = 1; k < v->count; k++)
		if (s * v->b[k] - 2 * v->a[k] < s * v->b[best] - 2 * v->a[best])
			best = k;
	return best;
}

/* The error of one sub-block (of the block) under a scale, less that of zeros, per unit of scale; the best variant. */
static float sub_least(const struct fit *f, int sub, float s, int *variant)
{
	float best = INFINITY;
	for (int v = 0; v < f->variants; v++) {
		float sum = 0;
		for (int e = sub * f->entries; e < (sub + 1) * f->entries; e++) {
			const struct envelope *n = &f->envelope[v][e];
			int k = least_of(n, s);
			sum += s * n->b[k] - 2 * n->a[k];
		}
		if (sum < best) {
			best = sum;
			*variant = v;
		}
	}
	return best;
}

static float unit_gain(const struct fit *f, int u, float s)
{
	float sum = 0;
	int variant;
	for (int sub = u * f->subs; sub < (u + 1) * f->subs; sub++)
		sum += sub_least(f, sub, s, &variant);
	return s * sum;
}

/* a and b of what a scale chooses. */
static void unit_pick(const struct fit *f, int u, float s, double *a, double *b, uint8_t *mn)
{
	*a = *b = 0;
	for (int sub = u * f->subs; sub < (u + 1) * f->subs; sub++) {
		int v = 0;
		sub_least(f, sub, s, &v);
		mn[sub] = (uint8_t)v;
		for (int e = sub * f->entries; e < (sub + 1) * f->entries; e++) {
			int k = least_of(&f->envelope[v][e], s);
			*a += (double)f->envelope[v][e].a[k];
			*b += (double)f->envelope[v][e].b[k];
		}
	}
}

/* The free scale of a unit, 0 where there is nothing to fit, and the b of its choice. */
static float free_scale(const struct fit *f, int u, double *b)
{
	enum { STARTS = 13, REFITS = 2 };
	float top = unit_amax(f, u), best = 0, least = 0;
	uint8_t mn[CODEC_MAX_SUBS];
	*b = 0;
	if (!(top > 0))
		return 0;
	for (int k = 0; k < STARTS; k++) {
		float s = scale_of(f->l, top, k, STARTS, 0.87f), gain = unit_gain(f, u, s);
		if (gain < least) {
			least = gain;
			best = s;
		}
	}
	for (int k = 0; k < REFITS && best > 0; k++) {
		double a;
		unit_pick(f, u, best, &a, b, mn);
		float s = *b > 0 ? (float)(a / *b) : best;
		if (!(s > 0) || !(unit_gain(f, u, s) < least))
			break;
		least = unit_gain(f, u, s);
		best = s;
	}
	return best;
}

static uint16_t half_of(float d)
{
	return f16_from_f32(gather_clamp(d, 60000.0f));
}

/* The super-scale whose multiples come nearest to scales s, weighted by b. */
static uint16_t choose_super(const struct lattice *l, int units, const float *s, const double *b)
{
	float top = 0;
	double least = INFINITY;
	uint16_t found = 0;
	for (int u = 0; u < units; u++)
		top = s[u] > top ? s[u] : top;
	for (float cut = 0.7f; cut < 1.4f; cut += 0.03f) {
		uint16_t raw = half_of(top / (multiple(l, l->multiples - 1) * cut));
		float d = f32_from_f16(raw);
		double sum = 0;
		for (int u = 0; u < units; u++) {
			double miss = (double)(s[u] - d * multiple(l, nearest_multiple(l, s[u], d)));
			sum += b[u] * miss * miss;
		}
		if (sum < least) {
			least = sum;
			found = raw;
		}
	}
	return found;
}

/* Multiples up to `reach` from that nearest to each scale of s, under super-scale d. */
static void settle(const struct fit *f, const float *s, uint16_t raw, int reach, struct choice *out)
{
	const struct lattice *l = f->l;
	float d = f32_from_f16(raw);
	*out = (struct choice){ .d = raw };
	for (int u = 0; u < f->units; u++) {
		int near = nearest_multiple(l, s[u], d), best = near;
		float least = INFINITY;
		double a, b;
		for (int sc = near - reach; sc <= near + reach; sc++) {
			if (sc < 0 || sc >= l->multiples)
				continue;
			float gain = unit_gain(f, u, d * multiple(l, sc));
			if (gain < least) {
				least = gain;
				best = sc;
			}
		}
		float m = multiple(l, best);
		unit_pick(f, u, d * m, &a, &b, out->mn);
		out->sc[u] = (uint8_t)best;
		out->gain += (double)least;
		out->a += (double)m * a;
		out->b += (double)m * (double)m * b;
	}
}

static void take(const struct fit *f, const struct choice *c, struct block_params *p)
{
	memset(p, 0, sizeof *p);
	p->d = c->d;
	for (int j = 0; j < f->units * f->subs; j++) {
		p->sc[j] = c->sc[j / f->subs];
		p->mn[j] = c->mn[j];
	}
	lattice_expand(f->c, p);
}

/* Weights in [0, 1], numbers that cannot overflow, magnitudes and signs apart. */
static void prepare(struct fit *f, const float *x, const float *w)
{
	float top = 0;
	for (int i = 0; w && i < BLOCK; i++)
		top = w[i] > top ? w[i] : top;
	top = top > 1e30f ? 1e30f : top;
	for (int i = 0; i < BLOCK; i++) {
		float v = top > 1e-30f ? w[i] / top : 1;
		f->w[i] = v > 1e-9f ? (v < 1 ? v : 1) : 1e-9f;
		f->x[i] = gather_tame(x[i]);
	}
	for (int i = 0; i < BLOCK; i += GROUP)
		lattice_magnitudes(f->l, f->x + i, f->w + i);
	for (int i = 0; i < BLOCK; i++)
		f->xw[i] = f->x[i] * f->w[i];
}

static void start(struct fit *f, const struct codec *c, const float *x, const float *w)
{
	f->c = c;
	f->l = c->lattice;
	f->units = (int)(c->block / f->l->scale_len);
	f->subs = (int)(f->l->scale_len / c->sub);
	f->entries = (int)(c->sub / f->l->width);
	f->variants = f->l->delta != 0 ? 2 : 1;
	prepare(f, x, w);
	envelopes(f);
}

/* Every unit's largest element gets the largest level. */
static void plain(const struct fit *f, struct choice *out)
{
	float s[UNITS], top = 0;
	for (int u = 0; u < f->units; u++) {
		s[u] = unit_amax(f, u) / top_level(f->l);
		top = s[u] > top ? s[u] : top;
	}
	settle(f, s, half_of(top / multiple(f->l, f->l->multiples - 1)), 0, out);
}

static double exact_error(const struct codec *c, const float *x, const float *w, const struct block_params *p)
{
	uint8_t codes[BLOCK];
	double sum = 0;
	codec_round_block(c, p, x, w, BLOCK, codes);
	for (uint32_t i = 0; i < BLOCK; i++) {
		double e = x[i] - (double)codec_value(c, p->scale[i / c->sub], p->offset[i / c->sub], codes[i]);
		sum += (w ? (double)w[i] : 1.0) * e * e;
	}
	return sum;
}

/* From the free scales to what can be stored. */
static void search(const struct fit *f, struct choice *best)
{
	enum { ROUNDS = 3 };
	float s[UNITS];
	double b[UNITS];
	struct choice next;
	for (int u = 0; u < f->units; u++)
		s[u] = free_scale(f, u, &b[u]);
	settle(f, s, choose_super(f->l, f->units, s, b), 1, best);
	for (int k = 0; k < ROUNDS && best->b > 0; k++) {
		uint16_t d = half_of((float)(best->a / best->b));
		if (d == best->d)
			return;
		settle(f, s, d, 1, &next);
		if (!(next.gain < best->gain))
			return;
		*best = next;
	}
}

void lattice_fit(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort, struct block_params *p)
{
	struct fit f;
	struct choice chosen;
	struct block_params found;
	(void)n;
	start(&f, c, x, effort == FIT_SEARCH ? w : NULL);
	plain(&f, &chosen);
	take(&f, &chosen, p);
	if (effort != FIT_SEARCH)
		return;
	search(&f, &chosen);
	take(&f, &chosen, &found);
	if (exact_error(c, x, w, &found) < exact_error(c, x, w, p))
		*p = found;
}

void lattice_store(const struct codec *c, struct block_params *p, size_t n)
{
	const struct lattice *l = c->lattice;
	int units = (int)(c->block / l->scale_len), subs = (int)(l->scale_len / c->sub);
	float s[UNITS];
	double b[UNITS];
	(void)n;
	for (int u = 0; u < units; u++) {
		float sum = 0;
		for (int j = 0; j < subs; j++)
			sum += gather_tame(p->scale[u * subs + j]);
		s[u] = sum > 0 ? sum / (float)subs : 0;
		b[u] = 1;
	}
	p->d = choose_super(l, units, s, b);
	p->dmin = 0;
	for (int j = 0; j < units * subs; j++) {
		p->sc[j] = (uint8_t)nearest_multiple(l, s[j / subs], f32_from_f16(p->d));
		p->mn[j] = p->offset[j] < 0;
	}
	lattice_expand(c, p);
}
