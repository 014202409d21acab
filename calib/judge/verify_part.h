#ifndef QUIRE_CALIB_JUDGE_VERIFY_PART_H
#define QUIRE_CALIB_JUDGE_VERIFY_PART_H
/*
 * A part of a run of `verify`: the figures of some of its windows, as they are, so that the merged parts give the very
 * numbers of one run. A block per window: f32 planes of loss, then as the header's fields say (enum measurement_field)
 * reference loss and KL, variance, acceptance; last one byte per token, whether the top token agrees.
 */
#include "calib/judge/measure.h"
#include "calib/judge/records.h"

/* The windows of part i (from 0) of n: [*from, *to), whole batches, possibly none. */
void verify_part_range(const struct windows *w, size_t i, size_t n, size_t *from, size_t *to);
/* m holds the windows id->from .. id->to; id->fields is set from it. */
int verify_part_write(const char *path, struct run_id *id, const struct measurement *m, struct err *e);
/*
 * Puts parts together. ERR_NOT_COMPARABLE when they are of different runs (models, reference, text, settings, figures);
 * ERR_INPUT when a window is missing or there twice.
 */
int verify_part_merge(const char *const *paths, size_t count, struct run_id *id, struct measurement *m, struct err *e);

#endif
