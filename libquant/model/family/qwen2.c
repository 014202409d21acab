#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_qwen2 = {
	.name = "qwen2", .hf_class = "Qwen2ForCausalLM", .gguf = "qwen2",
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer,
	.qkv_bias = BIAS_ALWAYS,
	.window = WINDOW_FROM_LAYER, .default_window = 4096, .default_kv_heads = 32,
	.default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 32768, .default_bos = -1, .default_eos = -1,
};
