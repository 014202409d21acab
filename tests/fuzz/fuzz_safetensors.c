/* A whole safetensors file: what is accepted must lie inside the input and be written back to an equal file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const struct st_file *a, const struct st_file *b)
{
	if (a->count != b->count || a->meta_count != b->meta_count || a->data_size != b->data_size)
		abort();
	for (size_t i = 0; i < a->count; i++) {
		const struct st_entry *x = &a->entries[i], *y = &b->entries[i];
		if (strcmp(x->name, y->name) || x->dtype != y->dtype || x->ndim != y->ndim || memcmp(x->dim, y->dim, sizeof x->dim) ||
		    x->begin != y->begin || x->end != y->end)
			abort();
	}
	for (size_t i = 0; i < a->meta_count; i++)
		if (strcmp(a->meta[i].key, b->meta[i].key) || strcmp(a->meta[i].value, b->meta[i].value))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e;
	struct st_file f, again;
	if (st_parse(&f, data, size, &e))
		return 0;
	unsigned sum = 0;
	for (size_t i = 0; i < f.count; i++) {
		struct tensor t;
		st_tensor(&f.entries[i], &t, &e);
		for (uint64_t at = f.entries[i].begin; at < f.entries[i].end; at++)
			sum += f.data[at]; /* an over-read shows here */
	}
	struct strbuf out = { 0 };
	if (st_header(&out, &(struct st_listing){ f.entries, f.count, f.meta, f.meta_count }, 8, &e))
		abort();
	strbuf_add(&out, f.data, (size_t)f.data_size);
	if (st_parse(&again, (const uint8_t *)out.data, out.len, &e))
		abort();
	same(&f, &again);
	st_release(&f);
	st_release(&again);
	strbuf_release(&out);
	return sum == UINT32_MAX; /* so that the reads stay */
}
