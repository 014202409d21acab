#include "model/rounded.h"

#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/kernel.h"

/* What becomes of activations before they meet weights of a type. */
enum rounding { ROUND_NOT, ROUND_F16, ROUND_BF16, ROUND_32, ROUND_256, ROUNDINGS };

static enum rounding rounding_of(const struct weight *w)
{
	const struct codec *c = w->tensor->codec;
	if (c->kind == CODEC_BLOCK && kernels()->block[c->kernel].product) /* the others are multiplied as floats */
		return c->block == 32 ? ROUND_32 : ROUND_256;
	return !strcmp(c->name, "f16") ? ROUND_F16 : !strcmp(c->name, "bf16") ? ROUND_BF16 : ROUND_NOT;
}

/* Bytes of a token of n elements. */
static size_t line_bytes(enum rounding to, size_t n)
{
	return to == ROUND_32    ? (n + 63) / 64 * sizeof(struct rounded32)
	       : to == ROUND_256 ? n / 256 * sizeof(struct rounded256)
				 : n * sizeof(float);
}

size_t rounded_size(const struct weight *w, size_t n)
{
	_Static_assert(sizeof(struct rounded32) >= 64 * sizeof(float), "the widest of them");
	return n * line_bytes(ROUND_32, (size_t)tensor_cols(w->tensor));
}

struct round_job {
	enum rounding to;
	const float *x;
	uint8_t *out;
	size_t dim, line;
};

static void through_halves(const struct round_job *j, const float *x, float *out)
{
	enum { PART = 256 };
	const struct kernels *k = kernels();
	uint8_t half[2 * PART];
	for (size_t at = 0, n; at < j->dim; at += n) {
		n = j->dim - at < PART ? j->dim - at : PART;
		(j->to == ROUND_F16 ? k->f16_from_f32 : k->bf16_from_f32)(x + at, half, n);
		(j->to == ROUND_F16 ? k->f32_from_f16 : k->f32_from_bf16)(half, out + at, n);
	}
}

static void round_token(void *arg, size_t t, int worker)
{
	const struct round_job *j = arg;
	const float *x = j->x + t * j->dim;
	void *out = j->out + t * j->line;
	(void)worker;
	if (j->to == ROUND_32)
		kernels()->round_32(x, j->dim, out);
	else if (j->to == ROUND_256)
		kernels()->round_256(x, j->dim, out);
	else
		through_halves(j, x, out);
}

struct work {
	const struct product *p;
	size_t start[PRODUCTS + 1]; /* first item of each product */
	const void *x;
	size_t n;
};

/* Rows of an item. With one token it is a moment's work, with many their activations pass by for each item. */
enum { ITEM_ROWS = 32 };

static void product_rows(void *arg, size_t item, int worker)
{
	const struct work *a = arg;
	unsigned i = 0;
	(void)worker;
	while (item >= a->start[i + 1])
		i++;
	const struct product *p = &a->p[i];
	const struct codec *c = p->w->tensor->codec;
	size_t rows = (size_t)tensor_rows(p->w->tensor), cols = (size_t)tensor_cols(p->w->tensor);
	size_t from = (item - a->start[i]) * ITEM_ROWS, n = rows - from < ITEM_ROWS ? rows - from : ITEM_ROWS;
	const struct rounded_product job = { .src = p->w->bytes.data + from * codec_row_bytes(c, cols), .x = a->x, .n = cols, .rows = n,
					     .tokens = a->n, .stride = rows, .y = p->y + from };
	kernels()->block[c->kernel].product(&job);
	for (size_t t = 0; p->bias && t < a->n; t++)
		for (size_t r = from; r < from + n; r++)
			p->y[t * rows + r] += p->bias[r];
}

void rounded_products(const struct product *p, unsigned count, const float *x, size_t n, const struct rounded_room *room)
{
	for (enum rounding to = ROUND_NOT; n && to < ROUNDINGS; to++) {
		struct product mine[PRODUCTS];
		struct work work = { .p = mine, .x = room->x, .n = n };
		unsigned k = 0;
		for (unsigned i = 0; i < count; i++)
			if (rounding_of(p[i].w) == to) {
				mine[k++] = p[i];
				work.start[k] = work.start[k - 1] + ((size_t)tensor_rows(p[i].w->tensor) + ITEM_ROWS - 1) / ITEM_ROWS;
			}
		if (!k)
			continue;
		size_t dim = (size_t)tensor_cols(mine[0].w->tensor);
		struct round_job job = { .to = to, .x = x, .out = room->x, .dim = dim, .line = line_bytes(to, dim) };
		if (to != ROUND_NOT)
			thread_for(n, round_token, &job);
		if (to == ROUND_32 || to == ROUND_256)
			thread_for(work.start[k], product_rows, &work);
		else
			weight_products(mine, k, to == ROUND_NOT ? x : room->x, n, room->scratch, room->stride);
	}
}
