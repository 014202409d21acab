#include "model/attention.h"

#include <math.h>

#include "base/thread.h"
#include "kernel/kernel.h"
#include "kernel/product.h"

/* Queries of a tile: enough for sgemm, few enough that scores stay near the cache and little is computed to be masked. */
enum { TILE = 64, TILE_FLOATS = 1 << 21 };

static size_t tile_rows(size_t queries, size_t keys)
{
	size_t n = keys > TILE_FLOATS / TILE ? TILE_FLOATS / keys : TILE;
	n = n < 4 ? 4 : n;
	return n < queries ? n : queries;
}

static bool coded(const struct attention *a)
{
	return !kv_codec_plain(&a->codecs.k) || !kv_codec_plain(&a->codecs.v);
}

/* Scores of a tile, and the decoded rows of one head, keys and then values. */
size_t attention_scratch(const struct attention *a)
{
	return (tile_rows(a->queries, a->keys) + (coded(a) ? a->dim : 0)) * a->keys;
}

struct range {
	size_t from, to;
};

static struct range visible(const struct attention *a, size_t query)
{
	size_t last = a->first + query;
	return (struct range){ a->window && last + 1 > a->window ? last + 1 - a->window : 0, last + 1 };
}

/* Powers of one number for as many heads as are a power of two; the others lie between these. */
float attention_slope(uint32_t heads, uint32_t head)
{
	uint32_t power = 1;
	while (2 * power <= heads)
		power *= 2;
	return head < power ? exp2f(-8.0f * (float)(head + 1) / (float)power) : exp2f(-4.0f * (float)(2 * (head - power) + 1) / (float)power);
}

void attention_fade(float slope, float *scores, size_t n)
{
	for (size_t i = 0; i < n; i++)
		scores[i] -= slope * (float)(n - 1 - i);
}

/* Scores of n keys, the last of them the query's own, become probabilities. */
static void softmax(const struct attention *a, float slope, float *s, size_t n)
{
	const struct kernels *k = kernels();
	if (a->alibi)
		attention_fade(slope, s, n);
	if (a->softcap > 0)
		for (size_t i = 0; i < n; i++)
			s[i] = a->softcap * tanhf(s[i] / a->softcap);
	float scale = 1 / k->exp_sum(s, k->max(s, n), n);
	for (size_t i = 0; i < n; i++)
		s[i] *= scale;
}

struct head {
	const float *q;
	const uint8_t *k, *v;    /* of key 0 */
	float *out, *decoded;    /* room for the decoded rows of all keys */
	float slope;             /* of alibi */
	size_t q_stride;
	size_t k_bytes, v_bytes; /* from a key to the next */
};

struct rows {
	const float *at;
	size_t stride;
};

/* The rows of keys [from, to) as floats: where they lie, or decoded. */
static struct rows floats(const struct attention *a, const struct head *h, const struct kv_codec *c, const uint8_t *base,
			  size_t bytes, struct range r)
{
	if (kv_codec_plain(c))
		return (struct rows){ (const float *)(const void *)(base + r.from * bytes), bytes / sizeof(float) };
	for (size_t i = r.from; i < r.to; i++)
		kv_codec_decode(c, base + i * bytes, h->decoded + (i - r.from) * a->dim, a->dim);
	return (struct rows){ h->decoded, a->dim };
}

static void one_query(const struct attention *a, const struct head *h, size_t query, float *s)
{
	const struct kernels *k = kernels();
	struct range r = visible(a, query);
	const float *q = h->q + query * h->q_stride;
	float *out = h->out + query * h->q_stride;
	struct rows key = floats(a, h, &a->codecs.k, h->k, h->k_bytes, r);
	for (size_t i = 0; i < r.to - r.from; i++)
		s[i] = a->scale * k->dot(q, key.at + i * key.stride, a->dim);
	softmax(a, h->slope, s, r.to - r.from);
	struct rows value = floats(a, h, &a->codecs.v, h->v, h->v_bytes, r);
	for (size_t d = 0; d < a->dim; d++)
		out[d] = 0;
	for (size_t i = 0; i < r.to - r.from; i++)
		k->axpy(out, s[i], value.at + i * value.stride, a->dim);
}

static void tile(const struct attention *a, const struct head *h, size_t q0, size_t n, float *s)
{
	size_t from = visible(a, q0).from, to = visible(a, q0 + n - 1).to, width = to - from;
	struct rows key = floats(a, h, &a->codecs.k, h->k, h->k_bytes, (struct range){ from, to });
	product_gemm(false, true, n, width, a->dim, a->scale, h->q + q0 * h->q_stride, h->q_stride, key.at, key.stride, 0, s, width);
	for (size_t i = 0; i < n; i++) {
		struct range r = visible(a, q0 + i);
		float *row = s + i * width;
		softmax(a, h->slope, row + (r.from - from), r.to - r.from);
		for (size_t j = 0; j < r.from - from; j++)
			row[j] = 0;
		for (size_t j = r.to - from; j < width; j++)
			row[j] = 0;
	}
	struct rows value = floats(a, h, &a->codecs.v, h->v, h->v_bytes, (struct range){ from, to });
	product_gemm(false, false, n, a->dim, width, 1, s, width, value.at, value.stride, 0, h->out + q0 * h->q_stride, h->q_stride);
}

/* An item is one tile of one head of one sequence. */
static void item(void *arg, size_t index, int worker)
{
	const struct attention *a = arg;
	size_t rows = tile_rows(a->queries, a->keys), tiles = (a->queries + rows - 1) / rows;
	size_t t = index % tiles, head = index / tiles % a->heads, seq = index / tiles / a->heads;
	size_t group = head / (a->heads / a->kv_heads);
	size_t k_row = kv_codec_bytes(&a->codecs.k, a->dim), v_row = kv_codec_bytes(&a->codecs.v, a->dim);
	struct head h = { .slope = attention_slope(a->heads, (uint32_t)head), .q_stride = (size_t)a->heads * a->dim, .k_bytes = a->kv_heads * k_row, .v_bytes = a->kv_heads * v_row };
	size_t q = seq * a->queries * h.q_stride + head * a->dim;
	h.q = a->q + q;
	h.out = a->out + q;
	h.k = (const uint8_t *)a->k + seq * a->keys * h.k_bytes + group * k_row;
	h.v = (const uint8_t *)a->v + seq * a->keys * h.v_bytes + group * v_row;
	h.decoded = a->scratch + (size_t)worker * a->stride + rows * a->keys;
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
