#include "model/family/family.h"

const struct role_layout layouts_rope_pairs[] = {
	{ ROLE_Q, LAYOUT_ROPE_PAIRS },      { ROLE_K, LAYOUT_ROPE_PAIRS },      { ROLE_Q_BIAS, LAYOUT_ROPE_PAIRS },
	{ ROLE_K_BIAS, LAYOUT_ROPE_PAIRS }, { ROLE_UNKNOWN, LAYOUT_SAME },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_llama = {
	.name = "llama", .hf_class = "LlamaForCausalLM", .gguf = "llama", .gguf_layouts = layouts_rope_pairs,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .head_dim = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_CONFIG,
	.window = WINDOW_NONE, .default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 2048, .default_bos = 1, .default_eos = 2,
};
