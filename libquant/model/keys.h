#ifndef QUIRE_MODEL_KEYS_H
#define QUIRE_MODEL_KEYS_H
/*
 * Keys of config.json and of GGUF's metadata. A row is one value of struct config under its names; readers and writers of
 * both go by the rows. A family's row for a value (model/family/) stands in for the common one. What config.json says
 * under a key that no row reads is refused, unless it is known to leave the computation alone.
 */
#include "base/json.h"
#include "model/config.h"

enum key_kind {
	KEY_END,
	KEY_COUNT,     /* uint32_t from 1 to most */
	KEY_PER_LAYER, /* the same; GGUF has one number, or one for each layer */
	KEY_NUMBER,    /* float from least to most; null stands for a missing key */
	KEY_LIMIT,     /* the same; null turns it off: 0, and 0 is written as null */
	KEY_FLAG,      /* bool */
	KEY_ACT,       /* enum activation */
	KEY_ONE_KV,    /* a bool: all query heads read one KV head, else each has its own; a count for each layer in GGUF */
	KEY_ONLY,      /* a bool that must be what it is where the key is missing: the family knows no other */
	KEY_SAME,      /* a count that must be what layer_field of struct config is, or 0 without one */
	KEY_DIMS,      /* so many dimensions of a head are turned, held as the part of it that they are */
	KEY_LISTED,    /* read by code of its own, or by no class of the family: here only so that it is known */
};
#define NO_FIELD SIZE_MAX
#define LISTED(name) { .json = name, .kind = KEY_LISTED, .field = NO_FIELD }

struct config_key {
	const char *json;        /* NULL: this family has no such key */
	const char *gguf;        /* behind "{architecture}."; NULL: GGUF has no such key */
	enum key_kind kind;
	size_t field;            /* in struct config, or NO_FIELD */
	size_t layer_field;      /* KEY_PER_LAYER: in struct layer_config */
	double least, most;
	double absent;           /* the value where the key is missing ... */
	double (*otherwise)(const struct config *c, bool null); /* ... or this, where it is missing or null; 0 of a count: an error */
	float (*implied)(const struct config *c); /* what GGUF's readers take, who have no key for it */
	bool whole;              /* a float that config.json writes as a whole number where it is one: its class takes no other */
	bool gguf_required;      /* readers of GGUF refuse a model without it */
	const char *old;         /* its name in older files */
	bool also;               /* a second key for the value: read where it is there, never written */
};

/* The rows of a family in the order of config.json, its own for what is common in their place, the rest behind; NULL past the end. */
const struct config_key *config_key_at(const struct arch *a, unsigned i);
/* The row of a value. */
const struct config_key *config_key_of(const struct arch *a, size_t field);
/* Behind the common rows? */
bool config_key_own(const struct arch *a, const struct config_key *k);

/* For `otherwise`: a feed-forward of four times the width; heads that share the width evenly. */
double key_four_times(const struct config *c, bool null);
double key_even_heads(const struct config *c, bool null);

/* Reads every row's value; c->arch is known. */
int config_keys_read(struct config *c, const struct json *root, struct err *e);
/* Writes the member of config.json; nothing for rows of other code. */
void config_key_print(const struct config *c, const struct config_key *k, struct json_writer *w);
/* The same of a number. */
void config_key_print_value(const struct config_key *k, float v, struct json_writer *w);
/* One value by its row, from elsewhere in config.json. */
int config_key_number(const struct config_key *k, const struct json *j, float *out, struct err *e);
/* ERR_UNSUPPORTED when a member may change what is computed and no row reads it. */
int config_keys_known(const struct arch *a, const struct json *root, struct err *e);
bool config_key_reads(const struct arch *a, const char *key);
/* Does it leave the computation alone, whatever it says and in any family? */
bool config_key_harmless(const char *key);

static inline float config_key_value(const struct config *c, const struct config_key *k)
{
	return *(const float *)(const void *)((const char *)c + k->field);
}
static inline uint32_t config_key_count(const struct config *c, const struct config_key *k)
{
	return k->kind == KEY_PER_LAYER || k->kind == KEY_ONE_KV ? *(const uint32_t *)(const void *)((const char *)&c->layer[0] + k->layer_field)
					: *(const uint32_t *)(const void *)((const char *)c + k->field);
}
static inline bool config_key_flag(const struct config *c, const struct config_key *k)
{
	return *((const bool *)c + k->field);
}

#endif
