#ifndef QUIRE_CALIB_JUDGE_MEASURE_H
#define QUIRE_CALIB_JUDGE_MEASURE_H
/*
 * Quality figures: per scored token the negative log-likelihood and, against a
 * reference, the KL divergence KL(reference || model) and whether the most
 * likely token agrees; and summaries of them. Natural logarithms throughout.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calib/run/evaluate.h"

struct measurement {
	size_t windows, scored;   /* scored tokens per window */
	bool has_reference;
	float *nll;               /* [windows * scored] */
	float *reference_nll, *kl;
	uint8_t *same_top;
	/* optional, NULL unless asked for with measurement_add */
	float *kl_variance;       /* of kl's estimate, when the reference is a sample (a baseline) */
	float *accept;            /* sum of min(p, q): chance that a draft's token is taken */
};
enum measurement_field { MEASURE_REFERENCE = 1, MEASURE_VARIANCE = 2, MEASURE_ACCEPT = 4 };
unsigned measurement_fields(const struct measurement *m);
/* Adds MEASURE_VARIANCE or MEASURE_ACCEPT, zeroed. */
int measurement_add(struct measurement *m, enum measurement_field field, struct err *e);
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
	double accept;            /* only from measure_accept */
	bool same_top;
};
/* Sum of min(p, q) of two rows whose logits are finite. */
double measure_accept(const float *logits, const float *reference, size_t vocab);
bool measure_row(const float *logits, const float *reference, size_t vocab, int32_t target, struct row_figures *out);

/* log(sum exp(x)) in f64 and the position of the first maximum; false when a value is not finite. */
bool log_sum_exp(const float *x, size_t n, double *lse, size_t *top);
/* For visitors: keeps a row's figures at its place; the error that NaN or infinite logits are (ERR_GATE). */
void measurement_put(struct measurement *m, size_t at, const struct row_figures *f);
int measure_bad_logits(const struct eval_slice *s, size_t row, struct err *e);

struct summary {
	size_t tokens, windows;
	double perplexity;
	double perplexity_error;         /* llama.cpp's: tokens taken as independent */
	/* against the reference; errors are standard errors that take a window's tokens as one cluster */
	double reference_perplexity, perplexity_ratio, perplexity_ratio_error;
	double kl_mean, kl_mean_error, kl_median, kl_p99, kl_max;
	double kl_sampling_error;        /* the part of kl_mean_error that a baseline's sampling causes; 0 without */
	double top1, top1_error;
};
int measurement_summary(const struct measurement *m, struct summary *s, struct err *e);

/* KL by position: the scored positions cut into `bins` ranges of nearly equal size. */
struct position_bin {
	size_t from, to;                 /* scored positions [from, to) */
	double kl, kl_error;
};
/* Returns how many bins there are: fewer than asked when there are fewer positions. */
size_t measurement_by_position(const struct measurement *m, struct position_bin *bin, size_t bins);

/* Mean of the values and its standard error over windows (clusters of equal size); the error is NaN for one window. */
double clustered_mean(const float *values, size_t windows, size_t scored, double *error);

#endif
