#ifndef QUIRE_CALIB_RUN_IDENTITY_H
#define QUIRE_CALIB_RUN_IDENTITY_H
/*
 * Who is who: hashes that tell whether a result belongs to a model, a tokenizer
 * or a text. They are made from meaning, not from files, so that a model and its
 * lossless copy in another container are the same.
 */
#include "base/sha256.h"
#include "model/config.h"
#include "text/tokenizer.h"
#include "tensor/tensor.h"

enum { IDENTITY_SIZE = 65 }; /* hexadecimal and a NUL */

/*
 * Configuration, names and shapes of all weights, and the values of vectors and of IDENTITY_ROWS rows spread over each
 * matrix. Any training or quantization changes some of those; a few edited values elsewhere need not.
 */
enum { IDENTITY_ROWS = 16 };
int identity_model(const struct config *c, struct tensor_source *s, char out[IDENTITY_SIZE], struct err *e);
/* Pieces by id, merges of a byte-level BPE, BOS. */
void identity_tokenizer(const struct tokenizer *t, char out[IDENTITY_SIZE]);

/* For other hashes: a value with its size in front, so that two lists of values never run into each other. */
void identity_add(struct sha256 *h, const void *data, size_t n);
void identity_finish(struct sha256 *h, char out[IDENTITY_SIZE]);

#endif
