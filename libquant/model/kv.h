#ifndef QUIRE_MODEL_KV_H
#define QUIRE_MODEL_KV_H
/*
 * The KV cache behind model.h. Layers hand rows in and get a contiguous f32
 * view back, so that a codec for K and V can be put in between.
 */
#include "model/model.h"

struct kv_view {
	const float *k, *v;  /* [count, kv_heads * head_dim] */
	size_t first;        /* position of row 0 */
	size_t count;
};

/* The most tokens that may be added at once so that each of them still sees its whole window. */
size_t kv_step(const struct kv_cache *c, uint32_t layer);
/* Stores n tokens of a layer at position `at` (forgetting any it has from there on). */
int kv_append(struct kv_cache *c, uint32_t layer, size_t at, const float *k, const float *v, size_t n, struct err *e);
/* What a layer holds up to position `end`; the layer may read another one's. */
struct kv_view kv_view(const struct kv_cache *c, uint32_t layer, size_t end);
void kv_advance(struct kv_cache *c, size_t n);
size_t kv_capacity(const struct kv_cache *c);

#endif
