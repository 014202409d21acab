#ifndef QUIRE_CALIB_QUANT_CHANNELS_H
#define QUIRE_CALIB_QUANT_CHANNELS_H
/*
 * A model whose channels have another order and other scales: a source over another source, whose changed tensors are
 * made when asked for.
 */
#include "tensor/tensor.h"

/*
 * What becomes of a matrix: element (r, c) is the inner one's (row_order[r], column_order[c]) * column_scale[c] / row_scale[r].
 * Each NULL: nothing. A vector's elements are its rows. Borrowed. Scales make it f32; rows alone may move in any codec,
 * elements of vectors in those of one element a block.
 */
struct channel_map {
	const uint32_t *row_order, *column_order;
	const float *row_scale, *column_scale;
};

struct channels;
/* The inner source must outlive it. */
struct channels *channels_new(struct tensor_source *inner, struct err *e);
void channels_free(struct channels *c); /* NULL is fine */
int channels_set(struct channels *c, size_t tensor, const struct channel_map *map, struct err *e);
struct tensor_source *channels_source(struct channels *c);

#endif
