#include "calib/text.h"

#include "formats/file.h"

int text_read(const char *path, struct strbuf *out, struct err *e)
{
	int rc = file_read(path, out, 0, e);
	if (rc)
		return rc;
	if (!out->len)
		return err_set(e, ERR_INPUT, "%s: the text is empty", path);
	return ERR_OK;
}

int text_tokens(const struct tokenizer *t, const char *path, struct token_ids *ids, struct err *e)
{
	struct strbuf text = { 0 };
	*ids = (struct token_ids){ 0 };
	int rc = text_read(path, &text, e);
	if (!rc && (rc = tokenizer_encode(t, text.data, text.len, true, ids, e)))
		err_prefix(e, "%s", path);
	strbuf_release(&text);
	return rc;
}
