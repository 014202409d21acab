/* SentencePiece's tokenizer.model. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_parts.h"

struct charsmap {
	int none;
};

int charsmap_open(const void *data, size_t len, struct charsmap **out, struct err *e)
{
	(void)data, (void)len;
	*out = NULL;
	return err_set(e, ERR_UNSUPPORTED, "precompiled_charsmap is not handled");
}

const char *charsmap_first(const struct charsmap *c, const char *s, size_t n)
{
	(void)c, (void)s, (void)n;
	return NULL;
}

void charsmap_free(struct charsmap *c)
{
	free(c);
}

int spm_open(const void *data, size_t len, struct tokenizer *t, struct err *e)
{
	(void)data, (void)len, (void)t;
	return err_set(e, ERR_UNSUPPORTED, "tokenizer.model without tokenizer.json is not handled");
}

int spm_scores(const void *data, size_t len, struct tokenizer *t)
{
	(void)data, (void)len, (void)t;
	return ERR_OK;
}

int spm_encode(const struct tokenizer *t, const char *s, size_t n, struct token_ids *out, struct err *e)
{
	(void)t, (void)s, (void)n, (void)out;
	return err_set(e, ERR_BUG, "no tokenizer.model");
}

int spm_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct strbuf *out, struct err *e)
{
	(void)t, (void)ids, (void)n, (void)skip_special, (void)out;
	return err_set(e, ERR_BUG, "no tokenizer.model");
}

void spm_close(struct spm *s)
{
	(void)s;
}
