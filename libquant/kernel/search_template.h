/*
 * The search of search.h, written once with vector types and compiled once per
 * instruction set (SEARCH_NAME gives the functions their suffix). Only additions,
 * multiplications, divisions, minima and maxima: the same bits everywhere.
 */
#include <string.h>

#include "kernel/search.h"
#include "kernel/search_vector.h"

/* Known when a search is compiled: WEIGHTED is a flag beside the three. Without it the weights are not even read. */
enum search_kind { AFFINE, SCALED, TABLE, WEIGHTED = 4 };

INLINE bool is(enum search_kind kind, enum search_kind wanted)
{
	return ((int)kind & 3) == (int)wanted;
}

/* The formats' sums over one sub-block per lane, for a step s and an offset o; r is what rounding left. */
struct sums {
	vf l, ll;          /* sum w q, sum w q^2 */
	vf r, rl, rr;      /* sum w r, sum w r q, sum w r^2 */
};

/* The least-squares fit for the codes of one rounding, in x's units, and its quadratic. */
struct fit {
	vf s, o, err;
	vf l, ll;
};

INLINE vf nearest(enum search_kind kind, const struct search_grid *g, vf t)
{
	if (!is(kind, TABLE))
		return vround(vclamp(t, vset(g->level_lo), vset(g->level_hi)));
	vf q = vset(g->levels[0]);
	for (int k = 0; k < 15; k++) {
		vi above = t > vset(0.5f * (g->levels[k] + g->levels[k + 1]));
		q += (vf)(above & (vi)vset(g->levels[k + 1] - g->levels[k]));
	}
	return q;
}

INLINE struct sums round_sums(enum search_kind kind, const struct search_job *job, int at, vf s, vf o)
{
	const struct search_grid *g = job->grid;
	struct sums a = {0};
	vf inv = vreciprocal(s);

	for (int i = 0; i < g->n; i++) {
		vf y = vload(&job->x[i * SEARCH_LANES + at]);
		vf w = kind & WEIGHTED ? vload(&job->w[i * SEARCH_LANES + at]) : vset(1);
		if (is(kind, AFFINE))
			y -= o;
		vf q = nearest(kind, g, y * inv);
		vf r = y - s * q;
		vf wq = w * q, wr = w * r;
		a.ll += wq * q;
		a.rl += wr * q;
		a.rr += wr * r;
		if (is(kind, AFFINE)) {
			a.l += wq;
			a.r += wr;
		}
	}
	return a;
}

/* Rounds with (s, o), then the best (s, o) for those codes; offsets stay <= 0 where that is all the format stores. */
INLINE struct fit refit(enum search_kind kind, const struct search_job *job, int at, vf s, vf o, vf sum_w)
{
	struct sums a = round_sums(kind, job, at, s, o);
	struct fit f = {.l = a.l, .ll = a.ll};
	vf none = vset(0);

	if (!is(kind, AFFINE)) {
		vf ds = a.rl * vreciprocal(a.ll);
		f.s = s + ds;
		f.o = none;
		f.err = vmax(a.rr - ds * a.rl, none);
		return f;
	}
	vf det = sum_w * a.ll - a.l * a.l;
	vi solvable = det > 1e-6f * (sum_w * a.ll);
	vf inv = vreciprocal(vselect(solvable, det, none));
	vf ds = (sum_w * a.rl - a.l * a.r) * inv;
	vf dofs = vselect(solvable, (a.ll * a.r - a.l * a.rl) * inv, a.r * vreciprocal(sum_w));
	/* an offset above zero: hold it at zero and fit the step alone */
	vi above = (o + dofs > none) & (job->grid->free ? 0 : -1);
	vf ds0 = (a.rl + o * a.l) * vreciprocal(a.ll);
	dofs = vselect(above, -o, dofs);
	ds = vselect(above, ds0, ds);
	f.s = s + ds;
	f.o = o + dofs;
	f.err = a.rr - 2.0f * (ds * a.rl + dofs * a.r) + ds * ds * a.ll + 2.0f * (ds * dofs) * a.l + dofs * dofs * sum_w;
	f.err = vmax(f.err, none);
	return f;
}

