#ifndef QUIRE_PLAN_PLAN_H
#define QUIRE_PLAN_PLAN_H
/*
 * Plan, print, execute. A plan lists every tensor of the output with its
 * codec, shape and size before anything is written; executing it streams
 * tensor by tensor into a sink and treats any other size as an error.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "algo/quantize.h"
#include "base/progress.h"
#include "plan/recipe.h"
#include "tensor/tensor.h"

struct plan_item {
	struct tensor out;            /* name, shape, codec and size as written */
	size_t source;                /* position in the source */
	enum role role;
	uint32_t layer;               /* its place: see place_of */
	const struct method *method;  /* NULL: bytes are copied, floats converted, codes laid out as another codec of the same grid has them */
	const char *why;              /* reason for the codec, for --dry-run */
	const struct codec *refused;  /* the recipe's codec, whose blocks do not divide the rows; NULL: they do */
};

struct plan {
	struct plan_item *items;
	size_t count;
	uint64_t bytes;               /* sum of tensor bytes */
	uint64_t scratch;             /* memory that executing it takes, at most */
	const struct config *config;
	bool activations;             /* those who load it are to quantize activations, too, where they can */
	size_t *at;                   /* by site_id: 1 + the item, 0: none; NULL: without a config */
	struct arena arena;
};

/* What a plan is asked for. Config, the source's names and the method must outlive the plan. */
struct plan_request {
	const struct config *config;  /* NULL: roles are unknown, and the recipe's default rules for unknown tensors apply */
	struct tensor_source *source;
	const struct recipe *recipe;
	const struct method *method;  /* NULL: nothing may be quantized */
	bool allow_requantize;        /* another quantized codec for what is quantized already; else ERR_UNSUPPORTED */
	/* What the output holds: a codec that it does not is exchanged for one of the same grid, if there is one. NULL: anything. */
	bool (*holds)(const struct codec *c);
};
/* A quantized source tensor is copied or decoded to floats. Items are in source order. */
int plan_make(struct plan *p, const struct plan_request *r, struct err *e);
void plan_release(struct plan *p);
/* NULL: the model has no such tensor, or it is left out. */
const struct plan_item *plan_find(const struct plan *p, enum role r, uint32_t place);
/* Memory that executing one item takes, its source mapped. */
uint64_t plan_item_scratch(const struct plan_item *item, const struct tensor *source);
double plan_bits_per_weight(const struct plan *p);

/*
 * Where a plan goes. Bytes of an item arrive in order, in pieces; items arrive in plan order.
 * seal completes the result under a temporary name, *path, where any reader can open it, so that it is looked at before
 * anything takes its place; finish (which seals first where that was not done) gives it its name; close without finish
 * leaves nothing behind.
 */
struct tensor_sink {
	int (*item)(struct tensor_sink *k, size_t index, struct err *e);
	int (*bytes)(struct tensor_sink *k, const void *data, size_t size, struct err *e);
	int (*seal)(struct tensor_sink *k, const char **path, struct err *e);
	int (*finish)(struct tensor_sink *k, struct err *e);
	void (*close)(struct tensor_sink *k);
};

/* Statistics for methods that need them; NULL members: none. */
struct plan_stats {
	/* importance [cols] for an item, or NULL; owned by the provider until the next call */
	const float *(*importance)(void *arg, const struct plan_item *item);
	/* called instead of the run of a method that works on whole matrices (by_rows false); NULL: that run is called */
	int (*quantize)(void *arg, const struct plan_item *item, const struct quantize_job *job, struct err *e);
	void *arg;
};

/*
 * Streams every item into the sink; the caller then calls finish. Progress in bytes of source data. Values that are NaN or infinite, or too large for
 * what they become, are ERR_INPUT with tensor and position. The bytes do not depend on the number of threads.
 */
int plan_execute(const struct plan *p, struct tensor_source *s, struct tensor_sink *k, const struct plan_stats *stats,
		 const struct progress *progress, struct err *e);

#endif
