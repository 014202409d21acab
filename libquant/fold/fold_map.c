#include "fold/fold_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/blas.h"

static int failed(int info, struct err *e)
{
	return info == BLAS_NOMEM ? err_nomem(e) :
	       err_set(e, ERR_INPUT, "an eigenvalue problem of the fold has no solution; are the statistics finite?");
}

/* Largest eigenvalue and eigenvector of Hermitian c [g, g], through the real symmetric matrix of twice the size. */
static int top_vector(const double complex *c, uint32_t g, double complex *u, double *value, double *work, struct err *e)
{
	size_t n = 2 * (size_t)g;
	double *a = work, *w = work + n * n;
	for (uint32_t i = 0; i < g; i++)
		for (uint32_t j = 0; j < g; j++) {
			double re = creal(c[i * g + j]), im = cimag(c[i * g + j]);
			a[i * n + j] = a[(i + g) * n + j + g] = re;
			a[(i + g) * n + j] = im;
			a[i * n + j + g] = -im;
		}
	int info = blas_eigen(n, a, n, w);
	if (info)
		return failed(info, e);
	const double *top = a + (n - 1) * n;
	/* any phase will do: make the largest entry real, so that rounding does not choose */
	uint32_t big = 0;
	for (uint32_t i = 0; i < g; i++) {
		u[i] = top[i] + top[i + g] * I;
		if (cabs(u[i]) > cabs(u[big]) * (1 + 1e-9))
			big = i;
	}
	double complex turn = cabs(u[big]) > 0 ? conj(u[big]) / cabs(u[big]) : 1;
	double norm = 0;
	for (uint32_t i = 0; i < g; i++) {
		u[i] *= turn;
		norm += creal(u[i] * conj(u[i]));
	}
	for (uint32_t i = 0; i < g && norm > 0; i++)
		u[i] /= sqrt(norm);
	*value = w[n - 1];
	return ERR_OK;
}

struct key_work {
	double complex *c, *u;
	double *real, *w;
};

static int key_work_init(struct key_work *k, uint32_t g, struct err *e)
{
	size_t n = 2 * (size_t)g;
	k->c = malloc((size_t)g * g * sizeof *k->c);
	k->u = malloc(g * sizeof *k->u);
	k->real = malloc((n * n + n) * sizeof *k->real);
	k->w = malloc(g * sizeof *k->w);
	return k->c && k->u && k->real && k->w ? ERR_OK : err_nomem(e);
}

static void key_work_release(struct key_work *k)
{
	free(k->c);
	free(k->u);
	free(k->real);
	free(k->w);
}

/* Scales a pair's coefficients so that E|k~|^2 is the mean of the members'. */
static void rescale(const struct fold_view *v, struct fold_map *m, uint32_t l)
{
	double var = 0, mean = 0;
	for (uint32_t i = 0; i < m->g; i++) {
		mean += creal(fold_key_moment(v, l, i, i)) / m->g;
		for (uint32_t j = 0; j < m->g; j++)
			var += creal(m->c[i * m->pairs + l] * fold_key_moment(v, l, i, j) * conj(m->c[j * m->pairs + l]));
	}
	if (!(var > 0) || !(mean > 0))
		return;
	double s = sqrt(mean / var);
	for (uint32_t i = 0; i < m->g; i++) {
		m->c[i * m->pairs + l] *= s;
		m->a[i * m->pairs + l] /= s;
	}
}

int fold_keys_pca(const struct fold_view *v, struct fold_map *m, double *loss, struct err *e)
{
	uint32_t g = v->g, pairs = fold_pairs(v->w->dim);
	struct key_work k;
	int rc = key_work_init(&k, g, e);
	double sum = 0;
	for (uint32_t l = 0; l < pairs && !rc; l++) {
		double most = 0, value = 0, trace = 0;
		for (uint32_t i = 0; i < g; i++) {
			k.w[i] = fold_query_energy(v, l, i);
			most = k.w[i] > most ? k.w[i] : most;
		}
		/* a head that is never asked must not divide by zero */
		for (uint32_t i = 0; i < g; i++)
			k.w[i] = most > 0 ? (k.w[i] > most * 1e-9 ? k.w[i] : most * 1e-9) : 1;
		for (uint32_t i = 0; i < g; i++)
			for (uint32_t j = 0; j < g; j++)
				k.c[i * g + j] = sqrt(k.w[i] * k.w[j]) * fold_key_moment(v, l, i, j);
		for (uint32_t i = 0; i < g; i++)
			trace += creal(k.c[i * g + i]);
		rc = top_vector(k.c, g, k.u, &value, k.real, e);
		if (rc)
			break;
		sum += trace > value ? trace - value : 0;
		for (uint32_t i = 0; m && i < g; i++) {
			m->c[i * pairs + l] = conj(k.u[i]) * sqrt(k.w[i]);
			m->a[i * pairs + l] = k.u[i] / sqrt(k.w[i]);
		}
		if (m)
			rescale(v, m, l);
	}
	key_work_release(&k);
	if (loss)
		*loss = sum;
	return rc;
}

