#ifndef QUIRE_ALGO_FEEDBACK_H
#define QUIRE_ALGO_FEEDBACK_H
/*
 * Error feedback onto any codec's grid.
 *
 * 1. Parameters of every block are fitted first (static groups), weighted by the
 *    curvature's diagonal.
 * 2. Columns are rounded one after the other, largest curvature first, and what
 *    each rounding loses is taken over by the columns still to come (GPTQ, Frantar
 *    et al. 2022, arXiv 2210.17323), in lazy batches. Codes that hang together (codebooks) are rounded as one, by what
 *    their errors cost together, and hand on the errors of all (block LDLQ, arXiv 2402.04396).
 * 3. Sweeps of coordinate descent on the true objective (w - q) H (w - q)^T: per
 *    block the scales and offsets are refitted to the codes and stored as the
 *    format can hold them, then every code moves to its best value (QuantEase,
 *    arXiv 2309.01885; CDQuant, arXiv 2406.17542). A move is kept only if the
 *    objective falls.
 * 4. A row keeps the importance-weighted search's codes if those are better.
 *
 * Rows are independent given the curvature, so a matrix goes through in chunks of
 * rows, in parallel, with the same bytes for any number of threads.
 */
#include <stddef.h>
#include <stdint.h>

#include "algo/curvature.h"
#include "codec/codec.h"

struct feedback_job {
	const struct codec *codec;
	const float *w;                /* [rows, n] what the layer should be */
	size_t rows;
	const struct curvature *curvature;
	int sweeps;                    /* of step 3; 0 is plain GPTQ */
	uint8_t *dst;                  /* rows * codec_row_bytes() */
	/* Out, summed over rows: the objective of the importance-weighted search, and of what was written. */
	double before, after;
};

int feedback_quantize(struct feedback_job *job, struct err *e);

/* tr((w - q) H (w - q)^T) of two [rows, n] matrices; q NULL is zero. NaN when out of memory. */
double feedback_objective(const struct curvature *c, const float *w, const float *q, size_t rows);

#endif
