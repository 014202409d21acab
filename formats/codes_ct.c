/*
 * compressed-tensors: where it puts codes, scales and zero points; docs/formats/packed.md has the pictures. Codes and zero points
 * are its signed numbers plus half of their range. Specification: the `compressors` module of
 * github.com/vllm-project/compressed-tensors.
 */
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "formats/codes.h"

static int bad(struct err *e, const struct tensor *t, const char *why)
{
	return err_set(e, ERR_INPUT, "tensor %.200s: %s", t->name, why);
}

/* ---- the groups of its configuration */

struct scheme {
	int64_t bits, group;        /* group 0: a row, or all */
	bool symmetric, one;        /* one: a scale for all */
};

static int read_scheme(const struct json *group, struct scheme *out, struct err *e)
{
	const struct json *w = json_get(group, "weights");
	const char *strategy = json_string(json_get(w, "strategy")), *type = json_string(json_get(w, "type"));
	*out = (struct scheme){ .symmetric = true };
	json_bool(json_get(w, "symmetric"), &out->symmetric);
	json_int(json_get(w, "group_size"), &out->group);
	if (!json_int(json_get(w, "num_bits"), &out->bits) || out->bits < 2 || out->bits > 8 || (type && strcmp(type, "int")))
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: only weights in 2 to 8 bits (int) are read beside others in whole numbers");
	if (out->group > 1 << 24 || (strategy && strcmp(strategy, "group") && strcmp(strategy, "channel") && strcmp(strategy, "tensor")))
		return err_set(e, ERR_UNSUPPORTED, "quantization_config: only strategies group, channel and tensor are read of whole numbers");
	out->one = strategy ? !strcmp(strategy, "tensor") : !out->group;
	if (out->group < 0 || (strategy && strcmp(strategy, "group")))
		out->group = 0;
	return ERR_OK;
}

static bool names(const struct json *group, const char *module)
{
	for (const struct json *t = json_first(json_get(group, "targets")); t; t = json_next(t)) {
		const char *name = json_string(t);
		if (name && !strcmp(name, module))
			return true;
	}
	return false;
}

/* Could the parts be of this scheme? words: of a row of codes, 0: any. */
static bool fits(const struct codes_parts *p, const struct scheme *c, const struct codes *x)
{
	const struct tensor *scale = p->tensor[PART_SCALE], *codes = p->tensor[PART_CODES];
	uint64_t groups = c->group ? (x->cols + (uint64_t)c->group - 1) / (uint64_t)c->group : 1;
	if (x->layout == &codes_ct_packed && codes->dim[1] != (x->cols * (uint64_t)c->bits + 31) / 32)
		return false;
	if (c->symmetric != !p->tensor[PART_ZERO])
		return false;
	return c->one ? tensor_elements(scale) == 1 : tensor_elements(scale) == x->rows * groups && scale->dim[0] == x->rows;
}

/* A scheme that names the module before one that only fits. */
static int choose(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	struct scheme c, found = { 0 };
	for (const struct json *g = json_first(json_get(quant, "config_groups")); g; g = json_next(g)) {
		const struct json *w = json_get(g, "weights");
		const char *type = json_string(json_get(w, "type"));
		bool named = names(g, module);
		if (type && strcmp(type, "int") && !named)
			continue;
		if (read_scheme(g, &c, e))
			return e->code;
		if (!fits(p, &c, x) || (found.bits && !named))
			continue;
		found = c;
		if (named)
			break;
	}
	if (!found.bits)
		return bad(e, p->tensor[PART_CODES], "no group of quantization_config has its bits, groups and zero points");
	x->bits = (int)found.bits;
	x->group = found.group && (uint64_t)found.group < x->cols ? (uint64_t)found.group : x->cols;
	x->groups = (x->cols + x->group - 1) / x->group;
	x->whole = !found.group;
	x->one = found.one;
	x->zeroed = p->tensor[PART_ZERO] != NULL;
	return ERR_OK;
}

