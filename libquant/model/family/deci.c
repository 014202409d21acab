#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

#define F(name) .field = offsetof(struct config, name)
/* attention_bias: of Q, K, V and of what attention puts out; qkv_bias: of the first three alone. */
static const struct config_key keys[] = {
	{ "qkv_bias", NULL, KEY_FLAG, F(qkv_bias) },
	{ "attention_bias", NULL, KEY_FLAG, F(o_bias) },
	{ .kind = KEY_END },
};

/* Llama whose layers may differ in KV heads and width. Layers without attention, or with one matrix in its place, are not read. */
const struct arch family_deci = {
	.name = "nemotron-nas", .hf_class = "DeciLMForCausalLM", .gguf = "deci",
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .head_dim = true, .differ = true }, .gguf_layouts = layouts_rope_pairs,
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .keys = keys, .differ = DIFFER_BLOCKS,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_OWN_KEY, .mlp_bias = BIAS_CONFIG,
	.window = WINDOW_NONE, .default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 2048, .default_bos = 1, .default_eos = 2,
};
