/* Hyper-parameters: GGUF metadata to config.json and back. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/gguf_model.h"
#include "model/config_rope.h"
#include "model/keys.h"

static const double PI = 3.14159265358979323846;

int gguf_model_init(struct gguf_model *m, struct err *e)
{
	size_t len;
	m->meta = &m->part[0].g;
	const char *s = gguf_string(gguf_find(m->meta, "general.architecture"), &len);
	if (!s)
		return 0;
	if (len >= sizeof m->arch_name || memchr(s, '\0', len) || !utf8_valid(s, len))
		return err_set(e, ERR_INPUT, "general.architecture is not a name");
	memcpy(m->arch_name, s, len);
	uint64_t experts = 0;
	gguf_uint(gguf_model_key(m, "expert_count"), 0, &experts);
	m->arch = arch_from_gguf(m->arch_name, experts != 0);
	/* of the architectures that share a name, one has windows: in all layers (mistral), or in a pattern of them (olmo3) */
	bool pattern = gguf_model_key(m, "attention.sliding_window_pattern");
	uint64_t window = 0;
	gguf_uint(gguf_model_key(m, "attention.sliding_window"), 0, &window);
	if (m->arch && window && m->arch->window == WINDOW_NONE)
		for (unsigned i = arch_row_count; i-- > 0;) {
			enum window_rule w = arch_rows[i]->window;
			if (arch_rows[i]->gguf && !strcmp(arch_rows[i]->gguf, m->arch_name) &&
			    (w == WINDOW_PERIOD || (w == WINDOW_ALL && !pattern)) && !arch_rows[i]->mixture)
				m->arch = arch_rows[i];
		}
	return 0;
}

void gguf_shift(const uint8_t *src, uint8_t *dst, uint64_t n, float by)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t u = load_u32(src + 4 * i);
		float f;
		memcpy(&f, &u, sizeof f);
		f += by;
		memcpy(&u, &f, sizeof u);
		store_u32(dst + 4 * i, u);
	}
}

const struct gguf_kv *gguf_model_key(const struct gguf_model *m, const char *suffix)
{
	char key[160];
	snprintf(key, sizeof key, "%s.%s", m->arch_name, suffix);
	return gguf_find(m->meta, key);
}

const struct gguf_tensor *gguf_model_tensor(const struct gguf_model *m, const char *name, const uint8_t **data)
{
	for (size_t p = 0; p < m->parts; p++)
		for (size_t i = 0; i < m->part[p].g.tensor_count; i++) {
			const struct gguf_tensor *t = &m->part[p].g.tensors[i];
			if (strcmp(t->name, name))
				continue;
			if (data)
				*data = m->part[p].data + t->at;
			return t;
		}
	return NULL;
}

uint32_t gguf_model_heads(const struct gguf_model *m, uint32_t layer, bool kv)
{
	const struct gguf_kv *key = kv ? gguf_model_key(m, "attention.head_count_kv") : NULL;
	uint64_t n = 0;
	if (!key)
		key = gguf_model_key(m, "attention.head_count");
	if (!gguf_uint(key, key && key->type == GGUF_ARRAY ? layer : 0, &n) || n > UINT32_MAX)
		return 0;
	return (uint32_t)n;
}

/* A count that may be one number or one per layer: the number, or the whole list when its entries differ. */
static void put_count(struct json_writer *w, const char *name, const struct gguf_kv *kv, const char *list_name)
{
	uint64_t first = 0, most = 0, v;
	bool same = true;
	if (!gguf_uint(kv, 0, &first))
		return; /* config_parse says what is missing */
	for (uint64_t i = 0; i < kv->count && gguf_uint(kv, i, &v); i++) {
		same &= v == first;
		most = v > most ? v : most;
	}
	if (same || list_name)
		jw_uint(w, name, most);
	if (same)
		return;
	jw_array(w, list_name ? list_name : name);
	for (uint64_t i = 0; i < kv->count && gguf_uint(kv, i, &v); i++)
		jw_uint(w, NULL, v);
	jw_end_array(w);
}

