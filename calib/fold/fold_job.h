#ifndef QUIRE_CALIB_FOLD_FOLD_JOB_H
#define QUIRE_CALIB_FOLD_FOLD_JOB_H
/* What a fold works on. */
#include "base/progress.h"
#include "calib/run/evaluate.h"
#include "tensor/tensor.h"

struct fold_job {
	struct model *original;        /* what the result is to be like */
	struct tensor_source *source;  /* what it is made of: the original's, or what another fold made of it */
	const struct config *to;       /* its configuration */
	const struct windows *text;    /* NULL where nothing is measured or fitted */
	size_t held;                   /* windows at its end that are judged on, not fitted to */
	struct overlay *out;           /* over source: changed tensors, in the codec that the source has them in */
	const struct progress *progress; /* in steps */
};

/* How far a fold is. The steps of a fit are steps of the whole. */
struct fold_steps {
	const struct progress *progress;
	uint64_t done, total;
};
static inline bool fold_step(struct fold_steps *s)
{
	return progress_tell(s->progress, ++s->done, s->total);
}
static inline bool fold_fit_step(void *steps, uint64_t done, uint64_t total)
{
	(void)done, (void)total;
	return fold_step(steps);
}

#endif
