#ifndef QUIRE_CALIB_FOLD_FOLD_LAYERS_H
#define QUIRE_CALIB_FOLD_FOLD_LAYERS_H
/*
 * Folds the KV heads of a model, layer after layer. Two streams run over the same
 * text: the original's, and that of the model folded so far; `refit` fits each
 * folded layer on its own stream to what the original puts out, earlier layers'
 * errors included, so that later layers take back what earlier ones lost.
 */
#include "calib/fold/fold_job.h"
#include "calib/fold/refit.h"
#include "calib/stats/stats.h"
#include "calib/run/stream.h"

struct fold_options {
	enum fold_method method;
	bool search;             /* groups by least loss, not neighbours; needs moments */
	const struct stats *stats; /* moments of the model (stats_check_kv); NULL: gathered from the text */
	struct refit_options refit;
	double residual;         /* how much of the difference of the two residual streams a layer is to take back */
	bool ffn;                /* refit the down projections as well */
};

struct fold_report {
	uint32_t kv_heads;       /* after */
	uint32_t *order;         /* which heads went together; see fold_group */
	/* mean squared error of the attention output on held-out windows: as folded, after W_O, after all; NaN: not measured */
	struct refit_report attention;
	double ffn_before, ffn_after; /* of the layer's output, relative to its energy; NaN: not measured */
};

/*
 * Refuses what cannot be folded: head counts that do not divide (ERR_USAGE), layers that read another layer's KV and
 * quantized weights (ERR_UNSUPPORTED). to: kv_heads of each layer.
 */
int fold_check(const struct config *c, struct tensor_source *source, const uint32_t *to, struct err *e);

/*
 * The job's source is the original's; to: its configuration with the new head counts. Its text may be NULL where there are
 * statistics and nothing is refitted, or for methods without moments and neighbours as groups. report [layers], zeroed;
 * release with fold_report_release.
 */
int fold_run(const struct fold_job *job, const struct fold_options *o, struct fold_report *report, struct err *e);
void fold_report_release(struct fold_report *r, size_t layers);

#endif
