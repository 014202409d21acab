/* A source that makes one tensor of the parts of each matrix in codes. */
#include "formats/codes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "formats/packing.h"
#include "tensor/half.h"

struct codes_source {
	struct tensor_source base;  /* first: get() casts back */
	struct tensor_source *inner;
	const struct codes_layout *const *layouts;
	struct codes *entries;      /* rows 0: part[PART_CODES] is the tensor itself */
};

/* ---- values */

struct join {
	const struct codes_parts *parts;
	const struct codes *x;
	const struct codec *codec;
	uint64_t row_bytes;
	uint8_t *out, *room;        /* room: for each worker the codes of a tile and its zero points */
	size_t room_bytes;
};

struct tile {
	const uint8_t *codes, *zeros;   /* [n][cols], [groups][CODES_TILE] */
	size_t row;                     /* in the tile */
	uint64_t at;                    /* of all */
};

static float scale_of(const struct join *j, const struct tile *t, uint64_t group)
{
	return codes_scale(j->parts, j->x, codes_scale_at(j->x, t->at, group));
}

static float bias_of(const struct join *j, const struct tile *t, uint64_t group)
{
	return codes_float(j->parts->tensor[PART_ZERO], j->parts->bytes[PART_ZERO].data, codes_scale_at(j->x, t->at, group));
}

static void to_floats(const struct join *j, const struct tile *t, uint8_t *out)
{
	static const float e2m1[16] = { 0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6 };
	const struct codes *x = j->x;
	const uint8_t *order = j->parts->bytes[PART_ORDER].data;
	for (uint64_t c = 0; c < x->cols; c++) {
		uint64_t g = x->ordered ? load_u32(order + 4 * c) : c / x->group;
		float code = (float)t->codes[c], scale = scale_of(j, t, g);
		float v = x->layout->fp4 ? scale * e2m1[t->codes[c]] : x->layout->bias ? scale * code + bias_of(j, t, g)
							     : scale * (code - (float)t->zeros[g * CODES_TILE + t->row]);
		store_u32(out + 4 * c, f32_bits(v));
	}
}

static void to_codec(const struct join *j, const struct tile *t, uint8_t *out)
{
	const struct codes *x = j->x;
	const struct codec *c = j->codec;
	for (uint64_t at = 0, n; at < x->cols; at += n) {
		uint64_t g = at / x->group;
		struct block_params p = { 0 };
		float scale = scale_of(j, t, g);
		n = codec_block_len(c, at, x->cols);
		p.d = x->layout->fp4 ? j->parts->bytes[PART_SCALE].data[codes_scale_at(x, t->at, g)] : c->group_scale ? bf16_from_f32(scale) : f16_from_f32(scale);
		if (c->group_bias)
			p.dmin = c->group_scale ? bf16_from_f32(bias_of(j, t, g)) : f16_from_f32(bias_of(j, t, g));
		else if (c->has_offset && j->x->layout->bias)
			p.mn[0] = (uint8_t)(scale != 0 ? -bias_of(j, t, g) / scale + 0.5f : 0);
		else if (c->has_offset)
			p.mn[0] = t->zeros[g * CODES_TILE + t->row];
		c->pack(c, &p, t->codes + at, (size_t)n, out);
		out += codec_row_bytes(c, n);
	}
}

static void join_tile(void *arg, size_t slice, int worker)
{
	const struct join *j = arg;
	const struct codes *x = j->x;
	uint8_t *zeros = j->room + (size_t)worker * j->room_bytes, *codes = zeros + CODES_TILE * x->groups;
	struct tile t = { .codes = codes, .zeros = zeros, .at = (uint64_t)slice * CODES_TILE };
	size_t n = x->rows - t.at < CODES_TILE ? (size_t)(x->rows - t.at) : CODES_TILE;
	j->x->layout->codes(x, j->parts->bytes[PART_CODES].data, t.at, n, codes);
	if (!j->parts->tensor[PART_ZERO])
		memset(zeros, 1 << (x->bits - 1), (size_t)(CODES_TILE * x->groups));
	for (uint64_t g = 0; g < x->groups && x->layout->zeros && j->parts->tensor[PART_ZERO]; g++)
		j->x->layout->zeros(x, j->parts->bytes[PART_ZERO].data, g, t.at, n, zeros + g * CODES_TILE);
	for (; t.row < n; t.row++, t.at++, t.codes += x->cols)
		(codec_quantizes(j->codec) ? to_codec : to_floats)(j, &t, j->out + t.at * j->row_bytes);
}

