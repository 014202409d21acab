#include "model/family/family.h"

#define L "model.layers.%u."

/* What is post_attention_layernorm elsewhere is in front of the feed-forward there, and after attention here. */
static const struct role_name names[] = {
	{ ROLE_POST_ATTN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "pre_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_POST_FFN_NORM, L "post_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_HEAD, "lm_head.weight", NULL },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct role_layout layouts[] = {
	{ ROLE_ATTN_NORM, LAYOUT_PLUS_ONE },      { ROLE_FFN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_POST_ATTN_NORM, LAYOUT_PLUS_ONE }, { ROLE_POST_FFN_NORM, LAYOUT_PLUS_ONE },
	{ ROLE_FINAL_NORM, LAYOUT_PLUS_ONE },     { ROLE_UNKNOWN, LAYOUT_SAME },
};

/* GGUF has no key: readers know the largest of these models, of 46 layers, by that number. */
static float query_scalar(const struct config *c)
{
	return c->layers == 46 ? (float)(c->hidden / c->heads) : (float)c->head_dim;
}

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "hidden_activation", NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	{ "query_pre_attn_scalar", NULL, KEY_LIMIT, F(query_scalar), .most = 1e9, .absent = 256, .whole = true, .implied = query_scalar },
	{ "attn_logit_softcapping", "attn_logit_softcapping", KEY_LIMIT, F(attn_softcap), .most = 1e9, .absent = 50 },
	{ "final_logit_softcapping", "final_logit_softcapping", KEY_LIMIT, F(final_softcap), .most = 1e9, .absent = 30 },
	{ "hidden_act", .kind = KEY_LISTED, .field = NO_FIELD }, /* its class reads hidden_activation */
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_sandwich(b, false);
}

const struct arch family_gemma2 = {
	.name = "gemma2", .hf_class = "Gemma2ForCausalLM", .gguf = "gemma2", .gguf_layouts = layouts, .names = names, .keys = keys,
	.gguf_loader = { .head_dim = true, .only_tied = true },
	.norm = NORM_RMS_PLUS_ONE, .act = ACT_GELU_TANH, .scale_embedding = true, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_PERIOD, .window_period = 2, .default_window = 4096, .default_kv_heads = 4, .default_head_dim = 256,
	.default_eps = 1e-6f, .default_theta = 10000,
	.default_tied = true, .default_context = 8192, .default_bos = 2, .default_eos = 1,
};
