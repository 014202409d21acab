#ifndef QUIRE_MODEL_RUNTIME_H
#define QUIRE_MODEL_RUNTIME_H
/*
 * Programs that run models, and what each has to be told of a model whose layers differ in KV heads or windows, or read
 * another one's cache: as which family it is written, or why the program cannot run it.
 */
#include "model/arch.h"

enum runtime { RUNTIME_QUIRE, RUNTIME_LLAMA_CPP, RUNTIME_TRANSFORMERS, RUNTIME_VLLM, RUNTIME_COUNT };

struct runtime_row {
	const char *name;
	const char *format;        /* that it reads; NULL: any */
};
extern const struct runtime_row runtime_rows[RUNTIME_COUNT];
/* ERR_USAGE, with the names there are. */
int runtime_find(const char *name, enum runtime *out, struct err *e);

struct runtime_route {
	enum runtime runtime;
	const struct arch *as;     /* NULL: the family that it is */
	bool code;                 /* with a modeling file beside the weights */
	const char *loaded_by;     /* who loads what is written so */
};

/*
 * with_code: code of our own may be written beside the weights. ERR_UNSUPPORTED, with the reason; a model that the program
 * runs as it is gets a route without a family, and the writer may still refuse it for what has nothing to do with folds.
 */
int runtime_route(const struct config *c, enum runtime r, bool with_code, struct runtime_route *out, struct err *e);

#endif