static void put_float(struct json_writer *w, const char *name, const struct gguf_kv *kv)
{
	double v;
	if (gguf_float(kv, 0, &v))
		config_print_float(w, name, (float)v);
}

void gguf_rope_divisors(const struct rope *r, float *out)
{
	for (uint32_t i = 0; i < r->dims / 2; i++) {
		if (!(r->high_freq > 0)) {
			out[i] = 1;
			continue;
		}
		double wave = 2 * PI * pow(r->theta, 2.0 * i / r->dims);
		double s = (r->original_context / wave - r->low_freq) / ((double)r->high_freq - r->low_freq);
		if (wave < (double)r->original_context / r->high_freq)
			out[i] = 1;
		else if (wave > (double)r->original_context / r->low_freq)
			out[i] = r->factor;
		else
			out[i] = (float)(1 / ((1 - s) / r->factor + s));
	}
}

static bool explains(const struct rope *r, const float *d, float *scratch)
{
	gguf_rope_divisors(r, scratch);
	for (uint32_t i = 0; i < r->dims / 2; i++)
		if (!(fabsf(scratch[i] - d[i]) <= 1e-4f * fabsf(d[i])))
			return false;
	return true;
}

/*
 * With low_freq_factor 1, what is known of the frequencies in between gives the rest: s is linear in 1 / wavelength,
 * s = a / wave - b with a = original / (high - 1), b = 1 / (high - 1). The two that lie furthest apart are taken.
 */
static bool solve(struct rope *r, const float *d)
{
	double wave[2] = { 0, 0 }, s[2] = { 0, 0 };
	int found = 0;
	for (uint32_t i = 0; i < r->dims / 2; i++) {
		if (!(d[i] > 1.0001f && d[i] < r->factor * 0.9999f))
			continue;
		int k = found ? 1 : 0;
		wave[k] = 2 * PI * pow(r->theta, 2.0 * i / r->dims);
		s[k] = (1 / (double)d[i] - 1 / (double)r->factor) / (1 - 1 / (double)r->factor);
		found++;
	}
	if (found < 2)
		return false;
	double a = (s[0] - s[1]) / (1 / wave[0] - 1 / wave[1]), b = a / wave[0] - s[0];
	if (!(a > 0 && b > 0 && a / b < 1e9))
		return false;
	r->original_context = (uint32_t)(a / b + 0.5);
	r->high_freq = (float)(round((1 + 1 / b) * 1000) / 1000);
	return r->high_freq > r->low_freq && r->original_context > 0;
}

/* The llama3 parameters that give these divisors; they are not stored. scratch: dims / 2. */
static bool recover_llama3(struct rope *r, const float *d, uint32_t context, float *scratch)
{
	const uint32_t usual[] = { 8192, context, r->original_context };
	r->factor = 1;
	r->low_freq = 1;
	for (uint32_t i = 0; i < r->dims / 2; i++)
		r->factor = d[i] > r->factor ? d[i] : r->factor;
	for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
		r->high_freq = 4;
		r->original_context = usual[i];
		if (usual[i] && explains(r, d, scratch))
			return true;
	}
	return solve(r, d) && explains(r, d, scratch);
}

static void put_llama3(struct json_writer *w, const struct rope *r)
{
	jw_object(w, "rope_scaling");
	jw_string(w, "rope_type", "llama3");
	config_print_float(w, "factor", r->factor);
	config_print_float(w, "low_freq_factor", r->low_freq);
	config_print_float(w, "high_freq_factor", r->high_freq);
	jw_uint(w, "original_max_position_embeddings", r->original_context);
	jw_end_object(w);
}

const char *const gguf_rope_tensors[ROPE_TENSORS] = { "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight" };

bool gguf_rope_tensor(const char *name)
{
	for (int i = 0; i < ROPE_TENSORS; i++)
		if (!strcmp(name, gguf_rope_tensors[i]))
			return true;
	return false;
}

