#ifndef QUIRE_ALGO_RIDGE_H
#define QUIRE_ALGO_RIDGE_H
/* Least squares on sums over a text: the change of a linear layer that takes back most of an error at its output. */
#include <stddef.h>

#include "base/err.h"

struct ridge {
	size_t in, out;
	double *aa;              /* [in, in] sum a a^T */
	double *ab;              /* [in, out] sum a b^T */
	double energy;           /* sum of b^2 */
};
int ridge_init(struct ridge *r, size_t in, size_t out, struct err *e);
void ridge_release(struct ridge *r);
/* a [rows, in], b [rows, out]. The result does not depend on the number of threads. */
void ridge_add(struct ridge *r, const float *a, const float *b, size_t rows);
/*
 * w [out, in] += the D that minimises sum |b - D a|^2 + lambda mean(diag aa) |D|^2; r is used up. ERR_INPUT when the sums
 * are not finite.
 */
int ridge_solve(struct ridge *r, double lambda, float *w, struct err *e);

#endif
