#ifndef QUIRE_TEXT_PRE_KNOWN_H
#define QUIRE_TEXT_PRE_KNOWN_H
/* Pre-tokenizers that GGUF knows by name (tokenizer.ggml.pre): one table, for reading and for writing. */
#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"

enum pre_part_kind {
	PRE_END,
	PRE_SPLIT,         /* by a pattern: what matches and what lies between stand alone */
	PRE_SPLIT_NEXT,    /* what matches begins what follows */
	PRE_DIGITS,        /* every digit alone */
	PRE_DIGIT_RUNS,
	PRE_PUNCTUATION,   /* runs of it */
	PRE_STOPS,         /* every one alone */
	PRE_WORDS,         /* ByteLevel with GPT-2's expression, into GPT-2's byte alphabet */
	PRE_BYTES,         /* into the byte alphabet only */
};

struct pre_part {
	enum pre_part_kind kind;
	const char *pattern;
};

struct pre_known {
	const char *name;
	const struct pre_part *parts;  /* one after another, ends with PRE_END */
	const char *normalizer;        /* that the family has; llama.cpp has none */
	bool ignore_merges;            /* a whole word that is in the vocabulary is one token */
	bool add_bos;                  /* when the file does not say */
};
const struct pre_known *pre_known_find(const char *name); /* NULL: not known */
const struct pre_known *pre_known_row(size_t i);          /* NULL after the last */
/* As a member of tokenizer.json. prefix_space: a first part ByteLevel puts a space in front of text. */
void pre_known_json(struct json_writer *w, const char *key, const struct pre_part *parts, bool prefix_space);

/* How a kind of part is said in tokenizer.json: its type, "behavior", and one flag that tells it from others of its type. */
struct pre_kind {
	const char *type, *behavior, *flag;
	bool set;
};
extern const struct pre_kind pre_kinds[];

#endif
