#include "model/kv_codec.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"

/* Names without a group size: what a head of any size can hold. */
static const struct {
	const char *name, *codec;
} short_names[] = { { "int8", "int8-g32" }, { "int4", "int4-g32" } };

int kv_codec_find(const char *name, bool rotate, size_t dim, struct kv_codec *out, struct err *e)
{
	for (size_t i = 0; i < sizeof short_names / sizeof *short_names; i++)
		if (!strcmp(name, short_names[i].name))
			name = short_names[i].codec;
	const struct codec *c = codec_find(name);
	if (!c || c->kind == CODEC_INTEGER)
		return err_set(e, ERR_USAGE, "unknown codec '%.40s' for the KV cache; for example f16, q8_0, q4_0, int8, int4", name);
	if (!codec_row_bytes(c, dim) || codec_row_bytes(c, dim) > 8 * dim)
		return err_set(e, ERR_UNSUPPORTED, "the KV cache cannot be %s: heads of %zu elements are not whole blocks of %u", c->name,
			       dim, c->block);
	if (rotate && dim % 2)
		return err_set(e, ERR_UNSUPPORTED, "heads of %zu elements cannot be rotated", dim);
	*out = (struct kv_codec){ c, rotate };
	return ERR_OK;
}

int kv_codecs_find(const struct kv_choice *c, size_t dim, struct kv_codecs *out, struct err *e)
{
	*out = (struct kv_codecs){ 0 };
	int rc = c->k ? kv_codec_find(c->k, c->rotate, dim, &out->k, e) : ERR_OK;
	const char *v = c->v ? c->v : c->k;
	if (!rc && v)
		rc = kv_codec_find(v, c->rotate, dim, &out->v, e);
	if (!rc && c->rotate && !v)
		rc = err_set(e, ERR_USAGE, "rotation is for a KV cache in a codec; name one");
	return rc;
}

bool kv_codec_plain(const struct kv_codec *c)
{
	return !c->rotate && (!c->codec || (c->codec->kind == CODEC_FLOAT && !strcmp(c->codec->name, "f32")));
}

size_t kv_codec_bytes(const struct kv_codec *c, size_t dim)
{
	return c->codec ? (size_t)codec_row_bytes(c->codec, dim) : dim * sizeof(float);
}

/* Walsh-Hadamard transform of each part of the largest power of two; symmetric and its own inverse. */
static void turn(float *x, size_t dim)
{
	size_t part = dim & (~dim + 1);
	float scale = 1 / sqrtf((float)part);
	for (size_t at = 0; at < dim; at += part)
		for (size_t h = 1; h < part; h *= 2)
			for (size_t i = at; i < at + part; i += 2 * h)
				for (size_t j = i; j < i + h; j++) {
					float a = x[j], b = x[j + h];
					x[j] = a + b;
					x[j + h] = a - b;
				}
	for (size_t i = 0; i < dim; i++)
		x[i] *= scale;
}

static void encode_row(const struct kv_codec *c, const float *x, size_t dim, void *out, float *scratch)
{
	if (c->rotate) {
		memcpy(scratch, x, dim * sizeof *x);
		turn(scratch, dim);
		x = scratch;
	}
	if (c->codec)
		c->codec->encode(c->codec, x, out, dim);
	else
		memcpy(out, x, dim * sizeof *x);
}

void kv_codec_decode(const struct kv_codec *c, const void *src, float *dst, size_t dim)
{
	if (c->codec)
		c->codec->decode(c->codec, src, dst, dim);
	else
		memcpy(dst, src, dim * sizeof *dst);
	if (c->rotate)
		turn(dst, dim);
}

enum { ROWS = 64 }; /* of an item: fixed, so that nothing depends on the thread count */

struct job {
	const struct kv_codec *codec;
	const float *x;
	float *back;             /* NULL: only encode */
	uint8_t *out;
	float *scratch;
	size_t rows, dim, bytes;
};

static void item(void *arg, size_t index, int worker)
{
	const struct job *j = arg;
	float *scratch = j->scratch + (size_t)worker * j->dim * (j->back ? 3 : 1);
	for (size_t r = index * ROWS; r < j->rows && r < (index + 1) * ROWS; r++) {
		if (!j->back) {
			encode_row(j->codec, j->x + r * j->dim, j->dim, j->out + r * j->bytes, scratch);
			continue;
		}
		encode_row(j->codec, j->x + r * j->dim, j->dim, scratch + j->dim, scratch);
		kv_codec_decode(j->codec, scratch + j->dim, j->back + r * j->dim, j->dim);
	}
}

void kv_codec_encode(const struct kv_codec *c, const float *x, size_t rows, size_t dim, void *out, float *scratch)
{
	struct job j = { .codec = c, .x = x, .out = out, .scratch = scratch, .rows = rows, .dim = dim, .bytes = kv_codec_bytes(c, dim) };
	if (kv_codec_plain(c))
		memcpy(out, x, rows * dim * sizeof *x);
	else
		thread_for((rows + ROWS - 1) / ROWS, item, &j);
}

void kv_codec_pass(const struct kv_codec *c, float *x, size_t rows, size_t dim, float *scratch)
{
	struct job j = { .codec = c, .x = x, .back = x, .scratch = scratch, .rows = rows, .dim = dim };
	if (!kv_codec_plain(c))
		thread_for((rows + ROWS - 1) / ROWS, item, &j);
}