/* Its values, in room for twice as many; NULL, and why in e. */
static float *read_vector(const struct gguf_tensor *t, const uint8_t *data, struct err *e)
{
	if (t->ndim != 1 || strcmp(t->codec->name, "f32") || t->dim[0] < 1 || t->dim[0] > 1 << 16) {
		err_set(e, ERR_INPUT, "tensor '%s' is not a vector of f32", t->name);
		return NULL;
	}
	float *d = malloc(2 * (size_t)t->dim[0] * sizeof *d);
	if (!d)
		err_nomem(e);
	for (size_t i = 0; d && i < t->dim[0]; i++) {
		uint32_t u = load_u32(data + 4 * i);
		memcpy(&d[i], &u, 4);
	}
	return d;
}

static int put_factors(const struct gguf_model *m, struct json_writer *w, const char *key, const char *name, struct err *e)
{
	const uint8_t *data;
	const struct gguf_tensor *t = gguf_model_tensor(m, name, &data);
	if (!t)
		return err_set(e, ERR_INPUT, "tensor '%s' is missing", name);
	float *d = read_vector(t, data, e);
	if (d)
		config_print_floats(w, key, d, (size_t)t->dim[0]);
	free(d);
	return d ? ERR_OK : e->code;
}

/* The divisors of short and of long texts become rope_scaling. */
static int put_longrope(const struct gguf_model *m, struct json_writer *w, struct err *e)
{
	uint64_t original;
	double attn = 1;
	bool known = gguf_uint(gguf_model_key(m, "rope.scaling.original_context_length"), 0, &original);
	if (known && m->arch->default_original_context)
		jw_uint(w, "original_max_position_embeddings", original);
	gguf_float(gguf_model_key(m, "rope.scaling.attn_factor"), 0, &attn);
	jw_object(w, "rope_scaling");
	jw_string(w, "rope_type", "longrope");
	config_print_float(w, "attention_factor", (float)attn);
	if (known)
		jw_uint(w, "original_max_position_embeddings", original);
	int rc = put_factors(m, w, "short_factor", gguf_rope_tensors[1], e);
	if (!rc)
		rc = put_factors(m, w, "long_factor", gguf_rope_tensors[2], e);
	jw_end_object(w);
	return rc;
}

/* rope_freqs.weight becomes the llama3 parameters that explain it, or quire's own rope_divisors. */
static int put_divisors(const struct gguf_model *m, struct json_writer *w, const struct gguf_tensor *t, const uint8_t *data,
			struct err *e)
{
	double theta = 10000;
	uint64_t context = 0, original = 0;
	float *d = read_vector(t, data, e); /* with room for as many again */
	if (!d)
		return e->code;
	size_t n = (size_t)t->dim[0];
	bool plain = true;
	for (size_t i = 0; i < n; i++)
		plain &= d[i] == 1;
	gguf_float(gguf_model_key(m, "rope.freq_base"), 0, &theta);
	gguf_uint(gguf_model_key(m, "context_length"), 0, &context);
	gguf_uint(gguf_model_key(m, "rope.scaling.original_context_length"), 0, &original);
	struct rope r = { .theta = (float)theta, .dims = (uint32_t)(2 * n),
			  .original_context = original < UINT32_MAX ? (uint32_t)original : 0 };
	if (!plain && recover_llama3(&r, d, context < UINT32_MAX ? (uint32_t)context : 0, d + n)) {
		put_llama3(w, &r);
	} else if (!plain) {
		jw_array(w, "rope_divisors");
		for (size_t i = 0; i < n; i++)
			config_print_float(w, NULL, d[i]);
		jw_end_array(w);
	}
	free(d);
	return 0;
}

static void put_temper(const struct gguf_model *m, struct json_writer *w)
{
	double v = 0;
	gguf_float(gguf_model_key(m, "attention.temperature_scale"), 0, &v);
	config_print_float(w, "llama_4_scaling_beta", (float)v);
}

