#ifndef QUIRE_MODEL_ROPE_H
#define QUIRE_MODEL_ROPE_H
/*
 * Rotary positions (Su et al., arXiv:2104.09864), half-split pairing as in
 * Hugging Face files: dimension j turns with j + dims/2. Scalings: linear,
 * llama3 (Llama 3.1), YaRN (arXiv:2309.00071), LongRoPE (arXiv:2402.13753).
 */
#include <stddef.h>

#include "model/model.h"

/* inv[dims/2] angles per position; returns what cosines and sines are multiplied by. */
float rope_frequencies(const struct rope *r, float *inv);
/* What the query of a position is multiplied by, where a model has a temperature that grows with it; else 1. */
float rope_temper(const struct rope *r, size_t position);
/* How far a position turns, and what cosines and sines are multiplied by. */
struct rope_angles {
	const float *inv;            /* [half] */
	size_t half;
	float scale;
};
/* cos and sin [n, half] of positions first ... first + n - 1, angles in f32. */
void rope_table(const struct rope_angles *a, size_t first, size_t n, float *cosine, float *sine);
/* Turns `heads` heads of head_dim at x; cosine and sine are one row of the table. */
void rope_rotate(float *x, size_t heads, size_t head_dim, size_t half, const float *cosine, const float *sine);
void rope_rotate_back(float *x, size_t heads, size_t head_dim, size_t half, const float *cosine, const float *sine);

/*
 * What RoPE gives the positions of a window: the one place where a layer of a model gets its phases from, with the model's
 * scaling, divisors and attention factor. Zeroed: empty.
 */
struct phase_table {
	const struct model *model;
	size_t first, count;
	bool far;                    /* longrope: of texts that get longer than those it was trained on */
	float *cosine, *sine;        /* [count, rope dims / 2]; behind these, those of layers that turn with local_theta */
};
/*
 * Of positions first ... first + n - 1; does nothing when the table holds these. reach: how long the text may get, at least
 * first + n; longrope turns every position of a text by that, so keys that are kept must all have had the same. The model must
 * outlive it. ERR_NOMEM.
 */
int phase_table_fill(struct phase_table *t, const struct model *m, size_t first, size_t n, size_t reach, struct err *e);
void phase_table_release(struct phase_table *t);

/* A layer's, [count, rope dims / 2], borrowed from the table; NULL: it has no positions. */
struct phases {
	const float *cosine, *sine;
};
struct phases phases_of(const struct phase_table *t, uint32_t layer);

#endif
