/* The texts in compare's work folder: an attribution that is believed must print to what is read again as the same; how long making took. */
#include <stdlib.h>
#include <string.h>

#include "cmd/compare.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print_again(const struct attribution *a)
{
	struct strbuf once = { 0 }, twice = { 0 };
	struct json_writer w = { .out = &once }, x = { .out = &twice };
	struct attribution b;
	struct err e;
	attribution_json(a, NULL, &w);
	struct json *j = json_parse(once.data, once.len, &e);
	if (!j || !attribution_read(j, a->by, &b))
		abort();
	attribution_json(&b, NULL, &x);
	if (strcmp(once.data, twice.data))
		abort();
	attribution_release(&b);
	json_free(j);
	strbuf_release(&once);
	strbuf_release(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory m;
	struct compare c = { .w.count = 2 };
	char name[] = MEMORY_ROOT "/v";
	struct variant v = { .kept = name, .stem = name };
	memory_set(&m, data, size);
	compare_kept_made(&v);
	for (unsigned i = 0; i < attribute_row_count; i++)
		if (compare_kept_attribution(&c, &v, attribute_rows[i].by)) {
			print_again(&v.attribution);
			attribution_release(&v.attribution);
		}
	memory_clear(&m);
	return 0;
}
