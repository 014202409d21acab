#include "model/family/family.h"

#define D "model.decoder."
#define L D "layers.%u."

/* No program loads this family from GGUF; the names there are what it has in importance matrices. */
static const struct role_name names[] = {
	{ ROLE_EMBED, D "embed_tokens.weight", "token_embd.weight" },
	{ ROLE_POSITIONS, D "embed_positions.weight", "position_embd.weight" },
	{ ROLE_FINAL_NORM, D "final_layer_norm.weight", "output_norm.weight" },
	{ ROLE_FINAL_NORM_BIAS, D "final_layer_norm.bias", "output_norm.bias" },
	{ ROLE_ATTN_NORM, L "self_attn_layer_norm.weight", AS_ELSEWHERE },
	{ ROLE_ATTN_NORM_BIAS, L "self_attn_layer_norm.bias", AS_ELSEWHERE },
	{ ROLE_FFN_NORM, L "final_layer_norm.weight", AS_ELSEWHERE },
	{ ROLE_FFN_NORM_BIAS, L "final_layer_norm.bias", AS_ELSEWHERE },
	{ ROLE_Q, L "self_attn.q_proj.weight", AS_ELSEWHERE },
	{ ROLE_Q_BIAS, L "self_attn.q_proj.bias", AS_ELSEWHERE },
	{ ROLE_K, L "self_attn.k_proj.weight", AS_ELSEWHERE },
	{ ROLE_K_BIAS, L "self_attn.k_proj.bias", AS_ELSEWHERE },
	{ ROLE_V, L "self_attn.v_proj.weight", AS_ELSEWHERE },
	{ ROLE_V_BIAS, L "self_attn.v_proj.bias", AS_ELSEWHERE },
	{ ROLE_O, L "self_attn.out_proj.weight", AS_ELSEWHERE },
	{ ROLE_O_BIAS, L "self_attn.out_proj.bias", AS_ELSEWHERE },
	{ ROLE_UP, L "fc1.weight", AS_ELSEWHERE },
	{ ROLE_UP_BIAS, L "fc1.bias", AS_ELSEWHERE },
	{ ROLE_DOWN, L "fc2.weight", AS_ELSEWHERE },
	{ ROLE_DOWN_BIAS, L "fc2.bias", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, name), .most = 1 << 20
static const struct config_key keys[] = {
	{ "ffn_dim", "feed_forward_length", LAYER(ffn), .absent = 3072 },
	{ NULL, NULL, KEY_COUNT, F(head_dim), .most = 1 << 20, .otherwise = key_even_heads },
	{ NULL, NULL, KEY_NUMBER, F(norm_eps), .absent = 1e-5 },
	{ "activation_function", NULL, KEY_ACT, F(act), .absent = ACT_RELU },
	{ NULL, NULL, KEY_NUMBER, F(rope.theta), .absent = 1 },
	{ NULL, NULL, KEY_NUMBER, F(rope.part), .absent = 1 },
	{ "do_layer_norm_before", NULL, KEY_ONLY, NO_FIELD, .absent = true },
	{ "_remove_final_layer_norm", NULL, KEY_ONLY, NO_FIELD, .absent = false },
	{ "enable_bias", NULL, KEY_ONLY, NO_FIELD, .absent = true },
	{ "layer_norm_elementwise_affine", NULL, KEY_ONLY, NO_FIELD, .absent = true },
	{ "word_embed_proj_dim", NULL, KEY_SAME, NO_FIELD, .layer_field = offsetof(struct config, hidden), .also = true },
	LISTED("layerdrop"), LISTED("output_projection"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_mlp(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_opt = {
	.name = "opt", .hf_class = "OPTForCausalLM", .names = names, .keys = keys,
	.norm = NORM_LAYER, .act = ACT_RELU, .layer = layer, .turning = TURN_NONE, .learned_positions = true, .position_offset = 2,
	.equal_heads = true, .qkv_bias = BIAS_ALWAYS, .o_bias = BIAS_ALWAYS, .mlp_bias = BIAS_ALWAYS,
	.window = WINDOW_NONE, .default_tied = true, .default_context = 2048, .default_bos = 2, .default_eos = 2,
};
