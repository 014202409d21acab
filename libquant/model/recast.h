#ifndef QUIRE_MODEL_RECAST_H
#define QUIRE_MODEL_RECAST_H
/*
 * A model as one of another family that computes the same: the way to what programs can be told of a fold. Families that say
 * more of single layers than the model's own do (KV heads, windows, shared caches) take its tensors as they are, or scaled by
 * powers of two where they have norms that it lacks; see recast.c.
 */
#include "model/arch.h"
#include "tensor/tensor.h"

struct recast_request {
	const struct config *config;   /* of the source; both outlive the result */
	struct tensor_source *source;
	const struct arch *as;         /* family_deci, family_step35, family_gemma4 */
	bool gguf;                     /* for readers of GGUF: with what their loader must find */
};

struct recast;
/* ERR_UNSUPPORTED, with the reason, when the family cannot say it. */
int recast_new(const struct recast_request *r, struct recast **out, struct err *e);
/* The same before there are tensors: would it be refused? */
int recast_check(const struct recast_request *r, struct err *e);
const struct config *recast_config(const struct recast *r);
struct tensor_source *recast_source(struct recast *r);
/* Has the activation been replaced by one that is only near it? */
bool recast_approximates(const struct recast *r);
void recast_free(struct recast *r);

#endif
