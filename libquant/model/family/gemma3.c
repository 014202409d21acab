#include "model/family/family.h"

#define L "model.layers.%u."

static const struct role_name names[] = {
	{ ROLE_POST_ATTN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "pre_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_POST_FFN_NORM, L "post_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct role_layout layouts[] = {
	{ ROLE_ATTN_NORM, LAYOUT_PLUS_ONE },      { ROLE_FFN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_POST_ATTN_NORM, LAYOUT_PLUS_ONE }, { ROLE_POST_FFN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_Q_NORM, LAYOUT_PLUS_ONE },         { ROLE_K_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_FINAL_NORM, LAYOUT_PLUS_ONE },     { ROLE_UNKNOWN, LAYOUT_SAME },
};

/* GGUF has no key: readers know the largest of these models, of 62 layers, by that number. */
static float query_scalar(const struct config *c)
{
	return c->layers == 62 ? (float)(c->hidden / c->heads) : (float)c->head_dim;
}

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "hidden_activation", NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	{ "query_pre_attn_scalar", NULL, KEY_LIMIT, F(query_scalar), .most = 1e9, .absent = 256, .whole = true, .implied = query_scalar },
	{ "final_logit_softcapping", "final_logit_softcapping", KEY_LIMIT, F(final_softcap), .most = 1e9 },
	{ "rope_local_base_freq", "rope.freq_base_swa", KEY_NUMBER, F(local_theta), .least = 1 + 1e-6, .most = 1e15, .absent = 10000 },
	{ "sliding_window_pattern", .kind = KEY_LISTED, .field = NO_FIELD },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_sandwich(b, true);
}

const struct arch family_gemma3 = {
	.name = "gemma3_text", .hf_class = "Gemma3ForCausalLM", .gguf = "gemma3", .gguf_layouts = layouts, .names = names, .keys = keys,
	.gguf_loader = { .head_dim = true },
	.norm = NORM_RMS_PLUS_ONE, .act = ACT_GELU_TANH, .scale_embedding = true, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .local_theta = true,
	.window = WINDOW_PERIOD, .window_period = 6, .default_window = 4096, .default_kv_heads = 4, .default_head_dim = 256,
	.default_eps = 1e-6f, .default_theta = 1000000,
	.default_tied = true, .default_context = 131072, .default_bos = 2, .default_eos = 1,
};
