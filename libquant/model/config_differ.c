#include "model/config_differ.h"

#include <string.h>

#include "model/config_rope.h"

enum { MAX_SIZE = 1 << 20 }; /* as in keys.c */

int config_list(const struct json *j, const char *key, const struct config *c, struct err *e)
{
	if (json_kind(j) != JSON_ARRAY || json_count(j) != c->layers)
		return err_set(e, ERR_INPUT, "config.json: %s is not a list of %u entries, one per layer", key, c->layers);
	return ERR_OK;
}

bool config_differ_key(const struct arch *a, const char *key)
{
	switch (a->differ) {
	case DIFFER_BLOCKS: return !strcmp(key, "block_configs");
	case DIFFER_SUFFIX: return !strcmp(key, "num_kv_shared_layers") || !strcmp(key, "output_router_logits");
	case DIFFER_OWN: break;
	}
	return false;
}

uint32_t config_suffix_source(const struct config *c, uint32_t n, uint32_t i)
{
	uint32_t first = c->layers - n;
	for (uint32_t k = i < first ? 0 : first; k-- > 0;)
		if (!c->layer[k].window == !c->layer[i].window)
			return k;
	return i;
}

uint32_t config_suffix(const struct config *c)
{
	uint32_t n = 0;
	while (n < c->layers && c->layer[c->layers - n - 1].kv_source != c->layers - n - 1)
		n++;
	return n;
}

/* quire's own lists of counts. */
static int parse_counts(const struct json *root, const char *key, size_t field, const char *of, struct config *c, struct err *e)
{
	const struct json *list = json_get(root, key), *j;
	int rc = json_is_null(list) ? ERR_OK : config_list(list, key, c, e);
	uint32_t i = 0;
	int64_t v;
	for (j = json_first(list); j && !rc; j = json_next(j), i++) {
		if (!json_int(j, &v) || v < 1 || v > MAX_SIZE)
			return err_set(e, ERR_INPUT, "config.json: %s[%u] is not a count of %s", key, i, of);
		*(uint32_t *)(void *)((char *)&c->layer[i] + field) = (uint32_t)v;
	}
	return rc;
}

/* A block: attention with so many query heads to a KV head, a feed-forward of so many channels. */
static int parse_block(const struct json *j, uint32_t i, struct config *c, struct err *e)
{
	const struct json *attention = json_get(j, "attention"), *ffn = json_get(j, "ffn"), *wide = json_get(ffn, "intermediate_size");
	bool no = false;
	int64_t group, width;
	double mult;
	if ((json_bool(json_get(attention, "no_op"), &no) && no) || (json_bool(json_get(ffn, "no_op"), &no) && no) ||
	    (json_bool(json_get(attention, "replace_with_linear"), &no) && no) || (json_bool(json_get(ffn, "replace_with_linear"), &no) && no))
		return err_set(e, ERR_UNSUPPORTED, "config.json: block_configs[%u] has no attention or no feed-forward, which is not implemented", i);
	if (!json_int(json_get(attention, "n_heads_in_group"), &group) || group < 1 || c->layer[i].heads % group)
		return err_set(e, ERR_INPUT, "config.json: block_configs[%u]: n_heads_in_group does not divide %u heads", i, c->layer[i].heads);
	c->layer[i].kv_heads = c->layer[i].heads / (uint32_t)group;
	if (json_int(wide, &width))
		;
	else if (json_number(json_get(ffn, "ffn_mult"), &mult) && mult > 0 && mult < MAX_SIZE)
		width = ((int64_t)(2 * mult * c->hidden / 3) + 255) / 256 * 256;
	else
		return err_set(e, ERR_INPUT, "config.json: block_configs[%u] has neither intermediate_size nor ffn_mult", i);
	if (width < 1 || width > MAX_SIZE)
		return err_set(e, ERR_INPUT, "config.json: block_configs[%u]: a feed-forward of %lld channels", i, (long long)width);
	c->layer[i].ffn = (uint32_t)width;
	return ERR_OK;
}

static int parse_blocks(const struct json *root, struct config *c, struct err *e)
{
	const struct json *list = json_get(root, "block_configs");
	int rc = json_is_null(list) ? ERR_OK : config_list(list, "block_configs", c, e);
	uint32_t i = 0;
	for (const struct json *j = json_first(list); j && !rc; j = json_next(j))
		rc = parse_block(j, i++, c, e);
	return rc;
}

static int parse_suffix(const struct json *root, struct config *c, struct err *e)
{
	const struct json *last = json_get(root, "num_kv_shared_layers");
	int64_t n = 0;
	if (!json_is_null(last) && (!json_int(last, &n) || n < 0 || n >= c->layers))
		return err_set(e, ERR_INPUT, "config.json: num_kv_shared_layers is not a count below the %u layers", c->layers);
	for (uint32_t i = c->layers - (uint32_t)n; i < c->layers; i++) {
		c->layer[i].kv_source = config_suffix_source(c, (uint32_t)n, i);
		if (c->layer[i].kv_source == i)
			return err_set(e, ERR_INPUT, "config.json: num_kv_shared_layers %lld: no layer like %u is left to read", (long long)n, i);
	}
	return ERR_OK;
}

