#ifndef QUIRE_MODEL_KV_CODEC_H
#define QUIRE_MODEL_KV_CODEC_H
/*
 * How keys and values are stored: per token and head, a row of head_dim elements in a codec. With rotation a row is
 * multiplied by a Hadamard matrix first and turned back after decoding, which spreads outliers over the row
 * (QuIP#, arXiv 2402.04396; QuaRot, arXiv 2404.00456). Queries and outputs could be turned instead: keys are stored
 * after RoPE, so any rotation of theirs is exact.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct codec;

struct kv_codec {
	const struct codec *codec; /* NULL: f32 */
	bool rotate;
};
/* Both of a model's; zeroes are f32. */
struct kv_codecs {
	struct kv_codec k, v;
};

/*
 * A codec by name: any float or quantizing codec; "int8" and "int4" are groups of 32. ERR_USAGE for an unknown name,
 * ERR_UNSUPPORTED when its blocks do not divide rows of dim elements, or dim is odd and the row is to be turned.
 */
int kv_codec_find(const char *name, bool rotate, size_t dim, struct kv_codec *out, struct err *e);
/* What a command line says of both. */
struct kv_choice {
	const char *k, *v;         /* names, NULL: none; values are stored as keys are unless told otherwise */
	bool rotate;
};
static inline bool kv_chosen(const struct kv_choice *c)
{
	return c->k || c->v;
}
int kv_codecs_find(const struct kv_choice *c, size_t dim, struct kv_codecs *out, struct err *e);
bool kv_codec_plain(const struct kv_codec *c); /* f32 as it is */
size_t kv_codec_bytes(const struct kv_codec *c, size_t dim); /* of a row */
/* Rows of dim elements, one after another; uses thread_for. scratch holds dim floats per worker. */
void kv_codec_encode(const struct kv_codec *c, const float *x, size_t rows, size_t dim, void *out, float *scratch);
/* One row. */
void kv_codec_decode(const struct kv_codec *c, const void *src, float *dst, size_t dim);
/* Every row becomes what a cache would give back. scratch: 3 * dim floats per worker. */
void kv_codec_pass(const struct kv_codec *c, float *x, size_t rows, size_t dim, float *scratch);

#endif
