#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "codec/codec.h"

uint64_t tensor_rows(const struct tensor *t)
{
	uint64_t rows = 1;
	for (uint32_t i = 0; i + 1 < t->ndim; i++)
		rows *= t->dim[i];
	return rows;
}

uint64_t tensor_elements(const struct tensor *t)
{
	return tensor_rows(t) * tensor_cols(t);
}

char *tensor_shape_text(const struct tensor *t, char buf[160])
{
	size_t at = 0;
	buf[at++] = '[';
	/* eight numbers of at most 20 digits would not fit; such a shape cannot be measured either, so cut it */
	for (uint32_t i = 0; i < t->ndim && i < TENSOR_MAX_DIMS && at + 25 < 160; i++)
		at += (size_t)snprintf(buf + at, 160 - at, "%s%" PRIu64, i ? ", " : "", t->dim[i]);
	buf[at++] = ']';
	buf[at] = '\0';
	return buf;
}

int tensor_measure(struct tensor *t, struct err *e)
{
	char shape[160];
	uint64_t rows = 1, row, all;
	if (t->ndim > TENSOR_MAX_DIMS)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: %u dimensions, at most %d are supported", t->name,
			       (unsigned)t->ndim, TENSOR_MAX_DIMS);
	for (uint32_t i = 0; i + 1 < t->ndim; i++)
		if (mul_overflows(rows, t->dim[i], &rows))
			return err_set(e, ERR_INPUT, "tensor %s: the size of shape %s overflows", t->name,
				       tensor_shape_text(t, shape));
	uint64_t cols = tensor_cols(t);
	t->nbytes = 0;
	if (mul_overflows(rows, cols, &all))
		return err_set(e, ERR_INPUT, "tensor %s: the size of shape %s overflows", t->name,
			       tensor_shape_text(t, shape));
	if (!all)
		return 0;
	row = codec_row_bytes(t->codec, cols);
	if (!row && t->codec->block > 1)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: %s stores %u elements at a time, but rows of shape %s do not divide",
			       t->name, t->codec->name, (unsigned)t->codec->block, tensor_shape_text(t, shape));
	if (!row || mul_overflows(rows, row, &t->nbytes) || t->nbytes > SIZE_MAX / 2)
		return err_set(e, ERR_INPUT, "tensor %s: the size of shape %s overflows", t->name,
			       tensor_shape_text(t, shape));
	return 0;
}

int source_index(struct tensor_source *s, struct err *e)
{
	map_release(&s->index);
	for (size_t i = 0; i < s->count; i++) {
		int added = map_add(&s->index, s->tensors[i].name, strlen(s->tensors[i].name), i);
		if (added < 0)
			return err_nomem(e);
		if (!added)
			return err_set(e, ERR_INPUT, "tensor %s: the name occurs twice", s->tensors[i].name);
	}
	return 0;
}

const struct tensor *source_find(const struct tensor_source *s, const char *name)
{
	uint64_t i;
	/* an index may keep removed names at a position past the end */
	return map_get(&s->index, name, strlen(name), &i) && i < s->count ? &s->tensors[i] : NULL;
}

size_t source_position(const struct tensor_source *s, const struct tensor *t)
{
	return (size_t)(t - s->tensors);
}

void source_drop(struct tensor_source *s, const void *data, size_t size)
{
	if (s->drop)
		s->drop(s, data, size);
}

bool source_summed(struct tensor_source *s, size_t i, uint32_t *crc)
{
	return s->summed && s->summed(s, i, crc);
}

void tensor_bytes_release(struct tensor_bytes *b)
{
	free(b->owned);
	*b = (struct tensor_bytes){ 0 };
}

/* Rows are decoded in slices of about this many elements: enough to hide the cost of handing one out. */
enum { SLICE = 1 << 16 };

struct decode_job {
	const struct codec *codec;
	const uint8_t *src;
	float *dst;
	uint64_t rows, cols, row_bytes, slice;
};

static void decode_slice(void *arg, size_t item, int worker)
{
	const struct decode_job *j = arg;
	(void)worker;
	uint64_t from = item * j->slice, to = from + j->slice < j->rows ? from + j->slice : j->rows;
	for (uint64_t r = from; r < to; r++)
		j->codec->decode(j->codec, j->src + r * j->row_bytes, j->dst + r * j->cols, (size_t)j->cols);
}

int source_read_f32(struct tensor_source *s, const char *name, float **out, const struct tensor **meta, struct err *e)
{
	*out = NULL;
	const struct tensor *t = source_find(s, name);
	if (!t)
		return err_set(e, ERR_INPUT, "tensor %s is missing", name);
	if (meta)
		*meta = t;
	uint64_t n = tensor_elements(t), bytes;
	if (mul_overflows(n, sizeof(float), &bytes) || bytes > SIZE_MAX / 2)
		return err_nomem(e);
	struct tensor_bytes b = { 0 };
	int rc = s->get(s, source_position(s, t), &b, e);
	if (rc)
		return rc;
	if (b.size != t->nbytes) {
		tensor_bytes_release(&b);
		return err_set(e, ERR_INPUT, "tensor %s: %zu bytes where %" PRIu64 " were expected", name, b.size, t->nbytes);
	}
	float *f = malloc(bytes ? (size_t)bytes : 1);
	if (!f) {
		tensor_bytes_release(&b);
		return err_nomem(e);
	}
	if (n) {
		struct decode_job j = { t->codec, b.data, f, tensor_rows(t), tensor_cols(t), 0, 0 };
		j.row_bytes = codec_row_bytes(t->codec, j.cols);
		j.slice = j.cols < SLICE ? SLICE / j.cols : 1;
		thread_for((size_t)((j.rows + j.slice - 1) / j.slice), decode_slice, &j);
	}
	if (!b.owned)
		source_drop(s, b.data, b.size);
	tensor_bytes_release(&b);
	*out = f;
	return 0;
}
