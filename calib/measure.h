#ifndef QUIRE_CALIB_MEASURE_H
#define QUIRE_CALIB_MEASURE_H
/*
 * Quality figures: per scored token the negative log-likelihood and, against a
 * reference, the KL divergence KL(reference || model) and whether the most
 * likely token agrees; and summaries of them. Natural logarithms throughout.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calib/evaluate.h"

struct measurement {
	size_t windows, scored;   /* scored tokens per window */
	bool has_reference;
	float *nll;               /* [windows * scored] */
	float *reference_nll, *kl;
	uint8_t *same_top;
};
int measurement_init(struct measurement *m, size_t windows, size_t scored, bool has_reference, struct err *e);
void measurement_release(struct measurement *m);

/* A visitor for evaluate(): `model` and `reference` are positions in its models; reference is ignored without has_reference. */
struct measure_arg {
	struct measurement *m;
	size_t model, reference, first_window;
};
eval_visit measure_visit;

/*
 * The figures of one row of logits against another, in f64. Returns false when a logit is not finite.
 * reference NULL: only nll is set.
 */
struct row_figures {
	double nll, reference_nll, kl;
	bool same_top;
};
bool measure_row(const float *logits, const float *reference, size_t vocab, int32_t target, struct row_figures *out);

struct summary {
	size_t tokens, windows;
	double perplexity;
	double perplexity_error;         /* llama.cpp's: tokens taken as independent */
	/* against the reference; errors are standard errors that take a window's tokens as one cluster */
	double reference_perplexity, perplexity_ratio, perplexity_ratio_error;
	double kl_mean, kl_mean_error, kl_median, kl_p99, kl_max;
	double top1, top1_error;
};
int measurement_summary(const struct measurement *m, struct summary *s, struct err *e);

/* Mean of the values and its standard error over windows (clusters of equal size); the error is NaN for one window. */
double clustered_mean(const float *values, size_t windows, size_t scored, double *error);

#endif
