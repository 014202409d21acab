#ifndef QUIRE_CALIB_FOLD_REFIT_H
#define QUIRE_CALIB_FOLD_REFIT_H
/*
 * Refits one attention layer to a target over a text: W_O by least squares, then
 * all of Q, K, V and O together by gradient descent (Adam, Kingma and Ba, arXiv
 * 1412.6980) on the squared error of the layer's output. A stage is kept only if
 * the error on held-out windows falls.
 */
#include "base/progress.h"
#include "calib/fold/attention_fit.h"
#include "plan/plan.h"

struct refit_options {
	int steps;               /* of gradient descent; 0: only W_O */
	size_t batch;            /* windows per step */
	double rate;             /* step length, relative to each matrix's root mean square */
	double ridge;            /* damping of least squares, relative to the mean square */
	uint64_t seed;           /* order of windows */
};
extern const struct refit_options refit_defaults;

struct refit_text {
	size_t windows, held;    /* the last `held` windows are only judged on */
	const float *x, *target; /* [windows * ctx, cols], [windows * ctx, hidden] */
	const float *keys, *values; /* of another layer, or NULL; see attention_fit.h */
};

struct refit_report {
	double start, output, joint;  /* held-out error: before, after W_O, after all; per element */
};

struct refit_job {
	struct attention_fit *f;          /* set up for refit_batch() windows */
	struct attention_weights *w;      /* refitted in place */
	const struct refit_text *t;
	const struct refit_options *o;
	const struct progress *progress;  /* in steps, of o->steps */
};
int refit_attention(const struct refit_job *j, struct refit_report *r, struct err *e);
size_t refit_batch(const struct refit_options *o); /* windows that f must have room for */

#endif
