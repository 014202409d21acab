#include "model/family/family.h"

/* Layers with a window turn with a base of their own; without the key, with that of all. */
static double local_theta(const struct config *c, bool null)
{
	(void)null;
	return (double)c->rope.theta;
}

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "use_qk_norm", NULL, KEY_FLAG, F(head_norms) },
	{ "rope_local_base_freq", "rope.freq_base_swa", KEY_NUMBER, F(local_theta), .least = 1 + 1e-6, .most = 1e15, .otherwise = local_theta },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), b->config->head_norms));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

/* The dense part of it: any count of KV heads and a window or none in each layer, norms of heads or none. */
const struct arch family_step35 = {
	.name = "step3p5", .hf_class = "Step3p5ForCausalLM", .gguf = "step35",
	.gguf_loader = { .head_dim = true, .only_own = true, .differ = true, .unscaled = true }, .keys = keys,
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .local_theta = true,
	.window = WINDOW_PERIOD, .window_period = 4, .default_window = 512,
	.default_eps = 1e-5f, .default_theta = 10000,
	.default_context = 32768, .default_bos = -1, .default_eos = -1,
};
