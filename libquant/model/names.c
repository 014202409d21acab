#include "model/arch.h"

#include <stdio.h>
#include <string.h>

#include "model/stored.h"

#define NAMED(r, b, n, h, g) .role = r, .bias_role = b, .name = n, .hf = h, .gguf = g
#define ROW(r, b, n, h, g) NAMED(r, b, n, h, g), .like = r
#define MATRIX(r, b, n, h, g) { ROW(r, b, n, h, g), .per_layer = true, .linear = true }
#define NORM(r, b, n, h, g) { ROW(r, b, n, h, g), .per_layer = true, .norm = true }
#define EXPERT(r, of, n, h, g) { NAMED(r, ROLE_UNKNOWN, n, h, g), .per_layer = true, .linear = true, .per_expert = true, .like = of }
#define BIAS(r, n, h, g) { ROW(r, ROLE_UNKNOWN, n, h, g), .per_layer = true, .bias = true }
#define L "model.layers.%u."

const struct role_row role_rows[ROLE_COUNT] = {
	[ROLE_EMBED] = { ROW(ROLE_EMBED, ROLE_UNKNOWN, "embed", "model.embed_tokens.weight", "token_embd.weight") },
	[ROLE_FINAL_NORM] = { ROW(ROLE_FINAL_NORM, ROLE_FINAL_NORM_BIAS, "final_norm", "model.norm.weight", "output_norm.weight"),
			      .norm = true },
	[ROLE_HEAD] = { ROW(ROLE_HEAD, ROLE_HEAD_BIAS, "head", "lm_head.weight", "output.weight"), .linear = true },
	[ROLE_ATTN_NORM] = NORM(ROLE_ATTN_NORM, ROLE_ATTN_NORM_BIAS, "attn_norm", L "input_layernorm.weight", "blk.%u.attn_norm.weight"),
	[ROLE_Q] = MATRIX(ROLE_Q, ROLE_Q_BIAS, "attn_q", L "self_attn.q_proj.weight", "blk.%u.attn_q.weight"),
	[ROLE_K] = MATRIX(ROLE_K, ROLE_K_BIAS, "attn_k", L "self_attn.k_proj.weight", "blk.%u.attn_k.weight"),
	[ROLE_V] = MATRIX(ROLE_V, ROLE_V_BIAS, "attn_v", L "self_attn.v_proj.weight", "blk.%u.attn_v.weight"),
	[ROLE_O] = MATRIX(ROLE_O, ROLE_O_BIAS, "attn_o", L "self_attn.o_proj.weight", "blk.%u.attn_output.weight"),
	[ROLE_Q_NORM] = NORM(ROLE_Q_NORM, ROLE_UNKNOWN, "attn_q_norm", L "self_attn.q_norm.weight", "blk.%u.attn_q_norm.weight"),
	[ROLE_K_NORM] = NORM(ROLE_K_NORM, ROLE_UNKNOWN, "attn_k_norm", L "self_attn.k_norm.weight", "blk.%u.attn_k_norm.weight"),
	[ROLE_FFN_NORM] = NORM(ROLE_FFN_NORM, ROLE_FFN_NORM_BIAS, "ffn_norm", L "post_attention_layernorm.weight", "blk.%u.ffn_norm.weight"),
	[ROLE_GATE] = MATRIX(ROLE_GATE, ROLE_GATE_BIAS, "ffn_gate", L "mlp.gate_proj.weight", "blk.%u.ffn_gate.weight"),
	[ROLE_UP] = MATRIX(ROLE_UP, ROLE_UP_BIAS, "ffn_up", L "mlp.up_proj.weight", "blk.%u.ffn_up.weight"),
	[ROLE_DOWN] = MATRIX(ROLE_DOWN, ROLE_DOWN_BIAS, "ffn_down", L "mlp.down_proj.weight", "blk.%u.ffn_down.weight"),
	[ROLE_Q_BIAS] = BIAS(ROLE_Q_BIAS, "attn_q_bias", L "self_attn.q_proj.bias", "blk.%u.attn_q.bias"),
	[ROLE_K_BIAS] = BIAS(ROLE_K_BIAS, "attn_k_bias", L "self_attn.k_proj.bias", "blk.%u.attn_k.bias"),
	[ROLE_V_BIAS] = BIAS(ROLE_V_BIAS, "attn_v_bias", L "self_attn.v_proj.bias", "blk.%u.attn_v.bias"),
	[ROLE_O_BIAS] = BIAS(ROLE_O_BIAS, "attn_o_bias", L "self_attn.o_proj.bias", "blk.%u.attn_output.bias"),
	[ROLE_GATE_BIAS] = BIAS(ROLE_GATE_BIAS, "ffn_gate_bias", L "mlp.gate_proj.bias", "blk.%u.ffn_gate.bias"),
	[ROLE_UP_BIAS] = BIAS(ROLE_UP_BIAS, "ffn_up_bias", L "mlp.up_proj.bias", "blk.%u.ffn_up.bias"),
	[ROLE_DOWN_BIAS] = BIAS(ROLE_DOWN_BIAS, "ffn_down_bias", L "mlp.down_proj.bias", "blk.%u.ffn_down.bias"),
	[ROLE_ROPE_FREQS] = { ROW(ROLE_ROPE_FREQS, ROLE_UNKNOWN, "rope_freqs", NULL, "rope_freqs.weight") },
	/* the sandwich norms share a Hugging Face name with others, so only rows that have them name them */
	[ROLE_POST_ATTN_NORM] = NORM(ROLE_POST_ATTN_NORM, ROLE_UNKNOWN, "post_attn_norm", NULL, "blk.%u.post_attention_norm.weight"),
	[ROLE_POST_FFN_NORM] = NORM(ROLE_POST_FFN_NORM, ROLE_UNKNOWN, "post_ffn_norm", NULL, "blk.%u.post_ffw_norm.weight"),
	[ROLE_ATTN_NORM_BIAS] = BIAS(ROLE_ATTN_NORM_BIAS, "attn_norm_bias", L "input_layernorm.bias", "blk.%u.attn_norm.bias"),
	[ROLE_FFN_NORM_BIAS] = BIAS(ROLE_FFN_NORM_BIAS, "ffn_norm_bias", L "post_attention_layernorm.bias",
				    "blk.%u.ffn_norm.bias"),
	[ROLE_FINAL_NORM_BIAS] = { ROW(ROLE_FINAL_NORM_BIAS, ROLE_UNKNOWN, "final_norm_bias", "model.norm.bias",
				       "output_norm.bias"), .bias = true },
	[ROLE_EMBED_NORM] = { ROW(ROLE_EMBED_NORM, ROLE_EMBED_NORM_BIAS, "embed_norm", NULL, "token_embd_norm.weight"), .norm = true },
	[ROLE_EMBED_NORM_BIAS] = { ROW(ROLE_EMBED_NORM_BIAS, ROLE_UNKNOWN, "embed_norm_bias", NULL, "token_embd_norm.bias"), .bias = true },
	[ROLE_HEAD_BIAS] = { ROW(ROLE_HEAD_BIAS, ROLE_UNKNOWN, "head_bias", NULL, "output.bias"), .bias = true },
	[ROLE_POSITIONS] = { ROW(ROLE_POSITIONS, ROLE_UNKNOWN, "positions", NULL, "position_embd.weight") },
	/* as writers of GGUF have it, the router stays in floats */
	[ROLE_ROUTER] = { ROW(ROLE_ROUTER, ROLE_UNKNOWN, "ffn_gate_inp", L "mlp.gate.weight", "blk.%u.ffn_gate_inp.weight"),
			  .per_layer = true },
	[ROLE_EXPERT_GATE] = EXPERT(ROLE_EXPERT_GATE, ROLE_GATE, "ffn_gate_exps", L "mlp.experts.%u.gate_proj.weight",
				    "blk.%u.ffn_gate_exps.weight"),
	[ROLE_EXPERT_UP] = EXPERT(ROLE_EXPERT_UP, ROLE_UP, "ffn_up_exps", L "mlp.experts.%u.up_proj.weight",
				  "blk.%u.ffn_up_exps.weight"),
	[ROLE_EXPERT_DOWN] = EXPERT(ROLE_EXPERT_DOWN, ROLE_DOWN, "ffn_down_exps", L "mlp.experts.%u.down_proj.weight",
				    "blk.%u.ffn_down_exps.weight"),
};

