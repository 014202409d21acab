#include "model/family/family.h"
#include "model/stored.h"

#define L "model.layers.%u."

/* Files hold the dimensions of Q and K that turn together side by side; the names of what the model computes with are quire's own. */
static const struct role_name names[] = {
	{ ROLE_Q, L "self_attn.halves.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_K, L "self_attn.halves.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_Q_BIAS, L "self_attn.halves.q_proj.bias", AS_ELSEWHERE },
	{ ROLE_K_BIAS, L "self_attn.halves.k_proj.bias", AS_ELSEWHERE },
	{ ROLE_HEAD, "lm_head.weight", NULL },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct stored stored[] = {
	{ L "self_attn.q_proj.weight", NULL, STORED_ONE(ROLE_Q), .pairs = true },
	{ L "self_attn.k_proj.weight", NULL, STORED_ONE(ROLE_K), .pairs = true },
	{ L "self_attn.q_proj.bias", NULL, STORED_ONE(ROLE_Q_BIAS), .pairs = true },
	{ L "self_attn.k_proj.bias", NULL, STORED_ONE(ROLE_K_BIAS), .pairs = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define COMMON_KEYS \
	{ "layer_norm_eps", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true }, \
	{ "logit_scale", "logit_scale", KEY_NUMBER, F(logit_scale), .least = 1e-9, .most = 1e9, .absent = 0.0625 }

static const struct config_key keys[] = {
	COMMON_KEYS,
	{ "use_qk_norm", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	{ .kind = KEY_END },
};

static const struct config_key keys2[] = {
	COMMON_KEYS,
	LISTED("sliding_window_pattern"),
	/* of the code that trained the models; their class is always so, whatever they say */
	LISTED("order_of_interleaved_layers"), LISTED("position_embedding_type"), LISTED("rotary_pct"), LISTED("use_embedding_sharing"),
	LISTED("use_gated_activation"), LISTED("use_parallel_block"), LISTED("use_parallel_embedding"), LISTED("layer_switch"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_parallel(b, true);
}

const struct arch family_cohere = {
	.name = "cohere", .hf_class = "CohereForCausalLM", .gguf = "command-r", .gguf_layouts = layouts_rope_pairs, .names = names,
	.stored = stored, .keys = keys, .gguf_loader = { .only_tied = true },
	.norm = NORM_LAYER, .plain_norms = true, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_NONE, .default_theta = 500000,
	.default_tied = true, .default_context = 8192, .default_bos = 5, .default_eos = 255001,
};

const struct arch family_cohere2 = {
	.name = "cohere2", .hf_class = "Cohere2ForCausalLM", .gguf = "cohere2", .gguf_layouts = layouts_rope_pairs, .names = names,
	.stored = stored, .keys = keys2, .gguf_loader = { .only_tied = true },
	.norm = NORM_LAYER, .plain_norms = true, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_PERIOD, .window_period = 4, .turning = TURN_WINDOWED, .default_window = 4096, .default_theta = 10000,
	.default_tied = true, .default_context = 8192, .default_bos = 5, .default_eos = 255001,
};
