#ifndef QUIRE_FOLD_FOLD_HEADS_H
#define QUIRE_FOLD_FOLD_HEADS_H
/*
 * Folding heads: several KV heads of a layer become one, and query and output
 * rows take up what can be taken up exactly. Pure algebra: weights and second
 * moments in, weights out.
 *
 * What commutes with the layer decides what a fold may do. Before RoPE a pair of
 * rotated dimensions (l, l + rope/2) is one complex number, and RoPE multiplies
 * it by a phase; so each head and pair may be scaled by one complex number, whose
 * inverse the queries take. Values may change basis freely, the output projection
 * takes the inverse. A fold of the group G is then
 *
 *	k~_l = sum_h c_hl k_hl,  q~_hl = conj(a_hl) q_hl,  v~ = sum_h F_h v_h,  W~_O,h = W_O,h B_h.
 *
 * Methods differ in c, a, F and B. Averages: GQA, Ainslie et al., arXiv 2305.13245;
 * aligned by rotations first: arXiv 2412.20677; pca is their weighted optimum.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Each contains those before it as restricted cases. refit starts from pca; what it adds needs data (calib/). */
enum fold_method { FOLD_MEAN, FOLD_WEIGHTED, FOLD_MEDOID, FOLD_ALIGN, FOLD_PCA, FOLD_REFIT };
struct fold_method_row {
	enum fold_method method;
	const char *name, *summary;
	bool moments;            /* needs statistics of the model over a text */
};
extern const struct fold_method_row fold_method_rows[];
extern const unsigned fold_method_row_count;

/* The attention weights of a layer. A bias of Q, K, V is one more column, whose input is 1. */
struct attention_weights {
	uint32_t heads, kv_heads, dim, hidden;
	uint32_t cols;           /* hidden, or hidden + 1 with biases */
	uint32_t rope;           /* rotated dimensions of a head, the first ones; the rest is paired in the same way */
	bool qk_norm;            /* keys are normed per head: no scale, no phase */
	float *q;                /* [heads * dim, cols] */
	float *k, *v;            /* [kv_heads * dim, cols] */
	float *o;                /* [hidden, heads * dim] */
};
/* Zeroes, in the shape of `like` with another number of KV heads. */
int attention_weights_new(struct attention_weights *w, const struct attention_weights *like, uint32_t kv_heads, struct err *e);
void attention_weights_release(struct attention_weights *w);
size_t attention_weights_count(const struct attention_weights *w, int part); /* floats of q, k, v, o (part 0 to 3) */

/* Per token means over a text: keys before RoPE, with bias and norm. */
struct fold_moments {
	double *kk, *vv;         /* [kv_heads * dim, kv_heads * dim] E[k k^T], E[v v^T] */
	double *qq;              /* [heads * dim] E[q^2] */
};
void fold_moments_release(struct fold_moments *m);

/* Which heads go together: group i is order[i g ... i g + g - 1], g = kv_heads / count. */
struct head_groups {
	uint32_t *order;         /* [kv_heads] */
	uint32_t count;
};
/* Chooses the order: neighbours, or (search, needs moments) the partition of least loss of the pca fold, by swaps until none helps. */
int fold_group(const struct attention_weights *w, const struct fold_moments *m, const struct head_groups *g, bool search,
	       struct err *e);

/*
 * Folds into a new `out`; query heads are permuted so that head i reads KV head i / (heads / count). m may be NULL for
 * mean. Exact to rounding when the heads of a group are equal.
 */
int fold_heads(const struct attention_weights *w, const struct fold_moments *m, enum fold_method method,
	       const struct head_groups *g, struct attention_weights *out, struct err *e);

/* The fold of one head by itself: the change of basis that leaves the layer's function as it is. */
struct fold_basis {
	const double *phase;     /* [dim / 2][2] complex scale of each pair of keys, none zero */
	const double *value;     /* [dim, dim] F, and its inverse */
	const double *inverse;
};
void fold_change_basis(struct attention_weights *w, uint32_t kv_head, const struct fold_basis *b);

/* Pair l of a head: positions of its real and imaginary parts; im == re for a lone last dimension. */
static inline uint32_t fold_pairs(uint32_t dim)
{
	return (dim + 1) / 2;
}
static inline void fold_pair(uint32_t dim, uint32_t rope, uint32_t l, uint32_t *re, uint32_t *im)
{
	uint32_t rest = (dim - rope) / 2;
	if (l < rope / 2) {
		*re = l;
		*im = l + rope / 2;
	} else if (l - rope / 2 < rest) {
		*re = rope + (l - rope / 2);
		*im = *re + rest;
	} else {
		*re = *im = dim - 1;
	}
}

#endif
