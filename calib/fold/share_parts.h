#ifndef QUIRE_CALIB_FOLD_SHARE_PARTS_H
#define QUIRE_CALIB_FOLD_SHARE_PARTS_H
/* Pieces of share.c: the closed form of one reader, and the descent of an owner with its readers. */
#include "calib/fold/share.h"

/*
 * The reader's weights for the owner's cache. w: its own weights; f: set up for its shape and `batch` windows;
 * x [windows * ctx, cols] its input, keys and values the owner's. out: queries and output, new; heads [kv_heads]: which of
 * its own KV heads now reads the owner's i-th.
 */
int share_match(struct attention_fit *f, const struct attention_weights *w, const float *x, const float *keys,
		const float *values, size_t windows, size_t batch, struct attention_weights *out, uint32_t *heads, struct err *e);
/* The permutation of greatest gain: to[a] for each a, gain [n, n] (Kuhn and Munkres, with potentials). */
int share_assign(const double *gain, uint32_t n, uint32_t *to, struct err *e);

/* A layer in the joint descent; the first is the owner. */
struct share_member {
	struct attention_fit fit;
	struct attention_weights w; /* k and v of readers are not used */
	const float *x, *target; /* [windows * ctx, ...] */
};
/*
 * Fits the members to their targets, all with the owner's W_K and W_V. Kept only when the summed error on the last
 * `held` windows falls. Fits must have room for refit_batch() windows.
 */
int share_joint(struct share_member *m, size_t count, size_t windows, size_t held, const struct refit_options *o,
		double *before, double *after, bool (*progress)(void *arg), void *arg, struct err *e);

#endif
