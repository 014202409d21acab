#include <string.h>

#include "model/arch.h"
#include "model/config_differ.h"
#include "model/config_experts.h"
#include "model/config_rope.h"
#include "model/keys.h"

static void print_tokens(const struct config *c, struct json_writer *w)
{
	if (c->has_bos)
		jw_int(w, "bos_token_id", c->bos);
	else
		jw_null(w, "bos_token_id");
	if (c->eos_count == 1)
		jw_int(w, "eos_token_id", c->eos[0]);
	else if (!c->eos_count)
		jw_null(w, "eos_token_id");
	else {
		jw_array(w, "eos_token_id");
		for (uint32_t i = 0; i < c->eos_count; i++)
			jw_int(w, NULL, c->eos[i]);
		jw_end_array(w);
	}
}

static void print_rope(const struct config *c, struct json_writer *w, bool parameters)
{
	const struct rope *r = &c->rope;
	if (c->arch->turning == TURN_NONE)
		return;
	if (parameters || c->arch->temper) {
		jw_object(w, "rope_parameters");
		if (c->arch->local_theta)
			jw_object(w, "full_attention");
		config_print_rope(c, w, true);
		if (c->arch->local_theta) {
			jw_end_object(w);
			jw_object(w, "sliding_attention");
			jw_string(w, "rope_type", "default");
			config_print_float(w, "rope_theta", c->local_theta);
			jw_end_object(w);
		}
		jw_end_object(w);
	} else {
		config_key_print(c, config_key_of(c->arch, offsetof(struct config, rope.theta)), w);
		if (r->scaling == ROPE_NONE)
			jw_null(w, "rope_scaling");
		else {
			jw_object(w, "rope_scaling");
			config_print_rope(c, w, false);
			jw_end_object(w);
		}
	}
	const struct config_key *part = config_key_of(c->arch, offsetof(struct config, rope.part));
	if (r->part != (float)part->absent)
		config_key_print(c, part, w);
	if (c->arch->default_original_context && r->scaling != ROPE_NONE)
		jw_uint(w, "original_max_position_embeddings", r->original_context);
	if (r->divisors && r->scaling != ROPE_LONGROPE)
		config_print_floats(w, "rope_divisors", r->divisors, r->dims / 2);
}

static void print_windows(const struct config *c, struct json_writer *w, uint32_t window, bool all)
{
	const struct arch *a = c->arch;
	bool from = a->window == WINDOW_FROM_LAYER, types = window_has_types(a->window);
	/* a class that takes no null, nor windows that no layer has without being told so */
	bool told = !window && a->differ == DIFFER_SUFFIX;
	window = told ? a->default_window : window;
	bool plain = !window || types || (all && (a->window == WINDOW_ALL || a->window == WINDOW_SWITCHED));
	if (window_has_switch(a->window))
		jw_bool(w, "use_sliding_window", window != 0);
	if (from)
		jw_uint(w, "max_window_layers", c->layers);
	/* a class without a key for single layers has full attention elsewhere */
	if (window && plain)
		jw_uint(w, "sliding_window", window);
	else if (a->window != WINDOW_NONE)
		jw_null(w, "sliding_window");
	if (!window || (plain && !types))
		return;
	jw_array(w, types ? "layer_types" : "window_per_layer");
	for (uint32_t i = 0; i < c->layers; i++)
		if (types)
			jw_string(w, NULL, c->layer[i].window ? "sliding_attention" : "full_attention");
		else
			jw_uint(w, NULL, c->layer[i].window);
	jw_end_array(w);
}

struct pattern {
	uint32_t window;
	bool all_windowed;
};

static int find_pattern(const struct config *c, struct pattern *p, struct err *e)
{
	*p = (struct pattern){ .all_windowed = true };
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		if ((c->arch->local_theta && l->local != (l->window != 0)) || l->heads != c->layer[0].heads || !config_turning_said(c, i) ||
		    (l->window && p->window && l->window != p->window))
			return err_set(e, ERR_UNSUPPORTED, "config.json: no key says that layer %u differs in its heads, positions "
				       "or window length", i);
		p->window = l->window ? l->window : p->window;
		p->all_windowed &= l->window != 0;
	}
	return ERR_OK;
}

