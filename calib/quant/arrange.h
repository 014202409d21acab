#ifndef QUIRE_CALIB_QUANT_ARRANGE_H
#define QUIRE_CALIB_QUANT_ARRANGE_H
/*
 * Order and scale of the channels inside a layer, for programs that round activations to 8 bits: llama.cpp multiplies types
 * with blocks of 256 weights with activations in blocks of 256, each with the step of its largest value. What feeds the
 * down projection is full of large values, a few in each token. Channels that are large together are put into one block,
 * by swaps, so that other blocks keep small steps; and large channels are made smaller by a power of their root mean square
 * (SmoothQuant, arXiv 2211.10438), here and before the output projection. The inverse goes into the rows of up and V, so
 * that the function stays the same; gate and up take the order of down's columns. (Sorting columns by size within a block,
 * which is free for activations, made the rounding of weights worse.)
 */
#include "calib/quant/quant_job.h"

struct arrangement;

/*
 * Looks at the first windows of the job's text. A layer is left alone unless the plan quantizes all matrices that change, and
 * what reads the channels to blocks of 256. The text need not outlive the arrangement. ERR_IO: interrupted.
 */
int arrangement_new(const struct quant_job *job, struct arrangement **out, struct err *e);
void arrangement_free(struct arrangement *a); /* NULL is fine */
/* The model with the new channels; made when asked for. */
struct tensor_source *arrangement_source(struct arrangement *a);
/* n inputs of the original model, as the new one gets them. scratch: one more. */
void arrangement_input(const struct arrangement *a, enum role r, uint32_t layer, float *x, size_t n, float *scratch);
/* Bytes, while it looks. */
uint64_t arrangement_memory(const struct config *c, uint64_t tokens, uint64_t ctx);

#endif
