#include "model/arch.h"

#include <stdio.h>
#include <string.h>

#define MATRIX(r, n, h, g) { .role = r, .name = n, .per_layer = true, .linear = true, .hf = h, .gguf = g }
#define NORM(r, n, h, g) { .role = r, .name = n, .per_layer = true, .norm = true, .hf = h, .gguf = g }
#define BIAS(r, n, h, g) { .role = r, .name = n, .per_layer = true, .bias = true, .hf = h, .gguf = g }
#define L "model.layers.%u."

const struct role_row role_rows[ROLE_COUNT] = {
	[ROLE_EMBED] = { .role = ROLE_EMBED, .name = "embed", .hf = "model.embed_tokens.weight", .gguf = "token_embd.weight" },
	[ROLE_FINAL_NORM] = { .role = ROLE_FINAL_NORM, .name = "final_norm", .norm = true, .hf = "model.norm.weight",
			      .gguf = "output_norm.weight" },
	[ROLE_HEAD] = { .role = ROLE_HEAD, .name = "head", .linear = true, .hf = "lm_head.weight", .gguf = "output.weight" },
	[ROLE_ATTN_NORM] = NORM(ROLE_ATTN_NORM, "attn_norm", L "input_layernorm.weight", "blk.%u.attn_norm.weight"),
	[ROLE_Q] = MATRIX(ROLE_Q, "attn_q", L "self_attn.q_proj.weight", "blk.%u.attn_q.weight"),
	[ROLE_K] = MATRIX(ROLE_K, "attn_k", L "self_attn.k_proj.weight", "blk.%u.attn_k.weight"),
	[ROLE_V] = MATRIX(ROLE_V, "attn_v", L "self_attn.v_proj.weight", "blk.%u.attn_v.weight"),
	[ROLE_O] = MATRIX(ROLE_O, "attn_o", L "self_attn.o_proj.weight", "blk.%u.attn_output.weight"),
	[ROLE_Q_NORM] = NORM(ROLE_Q_NORM, "attn_q_norm", L "self_attn.q_norm.weight", "blk.%u.attn_q_norm.weight"),
	[ROLE_K_NORM] = NORM(ROLE_K_NORM, "attn_k_norm", L "self_attn.k_norm.weight", "blk.%u.attn_k_norm.weight"),
	[ROLE_FFN_NORM] = NORM(ROLE_FFN_NORM, "ffn_norm", L "post_attention_layernorm.weight", "blk.%u.ffn_norm.weight"),
	[ROLE_GATE] = MATRIX(ROLE_GATE, "ffn_gate", L "mlp.gate_proj.weight", "blk.%u.ffn_gate.weight"),
	[ROLE_UP] = MATRIX(ROLE_UP, "ffn_up", L "mlp.up_proj.weight", "blk.%u.ffn_up.weight"),
	[ROLE_DOWN] = MATRIX(ROLE_DOWN, "ffn_down", L "mlp.down_proj.weight", "blk.%u.ffn_down.weight"),
	[ROLE_Q_BIAS] = BIAS(ROLE_Q_BIAS, "attn_q_bias", L "self_attn.q_proj.bias", "blk.%u.attn_q.bias"),
	[ROLE_K_BIAS] = BIAS(ROLE_K_BIAS, "attn_k_bias", L "self_attn.k_proj.bias", "blk.%u.attn_k.bias"),
	[ROLE_V_BIAS] = BIAS(ROLE_V_BIAS, "attn_v_bias", L "self_attn.v_proj.bias", "blk.%u.attn_v.bias"),
	[ROLE_O_BIAS] = BIAS(ROLE_O_BIAS, "attn_o_bias", L "self_attn.o_proj.bias", "blk.%u.attn_output.bias"),
	[ROLE_GATE_BIAS] = BIAS(ROLE_GATE_BIAS, "ffn_gate_bias", L "mlp.gate_proj.bias", "blk.%u.ffn_gate.bias"),
	[ROLE_UP_BIAS] = BIAS(ROLE_UP_BIAS, "ffn_up_bias", L "mlp.up_proj.bias", "blk.%u.ffn_up.bias"),
	[ROLE_DOWN_BIAS] = BIAS(ROLE_DOWN_BIAS, "ffn_down_bias", L "mlp.down_proj.bias", "blk.%u.ffn_down.bias"),
	[ROLE_ROPE_FREQS] = { .role = ROLE_ROPE_FREQS, .name = "rope_freqs", .gguf = "rope_freqs.weight" },
	/* the sandwich norms share a Hugging Face name with others, so only rows that have them name them */
	[ROLE_POST_ATTN_NORM] = NORM(ROLE_POST_ATTN_NORM, "post_attn_norm", NULL, "blk.%u.post_attention_norm.weight"),
	[ROLE_POST_FFN_NORM] = NORM(ROLE_POST_FFN_NORM, "post_ffn_norm", NULL, "blk.%u.post_ffw_norm.weight"),
	[ROLE_ATTN_NORM_BIAS] = BIAS(ROLE_ATTN_NORM_BIAS, "attn_norm_bias", L "input_layernorm.bias", "blk.%u.attn_norm.bias"),
	[ROLE_FFN_NORM_BIAS] = BIAS(ROLE_FFN_NORM_BIAS, "ffn_norm_bias", L "post_attention_layernorm.bias",
				    "blk.%u.ffn_norm.bias"),
	[ROLE_FINAL_NORM_BIAS] = { .role = ROLE_FINAL_NORM_BIAS, .name = "final_norm_bias", .bias = true,
				   .hf = "model.norm.bias", .gguf = "output_norm.bias" },
};

