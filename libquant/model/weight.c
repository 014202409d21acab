#include "model/weight.h"

#include <stdlib.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"

/*
 * Rows of a block. sgemm packs the whole of x once per block, so a block must
 * have enough rows to be worth that (128 rows: about a tenth of the time); the
 * cap keeps scratch at 8 MiB per worker for very long rows.
 */
enum { BLOCK_ROWS = 128, BLOCK_FLOATS = 2 << 20 };

static size_t block_rows(uint64_t cols)
{
	size_t n = BLOCK_FLOATS / (cols ? (size_t)cols : 1) & ~(size_t)15;
	return n < 16 ? 16 : n > BLOCK_ROWS ? BLOCK_ROWS : n;
}

size_t weight_scratch(const struct weight *w)
{
	uint64_t rows = tensor_rows(w->tensor), cols = tensor_cols(w->tensor);
	size_t block = block_rows(cols);
	return (size_t)((rows < block ? rows : block) * cols);
}

/* f32 in memory can be multiplied as it lies. */
static const float *in_place(const struct weight *w)
{
	const struct codec *c = w->tensor->codec;
	const void *p = w->bytes.data;
	return c->kind == CODEC_FLOAT && c->block_bytes == 4 && (uintptr_t)p % 4 == 0 ? p : NULL;
}

static void decode_rows(const struct weight *w, uint64_t first, size_t n, float *out)
{
	const struct codec *c = w->tensor->codec;
	size_t cols = (size_t)tensor_cols(w->tensor);
	uint64_t bytes = codec_row_bytes(c, cols);
	const uint8_t *src = w->bytes.data + first * bytes;
	if (c->kind == CODEC_FLOAT) {
		c->decode(c, src, out, n * cols);
		return;
	}
	for (size_t i = 0; i < n; i++)
		c->decode(c, src + i * bytes, out + i * cols, cols);
}

void weight_row(const struct weight *w, uint64_t row, float *out)
{
	decode_rows(w, row, 1, out);
}

struct work {
	const struct product *p;
	unsigned count;
	size_t start[PRODUCTS + 1]; /* first block of each product */
	const float *x;
	size_t n;
	float *scratch;
	size_t stride;
};

static void one_token(const struct product *p, size_t r0, size_t r1, const float *x, float *scratch)
{
	const struct kernels *k = kernels();
	const struct codec *c = p->w->tensor->codec;
	const float *w = in_place(p->w);
	size_t cols = (size_t)tensor_cols(p->w->tensor);
	const uint8_t *src = p->w->bytes.data;
	if (c->dot)
		c->dot(c, src + r0 * codec_row_bytes(c, cols), x, cols, p->y + r0, r1 - r0);
	for (size_t r = r0; !c->dot && r < r1; r++) {
		if (!w)
			decode_rows(p->w, r, 1, scratch);
		p->y[r] = k->dot(w ? w + r * cols : scratch, x, cols);
	}
	for (size_t r = r0; p->bias && r < r1; r++)
		p->y[r] += p->bias[r];
}

static void product_block(void *arg, size_t item, int worker)
{
	const struct work *a = arg;
	unsigned i = 0;
	while (item >= a->start[i + 1])
		i++;
	const struct product *p = &a->p[i];
	size_t rows = (size_t)tensor_rows(p->w->tensor), cols = (size_t)tensor_cols(p->w->tensor), step = block_rows(cols);
	size_t r0 = (item - a->start[i]) * step, r1 = rows - r0 < step ? rows : r0 + step;
	float *scratch = a->scratch + (size_t)worker * a->stride;
	if (a->n == 1) {
		one_token(p, r0, r1, a->x, scratch);
		return;
	}
	const float *w = in_place(p->w);
	if (w)
		w += r0 * cols;
	else {
		decode_rows(p->w, r0, r1 - r0, scratch);
		w = scratch;
	}
	blas_gemm(false, true, a->n, r1 - r0, cols, 1, a->x, cols, w, cols, 0, p->y + r0, rows);
	for (size_t t = 0; p->bias && t < a->n; t++)
		for (size_t r = r0; r < r1; r++)
			p->y[t * rows + r] += p->bias[r];
}

void weight_products(const struct product *p, unsigned count, const float *x, size_t n, float *scratch, size_t stride)
{
	struct work a = { .p = p, .count = count, .x = x, .n = n, .scratch = scratch, .stride = stride };
	for (unsigned i = 0; i < count; i++) {
		size_t step = block_rows(tensor_cols(p[i].w->tensor));
		a.start[i + 1] = a.start[i] + ((size_t)tensor_rows(p[i].w->tensor) + step - 1) / step;
	}
	if (n)
		thread_for(a.start[count], product_block, &a);
}

int weight_apply(const struct weight *w, const float *x, size_t n, const float *bias, float *y, struct err *e)
{
	size_t stride = weight_scratch(w);
	float *scratch = malloc((size_t)thread_count() * stride * sizeof *scratch);
	if (!scratch)
		return err_nomem(e);
	struct product p = { w, bias, y };
	weight_products(&p, 1, x, n, scratch, stride);
	free(scratch);
	return ERR_OK;
}
