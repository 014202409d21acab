#ifndef QUIRE_CALIB_EQUALIZE_H
#define QUIRE_CALIB_EQUALIZE_H
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
#include "model/arch.h"
#include "tensor/tensor.h"

/* Mean squares of the input of a role, [n], or NULL when not known; owned by the provider until the next call. */
typedef const float *equalize_energy(void *arg, enum role r, uint32_t layer, size_t *n);

/*
 * Puts the changed tensors into `out`, an overlay over `source`. Columns whose root mean square is far from the others' get theirs, times
 * (E[x_j^2] |w_j|^2)^(lean / 2) relative to the mean when `energy` is given: more room for channels that matter more.
 */
int equalize(const struct config *c, struct tensor_source *source, equalize_energy *energy, void *arg, double lean,
	     struct overlay *out, struct err *e);

#endif