static const char *pattern_of(const struct arch *a, enum role r, bool gguf)
{
	for (const struct role_name *n = a ? a->names : NULL; n && n->role != ROLE_UNKNOWN; n++)
		if (n->role == r)
			return gguf ? n->gguf : n->hf;
	return gguf ? role_rows[r].gguf : role_rows[r].hf;
}

/* Layer numbers as writers print them: no sign, no leading zero, below UINT32_MAX. */
static bool match(const char *pattern, const char *name, uint32_t *layer)
{
	const char *mark = strstr(pattern, "%u");
	*layer = UINT32_MAX;
	if (!mark)
		return !strcmp(pattern, name);
	size_t head = (size_t)(mark - pattern);
	if (strncmp(pattern, name, head))
		return false;
	const char *p = name + head;
	uint64_t n = 0;
	if (*p == '0' && p[1] >= '0' && p[1] <= '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if ((n = n * 10 + (uint64_t)(*p - '0')) >= UINT32_MAX)
			return false;
	if (p == name + head || strcmp(p, mark + 2))
		return false;
	*layer = (uint32_t)n;
	return true;
}

static enum role role_of(const struct arch *a, const char *name, uint32_t *layer, bool gguf)
{
	for (int r = 0; r < ROLE_COUNT; r++) {
		const char *pattern = pattern_of(a, (enum role)r, gguf);
		if (pattern && match(pattern, name, layer))
			return (enum role)r;
	}
	*layer = UINT32_MAX;
	return ROLE_UNKNOWN;
}

enum role role_from_hf(const struct arch *a, const char *name, uint32_t *layer)
{
	return role_of(a, name, layer, false);
}

enum role role_from_gguf(const struct arch *a, const char *name, uint32_t *layer)
{
	return role_of(a, name, layer, true);
}

enum { NAME_SIZE = 96 };

static char *fill(const char *pattern, uint32_t layer, char *buf)
{
	if (!pattern)
		return NULL;
	const char *mark = strstr(pattern, "%u");
	if (mark)
		snprintf(buf, NAME_SIZE, "%.*s%u%s", (int)(mark - pattern), pattern, layer, mark + 2);
	else
		snprintf(buf, NAME_SIZE, "%s", pattern);
	return buf;
}

char *role_hf_name(const struct arch *a, enum role r, uint32_t layer, char *buf)
{
	return fill(pattern_of(a, r, false), layer, buf);
}

char *role_gguf_name(const struct arch *a, enum role r, uint32_t layer, char *buf)
{
	return fill(pattern_of(a, r, true), layer, buf);
}

bool tensor_name_ignored(const char *name)
{
	/* what rotary embeddings computed once, and causal masks; the last part of a name, or all of it */
	static const char *const endings[] = {
		"rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached",
		"attention.masked_bias",
	};
	size_t n = strlen(name);
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t k = strlen(endings[i]);
		if (n >= k && !strcmp(name + n - k, endings[i]) && (n == k || name[n - k - 1] == '.'))
			return true;
	}
	return false;
}