static int join(const struct codes_source *s, const struct codes_parts *p, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct tensor *t = &s->base.tensors[i];
	const struct codes *x = &s->entries[i];
	uint64_t tile = x->rows < CODES_TILE ? x->rows : CODES_TILE;
	struct join j = { .parts = p, .x = x, .codec = t->codec, .row_bytes = codec_row_bytes(t->codec, x->cols),
			  .room_bytes = (size_t)(CODES_TILE * x->groups + tile * x->cols) };
	size_t slices = (size_t)((x->rows + CODES_TILE - 1) / CODES_TILE);
	j.out = malloc((size_t)t->nbytes + 1);
	j.room = malloc(j.room_bytes * (size_t)thread_count());
	if (j.out && j.room)
		thread_for(slices, join_tile, &j);
	free(j.room);
	if (!j.out || !j.room) {
		free(j.out);
		return err_nomem(e);
	}
	*out = (struct tensor_bytes){ j.out, (size_t)t->nbytes, j.out };
	return ERR_OK;
}

/* ---- parts */

static int parts_read(const struct codes_source *s, const struct codes *x, bool all, struct codes_parts *out, struct err *e)
{
	int rc = ERR_OK;
	*out = (struct codes_parts){ 0 };
	for (int p = 0; p < CODE_PARTS && !rc; p++) {
		if (x->part[p] == SIZE_MAX)
			continue;
		out->tensor[p] = &s->inner->tensors[x->part[p]];
		if (all || p != PART_CODES)
			rc = s->inner->get(s->inner, x->part[p], &out->bytes[p], e);
	}
	return rc;
}

static void parts_release(const struct codes_source *s, struct codes_parts *p)
{
	for (int i = 0; i < CODE_PARTS; i++) {
		if (p->bytes[i].data)
			source_drop(s->inner, p->bytes[i].data, p->bytes[i].size);
		tensor_bytes_release(&p->bytes[i]);
	}
}

static int codes_get(struct tensor_source *base, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct codes_source *s = (struct codes_source *)base;
	const struct codes *x = &s->entries[i];
	struct codes_parts p;
	if (!x->rows)
		return s->inner->get(s->inner, x->part[PART_CODES], out, e);
	int rc = parts_read(s, x, true, &p, e);
	if (!rc)
		rc = join(s, &p, i, out, e);
	parts_release(s, &p);
	return rc;
}

static void codes_drop(struct tensor_source *base, const void *data, size_t size)
{
	source_drop(((struct codes_source *)base)->inner, data, size);
}

/* ---- what they are */

static size_t find_part(const struct codes_source *s, const struct codes_layout *l, const char *module, size_t len, enum code_part p)
{
	char name[512];
	if (!l->part[p] || len + 32 > sizeof name)
		return SIZE_MAX;
	snprintf(name, sizeof name, "%.*s%s", (int)len, module, l->part[p]);
	const struct tensor *t = source_find(s->inner, name);
	return t && (p != PART_CODES || !strcmp(t->codec->name, l->type)) ? source_position(s->inner, t) : SIZE_MAX;
}

/* The part that a name is by its end, and the length of the module's name in front of it. */
static enum code_part part_of(const struct codes_layout *l, const char *name, size_t *len)
{
	size_t n = strlen(name);
	for (int p = 0; p < CODE_PARTS; p++) {
		size_t k = l->part[p] ? strlen(l->part[p]) : n;
		if (n > k && !strcmp(name + n - k, l->part[p])) {
			*len = n - k;
			return (enum code_part)p;
		}
	}
	return CODE_PARTS;
}

struct build {
	struct checkpoint *c;
	const struct json *quant;
	const char *name;
	struct tensor *tensors;
	size_t matrices, floats;
	const char *why;            /* the first that is given as floats is */
};

static int set_shape(const struct codes_source *s, const struct codes *x, struct tensor *t, struct err *e)
{
	const struct tensor *codes = &s->inner->tensors[x->part[PART_CODES]];
	if (x->layout->by_group) {
		t->ndim = 2;
		t->dim[0] = x->rows;
	} else {
		t->ndim = codes->ndim;
		memcpy(t->dim, codes->dim, sizeof t->dim);
	}
	t->dim[t->ndim - 1] = x->cols;
	return tensor_measure(t, e);
}

static int find_parts(const struct codes_source *s, const struct tensor *codes, size_t len, struct codes *x, struct err *e)
{
	const struct codes_layout *l = x->layout;
	for (int k = 0; k < CODE_PARTS; k++) {
		x->part[k] = find_part(s, l, codes->name, len, (enum code_part)k);
		const struct tensor *t = x->part[k] == SIZE_MAX ? NULL : &s->inner->tensors[x->part[k]];
		bool needed = l->part[k] && k != PART_ORDER && k != PART_GLOBAL && !(k == PART_ZERO && l->no_zeros);
		if ((t && !tensor_elements(t)) || (!t && needed))
			return err_set(e, ERR_INPUT, "tensor %.200s: %.*s%s is missing or empty", codes->name, (int)len, codes->name, l->part[k]);
	}
	return ERR_OK;
}

