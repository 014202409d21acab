#include "model/family/family.h"

#define F(name) .field = offsetof(struct config, name), .least = 1e-9, .most = 1e9, .absent = 1
static const struct config_key keys[] = {
	{ "embedding_multiplier", "embedding_scale", KEY_NUMBER, F(embed_scale) },
	{ "residual_multiplier", "residual_scale", KEY_NUMBER, F(residual_scale) },
	{ "attention_multiplier", "attention.scale", KEY_NUMBER, F(score_scale) },
	{ "logits_scaling", "logit_scale", KEY_NUMBER, F(logit_divisor), .gguf_required = true },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	float by = b->config->residual_scale;
	op_add(b, op_scale(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false), by));
	op_add(b, op_scale(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)), by));
}

const struct arch family_granite = {
	.name = "granite", .hf_class = "GraniteForCausalLM", .gguf = "granite", .gguf_layouts = layouts_rope_pairs, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_CONFIG,
	.window = WINDOW_NONE, .default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 2048, .default_bos = 1, .default_eos = 2,
};
