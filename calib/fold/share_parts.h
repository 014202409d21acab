#ifndef QUIRE_CALIB_FOLD_SHARE_PARTS_H
#define QUIRE_CALIB_FOLD_SHARE_PARTS_H
/* Pieces of share.c: the closed form of one reader, and the descent of an owner with its readers. */
#include "calib/fold/share.h"

/* What goes through a reader's attention. */
struct share_seen {
	const float *x;             /* [windows * ctx, cols] its input */
	const float *keys, *values; /* [windows * ctx, kv_heads * dim] the owner's, after RoPE */
	size_t windows, batch;      /* batch: windows that the reader's fit has room for */
};
/*
 * The reader's weights for the owner's cache. w: its own weights; f: set up for its shape. out: queries and output, new;
 * heads [kv_heads]: which of its own KV heads now reads the owner's i-th.
 */
int share_match(struct attention_fit *f, const struct attention_weights *w, const struct share_seen *seen,
		struct attention_weights *out, uint32_t *heads, struct err *e);
/* The permutation of greatest gain: to[a] for each a, gain [n, n] (Kuhn and Munkres, with potentials). */
int share_assign(const double *gain, uint32_t n, uint32_t *to, struct err *e);

/* A layer in the joint descent; the first is the owner. */
struct share_member {
	struct attention_fit fit;
	struct attention_weights w; /* k and v of readers are not used */
	const float *x, *target; /* [windows * ctx, ...] */
};
struct share_joint {
	struct share_member *m;
	size_t count, windows, held; /* members; windows of the text, and how many at its end are judged on */
	const struct progress *progress; /* steps of the descent */
};
/*
 * Fits the members to their targets, all with the owner's W_K and W_V. Kept only when the summed error on the last
 * `held` windows falls. Fits must have room for refit_batch() windows.
 */
int share_joint(const struct share_joint *job, const struct refit_options *o, double *before, double *after, struct err *e);

#endif
