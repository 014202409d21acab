/* A part of search_template.h, which includes it: the entries of a codebook, one per lane. */

/* Element k's share of both sums, for VL entries. */
INLINE void lattice_add(const float *level, float shift, float xw, float w, vf *a, vf *b)
{
	vf l = vload(level) + vset(shift);
	*a += vset(xw) * l;
	*b += vset(w) * (l * l);
}

void SEARCH_NAME(lattice_sums)(const struct lattice_table *t, const float *xw, const float *w, float *a, float *b)
{
	for (size_t g = 0; g < t->count; g += VL) {
		vf sum_a = vset(0), sum_b = vset(0);
		for (int k = 0; k < t->width; k++)
			lattice_add(t->level + (size_t)k * t->count + g, t->shift, xw[k], w[k], &sum_a, &sum_b);
		vstore(a + g, sum_a);
		vstore(b + g, sum_b);
	}
}

unsigned SEARCH_NAME(lattice_at)(const float *a, const float *b, size_t count, float s)
{
	vf scale = vset(s), least = vset(__builtin_inff());
	vi best = { 0 }, at;
	for (int k = 0; k < VL; k++)
		at[k] = k;
	for (size_t g = 0; g < count; g += VL, at += VL) {
		vf cost = scale * vload(b + g) - (vload(a + g) + vload(a + g));
		vi better = cost < least;
		least = vselect(better, cost, least);
		best = (better & at) | (~better & best);
	}
	int found = 0;
	for (int k = 1; k < VL; k++)
		if (least[k] < least[found] || (least[k] == least[found] && best[k] < best[found]))
			found = k;
	return (unsigned)best[found];
}
