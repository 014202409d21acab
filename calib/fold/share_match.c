#include <complex.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/fold/share_parts.h"
#include "kernel/blas.h"
#include "kernel/product.h"

/*
 * RoPE turns keys of both layers by the same phase, so E[k_L conj(k_S)] after it is that before it, and the best
 * complex scale s of each pair (k_L = s k_S) is found on rotated keys. Queries take conj(s): Re(q conj(s k)) = Re(q conj(s) conj(k)).
 */
struct moments {
	const struct attention_weights *w;
	size_t kv;               /* kv_heads * dim */
	const float *q, *k, *v, *ks, *vs; /* a batch: own queries, keys, values; the owner's keys, values */
	size_t tokens;
	float *part;             /* [kv, kv] of a batch */
	double *kk, *vv, *vs2;   /* [kv, kv] sums of own times owner's; of the owner's values, blocks on the diagonal only */
	double *ks2, *k2, *v2;   /* [kv] sums of squares */
	double *q2;              /* [heads * dim] */
	/* results */
	double complex *scale;   /* [kv_heads, kv_heads, pairs] own head a by owner's b */
	double *map;             /* [kv_heads, kv_heads, dim, dim] v_a = map v_b */
	double *gain;            /* [kv_heads, kv_heads] */
	int rc;
};

static double *zeroes(size_t n, bool *ok)
{
	double *p = calloc(n ? n : 1, sizeof *p);
	*ok &= p != NULL;
	return p;
}

static int moments_init(struct moments *m, const struct attention_weights *w, struct err *e)
{
	bool ok = true;
	size_t n = (size_t)w->kv_heads * w->dim, heads = (size_t)w->kv_heads * w->kv_heads;
	*m = (struct moments){ .w = w, .kv = n };
	m->part = malloc(n * n * sizeof *m->part);
	m->kk = zeroes(n * n, &ok);
	m->vv = zeroes(n * n, &ok);
	m->vs2 = zeroes(n * w->dim, &ok);
	m->ks2 = zeroes(n, &ok);
	m->k2 = zeroes(n, &ok);
	m->v2 = zeroes(n, &ok);
	m->q2 = zeroes((size_t)w->heads * w->dim, &ok);
	m->map = zeroes(heads * w->dim * w->dim, &ok);
	m->gain = zeroes(heads, &ok);
	m->scale = calloc(heads * fold_pairs(w->dim), sizeof *m->scale);
	return ok && m->part && m->scale ? ERR_OK : err_nomem(e);
}

