#include "algo/ridge.h"

#include <math.h>
#include <stdlib.h>

#include "base/thread.h"
#include "kernel/blas.h"
#include "kernel/product.h"

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

/* Rows of both sides that are added to the sums. */
struct piece {
	struct ridge *r;
	const float *a, *b;
	size_t rows;
};

/* out[tile, n] += a[rows, tile]^T x[rows, n], columns in tiles as well; the tile of a begins at column `from` */
static void tile(const struct piece *p, size_t from, const float *x, size_t n, double *out)
{
	float sum[TILE * TILE];
	size_t in = p->r->in, m = in - from < TILE ? in - from : TILE;
	for (size_t c = 0; c < n; c += TILE) {
		size_t k = n - c < TILE ? n - c : TILE;
		product_gemm(true, false, m, k, p->rows, 1, p->a + from, in, x + c, n, 0, sum, k);
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
		const struct piece one = { p->r, p->a + at * p->r->in, p->b + at * p->r->out, rows };
		tile(&one, item * TILE, one.a, p->r->in, p->r->aa);
		tile(&one, item * TILE, one.b, p->r->out, p->r->ab);
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
