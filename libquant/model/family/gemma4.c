#include "model/family/family.h"

#define L "model.layers.%u."

static const struct role_name names[] = {
	{ ROLE_POST_ATTN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "pre_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_POST_FFN_NORM, L "post_feedforward_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define NOT(name) { name, NULL, KEY_ONLY, .field = NO_FIELD }
static const struct config_key keys[] = {
	{ "hidden_activation", NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	/* a folded model's residual stream is scaled, and this with it */
	{ "rms_norm_eps", "attention.layer_norm_rms_epsilon", KEY_NUMBER, F(norm_eps), .most = 1e15, .absent = 1e-6, .gguf_required = true },
	{ NULL, NULL, KEY_LIMIT, F(query_scalar), .most = 1, .absent = 1 }, /* scores are not scaled */
	{ "final_logit_softcapping", "final_logit_softcapping", KEY_LIMIT, F(final_softcap), .most = 1e9, .gguf_required = true },
	{ "rope_local_base_freq", "rope.freq_base_swa", KEY_NUMBER, F(local_theta), .least = 1 + 1e-6, .most = 1e15, .absent = 10000 },
	/* what real ones have and is not implemented */
	NOT("attention_k_eq_v"), NOT("enable_moe_block"), NOT("use_double_wide_mlp"),
	{ "global_head_dim", NULL, KEY_SAME, NO_FIELD, .layer_field = offsetof(struct config, head_dim), .absent = 512 },
	{ "hidden_size_per_layer_input", NULL, KEY_SAME, NO_FIELD, .absent = 256 },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	value x = op_norm(b, STREAM, ROLE_ATTN_NORM);
	value q = op_linear(b, x, ROLE_Q), k = op_linear(b, x, ROLE_K), v = op_linear(b, x, ROLE_V);
	q = op_rope(b, op_head_norm(b, q, ROLE_Q_NORM));
	k = op_rope(b, op_head_norm(b, k, ROLE_K_NORM));
	v = op_head_norm(b, v, ROLE_UNKNOWN);
	x = op_linear(b, op_attend(b, q, k, v), ROLE_O);
	op_add(b, op_norm(b, x, ROLE_POST_ATTN_NORM));
	x = common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM));
	op_add(b, op_norm(b, x, ROLE_POST_FFN_NORM));
}

/* As far as folds are written so: heads of one size, no embeddings per layer, no experts, keys and values apart. */
const struct arch family_gemma4 = {
	.name = "gemma4_text", .hf_class = "Gemma4ForCausalLM", .gguf = "gemma4",
	.gguf_loader = { .head_dim = true, .differ = true, .shares = true, .unscaled = true }, .names = names, .keys = keys,
	.norm = NORM_RMS, .act = ACT_GELU_TANH, .scale_embedding = true, .layer = layer, .differ = DIFFER_SUFFIX,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .local_theta = true, .gguf_divisors = true,
	.window = WINDOW_PERIOD, .window_period = 6, .default_window = 512, .default_kv_heads = 4, .default_head_dim = 256,
	.default_eps = 1e-6f, .default_theta = 1000000,
	.default_tied = true, .default_context = 131072, .default_bos = 2, .default_eos = 1,
};
