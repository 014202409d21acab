#ifndef QUIRE_FORMATS_GENERATION_H
#define QUIRE_FORMATS_GENERATION_H
/* generation_config.json: what ends a text, and how its makers sample. In GGUF: special ids and general.sampling.*. */
#include "formats/checkpoint.h"
#include "formats/gguf.h"

enum { END_TOKENS = 32 };
struct end_tokens {
	int32_t id[END_TOKENS];
	uint32_t count;
};

/* Every token that ends a text: those of config.json and those of generation_config.json, which may list more. */
int checkpoint_ends(const struct checkpoint *c, const struct config *config, struct end_tokens *out, struct err *e);

/* Sampling settings as keys. */
int gguf_put_sampling(struct gguf_writer *w, const struct checkpoint *c, struct err *e);
/* Appends generation_config.json; nothing when the keys say nothing of it. */
void gguf_generation_config(const struct gguf *g, struct strbuf *out);

#endif
