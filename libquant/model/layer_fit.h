#ifndef QUIRE_MODEL_LAYER_FIT_H
#define QUIRE_MODEL_LAYER_FIT_H
/*
 * A decoder layer and the output head as functions of their weights, with gradients, for training a model towards
 * another one's logits. Only what goes into each layer has to be kept: a layer's gradient runs it again (checkpointing,
 * Chen et al., arXiv 1604.06174).
 */
#include "model/attention_fit.h"
#include "model/model.h"

/* f32, row-major, the caller's. Biases and norms are the model's and stay as they are. */
struct layer_weights {
	struct attention_weights attention;
	float *gate, *up, *down; /* [ffn, hidden], [ffn, hidden], [hidden, ffn] */
};

struct layer_fit;

/* Why this model cannot be trained in this way, or NULL: layer norms, layers that share KV ... */
const char *layer_fit_refusal(const struct config *c);

/* The model lends norms, biases, head and embedding, and must outlive the fit. seqs: the most of a batch. */
int layer_fit_new(const struct model *m, size_t seqs, size_t ctx, struct layer_fit **out, struct err *e);
void layer_fit_free(struct layer_fit *f);
/* Bytes of layer_fit_new, without what OpenBLAS takes. */
uint64_t layer_fit_memory(const struct config *c, size_t seqs, size_t ctx);

/* hidden [seqs * ctx, hidden] in place. */
int layer_fit_forward(struct layer_fit *f, uint32_t layer, const struct layer_weights *w, float *hidden, size_t seqs, struct err *e);
/*
 * d is the gradient by the layer's output, and becomes that by its input, which `hidden` is; grad gets that by the weights
 * (same shapes). Does not depend on the number of threads.
 */
int layer_fit_back(struct layer_fit *f, uint32_t layer, const struct layer_weights *w, const float *hidden, float *d,
		   struct layer_weights *grad, size_t seqs, struct err *e);
/*
 * *kl gets the sum over the sequences' tokens of KL(teacher || student), from the hidden states after each one's last
 * layer; d (may be NULL) its gradient by the student's, times scale.
 */
int layer_fit_divergence(struct layer_fit *f, const float *teacher, const float *student, size_t seqs, float scale, float *d,
			 double *kl, struct err *e);

#endif