static int put_scaling(const struct gguf_model *m, struct json_writer *w, struct err *e)
{
	char type[32] = "none";
	double factor = 1, attn = 1;
	uint64_t original;
	size_t len;
	const uint8_t *data;
	const struct gguf_tensor *t = gguf_model_tensor(m, "rope_freqs.weight", &data);
	if (t)
		return put_divisors(m, w, t, data, e);
	if (gguf_model_tensor(m, gguf_rope_tensors[1], NULL))
		return put_longrope(m, w, e);
	const char *s = gguf_string(gguf_model_key(m, "rope.scaling.type"), &len);
	if (s && len < sizeof type && !memchr(s, '\0', len) && utf8_valid(s, len))
		snprintf(type, sizeof type, "%.*s", (int)len, s);
	if (!gguf_float(gguf_model_key(m, "rope.scaling.factor"), 0, &factor) &&
	    gguf_float(gguf_model_key(m, "rope.scale_linear"), 0, &factor) && !s)
		snprintf(type, sizeof type, "linear"); /* the key of files from 2023 */
	bool none = !strcmp(type, "none") || (!strcmp(type, "linear") && factor == 1);
	if (none && !m->arch->temper)
		return 0;
	jw_object(w, "rope_scaling");
	jw_string(w, "rope_type", none ? "default" : type);
	config_print_float(w, "factor", (float)factor);
	if (gguf_uint(gguf_model_key(m, "rope.scaling.original_context_length"), 0, &original))
		jw_uint(w, "original_max_position_embeddings", original);
	put_float(w, "beta_fast", gguf_model_key(m, "rope.scaling.yarn_beta_fast"));
	put_float(w, "beta_slow", gguf_model_key(m, "rope.scaling.yarn_beta_slow"));
	put_float(w, "mscale_all_dim", gguf_model_key(m, "rope.scaling.yarn_log_multiplier"));
	if (gguf_model_key(m, "rope.scaling.yarn_log_multiplier"))
		jw_uint(w, "mscale", 1);
	/* ggml's rotation multiplies by the usual factor itself; the key is what remains */
	if (gguf_float(gguf_model_key(m, "rope.scaling.attn_factor"), 0, &attn) && factor > 1)
		config_print_float(w, "attention_factor", (float)(attn * (1 + 0.1 * log(factor))));
	if (m->arch->temper)
		put_temper(m, w);
	jw_end_object(w);
	return 0;
}

static void put_windows(const struct gguf_model *m, struct json_writer *w)
{
	const struct gguf_kv *pattern = gguf_model_key(m, "attention.sliding_window_pattern");
	uint64_t window;
	bool some = gguf_uint(gguf_model_key(m, "attention.sliding_window"), 0, &window) && window > 0;
	bool from = m->arch->window == WINDOW_FROM_LAYER, types = window_has_types(m->arch->window);
	if (window_has_switch(m->arch->window))
		jw_bool(w, "use_sliding_window", some);
	if (!some)
		return;
	bool each = pattern && pattern->type == GGUF_ARRAY && pattern->elem == GGUF_BOOL;
	if (types || !each)
		jw_uint(w, "sliding_window", window);
	if (from)
		jw_uint(w, "max_window_layers", 0);
	if (!each) {
		uint64_t period;
		if (types && !from && gguf_uint(pattern, 0, &period))
			jw_uint(w, "sliding_window_pattern", period);
		return;
	}
	jw_array(w, types ? "layer_types" : "window_per_layer");
	for (uint64_t i = 0; i < pattern->count; i++)
		if (types)
			jw_string(w, NULL, pattern->data[i] ? "sliding_attention" : "full_attention");
		else
			jw_uint(w, NULL, pattern->data[i] ? window : 0);
	jw_end_array(w);
}

static void put_tokens(const struct gguf_model *m, struct json_writer *w)
{
	static const char *const ends[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
					    "tokenizer.ggml.eom_token_id" };
	uint64_t id, seen[3];
	int n = 0;
	if (gguf_uint(gguf_find(m->meta, "tokenizer.ggml.bos_token_id"), 0, &id))
		jw_uint(w, "bos_token_id", id);
	else
		jw_null(w, "bos_token_id");
	for (int i = 0; i < 3; i++) {
		if (!gguf_uint(gguf_find(m->meta, ends[i]), 0, &id))
			continue;
		bool again = false;
		for (int k = 0; k < n; k++)
			again |= seen[k] == id;
		if (!again)
			seen[n++] = id;
	}
	if (n == 0)
		jw_null(w, "eos_token_id");
	else if (n == 1)
		jw_uint(w, "eos_token_id", seen[0]);
	else {
		jw_array(w, "eos_token_id");
		for (int i = 0; i < n; i++)
			jw_uint(w, NULL, seen[i]);
		jw_end_array(w);
	}
}

