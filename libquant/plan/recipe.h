#ifndef QUIRE_PLAN_RECIPE_H
#define QUIRE_PLAN_RECIPE_H
/*
 * A recipe says which tensor gets which codec: a preset (a row of recipe_rows,
 * named after llama.cpp's file types or quire's own), or a text of lines
 * `PATTERN = CODEC` (glob over tensor or role names; later lines win; `#` comments).
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "codec/codec.h"
#include "model/arch.h"
#include "tensor/tensor.h"

struct recipe;

/* What a rule may look at. */
struct recipe_query {
	const struct config *config;
	const struct tensor *tensor;  /* source tensor: name and shape */
	enum role role;
	uint32_t layer;               /* its place: see place_of; UINT32_MAX outside layers */
	bool has_importance;          /* statistics will be used */
};

/* When a rule of a preset applies; i is the layer and n the number of layers. */
enum recipe_when {
	WHEN_ALWAYS,
	WHEN_MORE,           /* the first and last eighth and every third layer between: llama.cpp's use_more_bits */
	WHEN_FIRST_2, WHEN_FIRST_4,
	WHEN_FIRST_16TH,     /* i < n / 16 */
	WHEN_FIRST_8TH,      /* i < n / 8 */
	WHEN_FIRST_8TH_WITH_IMPORTANCE, WHEN_FIRST_8TH_WITHOUT_IMPORTANCE,
	WHEN_GQA_4,          /* four or more query heads share a key-value head */
	WHEN_SHARED,         /* that, or four experts or more share the layer's attention */
	WHEN_MIDDLE,         /* n / 8 <= i < 7 n / 8 */
	WHEN_WITHOUT_IMPORTANCE,
	WHEN_EXPERTS,
};

struct recipe_rule {
	enum role role;
	enum recipe_when when;
	const char *codec, *why;
};

/* One documented row per preset. To add one: a line in recipe_rows, and its rules when it mixes codecs. */
struct recipe_row {
	const char *name, *summary;
	int gguf_file_type;           /* general.file_type, or -1 */
	const char *codec;            /* the default codec */
	const struct recipe_rule *rules; /* the first that applies wins; ends with a NULL codec; NULL: none */
};
extern const struct recipe_row recipe_rows[];
extern const unsigned recipe_row_count;

/*
 * scheme: a preset or codec name (aliases accepted: Q4_K_M, int4-g128, W4A16); NULL: keep the source's codecs.
 * A codec name that is no preset, or "pure-" and any codec name, gives every linear layer that codec and the
 * embedding and output head 8 bits. ERR_USAGE: unknown; ERR_UNSUPPORTED: it needs a codec that is not built in.
 */
int recipe_new(const char *scheme, struct recipe **out, struct err *e);
/*
 * Adds a `PATTERN=CODEC` override, or all lines of a recipe text. The pattern (`*`, `?`, `[a-z]`) must match all of a
 * Hugging Face tensor name, or of a role name (attn_v, ffn_down, embed, head ...). The codec `keep` is the source's own.
 * Tensors of fewer than two dimensions follow only rules that name a float codec.
 */
int recipe_override(struct recipe *r, const char *rule, struct err *e);
int recipe_read(struct recipe *r, const char *text, size_t len, struct err *e);
/* The codec of norms, biases and other tensors that are not matrices (default: f32 for GGUF types, else as in the source); NULL: as in the source. */
void recipe_vectors(struct recipe *r, const struct codec *c);
/*
 * The output is a Hugging Face folder: embedding and output head stay as in the source unless a rule says otherwise,
 * matrices whose rows do not divide into groups as well, and groups have scales and offsets of the kind that the folder holds.
 */
struct recipe_folder {
	bool (*holds)(const struct codec *c);
	bool bf16;                    /* scales are bf16 (the model's own type) */
	bool ends;                    /* embedding and output head are quantized like any other matrix */
};
void recipe_folder(struct recipe *r, const struct recipe_folder *f);
/* The codec of the output head under a preset with this codec. */
const char *recipe_head(const struct codec *c);
/* The i'th name that a scheme may have: presets, aliases, codecs; NULL past the end. */
const char *scheme_name(size_t i);
/* The codec for a tensor, after fallbacks for rows that do not divide; *why (if not NULL) gets a short static reason. */
const struct codec *recipe_choose(const struct recipe *r, const struct recipe_query *q, const char **why);
/* The codec that the tensor would have if its blocks divided the rows; NULL when they do. */
const struct codec *recipe_refused(const struct recipe *r, const struct recipe_query *q);
const char *recipe_name(const struct recipe *r); /* for manifests: the scheme and its overrides */
int recipe_file_type(const struct recipe *r);    /* GGUF general.file_type, or -1 */
/* Is the scheme one of weights and activations (W8A8)? */
bool recipe_activations(const struct recipe *r);
/* The scheme is a type of floats (F16, bf16): whoever names it wants nothing quantized. */
bool recipe_is_float(const struct recipe *r);
void recipe_free(struct recipe *r);

#endif