INLINE void keep_better(struct fit *best, const struct fit *f)
{
	vi better = f->err < best->err;
	best->s = vselect(better, f->s, best->s);
	best->o = vselect(better, f->o, best->o);
	best->l = vselect(better, f->l, best->l);
	best->ll = vselect(better, f->ll, best->ll);
	best->err = vselect(better, f->err, best->err);
}

/* The integer pair nearest to (s, o) in the metric of the fit, and what it costs over the fit. */
struct pair {
	vf sc, mn, cost;
};

INLINE struct pair nearest_pair(enum search_kind kind, const struct search_grid *g, vf s, vf o, vf l, vf ll, vf w,
				vf d, vf inv_d, vf dmin, vf inv_dmin)
{
	struct pair p = {0};
	vf lo = vset(g->sc_lo), hi = vset(g->sc_hi);
	vf sc = vclamp(s * inv_d, lo, hi);

	if (!is(kind, AFFINE)) {
		p.sc = vround(sc);
		vf ds = d * p.sc - s;
		p.cost = ll * (ds * ds);
		return p;
	}
	vf tilt = l * vreciprocal(w);
	vf first = vround(sc - 0.5f);
	for (int k = 0; k < 2; k++) {
		vf c = vclamp(first + (float)k, lo, hi);
		vf ds = d * c - s;
		vf mn = vround(vclamp((tilt * ds - o) * inv_dmin, vset(0), vset(g->mn_hi)));
		vf dofs = -(dmin * mn) - o;
		vf cost = ll * (ds * ds) + 2.0f * (l * (ds * dofs)) + w * (dofs * dofs);
		vi better = k == 0 ? (vi)(cost == cost) : (vi)(cost < p.cost);
		p.sc = vselect(better, c, p.sc);
		p.mn = vselect(better, mn, p.mn);
		p.cost = vselect(better, cost, p.cost);
	}
	return p;
}

/* All lanes of a fit, as memory, for the stage that looks across the sub-blocks of a super-block. */
struct lanes {
	float s[SEARCH_LANES], o[SEARCH_LANES], l[SEARCH_LANES], ll[SEARCH_LANES], w[SEARCH_LANES];
};

/* Super-scales as fractions of the one that just reaches the largest scale. */
INLINE float super_step(int k)
{
	return 1.04f - 0.0175f * (float)k;
}

enum { SUPER_D = 16, SUPER_MIN = 6 };

struct super {
	float d, dmin, cost;
};

/* Sixteen free values of d and one of dmin, rounded to half: keeps the pair that costs least over the super-block. */
INLINE void try_supers(enum search_kind kind, const struct search_grid *g, const struct lanes *f, int at,
		       const float *d_free, float dmin_free, struct super *best)
{
	vf dmin = dmin_free > 0 ? vhalf(vset(dmin_free)) : vset(0);
	vf inv_dmin = vreciprocal(dmin);
	float cost[SUPER_D], ds[SUPER_D];

	for (int k = 0; k < SUPER_D; k += VL) {
		vf d = vload(d_free + k);
		d = vselect(d == vset(0), vset(0), vhalf(d));
		vf inv_d = vreciprocal(d), sum = vset(0);
		for (int j = at; j < at + g->subs; j++)
			sum += nearest_pair(kind, g, vset(f->s[j]), vset(f->o[j]), vset(f->l[j]), vset(f->ll[j]),
					    vset(f->w[j]), d, inv_d, dmin, inv_dmin).cost;
		vstore(cost + k, sum);
		vstore(ds + k, d);
	}
	for (int k = 0; k < SUPER_D; k++)
		if (cost[k] < best->cost)
			*best = (struct super){.d = ds[k], .dmin = dmin[0], .cost = cost[k]};
}

