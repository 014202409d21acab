#ifndef QUIRE_MODEL_CONFIG_H
#define QUIRE_MODEL_CONFIG_H
/*
 * What config.json says, resolved: every default filled in, every per-layer
 * pattern expanded, so that the forward pass has no special cases.
 */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/strbuf.h"

struct arch;

enum activation { ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF, ACT_GELU_QUICK, ACT_RELU, ACT_RELU2 };
enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };

struct rope {
	float theta;
	float part;                     /* of a head's dimensions that are rotated: dims */
	uint32_t dims;                  /* rotated dimensions of a head, even */
	enum rope_scaling scaling;
	float factor, low_freq, high_freq; /* llama3 */
	uint32_t original_context;
	float beta_fast, beta_slow, attention_factor; /* yarn; attention_factor is resolved */
	bool truncate;                  /* yarn: whole-numbered correction range */
	float temper;                   /* queries grow by so much with the logarithm of their position in original_context; 0: they do not */
	/*
	 * dims/2 explicit frequency divisors (GGUF rope_freqs, longrope), or NULL. In config.json: quire's own key
	 * `rope_divisors`, in the arena.
	 */
	const float *divisors;
	/* longrope: as many of texts that get longer than original_context; divisors are of those that do not */
	const float *far;
};

struct layer_config {
	uint32_t heads, kv_heads;
	uint32_t window;                /* 0: full attention; W: keys k with q - W < k <= q */
	uint32_t kv_source;             /* layer whose KV cache this layer reads; its own index when it owns one */
	bool rope;                      /* false: no positions in this layer */
	bool local;                     /* its positions turn with local_theta */
	uint32_t ffn;
	bool mixture;                   /* the feed-forward is one of experts */
};

struct config {
	const struct arch *arch;
	uint32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context;
	float norm_eps;
	enum activation act;
	float attn_softcap, final_softcap; /* 0: none */
	float query_scalar;             /* scores are divided by its root; 0: by that of head_dim */
	float score_scale;              /* scores are multiplied by it, and by nothing else; 0: as above */
	float embed_scale, residual_scale; /* of embeddings, of what a block adds to the stream; 0: 1 */
	float logit_scale, logit_divisor;  /* logits times the one, over the other; 0: 1 */
	struct rope rope;
	bool parallel;                  /* both blocks of a layer read its input, where its family can do either */
	float local_theta;              /* of layers with a window, unscaled; 0: all layers turn alike */
	bool tied;                      /* the output head is the embedding */
	bool qkv_bias, o_bias, mlp_bias;
	bool head_norms;                /* queries and keys are normed per head, where its family can do either */
	uint32_t experts, experts_used, expert_ffn; /* of a mixture: how many, chosen per token, how wide; 0: no mixture */
	bool experts_sum_to_one;        /* the weights of those chosen are divided by their sum */
	int32_t bos, eos[8];
	uint32_t eos_count;
	bool has_bos;
	struct layer_config *layer;     /* [layers], in the arena */
	struct arena arena;
};

/*
 * Parses config.json. ERR_INPUT for missing or contradictory values,
 * ERR_UNSUPPORTED for an unknown model_type, activation, rope type, or a
 * non-null key this architecture's row does not implement.
 */
int config_parse(struct config *c, const char *json, size_t len, struct err *e);
void config_release(struct config *c);
/*
 * Writes a config.json that config_parse reads back to the same model; keys quire does not know are taken over
 * from `base` (the original text, or NULL). per-layer KV head counts and KV sources are written as the
 * arrays `kv_heads_per_layer` and `kv_source_layer`, windows as `layer_types` + `sliding_window` where the model's class
 * reads these, else as `window_per_layer`.
 * ERR_UNSUPPORTED for a per-layer pattern that has no key.
 */
int config_print(const struct config *c, const char *base, size_t base_len, struct strbuf *out, struct err *e);

/* KV cache bytes for `tokens` tokens at `bytes_per_element` (2.0 for f16); shared layers cost nothing, windows are honoured. */
double config_kv_bytes(const struct config *c, uint64_t tokens, double bytes_per_element);
uint64_t config_parameters(const struct config *c); /* weights of the forward pass, a tied head counted once */
uint32_t config_mixtures(const struct config *c); /* layers that are mixtures of experts */
uint64_t config_active_parameters(const struct config *c); /* that one token meets: of its experts alone */

/* Of the widest layer, in elements: queries, keys (or values), feed-forward; and the widest input that any linear layer has. */
struct config_widths {
	size_t q, kv, ffn, input;
};
struct config_widths config_widths(const struct config *c);
/* What scores are multiplied by. */
static inline float config_score_scale(const struct config *c)
{
	return c->score_scale > 0 ? c->score_scale : 1 / sqrtf(c->query_scalar > 0 ? c->query_scalar : (float)c->head_dim);
}
/* What logits are multiplied by. */
static inline float config_logit_scale(const struct config *c)
{
	return (c->logit_scale != 0 ? c->logit_scale : 1) / (c->logit_divisor != 0 ? c->logit_divisor : 1);
}
/* What embeddings are multiplied by. */
float config_embed_scale(const struct config *c);
/* Has a file of this family a way to say whether the layer is turned by positions, as it is here? */
bool config_turning_said(const struct config *c, uint32_t layer);
/* Does this layer read its own KV cache, and no other layer that? */
bool config_kv_alone(const struct config *c, uint32_t layer);
/* The row of V that a column of the output projection reads: query heads of one group read the same ones. */
static inline size_t config_v_row(const struct config *c, uint32_t layer, size_t column)
{
	const struct layer_config *l = &c->layer[layer];
	return column / c->head_dim / (l->heads / l->kv_heads) * c->head_dim + column % c->head_dim;
}

#endif
