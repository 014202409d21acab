#include "model/family/family.h"
#include "model/stored.h"

#define L "transformer.h.%u."

/* Names of files; those of Q, K and V, which files hold in one tensor, are quire's own. */
static const struct role_name names[] = {
	{ ROLE_EMBED, "transformer.wte.weight", AS_ELSEWHERE },
	{ ROLE_POSITIONS, "transformer.wpe.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM, "transformer.ln_f.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "transformer.ln_f.bias", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM, L "ln_1.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "ln_1.bias", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "ln_2.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM_BIAS, L "ln_2.bias", AS_ELSEWHERE },
	{ ROLE_Q, L "attn.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_K, L "attn.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_V, L "attn.v_proj.weight", AS_ELSEWHERE },
	{ ROLE_Q_BIAS, L "attn.q_proj.bias", AS_ELSEWHERE },
	{ ROLE_K_BIAS, L "attn.k_proj.bias", AS_ELSEWHERE },
	{ ROLE_V_BIAS, L "attn.v_proj.bias", AS_ELSEWHERE },
	{ ROLE_O, L "attn.c_proj.weight", AS_ELSEWHERE },
	{ ROLE_O_BIAS, L "attn.c_proj.bias", AS_ELSEWHERE },
	{ ROLE_UP, L "mlp.c_fc.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.c_fc.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.c_proj.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.c_proj.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

/* With one KV head the group is the whole tensor; else it is a head. */
static const struct stored stored[] = {
	{ L "attn.c_attn.weight", "blk.%u.attn_qkv.weight", STORED_QKV, .groups = true },
	{ L "attn.c_attn.bias", "blk.%u.attn_qkv.bias", STORED_QKV_BIAS, .groups = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, name), .most = 1 << 20
static const struct config_key keys[] = {
	{ "n_embd", "embedding_length", KEY_COUNT, F(hidden), .most = 1 << 20, .absent = 768, .gguf_required = true },
	{ "n_inner", "feed_forward_length", LAYER(ffn), .otherwise = key_four_times, .gguf_required = true },
	{ "n_layer", "block_count", KEY_COUNT, F(layers), .most = MAX_LAYERS, .absent = 12, .gguf_required = true },
	{ "n_head", "attention.head_count", LAYER(heads), .absent = 12, .gguf_required = true },
	{ "multi_query", "attention.head_count_kv", KEY_ONE_KV, F(kv_heads), .layer_field = offsetof(struct layer_config, kv_heads), .absent = true },
	{ NULL, "attention.key_length", KEY_COUNT, F(head_dim), .most = 1 << 20, .otherwise = key_even_heads },
	{ "n_positions", "context_length", KEY_COUNT, F(context), .most = INT32_MAX, .absent = 1024, .gguf_required = true },
	{ "layer_norm_epsilon", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "activation_function", NULL, KEY_ACT, F(act), .absent = ACT_GELU_TANH },
	{ NULL, NULL, KEY_NUMBER, F(rope.theta), .absent = 1 },
	{ NULL, NULL, KEY_NUMBER, F(rope.part), .absent = 1 },
	{ "scale_attn_weights", NULL, KEY_ONLY, NO_FIELD, .absent = true },
	LISTED("num_key_value_heads"), /* of newer files: what multi_query says */
	/* in what type sums are; and of older code, how a cache lies and what it checks */
	LISTED("attention_softmax_in_fp32"), LISTED("scale_attention_softmax_in_fp32"), LISTED("inference_runner"), LISTED("validate_runner_input"),
	LISTED("pre_allocate_kv_cache"), LISTED("max_batch_size"), LISTED("pad_key_length"), LISTED("fused_softmax"), LISTED("attention_type"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_mlp(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_gpt_bigcode = {
	.name = "gpt_bigcode", .hf_class = "GPTBigCodeForCausalLM", .gguf = "starcoder", .names = names, .stored = stored, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .biases = true },
	.norm = NORM_LAYER, .act = ACT_GELU_TANH, .layer = layer, .learned_positions = true, .turning = TURN_NONE,
	.qkv_bias = BIAS_ALWAYS, .o_bias = BIAS_ALWAYS, .mlp_bias = BIAS_ALWAYS,
	.window = WINDOW_NONE, .default_tied = true, .default_context = 1024, .default_bos = 50256, .default_eos = 50256,
};