/* A coarse walk over the super-scales, then a fine one around what it found. */
INLINE struct super choose_super(enum search_kind kind, const struct search_grid *g, const struct lanes *f, int at)
{
	struct super best = {.cost = __builtin_inff()}, centre;
	float s_top = 0, s_abs = 0, m_top = 0, d[SUPER_D];
	int mins = is(kind, AFFINE) ? SUPER_MIN : 1;

	for (int j = at; j < at + g->subs; j++) {
		float a = f->s[j] < 0 ? -f->s[j] : f->s[j];
		if (a > s_abs) {
			s_abs = a;
			s_top = f->s[j];
		}
		if (-f->o[j] > m_top)
			m_top = -f->o[j];
	}
	/* signed integers: both ends of their range in turn, the sign of d following */
	for (int k = 0; k < SUPER_D; k++)
		d[k] = s_top / (super_step(k) * (g->sc_lo < 0 && !(k & 1) ? g->sc_lo : g->sc_hi));
	for (int l = 0; l < mins; l++)
		try_supers(kind, g, f, at, d, is(kind, AFFINE) ? m_top / (g->mn_hi * super_step(3 * l)) : 0, &best);
	centre = best;
	for (int k = 0; k < SUPER_D; k++)
		d[k] = centre.d * (1 + 0.0022f * ((float)k - 7.5f));
	for (int l = 0; l < mins; l++)
		try_supers(kind, g, f, at, d, centre.dmin * (1 + 0.008f * (float)(l - mins / 2)), &best);
	return best;
}

/* One integer pair tried on the elements; s and o as a decoder computes them. */
INLINE struct fit try_pair(enum search_kind kind, const struct search_job *job, int at, vf d, vf dmin, vf sc, vf mn,
			   vf sum_w, vf *err)
{
	vf s = d * sc, o = -(dmin * mn);
	struct sums a = round_sums(kind, job, at, s, o);
	struct fit f = {.l = a.l, .ll = a.ll};

	*err = a.rr;
	if (!is(kind, AFFINE)) {
		f.s = s + a.rl * vreciprocal(a.ll);
		return f;
	}
	vf det = sum_w * a.ll - a.l * a.l;
	vi solvable = det > 1e-6f * (sum_w * a.ll);
	vf inv = vreciprocal(vselect(solvable, det, vset(0)));
	f.s = s + (sum_w * a.rl - a.l * a.r) * inv;
	f.o = o + vselect(solvable, (a.ll * a.r - a.l * a.rl) * inv, a.r * vreciprocal(sum_w));
	return f;
}

struct choice {
	vf sc, mn, err;
};

INLINE void keep_choice(struct choice *c, struct fit *f, const struct fit *g, vf sc, vf mn, vf err)
{
	vi better = err < c->err;
	c->sc = vselect(better, sc, c->sc);
	c->mn = vselect(better, mn, c->mn);
	c->err = vselect(better, err, c->err);
	f->s = vselect(better, g->s, f->s);
	f->o = vselect(better, g->o, f->o);
	f->l = vselect(better, g->l, f->l);
	f->ll = vselect(better, g->ll, f->ll);
}

