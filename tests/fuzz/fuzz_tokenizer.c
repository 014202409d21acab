/* tokenizer.json, a NUL byte, and a short text to encode and decode. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT = 96 }; /* longer ones take time and reach nothing new */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *cut = size ? memchr(data, 0, size) : NULL;
	size_t json_len = cut ? (size_t)(cut - data) : size;
	const char *text = cut ? (const char *)cut + 1 : "a b";
	size_t len = cut ? size - json_len - 1 : 3;
	len = len < TEXT ? len : TEXT;
	struct tokenizer_files f = { .json = (const char *)data, .json_len = json_len };
	struct tokenizer *t;
	struct err e;
	if (tokenizer_open(&f, &t, &e))
		return 0;
	struct token_ids ids = { 0 };
	struct strbuf out = { 0 };
	if (tokenizer_encode(t, text, len, true, &ids, &e) == 0)
		(void)tokenizer_decode(t, ids.id, ids.count, false, &out, &e);
	token_ids_release(&ids);
	strbuf_release(&out);
	tokenizer_close(t);
	return 0;
}