/* The layer whose KV cache each layer reads. */
static int parse_sources(const struct json *root, struct config *c, struct err *e)
{
	/* the second was quire's own before a published class had the first */
	static const char *const keys[] = { "kv_source_layers", "kv_source_layer" };
	const char *key = keys[json_is_null(json_get(root, keys[0]))];
	const struct json *list = json_get(root, key);
	uint32_t i = 0;
	int64_t v;
	int rc = json_is_null(list) ? ERR_OK : config_list(list, key, c, e);
	for (const struct json *j = json_first(list); j && !rc; j = json_next(j), i++) {
		if (!json_int(j, &v) || v < 0 || v > i)
			return err_set(e, ERR_INPUT, "config.json: %s[%u] is not this layer or one before it", key, i);
		c->layer[i].kv_source = (uint32_t)v;
		if (v < i && c->layer[v].kv_source != v)
			return err_set(e, ERR_INPUT, "config.json: %s[%u] is %lld, which has no KV cache of its own", key, i, (long long)v);
	}
	return rc;
}

int config_parse_differ(struct config *c, const struct json *root, struct err *e)
{
	int rc = parse_counts(root, "kv_heads_per_layer", offsetof(struct layer_config, kv_heads), "heads", c, e);
	if (!rc)
		rc = parse_counts(root, "ffn_per_layer", offsetof(struct layer_config, ffn), "channels", c, e);
	if (!rc && c->arch->differ == DIFFER_BLOCKS)
		rc = parse_blocks(root, c, e);
	if (!rc && c->arch->differ == DIFFER_SUFFIX)
		rc = parse_suffix(root, c, e);
	if (!rc)
		rc = parse_sources(root, c, e);
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		const struct layer_config *l = &c->layer[i], *s = &c->layer[l->kv_source];
		if (l->heads % l->kv_heads)
			rc = err_set(e, ERR_INPUT, "config.json: layer %u has %u heads, not a multiple of its %u KV heads", i, l->heads,
				     l->kv_heads);
		else if (l->kv_heads != s->kv_heads || l->window != s->window)
			rc = err_set(e, ERR_INPUT, "config.json: layers %u and %u share a KV cache but differ in %s", i, l->kv_source,
				     l->window != s->window ? "window" : "KV heads");
	}
	return rc;
}

static void print_counts(const struct config *c, const char *key, size_t field, struct json_writer *w)
{
	bool same = true;
	for (uint32_t i = 0; i < c->layers; i++)
		same &= !memcmp((const char *)&c->layer[i] + field, (const char *)&c->layer[0] + field, sizeof(uint32_t));
	if (same)
		return;
	jw_array(w, key);
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(w, NULL, *(const uint32_t *)(const void *)((const char *)&c->layer[i] + field));
	jw_end_array(w);
}

/* Multiples of 256 are also said as converters read them. */
static void print_blocks(const struct config *c, struct json_writer *w)
{
	jw_array(w, "block_configs");
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		jw_object(w, NULL);
		jw_object(w, "attention");
		jw_bool(w, "no_op", false);
		jw_bool(w, "replace_with_linear", false);
		jw_uint(w, "n_heads_in_group", l->heads / l->kv_heads);
		jw_end_object(w);
		jw_object(w, "ffn");
		jw_bool(w, "no_op", false);
		jw_bool(w, "replace_with_linear", false);
		if (l->ffn % 256 == 0)
			config_print_float(w, "ffn_mult", 1.5f * (float)l->ffn / (float)c->hidden);
		jw_uint(w, "intermediate_size", l->ffn);
		jw_end_object(w);
		jw_end_object(w);
	}
	jw_end_array(w);
}

static bool as_suffix(const struct config *c)
{
	uint32_t n = config_suffix(c);
	for (uint32_t i = 0; i < c->layers; i++)
		if (c->layer[i].kv_source != (i < c->layers - n ? i : config_suffix_source(c, n, i)))
			return false;
	return true;
}

static void print_suffix(const struct config *c, struct json_writer *w)
{
	jw_uint(w, "num_kv_shared_layers", as_suffix(c) ? config_suffix(c) : 0);
	/* has no router; keeps transformers 5.24 from cutting embeddings per layer, which are not there either, and failing */
	if (config_suffix(c))
		jw_bool(w, "output_router_logits", true);
}

void config_print_differ(const struct config *c, struct json_writer *w)
{
	bool shared = false;
	if (c->arch->differ == DIFFER_BLOCKS)
		print_blocks(c, w);
	else
		print_counts(c, "ffn_per_layer", offsetof(struct layer_config, ffn), w);
	if (c->arch->differ == DIFFER_SUFFIX)
		print_suffix(c, w);
	if (c->arch->differ != DIFFER_BLOCKS)
		print_counts(c, "kv_heads_per_layer", offsetof(struct layer_config, kv_heads), w);
	for (uint32_t i = 0; i < c->layers; i++)
		shared |= c->layer[i].kv_source != i;
	if (!shared || (c->arch->differ == DIFFER_SUFFIX && as_suffix(c)))
		return;
	jw_array(w, "kv_source_layers");
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(w, NULL, c->layer[i].kv_source);
	jw_end_array(w);
}