static int measure(struct build *b, struct codes *x, const struct codes_parts *p, const char *module, struct err *e)
{
	struct codes found;
	int rc = x->layout->measure(p, b->quant, module, &found, e);
	if (rc)
		return rc;
	memcpy(found.part, x->part, sizeof found.part);
	*x = found;
	return codes_inspect(p, b->quant, x, &b->c->notes, e);
}

static int add_matrix(struct build *b, struct codes_source *s, size_t i, size_t len, size_t n, struct err *e)
{
	const struct tensor *codes = &s->inner->tensors[i];
	struct codes *x = &s->entries[n];
	struct tensor *t = &b->tensors[n];
	struct codes_parts p;
	const char *why = NULL;
	char *name = arena_alloc(&b->c->arena, len + sizeof ".weight");
	if (!name)
		return err_nomem(e);
	snprintf(name, len + 1, "%s", codes->name);
	int rc = find_parts(s, codes, len, x, e);
	if (rc)
		return rc;
	rc = parts_read(s, x, false, &p, e);
	if (!rc)
		rc = measure(b, x, &p, name, e);
	if (!rc) {
		const struct codec *c = codes_codec(&p, x, &why);
		memcpy(name + len, ".weight", sizeof ".weight");
		*t = (struct tensor){ .name = name, .codec = c ? c : codec_find("f32") };
		b->matrices++;
		b->floats += !c;
		b->why = b->why || c ? b->why : why;
		rc = set_shape(s, x, t, e);
	}
	parts_release(s, &p);
	return rc;
}

static int add(struct build *b, struct codes_source *s, size_t i, size_t *n, struct err *e)
{
	const struct tensor *t = &s->inner->tensors[i];
	bool lost = false;
	if (packed_of_activations(t->name))
		return ERR_OK;
	for (const struct codes_layout *const *l = s->layouts; *l; l++) {
		size_t len = 0;
		enum code_part p = part_of(*l, t->name, &len);
		if (p == PART_CODES && !strcmp(t->codec->name, (*l)->type)) {
			s->entries[*n].layout = *l;
			return add_matrix(b, s, i, len, (*n)++, e);
		}
		if (p == CODE_PARTS || p == PART_CODES)
			continue;
		if (find_part(s, *l, t->name, len, PART_CODES) != SIZE_MAX)
			return ERR_OK;
		lost = true;
	}
	if (lost)
		return err_set(e, ERR_INPUT, "tensor %.200s: there are no codes for it", t->name);
	b->tensors[*n] = *t;
	s->entries[(*n)++] = (struct codes){ .part = { i } };
	return ERR_OK;
}

static int build_source(struct build *b, struct codes_source *s, struct err *e)
{
	size_t n = 0, count = s->inner->count;
	int rc = ERR_OK;
	b->tensors = arena_array(&b->c->arena, count + 1, sizeof *b->tensors);
	s->entries = arena_array(&b->c->arena, count + 1, sizeof *s->entries);
	if (!b->tensors || !s->entries)
		return err_nomem(e);
	for (size_t i = 0; i < count && !rc; i++)
		rc = add(b, s, i, &n, e);
	s->base = (struct tensor_source){ .tensors = b->tensors, .count = n, .get = codes_get, .drop = codes_drop, .copies = true };
	if (!rc && b->floats)
		notes_add(&b->c->notes, "%.600s: %zu of %zu matrices in codes of %s are given as f32: %s", b->c->path, b->floats, b->matrices,
			  b->name, b->why);
	return rc ? rc : source_index(&s->base, e);
}

static int codes_attach(struct checkpoint *c, const struct json *quant, const struct packing *kind, struct err *e)
{
	struct codes_source *s = arena_alloc(&c->arena, sizeof *s);
	struct build b = { .c = c, .quant = quant, .name = kind->name };
	if (!s)
		return err_nomem(e);
	s->inner = c->source;
	s->layouts = kind->layouts;
	int rc = build_source(&b, s, e);
	if (!rc)
		c->source = &s->base;
	else
		map_release(&s->base.index);
	return rc;
}

int gptq_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	return codes_attach(c, quant, &packing_gptq, e);
}

int awq_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	return codes_attach(c, quant, &packing_awq, e);
}

int mlx_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	return codes_attach(c, quant, &packing_mlx, e);
}

static const struct codes_layout *const modelopt[] = { &codes_modelopt_fp4, NULL }, *const bnb[] = { &codes_bnb_int8, NULL };

int bnb_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	bool four = false;
	if (json_bool(json_get(quant, "load_in_4bit"), &four) && four)
		return codes_refuse(e, "bitsandbytes in 4 bits", "config.json's", "load_in_4bit");
	return codes_attach(c, quant, &(struct packing){ .name = "bitsandbytes", .layouts = bnb }, e);
}

int modelopt_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	return codes_attach(c, quant, &(struct packing){ .name = "NVFP4", .layouts = modelopt }, e);
}

int ct_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	return codes_attach(c, quant, &packing_ct, e);
}
