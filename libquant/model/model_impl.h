#ifndef QUIRE_MODEL_IMPL_H
#define QUIRE_MODEL_IMPL_H
/* What model.c binds and forward.c runs. */
#include "model/model.h"

struct model {
	const struct config *config;
	struct tensor_source *source;
	struct weight *weight;   /* by site_id */
	float **vector;
	struct tensor *replaced; /* what model_replace put in, by site_id */
	float *inv_freq;         /* [rope.dims / 2], and as many again of layers that turn with local_theta, or of long texts */
	float rope_scale;
	bool streaming;
	struct kv_codecs kv;
	enum arithmetic arithmetic;
};

/* The output head: its own matrix, or the embedding. */
static inline const struct weight *model_head(const struct model *m)
{
	return model_weight(m, m->config->tied ? ROLE_EMBED : ROLE_HEAD, UINT32_MAX);
}

#endif
