#ifndef QUIRE_PLAN_RECIPE_H
#define QUIRE_PLAN_RECIPE_H
/*
 * A recipe says which tensor gets which codec: a preset (a row of recipe_rows,
 * named after llama.cpp's file types or quire's own), or a text of lines
 * `PATTERN = CODEC` (glob over tensor or role names; later lines win; `#` comments).
 */
#include <stddef.h>

#include "base/err.h"
#include "codec/codec.h"
#include "model/arch.h"
#include "tensor/tensor.h"

struct recipe;

/* What a rule may look at. */
struct recipe_query {
	const struct config *config;
	const struct tensor *tensor;  /* source tensor: name and shape */
	enum role role;
	uint32_t layer;               /* UINT32_MAX outside layers */
	bool has_importance;          /* statistics will be used */
};

/* One documented row per preset. */
struct recipe_row {
	const char *name, *aliases, *summary;
	int gguf_file_type;           /* general.file_type, or -1 */
	const char *codec;            /* the default codec */
	const struct codec *(*choose)(const struct recipe_row *row, const struct recipe_query *q);
};
extern const struct recipe_row recipe_rows[];
extern const unsigned recipe_row_count;

/* scheme: a preset or codec name (aliases accepted: Q4_K_M, int4-g128, W4A16); NULL: keep the source's codecs. */
int recipe_new(const char *scheme, struct recipe **out, struct err *e);
/* Adds a `PATTERN=CODEC` override, or all lines of a recipe text. */
int recipe_override(struct recipe *r, const char *rule, struct err *e);
int recipe_read(struct recipe *r, const char *text, size_t len, struct err *e);
/* The codec for a tensor, after fallbacks for rows that do not divide; *why (if not NULL) gets a short static reason. */
const struct codec *recipe_choose(const struct recipe *r, const struct recipe_query *q, const char **why);
const char *recipe_name(const struct recipe *r); /* for manifests: the scheme and its overrides */
int recipe_file_type(const struct recipe *r);    /* GGUF general.file_type, or -1 */
void recipe_free(struct recipe *r);

#endif