static void moments_release(struct moments *m)
{
	void *all[] = { m->part, m->kk, m->vv, m->vs2, m->ks2, m->k2, m->v2, m->q2, m->map, m->gain, m->scale };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void squares(const float *x, size_t tokens, size_t width, size_t from, size_t n, double *out)
{
	for (size_t t = 0; t < tokens; t++)
		for (size_t i = from; i < from + n; i++)
			out[i] += (double)x[t * width + i] * x[t * width + i];
}

static void add_block(const struct moments *m, const float *a, size_t row, const float *b, size_t n, double *sum)
{
	size_t d = m->w->dim;
	float *part = m->part + row * m->kv;
	product_gemm(true, false, d, n, m->tokens, 1, a + row, m->kv, b, m->kv, 0, part, n);
	for (size_t i = 0; i < d * n; i++)
		sum[i] += part[i];
}

/* An item is one KV head: the rows of the sums that are its. */
static void gather_head(void *arg, size_t head, int worker)
{
	const struct moments *m = arg;
	size_t d = m->w->dim, row = head * d, q = (size_t)m->w->heads / m->w->kv_heads * d;
	(void)worker;
	add_block(m, m->k, row, m->ks, m->kv, m->kk + row * m->kv);
	add_block(m, m->v, row, m->vs, m->kv, m->vv + row * m->kv);
	add_block(m, m->vs, row, m->vs + row, d, m->vs2 + row * d);
	squares(m->ks, m->tokens, m->kv, row, d, m->ks2);
	squares(m->k, m->tokens, m->kv, row, d, m->k2);
	squares(m->v, m->tokens, m->kv, row, d, m->v2);
	squares(m->q, m->tokens, (size_t)m->w->heads * d, head * q, q, m->q2);
}

/* Energy of the keys of head a, as its queries weigh them, that head b explains; and the scales that do. */
static double keys_gain(struct moments *m, uint32_t a, uint32_t b)
{
	const struct attention_weights *w = m->w;
	uint32_t d = w->dim, pairs = fold_pairs(d), share = w->heads / w->kv_heads, re, im;
	double explained = 0, all = 0;
	for (uint32_t l = 0; l < pairs; l++) {
		fold_pair(d, w->rope, l, &re, &im);
		const double *r = m->kk + ((size_t)a * d + re) * m->kv + (size_t)b * d, *s = m->kk + ((size_t)a * d + im) * m->kv + (size_t)b * d;
		bool lone = re == im;
		double complex c = lone ? r[re] : (r[re] + s[im]) + I * (s[re] - r[im]);
		double energy = m->ks2[(size_t)b * d + re] + (lone ? 0 : m->ks2[(size_t)b * d + im]), weight = 0;
		double own = m->k2[(size_t)a * d + re] + (lone ? 0 : m->k2[(size_t)a * d + im]);
		for (uint32_t h = a * share; h < (a + 1) * share; h++)
			weight += m->q2[(size_t)h * d + re] + (lone ? 0 : m->q2[(size_t)h * d + im]);
		double complex scale = energy > 0 ? c / energy : 0;
		m->scale[((size_t)a * w->kv_heads + b) * pairs + l] = scale;
		explained += weight * creal(scale * conj(c));
		all += weight * own;
	}
	return all > 0 ? explained / all : 0;
}

/* The share of the energy of values of head a that a linear map of head b's explains; and that map. */
static int values_gain(struct moments *m, uint32_t a, uint32_t b, double *gain)
{
	size_t d = m->w->dim;
	double *gram = malloc(d * d * sizeof *gram), *rhs = malloc(d * d * sizeof *rhs), mean = 0, explained = 0, all = 0;
	double *map = m->map + ((size_t)a * m->w->kv_heads + b) * d * d;
	int rc = !gram || !rhs ? ERR_NOMEM : ERR_OK;
	if (!rc) {
		memcpy(gram, m->vs2 + b * d * d, d * d * sizeof *gram);
		for (size_t i = 0; i < d; i++)
			mean += gram[i * d + i] / (double)d;
		for (size_t i = 0; i < d; i++)
			gram[i * d + i] += 1e-4 * mean + DBL_MIN;
		for (size_t i = 0; i < d; i++)
			for (size_t j = 0; j < d; j++)
				rhs[j * d + i] = m->vv[(a * d + i) * m->kv + b * d + j];
		rc = blas_cholesky(d, gram, d) || blas_cholesky_solve(d, d, gram, d, rhs, d) ? ERR_INPUT : ERR_OK;
	}
	for (size_t i = 0; i < d && !rc; i++) {
		for (size_t j = 0; j < d; j++) {
			map[i * d + j] = rhs[j * d + i];
			explained += map[i * d + j] * m->vv[(a * d + i) * m->kv + b * d + j];
		}
		all += m->v2[a * d + i];
	}
	*gain = all > 0 ? explained / all : 0;
	free(gram);
	free(rhs);
	return rc;
}

static void gain_head(void *arg, size_t a, int worker)
{
	struct moments *m = arg;
	double values;
	(void)worker;
	for (uint32_t b = 0; b < m->w->kv_heads; b++) {
		double keys = keys_gain(m, (uint32_t)a, b);
		int rc = values_gain(m, (uint32_t)a, b, &values);
		if (rc)
			__atomic_store_n(&m->rc, rc, __ATOMIC_RELAXED);
		m->gain[a * m->w->kv_heads + b] = keys + values;
	}
}

int share_assign(const double *gain, uint32_t n, uint32_t *to, struct err *e)
{
	/* rows and columns from 1; column 0 holds the row to be placed */
	double *u = calloc(n + 1, sizeof *u), *v = calloc(n + 1, sizeof *v), *least = malloc((n + 1) * sizeof *least);
	uint32_t *row = calloc(n + 1, sizeof *row), *way = calloc(n + 1, sizeof *way);
	bool *used = malloc((n + 1) * sizeof *used);
	bool ok = u && v && least && row && way && used;
	for (uint32_t i = 1; ok && i <= n; i++) {
		uint32_t at = 0;
		row[0] = i;
		for (uint32_t j = 0; j <= n; j++) {
			least[j] = DBL_MAX;
			used[j] = false;
		}
		do {
			uint32_t r = row[at], next = 0;
			double delta = DBL_MAX;
			used[at] = true;
			for (uint32_t j = 1; j <= n; j++) {
				if (used[j])
					continue;
				double cost = -gain[(size_t)(r - 1) * n + j - 1] - u[r] - v[j];
				if (cost < least[j]) {
					least[j] = cost;
					way[j] = at;
				}
				if (!next || least[j] < delta) {
					delta = least[j];
					next = j;
				}
			}
			for (uint32_t j = 0; j <= n; j++)
				if (used[j]) {
					u[row[j]] += delta;
					v[j] -= delta;
				} else {
					least[j] -= delta;
				}
			at = next;
		} while (row[at]);
		for (; at; at = way[at])
			row[at] = row[way[at]];
	}
	for (uint32_t j = 1; ok && j <= n; j++)
		to[row[j] - 1] = j - 1;
	free(u);
	free(v);
	free(least);
	free(row);
	free(way);
	free(used);
	return ok ? ERR_OK : err_nomem(e);
}

/* Query rows and output columns of own head a, for the owner's head b. */
static void place(const struct moments *m, uint32_t a, uint32_t b, struct attention_weights *out)
{
	const struct attention_weights *w = m->w;
	uint32_t d = w->dim, share = w->heads / w->kv_heads, pairs = fold_pairs(d), re, im;
	size_t width = (size_t)w->heads * d;
	const double complex *scale = m->scale + ((size_t)a * w->kv_heads + b) * pairs;
	const double *map = m->map + ((size_t)a * w->kv_heads + b) * d * d;
	for (uint32_t h = 0; h < share; h++) {
		size_t from = ((size_t)a * share + h) * d, to = ((size_t)b * share + h) * d;
		for (uint32_t l = 0; l < pairs; l++) {
			fold_pair(d, w->rope, l, &re, &im);
			for (size_t c = 0; c < w->cols; c++) {
				double x = w->q[(from + re) * w->cols + c], y = re == im ? 0 : w->q[(from + im) * w->cols + c];
				double complex z = (x + I * y) * conj(scale[l]);
				out->q[(to + re) * w->cols + c] = (float)creal(z);
				if (re != im)
					out->q[(to + im) * w->cols + c] = (float)cimag(z);
			}
		}
		for (size_t r = 0; r < w->hidden; r++)
			for (size_t j = 0; j < d; j++) {
				double sum = 0;
				for (size_t i = 0; i < d; i++)
					sum += w->o[r * width + from + i] * map[i * d + j];
				out->o[r * width + to + j] = (float)sum;
			}
	}
}

int share_match(struct attention_fit *f, const struct attention_weights *w, const struct share_seen *seen,
		struct attention_weights *out, uint32_t *heads, struct err *e)
{
	struct moments m;
	uint32_t *to = calloc(w->kv_heads, sizeof *to);
	int rc = moments_init(&m, w, e);
	if (!rc && !to)
		rc = err_nomem(e);
	for (size_t at = 0; at < seen->windows && !rc; at += seen->batch) {
		size_t n = seen->windows - at < seen->batch ? seen->windows - at : seen->batch, first = at * f->ctx;
		struct attention_batch b = { .seqs = n, .x = seen->x + first * w->cols };
		double unused;
		rc = attention_fit_run(f, w, &b, NULL, &unused, e);
		m.q = attention_fit_queries(f);
		m.k = attention_fit_keys(f);
		m.v = attention_fit_values(f);
		m.ks = seen->keys + first * m.kv;
		m.vs = seen->values + first * m.kv;
		m.tokens = n * f->ctx;
		if (!rc)
			thread_for(w->kv_heads, gather_head, &m);
	}
	if (!rc) {
		thread_for(w->kv_heads, gain_head, &m);
		rc = m.rc == ERR_NOMEM ? err_nomem(e) : m.rc ? err_set(e, ERR_INPUT, "activations are not finite") : ERR_OK;
	}
	if (!rc)
		rc = share_assign(m.gain, w->kv_heads, to, e);
	if (!rc)
		rc = attention_weights_new(out, w, w->kv_heads, e);
	for (uint32_t a = 0; a < w->kv_heads && !rc; a++) {
		place(&m, a, to[a], out);
		heads[to[a]] = a;
	}
	moments_release(&m);
	free(to);
	return rc;
}
