#include "model/kv.h"

#include <stdlib.h>
#include <string.h>

/*
 * A layer with a window keeps a buffer of window + slack tokens: when it is
 * full, the last window - 1 tokens move to its start. The view stays
 * contiguous and each token is moved at most window / slack times.
 */
struct store {
	uint8_t *k, *v;
	uint32_t heads;
	size_t k_bytes, v_bytes; /* of a token */
	size_t rows;             /* tokens that fit */
	size_t first, count;     /* position of row 0, rows in use */
	size_t window;           /* 0: keeps everything */
};

struct kv_cache {
	size_t capacity, length, dim;
	size_t chunk;            /* tokens that may go through all layers at once */
	struct kv_codecs codecs;
	uint32_t layers;
	uint32_t *source;
	struct store *store;
};

/* The most that anyone who reads a layer's keys looks back; 0: everything. */
static size_t looked_back(const struct config *c, uint32_t i, bool *read)
{
	size_t w = c->layer[i].window;
	*read = false;
	for (uint32_t j = i + 1; j < c->layers; j++) {
		if (c->layer[j].kv_source != i)
			continue;
		*read = true;
		w = w && c->layer[j].window ? (w > c->layer[j].window ? w : c->layer[j].window) : 0;
	}
	return w;
}

static void plan_store(struct kv_cache *k, const struct config *c, uint32_t i)
{
	struct store *s = &k->store[i];
	bool read;
	s->heads = c->layer[i].kv_heads;
	s->k_bytes = s->heads * kv_codec_bytes(&k->codecs.k, c->head_dim);
	s->v_bytes = s->heads * kv_codec_bytes(&k->codecs.v, c->head_dim);
	s->rows = k->capacity;
	size_t w = looked_back(c, i, &read), slack = w < 256 ? 64 + w : 256;
	if (w && w + slack < k->capacity) {
		s->window = w;
		s->rows = w + slack;
		/* readers come after the layer has taken the whole chunk, which must still be there then */
		if (read && slack < k->chunk)
			k->chunk = slack;
	}
}

static uint8_t *room(size_t rows, size_t bytes)
{
	size_t size;
	return __builtin_mul_overflow(rows ? rows : 1, bytes, &size) ? NULL : malloc(size);
}

struct kv_cache *kv_cache_new(const struct config *c, size_t capacity, struct err *e)
{
	return kv_cache_new_in(c, capacity, (struct kv_codecs){ 0 }, e);
}

struct kv_cache *kv_cache_new_in(const struct config *c, size_t capacity, struct kv_codecs codecs, struct err *e)
{
	struct kv_cache *k = calloc(1, sizeof *k);
	if (!k)
		goto nomem;
	k->capacity = capacity;
	k->chunk = capacity ? capacity : 1;
	k->dim = c->head_dim;
	k->codecs = codecs;
	k->layers = c->layers;
	k->source = calloc(c->layers, sizeof *k->source);
	k->store = calloc(c->layers, sizeof *k->store);
	if (!k->source || !k->store)
		goto nomem;
	for (uint32_t i = 0; i < c->layers; i++) {
		struct store *s = &k->store[i];
		k->source[i] = c->layer[i].kv_source;
		if (k->source[i] != i)
			continue;
		plan_store(k, c, i);
		s->k = room(s->rows, s->k_bytes);
		s->v = room(s->rows, s->v_bytes);
		if (!s->k || !s->v)
			goto nomem;
	}
	return k;
nomem:
	err_nomem(e);
	kv_cache_free(k);
	return NULL;
}

void kv_cache_free(struct kv_cache *k)
{
	if (!k)
		return;
	for (uint32_t i = 0; k->store && i < k->layers; i++) {
		free(k->store[i].k);
		free(k->store[i].v);
	}
	free(k->store);
	free(k->source);
	free(k);
}

size_t kv_cache_length(const struct kv_cache *k)
{
	return k->length;
}

size_t kv_capacity(const struct kv_cache *k)
{
	return k->capacity;
}

size_t kv_cache_bytes(const struct kv_cache *k)
{
	size_t sum = 0;
	for (uint32_t i = 0; i < k->layers; i++)
		if (k->store[i].k)
			sum += k->store[i].rows * (k->store[i].k_bytes + k->store[i].v_bytes);
	return sum;
}

struct kv_codecs kv_cache_codecs(const struct kv_cache *k)
{
	return k->codecs;
}

void kv_cache_truncate(struct kv_cache *k, size_t length)
{
	if (length >= k->length)
		return;
	k->length = length;
	for (uint32_t i = 0; i < k->layers; i++) {
		struct store *s = &k->store[i];
		if (!length)
			s->first = s->count = 0;
		else if (s->first + s->count > length && s->first <= length)
			s->count = length - s->first;
	}
}

size_t kv_chunk(const struct kv_cache *k)
{
	return k->chunk;
}

void kv_advance(struct kv_cache *k, size_t n)
{
	k->length += n;
}

size_t kv_step(const struct kv_cache *k, uint32_t layer)
{
	const struct store *s = &k->store[layer];
	size_t n = s->window ? s->rows - s->window : k->capacity;
	return n ? n : 1;
}

int kv_append(struct kv_cache *k, uint32_t layer, const struct kv_rows *x, float *scratch, struct err *e)
{
	struct store *s = &k->store[layer];
	size_t at = x->at, n = x->n;
	if (at > k->capacity || n > k->capacity - at)
		return err_set(e, ERR_INPUT, "the KV cache holds %zu tokens, %zu are needed", k->capacity, at + n);
	/* after going back, a window must still be whole */
	if (at < s->first || at > s->first + s->count || (s->first && at < s->first + s->window - 1))
		return err_set(e, ERR_INPUT, "the KV cache of layer %u no longer holds the tokens before position %zu", layer, at);
	s->count = at - s->first;
	if (s->count + n > s->rows) {
		size_t held = s->window - 1, gone = s->count - held;
		memmove(s->k, s->k + gone * s->k_bytes, held * s->k_bytes);
		memmove(s->v, s->v + gone * s->v_bytes, held * s->v_bytes);
		s->first += gone;
		s->count = held;
	}
	kv_codec_encode(&k->codecs.k, x->k, n * s->heads, k->dim, s->k + s->count * s->k_bytes, scratch);
	kv_codec_encode(&k->codecs.v, x->v, n * s->heads, k->dim, s->v + s->count * s->v_bytes, scratch);
	s->count += n;
	return ERR_OK;
}

struct kv_view kv_view(const struct kv_cache *k, uint32_t layer, size_t end)
{
	const struct store *s = &k->store[k->source[layer]];
	size_t count = end > s->first ? end - s->first : 0;
	return (struct kv_view){ s->k, s->v, s->first, count < s->count ? count : s->count };
}
