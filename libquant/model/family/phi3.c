#include "model/family/family.h"
#include "model/stored.h"

#define L "model.layers.%u."

/* In files gate and up are one tensor, which GGUF calls ffn_up: no part has a name there. */
static const struct role_name names[] = {
	{ ROLE_GATE, L "mlp.gate_proj.weight", NULL },
	{ ROLE_UP, L "mlp.up_proj.weight", NULL },
	{ ROLE_UNKNOWN, NULL, NULL },
};

static const struct stored stored[] = {
	{ L "self_attn.qkv_proj.weight", "blk.%u.attn_qkv.weight", STORED_QKV, .heads = false },
	{ L "mlp.gate_up_proj.weight", "blk.%u.ffn_up.weight", { ROLE_GATE, ROLE_UP, ROLE_UNKNOWN }, .heads = false },
	{ .hf = NULL },
};

static const struct config_key keys[] = {
	/* of the code that came with models; their class does not read it */
	LISTED("full_attn_mod"), LISTED("interpolate_factor"),
	{ .kind = KEY_END },
};

static void layer(struct build *b)
{
	op_add(b, common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), false));
	op_add(b, common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM)));
}

const struct arch family_phi3 = {
	.name = "phi3", .hf_class = "Phi3ForCausalLM", .gguf = "phi3", .names = names, .stored = stored, .keys = keys,
	.gguf_loader = { .partial = true, .longrope = true },
	.norm = NORM_RMS, .act = ACT_SILU, .layer = layer, .partial_rotary = true, .only_longrope = true,
	.default_original_context = 4096, .window = WINDOW_ALL, .default_eps = 1e-5f, .default_theta = 10000,
	.default_context = 4096, .default_bos = 1, .default_eos = 32000,
};
