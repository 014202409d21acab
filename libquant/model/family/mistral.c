#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_mistral = {
	.name = "mistral", .hf_class = "MistralForCausalLM", .gguf = "llama", .gguf_layouts = layouts_rope_pairs,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .head_dim = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.window = WINDOW_ALL, .default_window = 4096, .default_kv_heads = 8,
	.default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 131072, .default_bos = 1, .default_eos = 2,
};
