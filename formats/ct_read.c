/* Reading pack-quantized: the parts of a weight as one tensor in our codec. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "codec/codec.h"
#include "formats/ct.h"
#include "tensor/half.h"

enum part { PACKED, SCALE, SHAPE, ZERO, PARTS };
static const char *const suffixes[PARTS] = { ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point" };

struct entry {
	size_t part[PARTS];   /* positions in the inner source; SIZE_MAX: none */
	bool packed;          /* else part[PACKED] is the tensor itself */
	bool wide;            /* scales are f32 and have to be narrowed, exactly */
};

/* One group of the configuration. */
struct scheme {
	int64_t bits, group;        /* group 0: a row */
	bool symmetric;
	const struct json *targets; /* while it is opened */
};

struct ct_source {
	struct tensor_source base;  /* first: get() casts back */
	struct tensor_source *inner;
	struct entry *entries;
	struct scheme *schemes;
	size_t scheme_count;
};

/* ---- the weights */

static int part_bytes(struct ct_source *s, const struct entry *x, enum part p, struct tensor_bytes *out, struct err *e)
{
	*out = (struct tensor_bytes){ 0 };
	return x->part[p] == SIZE_MAX ? ERR_OK : s->inner->get(s->inner, x->part[p], out, e);
}

static uint16_t narrow(const struct codec *c, float x)
{
	return c->group_scale ? bf16_from_f32(x) : f16_from_f32(x);
}

static int join(struct ct_source *s, size_t i, struct tensor_bytes part[PARTS], struct tensor_bytes *out, struct err *e)
{
	const struct entry *x = &s->entries[i];
	const struct tensor *t = &s->base.tensors[i];
	struct ct_layout l;
	int rc = ct_layout_of(t, &l, e);
	if (rc)
		return rc;
	size_t scales = (size_t)(l.rows * l.groups);
	uint8_t *bytes = malloc((size_t)t->nbytes + 1), *narrowed = x->wide ? malloc(scales * 2 + 1) : NULL;
	if (!bytes || (x->wide && !narrowed)) {
		free(bytes);
		free(narrowed);
		return err_nomem(e);
	}
	for (size_t k = 0; k < scales && x->wide; k++)
		store_u16(narrowed + 2 * k, narrow(t->codec, f32_from_bits(load_u32(part[SCALE].data + 4 * k))));
	ct_join(&l, part[PACKED].data, x->wide ? narrowed : part[SCALE].data, part[ZERO].data, bytes);
	free(narrowed);
	*out = (struct tensor_bytes){ bytes, (size_t)t->nbytes, bytes };
	return ERR_OK;
}

static int ct_get(struct tensor_source *base, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct ct_source *s = (struct ct_source *)base;
	const struct entry *x = &s->entries[i];
	struct tensor_bytes part[PARTS] = { 0 };
	int rc = ERR_OK;
	if (!x->packed)
		return s->inner->get(s->inner, x->part[PACKED], out, e);
	for (int p = 0; p < PARTS && !rc; p++)
		rc = part_bytes(s, x, (enum part)p, &part[p], e);
	if (!rc)
		rc = join(s, i, part, out, e);
	for (int p = 0; p < PARTS; p++)
		tensor_bytes_release(&part[p]);
	return rc;
}

static void ct_drop(struct tensor_source *base, const void *data, size_t size)
{
	source_drop(((struct ct_source *)base)->inner, data, size);
}

/* ---- what they are */

static size_t find_part(const struct tensor_source *s, const char *module, size_t len, enum part p)
{
	char name[512];
	if (len + 32 > sizeof name)
		return SIZE_MAX;
	snprintf(name, sizeof name, "%.*s%s", (int)len, module, suffixes[p]);
	const struct tensor *t = source_find(s, name);
	return t ? source_position(s, t) : SIZE_MAX;
}

/* The module's name when `name` ends as this part does; 0: it does not. */
static size_t module_of(const char *name, enum part p)
{
	size_t n = strlen(name), k = strlen(suffixes[p]);
	return n > k && !strcmp(name + n - k, suffixes[p]) ? n - k : 0;
}

static int bad(struct err *e, const struct tensor *t, const char *why)
{
	return err_set(e, ERR_INPUT, "tensor %.200s: %s", t->name, why);
}

static bool is(const struct tensor *t, const char *codec, uint32_t ndim, uint64_t a, uint64_t b)
{
	return !strcmp(t->codec->name, codec) && t->ndim == ndim && t->dim[0] == a && (ndim < 2 || t->dim[1] == b);
}

