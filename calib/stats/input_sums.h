#ifndef QUIRE_CALIB_STATS_INPUT_SUMS_H
#define QUIRE_CALIB_STATS_INPUT_SUMS_H
/*
 * Sums over the rows of an input. A batch's sums are rounded to f32 and added
 * up in f64: such sums are exact as long as batches differ by less than 2^29
 * in size, so that the order of batches does not show, nor how shards were cut.
 */
#include "base/err.h"
#include "calib/stats/stats.h"

struct input_sums {
	size_t n;
	uint64_t count;           /* rows */
	double *sum_squares, *abs_sum; /* [n] */
	float *abs_max;           /* [n] */
	double *moment;           /* packed lower triangle of sum x x^T, or NULL */
};
int input_sums_init(struct input_sums *g, size_t n, bool moments, struct err *e);
void input_sums_release(struct input_sums *g);
/* scratch: input_sums_scratch() floats. ERR_INPUT names row and channel when a value is not finite or a sum overflows. */
int input_sums_add(struct input_sums *g, const float *x, size_t rows, float *scratch, struct err *e);
size_t input_sums_scratch(void);

#endif
