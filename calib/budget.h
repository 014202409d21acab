#ifndef QUIRE_CALIB_BUDGET_H
#define QUIRE_CALIB_BUDGET_H
/*
 * A KV cache of a given size, spent where it costs least: each layer's folds to half, a quarter ... of its heads, and each
 * layer's reading of the cache of the layer before it, are measured alone (closed forms, KL on held-out windows); then the
 * step of least KL per byte is taken until the cache fits (QCQA, arXiv 2406.10247, chooses groups in that spirit). What
 * steps do together is more or less than their sum: measure the result.
 */
#include "calib/evaluate.h"
#include "calib/stats.h"

struct budget_step {
	uint32_t layer;
	uint32_t kv_heads;       /* that the layer and its readers have after it */
	uint32_t source;         /* the layer whose cache it reads; its own index for a fold of heads */
	double kl;               /* predicted: what the step adds */
	uint64_t bytes;          /* of the whole cache after it */
};

struct budget_plan {
	struct budget_step *step;
	size_t count;
	uint64_t before, after;  /* bytes */
	double kl;               /* predicted, of all */
};

/* Bytes at f16 of the smallest cache that steps can reach. */
uint64_t budget_smallest(const struct config *c, uint64_t tokens);
/*
 * c: a configuration of the model that may be written to; it gets head counts and sources of the plan. text: its last
 * `held` windows judge. stats: moments for folds of heads, or NULL. ERR_USAGE when the budget cannot be met (the message has the smallest). Release with
 * budget_plan_release.
 */
int budget_make(struct model *model, struct tensor_source *source, struct config *c, const struct windows *text, size_t held,
		const struct stats *stats, uint64_t bytes, uint64_t tokens, struct budget_plan *out, plan_progress *progress, void *progress_arg,
		struct err *e);
void budget_plan_release(struct budget_plan *p);

#endif
