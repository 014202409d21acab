#ifndef QUIRE_ALGO_CURVATURE_H
#define QUIRE_ALGO_CURVATURE_H
/*
 * The second moments of a linear layer's inputs, prepared for error feedback.
 * The squared error of the layer's output is tr((W - Q) H (W - Q)^T) with
 * H = E[x x^T], so H is the curvature of what quantization should minimise
 * (Hassibi and Stork 1993; Frantar et al. 2022, arXiv 2210.17323).
 */
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct curvature {
	size_t n;
	float *h;           /* [n, n] H + damping on the diagonal, channels in their own order */
	float *u;           /* [n, n] upper Cholesky factor of the inverse of H, channels in `order` */
	uint32_t *order;    /* [n] order[t] is the channel that is rounded t-th: largest E[x^2] first */
	double damping;     /* what was added to the diagonal, relative to its mean */
	size_t dead;        /* channels that were never active; they are rounded to nearest */
};

/*
 * hessian: [n, n] f64, symmetric. damping: relative to the mean diagonal (0.01 is usual); it is raised tenfold until
 * the factorization succeeds, and what was used is in ->damping. ERR_INPUT: NaN, infinite or all-zero moments.
 */
int curvature_new(const double *hessian, size_t n, double damping, struct curvature **out, struct err *e);
void curvature_free(struct curvature *c);
/*
 * Fills u and order (both the caller's) anew from h: `together` neighbours follow one another, groups with the largest
 * moments first. ERR_INPUT when h is not positive definite, which that of a curvature is.
 */
int curvature_group(struct curvature *c, size_t together, struct err *e);

#endif
