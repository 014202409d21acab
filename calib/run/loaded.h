#ifndef QUIRE_CALIB_RUN_LOADED_H
#define QUIRE_CALIB_RUN_LOADED_H
/* A checkpoint opened for running: file, configuration, tokenizer and bound model together. */
#include "formats/checkpoint.h"
#include "model/model.h"

struct loaded {
	struct checkpoint *checkpoint;
	struct config config;
	struct tokenizer *tokenizer;
	struct model *model;
};

/* Opens all four parts; messages begin with the path. On failure nothing is left open. */
int loaded_open(struct loaded *l, const char *path, struct err *e);
void loaded_close(struct loaded *l); /* also of a zero-initialised struct */

#endif
