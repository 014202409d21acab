#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "model/arch.h"
#include "model/config_differ.h"
#include "model/config_experts.h"
#include "model/config_rope.h"
#include "model/keys.h"

enum { MAX_SIZE = 1 << 20 }; /* as in keys.c */

/* The first name of an activation is the one written. */
static const struct {
	const char *name;
	enum activation act;
} act_names[] = {
	{ "silu", ACT_SILU }, { "swish", ACT_SILU },
	{ "gelu_pytorch_tanh", ACT_GELU_TANH }, { "gelu_new", ACT_GELU_TANH }, { "gelu_accurate", ACT_GELU_TANH },
	{ "gelu_python_tanh", ACT_GELU_TANH }, { "gelu_fast", ACT_GELU_TANH },
	{ "gelu", ACT_GELU_ERF }, { "gelu_python", ACT_GELU_ERF }, { "quick_gelu", ACT_GELU_QUICK }, { "relu", ACT_RELU }, { "relu2", ACT_RELU2 },
};
enum { ACT_NAMES = sizeof act_names / sizeof *act_names };

const char *activation_name(enum activation a)
{
	for (int i = 0; i < ACT_NAMES; i++)
		if (act_names[i].act == a)
			return act_names[i].name;
	return "?";
}

bool activation_find(const char *name, enum activation *out)
{
	for (int i = 0; i < ACT_NAMES; i++)
		if (!strcmp(name, act_names[i].name)) {
			*out = act_names[i].act;
			return true;
		}
	return false;
}

static int parse_arch(const struct json *root, struct config *c, struct err *e)
{
	char known[1000];
	const char *type = json_string(json_get(root, "model_type"));
	const char *class = json_string(json_first(json_get(root, "architectures")));
	if (type)
		c->arch = arch_find(type);
	for (unsigned i = 0; !type && class && i < arch_row_count; i++)
		if (!strcmp(arch_rows[i]->hf_class, class))
			c->arch = arch_rows[i];
	if (!type && !class)
		return err_set(e, ERR_INPUT, "config.json: model_type is missing");
	if (!c->arch)
		return err_set(e, ERR_UNSUPPORTED, "config.json: model_type \"%.100s\" is not supported (supported: %s)",
			       type ? type : class, arch_list(known, sizeof known));
	return config_keys_known(c->arch, root, e);
}

static bool bias(enum bias_rule rule, bool key)
{
	return rule == BIAS_ALWAYS || (rule == BIAS_CONFIG && key);
}

/* What one key leaves open, or two contradict each other in. */
static int check_keys(const struct json *root, struct config *c, struct err *e)
{
	const struct arch *a = c->arch;
	const struct config_key *dim = config_key_of(a, offsetof(struct config, head_dim));
	bool given = dim->json && !json_is_null(json_get(root, dim->json)), attn = c->qkv_bias || c->o_bias;
	if (!given && !a->default_head_dim && c->hidden % c->heads)
		return err_set(e, ERR_INPUT, "config.json: the width %u is not a multiple of its %u heads", c->hidden, c->heads);
	if ((uint64_t)c->heads * c->head_dim > MAX_SIZE)
		return err_set(e, ERR_INPUT, "config.json: %u heads of %u are too large", c->heads, c->head_dim);
	if ((attn && a->qkv_bias == BIAS_NEVER) || (c->mlp_bias && a->mlp_bias == BIAS_NEVER))
		return err_set(e, ERR_UNSUPPORTED, "config.json: %s is true, but %s has no such biases", attn ? "attention_bias" : "mlp_bias", a->name);
	c->qkv_bias = bias(a->qkv_bias, attn);
	c->o_bias = a->o_bias == BIAS_OWN_KEY ? c->o_bias : bias(a->o_bias, attn);
	c->mlp_bias = a->mlp_bias == BIAS_AS_QKV ? attn : bias(a->mlp_bias, c->mlp_bias);
	if (a->gelu_is_tanh && c->act == ACT_GELU_ERF)
		c->act = ACT_GELU_TANH;
	return ERR_OK;
}

/* Negative ids stand for "none" in old files. */
static int parse_token(const struct json *j, const char *key, int32_t *out, struct err *e)
{
	int64_t v;
	if (!json_int(j, &v) || v > INT32_MAX)
		return err_set(e, ERR_INPUT, "config.json: %s is not a token id", key);
	*out = v < 0 ? -1 : (int32_t)v;
	return ERR_OK;
}

static int parse_tokens(const struct json *root, struct config *c, struct err *e)
{
	const struct json *bos = json_get(root, "bos_token_id"), *eos = json_get(root, "eos_token_id");
	int rc;
	c->bos = bos ? -1 : c->arch->default_bos;
	if (!json_is_null(bos) && (rc = parse_token(bos, "bos_token_id", &c->bos, e)))
		return rc;
	c->has_bos = c->bos >= 0;
	if (!eos && c->arch->default_eos >= 0)
		c->eos[c->eos_count++] = c->arch->default_eos;
	if (json_is_null(eos))
		return ERR_OK;
	bool list = json_kind(eos) == JSON_ARRAY;
	for (const struct json *j = list ? json_first(eos) : eos; j; j = list ? json_next(j) : NULL) {
		int32_t id = -1;
		if ((rc = parse_token(j, "eos_token_id", &id, e)))
			return rc;
		if (c->eos_count == sizeof c->eos / sizeof *c->eos)
			return err_set(e, ERR_UNSUPPORTED, "config.json: eos_token_id lists more than %u tokens", c->eos_count);
		if (id >= 0)
			c->eos[c->eos_count++] = id;
	}
	return ERR_OK;
}

