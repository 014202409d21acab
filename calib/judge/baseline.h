#ifndef QUIRE_CALIB_JUDGE_BASELINE_H
#define QUIRE_CALIB_JUDGE_BASELINE_H
/*
 * Baselines: a reference model's next-token distributions on a text, small enough to keep in a repository, good enough
 * that KL(reference || model) comes out within 1 % of what the two models side by side give.
 *
 * Per scored token: the loss, the most likely tokens with their log-probabilities, the mass of all others (the tail),
 * and a systematic sample of the tail, drawn in proportion to probability in the order of probability. The model that is
 * compared later knows all of its own logits, so by the chain rule
 *
 *	KL = sum_top p log(p/q) + P log(P/Q) + P * KL(p/P || q/Q),   P and Q the tail's mass in both,
 *
 * of which only the last factor is estimated: the mean over the sample of r - 1 + exp(-r), r = log((p/P) / (q/Q)), which is
 * unbiased and never negative (Schulman 2020, "Approximating KL divergence"). Its sampling variance comes with it.
 * Log-probabilities are kept in steps of 1/2048 nat; each sum is written as p log(p/q) - p + q, to which rounding p by a
 * factor exp(d) adds only p d^2 / 2.
 */
#include "calib/judge/measure.h"
#include "calib/judge/records.h"

/*
 * Tokens above a threshold are kept exactly, at least BASELINE_MIN_TOP and at most BASELINE_MAX_TOP; the tail gets one
 * sample per threshold of its mass, within BASELINE_MIN_SAMPLE and BASELINE_MAX_SAMPLE. Each window takes the lowest
 * threshold of baseline_thresholds whose rows have BASELINE_BUDGET entries on average: flat rows, where the divergence
 * is, get what peaked rows leave. docs/formats/baseline.md has what this costs and gains.
 */
enum { BASELINE_MIN_TOP = 6, BASELINE_MAX_TOP = 64, BASELINE_MIN_SAMPLE = 4, BASELINE_MAX_SAMPLE = 96 };
enum { BASELINE_BUDGET = 27, BASELINE_THRESHOLDS = 12 };
extern const double baseline_thresholds[BASELINE_THRESHOLDS]; /* falling */

/* A row of a baseline. Codes are -2048 log p, rounded. */
struct baseline_row {
	float nll;
	uint16_t tail;                 /* code of the tail's mass; meaningless when sampled is 0 */
	uint8_t top, sampled;
	uint16_t code[BASELINE_MAX_TOP + BASELINE_MAX_SAMPLE];
	uint32_t id[BASELINE_MAX_TOP + BASELINE_MAX_SAMPLE]; /* the most likely first, then the sample; repeats are possible there */
};
struct baseline_sampling {
	double threshold;              /* of probability: tokens above it are kept exactly */
	uint64_t seed;                 /* which of the others are drawn */
};
/* A token and its logit. */
struct baseline_rank {
	float logit;
	uint32_t id;
};
/* Makes a row from logits. order is room for vocab entries. False when a logit is not finite. */
bool baseline_row_make(struct baseline_row *row, const float *logits, size_t vocab, int32_t target,
		       const struct baseline_sampling *s, struct baseline_rank *order);
/* How many entries a row would have at each threshold. */
bool baseline_row_plan(const float *logits, size_t vocab, struct baseline_rank *order, uint16_t entries[BASELINE_THRESHOLDS]);
/* The figures of a model's logits against a row; kl_variance is the sampling variance of kl. False: not finite. */
bool baseline_row_figures(const struct baseline_row *row, const float *logits, size_t vocab, int32_t target,
			  struct row_figures *out, double *kl_variance);

/* Rows of one window to bytes and back. ERR_INPUT when the bytes are not n rows over this vocabulary. */
int baseline_encode(const struct baseline_row *rows, size_t n, size_t vocab, struct strbuf *out, struct err *e);
int baseline_decode(struct baseline_row *rows, size_t n, size_t vocab, const uint8_t *data, size_t size, struct err *e);

/* A visitor that writes one block per window from the logits of `model`. */
struct baseline_save {
	struct records_writer *writer;
	size_t model;
};
eval_visit baseline_save_visit;

/* A visitor that measures `model` against a baseline; m has references and, if made so, variances. */
struct baseline_measure {
	const struct records *baseline;
	struct measurement *m;
	size_t model, first_window;      /* m begins at this window */
};
eval_visit baseline_measure_visit;

#endif
