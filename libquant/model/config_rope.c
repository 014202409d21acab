#include "model/config_rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/keys.h"

/*
 * Two spellings: `rope_theta` + `rope_scaling` (an object or null), and since
 * transformers 5 `rope_parameters` with both in one object. rope_scaling wins,
 * as there.
 */
struct source {
	const struct json *root, *dict;
	struct err *err;
	bool temper;
};

/* A finite number > 0 from the dictionary alone; missing or null: absent, or an error when that is 0. */
static int number(const struct source *s, const char *key, double absent, float *out)
{
	const struct json *j = json_get(s->dict, key);
	double v = absent;
	if (!json_is_null(j) && !json_number(j, &v))
		return err_set(s->err, ERR_INPUT, "config.json: rope %s is not a number", key);
	if (json_is_null(j) && absent == 0)
		return err_set(s->err, ERR_INPUT, "config.json: rope %s is missing", key);
	if (!(v > 0 && v < 1e12))
		return err_set(s->err, ERR_INPUT, "config.json: rope %s %g is out of range", key, v);
	*out = (float)v;
	return ERR_OK;
}

static int original_context(const struct source *s, struct config *c)
{
	const struct json *j = json_get(s->root, "original_max_position_embeddings");
	uint32_t own = c->arch->default_original_context;
	int64_t v = own ? own : c->context;
	if (json_is_null(j) && !own)
		j = json_get(s->dict, "original_max_position_embeddings");
	if (!json_is_null(j) && (!json_int(j, &v) || v < 1 || v > INT32_MAX))
		return err_set(s->err, ERR_INPUT, "config.json: original_max_position_embeddings is not a length");
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
		return err_set(s->err, ERR_INPUT, "config.json: rope high_freq_factor %g is not above low_freq_factor %g",
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
		return err_set(s->err, ERR_INPUT, "config.json: rope truncate is not true or false");
	bool both = json_number(json_get(s->dict, "mscale"), &ms) && json_number(json_get(s->dict, "mscale_all_dim"), &all) &&
		    ms != 0 && all != 0;
	double a = both ? yarn_scale(r->factor, ms) / yarn_scale(r->factor, all) : yarn_scale(r->factor, 1);
	return number(s, "attention_factor", a, &r->attention_factor);
}

/* n numbers above 0, in the arena. */
static int numbers(const struct source *s, const struct json *list, const char *key, struct config *c, const float **out)
{
	size_t n = c->rope.dims / 2, i = 0;
	if (json_kind(list) != JSON_ARRAY || json_count(list) != n)
		return err_set(s->err, ERR_INPUT, "config.json: %s is not a list of %zu numbers", key, n);
	float *d = arena_array(&c->arena, n, sizeof *d);
	if (!d)
		return err_nomem(s->err);
	for (const struct json *j = json_first(list); j; j = json_next(j), i++) {
		double v;
		if (!json_number(j, &v) || !(v > 1e-12 && v < 1e12))
			return err_set(s->err, ERR_INPUT, "config.json: %s[%zu] is not a number above 0", key, i);
		d[i] = (float)v;
	}
	*out = d;
	return ERR_OK;
}

static int parse_longrope(const struct source *s, struct config *c)
{
	struct rope *r = &c->rope;
	int rc = original_context(s, c);
	if (c->arch->local_theta)
		return err_set(s->err, ERR_UNSUPPORTED, "config.json: rope type \"longrope\" is not supported for %s", c->arch->name);
	if (rc || (rc = number(s, "factor", (double)c->context / r->original_context, &r->factor)) ||
	    (rc = numbers(s, json_get(s->dict, "short_factor"), "rope short_factor", c, &r->divisors)) ||
	    (rc = numbers(s, json_get(s->dict, "long_factor"), "rope long_factor", c, &r->far)))
		return rc;
	double a = r->factor <= 1 ? 1 : sqrt(1 + log(r->factor) / log(r->original_context));
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
	{ "longrope", ROPE_LONGROPE, parse_longrope },
};
enum { TYPES = sizeof types / sizeof *types };

static int parse_divisors(const struct source *s, struct config *c)
{
	const struct json *list = json_get(s->root, "rope_divisors");
	if (json_is_null(list))
		return ERR_OK;
	if (c->rope.scaling != ROPE_NONE)
		return err_set(s->err, ERR_INPUT, "config.json: rope_divisors and a rope type exclude each other");
	return numbers(s, list, "rope_divisors", c, &c->rope.divisors);
}

/* The object may say a value again that has a key of its own. */
static int own_value(const struct source *s, const struct arch *a, const char *key, size_t field, float *out)
{
	const struct json *j = json_get(s->dict, key);
	return json_is_null(j) ? ERR_OK : config_key_number(config_key_of(a, field), j, out, s->err);
}

static int parse_dims(struct config *c, struct err *e)
{
	float part = c->rope.part;
	if (part != 1 && !c->arch->partial_rotary)
		return err_set(e, ERR_UNSUPPORTED, "config.json: partial_rotary_factor %g is not part of %s", part, c->arch->name);
	c->rope.dims = (uint32_t)(c->head_dim * (double)part);
	if (c->rope.dims < 2 || c->rope.dims % 2)
		return err_set(e, ERR_INPUT, "config.json: heads of %u cannot be rotated in pairs", c->head_dim);
	return ERR_OK;
}

/* Members that no type reads could be anything. */
static int check_members(const struct source *s)
{
	static const char *const read[] = { "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "low_freq_factor",
					    "high_freq_factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale",
					    "mscale_all_dim", "attention_factor", "truncate", "short_factor", "long_factor",
					    "finetuned" /* says how the model was made */ };
	for (const struct json *j = json_first(s->dict); j; j = json_next(j)) {
		bool known = json_is_null(j);
		for (size_t i = 0; i < sizeof read / sizeof *read && !known; i++)
			known = !strcmp(read[i], json_key(j));
		/* the length again, which the class writes in here as well */
		known |= s->temper && (!strcmp(json_key(j), "llama_4_scaling_beta") || !strcmp(json_key(j), "max_position_embeddings"));
		if (!known)
			return err_set(s->err, ERR_UNSUPPORTED, "config.json: rope %.60s is set, which quire does not read", json_key(j));
	}
	return ERR_OK;
}

/* One object for each type of layer; those with a window turn unscaled. */
static int parse_local(struct source *s, struct config *c)
{
	const struct json *full = json_get(s->dict, "full_attention"), *local = json_get(s->dict, "sliding_attention");
	const char *type = json_string(json_get(local, "rope_type"));
	if (!full && !local)
		return ERR_OK;
	if (type && strcmp(type, "default"))
		return err_set(s->err, ERR_UNSUPPORTED, "config.json: rope type \"%.60s\" of layers with a window is not supported", type);
	s->dict = local;
	int rc = check_members(s);
	if (!rc)
		rc = own_value(s, c->arch, "rope_theta", offsetof(struct config, local_theta), &c->local_theta);
	s->dict = full;
	return rc;
}

/* Its class has no other default than one model's positions, and stops without the key. */
static int parse_temper(const struct source *s, struct config *c)
{
	double v;
	if (!json_number(json_get(s->dict, "llama_4_scaling_beta"), &v))
		return err_set(s->err, ERR_INPUT, "config.json: rope_parameters has no llama_4_scaling_beta");
	if (!(v >= 0 && v < 1e6))
		return err_set(s->err, ERR_INPUT, "config.json: llama_4_scaling_beta %g is out of range", v);
	c->rope.temper = (float)v;
	return original_context(s, c);
}

/* NULL: none that the class knows. */
static const char *type_of(const struct arch *a, const char *name)
{
	if (!name || !a->only_longrope || !strcmp(name, "default") || !strcmp(name, "longrope"))
		return name;
	return !strcmp(name, "su") || !strcmp(name, "yarn") ? "longrope" : NULL;
}

int config_parse_rope(struct config *c, const struct json *root, struct err *e)
{
	if (c->arch->turning == TURN_NONE) {
		c->rope = (struct rope){ .theta = 1, .part = 1, .dims = c->head_dim, .factor = 1, .attention_factor = 1 };
		return ERR_OK;
	}
	struct source s = { root, json_get(root, "rope_scaling"), e, c->arch->temper };
	int rc;
	static const char *const keys[] = { "rope_scaling", "rope_parameters" };
	for (int i = 0; i < 2; i++)
		if (!json_is_null(json_get(root, keys[i])) && json_kind(json_get(root, keys[i])) != JSON_OBJECT)
			return err_set(e, ERR_INPUT, "config.json: %s is not an object", keys[i]);
	if (!json_first(s.dict))
		s.dict = json_get(root, "rope_parameters");
	if (c->arch->local_theta && (rc = parse_local(&s, c)))
		return rc;
	const struct json *name = json_get(s.dict, "rope_type");
	float base = c->rope.theta, part = c->rope.part;
	if (json_is_null(name))
		name = json_get(s.dict, "type");
	if ((rc = own_value(&s, c->arch, "rope_theta", offsetof(struct config, rope.theta), &base)) ||
	    (rc = own_value(&s, c->arch, "partial_rotary_factor", offsetof(struct config, rope.part), &part)))
		return rc;
	c->rope = (struct rope){ .theta = base, .part = part, .factor = 1, .attention_factor = 1, .truncate = true,
				 .original_context = c->context };
	if ((rc = parse_dims(c, e)))
		return rc;
	if (c->arch->temper && (rc = parse_temper(&s, c)))
		return rc;
	const char *type = type_of(c->arch, json_is_null(name) ? "default" : json_string(name));
	for (int i = 0; type && i < TYPES; i++)
		if (!strcmp(type, types[i].name)) {
			c->rope.scaling = types[i].scaling;
			rc = types[i].parse(&s, c);
			if (!rc)
				rc = check_members(&s);
			return rc ? rc : parse_divisors(&s, c);
		}
	return err_set(e, ERR_UNSUPPORTED,
		       "config.json: rope type \"%.60s\" is not supported (supported: %s)",
		       type ? type : json_string(name) ? json_string(name) : "?",
		       c->arch->only_longrope ? "default, longrope" : "default, linear, llama3, yarn, longrope");
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

void config_print_floats(struct json_writer *w, const char *key, const float *v, size_t n)
{
	jw_array(w, key);
	for (size_t i = 0; i < n; i++)
		config_print_float(w, NULL, v[i]);
	jw_end_array(w);
}

void config_print_rope(const struct config *c, struct json_writer *w, bool with_theta)
{
	const struct rope *r = &c->rope;
	for (int i = 0; i < TYPES; i++)
		if (types[i].scaling == r->scaling)
			jw_string(w, "rope_type", types[i].name);
	if (with_theta)
		config_print_float(w, "rope_theta", r->theta);
	if (c->arch->temper)
		config_print_float(w, "llama_4_scaling_beta", r->temper);
	if (r->scaling == ROPE_NONE && r->temper != 0)
		jw_uint(w, "original_max_position_embeddings", r->original_context);
	if (r->scaling == ROPE_NONE)
		return;
	config_print_float(w, "factor", r->factor);
	if (r->scaling == ROPE_LLAMA3) {
		config_print_float(w, "low_freq_factor", r->low_freq);
		config_print_float(w, "high_freq_factor", r->high_freq);
	}
	if (r->scaling == ROPE_LONGROPE) {
		config_print_float(w, "attention_factor", r->attention_factor);
		config_print_floats(w, "short_factor", r->divisors, r->dims / 2);
		config_print_floats(w, "long_factor", r->far, r->dims / 2);
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