static const char *pattern_of(const struct arch *a, enum role r, bool gguf)
{
	for (const struct role_name *n = a ? a->names : NULL; n && n->role != ROLE_UNKNOWN; n++)
		if (n->role == r) {
			const char *own = gguf ? n->gguf : n->hf;
			if (!own || *own)
				return own;
			break;
		}
	return gguf ? role_rows[r].gguf : role_rows[r].hf;
}

/* Numbers as writers print them: no sign, no leading zero, below UINT32_MAX. NULL: there is none. */
static const char *number(const char *p, uint32_t *out)
{
	const char *begin = p;
	uint64_t n = 0;
	if (*p == '0' && p[1] >= '0' && p[1] <= '9')
		return NULL;
	for (; *p >= '0' && *p <= '9'; p++)
		if ((n = n * 10 + (uint64_t)(*p - '0')) >= UINT32_MAX)
			return NULL;
	*out = (uint32_t)n;
	return p == begin ? NULL : p;
}

/* The numbers of a name are layer and expert. A layer that no model has, with an expert, is no place. */
static bool match(const char *pattern, const char *name, uint32_t *place)
{
	uint32_t n[2] = { UINT32_MAX, NO_EXPERT };
	const char *mark;
	for (int i = 0; i < 2 && (mark = strstr(pattern, "%u")); i++) {
		size_t head = (size_t)(mark - pattern);
		if (strncmp(pattern, name, head) || !(name = number(name + head, &n[i])))
			return false;
		pattern = mark + 2;
	}
	if (strcmp(pattern, name) || (n[1] != NO_EXPERT && (n[0] >= MAX_LAYERS || n[1] >= MAX_EXPERTS)))
		return false;
	*place = n[1] == NO_EXPERT ? n[0] : place_of(n[0], n[1]);
	return true;
}