enum role role_find(const char *name)
{
	for (int r = 0; r < ROLE_COUNT; r++)
		if (!strcmp(role_rows[r].name, name))
			return (enum role)r;
	return ROLE_UNKNOWN;
}

static uint32_t matrix(uint64_t dim[2], uint64_t rows, uint64_t cols)
{
	dim[0] = rows;
	dim[1] = cols;
	return 2;
}

static uint32_t vector(uint64_t dim[2], bool used, uint64_t n)
{
	dim[0] = n;
	dim[1] = 0;
	return used ? 1 : 0;
}

uint32_t role_shape(const struct config *c, enum role r, uint32_t layer, uint64_t dim[2])
{
	const struct arch *a = c->arch;
	bool rms = a->norm != NORM_LAYER;
	dim[0] = dim[1] = 0;
	if (r >= ROLE_COUNT || (role_rows[r].per_layer && layer >= c->layers))
		return 0;
	const struct layer_config *l = role_rows[r].per_layer ? &c->layer[layer] : c->layer;
	uint64_t q = (uint64_t)l->heads * c->head_dim, kv = (uint64_t)l->kv_heads * c->head_dim;
	switch (r) {
	case ROLE_EMBED:
	case ROLE_HEAD: return matrix(dim, c->vocab, c->hidden);
	case ROLE_Q: return matrix(dim, q, c->hidden);
	case ROLE_K:
	case ROLE_V: return matrix(dim, kv, c->hidden);
	case ROLE_O: return matrix(dim, c->hidden, q);
	case ROLE_GATE: return a->gated ? matrix(dim, l->ffn, c->hidden) : 0;
	case ROLE_UP: return matrix(dim, l->ffn, c->hidden);
	case ROLE_DOWN: return matrix(dim, c->hidden, l->ffn);
	case ROLE_FINAL_NORM:
	case ROLE_ATTN_NORM: return vector(dim, true, c->hidden);
	case ROLE_FFN_NORM: return vector(dim, !a->parallel_residual, c->hidden);
	case ROLE_FINAL_NORM_BIAS:
	case ROLE_ATTN_NORM_BIAS: return vector(dim, !rms, c->hidden);
	case ROLE_FFN_NORM_BIAS: return vector(dim, !rms && !a->parallel_residual, c->hidden);
	case ROLE_POST_ATTN_NORM:
	case ROLE_POST_FFN_NORM: return vector(dim, a->sandwich_norm, c->hidden);
	case ROLE_Q_NORM:
	case ROLE_K_NORM: return vector(dim, a->qk_norm, c->head_dim);
	case ROLE_Q_BIAS: return vector(dim, c->qkv_bias, q);
	case ROLE_K_BIAS:
	case ROLE_V_BIAS: return vector(dim, c->qkv_bias, kv);
	case ROLE_O_BIAS: return vector(dim, c->o_bias, c->hidden);
	case ROLE_GATE_BIAS: return vector(dim, c->mlp_bias && a->gated, l->ffn);
	case ROLE_UP_BIAS: return vector(dim, c->mlp_bias, l->ffn);
	case ROLE_DOWN_BIAS: return vector(dim, c->mlp_bias, c->hidden);
	case ROLE_ROPE_FREQS: return vector(dim, true, c->rope.dims / 2);
	default: return 0;
	}
}

bool role_required(const struct config *c, enum role r, uint32_t layer)
{
	uint64_t dim[2];
	if (!role_shape(c, r, layer, dim) || r == ROLE_ROPE_FREQS)
		return false;
	if (r == ROLE_HEAD)
		return !c->tied;
	bool kv = r == ROLE_K || r == ROLE_V || r == ROLE_K_BIAS || r == ROLE_V_BIAS || r == ROLE_K_NORM;
	return !kv || c->layer[layer].kv_source == layer;
}
