#ifndef QUIRE_CALIB_JUDGE_INTERVAL_H
#define QUIRE_CALIB_JUDGE_INTERVAL_H
/*
 * Confidence bounds from windows. Tokens of one window depend on each other, windows are taken as independent, so the
 * window is the unit. Means: Student's t on window means; the studentized bootstrap (Efron and Tibshirani 1993, ch. 12.5);
 * and, above, of values that are never negative the same ratio's distribution for a log-normal of the same coefficient of
 * variation; the widest of them, because window means of KL have a long right tail that t covers badly, and that few
 * windows show too little of. Quantiles: the bootstrap over windows, its percentiles or t times its spread; and, above,
 * the largest value that windows' shares of tokens beyond it allow by the bound of their mean (Woodruff 1952). Deterministic.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* One-sided bounds, each missed with probability 1 - confidence at most. NaN bounds: fewer than two windows. */
struct interval {
	double estimate, error;      /* error: standard error */
	double lower, upper;
};

/* Of the mean of x[n], a value per window. ERR_NOMEM. */
int interval_mean(const double *x, size_t n, double confidence, struct interval *out, struct err *e);
/* A figure of each scored token: values[windows, scored]. */
struct window_values {
	const float *values;
	size_t windows, scored;
};
/* Of the q-quantile of all values taken together. */
int interval_quantile(const struct window_values *v, double q, double confidence, struct interval *out, struct err *e);
/* The point that Student's t with `dof` degrees of freedom stays below with probability p (0.5 <= p < 1). */
double student_quantile(double p, double dof);
/* The chance that it is above t >= 0. */
double student_tail(double t, double dof);

#endif
