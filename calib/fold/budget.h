#ifndef QUIRE_CALIB_FOLD_BUDGET_H
#define QUIRE_CALIB_FOLD_BUDGET_H
/*
 * A KV cache of a given size, spent where it costs least: each layer's folds to every count that divides its heads, and each
 * layer's reading of the cache of the layer before it, are measured alone (closed forms, KL on held-out windows); then the
 * step of least KL per byte is taken until the cache fits (QCQA, arXiv 2406.10247, chooses groups in that spirit). That is
 * done for each codec the cache may be stored in, whose own KL is measured as well; the plan of least sum is taken.
 * What steps do together is more or less than their sum: it is measured at the end.
 */
#include "calib/run/evaluate.h"
#include "calib/fold/fold_job.h"
#include "calib/stats/stats.h"
#include "model/kv_codec.h"

struct budget_step {
	uint32_t layer;
	uint32_t kv_heads;       /* that the layer and its readers have after it */
	uint32_t source;         /* the layer whose cache it reads; its own index for a fold of heads */
	double kl;               /* predicted: what the step adds */
	uint64_t bytes;          /* of the whole cache after it */
};

/* A way to store the cache. */
struct budget_cache {
	char name[48];           /* "q8_0", "q8_0+q4_0": keys and values */
	struct kv_codecs codecs;
	double element;          /* bytes of an element of keys or values, on average */
	double kl;               /* measured by budget_make, nothing else changed */
};
/* ERR_USAGE or ERR_UNSUPPORTED as kv_codec_find says; "K" or "K+V". */
int budget_cache_find(const char *name, size_t dim, struct budget_cache *out, struct err *e);

struct budget_plan {
	struct budget_step *step;
	size_t count;
	const struct budget_cache *cache; /* what it is to be stored in */
	uint64_t before, stored, after;   /* bytes: of the model at f16, then in that codec and with the windows, then all steps taken */
	double windows;          /* KL of windows that the configuration has and the model has not; 0 without */
	double kl;               /* predicted, of all: the sum */
	double together;         /* the whole plan in closed forms */
};

/* Bytes of the smallest cache that steps can reach. */
uint64_t budget_smallest(const struct config *c, const struct budget_cache *cache, size_t caches, uint64_t tokens);

struct budget_request {
	struct fold_job job;     /* `to` and `out` are not looked at; progress in measurements */
	const struct stats *stats; /* moments for folds of heads, or NULL */
	struct budget_cache *cache; /* [caches], those that may be taken */
	size_t caches;
	uint64_t bytes, tokens;
};
/*
 * c: a configuration of the model, but that layers may have windows; it gets head counts and sources of the plan. ERR_USAGE when the
 * budget cannot be met (the message has the smallest). Release with budget_plan_release; the request's caches outlive it.
 */
int budget_make(const struct budget_request *r, struct config *c, struct budget_plan *out, struct err *e);
void budget_plan_release(struct budget_plan *p);

#endif
