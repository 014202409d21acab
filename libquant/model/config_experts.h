#ifndef QUIRE_MODEL_CONFIG_EXPERTS_H
#define QUIRE_MODEL_CONFIG_EXPERTS_H
/* What config.json says of mixtures of experts. */
#include "base/json.h"
#include "model/arch.h"

/* Does this architecture read the key? */
bool config_experts_key(const struct arch *a, const char *key);
/* Layers are there, and dense. */
int config_parse_experts(struct config *c, const struct json *root, struct err *e);
void config_print_experts(const struct config *c, struct json_writer *w);

#endif
