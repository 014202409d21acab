#include "model/family/family.h"

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "layer_norm_eps", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "use_qkv_bias", NULL, KEY_FLAG, F(qkv_bias) },
	{ "use_parallel_residual", "use_parallel_residual", KEY_FLAG, F(parallel) },
	{ "partial_rotary_factor", NULL, KEY_NUMBER, F(rope.part), .least = 1e-6, .most = 1, .absent = 0.25 },
	{ "qk_layernorm", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	if (b->config->parallel) {
		common_parallel(b, true);
		return;
	}
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_stablelm = {
	.name = "stablelm", .hf_class = "StableLmForCausalLM", .gguf = "stablelm", .keys = keys,
	.gguf_loader = { .only_own = true, .partial = true },
	.norm = NORM_LAYER, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .partial_rotary = true,
	.window = WINDOW_NONE, .default_kv_heads = 32, .default_theta = 10000,
	.default_context = 4096, .default_bos = 0, .default_eos = 0,
};