/* Could the parts be of this scheme? */
static bool fits(const struct ct_source *s, const struct entry *x, uint64_t cols, const struct scheme *c)
{
	const struct tensor *packed = &s->inner->tensors[x->part[PACKED]], *scale = &s->inner->tensors[x->part[SCALE]];
	uint64_t groups = c->group ? (cols + (uint64_t)c->group - 1) / (uint64_t)c->group : 1;
	return packed->dim[1] == (cols * (uint64_t)c->bits + 31) / 32 && c->symmetric == (x->part[ZERO] == SIZE_MAX) &&
	       scale->ndim == 2 && scale->dim[0] == packed->dim[0] && scale->dim[1] == groups;
}

/* A scheme that names the module before one that only fits. */
static const struct scheme *choose(const struct ct_source *s, const struct entry *x, uint64_t cols, const char *module, size_t len)
{
	const struct scheme *found = NULL;
	for (size_t i = 0; i < s->scheme_count; i++) {
		const struct scheme *c = &s->schemes[i];
		if (!fits(s, x, cols, c))
			continue;
		found = found ? found : c;
		for (const struct json *t = json_first(c->targets); t; t = json_next(t)) {
			const char *name = json_string(t);
			if (name && strlen(name) == len && !memcmp(name, module, len))
				return c;
		}
	}
	return found;
}

/* f32 scales can be held when every one of them is a half-precision number of one kind. */
static int narrow_scales(struct ct_source *s, const struct entry *x, bool *bf16, struct err *e)
{
	const struct tensor *t = &s->inner->tensors[x->part[SCALE]];
	struct tensor_bytes b;
	bool half = true, brain = true;
	int rc = part_bytes(s, x, SCALE, &b, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < b.size / 4; i++) {
		float v = f32_from_bits(load_u32(b.data + 4 * i));
		half &= f32_from_f16(f16_from_f32(v)) == v;
		brain &= f32_from_bf16(bf16_from_f32(v)) == v;
	}
	tensor_bytes_release(&b);
	*bf16 = !half;
	return half || brain ? ERR_OK : err_set(e, ERR_UNSUPPORTED, "tensor %.200s: scales need more than 16 bits", t->name);
}

static int choose_codec(struct ct_source *s, struct entry *x, const struct scheme *c, struct tensor *t, struct err *e)
{
	const struct tensor *scale = &s->inner->tensors[x->part[SCALE]];
	char name[48], span[24];
	bool bf16 = !strcmp(scale->codec->name, "bf16");
	x->wide = !strcmp(scale->codec->name, "f32");
	if (!bf16 && !x->wide && strcmp(scale->codec->name, "f16"))
		return bad(e, scale, "scales are not f16, bf16 or f32");
	int rc = x->wide ? narrow_scales(s, x, &bf16, e) : ERR_OK;
	if (rc)
		return rc;
	snprintf(span, sizeof span, c->group ? "g%lld" : "row", (long long)c->group);
	snprintf(name, sizeof name, "int%d-%s%s%s", (int)c->bits, span, c->symmetric ? "" : "-zp", bf16 ? "-bf16" : "");
	t->codec = codec_find(name);
	if (!t->codec)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: there is no codec for %d bits in groups of %lld", t->name, (int)c->bits,
			       (long long)c->group);
	return tensor_measure(t, e);
}

static int add_weight(struct checkpoint *c, struct ct_source *s, size_t i, struct entry *x, struct tensor *t, struct err *e)
{
	const struct tensor *packed = &s->inner->tensors[i];
	size_t len = module_of(packed->name, PACKED);
	struct tensor_bytes b;
	*x = (struct entry){ .packed = true };
	for (int p = 0; p < PARTS; p++)
		x->part[p] = find_part(s->inner, packed->name, len, (enum part)p);
	if (x->part[SCALE] == SIZE_MAX || x->part[SHAPE] == SIZE_MAX)
		return bad(e, packed, "weight_scale or weight_shape is missing");
	if (!is(&s->inner->tensors[x->part[SHAPE]], "i64", 1, 2, 0) || packed->ndim != 2 || strcmp(packed->codec->name, "i32"))
		return bad(e, packed, "not I32 with two dimensions and a shape of I64 [2]");
	int rc = part_bytes(s, x, SHAPE, &b, e);
	if (rc)
		return rc;
	uint64_t rows = load_u64(b.data), cols = load_u64(b.data + 8);
	tensor_bytes_release(&b);
	if (rows != packed->dim[0] || !cols || cols > packed->dim[1] * 32)
		return bad(e, packed, "weight_shape contradicts it");
	const struct scheme *scheme = choose(s, x, cols, packed->name, len);
	if (!scheme)
		return bad(e, packed, "no group of quantization_config has its bits, groups and zero points");
	if (x->part[ZERO] != SIZE_MAX &&
	    !is(&s->inner->tensors[x->part[ZERO]], "i32", 2, (rows * (uint64_t)scheme->bits + 31) / 32,
		s->inner->tensors[x->part[SCALE]].dim[1]))
		return bad(e, packed, "weight_zero_point has another shape");
	char *name = arena_strndup(&c->arena, packed->name, len + 7);
	if (!name)
		return err_nomem(e);
	*t = (struct tensor){ .name = name, .ndim = 2, .dim = { rows, cols } };
	rc = choose_codec(s, x, scheme, t, e);
	struct ct_layout l;
	return rc ? rc : ct_layout_of(t, &l, e);
}

