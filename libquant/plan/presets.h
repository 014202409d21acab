#ifndef QUIRE_PLAN_PRESETS_H
#define QUIRE_PLAN_PRESETS_H
/* The tables behind the names of schemes; the presets themselves are recipe_rows. */
#include "plan/recipe.h"

struct scheme_alias {
	const char *name, *codec;
	bool activations;       /* they are rounded to 8 bits as well */
};
extern const struct scheme_alias scheme_aliases[];
extern const unsigned scheme_alias_count;

struct pure_type {
	const char *codec;
	int type;               /* general.file_type of a GGUF that has it throughout */
};
extern const struct pure_type pure_types[];
extern const unsigned pure_type_count;

#endif
