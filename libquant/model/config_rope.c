#include "model/config_rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"

/*
 * Two spellings: `rope_theta` + `rope_scaling` (an object or null), and since
 * transformers 5 `rope_parameters` with both in one object. rope_scaling wins,
 * as there.
 */
struct source {
	const struct json *root, *dict;
	struct err *e;
};

static const struct json *find(const struct source *s, const char *key)
{
	const struct json *j = json_get(s->dict, key);
	return json_is_null(j) ? json_get(s->root, key) : j;
}

/* A finite number > 0 from the dictionary alone; missing or null: absent, or an error when that is 0. */
static int number(const struct source *s, const char *key, double absent, float *out)
{
	const struct json *j = json_get(s->dict, key);
	double v = absent;
	if (!json_is_null(j) && !json_number(j, &v))
		return err_set(s->e, ERR_INPUT, "config.json: rope %s is not a number", key);
	if (json_is_null(j) && absent == 0)
		return err_set(s->e, ERR_INPUT, "config.json: rope %s is missing", key);
	if (!(v > 0 && v < 1e12))
		return err_set(s->e, ERR_INPUT, "config.json: rope %s %g is out of range", key, v);
	*out = (float)v;
	return ERR_OK;
}

static int original_context(const struct source *s, struct config *c)
{
	const struct json *j = json_get(s->root, "original_max_position_embeddings");
	int64_t v = c->context;
	if (json_is_null(j))
		j = json_get(s->dict, "original_max_position_embeddings");
	if (!json_is_null(j) && (!json_int(j, &v) || v < 1 || v > INT32_MAX))
		return err_set(s->e, ERR_INPUT, "config.json: original_max_position_embeddings is not a length");
	c->rope.original_context = (uint32_t)v;
	return ERR_OK;
}

static int parse_none(const struct source *s, struct config *c)
{
	(void)s;
	c->rope.factor = 1;
	return ERR_OK;
}

static int parse_linear(const struct source *s, struct config *c)
{
	return number(s, "factor", 0, &c->rope.factor);
}

static int parse_llama3(const struct source *s, struct config *c)
{
	struct rope *r = &c->rope;
	int rc;
	if ((rc = number(s, "factor", 0, &r->factor)) || (rc = number(s, "low_freq_factor", 0, &r->low_freq)) ||
	    (rc = number(s, "high_freq_factor", 0, &r->high_freq)))
		return rc;
	if (r->high_freq <= r->low_freq)
		return err_set(s->e, ERR_INPUT, "config.json: rope high_freq_factor %g is not above low_freq_factor %g",
			       r->high_freq, r->low_freq);
	return original_context(s, c);
}

