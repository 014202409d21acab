/* Text to calibrate on: plain, or JSON lines when the first byte is odd; either may be packed. The same bytes give the same tokens. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calib/run/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes are tokens, and a few pairs of them. */
static struct tokenizer *bytes(void)
{
	static const char json[] =
		"{\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"t\":3,\"e\":4,"
		"\"ab\":5,\"te\":6,\"\\n\":7},\"merges\":[\"a b\",\"t e\"]}}";
	struct tokenizer_files f = { .json = json, .json_len = sizeof json - 1 };
	struct tokenizer *t;
	struct err e;
	if (tokenizer_open(&f, &t, &e))
		abort();
	return t;
}

static int parse(const struct tokenizer *t, const uint8_t *data, size_t size, struct token_ids *ids, char hash[65])
{
	struct strbuf text = { 0 };
	struct err e;
	strbuf_add(&text, data + 1, size - 1);
	if (text.failed)
		abort();
	int rc = text_parse(t, &text, data[0] & 1, ids, hash, &e);
	if (rc && (!e.message[0] || strlen(e.message) >= sizeof e.message))
		abort();
	strbuf_release(&text);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tokenizer *t;
	struct token_ids a, b;
	char x[65], y[65];
	if (!size)
		return 0;
	t = t ? t : bytes();
	int rc = parse(t, data, size, &a, x);
	if (parse(t, data, size, &b, y) != rc || strcmp(x, y) || a.count != b.count)
		abort();
	for (size_t i = 0; i < a.count; i++)
		if (a.id[i] != b.id[i] || a.id[i] < 0 || (size_t)a.id[i] >= tokenizer_size(t))
			abort();
	token_ids_release(&a);
	token_ids_release(&b);
	return 0;
}