/* Some families know one KV head, or as many as there are heads. */
static int one_or_all(const struct config *c, struct err *e)
{
	const struct config_key *k = config_key_of(c->arch, offsetof(struct config, kv_heads));
	for (uint32_t i = 0; i < c->layers && k->kind == KEY_ONE_KV; i++)
		if (c->layer[i].kv_heads != c->layer[0].kv_heads || (c->layer[i].kv_heads != 1 && c->layer[i].kv_heads != c->heads))
			return err_set(e, ERR_UNSUPPORTED, "config.json: %s has no key for %u KV heads of %u heads (layer %u); .quire and .gguf can",
				       c->arch->name, c->layer[i].kv_heads, c->heads, i);
	return ERR_OK;
}

static void print_layers(const struct config *c, const struct pattern *p, const char *key, struct json_writer *w)
{
	uint32_t most = 0;
	for (uint32_t i = 0; i < c->layers; i++)
		most = c->layer[i].kv_heads > most ? c->layer[i].kv_heads : most;
	if (config_key_of(c->arch, offsetof(struct config, kv_heads))->kind == KEY_ONE_KV)
		jw_bool(w, key, most == 1);
	else
		jw_uint(w, key, most);
	config_print_differ(c, w);
	if (c->arch->turning == TURN_LISTED) {
		jw_array(w, "no_rope_layers");
		for (uint32_t i = 0; i < c->layers; i++)
			jw_uint(w, NULL, c->layer[i].rope);
		jw_end_array(w);
	}
	print_windows(c, w, p->window, p->all_windowed);
}

static int copy_others(struct json_writer *w, const struct arch *a, const struct json *base, struct err *e)
{
	struct strbuf value = { 0 };
	/* another family's keys are not this one's */
	const char *type = json_string(json_get(base, "model_type"));
	bool same = !type || !strcmp(type, a->name);
	for (const struct json *j = json_first(base); j; j = json_next(j))
		if (!config_key_reads(a, json_key(j)) && (same || config_key_harmless(json_key(j)))) {
			strbuf_clear(&value);
			json_print(j, &value);
			jw_raw(w, json_key(j), value.data ? value.data : "null");
		}
	bool failed = value.failed;
	strbuf_release(&value);
	return failed ? err_nomem(e) : ERR_OK;
}

/* Flags that a family has always or never have no key there. */
static bool written(const struct arch *a, const struct config_key *k)
{
	return !(k->field == offsetof(struct config, qkv_bias) && a->qkv_bias != BIAS_CONFIG) &&
	       !(k->field == offsetof(struct config, mlp_bias) && a->mlp_bias != BIAS_CONFIG);
}

/* A family's own keys stand in front of those of positions. */
static void print_keys(const struct config *c, const struct pattern *p, bool parameters, struct json_writer *w)
{
	const struct config_key *k;
	for (unsigned i = 0; (k = config_key_at(c->arch, i)); i++) {
		if (k->field == offsetof(struct config, kv_heads))
			print_layers(c, p, k->json, w);
		else if (k->field == offsetof(struct config, rope.theta)) {
			for (unsigned own = i; config_key_at(c->arch, own); own++)
				if (config_key_own(c->arch, config_key_at(c->arch, own)))
					config_key_print(c, config_key_at(c->arch, own), w);
			config_print_experts(c, w);
			print_rope(c, w, parameters);
		} else if (k->field != offsetof(struct config, rope.part) && !config_key_own(c->arch, k) && written(c->arch, k))
			config_key_print(c, k, w);
	}
}

int config_print(const struct config *c, const char *base, size_t base_len, struct strbuf *out, struct err *e)
{
	const struct arch *a = c->arch;
	struct pattern p;
	struct json *old = NULL;
	int rc = find_pattern(c, &p, e);
	if (!rc)
		rc = one_or_all(c, e);
	if (rc)
		return rc;
	if (base && !(old = json_parse(base, base_len, e)))
		return e ? e->code : ERR_INPUT;
	struct json_writer w = { .out = out, .indent = 2 };
	jw_object(&w, NULL);
	jw_array(&w, "architectures");
	jw_string(&w, NULL, a->hf_class);
	jw_end_array(&w);
	jw_string(&w, "model_type", a->name);
	print_keys(c, &p, a->differ == DIFFER_SUFFIX || !json_is_null(json_get(old, "rope_parameters")), &w);
	print_tokens(c, &w);
	rc = copy_others(&w, a, old, e);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	json_free(old);
	return rc ? rc : out->failed ? err_nomem(e) : ERR_OK;
}
