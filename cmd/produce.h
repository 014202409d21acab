#ifndef QUIRE_CMD_PRODUCE_H
#define QUIRE_CMD_PRODUCE_H
/* What convert and quantize share: plan, print or execute, summarise. */
#include <stdbool.h>
#include <stdint.h>

#include "algo/quantize.h"
#include "cmd/groups.h"
#include "formats/checkpoint.h"
#include "plan/recipe.h"

struct produce {
	const struct common *common;
	const char *input;
	struct output_choice out;
	struct recipe *recipe;
	const char *recipe_file;         /* NULL: none */
	const struct method *method;     /* NULL: nothing is quantized */
	bool keep;                       /* the recipe keeps the source's codecs */
	bool allow_requantize;
	const char *cannot_hold;         /* advice when the target cannot hold a codec */
	/* A changed model: other tensors over those of `input`, and the configuration they have; NULL: as they are. */
	struct tensor_source *source;
	const struct config *config;
	const struct notes *notes;       /* what it did not do, and why; NULL: nothing */
	bool code;                       /* with a modeling file beside the weights */
	double seconds;                  /* that the command has worked already, for the summary */
	/* Optional: what else the command has to say, before the summary's line, or as members of its JSON object. */
	void (*say)(void *arg, struct strbuf *text, struct json_writer *json);
	void *say_arg;
	const struct calibration *calibration; /* statistics to quantize with; NULL: none */
	bool proof;                      /* read the result back and compare */
	const char *report;              /* where to write errors per tensor (.json or .html), or NULL */
};

/* The format that `output` (or `to`) asks for; ERR_USAGE. *out is NULL when neither says. */
int produce_format(const char *output, const char *to, const struct format **out, struct err *e);
int produce(const struct produce *p, struct err *e);
/* What produce would refuse about the output, for commands that work long before they write. */
int produce_check(const struct produce *p, struct err *e);

/* SHA-256 of the files a checkpoint's tensors come from, worked out beside the conversion. */
struct source_hash;
int source_hash_start(const char *input, struct source_hash **out, struct err *e);
/* Facts whose values hold the digests after source_hash_join. */
const struct fact *source_hash_facts(const struct source_hash *h, size_t *count);
int source_hash_join(struct source_hash *h, struct err *e);
void source_hash_free(struct source_hash *h);   /* stops it first; NULL is fine */

/* Adds the rules of a recipe file (NULL: none), then PATTERN=CODEC each; the last that matches wins. */
int produce_recipe(struct recipe *r, const char *file, const struct string_list *overrides, struct err *e);

#endif
