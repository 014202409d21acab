#ifndef QUIRE_CALIB_QUANT_QUANTIZER_IMPL_H
#define QUIRE_CALIB_QUANT_QUANTIZER_IMPL_H
/* What the files behind quantizer.h share. */
#include "base/notes.h"
#include "calib/quant/awq.h"
#include "calib/quant/quantizer.h"

struct quantizer {
	const struct quantizer_row *row;
	const struct config *config;
	struct tensor_source *source;
	struct plan *plan;
	struct stats *stats;
	uint64_t tokens, ctx;                /* of the calibration text, and of a window */
	struct plan_stats provider;
	struct notes notes;
	struct skips skips;
	double damping;
	struct expert_report experts;
	/* best: outliers brought in line; channels in their new order over that; the quantized tensors over both */
	struct overlay *equal;
	struct arrangement *arrangement;
	struct overlay *overlay;
	bool keep_channels;
	const struct windows *more;          /* to train on */
	struct sequential_report *report;    /* [plan->count] */
	unsigned passes;                     /* of training */
	struct distill_report distilled;
	struct awq *awq;
	float *scaled;                       /* importance of scaled channels, until the next call */
	/* error feedback: the curvature that came last, since matrices share inputs */
	struct curvature *curvature;
	enum role curvature_role;
	uint32_t curvature_layer;
};

#endif
