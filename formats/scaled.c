/*
 * Weights in 8 bits (floats, or integers) with scales, as FP8 checkpoints hold them: a tensor T and its scale T_scale or
 * T_scale_inv, both of which are multiplied by. One scale may stand for a tensor, a row, a group of a row or a block; along
 * an axis of d elements in blocks of b there are ceil(d / b) of them. Decoded one tensor at a time, to f32, since the product
 * of a code and its scale has more bits than bf16; the compressed-tensors library rounds it to the scale's type, and so do we.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "formats/packed.h"
#include "tensor/half.h"

struct entry {
	size_t weight, scale;              /* positions in the inner source; scale SIZE_MAX: the tensor itself */
	uint64_t block[TENSOR_MAX_DIMS];   /* along each axis */
	uint64_t stride[TENSOR_MAX_DIMS];  /* between scales along each axis */
};

struct scaled_source {
	struct tensor_source base;  /* first: get() casts back */
	struct tensor_source *inner;
	struct entry *entries;
};

/* Rows and columns that one scale stands for; 0: all. */
struct span {
	uint64_t rows, cols;
};

/* ---- values */

struct decode {
	const struct tensor *weight, *to;
	const struct entry *entry;
	const uint8_t *codes;
	const float *scale;
	uint8_t *out;
	uint64_t rows, cols;
};
enum { ROWS = 64, RUN = 256 };

static size_t first_scale(const struct decode *d, uint64_t row)
{
	size_t at = 0;
	for (uint32_t a = d->weight->ndim - 1; a-- > 0; row /= d->weight->dim[a])
		at += (size_t)(row % d->weight->dim[a] / d->entry->block[a] * d->entry->stride[a]);
	return at;
}

/* A run of codes under one scale. */
static void decode_run(const struct decode *d, const uint8_t *in, float scale, size_t n, uint8_t *out)
{
	const struct codec *c = d->weight->codec;
	float x[RUN];
	if (c->kind == CODEC_FLOAT)
		c->decode(c, in, x, n);
	for (size_t i = 0; i < n; i++)
		x[i] = (c->kind == CODEC_FLOAT ? x[i] : (float)(int8_t)in[i]) * scale;
	d->to->codec->encode(d->to->codec, x, out, n);
}

static void decode_rows(void *arg, size_t slice, int worker)
{
	const struct decode *d = arg;
	uint32_t last = d->weight->ndim - 1, width = d->to->codec->block_bytes;
	uint64_t block = d->entry->block[last], end = (slice + 1) * ROWS < d->rows ? (slice + 1) * ROWS : d->rows, n;
	(void)worker;
	for (uint64_t r = slice * ROWS; r < end; r++) {
		const float *scale = d->scale + first_scale(d, r);
		for (uint64_t at = 0; at < d->cols; at += n) {
			n = block - at % block < RUN ? block - at % block : RUN;
			n = d->cols - at < n ? d->cols - at : n;
			decode_run(d, d->codes + r * d->cols + at, scale[at / block * d->entry->stride[last]], (size_t)n,
				   d->out + (r * d->cols + at) * width);
		}
	}
}

static int decode(struct scaled_source *s, const struct entry *x, const struct tensor *t, const float *scale,
		  struct tensor_bytes *out, struct err *e)
{
	struct tensor_bytes b;
	uint8_t *values = malloc((size_t)t->nbytes + 1);
	int rc = values ? s->inner->get(s->inner, x->weight, &b, e) : err_nomem(e);
	if (rc) {
		free(values);
		return rc;
	}
	struct decode d = { .weight = &s->inner->tensors[x->weight], .to = t, .entry = x, .codes = b.data, .scale = scale, .out = values,
			    .rows = tensor_rows(t), .cols = tensor_cols(t) };
	thread_for((size_t)((d.rows + ROWS - 1) / ROWS), decode_rows, &d);
	source_drop(s->inner, b.data, b.size);
	tensor_bytes_release(&b);
	*out = (struct tensor_bytes){ values, (size_t)t->nbytes, values };
	return ERR_OK;
}

static int scaled_get(struct tensor_source *base, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct scaled_source *s = (struct scaled_source *)base;
	const struct entry *x = &s->entries[i];
	float *scale;
	if (x->scale == SIZE_MAX)
		return s->inner->get(s->inner, x->weight, out, e);
	int rc = source_read_f32(s->inner, s->inner->tensors[x->scale].name, &scale, NULL, e);
	if (rc)
		return rc;
	rc = decode(s, x, &base->tensors[i], scale, out, e);
	free(scale);
	return rc;
}

static void scaled_drop(struct tensor_source *base, const void *data, size_t size)
{
	source_drop(((struct scaled_source *)base)->inner, data, size);
}

