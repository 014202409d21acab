#ifndef QUIRE_CALIB_RUN_TEXT_H
#define QUIRE_CALIB_RUN_TEXT_H
/*
 * Text as tokens: what calibration and verification run a model over. Files may
 * be gzip'ed. A file named *.jsonl or *.ndjson (or so and .gz) is JSON lines:
 * every line an object whose "text" is a document; other files are one document.
 * "-" is standard input, which can be read as often as a file can.
 */
#include "base/strbuf.h"
#include "text/tokenizer.h"

/* Reads a text file whole, unpacked. ERR_INPUT when it is empty. */
int text_read(const char *path, struct strbuf *out, struct err *e);

/*
 * The whole text as one sequence, with the tokenizer's BOS in front of each document when it adds one. ids is zeroed
 * first; release it.
 */
int text_tokens(const struct tokenizer *t, const char *path, struct token_ids *ids, struct err *e);

/* Several files, one after the other. hash: sha256 in hexadecimal of the documents, whatever files they came in. */
int texts_tokens(const struct tokenizer *t, const char *const *paths, size_t count, struct token_ids *ids, char hash[65],
		 struct err *e);

/* A file's bytes, which it may unpack in place; lines: they are JSON lines. ids is zeroed first; release it, and text. */
int text_parse(const struct tokenizer *t, struct strbuf *text, bool lines, struct token_ids *ids, char hash[65], struct err *e);

#endif