static bool is(const struct tensor *t, const char *codec, uint32_t ndim, uint64_t a, uint64_t b)
{
	return !strcmp(t->codec->name, codec) && t->ndim == ndim && t->dim[0] == a && (ndim < 2 || t->dim[1] == b);
}

static int check_order(const struct codes_parts *p, const struct codes *x, struct err *e)
{
	const struct tensor *order = p->tensor[PART_ORDER];
	if (!codes_are_floats(p->tensor[PART_SCALE]))
		return bad(e, p->tensor[PART_SCALE], "scales are not f16, bf16 or f32");
	if (order && (!is(order, "i32", 1, x->cols, 0) || x->cols % x->group))
		return bad(e, order, "not I32 with a group for each column");
	return ERR_OK;
}

/* ---- pack-quantized: a row is a stream of bits in words; zero points are one along the rows */

static int packed_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *zero = p->tensor[PART_ZERO], *shape = p->tensor[PART_SHAPE];
	*x = (struct codes){ .layout = &codes_ct_packed };
	if (!is(shape, "i64", 1, 2, 0) || codes->ndim != 2)
		return bad(e, codes, "not I32 with two dimensions and a shape of I64 [2]");
	x->rows = load_u64(p->bytes[PART_SHAPE].data);
	x->cols = load_u64(p->bytes[PART_SHAPE].data + 8);
	if (x->rows != codes->dim[0] || !x->cols || x->cols > codes->dim[1] * 16)
		return bad(e, codes, "weight_shape contradicts it");
	int rc = choose(p, quant, module, x, e);
	if (!rc && zero && !is(zero, "i32", 2, (x->rows * (uint64_t)x->bits + 31) / 32, x->groups))
		rc = bad(e, codes, "weight_zero_point has another shape");
	return rc ? rc : check_order(p, x, e);
}

static size_t row_bytes(const struct codes *x)
{
	return (size_t)(x->cols * (uint64_t)x->bits + 31) / 32 * 4;
}

static void packed_codes(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	for (size_t r = 0; r < n; r++)
		codes_unpack(words + (row + r) * row_bytes(x), 4, x->bits, (size_t)x->cols, out + r * x->cols);
}

static void packed_put_codes(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words)
{
	for (size_t r = 0; r < n; r++)
		codes_pack(in + r * x->cols, (size_t)x->cols, x->bits, words + (row + r) * row_bytes(x), 4);
}

static size_t zero_word(const struct codes *x, uint64_t group, uint64_t row)
{
	return (size_t)(4 * (row * (uint64_t)x->bits / 32 * x->groups + group));
}

static void packed_zeros(const struct codes *x, const uint8_t *words, uint64_t group, uint64_t row, size_t n, uint8_t *out)
{
	codes_unpack(words + zero_word(x, group, row), (size_t)(4 * x->groups), x->bits, n, out);
}

static void packed_put_zeros(const struct codes *x, const uint8_t *in, uint64_t group, uint64_t row, size_t n, uint8_t *words)
{
	codes_pack(in, n, x->bits, words + zero_word(x, group, row), (size_t)(4 * x->groups));
}

/* Widths that vLLM and transformers load. */
static bool packed_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && !c->group_bias && !c->levels && (c->bits == 4 || c->bits == 8);
}

static struct tensor part(const char *codec, uint32_t ndim, uint64_t rows, uint64_t cols)
{
	return (struct tensor){ .name = "", .codec = codec_find(codec), .ndim = ndim, .dim = { rows, cols } };
}

static int check_room(const struct tensor *t, const struct codes *x, struct err *e)
{
	if (t->ndim != 2)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: %s is not a matrix that compressed-tensors holds", t->name, t->codec->name);
	if (x->cols % x->group)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: rows of %llu do not divide into groups of %llu, which compressed-tensors "
			       "needs", t->name, (unsigned long long)x->cols, (unsigned long long)x->group);
	return ERR_OK;
}

