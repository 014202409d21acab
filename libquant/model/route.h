#ifndef QUIRE_MODEL_ROUTE_H
#define QUIRE_MODEL_ROUTE_H
/* Which experts a token goes to, and with what weight. */
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

/* Logits [n, experts] become weights: the softmax over all, of the most likely; 0 elsewhere. In place. */
void route_weights(const struct config *c, float *x, size_t n);
/* Those of n tokens that go to this expert, in order; returns how many. */
size_t route_tokens(const float *weights, size_t n, size_t experts, uint32_t expert, uint32_t *token);
/* out[i] = x[token[i]] */
void route_gather(const float *x, const uint32_t *token, size_t n, size_t dim, float *out);
/* The tokens of one expert. */
struct routed {
	const uint32_t *token;   /* [n] */
	size_t n;
	const float *weights;    /* [tokens of the pass, experts] */
	size_t experts;
	uint32_t expert;
};
/* out[token[i]] += weights[token[i]][expert] x[i] */
void route_merge(const struct routed *t, const float *x, size_t dim, float *out);

#endif
