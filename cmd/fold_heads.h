#ifndef QUIRE_CMD_FOLD_HEADS_H
#define QUIRE_CMD_FOLD_HEADS_H
/* The part of `fold` that says how many KV heads which layers keep. */
#include "model/config.h"
#include "fold/fold_heads.h"

/* One count, or one per layer: "4", "8,8,4,4,2". heads: [layers]. ERR_USAGE. */
int heads_parse(const char *text, uint32_t layers, uint32_t *heads, struct err *e);
/* Layers outside "4-20,25" keep what they have. ERR_USAGE. */
int heads_keep_others(const char *text, const struct config *c, uint32_t *heads, struct err *e);
/* ERR_USAGE names those there are. */
int fold_method_find(const char *name, const struct fold_method_row **out, struct err *e);

#endif
