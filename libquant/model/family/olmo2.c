#include "model/family/family.h"

#define L "model.layers.%u."

/* There is no norm in front of attention and feed-forward, only one behind each. */
static const struct role_name names[] = {
	{ ROLE_ATTN_NORM, NULL, NULL },
	{ ROLE_FFN_NORM, NULL, NULL },
	{ ROLE_POST_ATTN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_POST_FFN_NORM, L "post_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static void layer(struct build *b)
{
	op_add(b, op_norm(b, common_attention_whole(b, STREAM), ROLE_POST_ATTN_NORM));
	op_add(b, op_norm(b, common_feed_forward(b, STREAM), ROLE_POST_FFN_NORM));
}

const struct arch family_olmo2 = {
	.name = "olmo2", .hf_class = "Olmo2ForCausalLM", .gguf = "olmo2", .names = names,
	.gguf_loader = { .only_own = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.default_eps = 1e-5f, .default_theta = 10000,
	.default_context = 2048, .default_bos = -1, .default_eos = 50279,
};

/* olmo3: the same layer, under windows; scaled positions in layers without one. Its class reads rope_theta of the latter alone. */
static float local_theta(const struct config *c)
{
	return c->rope.theta; /* llama.cpp has one base for both */
}

static const struct config_key keys_olmo3[] = {
	/* in rope_parameters, or nowhere: the key is quire's own, for what it reads from GGUF */
	{ "rope_local_theta", NULL, KEY_NUMBER, .field = offsetof(struct config, local_theta), .least = 1 + 1e-6, .most = 1e15,
	  .absent = 500000, .implied = local_theta },
	{ .kind = KEY_END },
};

const struct arch family_olmo3 = {
	.name = "olmo3", .hf_class = "Olmo3ForCausalLM", .gguf = "olmo2", .names = names, .keys = keys_olmo3,
	.gguf_loader = { .only_own = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .local_theta = true,
	.window = WINDOW_PERIOD, .window_period = 4, .default_window = 4096,
	.default_eps = 1e-5f, .default_theta = 500000,
	.default_context = 2048, .default_bos = -1, .default_eos = 50279,
};