/* Phases that make the heads' keys agree best, then their mean: u := phase(H u) climbs to a maximum of u* H u. */
int fold_keys_align(const struct fold_view *v, struct fold_map *m, struct err *e)
{
	enum { STEPS = 50 };
	uint32_t g = v->g;
	double complex *u = malloc(2 * (size_t)g * sizeof *u), *next = u + g;
	if (!u)
		return err_nomem(e);
	for (uint32_t l = 0; l < m->pairs; l++) {
		for (uint32_t i = 0; i < g; i++)
			u[i] = 1;
		for (int step = 0; step < STEPS; step++) {
			for (uint32_t i = 0; i < g; i++) {
				next[i] = 0;
				for (uint32_t j = 0; j < g; j++)
					next[i] += fold_key_moment(v, l, i, j) * u[j];
			}
			for (uint32_t i = 0; i < g; i++)
				u[i] = cabs(next[i]) > 0 ? next[i] / cabs(next[i]) : 1;
		}
		for (uint32_t i = 0; i < g; i++) {
			m->c[i * m->pairs + l] = conj(u[i]) / g;
			m->a[i * m->pairs + l] = u[i];
		}
		rescale(v, m, l);
	}
	free(u);
	return ERR_OK;
}

/* root = m^1/2 and its inverse; eigenvalues below a ten-millionth of the largest are raised to that. m [d, d] is destroyed. */
static int square_root(double *m, size_t d, double *root, double *inverse, double *work, struct err *e)
{
	enum { FLOOR = 10000000 };
	double *w = work, *scaled = work + d;
	int info = blas_eigen(d, m, d, w);
	if (info)
		return failed(info, e);
	double least = w[d - 1] > 0 ? w[d - 1] / FLOOR : 1;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < d; i++) {
			double s = sqrt(w[i] > least ? w[i] : least);
			for (size_t j = 0; j < d; j++)
				scaled[i * d + j] = m[i * d + j] * (pass ? 1 / s : s);
		}
		blas_dgemm(true, false, d, d, d, 1, m, d, scaled, d, 0, pass ? inverse : root, d);
	}
	return ERR_OK;
}

struct value_work {
	double *root, *inverse;  /* [g, d, d] of the output Grams */
	double *z, *w;           /* [gd, gd], [gd] */
	double *t, *u;           /* [d, gd] */
};

static void value_work_release(struct value_work *k)
{
	free(k->root);
	free(k->inverse);
	free(k->z);
	free(k->w);
	free(k->t);
	free(k->u);
}

static int value_work_init(struct value_work *k, size_t g, size_t d, struct err *e)
{
	size_t n = g * d;
	k->root = malloc(g * d * d * sizeof(double));
	k->inverse = malloc(g * d * d * sizeof(double));
	k->z = malloc(n * n * sizeof(double));
	k->w = malloc(n * sizeof(double));
	k->t = malloc((d * n + d) * sizeof(double));
	k->u = malloc(d * n * sizeof(double));
	if (k->root && k->inverse && k->z && k->w && k->t && k->u)
		return ERR_OK;
	value_work_release(k);
	return err_nomem(e);
}

/* z = E[Z^T Z] of what the heads' values mean to the output: blocks root_i E[v_i v_j^T] root_j. */
static int value_gram(const struct fold_view *v, struct value_work *k, struct err *e)
{
	size_t d = v->w->dim, n = v->g * d, ld = fold_stride(v);
	int rc = ERR_OK;
	double *gram = malloc(d * d * sizeof *gram), *work = malloc((d + d * d) * sizeof *work);
	if (!gram || !work)
		rc = err_nomem(e);
	for (uint32_t i = 0; i < v->g && !rc; i++) {
		fold_output_gram(v, i, gram);
		rc = square_root(gram, d, k->root + i * d * d, k->inverse + i * d * d, work, e);
	}
	for (uint32_t i = 0; i < v->g && !rc; i++)
		for (uint32_t j = 0; j < v->g; j++) {
			const double *vv = fold_value_moment(v, i, j);
			blas_dgemm(false, false, d, d, d, 1, k->root + i * d * d, d, vv, ld, 0, k->t, d);
			blas_dgemm(false, false, d, d, d, 1, k->t, d, k->root + j * d * d, d, 0, k->z + i * d * n + j * d, n);
		}
	free(gram);
	free(work);
	return rc;
}

