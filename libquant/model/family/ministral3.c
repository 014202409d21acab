#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_ministral3 = {
	.name = "ministral3", .hf_class = "Ministral3ForCausalLM", .gguf = "mistral3", .gguf_layouts = layouts_rope_pairs,
	.gguf_loader = { .head_dim = true, .betas = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .temper = true,
	.window = WINDOW_ALL, .default_kv_heads = 8, .default_head_dim = 128,
	.default_eps = 1e-5f, .default_theta = 1000000,
	.default_context = 262144, .default_bos = 1, .default_eos = 2,
};
