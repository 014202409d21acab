#include "model/family/family.h"

#define L "model.layers.%u."

static const struct role_name names[] = {
	{ ROLE_FINAL_NORM, "model.final_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "model.final_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_HEAD_BIAS, "lm_head.bias", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, NULL, NULL }, /* both halves read one norm */
	{ ROLE_FFN_NORM_BIAS, NULL, NULL },
	{ ROLE_O, L "self_attn.dense.weight", AS_ELSEWHERE },
	{ ROLE_O_BIAS, L "self_attn.dense.bias", AS_ELSEWHERE },
	{ ROLE_UP, L "mlp.fc1.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.fc1.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.fc2.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.fc2.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

/* qk_layernorm, which no published model has, is refused where it is set. */
#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "layer_norm_eps", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "partial_rotary_factor", NULL, KEY_NUMBER, F(rope.part), .least = 1e-6, .most = 1, .absent = 0.5 },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_parallel(b, false);
}

const struct arch family_phi = {
	.name = "phi", .hf_class = "PhiForCausalLM", .gguf = "phi2", .names = names, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .biases = true, .only_own = true, .partial = true },
	.norm = NORM_LAYER, .act = ACT_GELU_TANH, .layer = layer, .partial_rotary = true, .head_bias = true,
	.qkv_bias = BIAS_ALWAYS, .o_bias = BIAS_ALWAYS, .mlp_bias = BIAS_ALWAYS, .default_theta = 10000,
	.default_context = 2048, .default_bos = 1, .default_eos = 2,
};