/* With the super-scales fixed: moves each lane's integers as long as the elements, rounded again, come closer. */
INLINE struct choice settle(enum search_kind kind, const struct search_job *job, int at, vf d, vf dmin, vf sum_w,
			    const struct fit *start)
{
	static const float move[6][2] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1, 1}, {-1, -1}};
	const struct search_grid *g = job->grid;
	vf inv_d = vreciprocal(d), inv_dmin = vreciprocal(dmin);
	struct pair p = nearest_pair(kind, g, start->s, start->o, start->l, start->ll, sum_w, d, inv_d, dmin, inv_dmin);
	struct choice c = {.sc = p.sc, .mn = p.mn};
	struct fit f = try_pair(kind, job, at, d, dmin, p.sc, p.mn, sum_w, &c.err), h;
	vf err;

	for (int k = 0; k < 2; k++) {
		p = nearest_pair(kind, g, f.s, f.o, f.l, f.ll, sum_w, d, inv_d, dmin, inv_dmin);
		h = try_pair(kind, job, at, d, dmin, p.sc, p.mn, sum_w, &err);
		keep_choice(&c, &f, &h, p.sc, p.mn, err);
	}
	for (int k = 0; k < (is(kind, AFFINE) ? 6 : 2); k++) {
		vf sc = vclamp(c.sc + move[k][0], vset(g->sc_lo), vset(g->sc_hi));
		vf mn = is(kind, AFFINE) ? vclamp(c.mn + move[k][1], vset(0), vset(g->mn_hi)) : vset(0);
		h = try_pair(kind, job, at, d, dmin, sc, mn, sum_w, &err);
		keep_choice(&c, &f, &h, sc, mn, err);
	}
	return c;
}

/* Smallest and largest element of each lane (AFFINE: no higher than 0 where offsets are not), or the element of largest magnitude in both. */
INLINE void lane_extremes(enum search_kind kind, const struct search_job *job, int at, vf *lo, vf *hi)
{
	vf a = vload(&job->x[at]), b = a;
	for (int i = 1; i < job->grid->n; i++) {
		a = vmin(a, vload(&job->x[i * SEARCH_LANES + at]));
		b = vmax(b, vload(&job->x[i * SEARCH_LANES + at]));
	}
	if (is(kind, AFFINE)) {
		*lo = job->grid->free ? a : vmin(a, vset(0));
		*hi = b;
	} else {
		*lo = *hi = vselect(-a > b, a, b);
	}
}

/* The plain rule: the grid spans the sub-block, the largest scale takes the largest integer. */
INLINE void plain_rule(enum search_kind kind, struct search_job *job)
{
	const struct search_grid *g = job->grid;
	struct lanes f;

	for (int at = 0; at < SEARCH_LANES; at += VL) {
		vf lo, hi;
		lane_extremes(kind, job, at, &lo, &hi);
		vstore(f.s + at, is(kind, AFFINE) ? (hi - lo) / (g->level_hi - g->level_lo) : lo / g->level_lo);
		vstore(f.o + at, is(kind, AFFINE) ? lo : vset(0));
	}
	for (int at = 0; at < SEARCH_LANES; at += g->subs) {
		float s_top = 0, m_top = 0, d[VL], dmin[VL], alone[VL];
		for (int j = at; j < at + g->subs; j++) {
			if ((f.s[j] < 0 ? -f.s[j] : f.s[j]) > (s_top < 0 ? -s_top : s_top))
				s_top = f.s[j];
			if (-f.o[j] > m_top)
				m_top = -f.o[j];
		}
		vstore(d, vhalf(vset(s_top / (g->sc_lo < 0 ? g->sc_lo : g->sc_hi))));
		vstore(alone, only_scale(vset(s_top)));
		vstore(dmin, vhalf(vset(m_top / (g->mn_hi + (is(kind, AFFINE) ? 0.0f : 1.0f)))));
		for (int j = at; j < at + g->subs; j++) {
			job->d[j] = g->subs == 1 ? alone[0] : s_top != 0 ? d[0] : 0;
			job->dmin[j] = m_top > 0 ? dmin[0] : 0;
		}
	}
	for (int at = 0; at < SEARCH_LANES; at += VL) {
		vf inv_d = vreciprocal(vload(job->d + at)), inv_dmin = vreciprocal(vload(job->dmin + at));
		vstore(job->sc + at, vround(vclamp(vload(f.s + at) * inv_d, vset(g->sc_lo), vset(g->sc_hi))));
		vstore(job->mn + at, vround(vclamp(-vload(f.o + at) * inv_dmin, vset(0), vset(g->mn_hi))));
	}
}

