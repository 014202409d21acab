#ifndef QUIRE_MODEL_KV_H
#define QUIRE_MODEL_KV_H
/*
 * The KV cache behind model.h. Layers hand rows in and get a contiguous view
 * of what is stored back, in the cache's codecs; attention decodes it.
 */
#include "model/model.h"

struct kv_view {
	const void *k, *v;   /* [count, kv_heads] rows of head_dim elements */
	size_t first;        /* position of row 0 */
	size_t count;
};

/* The most tokens that may be added at once so that each of them still sees its whole window. */
size_t kv_step(const struct kv_cache *c, uint32_t layer);
/* The most that a pass over all layers may add: layers that read another one's cache come after it has moved on. */
size_t kv_chunk(const struct kv_cache *c);
/* Keys and values of n tokens, the first at position `at`: [n, kv_heads] rows. */
struct kv_rows {
	const float *k, *v;
	size_t at, n;
};
/* Stores them in a layer, forgetting any it has from there on. scratch: head_dim floats per worker, only read with a codec. */
int kv_append(struct kv_cache *c, uint32_t layer, const struct kv_rows *x, float *scratch, struct err *e);
struct kv_codecs kv_cache_codecs(const struct kv_cache *c);
/* What a layer holds up to position `end`; the layer may read another one's. */
struct kv_view kv_view(const struct kv_cache *c, uint32_t layer, size_t end);
void kv_advance(struct kv_cache *c, size_t n);
size_t kv_capacity(const struct kv_cache *c);

#endif
