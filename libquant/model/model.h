#ifndef QUIRE_MODEL_MODEL_H
#define QUIRE_MODEL_MODEL_H
/*
 * The reference forward pass: f32 activations over weights decoded on the fly.
 * Weights stay in their codec (mapped or in memory) and are decoded block-row
 * by block-row into a small scratch per worker, then multiplied by sgemm, so a
 * model larger than memory goes through. Every product is cut into the same
 * blocks whatever the thread count, so results do not depend on it.
 *
 * The stages are public so that calibration can run layer by layer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/arch.h"
#include "model/kv_codec.h"
#include "model/arithmetic.h"
#include "tensor/tensor.h"

struct model;

/*
 * Binds the tensors of a source to roles and checks every shape. The source and config must outlive the model.
 * ERR_INPUT: missing, misshaped or unknown tensors (all named in the message, up to its length).
 */
int model_open(const struct config *c, struct tensor_source *s, struct model **out, struct err *e);
/* The same of a model that is carried, not run: it may have other tensors besides, and no head. Reads no weights. */
int model_check(const struct config *c, struct tensor_source *s, struct err *e);
void model_close(struct model *m);
const struct config *model_config(const struct model *m);
/* The weights are larger than memory: tell the source after each product that its bytes may leave. Off at first. */
void model_set_streaming(struct model *m, bool on);

/*
 * Passes without a cache see keys (after RoPE) and values as a cache in these codecs would give them back, so that the
 * damage is measured in prefill. Zeroes (the default) leave them alone. A cache brings its own codecs.
 */
void model_set_kv(struct model *m, struct kv_codecs codecs);
struct kv_codecs model_kv(const struct model *m);
/*
 * Follows a runtime's arithmetic from now on, and sets the codecs of keys and values to its own: model_set_kv comes after it, a
 * model_run too. ERR_UNSUPPORTED: a weight is of a type that it has not.
 */
int model_set_arithmetic(struct model *m, enum arithmetic arithmetic, struct err *e);
enum arithmetic model_arithmetic(const struct model *m);

/*
 * A weight bound to a role, never NULL; its bytes.data is NULL when the model has none (a tied head, a layer that
 * reads another layer's KV).
 */
struct weight {
	const struct tensor *tensor;
	struct tensor_bytes bytes;
};
const struct weight *model_weight(const struct model *m, enum role r, uint32_t place);
/* Norm weights and biases as f32, decoded at open; NULL when the model has none. */
const float *model_vector(const struct model *m, enum role r, uint32_t place);

/*
 * Puts other bytes in the place of a bound tensor of the same shape, in any codec. Bytes of matrices are borrowed and
 * must stay until they are replaced or the model is closed; *t is copied.
 */
int model_replace(struct model *m, enum role r, uint32_t place, const struct tensor *t, const void *bytes, struct err *e);

/* y[n, rows] = x[n, cols] W^T (+ bias, if bias is not NULL). Decodes W in blocks of rows; uses thread_for. */
int weight_apply(const struct weight *w, const float *x, size_t n, const float *bias, float *y, struct err *e);

struct kv_cache;
/* capacity in tokens. f32; a layer with a window keeps no more than that window and some slack. */
struct kv_cache *kv_cache_new(const struct config *c, size_t capacity, struct err *e);
/* The same in codecs that hold rows of head_dim (see kv_codec_find). */
struct kv_cache *kv_cache_new_in(const struct config *c, size_t capacity, struct kv_codecs codecs, struct err *e);
void kv_cache_free(struct kv_cache *k);
size_t kv_cache_length(const struct kv_cache *k);
size_t kv_cache_bytes(const struct kv_cache *k);
/* Forgets the tokens from `length` on. Layers with a window cannot go back past what they keep: 0 always works. */
void kv_cache_truncate(struct kv_cache *k, size_t length);

/*
 * Sees the input of every linear layer while a layer runs; x is [n, dim]. Roles that share an input (Q, K, V) report once, as
 * the first. What an expert reads is reported for each expert that has tokens, by its place.
 */
struct model_tap {
	void (*input)(void *arg, enum role r, uint32_t place, const float *x, size_t n, size_t dim);
	/*
	 * Optional: queries and keys (with bias and QK-norm, before RoPE) and values; q is [n, heads * head_dim], k and v
	 * are [n, kv_heads * head_dim], or NULL in a layer that reads another layer's KV.
	 */
	void (*qkv)(void *arg, uint32_t layer, const float *q, const float *k, const float *v, size_t n);
	/* Optional: before the input of an expert, which of the pass's tokens its rows are. */
	void (*routed)(void *arg, const uint32_t *token, size_t n);
	void *arg;
	/*
	 * The layer ends after it has reported the input of role `last` (of every expert), and leaves in `hidden` the residual stream as it
	 * is before that projection is added.
	 */
	bool stop;
	enum role last;
	/* 0: the whole layer; i: its i-th part alone (see block.part). What goes in and comes out is the residual stream. */
	unsigned part;
};

/* Sequences of `len` tokens, one after the other; each begins at position `first`. */
struct token_run {
	const int32_t *id;
	size_t count, len, first;
};
int model_embed(struct model *m, const struct token_run *tokens, float *hidden, struct err *e);

/*
 * A batch: `seqs` sequences of `len` tokens each, hidden states [seqs * len, hidden]. `cache` NULL: each sequence
 * starts at position 0 and attends to itself only (prefill for perplexity); else seqs is 1 and positions continue
 * from the cache's length.
 */
struct model_batch {
	size_t seqs, len;
	struct kv_cache *cache;
	const struct model_tap *tap;     /* or NULL */
};
/* Runs one layer in place. Layers that read another layer's KV must run after it, with the same `run`. */
struct model_run;  /* scratch and, without a cache, the K and V of layers that others read */
/* Bytes of a run's buffers for so many tokens, but those that workers decode weights to. */
uint64_t model_run_memory(const struct config *c, size_t tokens);
/* seqs * len: the most tokens that model_layer will get at once. */
struct model_run *model_run_new(struct model *m, size_t seqs, size_t len, struct err *e);
void model_run_free(struct model_run *r);
int model_layer(struct model_run *r, uint32_t layer, float *hidden, const struct model_batch *b, struct err *e);
/* The output head's input: [n, hidden] after the final norm; in and out may be the same. */
void model_final_norm(const struct model *m, const float *hidden, float *out, size_t n);
/* Final norm and output head: logits [n, vocab]. hidden rows are the caller's choice; n may be anything. */
int model_logits(struct model_run *r, const float *hidden, size_t n, float *logits, struct err *e);

/* The whole pass: tokens [seqs, len] -> hidden states after the last layer (before the final norm). Advances the cache. */
int model_forward(struct model_run *r, const int32_t *tokens, const struct model_batch *b, float *hidden, struct err *e);

#endif
