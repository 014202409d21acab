#ifndef QUIRE_MODEL_ROPE_H
#define QUIRE_MODEL_ROPE_H
/*
 * Rotary positions (Su et al., arXiv:2104.09864), half-split pairing as in
 * Hugging Face files: dimension j turns with j + dims/2. Scalings: linear,
 * llama3 (Llama 3.1), YaRN (arXiv:2309.00071).
 */
#include <stddef.h>

#include "model/config.h"

/* inv[dims/2] angles per position; returns what cosines and sines are multiplied by. */
float rope_frequencies(const struct rope *r, float *inv);
/* cos and sin [n, dims/2] of positions first ... first + n - 1, angles in f32. */
void rope_table(const float *inv, size_t half, float scale, size_t first, size_t n, float *cosine, float *sine);
/* Turns `heads` heads of head_dim at x; cosine and sine are one row of the table. */
void rope_rotate(float *x, size_t heads, size_t head_dim, size_t half, const float *cosine, const float *sine);

#endif
