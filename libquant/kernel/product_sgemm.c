/* Products by OpenBLAS: weights are decoded to f32, some rows at a time. */
#include "base/thread.h"
#include "kernel/blas.h"
#include "kernel/product.h"

/*
 * Rows of a block. sgemm packs the whole of x once per block, so a block must
 * have enough rows to be worth that (128 rows: about a tenth of the time); the
 * cap keeps scratch at 8 MiB per worker for very long rows.
 */
enum { BLOCK_ROWS = 128, BLOCK_FLOATS = 2 << 20 };
/* Rows of x of a piece of work: narrow weights have too few blocks for many cores, and decoding a block twice costs little beside this. */
enum { BLOCK_INPUTS = 512 };

static size_t block_rows(size_t cols)
{
	size_t n = BLOCK_FLOATS / (cols ? cols : 1) & ~(size_t)15;
	return n < 16 ? 16 : n > BLOCK_ROWS ? BLOCK_ROWS : n;
}

static bool usable(void)
{
	return true;
}

static size_t worker_floats(size_t rows, size_t cols)
{
	size_t block = block_rows(cols);
	return (rows < block ? rows : block) * cols;
}

static size_t floats(size_t n, size_t rows, size_t cols)
{
	(void)n;
	return (size_t)thread_count() * worker_floats(rows, cols);
}

static size_t pieces(size_t n)
{
	return n ? (n + BLOCK_INPUTS - 1) / BLOCK_INPUTS : 1;
}

static void block(void *arg, size_t item, int worker)
{
	const struct product_job *j = arg;
	const struct product_term *t = j->term;
	size_t from = item % pieces(j->n) * BLOCK_INPUTS, n = j->n - from < BLOCK_INPUTS ? j->n - from : BLOCK_INPUTS;
	item /= pieces(j->n);
	for (size_t blocks; item >= (blocks = (t->w.rows + block_rows(t->w.cols) - 1) / block_rows(t->w.cols)); t++)
		item -= blocks;
	size_t rows = t->w.rows, cols = t->w.cols, step = block_rows(cols), r0 = item * step, r1 = rows - r0 < step ? rows : r0 + step;
	float *decoded = j->scratch + (size_t)worker * (j->floats / (size_t)thread_count());
	const float *w = decoded;
	if (t->w.form == PRODUCT_F32)
		w = (const float *)t->w.data + r0 * cols;
	else
		t->w.decode(t->w.arg, r0, r1 - r0, decoded);
	blas_gemm(false, true, n, r1 - r0, cols, 1, j->x + from * cols, cols, w, cols, 0, t->y + from * rows + r0, rows);
	for (size_t i = from; t->bias && i < from + n; i++)
		for (size_t r = r0; r < r1; r++)
			t->y[i * rows + r] += t->bias[r];
}

static void weights(const struct product_job *j)
{
	size_t blocks = 0;
	for (unsigned i = 0; i < j->count; i++)
		blocks += (j->term[i].w.rows + block_rows(j->term[i].w.cols) - 1) / block_rows(j->term[i].w.cols);
	struct product_job job = *j;
	thread_for(blocks * pieces(j->n), block, &job);
}

static void gemm(const struct gemm *g)
{
	blas_gemm(g->ta, g->tb, g->m, g->n, g->k, g->alpha, g->a, g->lda, g->b, g->ldb, g->beta, g->c, g->ldc);
}

const struct product_row product_sgemm = { "sgemm", "OpenBLAS", usable, floats, weights, gemm };
