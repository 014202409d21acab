#include "model/family/family.h"
#include "model/stored.h"

#define L "gpt_neox.layers.%u."

/* Names of files; those of Q, K and V, which files hold in one tensor, are quire's own. */
static const struct role_name names[] = {
	{ ROLE_EMBED, "gpt_neox.embed_in.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM, "gpt_neox.final_layer_norm.weight", AS_ELSEWHERE },
	{ ROLE_FINAL_NORM_BIAS, "gpt_neox.final_layer_norm.bias", AS_ELSEWHERE },
	{ ROLE_HEAD, "embed_out.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM, L "input_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "input_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "post_attention_layernorm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM_BIAS, L "post_attention_layernorm.bias", AS_ELSEWHERE },
	{ ROLE_Q, L "attention.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_K, L "attention.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_V, L "attention.v_proj.weight", AS_ELSEWHERE },
	{ ROLE_Q_BIAS, L "attention.q_proj.bias", AS_ELSEWHERE },
	{ ROLE_K_BIAS, L "attention.k_proj.bias", AS_ELSEWHERE },
	{ ROLE_V_BIAS, L "attention.v_proj.bias", AS_ELSEWHERE },
	{ ROLE_O, L "attention.dense.weight", AS_ELSEWHERE },
	{ ROLE_O_BIAS, L "attention.dense.bias", AS_ELSEWHERE },
	{ ROLE_UP, L "mlp.dense_h_to_4h.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "mlp.dense_h_to_4h.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "mlp.dense_4h_to_h.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "mlp.dense_4h_to_h.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct stored stored[] = {
	{ L "attention.query_key_value.weight", "blk.%u.attn_qkv.weight", STORED_QKV, .heads = true },
	{ L "attention.query_key_value.bias", "blk.%u.attn_qkv.bias", STORED_QKV_BIAS, .heads = true },
	{ .hf = NULL },
};

#define F(name) .field = offsetof(struct config, name)
static const struct config_key keys[] = {
	{ "layer_norm_eps", "attention.layer_norm_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .absent = 1e-5, .gguf_required = true },
	{ "rotary_emb_base", "rope.freq_base", KEY_NUMBER, F(rope.theta), .least = 1 + 1e-6, .most = 1e15, .absent = 10000 },
	{ "rotary_pct", NULL, KEY_NUMBER, F(rope.part), .least = 1e-6, .most = 1, .absent = 0.25 },
	{ "attention_bias", NULL, KEY_FLAG, F(qkv_bias), .absent = true },
	{ "use_parallel_residual", "use_parallel_residual", KEY_FLAG, F(parallel), .absent = true, .gguf_required = true },
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	value attended = common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false);
	if (!b->config->parallel)
		op_add(b, attended);
	value x = common_mlp(b, op_norm(b, STREAM, ROLE_FFN_NORM));
	if (b->config->parallel)
		op_add(b, attended);
	op_add(b, x);
}

const struct arch family_gpt_neox = {
	.name = "gpt_neox", .hf_class = "GPTNeoXForCausalLM", .gguf = "gptneox", .names = names, .stored = stored, .keys = keys,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .biases = true, .only_own = true, .partial = true },
	.norm = NORM_LAYER, .act = ACT_GELU_ERF, .layer = layer, .equal_heads = true,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_ALWAYS, .partial_rotary = true,
	.window = WINDOW_NONE, .default_context = 2048, .default_bos = 0, .default_eos = 2,
};