/* The head size: as stored, or what the shape of a projection says, which the metadata may leave out. */
static uint64_t head_dim(const struct gguf_model *m)
{
	uint64_t hd = 0, hidden = 0;
	uint32_t heads = gguf_model_heads(m, 0, false);
	if (gguf_uint(gguf_model_key(m, "attention.key_length"), 0, &hd))
		return hd;
	gguf_uint(gguf_model_key(m, "embedding_length"), 0, &hidden);
	return heads ? hidden / heads : 0;
}

static void put_flags(const struct gguf_model *m, struct json_writer *w)
{
	const struct config_key *norms = config_key_of(m->arch, offsetof(struct config, head_norms));
	if (m->arch->qkv_bias == BIAS_CONFIG)
		jw_bool(w, config_key_of(m->arch, offsetof(struct config, qkv_bias))->json,
			gguf_model_tensor(m, m->arch->stored ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias", NULL) != NULL);
	if (m->arch->o_bias == BIAS_OWN_KEY)
		jw_bool(w, config_key_of(m->arch, offsetof(struct config, o_bias))->json, gguf_model_tensor(m, "blk.0.attn_output.bias", NULL) != NULL);
	if (norms)
		jw_bool(w, norms->json, gguf_model_tensor(m, "blk.0.attn_q_norm.weight", NULL) != NULL);
	if (m->arch->mlp_bias == BIAS_CONFIG)
		jw_bool(w, "mlp_bias", gguf_model_tensor(m, "blk.0.ffn_up.bias", NULL) != NULL);
	jw_bool(w, "tie_word_embeddings", !gguf_model_tensor(m, "output.weight", NULL));
}

/* The vocabulary is what the embedding has rows for. */
static void put_vocab(const struct gguf_model *m, const struct config_key *k, struct json_writer *w)
{
	const struct gguf_tensor *embed = gguf_model_tensor(m, "token_embd.weight", NULL);
	uint64_t v;
	if (embed && embed->ndim == 2)
		jw_uint(w, k->json, embed->dim[1]);
	else if (gguf_uint(gguf_model_key(m, k->gguf), 0, &v))
		jw_uint(w, k->json, v);
}

/* Readers of GGUF know one rule: every layer is a mixture; whether the weights of those chosen add up to one, its family says. */
static void put_experts(const struct gguf_model *m, struct json_writer *w)
{
	const struct mixture *x = m->arch->mixture;
	if (!x)
		return;
	put_count(w, "num_local_experts", gguf_model_key(m, "expert_count"), NULL);
	put_count(w, "num_experts_per_tok", gguf_model_key(m, "expert_used_count"), NULL);
	if (x->width_key)
		put_count(w, x->width_key, gguf_model_key(m, "expert_feed_forward_length"), NULL);
	if (x->keys || x->norm_key)
		jw_bool(w, "norm_topk_prob", !x->gguf_shares);
}

/* What readers of GGUF take where there is no key. */
static void put_implied(const struct gguf_model *m, const struct config_key *k, struct json_writer *w)
{
	struct config c = { .heads = gguf_model_heads(m, 0, false), .head_dim = (uint32_t)head_dim(m) };
	uint64_t layers = 0, hidden = 0;
	gguf_uint(gguf_model_key(m, "block_count"), 0, &layers);
	gguf_uint(gguf_model_key(m, "embedding_length"), 0, &hidden);
	c.layers = (uint32_t)layers;
	c.hidden = (uint32_t)hidden;
	double theta = 10000;
	gguf_float(gguf_model_key(m, "rope.freq_base"), 0, &theta);
	c.rope.theta = (float)theta;
	if (c.heads)
		config_key_print_value(k, k->implied(&c), w);
}

static void put_row(const struct gguf_model *m, const struct config_key *k, struct json_writer *w)
{
	const struct gguf_kv *kv = k->gguf ? gguf_model_key(m, k->gguf) : NULL;
	double v;
	bool flag;
	switch (k->kind) {
	case KEY_COUNT: put_count(w, k->json, kv, NULL); break;
	case KEY_PER_LAYER:
		if (k->field == offsetof(struct config, kv_heads))
			put_count(w, k->json, kv ? kv : gguf_model_key(m, "attention.head_count"), "kv_heads_per_layer");
		else
			put_count(w, k->json, kv, k->field == offsetof(struct config, ffn) ? "ffn_per_layer" : NULL);
		break;
	case KEY_ONE_KV:
		jw_bool(w, k->json, gguf_model_heads(m, 0, true) == 1);
		break;
	case KEY_NUMBER: put_float(w, k->json, kv); break;
	case KEY_LIMIT:
		if (gguf_float(kv, 0, &v))
			config_key_print_value(k, (float)v, w);
		else if (k->gguf)
			jw_null(w, k->json);
		break;
	case KEY_FLAG:
		if (gguf_bool(kv, &flag))
			jw_bool(w, k->json, flag);
		break;
	case KEY_SAME: jw_uint(w, k->json, k->layer_field ? head_dim(m) : 0); break;
	default: break;
	}
	if (!k->gguf && k->implied)
		put_implied(m, k, w);
}

/* The common values, or those that only this family has: a row of config.json each. */
static void put_rows(const struct gguf_model *m, bool own, struct json_writer *w)
{
	uint64_t hd = head_dim(m), rd;
	const struct config_key *k;
	for (unsigned i = 0; (k = config_key_at(m->arch, i)); i++) {
		if (!k->json || k->also || config_key_own(m->arch, k) != own)
			continue;
		if (k->field == offsetof(struct config, vocab))
			put_vocab(m, k, w);
		else if (k->field == offsetof(struct config, head_dim) && hd)
			jw_uint(w, k->json, hd);
		else if (k->field != offsetof(struct config, rope.theta))
			put_row(m, k, w);
		if (k->field == offsetof(struct config, rope.part) && !gguf_beside(m->arch_name, "rope.dimension_count") &&
		    gguf_uint(gguf_model_key(m, "rope.dimension_count"), 0, &rd) && hd && (rd != hd || k->absent != 1))
			jw_double(w, k->json, (double)rd / (double)hd);
	}
}

static int put_rope(const struct gguf_model *m, struct json_writer *w, struct err *e)
{
	double theta = 10000;
	gguf_float(gguf_model_key(m, "rope.freq_base"), 0, &theta);
	config_print_float(w, config_key_of(m->arch, offsetof(struct config, rope.theta))->json, (float)theta);
	return put_scaling(m, w, e);
}

int gguf_config(const struct gguf_model *m, struct strbuf *out, struct err *e)
{
	struct json_writer w = { .out = out, .indent = 2 };
	uint64_t experts = 0;
	int rc = 0;
	if (!m->arch_name[0])
		return 0;
	gguf_uint(gguf_model_key(m, "expert_count"), 0, &experts);
	jw_object(&w, NULL);
	if (m->arch) {
		jw_array(&w, "architectures");
		jw_string(&w, NULL, m->arch->hf_class);
		jw_end_array(&w);
		jw_string(&w, "model_type", m->arch->name);
		put_rows(m, false, &w);
		if (m->arch->turning != TURN_NONE)
			rc = put_rope(m, &w, e);
		put_windows(m, &w);
		put_flags(m, &w);
		put_rows(m, true, &w);
		if (m->arch->differ == DIFFER_SUFFIX)
			put_count(&w, "num_kv_shared_layers", gguf_model_key(m, "attention.shared_kv_layers"), NULL);
		put_experts(m, &w);
		put_tokens(m, &w);
	} else {
		/* the parser of config.json then says what is not supported */
		char name[96];
		snprintf(name, sizeof name, "%s%s", m->arch_name, experts ? " (mixture of experts)" : "");
		jw_string(&w, "model_type", name);
	}
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	if (!rc && !out->failed)
		rc = gguf_check_beside(m, out->data, out->len, e);
	return rc ? rc : out->failed ? err_nomem(e) : 0;
}
