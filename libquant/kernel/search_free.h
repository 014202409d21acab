/* A part of search_template.h, which includes it. */
enum { FREE_REFITS = 3 };

/*
 * Formats whose scale (and offset) is a stored number of its own: the free fit, rounded to what is stored and refitted
 * a few times. The sums are single precision: a gain too small to be certain is none.
 */
INLINE void search_free(enum search_kind kind, struct search_job *job)
{
	const struct search_grid *g = job->grid;
	const float certain = 1 - 1e-4f;

	for (int at = 0; at < SEARCH_LANES; at += VL) {
		vf lo, hi, sum_w = weight_sum(kind, job, at), s, o = vset(0), err;
		lane_extremes(kind, job, at, &lo, &hi);
		if (is(kind, AFFINE)) {
			s = (hi - lo) / (g->level_hi - g->level_lo);
			o = vstored(false, lo);
		} else {
			s = (g->plain_level < 0 ? lo : vabs(lo)) / g->plain_level;
		}
		s = vstored(g->bf16, s);
		vf best_s = s, best_o = o, least;
		try_pair(kind, job, at, s, -o, vset(1), vset(1), sum_w, &err);
		least = err * certain;
		struct fit f = free_fit(kind, job, at, sum_w);
		for (int k = 0; k < FREE_REFITS; k++) {
			s = vstored(g->bf16, f.s);
			o = is(kind, AFFINE) ? vstored(false, f.o) : vset(0);
			f = try_pair(kind, job, at, s, -o, vset(1), vset(1), sum_w, &err);
			vi better = err < least;
			best_s = vselect(better, s, best_s);
			best_o = vselect(better, o, best_o);
			least = vselect(better, err, least);
		}
		vstore(job->d + at, best_s);
		vstore(job->dmin + at, -best_o);
	}
}
