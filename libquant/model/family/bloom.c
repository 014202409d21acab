#include "model/family/family.h"
#include "model/stored.h"

#define L "transformer.h.%u."

/* Names of files; those of Q, K and V, which files hold in one tensor, are quire's own. */
static const struct role_name names[] = {
	{ ROLE_EMBED, "transformer.word_embeddings.weight", AS_ELSEWHERE },
	{ ROLE_EMBED_NORM, "transformer.word_embeddings_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_EMBED_NORM_BIAS, "transformer.word_embeddings_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM, "transformer.ln_f.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "transformer.ln_f.bias", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM, L "input_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "input_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM_BIAS, L "post_attention_layernorm.bias", AS_ELSEWHERE },
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
	{ L "self_attention.query_key_value.weight", "blk.%u.attn_qkv.weight", STORED_QKV, .heads = true },
	{ L "self_attention.query_key_value.bias", "blk.%u.attn_qkv.bias", STORED_QKV_BIAS, .heads = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, name), .most = 1 << 20
static const struct config_key keys[] = {
	{ "hidden_size", "embedding_length", KEY_COUNT, F(hidden), .most = 1 << 20, .absent = 64, .gguf_required = true, .old = "n_embed" },
	{ NULL, "feed_forward_length", LAYER(ffn), .otherwise = key_four_times, .gguf_required = true },
	{ "n_layer", "block_count", KEY_COUNT, F(layers), .most = MAX_LAYERS, .absent = 2, .gguf_required = true, .old = "num_hidden_layers" },
	{ "n_head", "attention.head_count", LAYER(heads), .absent = 8, .gguf_required = true, .old = "num_attention_heads" },
	{ NULL, NULL, KEY_COUNT, F(head_dim), .most = 1 << 20, .otherwise = key_even_heads },
	{ "seq_length", "context_length", KEY_COUNT, F(context), .most = INT32_MAX, .absent = 2048, .gguf_required = true },
	{ "layer_norm_epsilon", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ NULL, NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	{ NULL, NULL, KEY_NUMBER, F(rope.theta), .absent = 1 },
	{ NULL, NULL, KEY_NUMBER, F(rope.part), .absent = 1 },
	{ "apply_residual_connection_post_layernorm", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	/* products in slices, and of the code that trained the models; the class is always so, whatever they say */
	LISTED("slow_but_exact"), LISTED("n_inner"), LISTED("offset_alibi"), LISTED("skip_bias_add"), LISTED("skip_bias_add_qkv"),
	LISTED("attention_softmax_in_fp32"), LISTED("bias_dropout_fusion"), LISTED("masked_softmax_fusion"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_mlp(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_bloom = {
	.name = "bloom", .hf_class = "BloomForCausalLM", .gguf = "bloom", .names = names, .stored = stored, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .biases = true },
	.norm = NORM_LAYER, .act = ACT_GELU_TANH, .layer = layer, .turning = TURN_NONE, .alibi = true, .embed_norm = true, .equal_heads = true,
	.qkv_bias = BIAS_ALWAYS, .o_bias = BIAS_ALWAYS, .mlp_bias = BIAS_ALWAYS,
	.window = WINDOW_NONE, .default_tied = true, .default_context = 2048, .default_bos = 1, .default_eos = 2,
};
