#include "model/family/family.h"

#define L "model.layers.%u."

static const struct role_name names[] = {
	{ ROLE_UP, L "mlp.c_fc.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.c_fc.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.c_proj.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.c_proj.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "norm_epsilon", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "use_bias", NULL, KEY_FLAG, F(qkv_bias), .absent = true },
	{ NULL, NULL, KEY_FLAG, F(mlp_bias) },
	/* of the code that trained the models; their class does not read it */
	LISTED("activation_function"), LISTED("attention_softmax_in_fp32"), LISTED("layer_norm_epsilon"), LISTED("mlp_type"),
	LISTED("norm_type"), LISTED("scale_attention_softmax_in_fp32"), LISTED("scale_attn_weights"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_mlp(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_starcoder2 = {
	.name = "starcoder2", .hf_class = "Starcoder2ForCausalLM", .gguf = "starcoder2", .names = names, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .biases = true },
	.norm = NORM_LAYER, .act = ACT_GELU_TANH, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_AS_QKV,
	.window = WINDOW_ALL, .default_kv_heads = 2, .default_theta = 10000,
	.default_tied = true, .default_context = 4096, .default_bos = 50256, .default_eos = 50256,
};
