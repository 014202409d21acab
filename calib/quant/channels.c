#include "calib/quant/channels.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

struct channels {
	struct tensor_source base;       /* first: get() casts back */
	struct tensor_source *inner;
	struct tensor *tensors;
	struct channel_map *maps;        /* [count] */
};

static bool changes_values(const struct channel_map *m)
{
	return m->column_order || m->row_scale || m->column_scale;
}

static size_t rows_of(const struct tensor *t)
{
	return (size_t)(t->ndim == 1 ? t->dim[0] : tensor_rows(t));
}

static int move_rows(const struct channels *c, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct tensor *t = &c->tensors[i];
	struct tensor_bytes in;
	int rc = c->inner->get(c->inner, i, &in, e);
	if (rc)
		return rc;
	size_t rows = rows_of(t), size = (size_t)t->nbytes / rows;
	uint8_t *bytes = malloc((size_t)t->nbytes);
	for (size_t r = 0; r < rows && bytes; r++)
		memcpy(bytes + r * size, in.data + c->maps[i].row_order[r] * size, size);
	tensor_bytes_release(&in);
	*out = (struct tensor_bytes){ bytes, (size_t)t->nbytes, bytes };
	return bytes ? ERR_OK : err_nomem(e);
}

static int change_values(const struct channels *c, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct channel_map *m = &c->maps[i];
	const struct tensor *t = &c->tensors[i], *meta;
	float *x, *y = malloc((size_t)t->nbytes);
	int rc = y ? source_read_f32(c->inner, t->name, &x, &meta, e) : err_nomem(e);
	if (rc) {
		free(y);
		return rc;
	}
	size_t rows = rows_of(t), cols = (size_t)tensor_elements(t) / rows;
	for (size_t r = 0; r < rows; r++) {
		const float *from = x + (m->row_order ? m->row_order[r] : r) * cols;
		float scale = m->row_scale ? m->row_scale[r] : 1;
		for (size_t k = 0; k < cols; k++)
			y[r * cols + k] = from[m->column_order ? m->column_order[k] : k] * ((m->column_scale ? m->column_scale[k] : 1) / scale);
	}
	free(x);
	*out = (struct tensor_bytes){ (const uint8_t *)y, (size_t)t->nbytes, y };
	return ERR_OK;
}

static int get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct channels *c = (struct channels *)s;
	if (changes_values(&c->maps[i]))
		return change_values(c, i, out, e);
	return c->maps[i].row_order ? move_rows(c, i, out, e) : c->inner->get(c->inner, i, out, e);
}

static void drop(struct tensor_source *s, const void *data, size_t size)
{
	source_drop(((struct channels *)s)->inner, data, size);
}

struct channels *channels_new(struct tensor_source *inner, struct err *e)
{
	struct channels *c = calloc(1, sizeof *c);
	if (c) {
		c->tensors = calloc(inner->count + 1, sizeof *c->tensors);
		c->maps = calloc(inner->count + 1, sizeof *c->maps);
	}
	if (!c || !c->tensors || !c->maps) {
		channels_free(c);
		err_nomem(e);
		return NULL;
	}
	c->inner = inner;
	memcpy(c->tensors, inner->tensors, inner->count * sizeof *c->tensors);
	c->base = (struct tensor_source){ .tensors = c->tensors, .count = inner->count, .index = inner->index, .get = get, .drop = drop };
	return c;
}

int channels_set(struct channels *c, size_t tensor, const struct channel_map *map, struct err *e)
{
	c->maps[tensor] = *map;
	if (!changes_values(map))
		return ERR_OK;
	c->tensors[tensor].codec = codec_find("f32");
	return tensor_measure(&c->tensors[tensor], e);
}

struct tensor_source *channels_source(struct channels *c)
{
	return &c->base;
}

void channels_free(struct channels *c)
{
	if (!c)
		return;
	free(c->tensors);
	free(c->maps);
	free(c);
}
