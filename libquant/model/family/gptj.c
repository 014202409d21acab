#include "model/family/family.h"
#include "model/stored.h"

#define L "transformer.h.%u."

/* Files hold the dimensions of Q and K that turn together side by side. No program loads this family from GGUF. */
static const struct role_name names[] = {
	{ ROLE_EMBED, "transformer.wte.weight", AS_ELSEWHERE },
	{ ROLE_HEAD_BIAS, "lm_head.bias", NULL },
	{ ROLE_FINAL_NORM, "transformer.ln_f.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "transformer.ln_f.bias", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM, L "ln_1.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "ln_1.bias", AS_ELSEWHERE },
	{ ROLE_Q, L "attn.halves.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_K, L "attn.halves.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_V, L "attn.v_proj.weight", AS_ELSEWHERE },
	{ ROLE_O, L "attn.out_proj.weight", AS_ELSEWHERE },
	{ ROLE_UP, L "mlp.fc_in.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.fc_in.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.fc_out.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.fc_out.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct stored stored[] = {
	{ L "attn.q_proj.weight", NULL, STORED_ONE(ROLE_Q), .pairs = true },
	{ L "attn.k_proj.weight", NULL, STORED_ONE(ROLE_K), .pairs = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, name), .most = 1 << 20
static const struct config_key keys[] = {
	{ "n_embd", NULL, KEY_COUNT, F(hidden), .most = 1 << 20, .absent = 4096 },
	{ "n_inner", "feed_forward_length", LAYER(ffn), .otherwise = key_four_times },
	{ "n_layer", NULL, KEY_COUNT, F(layers), .most = MAX_LAYERS, .absent = 28 },
	{ "n_head", "attention.head_count", LAYER(heads), .absent = 16 },
	{ NULL, NULL, KEY_COUNT, F(head_dim), .most = 1 << 20, .otherwise = key_even_heads },
	{ "n_positions", NULL, KEY_COUNT, F(context), .most = INT32_MAX, .absent = 2048 },
	{ "layer_norm_epsilon", NULL, KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5 },
	{ "activation_function", NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	{ NULL, NULL, KEY_NUMBER, F(rope.theta), .absent = 10000 },
	{ "rotary_dim", NULL, KEY_DIMS, F(rope.part), .most = 1 << 20, .absent = 64 },
	LISTED("rotary"), LISTED("scale_attn_weights"), /* of older files; the class is always so */
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_parallel(b, false);
}

const struct arch family_gptj = {
	.name = "gptj", .hf_class = "GPTJForCausalLM", .names = names, .stored = stored, .keys = keys,
	.norm = NORM_LAYER, .act = ACT_GELU_TANH, .layer = layer, .partial_rotary = true, .head_bias = true, .equal_heads = true,
	.mlp_bias = BIAS_ALWAYS,
	.window = WINDOW_NONE, .default_theta = 10000, .default_context = 2048, .default_bos = 50256, .default_eos = 50256,
};
