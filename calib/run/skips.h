#ifndef QUIRE_CALIB_RUN_SKIPS_H
#define QUIRE_CALIB_RUN_SKIPS_H
/*
 * Places that a method leaves as they are although it is there for them, counted by method, matrices and reason: a method
 * must not do less than it says without a word. Zero-initialise before use.
 */
#include "base/notes.h"
#include "model/graph.h"

struct skip {
	const char *method;
	char what[64], why[160];   /* matrices by name; "" where the method did its work */
	size_t count;
};
struct skips {
	struct skip *item;
	size_t count, room;
	bool failed;               /* out of memory */
};

/* "attn_q, attn_k, attn_v": the matrices of a group, which are one place. */
void skips_name(const struct group *g, char out[64]);
/* Counts a place; why NULL: it was not left. s may be NULL: nobody counts. */
void skips_see(struct skips *s, const char *method, const char *what, const char *why);
/* The reason that block_source() has, in words. */
const char *skips_source(const struct source_of *source, char out[160]);
/* One line for each method and reason. */
void skips_tell(const struct skips *s, struct notes *n);
void skips_release(struct skips *s);

#endif
