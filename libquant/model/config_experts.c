#include "model/config_experts.h"

#include <string.h>

/* Far beyond any model; they keep sizes within 64 bits and what is kept for each expert within memory. */
enum { MOST_WIDE = 1 << 20, MOST_OF_ALL_LAYERS = 1 << 18 };

bool config_experts_key(const struct arch *a, const char *key)
{
	static const char *const always[] = { "num_local_experts", "num_experts", "num_experts_per_tok" };
	static const char *const keyed[] = { "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers" };
	const struct mixture *m = a->mixture;
	if (!m)
		return false;
	for (size_t i = 0; i < sizeof always / sizeof *always; i++)
		if (!strcmp(key, always[i]))
			return true;
	for (size_t i = 0; i < sizeof keyed / sizeof *keyed; i++)
		if ((m->keys || (m->norm_key && !i)) && !strcmp(key, keyed[i]))
			return true;
	return m->width_key && !strcmp(key, m->width_key);
}

static int get_count(const struct json *root, const char *key, uint32_t most, uint32_t absent, uint32_t *out, struct err *e)
{
	const struct json *j = json_get(root, key);
	int64_t v = absent;
	if (!json_is_null(j) && !json_int(j, &v))
		return err_set(e, ERR_INPUT, "config.json: %s is not a whole number", key);
	if (v < 1 || v > most)
		return err_set(e, ERR_INPUT, "config.json: %s is %lld, not within 1 to %u", key, (long long)v, most);
	*out = (uint32_t)v;
	return ERR_OK;
}

/* Every decoder_sparse_step'th layer is a mixture, but for those listed. */
static int choose_layers(struct config *c, const struct json *root, struct err *e)
{
	const struct json *only = json_get(root, "mlp_only_layers");
	uint32_t step;
	int64_t layer;
	int rc = get_count(root, "decoder_sparse_step", INT32_MAX, 1, &step, e);
	for (uint32_t i = 0; i < c->layers && !rc; i++)
		c->layer[i].mixture = (i + 1) % step == 0;
	if (!rc && !json_is_null(only) && json_kind(only) != JSON_ARRAY)
		return err_set(e, ERR_INPUT, "config.json: mlp_only_layers is not a list of layers");
	for (const struct json *j = json_first(only); j && !rc; j = json_next(j))
		if (!json_int(j, &layer) || layer < 0)
			rc = err_set(e, ERR_INPUT, "config.json: mlp_only_layers lists something else than a layer");
		else if (layer < c->layers) /* others are no layers of any kind */
			c->layer[layer].mixture = false;
	return rc;
}

int config_parse_experts(struct config *c, const struct json *root, struct err *e)
{
	const struct mixture *m = c->arch->mixture;
	const char *count = json_get(root, "num_experts") ? "num_experts" : "num_local_experts";
	int rc;
	if (!m)
		return ERR_OK;
	c->experts_sum_to_one = m->renormalize;
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i].mixture = true;
	if ((rc = get_count(root, count, MAX_EXPERTS, m->default_experts, &c->experts, e)) ||
	    (rc = get_count(root, "num_experts_per_tok", c->experts, m->default_used, &c->experts_used, e)))
		return rc;
	if ((uint64_t)c->experts * c->layers > MOST_OF_ALL_LAYERS)
		return err_set(e, ERR_INPUT, "config.json: %u layers of %u experts are more than %d experts", c->layers, c->experts,
			       (int)MOST_OF_ALL_LAYERS);
	c->expert_ffn = c->ffn;
	if (m->width_key && (rc = get_count(root, m->width_key, MOST_WIDE, m->default_width, &c->expert_ffn, e)))
		return rc;
	const struct json *norm = json_get(root, "norm_topk_prob");
	if ((m->keys || m->norm_key) && !json_is_null(norm) && !json_bool(norm, &c->experts_sum_to_one))
		return err_set(e, ERR_INPUT, "config.json: norm_topk_prob is not true or false");
	return m->keys ? choose_layers(c, root, e) : ERR_OK;
}

void config_print_experts(const struct config *c, struct json_writer *w)
{
	const struct mixture *m = c->arch->mixture;
	if (!m)
		return;
	/* the older of the two names, which every version of transformers reads */
	jw_uint(w, m->width_key || m->num_experts ? "num_experts" : "num_local_experts", c->experts);
	jw_uint(w, "num_experts_per_tok", c->experts_used);
	if (m->width_key)
		jw_uint(w, m->width_key, c->expert_ffn);
	if (m->keys || m->norm_key)
		jw_bool(w, "norm_topk_prob", c->experts_sum_to_one);
	if (!m->keys)
		return;
	jw_uint(w, "decoder_sparse_step", 1);
	jw_array(w, "mlp_only_layers");
	for (uint32_t i = 0; i < c->layers; i++)
		if (!c->layer[i].mixture)
			jw_uint(w, NULL, i);
	jw_end_array(w);
}

uint32_t config_mixtures(const struct config *c)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < c->layers; i++)
		n += c->layer[i].mixture;
	return n;
}