/* ---- the configuration */

static int read_scheme(const struct json *group, struct scheme *out, struct err *e)
{
	const struct json *w = json_get(group, "weights");
	const char *strategy = json_string(json_get(w, "strategy")), *type = json_string(json_get(w, "type"));
	const struct json *order = json_get(w, "actorder");
	const char *how = json_string(order);
	bool activations = !json_is_null(json_get(group, "input_activations"));
	*out = (struct scheme){ .symmetric = true, .targets = json_get(group, "targets") };
	if (!json_int(json_get(w, "num_bits"), &out->bits) || (out->bits != 4 && out->bits != 8) || (type && strcmp(type, "int")) ||
	    activations)
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: only weights in 4 or 8 bits (int), without activations, are read");
	json_bool(json_get(w, "symmetric"), &out->symmetric);
	json_int(json_get(w, "group_size"), &out->group);
	if (out->group < 0 || (strategy && !strcmp(strategy, "channel")))
		out->group = 0;
	if (out->group > 1 << 24 || (!out->group && (!strategy || strcmp(strategy, "channel"))) ||
	    (out->group && strategy && strcmp(strategy, "group")))
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: only strategies group and channel are read");
	if (how && strcmp(how, "weight") && strcmp(how, "static"))
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: actorder '%.40s' permutes columns, which is not read", how);
	return ERR_OK;
}

static int build(struct checkpoint *c, struct ct_source *s, struct err *e)
{
	const struct tensor_source *in = s->inner;
	struct tensor *tensors = arena_array(&c->arena, in->count + 1, sizeof *tensors);
	size_t n = 0;
	int rc = ERR_OK;
	s->entries = arena_array(&c->arena, in->count + 1, sizeof *s->entries);
	if (!tensors || !s->entries)
		return err_nomem(e);
	for (size_t i = 0; i < in->count && !rc; i++) {
		const char *name = in->tensors[i].name;
		bool part = false;
		for (int p = SCALE; p < PARTS && !part; p++) {
			size_t k = module_of(name, (enum part)p);
			part = k && find_part(in, name, k, PACKED) != SIZE_MAX;
		}
		if (part)
			continue;
		if (module_of(name, PACKED)) {
			rc = add_weight(c, s, i, &s->entries[n], &tensors[n], e);
		} else {
			tensors[n] = in->tensors[i];
			s->entries[n] = (struct entry){ .part = { i } };
		}
		n++;
	}
	s->base = (struct tensor_source){ .tensors = tensors, .count = n, .get = ct_get, .drop = ct_drop, .copies = true };
	return rc ? rc : source_index(&s->base, e);
}

int ct_attach(struct checkpoint *c, const struct json *quant, struct err *e)
{
	const struct json *groups = json_get(quant, "config_groups");
	struct ct_source *s = arena_alloc(&c->arena, sizeof *s);
	if (!s)
		return err_nomem(e);
	*s = (struct ct_source){ .inner = c->source };
	s->schemes = arena_array(&c->arena, json_count(groups) + 1, sizeof *s->schemes);
	int rc = s->schemes ? ERR_OK : err_nomem(e);
	for (const struct json *g = json_first(groups); g && !rc; g = json_next(g))
		rc = read_scheme(g, &s->schemes[s->scheme_count++], e);
	if (!rc)
		rc = build(c, s, e);
	if (!rc)
		c->source = &s->base;
	else if (s)
		map_release(&s->base.index);
	return rc;
}
