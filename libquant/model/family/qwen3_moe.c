#include "model/family/family.h"
#include "model/stored.h"

/* As newer transformers has them in memory, and writes them when it is told to. */
const struct stored stored_fused_experts[] = {
	{ "model.layers.%u.mlp.experts.gate_up_proj", NULL, { ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_UNKNOWN }, .experts = true },
	{ "model.layers.%u.mlp.experts.down_proj", NULL, STORED_ONE(ROLE_EXPERT_DOWN), .experts = true },
	{ .hf = NULL },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), true));
	value x = op_norm(b, STREAM, ROLE_FFN_NORM);
	op_add(b, b->layer->mixture ? common_mixture(b, x) : common_feed_forward(b, x));
}

static const struct mixture mixture = {
	.width_key = "moe_intermediate_size", .default_experts = 128, .default_used = 8, .default_width = 768, .keys = true,
};

const struct arch family_qwen3_moe = {
	.name = "qwen3_moe", .hf_class = "Qwen3MoeForCausalLM", .gguf = "qwen3moe",
	.gguf_loader = { .head_dim = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .mixture = &mixture, .also_stored = stored_fused_experts,
	.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
	.window = WINDOW_SWITCHED, .default_window = 4096, .default_kv_heads = 4,
	.default_eps = 1e-6f, .default_theta = 10000,
	.default_context = 32768, .default_bos = -1, .default_eos = -1,
};
