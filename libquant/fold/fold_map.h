#ifndef QUIRE_FOLD_FOLD_MAP_H
#define QUIRE_FOLD_FOLD_MAP_H
/* Shared by the files of fold.h: the coefficients of one group's fold, and how they are found. */
#include <complex.h>

#include "fold/fold_heads.h"

struct fold_map {
	uint32_t g, dim, pairs;
	double complex *c, *a;   /* [g, pairs] */
	double *f, *b;           /* [g, dim, dim] */
};
int fold_map_init(struct fold_map *m, uint32_t g, uint32_t dim, struct err *e);
void fold_map_release(struct fold_map *m);

/* What a method looks at: a group of a layer. */
struct fold_view {
	const struct attention_weights *w;
	const struct fold_moments *m;
	const uint32_t *group;   /* [g] */
	uint32_t g;
};
/* E[k_i conj(k_j)] of pair l, i and j positions in the group. */
double complex fold_key_moment(const struct fold_view *v, uint32_t l, uint32_t i, uint32_t j);
/* Sum over the query heads of group member i of E|q_l|^2. */
double fold_query_energy(const struct fold_view *v, uint32_t l, uint32_t i);
/* Sum over its query heads of W_O^T W_O: [dim, dim]. */
void fold_output_gram(const struct fold_view *v, uint32_t i, double *out);
/* E[v_i v_j^T], [dim, dim] with row stride fold_stride(). */
const double *fold_value_moment(const struct fold_view *v, uint32_t i, uint32_t j);
static inline size_t fold_stride(const struct fold_view *v)
{
	return (size_t)v->w->kv_heads * v->w->dim;
}

/* Fill the keys' and the values' part of a map. */
int fold_keys_pca(const struct fold_view *v, struct fold_map *m, double *loss, struct err *e);
int fold_values_pca(const struct fold_view *v, struct fold_map *m, double *loss, struct err *e);
int fold_keys_align(const struct fold_view *v, struct fold_map *m, struct err *e);
int fold_values_align(const struct fold_view *v, struct fold_map *m, struct err *e);

#endif
