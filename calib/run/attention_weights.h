#ifndef QUIRE_CALIB_RUN_ATTENTION_WEIGHTS_H
#define QUIRE_CALIB_RUN_ATTENTION_WEIGHTS_H
/* Attention weights out of and into checkpoints. */
#include "fold/fold_heads.h"
#include "model/model.h"

/* Reads a layer's Q, K, V, O, with the biases of the first three. */
int attention_weights_read(const struct config *c, struct tensor_source *s, uint32_t layer, struct attention_weights *w,
		      struct err *e);
/* Where changed weights go: into an overlay of the source, and into a model that then borrows the overlay's bytes. */
struct weights_sink {
	const struct config *config;   /* the changed model's */
	struct tensor_source *source;
	struct overlay *out;
	struct model *model;           /* or NULL */
};
/* Puts f32 values in the place of a tensor, in the codec the source has it in. */
int attention_weights_put(const struct weights_sink *k, enum role r, uint32_t layer, const float *values, struct err *e);
/* All of a layer's attention. */
int attention_weights_write(const struct weights_sink *k, uint32_t layer, const struct attention_weights *w, struct err *e);
/* A source in which K and V have the shapes of `to`, all zero: what a folded model is opened on before it is filled. */
int attention_weights_shapes(const struct config *from, const struct config *to, struct tensor_source *source,
			struct overlay **out, struct err *e);

#endif
