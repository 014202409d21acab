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
/* out[token[i]] += weights[token[i]][expert] x[i] */
void route_merge(const float *x, const uint32_t *token, size_t n, size_t dim, const float *weights, size_t experts,
		 uint32_t expert, float *out);

#endif
