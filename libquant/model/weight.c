#include "model/weight.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "kernel/product.h"

/* Rows of an item of one token's products. */
enum { ITEM_ROWS = 128 };

size_t weight_scratch(const struct weight *w, size_t n)
{
	size_t cols = (size_t)tensor_cols(w->tensor), workers = (size_t)thread_count();
	size_t floats = products()->floats(n, (size_t)tensor_rows(w->tensor), cols);
	floats = (floats + workers - 1) / workers;
	return floats < cols ? cols : floats;
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

static void decode_weights(const void *arg, size_t first, size_t n, float *out)
{
	decode_rows(arg, first, n, out);
}

static struct product_term term_of(const struct product *p)
{
	const struct codec *c = p->w->tensor->codec;
	const float *f32 = in_place(p->w);
	bool bf16 = strcmp(c->name, "bf16") == 0;
	return (struct product_term){
		.w = { .rows = (size_t)tensor_rows(p->w->tensor), .cols = (size_t)tensor_cols(p->w->tensor),
		       .form = f32 ? PRODUCT_F32 : bf16 ? PRODUCT_BF16 : PRODUCT_CODED, .data = p->w->bytes.data,
		       .decode = decode_weights, .arg = p->w },
		.bias = p->bias, .y = p->y };
}

/* The products of one token, which are as fast as their weights are read. */
struct work {
	const struct product *p;
	size_t start[PRODUCTS + 1]; /* first item of each product */
	const float *x;
	float *scratch;
	size_t stride;
};

static void one_token(void *arg, size_t item, int worker)
{
	const struct work *a = arg;
	unsigned i = 0;
	while (item >= a->start[i + 1])
		i++;
	const struct kernels *k = kernels();
	const struct product *p = &a->p[i];
	const struct codec *c = p->w->tensor->codec;
	const float *w = in_place(p->w);
	float *scratch = a->scratch + (size_t)worker * a->stride;
	size_t rows = (size_t)tensor_rows(p->w->tensor), cols = (size_t)tensor_cols(p->w->tensor);
	size_t r0 = (item - a->start[i]) * ITEM_ROWS, r1 = rows - r0 < ITEM_ROWS ? rows : r0 + ITEM_ROWS;
	const uint8_t *src = p->w->bytes.data;
	if (c->dot)
		c->dot(c, src + r0 * codec_row_bytes(c, cols), a->x, cols, p->y + r0, r1 - r0);
	for (size_t r = r0; !c->dot && r < r1; r++) {
		if (!w)
			decode_rows(p->w, r, 1, scratch);
		p->y[r] = k->dot(w ? w + r * cols : scratch, a->x, cols);
	}
	for (size_t r = r0; p->bias && r < r1; r++)
		p->y[r] += p->bias[r];
}

void weight_products(const struct product *p, unsigned count, const float *x, size_t n, float *scratch, size_t stride)
{
	struct product_term term[PRODUCTS];
	struct work one = { .p = p, .x = x, .scratch = scratch, .stride = stride };
	for (unsigned i = 0; i < count; i++) {
		term[i] = term_of(&p[i]);
		one.start[i + 1] = one.start[i] + (term[i].w.rows + ITEM_ROWS - 1) / ITEM_ROWS;
	}
	if (n == 1)
		thread_for(one.start[count], one_token, &one);
	else if (n)
		products()->weights(&(struct product_job){ .term = term, .count = count, .x = x, .n = n, .scratch = scratch,
							   .floats = stride * (size_t)thread_count() });
}

int weight_apply(const struct weight *w, const float *x, size_t n, const float *bias, float *y, struct err *e)
{
	size_t stride = weight_scratch(w, n);
	float *scratch = malloc((size_t)thread_count() * stride * sizeof *scratch);
	if (!scratch)
		return err_nomem(e);
	struct product p = { w, bias, y };
	weight_products(&p, 1, x, n, scratch, stride);
	free(scratch);
	return ERR_OK;
}
