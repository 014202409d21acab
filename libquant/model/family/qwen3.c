#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), true));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_qwen3 = {
	.name = "qwen3", .hf_class = "Qwen3ForCausalLM", .gguf = "qwen3",
	.gguf_loader = { .head_dim = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_FROM_LAYER, .default_window = 4096, .default_kv_heads = 32, .default_head_dim = 128,
	.default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 32768, .default_bos = -1, .default_eos = -1,
};
