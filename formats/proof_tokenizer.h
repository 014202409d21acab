#ifndef QUIRE_FORMATS_PROOF_TOKENIZER_H
#define QUIRE_FORMATS_PROOF_TOKENIZER_H
/* Proof of a tokenizer: what a file that was written makes of texts, against what its source makes of them. */
#include "formats/checkpoint.h"

struct proof_tokens {
	size_t tokens;     /* ids whose text and type were compared; 0: there is no tokenizer to compare */
	size_t strings;    /* texts that both cut into tokens */
	size_t differ;     /* of those, where the container has no way to say how the source does it */
	char first[120];   /* the first such text */
};
/*
 * Compares the tokenizer of the file at path with its source's: every id, the special ones, every special token's own
 * text, and some hundred strings made of the vocabulary. ERR_IO: it is not what was meant.
 */
int proof_tokenizer(const struct checkpoint *source, const char *path, struct proof_tokens *out, struct err *e);

#endif
