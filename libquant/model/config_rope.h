#ifndef QUIRE_MODEL_CONFIG_ROPE_H
#define QUIRE_MODEL_CONFIG_ROPE_H
/* Parts of config.c: rotary positions, and the names that config_print writes. */
#include "base/json.h"
#include "model/config.h"

/* Reads rope_scaling, rope_parameters and rope_divisors; sizes, rope.theta and rope.part are known from their keys. */
int config_parse_rope(struct config *c, const struct json *root, struct err *e);
/* Writes the members of a rope_scaling object. */
void config_print_rope(const struct config *c, struct json_writer *w, bool with_theta);
/* The shortest decimal that reads back as this float. */
void config_print_float(struct json_writer *w, const char *key, float v);
void config_print_floats(struct json_writer *w, const char *key, const float *v, size_t n);
const char *activation_name(enum activation a);
bool activation_find(const char *name, enum activation *out);

#endif
