#ifndef QUIRE_CALIB_QUANT_QUANT_JOB_H
#define QUIRE_CALIB_QUANT_QUANT_JOB_H
/* What a method works on. All of it outlives what is made from it. */
#include "base/progress.h"
#include "calib/run/skips.h"
#include "calib/run/evaluate.h"
#include "codec/codec.h"
#include "model/arch.h"
#include "plan/plan.h"

struct quant_job {
	const struct config *config;
	struct tensor_source *source;  /* the model in floats */
	struct plan *plan;
	const struct windows *text;    /* of methods that run the model */
	const struct windows *more;    /* what training may read besides, as long ones and none of `text`; NULL: none */
	const struct progress *progress;
	struct skips *skips;           /* takes the places that are left as they are; NULL: nobody asks */
};

/* Does a method that looks at whole matrices take this item? */
static inline bool quantizer_takes(const struct plan_item *item)
{
	return item->role < ROLE_COUNT && role_rows[item->role].linear && item->method && codec_quantizes(item->out.codec);
}

#endif
