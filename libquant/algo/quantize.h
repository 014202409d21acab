#ifndef QUIRE_ALGO_QUANTIZE_H
#define QUIRE_ALGO_QUANTIZE_H
/*
 * Quantization methods: how the codes of one matrix are chosen. A method knows
 * codecs only through their grid and knows no architecture. To add one: a file
 * in algo/ and a row in method.c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/codec.h"

/* One matrix to quantize. x is [rows, cols]; the result goes to dst, rows * codec_row_bytes() long. */
struct quantize_job {
	const struct codec *codec;
	const float *x;
	size_t rows, cols;
	const float *importance;      /* [cols] weights >= 0 (mean squares of the inputs), or NULL */
	const double *hessian;        /* [cols, cols] E[x x^T] of the inputs, or NULL */
	uint8_t *dst;
};

struct method {
	const char *name;             /* "rtn", "search" */
	const char *summary;
	bool needs_importance, needs_hessian;
	bool by_rows;                 /* rows are independent: may be called on slices of rows, in parallel */
	int (*run)(const struct quantize_job *job, struct err *e);
};
extern const struct method method_rows[];
extern const unsigned method_row_count;
const struct method *method_find(const char *name);

#endif
