/*
 * Encodes what compare_tokenizers.py sends: files are named on the command
 * line (tokenizer.json or - , tokenizer_config.json or - , tokenizer.model or -);
 * stdin has records of a little-endian u32 length and that many bytes; for each, one
 * line of ids without special tokens, and one with its decoded text as hex.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model/tokenizer.h"

static char *read_all(const char *path, size_t *len)
{
	FILE *f = strcmp(path, "-") == 0 ? NULL : fopen(path, "rb");
	char *data = NULL;
	*len = 0;
	if (!f)
		return NULL;
	for (size_t got = 1; got; *len += got) {
		data = realloc(data, *len + 65536);
		got = fread(data + *len, 1, 65536, f);
	}
	fclose(f);
	return data;
}

int main(int argc, char **argv)
{
	struct tokenizer_files f = { 0 };
	struct tokenizer *t;
	struct err e;
	if (argc != 4)
		return 2;
	f.json = read_all(argv[1], &f.json_len);
	f.config = read_all(argv[2], &f.config_len);
	f.model = read_all(argv[3], &f.model_len);
	if (tokenizer_open(&f, &t, &e)) {
		fprintf(stderr, "%s\n", e.message);
		return e.code;
	}
	unsigned char head[4];
	while (fread(head, 1, 4, stdin) == 4) {
		size_t n = load_u32(head);
		char *text = malloc(n + 1);
		struct token_ids ids = { 0 };
		struct strbuf out = { 0 };
		if (!text || fread(text, 1, n, stdin) != n)
			return 1;
		if (tokenizer_encode(t, text, n, false, &ids, &e) || tokenizer_decode(t, ids.id, ids.count, false, &out, &e)) {
			printf("error %s\n\n", e.message);
		} else {
			for (size_t i = 0; i < ids.count; i++)
				printf(i ? " %d" : "%d", ids.id[i]);
			putchar('\n');
			for (size_t i = 0; i < out.len; i++)
				printf("%02x", (unsigned char)out.data[i]);
			putchar('\n');
		}
		free(text);
		token_ids_release(&ids);
		strbuf_release(&out);
	}
	tokenizer_close(t);
	free((void *)(size_t)f.json);
	return 0;
}
