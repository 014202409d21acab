/* JSON text from any file: parse, print, parse again; what was printed must read back to the same print. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e;
	struct json *root = json_parse((const char *)data, size, &e);
	if (!root)
		return 0;
	struct strbuf once = { 0 }, twice = { 0 };
	json_print(root, &once);
	struct json *again = json_parse(once.data, once.len, &e);
	if (!again)
		abort();
	json_print(again, &twice);
	if (once.len != twice.len || memcmp(once.data, twice.data, once.len))
		abort();
	json_free(root);
	json_free(again);
	strbuf_release(&once);
	strbuf_release(&twice);
	return 0;
}
