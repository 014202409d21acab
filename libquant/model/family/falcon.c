#include "model/family/family.h"
#include "model/stored.h"

#define L "transformer.h.%u."

/* Names of files; those of Q, K and V, which files hold in one tensor, are quire's own. */
static const struct role_name names[] = {
	{ ROLE_EMBED, "transformer.word_embeddings.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM, "transformer.ln_f.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "transformer.ln_f.bias", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM, L "input_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "input_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_Q, L "self_attention.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_Q_BIAS, L "self_attention.q_proj.bias", AS_ELSEWHERE },
	{ ROLE_K, L "self_attention.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_K_BIAS, L "self_attention.k_proj.bias", AS_ELSEWHERE },
	{ ROLE_V, L "self_attention.v_proj.weight", AS_ELSEWHERE },
	{ ROLE_V_BIAS, L "self_attention.v_proj.bias", AS_ELSEWHERE },
	{ ROLE_O, L "self_attention.dense.weight", AS_ELSEWHERE },
	{ ROLE_O_BIAS, L "self_attention.dense.bias", AS_ELSEWHERE },
	{ ROLE_UP, L "mlp.dense_h_to_4h.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.dense_h_to_4h.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.dense_4h_to_h.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.dense_4h_to_h.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct stored stored[] = {
	{ L "self_attention.query_key_value.weight", "blk.%u.attn_qkv.weight", STORED_QKV, .groups = true },
	{ L "self_attention.query_key_value.bias", "blk.%u.attn_qkv.bias", STORED_QKV_BIAS, .groups = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, name), .most = 1 << 20
static const struct config_key keys[] = {
	{ "hidden_size", "embedding_length", KEY_COUNT, F(hidden), .most = 1 << 20, .absent = 4544, .gguf_required = true, .old = "n_embed" },
	{ "ffn_hidden_size", "feed_forward_length", LAYER(ffn), .otherwise = key_four_times, .gguf_required = true },
	{ "num_hidden_layers", "block_count", KEY_COUNT, F(layers), .most = MAX_LAYERS, .absent = 32, .gguf_required = true, .old = "n_layer" },
	{ "num_attention_heads", "attention.head_count", LAYER(heads), .absent = 71, .gguf_required = true, .old = "n_head" },
	{ "multi_query", "attention.head_count_kv", KEY_ONE_KV, F(kv_heads), .layer_field = offsetof(struct layer_config, kv_heads), .absent = true },
	{ NULL, NULL, KEY_COUNT, F(head_dim), .most = 1 << 20, .otherwise = key_even_heads },
	{ "layer_norm_epsilon", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "activation", NULL, KEY_ACT, F(act), .absent = ACT_GELU_ERF },
	{ "bias", NULL, KEY_FLAG, F(qkv_bias) },
	{ NULL, NULL, KEY_FLAG, F(mlp_bias) },
	{ "parallel_attn", NULL, KEY_ONLY, NO_FIELD, .absent = true },
	{ "alibi", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	{ "new_decoder_architecture", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	LISTED("num_kv_heads"), LISTED("num_ln_in_parallel_attn"), /* of new_decoder_architecture */
	LISTED("apply_residual_connection_post_layernorm"),        /* the class does not read it */
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	common_parallel(b, false);
}

const struct arch family_falcon = {
	.name = "falcon", .hf_class = "FalconForCausalLM", .gguf = "falcon", .names = names, .stored = stored, .keys = keys,
	.norm = NORM_LAYER, .act = ACT_GELU_ERF, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_AS_QKV,
	.window = WINDOW_NONE, .default_theta = 10000,
	.default_tied = true, .default_context = 2048, .default_bos = 11, .default_eos = 11,
};
