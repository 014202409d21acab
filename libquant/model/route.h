#ifndef QUIRE_MODEL_ROUTE_H
#define QUIRE_MODEL_ROUTE_H
/* Which experts a token goes to, and with what weight. */
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
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

/* All experts at once, for the way back: which rows each works on, one expert's after the other's. */
struct routing {
	size_t tokens, used;     /* room; rows of a token at most */
	size_t experts;
	size_t *first;           /* [experts + 1]: where each expert's rows begin */
	uint32_t *token, *expert;/* [tokens * used] of each row */
	uint32_t *row;           /* [tokens * used] a token's rows, by expert; NO_ROW: it has fewer */
};
#define NO_ROW UINT32_MAX
int routing_new(struct routing *r, const struct config *c, size_t tokens, struct err *e);
void routing_release(struct routing *r); /* also of a zero-initialised struct */
uint64_t routing_memory(const struct config *c, size_t tokens);
/* weights [n, experts]; of one that is no number the first experts take the token. */
void routing_make(struct routing *r, const float *weights, size_t n);

#endif