static enum role role_of(const struct arch *a, const char *name, uint32_t *place, bool gguf)
{
	for (int r = 0; r < ROLE_COUNT; r++) {
		const char *pattern = pattern_of(a, (enum role)r, gguf);
		if (pattern && match(pattern, name, place))
			return (enum role)r;
	}
	*place = UINT32_MAX;
	return ROLE_UNKNOWN;
}

enum role role_from_hf(const struct arch *a, const char *name, uint32_t *place)
{
	return role_of(a, name, place, false);
}

enum role role_from_gguf(const struct arch *a, const char *name, uint32_t *layer)
{
	return role_of(a, name, layer, true);
}

enum { NAME_SIZE = 96 };

static char *fill(const char *pattern, bool expert, uint32_t place, char *buf)
{
	const uint32_t n[2] = { expert ? place_layer(place) : place, place_expert(place) };
	size_t at = 0;
	const char *mark;
	if (!pattern)
		return NULL;
	for (int i = 0; i < 2 && (mark = strstr(pattern, "%u")) && at < NAME_SIZE; i++) {
		at += (size_t)snprintf(buf + at, NAME_SIZE - at, "%.*s%u", (int)(mark - pattern), pattern, n[i]);
		pattern = mark + 2;
	}
	if (at < NAME_SIZE)
		snprintf(buf + at, NAME_SIZE - at, "%s", pattern);
	return buf;
}

