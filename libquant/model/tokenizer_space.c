#include <string.h>

#include "model/tokenizer.h"

/* Asks the tokenizer itself: normalizers and pre-tokenizers can both put the space there. Weak: a better one wins. */
__attribute__((weak)) bool tokenizer_space_prefix(const struct tokenizer *t)
{
	struct token_ids ids = { 0 };
	size_t len = 0;
	const char *piece = NULL;
	if (!tokenizer_encode(t, "a", 1, false, &ids, NULL) && ids.count)
		piece = tokenizer_piece(t, ids.id[0], &len);
	bool space = piece && len >= 3 && !memcmp(piece, "\xe2\x96\x81", 3);
	token_ids_release(&ids);
	return space;
}
