#ifndef QUIRE_MODEL_PRE_KNOWN_H
#define QUIRE_MODEL_PRE_KNOWN_H
/* Pre-tokenizers that GGUF knows by name (tokenizer.ggml.pre), as the tokenizer.json files of these families have them. */
#include <stdbool.h>

struct pre_known {
	const char *name;
	const char *patterns[3];  /* the text is split by one after another ("isolated"); none: ByteLevel's own expression */
	const char *normalizer;
	bool digits;              /* digits stand alone: a Digits step in front */
	bool ignore_merges;       /* a whole word that is in the vocabulary is one token */
	bool add_bos;             /* when the file does not say */
};
const struct pre_known *pre_known_find(const char *name); /* NULL: not known */

#endif
