#ifndef QUIRE_CALIB_FOLD_ATTENTION_MASS_H
#define QUIRE_CALIB_FOLD_ATTENTION_MASS_H
/* Where attention looks: what a sliding window would cut off. */
#include "calib/run/evaluate.h"

/*
 * outside[layers]: per layer, the part of its attention that falls on keys before a window of `window` tokens (the last
 * `window`, the query's own included), mean over heads and over the queries that have keys there. Every layer has full
 * attention (ERR_UNSUPPORTED); text windows longer than `window` (ERR_INPUT).
 */
int attention_mass(struct model *m, const struct windows *text, size_t window, double *outside, struct err *e);

#endif
