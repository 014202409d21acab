#ifndef QUIRE_MODEL_CONFIG_DIFFER_H
#define QUIRE_MODEL_CONFIG_DIFFER_H
/*
 * Layers that differ in KV heads or width, and layers that read another one's KV cache: under the keys that the model's class
 * has (struct arch's differ), elsewhere under quire's own.
 */
#include "base/json.h"
#include "model/arch.h"

/* A list of one entry per layer; ERR_INPUT. */
int config_list(const struct json *j, const char *key, const struct config *c, struct err *e);
/* Into the layers, which have what all have by then, windows too. */
int config_parse_differ(struct config *c, const struct json *root, struct err *e);
void config_print_differ(const struct config *c, struct json_writer *w);
/* Is this a key of the family's that says so? */
bool config_differ_key(const struct arch *a, const char *key);
/* Layers at the end that read the cache of the last one before them that has a window, or none, as they have. */
uint32_t config_suffix(const struct config *c);
/* The layer that layer i reads where the last n share so; i itself where it is none of them or there is none to read. */
uint32_t config_suffix_source(const struct config *c, uint32_t n, uint32_t i);

#endif