/* E|v~|^2 becomes the mean of the members'. */
static void rescale_values(const struct fold_view *v, struct fold_map *m)
{
	size_t d = m->dim, ld = fold_stride(v);
	double var = 0, mean = 0;
	for (uint32_t i = 0; i < m->g; i++)
		for (uint32_t j = 0; j < m->g; j++) {
			const double *vv = fold_value_moment(v, i, j), *fi = m->f + i * d * d, *fj = m->f + j * d * d;
			for (size_t a = 0; i == j && a < d; a++)
				mean += vv[a * ld + a] / m->g;
			for (size_t a = 0; a < d; a++)
				for (size_t b = 0; b < d; b++)
					for (size_t r = 0; r < d; r++)
						var += fi[r * d + a] * vv[a * ld + b] * fj[r * d + b];
		}
	if (!(var > 0) || !(mean > 0))
		return;
	double s = sqrt(mean / var);
	for (size_t i = 0; i < m->g * d * d; i++) {
		m->f[i] *= s;
		m->b[i] /= s;
	}
}

int fold_values_pca(const struct fold_view *v, struct fold_map *m, double *loss, struct err *e)
{
	size_t d = v->w->dim, n = v->g * d;
	struct value_work k;
	int rc = value_work_init(&k, v->g, d, e);
	if (rc)
		return rc;
	rc = value_gram(v, &k, e);
	int info = rc ? 0 : blas_eigen(n, k.z, n, k.w);
	if (info)
		rc = failed(info, e);
	for (size_t i = 0; loss && !rc && i < n; i++) {
		*loss = i ? *loss : 0;
		*loss += i < n - d && k.w[i] > 0 ? k.w[i] : 0;
	}
	const double *p = k.z + (n - d) * n; /* [d, gd]: the best d directions of the stack */
	for (uint32_t i = 0; m && !rc && i < v->g; i++) {
		blas_dgemm(false, false, d, d, d, 1, p + i * d, n, k.root + i * d * d, d, 0, m->f + i * d * d, d);
		blas_dgemm(false, true, d, d, d, 1, k.inverse + i * d * d, d, p + i * d, n, 0, m->b + i * d * d, d);
	}
	if (m && !rc)
		rescale_values(v, m);
	value_work_release(&k);
	return rc;
}

/* turn = the orthogonal matrix nearest to x [d, d], which is destroyed. */
static int nearest_rotation(double *x, size_t d, double *turn, double *work, struct err *e)
{
	double *u = work, *vt = work + d * d, *s = work + 2 * d * d;
	int info = blas_svd(d, d, x, u, s, vt);
	if (info)
		return failed(info, e);
	blas_dgemm(false, false, d, d, d, 1, u, d, vt, d, 0, turn, d);
	return ERR_OK;
}

/* Generalized Procrustes: each head's values are turned to fit the mean of the others, a few rounds. */
int fold_values_align(const struct fold_view *v, struct fold_map *m, struct err *e)
{
	enum { ROUNDS = 10 };
	size_t d = v->w->dim, dd = d * d, ld = fold_stride(v);
	double *turn = calloc(v->g * dd, sizeof *turn), *x = malloc((3 * dd + d) * sizeof *x), *sum = malloc(dd * sizeof *sum);
	int rc = turn && x && sum ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < v->g && !rc; i++)
		for (size_t a = 0; a < d; a++)
			turn[i * dd + a * d + a] = 1;
	for (int round = 0; round < ROUNDS && !rc; round++)
		for (uint32_t i = 0; i < v->g && !rc; i++) {
			/* E[(sum of the others, turned) v_i^T] */
			memset(sum, 0, dd * sizeof *sum);
			for (uint32_t j = 0; j < v->g; j++)
				if (j != i) {
					const double *vv = fold_value_moment(v, j, i);
					blas_dgemm(false, false, d, d, d, 1, turn + j * dd, d, vv, ld, 1, sum, d);
				}
			if (v->g > 1)
				rc = nearest_rotation(sum, d, turn + i * dd, x, e);
		}
	for (uint32_t i = 0; i < v->g && !rc; i++)
		for (size_t a = 0; a < d; a++)
			for (size_t b = 0; b < d; b++) {
				m->f[i * dd + a * d + b] = turn[i * dd + a * d + b] / v->g;
				m->b[i * dd + b * d + a] = turn[i * dd + a * d + b];
			}
	if (!rc)
		rescale_values(v, m);
	free(turn);
	free(x);
	free(sum);
	return rc;
}