/* ---- which tensor is what */

static const char *const endings[] = { "_scale_inv", "_scale" };

bool packed_of_activations(const char *name)
{
	static const char *const ends[] = { ".input_scale", ".act_scale", ".activation_scale", ".output_scale", ".q_scale", ".k_scale",
					    ".v_scale", ".input_scale_ub", ".input_zero_point", ".input_global_scale" };
	size_t n = strlen(name);
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		size_t k = strlen(ends[i]);
		if (n > k && !strcmp(name + n - k, ends[i]))
			return true;
	}
	return false;
}

static bool in_eight_bits(const struct tensor *t)
{
	return !strcmp(t->codec->name, "f8_e4m3") || !strcmp(t->codec->name, "f8_e5m2") || !strcmp(t->codec->name, "i8");
}

static const struct tensor *find(const struct tensor_source *s, const char *name, size_t len, const char *ending)
{
	char text[512];
	if (len + strlen(ending) >= sizeof text)
		return NULL;
	snprintf(text, sizeof text, "%.*s%s", (int)len, name, ending);
	return source_find(s, text);
}

static const struct tensor *scale_of(const struct tensor_source *s, const struct tensor *t)
{
	const struct tensor *found = NULL;
	for (size_t i = 0; i < sizeof endings / sizeof *endings && !found; i++)
		found = find(s, t->name, strlen(t->name), endings[i]);
	return found;
}

/* The tensor whose scale this one would be by its name; NULL: none. */
static const struct tensor *owner(const struct tensor_source *s, const struct tensor *t, bool *is_scale)
{
	size_t n = strlen(t->name);
	*is_scale = false;
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t k = strlen(endings[i]);
		if (n <= k || strcmp(t->name + n - k, endings[i]))
			continue;
		*is_scale = true;
		return find(s, t->name, n - k, "");
	}
	return NULL;
}

static int bad(struct err *e, const struct tensor *t, const char *why)
{
	return err_set(e, ERR_INPUT, "tensor %.200s: %s", t->name, why);
}

/* ---- shapes */

/* The scale as one with the weight's number of axes. */
static bool spread(const struct tensor *t, const struct tensor *scale, uint64_t dim[TENSOR_MAX_DIMS])
{
	for (uint32_t a = 0; a < t->ndim; a++)
		dim[a] = 1;
	if (tensor_elements(scale) == 1)
		return true;
	if (scale->ndim == 1)
		dim[0] = scale->dim[0];
	else if (scale->ndim == t->ndim)
		memcpy(dim, scale->dim, t->ndim * sizeof *dim);
	return scale->ndim == 1 || scale->ndim == t->ndim;
}

static bool fits(uint64_t d, uint64_t scales, uint64_t block)
{
	return scales == (block && block < d ? (d + block - 1) / block : 1);
}

/* Blocks along an axis by the number of scales alone: a power of two, as all known ones are, or what divides it. */
static bool guess(uint64_t d, uint64_t scales, uint64_t *block)
{
	for (*block = 1; *block < d && scales > 1; *block *= 2)
		if (fits(d, scales, *block))
			return true;
	*block = scales ? d / scales : 0;
	return scales && *block * scales == d;
}

static int set_blocks(const struct tensor *t, const struct tensor *scale, const struct span *spans, size_t count, struct entry *x,
		      struct err *e)
{
	uint64_t dim[TENSOR_MAX_DIMS], stride = 1;
	uint32_t last = t->ndim - 1;
	char have[160], want[160];
	bool ok = t->ndim > 0 && tensor_elements(t) > 0 && spread(t, scale, dim);
	const struct span *found = NULL;
	for (size_t i = 0; ok && i < count && !found && t->ndim >= 2; i++)
		if (fits(t->dim[last - 1], dim[last - 1], spans[i].rows) && fits(t->dim[last], dim[last], spans[i].cols))
			found = &spans[i];
	for (uint32_t a = 0; a < t->ndim && ok; a++) {
		uint64_t block = found && a == last ? found->cols : found && a + 1 == last ? found->rows : 0;
		if (found && a + 2 > last)
			x->block[a] = block && block < t->dim[a] ? block : t->dim[a];
		else
			ok = guess(t->dim[a], dim[a], &x->block[a]);
	}
	if (!ok || (count && !found && t->ndim >= 2))
		return err_set(e, ERR_INPUT, "tensor %.200s: its shape %s is no scale of %s%s", scale->name, tensor_shape_text(scale, have),
			       tensor_shape_text(t, want), count ? " in what quantization_config says" : "");
	for (uint32_t a = t->ndim; a-- > 0; stride *= dim[a])
		x->stride[a] = dim[a] == 1 ? 0 : stride;
	return ERR_OK;
}

