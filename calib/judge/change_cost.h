#ifndef QUIRE_CALIB_JUDGE_CHANGE_COST_H
#define QUIRE_CALIB_JUDGE_CHANGE_COST_H
/* What a change of a model costs, on a few windows of text. */
#include "calib/run/evaluate.h"
#include "model/kv_codec.h"

struct change_cost {
	double excess, excess_error; /* nats per token over the original's loss */
	double kl;
};
/* Windows [from, to) of the text; c and s: the changed model's; kv: what its cache is stored in, or NULL. */
int change_cost_measure(struct model *original, const struct config *c, struct tensor_source *s, const struct kv_codecs *kv,
		   const struct windows *text, size_t from, size_t to, struct change_cost *out, struct err *e);

#endif
