#ifndef QUIRE_CALIB_TEXT_H
#define QUIRE_CALIB_TEXT_H
/* Text as tokens: what calibration and verification run a model over. */
#include "base/strbuf.h"
#include "model/tokenizer.h"

/* Reads a text file whole. ERR_INPUT when it is empty. */
int text_read(const char *path, struct strbuf *out, struct err *e);

/* The whole text as one sequence, with the tokenizer's BOS in front when it adds one. ids is zeroed first; release it. */
int text_tokens(const struct tokenizer *t, const char *path, struct token_ids *ids, struct err *e);

#endif