/* What the configuration says one scale stands for: weight_block_size, or the groups of compressed-tensors. */
static int read_spans(struct checkpoint *c, const struct json *q, struct span **out, size_t *count, struct err *e)
{
	const struct json *groups = json_get(q, "config_groups"), *block = json_get(q, "weight_block_size");
	struct span *spans = arena_array(&c->arena, json_count(groups) + 1, sizeof *spans);
	*out = spans;
	*count = 0;
	if (!spans)
		return err_nomem(e);
	for (const struct json *g = json_first(groups); g || json_count(block) == 2; g = json_next(g)) {
		const struct json *w = json_get(g, "weights"), *shape = g ? json_get(w, "block_structure") : block;
		const char *strategy = json_string(json_get(w, "strategy"));
		int64_t rows = 0, cols = 0;
		if (json_count(shape) == 2) {
			if (!json_int(json_first(shape), &rows) || !json_int(json_next(json_first(shape)), &cols) || rows < 1 || cols < 1)
				return err_set(e, ERR_INPUT, "quantization_config: the shape of a block is not two whole numbers from 1");
		} else if (json_int(json_get(w, "group_size"), &cols) && cols > 0) {
			rows = 1;
		} else {
			rows = strategy && !strcmp(strategy, "channel");
			cols = 0;
		}
		spans[(*count)++] = (struct span){ (uint64_t)rows, (uint64_t)cols };
		if (!g)
			break;
	}
	return ERR_OK;
}

/* ---- the source */

/* What quantization_config says: is there one, is it compressed-tensors', what does one scale stand for? */
struct told {
	bool any, rounds;
	struct span *spans;
	size_t count;
};

static int add(struct scaled_source *s, size_t i, const struct told *told, struct entry *x, struct tensor *t, struct err *e)
{
	const struct tensor *in = &s->inner->tensors[i], *scale = scale_of(s->inner, in);
	*x = (struct entry){ .weight = i, .scale = SIZE_MAX };
	*t = *in;
	if (!in_eight_bits(in))
		return scale && told->any ? bad(e, in, "has a scale, but is not in 8 bits") : ERR_OK;
	if (!scale)
		return told->any && in->ndim > 1 ? bad(e, in, "in 8 bits, and its scale is missing") : ERR_OK;
	if (find(s->inner, in->name, strlen(in->name), "_zero_point") || find(s->inner, in->name, strlen(in->name), "_g_idx"))
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: has zero points or an order of columns, which are not read", in->name);
	if (scale->codec->kind != CODEC_FLOAT)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: scales in %s are not read", scale->name, scale->codec->name);
	x->scale = source_position(s->inner, scale);
	t->codec = told->rounds && scale->codec->block_bytes == 2 ? scale->codec : codec_find("f32");
	int rc = set_blocks(in, scale, told->spans, told->count, x, e);
	return rc ? rc : tensor_measure(t, e);
}

static int build(struct checkpoint *c, struct scaled_source *s, const struct json *quant, struct err *e)
{
	const struct tensor_source *in = s->inner;
	struct tensor *tensors = arena_array(&c->arena, in->count + 1, sizeof *tensors);
	const char *method = json_string(json_get(quant, "quant_method"));
	struct told told = { .any = quant != NULL, .rounds = method && !strcmp(method, "compressed-tensors") };
	size_t n = 0;
	int rc = read_spans(c, quant, &told.spans, &told.count, e);
	s->entries = arena_array(&c->arena, in->count + 1, sizeof *s->entries);
	if (!rc && (!tensors || !s->entries))
		rc = err_nomem(e);
	for (size_t i = 0; i < in->count && !rc; i++) {
		bool is_scale;
		const struct tensor *t = &in->tensors[i], *of = owner(in, t, &is_scale);
		if (packed_of_activations(t->name) || (of && in_eight_bits(of)))
			continue;
		if (is_scale && quant && !of)
			rc = bad(e, t, "a scale of a tensor that is not there");
		if (!rc)
			rc = add(s, i, &told, &s->entries[n], &tensors[n], e);
		n++;
	}
	s->base = (struct tensor_source){ .tensors = tensors, .count = n, .get = scaled_get, .drop = scaled_drop, .copies = true };
	return rc ? rc : source_index(&s->base, e);
}

int scaled_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	struct scaled_source *s = arena_alloc(&c->arena, sizeof *s);
	if (!s)
		return err_nomem(e);
	if (json_count(json_get(quant, "transform_config")))
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: transform_config turns the weights, which is not read");
	s->inner = c->source;
	int rc = build(c, s, quant, e);
	if (!rc)
		c->source = &s->base;
	else
		map_release(&s->base.index);
	return rc;
}
