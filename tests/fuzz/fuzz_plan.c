/* A plan of `compare`: what is accepted are variants with names, and fold options that fold itself has looked at. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/compare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *calib[] = { "calib.txt" };
	const struct compare_options o = { .data = "eval.txt", .calib = { calib, 1 } };
	struct compare c = { .o = &o, .model = "model" };
	struct err e;
	char *text = malloc(size + 1); /* a file's bytes end in a NUL that is not theirs */
	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	int rc = compare_plan_text(&c, text, size, "plan", &e);
	for (size_t i = 0; !rc && i < c.count; i++) {
		const struct variant *v = &c.variants[i];
		if (!v->name || !*v->name || (!v->scheme && !v->recipe && !v->file && !v->tensor.count && !v->fold.count))
			abort();
		(void)fold_check_words(&c, v, &e);
	}
	for (size_t i = 0; i < c.count; i++)
		variant_release(&c.variants[i]);
	free(c.variants);
	free(text);
	return 0;
}
