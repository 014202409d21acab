#include "model/family/family.h"
#include "model/stored.h"

#define MOE "model.layers.%u.block_sparse_moe."

static const struct role_name names[] = {
	{ ROLE_ROUTER, MOE "gate.weight", AS_ELSEWHERE },
	{ ROLE_EXPERT_GATE, MOE "experts.%u.w1.weight", AS_ELSEWHERE },
	{ ROLE_EXPERT_UP, MOE "experts.%u.w3.weight", AS_ELSEWHERE },
	{ ROLE_EXPERT_DOWN, MOE "experts.%u.w2.weight", AS_ELSEWHERE },
	{ ROLE_UNKNOWN, NULL, NULL },
};

/* As newer transformers has them in memory, and writes them when it is told to. */
static const struct stored fused[] = {
	{ "model.layers.%u.mlp.experts.gate_up_proj", NULL, { ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_UNKNOWN }, .experts = true },
	{ "model.layers.%u.mlp.experts.down_proj", NULL, STORED_ONE(ROLE_EXPERT_DOWN), .experts = true },
	{ "model.layers.%u.mlp.gate.weight", NULL, STORED_ONE(ROLE_ROUTER), .heads = false },
	{ .hf = NULL },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_mixture(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

static const struct mixture mixture = { .default_experts = 8, .default_used = 2, .renormalize = true };

const struct arch family_mixtral = {
	.name = "mixtral", .hf_class = "MixtralForCausalLM", .gguf = "llama", .gguf_layouts = layouts_rope_pairs, .names = names,
	.gguf_loader = { .o_bias = true, .mlp_bias = true, .head_dim = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .mixture = &mixture, .also_stored = fused,
	.window = WINDOW_ALL, .default_window = 0, .default_kv_heads = 8,
	.default_eps = 1e-5f, .default_theta = 1000000,
	.default_context = 131072, .default_bos = 1, .default_eos = 2,
};