static int get_bool(const struct json *root, const char *key, bool absent, bool *out, struct err *e)
{
	const struct json *j = json_get(root, key);
	*out = absent;
	if (!json_is_null(j) && !json_bool(j, out))
		return err_set(e, ERR_INPUT, "config.json: %s is not true or false", key);
	return ERR_OK;
}

/* The window that layers with sliding attention have; 0 when they have none. */
static int parse_window(const struct json *root, const struct config *c, uint32_t *window, struct err *e)
{
	const struct arch *a = c->arch;
	const struct json *j = json_get(root, "sliding_window");
	bool use = a->window != WINDOW_NONE;
	int rc;
	*window = 0;
	if (window_has_switch(a->window) && (rc = get_bool(root, "use_sliding_window", false, &use, e)))
		return rc;
	if (!use || (j && json_is_null(j)) || (!j && !a->default_window))
		return ERR_OK;
	int64_t v = a->default_window;
	if (j && !json_int(j, &v))
		return err_set(e, ERR_INPUT, "config.json: sliding_window is not a whole number");
	if (v < 1 || v > INT32_MAX)
		return err_set(e, ERR_INPUT, "config.json: sliding_window is %lld, not a length", (long long)v);
	*window = (uint32_t)v;
	return ERR_OK;
}

static int parse_types(const struct json *types, struct config *c, uint32_t window, struct err *e)
{
	uint32_t i = 0;
	int rc = config_list(types, "layer_types", c, e);
	if (rc)
		return rc;
	for (const struct json *j = json_first(types); j; j = json_next(j), i++) {
		const char *type = json_string(j);
		bool sliding = type && !strcmp(type, "sliding_attention");
		if (!sliding && (!type || strcmp(type, "full_attention")))
			return err_set(e, ERR_UNSUPPORTED,
				       "config.json: layer_types[%u] \"%.60s\" is not supported (supported: full_attention, "
				       "sliding_attention)", i, type ? type : "?");
		if (sliding && !window)
			return err_set(e, ERR_INPUT, "config.json: layer_types[%u] is sliding_attention without a sliding_window", i);
		c->layer[i].window = sliding ? window : 0;
		c->layer[i].local = sliding && c->arch->local_theta;
	}
	return ERR_OK;
}

/* quire's own key, where the model's class has none: the window of each layer, 0 for full attention. */
static int parse_own_windows(const struct json *own, struct config *c, struct err *e)
{
	uint32_t i = 0;
	int64_t v;
	int rc = config_list(own, "window_per_layer", c, e);
	for (const struct json *j = json_first(own); j && !rc; j = json_next(j), i++)
		if (!json_int(j, &v) || v < 0 || v > INT32_MAX)
			rc = err_set(e, ERR_INPUT, "config.json: window_per_layer[%u] is not a count of tokens", i);
		else
			c->layer[i].window = (uint32_t)v;
	return rc;
}

/* TURN_LISTED */
static int parse_turning(const struct json *root, struct config *c, struct err *e)
{
	const struct json *list = json_get(root, "no_rope_layers"), *every = json_get(root, "no_rope_layer_interval"), *j = json_first(list);
	int64_t v = 4; /* the class default of smollm3 */
	if (!json_is_null(every) && (!json_int(every, &v) || v < 1 || v > INT32_MAX))
		return err_set(e, ERR_INPUT, "config.json: no_rope_layer_interval is not a count of layers");
	for (uint32_t i = 0; i < c->layers && json_is_null(list); i++)
		c->layer[i].rope = (i + 1) % v != 0;
	if (!json_is_null(list) && (json_kind(list) != JSON_ARRAY || json_count(list) < c->layers))
		return err_set(e, ERR_INPUT, "config.json: no_rope_layers is not a list of %u entries, one per layer", c->layers);
	for (uint32_t i = 0; i < c->layers && j; i++, j = json_next(j)) {
		bool yes;
		if (json_bool(j, &yes))
			c->layer[i].rope = yes;
		else if (json_int(j, &v) && (v == 0 || v == 1))
			c->layer[i].rope = v;
		else
			return err_set(e, ERR_INPUT, "config.json: no_rope_layers[%u] is neither 0 nor 1", i);
	}
	return ERR_OK;
}

bool config_turning_said(const struct config *c, uint32_t layer)
{
	if (c->arch->turning == TURN_WINDOWED)
		return c->layer[layer].rope == (c->layer[layer].window != 0);
	return c->arch->turning == TURN_LISTED || c->layer[layer].rope == (c->arch->turning != TURN_NONE);
}

