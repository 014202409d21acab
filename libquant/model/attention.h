#ifndef QUIRE_MODEL_ATTENTION_H
#define QUIRE_MODEL_ATTENTION_H
/* Causal attention of a batch of sequences over contiguous keys and values. */
#include <stddef.h>
#include <stdint.h>

struct attention {
	const float *q;          /* [seqs, queries, heads * dim] */
	const float *k, *v;      /* [seqs, keys, kv_heads * dim] */
	float *out;              /* [seqs, queries, heads * dim] */
	size_t seqs, queries, keys;
	size_t first;            /* the key that query 0 may see last: query i sees keys up to first + i */
	uint32_t heads, kv_heads, dim;
	size_t window;           /* 0: all keys before; W: the last W, itself included */
	float scale, softcap;    /* softcap 0: none */
	float *scratch;          /* attention_scratch() floats per worker */
	size_t stride;
};

size_t attention_scratch(size_t queries, size_t keys);
void attention_run(const struct attention *a);

#endif
