#ifndef QUIRE_CALIB_QUANT_EQUALIZE_H
#define QUIRE_CALIB_QUANT_EQUALIZE_H
/*
 * Channel scales that leave the function alone. What feeds a matrix (a norm's
 * weight, the rows of V before O, the rows of up before down) can be divided by
 * s_j and column j of the matrix multiplied by it. A grid shared by neighbouring
 * columns then no longer depends on how large a channel happens to be, so a model
 * whose channels carry large activations is not rounded worse than one whose
 * channels do not (the idea of SmoothQuant, arXiv 2211.10438, and AWQ, arXiv
 * 2306.00978, turned into a normal form). Scales are powers of two: the change is
 * exact in every float format.
 */
#include "calib/run/skips.h"
#include "model/arch.h"
#include "tensor/tensor.h"

/* Puts the changed tensors into `out`, an overlay over `source`: columns whose root mean square is far from the others' get theirs. */
int equalize(const struct config *c, struct tensor_source *source, struct overlay *out, struct skips *skips, struct err *e);

#endif
