#ifndef QUIRE_MODEL_ATTENTION_H
#define QUIRE_MODEL_ATTENTION_H
/* Causal attention of a batch of sequences over contiguous keys and values. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/kv_codec.h"

struct attention {
	const float *q;          /* [seqs, queries, heads * dim] */
	const void *k, *v;       /* [seqs, keys, kv_heads] rows of dim elements, floats unless codecs say otherwise */
	struct kv_codecs codecs;
	float *out;              /* [seqs, queries, heads * dim] */
	size_t seqs, queries, keys;
	size_t first;            /* the key that query 0 may see last: query i sees keys up to first + i */
	uint32_t heads, kv_heads, dim;
	size_t window;           /* 0: all keys before; W: the last W, itself included */
	float scale, softcap;    /* softcap 0: none */
	bool alibi;              /* scores fall in proportion to the distance of a key, by attention_slope of the head */
	float *scratch;          /* attention_scratch() floats per worker */
	size_t stride;
};

float attention_slope(uint32_t heads, uint32_t head);
/* Adds to the scores of n keys, the last of them the query's own. */
void attention_fade(float slope, float *scores, size_t n);
size_t attention_scratch(const struct attention *a);
void attention_run(const struct attention *a);

#endif