char *role_hf_name(const struct arch *a, enum role r, uint32_t place, char *buf)
{
	return r < ROLE_COUNT ? fill(pattern_of(a, r, false), role_rows[r].per_expert, place, buf) : NULL;
}

char *role_gguf_name(const struct arch *a, enum role r, uint32_t layer, char *buf)
{
	return r < ROLE_COUNT ? fill(pattern_of(a, r, true), role_rows[r].per_expert, layer, buf) : NULL;
}

enum layout role_gguf_layout(const struct arch *a, enum role r)
{
	for (const struct role_layout *l = a->gguf_layouts; l && l->role != ROLE_UNKNOWN; l++)
		if (l->role == r)
			return l->layout;
	return LAYOUT_SAME;
}

bool tensor_name_ignored(const char *name)
{
	/* what rotary embeddings computed once, and causal masks; the last part of a name, or all of it */
	static const char *const endings[] = {
		"rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached",
		"attention.masked_bias", "attention.bias", "attn.masked_bias", "attn.bias",
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

/* ---- tensors that hold several */

unsigned stored_count(const struct stored *s)
{
	unsigned n = 0;
	while (n < STORED_PARTS && s->part[n] != ROLE_UNKNOWN)
		n++;
	return n;
}

static const char *stored_pattern(const struct stored *s, bool gguf)
{
	return gguf ? s->gguf : s->hf;
}

static bool is_end(const struct stored *s)
{
	return !s->hf && !s->gguf;
}

static const struct stored *find_in(const struct stored *s, const char *name, bool gguf, uint32_t *layer)
{
	for (; s && !is_end(s); s++)
		if (stored_pattern(s, gguf) && match(stored_pattern(s, gguf), name, layer))
			return s;
	return NULL;
}

const struct stored *stored_find(const struct arch *a, const char *name, bool gguf, uint32_t *layer)
{
	const struct stored *s = find_in(a->stored, name, gguf, layer);
	return s ? s : find_in(a->also_stored, name, gguf, layer);
}

const struct stored *stored_of(const struct arch *a, enum role r, bool gguf, unsigned *part)
{
	for (const struct stored *s = a->stored; s && !is_end(s); s++)
		for (*part = 0; stored_pattern(s, gguf) && *part < stored_count(s); ++*part)
			if (s->part[*part] == r)
				return s;
	return NULL;
}

bool stored_together(const struct arch *a, enum role r)
{
	unsigned part;
	const struct stored *hf = stored_of(a, r, false, &part), *gguf = stored_of(a, r, true, &part);
	return (hf && stored_count(hf) > 1) || (gguf && stored_count(gguf) > 1);
}

char *stored_name(const struct stored *s, bool gguf, uint32_t layer, char *buf)
{
	return fill(stored_pattern(s, gguf), false, layer, buf);
}

bool stored_rows(const struct stored *s, uint64_t rows, uint32_t heads, uint32_t kv_heads, uint64_t first[STORED_PARTS + 1])
{
	uint64_t share[STORED_PARTS], sum = 0, at = 0;
	unsigned n = stored_count(s);
	for (unsigned i = 0; i < n; i++) {
		enum role r = s->part[i];
		bool q = r == ROLE_Q || r == ROLE_Q_BIAS, kv = r == ROLE_K || r == ROLE_V || r == ROLE_K_BIAS || r == ROLE_V_BIAS;
		sum += share[i] = q ? heads : kv ? kv_heads : 1;
	}
	if (!sum || rows % sum)
		return false;
	for (unsigned i = 0; i < n; i++) {
		first[i] = at;
		at += rows / sum * share[i];
	}
	first[n] = at;
	return true;
}

char *stored_gguf_name(const struct arch *a, enum role r, uint32_t layer, char *buf, unsigned *part)
{
	const struct stored *s = stored_of(a, r, true, part);
	if (s)
		return stored_name(s, true, layer, buf);
	*part = 0;
	return role_gguf_name(a, r, layer, buf);
}
