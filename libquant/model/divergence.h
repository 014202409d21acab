#ifndef QUIRE_MODEL_DIVERGENCE_H
#define QUIRE_MODEL_DIVERGENCE_H
/* How far a model's logits are from another one's, out of the hidden states behind their last layers, and the gradient of that. */
#include "model/model.h"

struct divergence;

/* The model lends final norm and head, and must outlive it. tokens: the most of a batch. */
int divergence_new(const struct model *m, size_t tokens, struct divergence **out, struct err *e);
void divergence_free(struct divergence *f);
uint64_t divergence_memory(const struct config *c, size_t tokens);

struct divergence_batch {
	const float *teacher, *student; /* [n, hidden] */
	size_t n;
	float *d;                /* NULL, or gets the gradient by the student's hidden states, times scale */
	float scale;
};
/* *kl gets the sum over the tokens of KL(teacher || student). Does not depend on the number of threads. */
int divergence_run(struct divergence *f, const struct divergence_batch *b, double *kl, struct err *e);

#endif
