#ifndef QUIRE_CMD_CONSUMER_H
#define QUIRE_CMD_CONSUMER_H
/* --for PROGRAM: who is to load the result; it chooses what the other options leave open. */
#include "base/err.h"

#define CONSUMER_WORDS "vllm|transformers|mlx|llama.cpp"
/*
 * Fills in format and scheme where they are NULL (scheme may be NULL: there is none). ERR_USAGE: an unknown program, or an output
 * that it does not load. name NULL: nothing is asked.
 */
int consumer_choose(const char *name, const char *output, const char **format, const char **scheme, struct err *e);

#endif