/*
 * Starts of the affine fit. The grid's ends are cut by c0 and c1 steps; (c0 + c1, c0 - c1) walk a staggered lattice,
 * as fine as one refit reaches. With weights the best grid may leave out more of the span, so the walk goes on.
 */
enum { CUT_ROWS = 6, CUT_ROWS_WEIGHTED = 9, CUT_COLUMNS = 6, FREE_ROWS_WEIGHTED = 9, FREE_COLUMNS_WEIGHTED = 10 };

INLINE struct fit free_fit(enum search_kind kind, const struct search_job *job, int at, vf sum_w)
{
	const struct search_grid *g = job->grid;
	struct fit best, f;
	vf lo, hi;
	float levels = g->level_hi - g->level_lo;

	lane_extremes(kind, job, at, &lo, &hi);
	if (is(kind, AFFINE)) {
		vf range = hi - lo;
		best = refit(kind, job, at, range / levels, lo, sum_w);
		int rows = kind & WEIGHTED ? (g->free ? FREE_ROWS_WEIGHTED : CUT_ROWS_WEIGHTED) : CUT_ROWS;
		float reach = kind & WEIGHTED && g->free ? 0.07f * levels : 1;
		int columns = kind & WEIGHTED && g->free ? FREE_COLUMNS_WEIGHTED : CUT_COLUMNS;
		for (int r = 0; r < rows; r++)
			for (int k = 0; k < columns - (r & 1); k++) {
				float both = -1 + reach * 0.45f * (float)r, apart = reach * 0.3f * (float)(1 - columns + 2 * k + (r & 1));
				vf step = range / (levels + both), o = lo + 0.5f * (both + apart) * step;
				f = refit(kind, job, at, step, g->free ? o : vmin(o, vset(0)), sum_w);
				keep_better(&best, &f);
				if (g->free && kind & WEIGHTED) {
					f = refit(kind, job, at, f.s, f.o, sum_w);
					keep_better(&best, &f);
				}
			}
	} else {
		best = refit(kind, job, at, lo / g->level_lo, vset(0), sum_w);
		for (int k = 0; k < g->starts; k++) {
			float past = g->start_first + g->start_step * (float)k;
			f = refit(kind, job, at, lo / (g->level_lo - past), vset(0), sum_w);
			keep_better(&best, &f);
			f = refit(kind, job, at, lo / (g->level_hi + past), vset(0), sum_w);
			keep_better(&best, &f);
		}
	}
	for (int k = 0; k < 3; k++) {
		f = refit(kind, job, at, best.s, best.o, sum_w);
		keep_better(&best, &f);
	}
	return best;
}

INLINE void all_super(enum search_kind kind, const struct search_grid *g, const struct lanes *f, float *d, float *dmin)
{
	for (int at = 0; at < SEARCH_LANES; at += VL) {
		vstore(d + at, only_scale(vload(f->s + at)));
		vstore(dmin + at, vset(0));
	}
	for (int at = 0; at < SEARCH_LANES && g->subs > 1; at += g->subs) {
		struct super best = choose_super(kind, g, f, at);
		for (int j = at; j < at + g->subs; j++) {
			d[j] = best.d;
			dmin[j] = best.dmin;
		}
	}
}

/* Rounds given scales and offsets as if each sub-block's codes were spread evenly over the levels. */
INLINE void store(enum search_kind kind, struct search_job *job)
{
	const struct search_grid *g = job->grid;
	float top = g->level_hi;
	struct lanes f;

	for (int j = 0; j < SEARCH_LANES; j++) {
		f.s[j] = job->s[j];
		f.o[j] = is(kind, AFFINE) ? job->o[j] : 0;
		f.w[j] = 1;
		f.l[j] = is(kind, AFFINE) ? 0.5f * top : 0;
		f.ll[j] = is(kind, AFFINE) ? top * (2 * top + 1) / 6 : 1;
	}
	all_super(kind, g, &f, job->d, job->dmin);
	for (int at = 0; at < SEARCH_LANES; at += VL) {
		vf d = vload(job->d + at), dmin = vload(job->dmin + at);
		struct pair p = nearest_pair(kind, g, vload(f.s + at), vload(f.o + at), vload(f.l + at), vload(f.ll + at),
					     vload(f.w + at), d, vreciprocal(d), dmin, vreciprocal(dmin));
		vstore(job->sc + at, p.sc);
		vstore(job->mn + at, p.mn);
	}
}

