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

#endif
