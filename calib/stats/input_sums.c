#include "calib/stats/input_sums.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/thread.h"
#include "calib/stats/stats_file.h"
#include "kernel/blas.h"
#include "kernel/product.h"

/*
 * STRIP: channels summed together, a few cache lines of each row. TILE: a square of the moments; large enough for sgemm
 * to run at its full rate, small enough that a narrow model still makes work for several threads.
 */
enum { STRIP = 64, TILE = 256 };

int input_sums_init(struct input_sums *g, size_t n, bool moments, struct err *e)
{
	*g = (struct input_sums){ .n = n };
	g->sum_squares = calloc(n, sizeof *g->sum_squares);
	g->abs_sum = calloc(n, sizeof *g->abs_sum);
	g->abs_max = calloc(n, sizeof *g->abs_max);
	g->moment = moments ? calloc(triangle(n), sizeof *g->moment) : NULL;
	if (g->sum_squares && g->abs_sum && g->abs_max && (g->moment || !moments))
		return ERR_OK;
	input_sums_release(g);
	return err_nomem(e);
}

void input_sums_release(struct input_sums *g)
{
	free(g->sum_squares);
	free(g->abs_sum);
	free(g->abs_max);
	free(g->moment);
	*g = (struct input_sums){ 0 };
}

size_t input_sums_scratch(void)
{
	return (size_t)thread_count() * TILE * TILE;
}

struct pass {
	struct input_sums *g;
	const float *x;
	size_t rows;
	float *scratch;
	atomic_int bad;
};

static void add_strip(void *arg, size_t item, int worker)
{
	struct pass *p = arg;
	struct input_sums *g = p->g;
	size_t at = item * STRIP, width = g->n - at < STRIP ? g->n - at : STRIP;
	double square[STRIP] = { 0 }, sum[STRIP] = { 0 };
	float most[STRIP];
	(void)worker;
	for (size_t i = 0; i < width; i++)
		most[i] = g->abs_max[at + i];
	for (size_t t = 0; t < p->rows; t++) {
		const float *x = p->x + t * g->n + at;
		for (size_t i = 0; i < width; i++) {
			float a = fabsf(x[i]);
			square[i] += (double)a * (double)a;
			sum[i] += (double)a;
			most[i] = a > most[i] ? a : most[i];
		}
	}
	for (size_t i = 0; i < width; i++) {
		float s = (float)square[i];
		if (!isfinite(s)) {
			atomic_store(&p->bad, 1);
			continue;
		}
		g->sum_squares[at + i] += (double)s;
		g->abs_sum[at + i] += (double)(float)sum[i];
		g->abs_max[at + i] = most[i];
	}
}

/* Tile `item` of the lower triangle, counted row by row. */
static void add_tile(void *arg, size_t item, int worker)
{
	struct pass *p = arg;
	struct input_sums *g = p->g;
	size_t row = 0;
	while (triangle(row + 1) <= item)
		row++;
	size_t col = item - triangle(row), i0 = row * TILE, j0 = col * TILE;
	size_t m = g->n - i0 < TILE ? g->n - i0 : TILE, n = g->n - j0 < TILE ? g->n - j0 : TILE;
	float *c = p->scratch + (size_t)worker * TILE * TILE;
	if (row == col)
		blas_syrk(m, p->rows, 1, p->x + i0, g->n, 0, c, TILE);
	else
		product_gemm(true, false, m, n, p->rows, 1, p->x + i0, g->n, p->x + j0, g->n, 0, c, TILE);
	for (size_t i = 0; i < m; i++) {
		double *out = g->moment + triangle(i0 + i) + j0;
		size_t width = row == col ? i + 1 : n;
		for (size_t j = 0; j < width; j++)
			out[j] += (double)c[i * TILE + j];
	}
}

static int complain(const struct input_sums *g, const float *x, size_t rows, struct err *e)
{
	for (size_t t = 0; t < rows; t++)
		for (size_t i = 0; i < g->n; i++)
			if (!isfinite(x[t * g->n + i]))
				return err_set(e, ERR_INPUT, "channel %zu is %s at token %zu", i, isnan(x[t * g->n + i]) ? "NaN" : "infinite", t);
	return err_set(e, ERR_INPUT, "activations are too large: their squares overflow");
}

int input_sums_add(struct input_sums *g, const float *x, size_t rows, float *scratch, struct err *e)
{
	struct pass p = { .g = g, .x = x, .rows = rows, .scratch = scratch };
	atomic_init(&p.bad, 0);
	thread_for((g->n + STRIP - 1) / STRIP, add_strip, &p);
	if (atomic_load(&p.bad))
		return complain(g, x, rows, e);
	if (g->moment)
		thread_for(triangle((g->n + TILE - 1) / TILE), add_tile, &p);
	g->count += rows;
	return ERR_OK;
}