static double yarn_scale(double factor, double mscale)
{
	return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int parse_yarn(const struct source *s, struct config *c)
{
	struct rope *r = &c->rope;
	double ms = 0, all = 0;
	int rc;
	if ((rc = original_context(s, c)) ||
	    (rc = number(s, "factor", (double)c->context / r->original_context, &r->factor)) ||
	    (rc = number(s, "beta_fast", 32, &r->beta_fast)) || (rc = number(s, "beta_slow", 1, &r->beta_slow)))
		return rc;
	if (!json_is_null(json_get(s->dict, "truncate")) && !json_bool(json_get(s->dict, "truncate"), &r->truncate))
		return err_set(s->e, ERR_INPUT, "config.json: rope truncate is not true or false");
	bool both = json_number(json_get(s->dict, "mscale"), &ms) && json_number(json_get(s->dict, "mscale_all_dim"), &all) &&
		    ms != 0 && all != 0;
	double a = both ? yarn_scale(r->factor, ms) / yarn_scale(r->factor, all) : yarn_scale(r->factor, 1);
	return number(s, "attention_factor", a, &r->attention_factor);
}

static const struct {
	const char *name;
	enum rope_scaling scaling;
	int (*parse)(const struct source *s, struct config *c);
} types[] = {
	{ "default", ROPE_NONE, parse_none },
	{ "linear", ROPE_LINEAR, parse_linear },
	{ "llama3", ROPE_LLAMA3, parse_llama3 },
	{ "yarn", ROPE_YARN, parse_yarn },
};
enum { TYPES = sizeof types / sizeof *types };

static int parse_divisors(const struct source *s, struct config *c)
{
	const struct json *list = json_get(s->root, "rope_divisors");
	if (json_is_null(list))
		return ERR_OK;
	size_t n = c->rope.dims / 2, i = 0;
	if (json_kind(list) != JSON_ARRAY || json_count(list) != n)
		return err_set(s->e, ERR_INPUT, "config.json: rope_divisors is not a list of %zu numbers", n);
	if (c->rope.scaling != ROPE_NONE)
		return err_set(s->e, ERR_INPUT, "config.json: rope_divisors and a rope type exclude each other");
	float *d = arena_array(&c->arena, n, sizeof *d);
	if (!d)
		return err_nomem(s->e);
	for (const struct json *j = json_first(list); j; j = json_next(j), i++) {
		double v;
		if (!json_number(j, &v) || !(v > 1e-12 && v < 1e12))
			return err_set(s->e, ERR_INPUT, "config.json: rope_divisors[%zu] is not a number above 0", i);
		d[i] = (float)v;
	}
	c->rope.divisors = d;
	return ERR_OK;
}

static int parse_dims(const struct source *s, struct config *c)
{
	const struct json *j = find(s, "partial_rotary_factor");
	double part = 1;
	if (!json_is_null(j) && (!json_number(j, &part) || !(part > 0 && part <= 1)))
		return err_set(s->e, ERR_INPUT, "config.json: partial_rotary_factor is not within 0 to 1");
	if (part != 1 && !c->arch->partial_rotary)
		return err_set(s->e, ERR_UNSUPPORTED, "config.json: partial_rotary_factor %g is not part of %s", part, c->arch->name);
	c->rope.dims = (uint32_t)(c->head_dim * part);
	if (c->rope.dims < 2 || c->rope.dims % 2)
		return err_set(s->e, ERR_INPUT, "config.json: heads of %u cannot be rotated in pairs", c->head_dim);
	return ERR_OK;
}

int config_parse_rope(struct config *c, const struct json *root, struct err *e)
{
	struct source s = { root, json_get(root, "rope_scaling"), e };
	static const char *const keys[] = { "rope_scaling", "rope_parameters" };
	for (int i = 0; i < 2; i++)
		if (!json_is_null(json_get(root, keys[i])) && json_kind(json_get(root, keys[i])) != JSON_OBJECT)
			return err_set(e, ERR_INPUT, "config.json: %s is not an object", keys[i]);
	if (!json_first(s.dict))
		s.dict = json_get(root, "rope_parameters");
	const struct json *name = json_get(s.dict, "rope_type"), *theta = find(&s, "rope_theta");
	double base = c->arch->default_theta;
	int rc;
	if (json_is_null(name))
		name = json_get(s.dict, "type");
	if (!json_is_null(theta) && !json_number(theta, &base))
		return err_set(e, ERR_INPUT, "config.json: rope_theta is not a number");
	if (!(base > 1 && base < 1e15))
		return err_set(e, ERR_INPUT, "config.json: rope_theta %g is out of range", base);
	c->rope = (struct rope){ .theta = (float)base, .factor = 1, .attention_factor = 1, .truncate = true,
				 .original_context = c->context };
	if ((rc = parse_dims(&s, c)))
		return rc;
	const char *type = json_is_null(name) ? "default" : json_string(name);
	for (int i = 0; type && i < TYPES; i++)
		if (!strcmp(type, types[i].name)) {
			c->rope.scaling = types[i].scaling;
			rc = types[i].parse(&s, c);
			return rc ? rc : parse_divisors(&s, c);
		}
	return err_set(e, ERR_UNSUPPORTED,
		       "config.json: rope type \"%.60s\" is not supported (supported: default, linear, llama3, yarn)",
		       type ? type : "?");
}

void config_print_float(struct json_writer *w, const char *key, float v)
{
	char text[40];
	for (int digits = 1; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)v);
		if (strtof(text, NULL) == v)
			break;
	}
	/* whole numbers as "10000.0": readers that tell integers from floats expect a float here */
	if (v == floorf(v) && fabsf(v) < 1e9f)
		snprintf(text, sizeof text, "%.1f", (double)v);
	jw_raw(w, key, text);
}

void config_print_rope(const struct config *c, struct json_writer *w, bool with_theta)
{
	const struct rope *r = &c->rope;
	for (int i = 0; i < TYPES; i++)
		if (types[i].scaling == r->scaling)
			jw_string(w, "rope_type", types[i].name);
	if (with_theta)
		config_print_float(w, "rope_theta", r->theta);
	if (r->scaling == ROPE_NONE)
		return;
	config_print_float(w, "factor", r->factor);
	if (r->scaling == ROPE_LLAMA3) {
		config_print_float(w, "low_freq_factor", r->low_freq);
		config_print_float(w, "high_freq_factor", r->high_freq);
	}
	if (r->scaling == ROPE_YARN) {
		config_print_float(w, "beta_fast", r->beta_fast);
		config_print_float(w, "beta_slow", r->beta_slow);
		config_print_float(w, "attention_factor", r->attention_factor);
		jw_bool(w, "truncate", r->truncate);
	}
	if (r->scaling != ROPE_LINEAR)
		jw_uint(w, "original_max_position_embeddings", r->original_context);
}
