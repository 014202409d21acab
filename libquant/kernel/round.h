/* A part of search_template.h, which includes it: rounding runs of elements. */
/* In step with codec_round(), which says why. */
INLINE vf units(const float *x, vf scale, vf offset, vi usable)
{
	vf t = (vload(x) - offset) / scale;
	return (vf)((vi)t & (t == t) & usable);
}

void SEARCH_NAME(round_uniform)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes)
{
	vf s = vset(g->scale), o = g->offset + vset(0), first = vset(g->lo), last = vset(g->hi);
	vi usable = s != 0;

	for (size_t i = 0; i < n; i += VL) {
		vf t = units(x + i, s, o, usable);
		vi code = __builtin_convertvector(vround(vclamp(t, first, last)) - first, vi);
		vb narrow = __builtin_convertvector(code, vb);
		memcpy(codes + i, &narrow, VL);
	}
}

void SEARCH_NAME(round_table)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes)
{
	const float *levels = g->levels;
	int count = 1 << g->bits;
	vf s = vset(g->scale), o = g->offset + vset(0);
	vi usable = s != 0;

	for (size_t i = 0; i < n; i += VL) {
		vf t = units(x + i, s, o, usable), least = vset(__builtin_inff());
		vi best = {0};
		for (int k = 0; k < count; k++) {
			vf miss = vabs(vset(levels[k]) - t);
			vi better = miss < least;
			least = vselect(better, miss, least);
			best = (better & k) | (~better & best);
		}
		vb narrow = __builtin_convertvector(best, vb);
		memcpy(codes + i, &narrow, VL);
	}
}

/* NaN becomes 0. */
INLINE vf number(const float *x)
{
	vf v = vload(x);
	return (vf)((vi)v & (v == v));
}

INLINE void narrow(uint8_t *codes, vf whole)
{
	vb b = __builtin_convertvector(__builtin_convertvector(whole, vi), vb);
	memcpy(codes, &b, VL);
}

void SEARCH_NAME(extremes)(const float *x, size_t n, float *lo, float *hi)
{
	vf a = number(x), b = a;

	for (size_t i = VL; i < n; i += VL) {
		vf v = number(x + i);
		a = vmin(v, a);
		b = vmax(v, b);
	}
	float l[VL], h[VL];
	vstore(l, a);
	vstore(h, b);
	for (int i = 4; i < VL; i++) {
		l[i & 3] = l[i] < l[i & 3] ? l[i] : l[i & 3];
		h[i & 3] = h[i] > h[i & 3] ? h[i] : h[i & 3];
	}
	for (int i = 1; i < 4; i++) {
		l[0] = l[i] < l[0] ? l[i] : l[0];
		h[0] = h[i] > h[0] ? h[i] : h[0];
	}
	*lo = l[0];
	*hi = h[0];
}

void SEARCH_NAME(round_away)(const float *x, size_t n, float inv, uint8_t *codes)
{
	for (size_t i = 0; i < n; i += VL) {
		vf t = vload(x + i) * inv;
		t = (vf)((vi)t & (t == t));
		vf a = vmin(vabs(t), vset(127));
		vf q = __builtin_convertvector(__builtin_convertvector(a, vi), vf);
		q += (vf)((vi)vset(1) & (a - q >= 0.5f));
		narrow(codes + i, 128.0f + vselect(t < 0, -q, q));
	}
}

void SEARCH_NAME(round_down)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes)
{
	float offset = g->offset, inv = g->scale != 0 ? 1 / g->scale : 0, half = 0.5f - g->lo, last = g->hi - g->lo;
	for (size_t i = 0; i < n; i += VL) {
		vf t = (vload(x + i) - offset) * inv + half;
		t = (vf)((vi)t & (t == t));
		narrow(codes + i, vclamp(t, vset(0), vset(last)));
	}
}
