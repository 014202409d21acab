#include "model/family/family.h"

#define L "model.layers.%u."

/* There is no norm in front of attention and feed-forward, only one behind each. */
static const struct role_name names[] = {
	{ ROLE_ATTN_NORM, NULL, NULL },
	{ ROLE_FFN_NORM, NULL, NULL },
	{ ROLE_POST_ATTN_NORM, L "post_attention_layernorm.weight", "blk.%u.post_attention_norm.weight" },
	{ ROLE_POST_FFN_NORM, L "post_feedforward_layernorm.weight", "blk.%u.post_ffw_norm.weight" },
	{ ROLE_UNKNOWN, NULL, NULL },
};

/* Queries and keys are normed over all of their heads at once. */
static value attention(struct build *b, value x)
{
	value q = op_linear(b, x, ROLE_Q), k = op_linear(b, x, ROLE_K), v = op_linear(b, x, ROLE_V);
	q = op_rope(b, op_norm(b, q, ROLE_Q_NORM));
	k = op_rope(b, op_norm(b, k, ROLE_K_NORM));
	return op_linear(b, op_attend(b, q, k, v), ROLE_O);
}

static void layer(struct build *b)
{
	op_add(b, op_norm(b, attention(b, STREAM), ROLE_POST_ATTN_NORM));
	op_add(b, op_norm(b, common_feed_forward(b, STREAM), ROLE_POST_FFN_NORM));
}

const struct arch family_olmo2 = {
	.name = "olmo2", .hf_class = "Olmo2ForCausalLM", .gguf = "olmo2", .names = names,
	.gguf_loader = { .only_own = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.default_eps = 1e-5f, .default_theta = 10000,
	.default_context = 2048, .default_bos = -1, .default_eos = 50279,
};
