#ifndef QUIRE_CALIB_QUANT_CORRECTION_H
#define QUIRE_CALIB_QUANT_CORRECTION_H
/*
 * What a matrix should be when the inputs it will get are no longer those of the original: the least-squares correction
 * W + (input W cross + residual) own^-1 (GPTAQ, arXiv 2504.02692; QEP, arXiv 2504.09629), and how much of it holds on
 * tokens that it was not fitted to.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Sums or means over tokens; s is an input of the model quantized so far, t the original's. */
struct moments {
	size_t n, width, tokens;
	double *own;      /* [n, n] s s^T */
	double *cross;    /* [n, n] (t - s) s^T */
	double *residual; /* [width, n] (residual stream of t - of s) s^T; NULL when the matrix does not add to it */
};
int moments_init(struct moments *m, size_t n, size_t width, bool residual, struct err *e);
void moments_release(struct moments *m);
/* m = a m + b x, x of the same sizes or NULL. */
void moments_combine(struct moments *m, double a, const struct moments *x, double b);

struct correction {
	const struct moments *m; /* means */
	double input, residual;  /* how much of each is taken back */
	double *l;               /* [n, n] Cholesky factor of the damped own; NULL: nothing to correct */
};
/* damping: relative to the mean of own's diagonal. ERR_INPUT when it does not suffice. */
int correction_init(struct correction *a, const struct moments *m, double input, double residual, double damping, struct err *e);
void correction_release(struct correction *a);
/* Some rows of a matrix: w[rows, n], of which row r is row r * stride of the whole. */
struct some_rows {
	const float *w;
	size_t rows, stride;
};
/* out[rows, n] = w + strength * correction; out may be w. */
int correction_weights(const struct correction *a, const struct some_rows *w, double strength, float *out, struct err *e);

/* Output error of w + d less that of w, on the tokens of a's moments: square - 2 linear. */
struct judged {
	double square, linear;
};
int correction_judge(const struct correction *a, const struct some_rows *w, const float *d, struct judged *out, struct err *e);

#endif
