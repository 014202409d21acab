#include "algo/ridge.h"

#include <math.h>
#include <stdlib.h>

#include "base/thread.h"
#include "kernel/blas.h"

/* Rows of the sums that one item takes; rows of data that are summed in f32 before they are added in f64. */
enum { TILE = 64, BLOCK = 512 };

int ridge_init(struct ridge *r, size_t in, size_t out, struct err *e)
{
	*r = (struct ridge){ .in = in, .out = out };
	r->aa = calloc(in * in, sizeof *r->aa);
	r->ab = calloc(in * out, sizeof *r->ab);
	if (r->aa && r->ab)
		return ERR_OK;
	ridge_release(r);
	return err_nomem(e);
}

void ridge_release(struct ridge *r)
{
	free(r->aa);
	free(r->ab);
	*r = (struct ridge){ 0 };
}

struct piece {
	struct ridge *r;
	const float *a, *b;
	size_t rows;
};

/* out[tile, n] += a[rows, tile]^T b[rows, n], columns in tiles as well */
static void tile(const float *a, size_t in, size_t from, const float *b, size_t n, size_t rows, double *out)
{
	float sum[TILE * TILE];
	size_t m = in - from < TILE ? in - from : TILE;
	for (size_t c = 0; c < n; c += TILE) {
		size_t k = n - c < TILE ? n - c : TILE;
		blas_gemm(true, false, m, k, rows, 1, a + from, in, b + c, n, 0, sum, k);
		for (size_t i = 0; i < m; i++)
			for (size_t j = 0; j < k; j++)
				out[(from + i) * n + c + j] += sum[i * k + j];
	}
}

static void add(void *arg, size_t item, int worker)
{
	(void)worker;
	const struct piece *p = arg;
	for (size_t at = 0; at < p->rows; at += BLOCK) {
		size_t rows = p->rows - at < BLOCK ? p->rows - at : BLOCK;
		const float *a = p->a + at * p->r->in, *b = p->b + at * p->r->out;
		tile(a, p->r->in, item * TILE, a, p->r->in, rows, p->r->aa);
		tile(a, p->r->in, item * TILE, b, p->r->out, rows, p->r->ab);
	}
}

void ridge_add(struct ridge *r, const float *a, const float *b, size_t rows)
{
	struct piece p = { r, a, b, rows };
	for (size_t i = 0; i < rows * r->out; i++)
		r->energy += (double)b[i] * b[i];
	thread_for((r->in + TILE - 1) / TILE, add, &p);
}

struct solve {
	struct ridge *r;
	int info;
};

/* In a loop of one item, so that LAPACK runs on one thread: its bits depend on how many it has. */
static void solve(void *arg, size_t item, int worker)
{
	(void)item, (void)worker;
	struct solve *s = arg;
	s->info = blas_cholesky(s->r->in, s->r->aa, s->r->in);
	if (!s->info)
		blas_cholesky_solve(s->r->in, s->r->out, s->r->aa, s->r->in, s->r->ab, s->r->out);
}

int ridge_solve(struct ridge *r, double lambda, float *w, struct err *e)
{
	double mean = 0;
	for (size_t i = 0; i < r->in; i++)
		mean += r->aa[i * r->in + i] / (double)r->in;
	if (!isfinite(mean) || !isfinite(r->energy))
		return err_set(e, ERR_INPUT, "activations are not finite");
	for (size_t i = 0; i < r->in; i++)
		r->aa[i * r->in + i] += lambda * mean + 1e-30;
	struct solve s = { r, 0 };
	thread_for(1, solve, &s);
	if (s.info)
		return err_set(e, ERR_INPUT, "second moments are singular even with damping %g", lambda);
	for (size_t i = 0; i < r->out; i++)
		for (size_t j = 0; j < r->in; j++)
			w[i * r->in + j] += (float)r->ab[j * r->out + i];
	return ERR_OK;
}
