#ifndef QUIRE_CALIB_QUANT_TENSOR_REPORT_H
#define QUIRE_CALIB_QUANT_TENSOR_REPORT_H
/*
 * What quantization did to each matrix: D = W - Q against the second moments
 * H = E[x x^T] of its inputs, tr(D H D^T) / tr(W H W^T); with an importance
 * matrix only H's diagonal, without statistics H = 1.
 */
#include "calib/quant/quantizer.h"
#include "formats/checkpoint.h"

struct tensor_report {
	size_t item;               /* of the plan */
	const char *name;
	enum role role;
	uint32_t layer;
	const struct codec *codec;
	const char *method;
	const char *weighted;      /* "second moments", "importance", "weights", or "inputs as quantized", with training "..., before training" */
	double weight_error;       /* |W - Q| / |W|, Frobenius */
	double before, after;      /* output error of the importance-weighted search, and of what was written */
	uint64_t tokens;           /* of the statistics, that reached the matrix; 0: none are known */
	double seconds;
	/* Of method best, NULL otherwise: what was chosen, how much of the correction, and the errors that held-out tokens gave. */
	const struct sequential_report *chosen;
};

struct tensor_report_job {
	const struct plan *plan;
	struct tensor_source *source;
	struct checkpoint *written;  /* the finished file */
	struct stats *stats;         /* or NULL */
	const struct quantizer *q;   /* or NULL */
};
/* One entry per quantized matrix of the plan, worst first; malloc'ed. Names are the plan's. */
int tensor_report_make(const struct tensor_report_job *job, struct tensor_report **out, size_t *count, struct err *e);

#endif
