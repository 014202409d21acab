#include "model/family/family.h"

/* Its norms multiply by one more than their weight; GGUF holds the sum. */
static const struct role_layout layouts[] = {
	{ ROLE_ATTN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_FFN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_FINAL_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_UNKNOWN, LAYOUT_SAME },
};

/* GGUF models of this family share the embedding with the head. */
static const struct role_name names[] = { { ROLE_HEAD, "lm_head.weight", NULL }, { ROLE_UNKNOWN, NULL, NULL } };

/* Files of some releases name the activation twice; the newer key is meant. */
static const struct config_key keys[] = {
	{ "hidden_activation", NULL, KEY_ACT, .field = offsetof(struct config, act), .also = true },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_gemma = {
	.name = "gemma", .hf_class = "GemmaForCausalLM", .gguf = "gemma", .gguf_layouts = layouts, .names = names, .keys = keys,
	.gguf_loader = { .head_dim = true, .only_tied = true },
	.norm = NORM_RMS_PLUS_ONE, .act = ACT_GELU_TANH, .gelu_is_tanh = true, .scale_embedding = true, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_NONE, .default_kv_heads = 16, .default_head_dim = 256, .default_eps = 1e-6f, .default_theta = 10000,
	.default_tied = true, .default_context = 8192, .default_bos = 2, .default_eos = 1,
};
