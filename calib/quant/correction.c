#include "calib/quant/correction.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/blas.h"

/* Rows at once, on one worker; fixed, so that results do not depend on the number of threads. */
enum { AIM_ROWS = 64 };

int moments_init(struct moments *m, size_t n, size_t width, bool residual, struct err *e)
{
	*m = (struct moments){ .n = n, .width = width };
	m->own = calloc(n * n, sizeof(double));
	m->cross = calloc(n * n, sizeof(double));
	m->residual = residual ? calloc(width * n, sizeof(double)) : NULL;
	if (m->own && m->cross && (m->residual || !residual))
		return ERR_OK;
	moments_release(m);
	return err_nomem(e);
}

void moments_release(struct moments *m)
{
	free(m->own);
	free(m->cross);
	free(m->residual);
	*m = (struct moments){ 0 };
}

static void combine(double *to, double a, const double *x, double b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = a * to[i] + (x ? b * x[i] : 0);
}

void moments_combine(struct moments *m, double a, const struct moments *x, double b)
{
	combine(m->own, a, x ? x->own : NULL, b, m->n * m->n);
	combine(m->cross, a, x ? x->cross : NULL, b, m->n * m->n);
	if (m->residual)
		combine(m->residual, a, x ? x->residual : NULL, b, m->width * m->n);
	m->tokens += x ? x->tokens : 0;
}

struct factoring {
	double *l;
	size_t n;
	int failed;
};

/* A loop of one item: LAPACK on one thread gives the same bits whatever the thread count. */
static void factor(void *arg, size_t item, int worker)
{
	(void)item;
	(void)worker;
	struct factoring *f = arg;
	f->failed = blas_cholesky(f->n, f->l, f->n);
}

int correction_init(struct correction *a, const struct moments *m, double input, double residual, double damping, struct err *e)
{
	size_t n = m->n;
	double mean = 0;
	*a = (struct correction){ .m = m, .input = input, .residual = m->residual ? residual : 0 };
	if (a->input == 0 && a->residual == 0)
		return ERR_OK;
	a->l = malloc(n * n * sizeof *a->l);
	if (!a->l)
		return err_nomem(e);
	memcpy(a->l, m->own, n * n * sizeof *a->l);
	for (size_t i = 0; i < n; i++)
		mean += a->l[i * n + i] / (double)n;
	for (size_t i = 0; i < n; i++)
		a->l[i * n + i] += damping * mean;
	struct factoring f = { a->l, n, 0 };
	thread_for(1, factor, &f);
	if (f.failed) {
		correction_release(a);
		return err_set(e, ERR_INPUT, "the inputs' second moments are singular; use more calibration text");
	}
	return ERR_OK;
}

void correction_release(struct correction *a)
{
	free(a->l);
	a->l = NULL;
}

struct pass {
	const struct correction *a;
	const float *w, *d;
	float *out;
	size_t rows, stride;
	double strength;
	struct judged *judged; /* per chunk */
	atomic_int failed;
};

static size_t chunk_rows(const struct pass *p, size_t item)
{
	size_t left = p->rows - item * AIM_ROWS;
	return left < AIM_ROWS ? left : AIM_ROWS;
}

static void correct_rows(void *arg, size_t item, int worker)
{
	struct pass *p = arg;
	const struct moments *m = p->a->m;
	size_t n = m->n, first = item * AIM_ROWS, rows = chunk_rows(p, item);
	const float *w = p->w + first * n;
	float *out = p->out + first * n;
	double *wd = malloc(rows * n * sizeof *wd), *b = malloc(rows * n * sizeof *b);
	(void)worker;
	if (!wd || !b) {
		atomic_store(&p->failed, 1);
		goto out;
	}
	for (size_t i = 0; i < rows * n; i++)
		wd[i] = (double)w[i];
	/* b = cross^T W^T, [n, rows]: the right-hand side of own X = b with X the transposed correction */
	blas_dgemm(true, true, n, rows, n, p->a->input, m->cross, n, wd, n, 0, b, rows);
	for (size_t r = 0; r < rows && p->a->residual != 0; r++)
		for (size_t i = 0; i < n; i++)
			b[i * rows + r] += p->a->residual * m->residual[(first + r) * p->stride * n + i];
	blas_cholesky_solve(n, rows, p->a->l, n, b, rows);
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < n; i++)
			out[r * n + i] = w[r * n + i] + (float)(p->strength * b[i * rows + r]);
out:
	free(wd);
	free(b);
}

int correction_weights(const struct correction *a, const struct some_rows *w, double strength, float *out, struct err *e)
{
	struct pass p = { .a = a, .w = w->w, .out = out, .rows = w->rows, .stride = w->stride, .strength = strength };
	if (!a->l || strength == 0) {
		if (out != w->w)
			memcpy(out, w->w, w->rows * a->m->n * sizeof *out);
		return ERR_OK;
	}
	atomic_init(&p.failed, 0);
	thread_for((w->rows + AIM_ROWS - 1) / AIM_ROWS, correct_rows, &p);
	return atomic_load(&p.failed) ? err_nomem(e) : ERR_OK;
}

static void judge_rows(void *arg, size_t item, int worker)
{
	struct pass *p = arg;
	const struct moments *m = p->a->m;
	size_t n = m->n, first = item * AIM_ROWS, rows = chunk_rows(p, item);
	double *x = malloc(rows * n * sizeof *x), *d = calloc(rows, n * sizeof *d), *y = malloc(rows * n * sizeof *y);
	struct judged *j = &p->judged[item];
	(void)worker;
	if (!x || !d || !y) {
		atomic_store(&p->failed, 1);
		goto out;
	}
	for (size_t i = 0; i < rows * n; i++) {
		x[i] = (double)p->w[first * n + i];
		d[i] = (double)p->d[first * n + i];
	}
	blas_dgemm(false, false, rows, n, n, 1, d, n, m->own, n, 0, y, n);
	for (size_t i = 0; i < rows * n; i++)
		j->square += y[i] * d[i];
	if (p->a->input != 0) {
		blas_dgemm(false, false, rows, n, n, p->a->input, x, n, m->cross, n, 0, y, n);
		for (size_t i = 0; i < rows * n; i++)
			j->linear += y[i] * d[i];
	}
	for (size_t r = 0; r < rows && p->a->residual != 0; r++)
		for (size_t i = 0; i < n; i++)
			j->linear += p->a->residual * m->residual[(first + r) * p->stride * n + i] * d[r * n + i];
out:
	free(x);
	free(d);
	free(y);
}

int correction_judge(const struct correction *a, const struct some_rows *w, const float *d, struct judged *out, struct err *e)
{
	size_t chunks = (w->rows + AIM_ROWS - 1) / AIM_ROWS;
	struct pass p = { .a = a, .w = w->w, .d = d, .rows = w->rows, .stride = w->stride, .judged = calloc(chunks + 1, sizeof *p.judged) };
	*out = (struct judged){ 0 };
	if (!p.judged)
		return err_nomem(e);
	atomic_init(&p.failed, 0);
	thread_for(chunks, judge_rows, &p);
	for (size_t i = 0; i < chunks; i++) {
		out->square += p.judged[i].square;
		out->linear += p.judged[i].linear;
	}
	free(p.judged);
	return atomic_load(&p.failed) ? err_nomem(e) : ERR_OK;
}
