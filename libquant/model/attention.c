#include "model/attention.h"

#include <math.h>

#include "base/thread.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"

/* Queries of a tile: enough for sgemm, few enough that scores stay near the cache and little is computed to be masked. */
enum { TILE = 64, TILE_FLOATS = 1 << 21 };

static size_t tile_rows(size_t queries, size_t keys)
{
	size_t n = keys > TILE_FLOATS / TILE ? TILE_FLOATS / keys : TILE;
	n = n < 4 ? 4 : n;
	return n < queries ? n : queries;
}

size_t attention_scratch(size_t queries, size_t keys)
{
	return tile_rows(queries, keys) * keys;
}

struct range {
	size_t from, to;
};

static struct range visible(const struct attention *a, size_t query)
{
	size_t last = a->first + query;
	return (struct range){ a->window && last + 1 > a->window ? last + 1 - a->window : 0, last + 1 };
}

/* Scores of keys [r.from, r.to) become probabilities. */
static void softmax(const struct attention *a, float *s, size_t n)
{
	const struct kernels *k = kernels();
	if (a->softcap > 0)
		for (size_t i = 0; i < n; i++)
			s[i] = a->softcap * tanhf(s[i] / a->softcap);
	float scale = 1 / k->exp_sum(s, k->max(s, n), n);
	for (size_t i = 0; i < n; i++)
		s[i] *= scale;
}

struct head {
	const float *q, *k, *v;
	float *out;
	size_t q_stride, kv_stride;
};

static void one_query(const struct attention *a, const struct head *h, size_t query, float *s)
{
	const struct kernels *k = kernels();
	struct range r = visible(a, query);
	const float *q = h->q + query * h->q_stride;
	float *out = h->out + query * h->q_stride;
	for (size_t i = r.from; i < r.to; i++)
		s[i - r.from] = a->scale * k->dot(q, h->k + i * h->kv_stride, a->dim);
	softmax(a, s, r.to - r.from);
	for (size_t d = 0; d < a->dim; d++)
		out[d] = 0;
	for (size_t i = r.from; i < r.to; i++)
		k->axpy(out, s[i - r.from], h->v + i * h->kv_stride, a->dim);
}

static void tile(const struct attention *a, const struct head *h, size_t q0, size_t n, float *s)
{
	size_t from = visible(a, q0).from, to = visible(a, q0 + n - 1).to, width = to - from;
	blas_gemm(false, true, n, width, a->dim, a->scale, h->q + q0 * h->q_stride, h->q_stride, h->k + from * h->kv_stride,
		  h->kv_stride, 0, s, width);
	for (size_t i = 0; i < n; i++) {
		struct range r = visible(a, q0 + i);
		float *row = s + i * width;
		softmax(a, row + (r.from - from), r.to - r.from);
		for (size_t j = 0; j < r.from - from; j++)
			row[j] = 0;
		for (size_t j = r.to - from; j < width; j++)
			row[j] = 0;
	}
	blas_gemm(false, false, n, a->dim, width, 1, s, width, h->v + from * h->kv_stride, h->kv_stride, 0,
		  h->out + q0 * h->q_stride, h->q_stride);
}

/* An item is one tile of one head of one sequence. */
static void item(void *arg, size_t index, int worker)
{
	const struct attention *a = arg;
	size_t rows = tile_rows(a->queries, a->keys), tiles = (a->queries + rows - 1) / rows;
	size_t t = index % tiles, head = index / tiles % a->heads, seq = index / tiles / a->heads;
	size_t group = head / (a->heads / a->kv_heads);
	struct head h = { .q_stride = (size_t)a->heads * a->dim, .kv_stride = (size_t)a->kv_heads * a->dim };
	size_t q = seq * a->queries * h.q_stride + head * a->dim, kv = seq * a->keys * h.kv_stride + group * a->dim;
	h.q = a->q + q;
	h.out = a->out + q;
	h.k = a->k + kv;
	h.v = a->v + kv;
	float *s = a->scratch + (size_t)worker * a->stride;
	size_t q0 = t * rows, n = a->queries - q0 < rows ? a->queries - q0 : rows;
	if (n == 1)
		one_query(a, &h, q0, s);
	else
		tile(a, &h, q0, n, s);
}

void attention_run(const struct attention *a)
{
	size_t rows = tile_rows(a->queries, a->keys);
	struct attention copy = *a;
	if (a->seqs && a->queries)
		thread_for(a->seqs * a->heads * ((a->queries + rows - 1) / rows), item, &copy);
}
