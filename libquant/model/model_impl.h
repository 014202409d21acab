#ifndef QUIRE_MODEL_IMPL_H
#define QUIRE_MODEL_IMPL_H
/* What model.c binds and forward.c runs. */
#include "model/model.h"

struct model {
	const struct config *config;
	struct tensor_source *source;
	struct weight *weight;   /* see model_slot */
	float **vector;
	struct tensor *replaced; /* what model_replace put in, per slot */
	float *inv_freq;         /* [rope.dims / 2] */
	float rope_scale;
	bool streaming;
	struct kv_codecs kv;
};

static inline size_t model_slot(enum role r, uint32_t layer)
{
	return (role_rows[r].per_layer ? (size_t)layer + 1 : 0) * ROLE_COUNT + (size_t)r;
}

/* The output head: its own matrix, or the embedding. */
static inline const struct weight *model_head(const struct model *m)
{
	return model_weight(m, m->config->tied ? ROLE_EMBED : ROLE_HEAD, UINT32_MAX);
}

#endif
