#ifndef QUIRE_CALIB_FOLD_REFIT_DOWN_H
#define QUIRE_CALIB_FOLD_REFIT_DOWN_H
/*
 * Refits a layer's down projection by least squares, so that the hidden states after the layer come nearer to those of
 * the original: what attention lost and its own output could not take back.
 */
#include "calib/run/stream.h"
#include "plan/plan.h"

struct refit_down {
	const struct config *to;
	struct tensor_source *source;
	struct overlay *out;
	const struct windows *text;
	size_t held;             /* windows at its end that are judged on */
	double ridge;            /* damping of least squares, relative to the mean square */
	const struct stream *teacher; /* past the layer */
	struct stream *student;  /* before it */
};
/* Why a layer's down projection is not refitted; NULL: it is. */
const char *refit_down_obstacle(const struct config *c, uint32_t layer);
/*
 * before, after: squared error of the layer's output on the held-out windows, relative to its energy. Kept only if that
 * falls. Messages name the tensor.
 */
int refit_down(const struct refit_down *r, uint32_t layer, double *before, double *after, struct err *e);

#endif
