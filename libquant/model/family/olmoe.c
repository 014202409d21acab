#include "model/family/family.h"

static void layer(struct build *b)
{
	op_add(b, common_attention_whole(b, op_norm(b, STREAM, ROLE_ATTN_NORM)));
	op_add(b, common_mixture(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

static const struct mixture mixture = {
	.default_experts = 64, .default_used = 8, .norm_key = true, .num_experts = true, .gguf_shares = true,
};

const struct arch family_olmoe = {
	.name = "olmoe", .hf_class = "OlmoeForCausalLM", .gguf = "olmoe",
	.gguf_loader = { .only_own = true, .full_kv = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .mixture = &mixture, .also_stored = stored_fused_experts,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.default_eps = 1e-5f, .default_theta = 10000,
	.default_context = 4096, .default_bos = -1, .default_eos = 50279,
};
