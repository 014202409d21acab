/* The last 64 bytes are a text, what is before them a tokenizer.model. */
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t text = size < 128 ? 0 : 64;
	struct tokenizer_files f = { .model = (const char *)data, .model_len = size - text };
	struct tokenizer *t;
	struct err e;
	if (tokenizer_open(&f, &t, &e))
		return 0;
	struct token_ids ids = { 0 };
	struct strbuf out = { 0 };
	if (tokenizer_encode(t, (const char *)data + size - text, text, true, &ids, &e) == 0)
		(void)tokenizer_decode(t, ids.id, ids.count, true, &out, &e);
	token_ids_release(&ids);
	strbuf_release(&out);
	tokenizer_close(t);
	return 0;
}