/* What a class does not read (layer_types of llama and mistral, sliding_window of llama) does nothing, as in transformers. */
static int parse_windows(const struct json *root, struct config *c, struct err *e)
{
	const struct json *types = json_get(root, "layer_types"), *own = json_get(root, "window_per_layer");
	int64_t first = 0;
	uint32_t window;
	int rc = parse_window(root, c, &window, e);
	if (rc)
		return rc;
	if (!json_is_null(own))
		return parse_own_windows(own, c, e);
	if (window_has_types(c->arch->window) && !json_is_null(types))
		return parse_types(types, c, window, e);
	if (c->arch->window == WINDOW_FROM_LAYER) {
		const struct json *j = json_get(root, "max_window_layers");
		first = 28; /* the class default of qwen2 and qwen3 */
		if (window && !json_is_null(j) && (!json_int(j, &first) || first < 0))
			return err_set(e, ERR_INPUT, "config.json: max_window_layers is not a count of layers");
	}
	int64_t period = c->arch->window_period;
	const struct json *j = period && config_key_reads(c->arch, "sliding_window_pattern") ? json_get(root, "sliding_window_pattern") : NULL;
	if (!json_is_null(j) && (!json_int(j, &period) || period < 1 || period > INT32_MAX))
		return err_set(e, ERR_INPUT, "config.json: sliding_window_pattern is not a count of layers");
	for (uint32_t i = 0; i < c->layers; i++) {
		bool sliding = i >= first && !(period && (i + 1) % period == 0) && !(c->arch->window == WINDOW_UNTURNED && c->layer[i].rope);
		c->layer[i].window = sliding ? window : 0;
		c->layer[i].local = sliding && c->arch->local_theta;
	}
	return ERR_OK;
}

static int parse_layers(const struct json *root, struct config *c, struct err *e)
{
	int rc;
	c->layer = arena_array(&c->arena, c->layers, sizeof *c->layer);
	if (!c->layer)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i] = (struct layer_config){ .heads = c->heads, .kv_heads = c->kv_heads, .kv_source = i, .rope = c->arch->turning != TURN_NONE,
						     .ffn = c->ffn };
	if (c->arch->turning == TURN_LISTED && (rc = parse_turning(root, c, e)))
		return rc;
	if ((rc = parse_windows(root, c, e)) || (rc = config_parse_experts(c, root, e)))
		return rc;
	for (uint32_t i = 0; i < c->layers && c->arch->turning == TURN_WINDOWED; i++)
		c->layer[i].rope = c->layer[i].window != 0;
	return config_parse_differ(c, root, e);
}

int config_parse(struct config *c, const char *json, size_t len, struct err *e)
{
	*c = (struct config){ 0 };
	struct json *root = json_parse(json, len, e);
	if (!root) {
		int code = e ? e->code : ERR_INPUT;
		err_prefix(e, "config.json");
		return code;
	}
	int rc = json_kind(root) == JSON_OBJECT ? ERR_OK : err_set(e, ERR_INPUT, "config.json: not a JSON object");
	if (!rc && !(rc = parse_arch(root, c, e)) && !(rc = config_keys_read(c, root, e)) && !(rc = check_keys(root, c, e)) &&
	    !(rc = parse_tokens(root, c, e)) && !(rc = parse_layers(root, c, e)))
		rc = config_parse_rope(c, root, e);
	json_free(root);
	if (rc)
		config_release(c);
	return rc;
}

void config_release(struct config *c)
{
	arena_release(&c->arena);
	*c = (struct config){ 0 };
}

struct config_widths config_widths(const struct config *c)
{
	struct config_widths w = { .input = c->hidden };
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		size_t q = (size_t)l->heads * c->head_dim, kv = (size_t)l->kv_heads * c->head_dim;
		w.q = q > w.q ? q : w.q;
		w.kv = kv > w.kv ? kv : w.kv;
		size_t ffn = l->mixture ? c->expert_ffn : l->ffn;
		w.ffn = ffn > w.ffn ? ffn : w.ffn;
	}
	w.input = w.q > w.input ? w.q : w.input;
	w.input = w.ffn > w.input ? w.ffn : w.input;
	return w;
}

float config_embed_scale(const struct config *c)
{
	return (c->embed_scale != 0 ? c->embed_scale : 1) * (c->arch->scale_embedding ? sqrtf((float)c->hidden) : 1);
}

bool config_kv_alone(const struct config *c, uint32_t layer)
{
	for (uint32_t i = 0; i < c->layers; i++)
		if ((c->layer[i].kv_source == layer) != (i == layer))
			return false;
	return true;
}

double config_kv_bytes(const struct config *c, uint64_t tokens, double bytes_per_element)
{
	double sum = 0;
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		if (l->kv_source != i)
			continue;
		uint64_t kept = l->window && l->window < tokens ? l->window : tokens;
		sum += 2.0 * (double)kept * l->kv_heads * c->head_dim * bytes_per_element;
	}
	return sum;
}