INLINE vf weight_sum(enum search_kind kind, const struct search_job *job, int at)
{
	vf sum = vset(kind & WEIGHTED ? 0 : (float)job->grid->n);
	for (int i = 0; i < (kind & WEIGHTED ? job->grid->n : 0); i++)
		sum += vload(&job->w[i * SEARCH_LANES + at]);
	return sum;
}

INLINE void search(enum search_kind kind, struct search_job *job)
{
	const struct search_grid *g = job->grid;
	struct fit fits[SEARCH_LANES / VL];
	struct choice found[SEARCH_LANES / VL];
	vf sum_w[SEARCH_LANES / VL];
	struct lanes f;
	float d[SEARCH_LANES], dmin[SEARCH_LANES], err[SEARCH_LANES], plain_err[SEARCH_LANES];

	if (job->store) {
		store(kind, job);
		return;
	}
	plain_rule(kind, job);
	if (job->plain)
		return;
	for (int b = 0, at = 0; at < SEARCH_LANES; b++, at += VL) {
		sum_w[b] = weight_sum(kind, job, at);
		fits[b] = free_fit(kind, job, at, sum_w[b]);
		vstore(f.s + at, fits[b].s);
		vstore(f.o + at, fits[b].o);
		vstore(f.l + at, fits[b].l);
		vstore(f.ll + at, fits[b].ll);
		vstore(f.w + at, sum_w[b]);
	}
	all_super(kind, g, &f, d, dmin);
	for (int b = 0, at = 0; at < SEARCH_LANES; b++, at += VL) {
		vf e;
		found[b] = settle(kind, job, at, vload(d + at), vload(dmin + at), sum_w[b], &fits[b]);
		vstore(err + at, found[b].err);
		try_pair(kind, job, at, vload(job->d + at), vload(job->dmin + at), vload(job->sc + at),
			 vload(job->mn + at), sum_w[b], &e);
		vstore(plain_err + at, e);
	}
	/* the plain rule stays where the search found nothing better */
	for (int at = 0; at < SEARCH_LANES; at += g->subs) {
		float a = 0, p = 0;
		for (int j = at; j < at + g->subs; j++) {
			a += err[j];
			p += plain_err[j];
		}
		if (!(a < p))
			continue;
		for (int j = at; j < at + g->subs; j++) {
			job->d[j] = d[j];
			job->dmin[j] = dmin[j];
			job->sc[j] = found[j / VL].sc[j % VL];
			job->mn[j] = found[j / VL].mn[j % VL];
		}
	}
}

#include "kernel/search_free.h"
#include "kernel/search_lattice.h"

void SEARCH_NAME(search_affine)(struct search_job *job)
{
	if (job->grid->free && job->weighted)
		search_free(AFFINE | WEIGHTED, job);
	else if (job->grid->free)
		search_free(AFFINE, job);
	else if (job->weighted)
		search(AFFINE | WEIGHTED, job);
	else
		search(AFFINE, job);
}

void SEARCH_NAME(search_scaled)(struct search_job *job)
{
	if (job->grid->free && job->weighted)
		search_free(SCALED | WEIGHTED, job);
	else if (job->grid->free)
		search_free(SCALED, job);
	else if (job->weighted)
		search(SCALED | WEIGHTED, job);
	else
		search(SCALED, job);
}

void SEARCH_NAME(search_table)(struct search_job *job)
{
	if (job->weighted)
		search(TABLE | WEIGHTED, job);
	else
		search(TABLE, job);
}

#include "kernel/round.h"
