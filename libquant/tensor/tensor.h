#ifndef QUIRE_TENSOR_TENSOR_H
#define QUIRE_TENSOR_TENSOR_H
/*
 * A tensor is name, shape, codec, bytes. Shapes are in row-major ("C") order
 * as safetensors writes them: a linear weight is [out, in]; the last dimension
 * is a row, the unit that codecs work on.
 *
 * A tensor source yields tensors; checkpoints, overlays (a source with some
 * tensors replaced) and synthetic models are sources. Names are always Hugging
 * Face names; readers of other formats translate.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"

struct codec;

enum { TENSOR_MAX_DIMS = 8 };

struct tensor {
	const char *name;             /* owned by the source */
	const struct codec *codec;    /* how the bytes are stored */
	uint32_t ndim;                /* 0: a scalar */
	uint64_t dim[TENSOR_MAX_DIMS];
	uint64_t nbytes;              /* size in its codec, uncompressed */
};

/* Elements in a row (1 for scalars), and the number of rows (1 for vectors and scalars). */
static inline uint64_t tensor_cols(const struct tensor *t)
{
	return t->ndim ? t->dim[t->ndim - 1] : 1;
}

uint64_t tensor_rows(const struct tensor *t);
uint64_t tensor_elements(const struct tensor *t);

/*
 * Fills nbytes from codec and shape. Refuses (ERR_INPUT) products that overflow
 * and (ERR_UNSUPPORTED) rows the codec cannot hold. Callers put the file in front.
 */
int tensor_measure(struct tensor *t, struct err *e);

/* "[2048, 5632]" for messages and tables; returns buf. */
char *tensor_shape_text(const struct tensor *t, char buf[160]);

/* The bytes of one tensor: a view into a mapped file, or memory that `owned` holds. */
struct tensor_bytes {
	const uint8_t *data;
	size_t size;
	void *owned;
};

struct tensor_source {
	const struct tensor *tensors;
	size_t count;
	struct map index;   /* name -> position in tensors; see source_index */
	/* Gives the bytes of tensor i; release them with tensor_bytes_release. Safe to call from several threads. */
	int (*get)(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e);
	/* Optional. Tells that a byte range of a view is not needed soon, so that resident memory stays bounded. */
	void (*drop)(struct tensor_source *s, const void *data, size_t size);
	/* Optional. The CRC-32 of tensor i's bytes where get has summed them and found them right; false: it has not. */
	bool (*summed)(struct tensor_source *s, size_t i, uint32_t *crc);
	bool copies;        /* get may give memory of its own, not views: plans count a tensor's size */
};

int source_index(struct tensor_source *s, struct err *e);               /* builds index; a duplicate name is ERR_INPUT */
const struct tensor *source_find(const struct tensor_source *s, const char *name); /* NULL when missing */
size_t source_position(const struct tensor_source *s, const struct tensor *t);
void source_drop(struct tensor_source *s, const void *data, size_t size);
bool source_summed(struct tensor_source *s, size_t i, uint32_t *crc);
void tensor_bytes_release(struct tensor_bytes *b);

/* Reads tensor `name` as f32, whatever its codec; *out is malloc'ed, tensor_elements() long. ERR_INPUT when missing. */
int source_read_f32(struct tensor_source *s, const char *name, float **out, const struct tensor **meta, struct err *e);

/*
 * An overlay: a base source with tensors replaced, added or removed. Folding,
 * channel scaling and calibrated quantization hand their results on this way,
 * so that one writer path serves them all. The base must outlive the overlay.
 */
struct overlay;
struct overlay *overlay_new(struct tensor_source *base, struct err *e);
/* Replaces or adds; takes ownership of `bytes` (malloc'ed, t->nbytes long); copies *t and its name. */
int overlay_put(struct overlay *o, const struct tensor *t, void *bytes, struct err *e);
int overlay_remove(struct overlay *o, const char *name, struct err *e);
struct tensor_source *overlay_source(struct overlay *o); /* valid until the next put or remove */
void overlay_free(struct overlay *o);

#endif
