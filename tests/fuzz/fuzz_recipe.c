/* A recipe text: what is accepted gives every tensor a codec that can hold it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "model.layers.0.self_attn.v_proj.weight", "model.embed_tokens.weight", "aaaaaaaaaaaaaaaaaaaab" };
	static const uint64_t cols[] = { 256, 96, 7 };
	struct err e;
	struct recipe *r;
	if (recipe_new("q4_k", &r, &e))
		abort();
	recipe_read(r, (const char *)data, size, &e);
	for (size_t i = 0; i < 9; i++) {
		struct tensor t = { .name = names[i / 3], .codec = codec_find("f16"), .ndim = 2, .dim = { 2, cols[i % 3] } };
		struct recipe_query q = { NULL, &t, i / 3 ? ROLE_UNKNOWN : ROLE_V, 0, false };
		const struct codec *c = recipe_choose(r, &q, NULL);
		if (!c || !codec_row_bytes(c, t.dim[1]))
			abort();
	}
	recipe_free(r);
	return 0;
}
