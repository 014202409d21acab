#include "model/family/family.h"

static const struct config_key keys[] = {
	LISTED("no_rope_layers"), LISTED("no_rope_layer_interval"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_smollm3 = {
	.name = "smollm3", .hf_class = "SmolLM3ForCausalLM", .gguf = "smollm3", .gguf_layouts = layouts_rope_pairs, .keys = keys,
	.gguf_loader = { .head_dim = true, .unturned = 4 },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .turning = TURN_LISTED,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_CONFIG,
	.window = WINDOW_UNTURNED, .default_kv_heads = 4, .default_eps = 1e-6f, .default_theta = 2000000,
	.default_tied = true, .default_context = 32768, .default_bos = 128000, .default_eos = 128001,
};
