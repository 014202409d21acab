#include "algo/curvature.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/blas.h"

struct ranked {
	double diagonal;
	uint32_t channel;
};

/* Largest first; equal ones in channel order, so that the result does not depend on the sort. */
static int by_diagonal(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->diagonal != y->diagonal)
		return x->diagonal > y->diagonal ? -1 : 1;
	return x->channel < y->channel ? -1 : 1;
}

static int choose_order(struct curvature *c, const double *hessian, struct err *e)
{
	struct ranked *r = malloc(c->n * sizeof *r);
	if (!r)
		return err_nomem(e);
	for (size_t i = 0; i < c->n; i++)
		r[i] = (struct ranked){ hessian[i * c->n + i], (uint32_t)i };
	qsort(r, c->n, sizeof *r, by_diagonal);
	for (size_t i = 0; i < c->n; i++)
		c->order[i] = r[i].channel;
	free(r);
	return ERR_OK;
}

/*
 * The upper Cholesky factor of the inverse of what is in work, channels in their order: P = U^T U with U upper. U^T is P's
 * lower factor, so U[i][j] = L[j][i]. Nonzero when work is not positive definite.
 */
static int factor_inverse(struct curvature *c, double *work)
{
	size_t n = c->n;
	if (blas_cholesky(n, work, n) || blas_cholesky_inverse(n, work, n) || blas_cholesky(n, work, n))
		return 1;
	for (size_t i = 0; i < n; i++) {
		memset(c->u + i * n, 0, i * sizeof(float));
		for (size_t j = i; j < n; j++)
			c->u[i * n + j] = (float)work[j * n + i];
		if (!(c->u[i * n + i] > 0) || !isfinite(c->u[i * n + i]))
			return 1;
	}
	return 0;
}

/* Of a damped H, in `order`. */
static int factor(struct curvature *c, const double *hessian, double *work, double extra)
{
	size_t n = c->n;
	for (size_t i = 0; i < n; i++) {
		const double *row = hessian + (size_t)c->order[i] * n;
		for (size_t j = 0; j < n; j++)
			work[i * n + j] = row[c->order[j]];
		/* a channel that never fires must not make H singular; any positive value leaves the others alone */
		work[i * n + i] += extra + (row[c->order[i]] == 0 ? 1.0 : 0.0);
	}
	return factor_inverse(c, work);
}

/* Damping in multiples of the mean diagonal beyond which the moments say nothing any more. */
#define TOO_MUCH 1e3

struct attempt {
	struct curvature *c;
	const double *hessian;
	double *work, damping, mean;
};

/* A loop of one item: LAPACK on one thread gives the same bits whatever the thread count. */
static void damp_and_factor(void *arg, size_t item, int worker)
{
	(void)item;
	(void)worker;
	struct attempt *a = arg;
	a->c->damping = a->damping;
	while (factor(a->c, a->hessian, a->work, a->c->damping * a->mean) && a->c->damping < TOO_MUCH)
		a->c->damping = a->c->damping > 0 ? a->c->damping * 10 : 1e-6;
}

static int check(struct curvature *c, const double *hessian, double *mean, struct err *e)
{
	double trace = 0;
	for (size_t i = 0; i < c->n * c->n; i++)
		if (!isfinite(hessian[i]))
			return err_set(e, ERR_INPUT, "second moments hold NaN or infinite values (channel %zu)", i / c->n);
	for (size_t i = 0; i < c->n; i++) {
		double d = hessian[i * c->n + i];
		if (d < 0)
			return err_set(e, ERR_INPUT, "second moments are negative (channel %zu)", i);
		trace += d;
		c->dead += d == 0;
	}
	if (trace == 0)
		return err_set(e, ERR_INPUT, "second moments are all zero: the layer saw no input");
	*mean = trace / (double)c->n;
	return ERR_OK;
}

int curvature_new(const double *hessian, size_t n, double damping, struct curvature **out, struct err *e)
{
	struct curvature *c = calloc(1, sizeof *c);
	double *work = malloc(n * n * sizeof *work), mean = 0;
	*out = NULL;
	if (!c || !work) {
		free(c);
		free(work);
		return err_nomem(e);
	}
	c->n = n;
	c->h = malloc(n * n * sizeof *c->h);
	c->u = malloc(n * n * sizeof *c->u);
	c->order = malloc(n * sizeof *c->order);
	int rc = c->h && c->u && c->order ? check(c, hessian, &mean, e) : err_nomem(e);
	if (!rc)
		rc = choose_order(c, hessian, e);
	if (!rc) {
		struct attempt a = { c, hessian, work, damping, mean };
		thread_for(1, damp_and_factor, &a);
		if (c->damping >= TOO_MUCH)
			rc = err_set(e, ERR_INPUT, "second moments are not positive semidefinite");
	}
	if (!rc)
		for (size_t i = 0; i < n; i++) {
			for (size_t j = 0; j < n; j++)
				c->h[i * n + j] = (float)hessian[i * n + j];
			double d = hessian[i * n + i];
			c->h[i * n + i] = (float)(d + c->damping * mean + (d == 0 ? 1.0 : 0.0));
		}
	free(work);
	if (rc)
		curvature_free(c);
	else
		*out = c;
	return rc;
}

void curvature_free(struct curvature *c)
{
	if (!c)
		return;
	free(c->h);
	free(c->u);
	free(c->order);
	free(c);
}

struct grouping {
	struct curvature *c;
	double *work;
	int rc;
};

/* As damp_and_factor: a loop of one item. */
static void factor_groups(void *arg, size_t item, int worker)
{
	(void)item;
	(void)worker;
	struct grouping *g = arg;
	g->rc = factor_inverse(g->c, g->work);
}

int curvature_group(struct curvature *c, size_t together, struct err *e)
{
	size_t n = c->n, groups = n / together;
	struct ranked *r = calloc(groups, sizeof *r);
	struct grouping g = { c, malloc(n * n * sizeof(double)), 0 };
	if (r && g.work) {
		for (size_t i = 0; i < groups; i++) {
			r[i].channel = (uint32_t)(i * together);
			for (size_t k = i * together; k < (i + 1) * together; k++)
				r[i].diagonal += (double)c->h[k * n + k];
		}
		qsort(r, groups, sizeof *r, by_diagonal);
		for (size_t i = 0; i < n; i++)
			c->order[i] = r[i / together].channel + (uint32_t)(i % together);
		for (size_t i = 0; i < n * n; i++)
			g.work[i] = (double)c->h[(size_t)c->order[i / n] * n + c->order[i % n]];
		thread_for(1, factor_groups, &g);
	}
	int rc = !r || !g.work ? err_nomem(e) : g.rc ? err_set(e, ERR_INPUT, "second moments are not positive semidefinite") : ERR_OK;
	free(r);
	free(g.work);
	return rc;
}