static int packed_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	out[PART_CODES] = part("i32", 2, x->rows, row_bytes(x) / 4);
	out[PART_SCALE] = part(t->codec->group_scale ? "bf16" : "f16", 2, x->rows, x->groups);
	out[PART_SHAPE] = part("i64", 1, 2, 0);
	if (t->codec->has_offset)
		out[PART_ZERO] = part("i32", 2, (x->rows * (uint64_t)x->bits + 31) / 32, x->groups);
	return check_room(t, x, e);
}

/* ---- int-quantized: a byte each */

static int int8_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *zero = p->tensor[PART_ZERO], *scale = p->tensor[PART_SCALE];
	*x = (struct codes){ .layout = &codes_ct_int8 };
	if (codes->ndim != 2)
		return bad(e, codes, "codes are not in two dimensions");
	x->rows = codes->dim[0];
	x->cols = codes->dim[1];
	int rc = choose(p, quant, module, x, e);
	x->bits = 8; /* fewer are bytes as well */
	if (!rc && zero && (strcmp(zero->codec->name, "i8") || tensor_elements(zero) != tensor_elements(scale)))
		rc = bad(e, zero, "not I8 in the shape of the scales");
	return rc ? rc : check_order(p, x, e);
}

static void int8_codes(const struct codes *x, const uint8_t *bytes, uint64_t row, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n * x->cols; i++)
		out[i] = bytes[row * x->cols + i] ^ 128;
}

static void int8_put_codes(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *bytes)
{
	for (size_t i = 0; i < n * x->cols; i++)
		bytes[row * x->cols + i] = in[i] ^ 128;
}

static void int8_zeros(const struct codes *x, const uint8_t *bytes, uint64_t group, uint64_t row, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = bytes[codes_scale_at(x, row + i, group)] ^ 128;
}

/* What vLLM multiplies in 8 bits: rows without zero points. */
static bool int8_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && !c->levels && c->bits == 8 && !c->block && !c->has_offset;
}

static int int8_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	out[PART_CODES] = part("i8", 2, x->rows, x->cols);
	out[PART_SCALE] = part(t->codec->group_scale ? "bf16" : "f16", 2, x->rows, 1);
	return check_room(t, x, e);
}

/* ---- bitsandbytes' int8: the same bytes under the largest magnitude of each row, which is 127 steps */

static int bnb_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *scale = p->tensor[PART_SCALE];
	(void)quant;
	(void)module;
	if (codes->ndim != 2 || scale->ndim != 1 || scale->dim[0] != codes->dim[0] || strcmp(scale->codec->name, "f32"))
		return bad(e, codes, "not in two dimensions with an F32 for each row");
	*x = (struct codes){ .layout = &codes_bnb_int8, .rows = codes->dim[0], .cols = codes->dim[1], .groups = 1, .group = codes->dim[1],
			     .bits = 8, .whole = true };
	return ERR_OK;
}

const struct codes_layout codes_bnb_int8 = {
	.part = { ".weight", ".SCB", NULL, NULL, NULL, ".weight_format" }, .type = "i8", .steps = 127,
	.measure = bnb_measure, .codes = int8_codes,
};
const struct codes_layout codes_ct_packed = {
	.part = { ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_g_idx", ".weight_shape" }, .type = "i32", .no_zeros = true,
	.measure = packed_measure, .codes = packed_codes, .zeros = packed_zeros,
	.format = "pack-quantized", .holds = packed_holds, .room = packed_room, .put_codes = packed_put_codes, .put_zeros = packed_put_zeros,
};
const struct codes_layout codes_ct_int8 = {
	.part = { ".weight", ".weight_scale", ".weight_zero_point", ".weight_g_idx" }, .type = "i8", .no_zeros = true,
	.measure = int8_measure, .codes = int8_codes, .zeros = int8_zeros,
	.format = "int-quantized", .holds = int8_holds, .activations = true, .room = int8_room, .put_codes = int8_put_codes,
};
