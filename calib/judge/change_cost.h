#ifndef QUIRE_CALIB_JUDGE_CHANGE_COST_H
#define QUIRE_CALIB_JUDGE_CHANGE_COST_H
/* What a change of a model costs, on a few windows of text. */
#include "calib/run/evaluate.h"
#include "model/kv_codec.h"

struct change_cost {
	double excess, excess_error; /* nats per token over the original's loss */
	double kl;
};
struct change {
	const struct config *config;
	struct tensor_source *source;
	const struct kv_codecs *kv;  /* what the cache is stored in, or NULL */
};
int change_cost_measure(struct model *original, const struct change *changed, const struct windows *text, struct change_cost *out,
			struct err *e);

#endif
