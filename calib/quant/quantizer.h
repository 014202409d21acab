#ifndef QUIRE_CALIB_QUANT_QUANTIZER_H
#define QUIRE_CALIB_QUANT_QUANTIZER_H
/*
 * Quantization methods that need statistics of the model: what runs before a
 * plan is executed, and what the plan then reads and asks for.
 *
 * To add one: a row in quantizer.c, and what it prepares.
 */
#include <stdbool.h>

#include "calib/quant/distill.h"
#include "calib/quant/sequential.h"
#include "calib/stats/stats.h"
#include "plan/plan.h"

struct quantizer;

struct quantizer_row {
	const char *name, *summary;
	bool needs_moments;         /* statistics of calibrate --collect full */
	bool likes_moments;         /* chooses better with them */
	bool needs_tokens;          /* runs the model again: not from an importance matrix */
	int (*prepare)(struct quantizer *q, const struct progress *progress, struct err *e); /* NULL: nothing to prepare */
	uint64_t (*memory)(const struct quantizer *q); /* bytes beyond those of plan_execute and the libraries */
};
extern const struct quantizer_row quantizer_rows[];
extern const unsigned quantizer_row_count;
const struct quantizer_row *quantizer_find(const char *name);
/* The best that these statistics allow. */
const struct quantizer_row *quantizer_default(const struct stats *s);

/* Of method best. */
struct quantizer_options {
	int passes;                 /* of training (distill.h): 0 none, -1 as many as are worth their time */
	bool keep_channels;         /* in their order and scale */
	const struct windows *more; /* text to train on besides that of the statistics (more_text.h); NULL: none */
};

/*
 * The job's plan must be made with method "imatrix"; items that the method takes over are changed in it. stats must be
 * checked against the model, and have the text. The arguments, and the options' text, must outlive the quantizer. ERR_INPUT when
 * the statistics lack what the method needs.
 */
int quantizer_new(const struct quantizer_row *row, const struct quant_job *job, struct stats *stats, const struct quantizer_options *o,
		  struct quantizer **out, struct err *e);
/* Upper bound for the peak of the whole run. */
uint64_t quantizer_memory(const struct quantizer *q);
/* The same before there are statistics: from this many tokens in windows of ctx. */
uint64_t quantizer_estimate(const struct quantizer_row *row, const struct quant_job *job, uint64_t tokens, uint64_t ctx,
			    const struct quantizer_options *o);
/* What the user should know: too few tokens, places that are left as they are (after prepare) ... */
const struct notes *quantizer_notes(const struct quantizer *q);
/* Runs what comes before the plan. ERR_INPUT: weights or activations that are not finite, moments without information. */
int quantizer_prepare(struct quantizer *q, const struct progress *progress, struct err *e);
/* For plan_execute; valid until quantizer_free. */
struct tensor_source *quantizer_source(struct quantizer *q);
/* The model in floats that the result stands for: the source, or one with other channels and the same function. */
struct tensor_source *quantizer_reference(struct quantizer *q);
const struct plan_stats *quantizer_stats(struct quantizer *q);
/* What prepare measured itself of an item of the plan, for reports; NULL when it did not. */
const struct sequential_report *quantizer_measured(const struct quantizer *q, size_t item);
/* Matrices of experts that are quantized here, and those among them that saw too few tokens (see stats_importance, stats_moment). */
struct expert_report {
	size_t matrices, few;
	uint64_t least;             /* tokens that one of them saw */
};
const struct expert_report *quantizer_experts(const struct quantizer *q);
/* What training did, after prepare; NULL when there was none. */
const struct distill_report *quantizer_trained(const struct quantizer *q);
/* Turns decoded rows [rows, cols] of an item, as written, back into what stands for the source's rows. */
void quantizer_undo(const struct quantizer *q, const struct plan_item *item, float *x, size_t rows, size_t cols);
void quantizer_free(struct quantizer *q);

#endif
