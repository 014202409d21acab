/*
 * Where GPTQ, AWQ and MLX put codes, scales and zero points; docs/formats/packed.md has the pictures. One row each. Shapes say
 * more than the configuration does: they are right for the layers that have widths of their own.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "formats/codes.h"

static int bad(struct err *e, const struct tensor *t, const char *why)
{
	return err_set(e, ERR_INPUT, "tensor %.200s: %s", t->name, why);
}

void codes_unpack(const uint8_t *in, size_t stride, int bits, size_t n, uint8_t *out)
{
	uint64_t held = 0, mask = (1u << bits) - 1;
	int have = 0;
	for (size_t i = 0; i < n; i++) {
		if (have < bits) {
			held |= (uint64_t)load_u32(in) << have;
			in += stride;
			have += 32;
		}
		out[i] = (uint8_t)(held & mask);
		held >>= bits;
		have -= bits;
	}
}

void codes_pack(const uint8_t *in, size_t n, int bits, uint8_t *out, size_t stride)
{
	uint64_t held = 0;
	int have = 0;
	for (size_t i = 0; i < n; i++) {
		held |= (uint64_t)in[i] << have;
		have += bits;
		if (have < 32 && i + 1 < n)
			continue;
		store_u32(out, (uint32_t)held);
		out += stride;
		held >>= 32;
		have -= 32;
	}
	if (have > 0)
		store_u32(out, (uint32_t)held);
}

/* Columns that one scale stands for: what the configuration says, or, for a layer with a size of its own, an even share. */
static int set_group(struct codes *x, int64_t said, const struct tensor *scale, struct err *e)
{
	uint64_t g = said > 0 && (uint64_t)said < x->cols ? (uint64_t)said : x->cols;
	if ((x->cols + g - 1) / g != x->groups) {
		if (x->cols % x->groups)
			return bad(e, scale, "its groups do not divide the matrix");
		g = x->cols / x->groups;
	}
	x->group = g;
	x->whole = said <= 0 || (uint64_t)said > x->cols;
	return ERR_OK;
}

/* What all layouts that are written have in common; rows and columns in words are theirs to judge. */
static int check_room(const struct tensor *t, const struct codes *x, const char *layout, struct err *e)
{
	if (t->ndim != 2)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: %s holds matrices, and this has %u axes; leave it in 16 bits", t->name, layout,
			       (unsigned)t->ndim);
	if (x->cols % x->group)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: rows of %llu do not divide into groups of %llu, which %s needs", t->name,
			       (unsigned long long)x->cols, (unsigned long long)x->group, layout);
	return ERR_OK;
}

static struct tensor part(const char *codec, uint64_t rows, uint64_t cols)
{
	return (struct tensor){ .name = "", .codec = codec_find(codec), .ndim = 2, .dim = { rows, cols } };
}

static const char *scale_type(const struct codec *c)
{
	return c->group_scale ? "bf16" : "f16";
}

/* ---- GPTQ: words along the columns, transposed: codes [cols b / 32, rows], zero points [groups, rows b / 32] */

/* What the configuration calls the layout: zero points less one (the first), or as they are. */
static int gptq_format(const struct json *quant, const struct tensor *t, struct codes *x, struct err *e)
{
	const char *f = json_string(json_get(quant, "checkpoint_format"));
	f = f ? f : json_string(json_get(quant, "format"));
	const char *type = json_string(json_get(quant, "pack_dtype"));
	bool first = !f || !strcmp(f, "gptq");
	if (!first && strcmp(f, "gptq_v2"))
		return codes_refuse(e, "GPTQ in another layout", "config.json's", f);
	if (type && strcmp(type, "int32"))
		return codes_refuse(e, "GPTQ in words of another size", "config.json's", type);
	x->less = first;
	if (x->bits != 2 && x->bits != 3 && x->bits != 4 && x->bits != 8)
		return codes_refuse(e, "GPTQ in planes of bits", "tensor", t->name);
	return ERR_OK;
}

static int gptq_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *scale = p->tensor[PART_SCALE], *zero = p->tensor[PART_ZERO],
			    *order = p->tensor[PART_ORDER];
	int64_t group = 0;
	bool moved = false, symmetric = true;
	(void)module;
	if (codes->ndim != 2 || scale->ndim != 2 || zero->ndim != 2 || strcmp(zero->codec->name, "i32") || !codes_are_floats(scale))
		return bad(e, codes, "codes and zero points are not I32, or scales no floats, in two dimensions");
	*x = (struct codes){ .layout = &codes_gptq, .rows = codes->dim[1], .groups = scale->dim[0] };
	uint64_t bits = zero->dim[1] * 32 / x->rows;
	if (scale->dim[1] != x->rows || zero->dim[0] != x->groups || !bits || bits > 8 || zero->dim[1] * 32 != x->rows * bits ||
	    codes->dim[0] * 32 % bits)
		return bad(e, codes, "codes, scales and zero points do not go together in their shapes");
	x->bits = (int)bits;
	x->cols = codes->dim[0] * 32 / bits;
	if (order && (order->ndim != 1 || order->dim[0] != x->cols || strcmp(order->codec->name, "i32")))
		return bad(e, order, "not I32 with a group for each column");
	if (!order && json_bool(json_get(quant, "desc_act"), &moved) && moved)
		return bad(e, codes, "quantization_config says desc_act, but g_idx is missing");
	json_int(json_get(quant, "group_size"), &group);
	x->zeroed = json_bool(json_get(quant, "sym"), &symmetric) && !symmetric;
	int rc = gptq_format(quant, codes, x, e);
	return rc || (order && x->cols % x->groups) ? rc : set_group(x, group, scale, e);
}

static void gptq_codes(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	for (size_t r = 0; r < n; r++)
		codes_unpack(words + 4 * (row + r), (size_t)(4 * x->rows), x->bits, (size_t)x->cols, out + r * x->cols);
}

/*
 * The first layout holds zero points less one. Its writer subtracts from whole words, so that a zero point of 0 borrows from its
 * neighbour, and adding to whole words brings all of them back; those of 3 bits are one by one.
 */
static void gptq_zeros(const struct codes *x, const uint8_t *words, uint64_t group, uint64_t row, size_t n, uint8_t *out)
{
	uint64_t bits = (uint64_t)x->bits;
	uint32_t mask = (1u << bits) - 1, ones = 0xffffffffu / mask * x->less;
	words += 4 * (group * (x->rows * bits / 32) + row * bits / 32);
	if (32 % bits) {
		codes_unpack(words, 4, x->bits, n, out);
		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)((out[i] + x->less) & mask);
		return;
	}
	for (size_t i = 0, per = (size_t)(32 / bits); i < n; i++)
		out[i] = (uint8_t)((load_u32(words + i / per * 4) + ones) >> i % per * bits & mask);
}

static bool gptq_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && !c->group_bias && !c->levels && (c->bits == 2 || c->bits == 3 || c->bits == 4 || c->bits == 8);
}

static int gptq_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	uint64_t bits = (uint64_t)x->bits;
	if (x->rows % 32 || x->cols % 32)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: GPTQ packs 32 rows and 32 columns together, and it has %llu and %llu; leave it "
			       "in 16 bits", t->name, (unsigned long long)x->rows, (unsigned long long)x->cols);
	out[PART_CODES] = part("i32", x->cols * bits / 32, x->rows);
	out[PART_SCALE] = part(scale_type(t->codec), x->groups, x->rows);
	out[PART_ZERO] = part("i32", x->groups, x->rows * bits / 32);
	out[PART_ORDER] = (struct tensor){ .name = "", .codec = codec_find("i32"), .ndim = 1, .dim = { x->cols } };
	return check_room(t, x, "GPTQ", e);
}

static void gptq_put_codes(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words)
{
	for (size_t r = 0; r < n; r++)
		codes_pack(in + r * x->cols, (size_t)x->cols, x->bits, words + 4 * (row + r), (size_t)(4 * x->rows));
}

/* Where zero points are stored less one, none is 0: those of symmetric matrices. */
static void gptq_put_zeros(const struct codes *x, const uint8_t *in, uint64_t group, uint64_t row, size_t n, uint8_t *words)
{
	uint8_t less[CODES_TILE];
	for (size_t i = 0; i < n; i++)
		less[i] = (uint8_t)(in[i] - x->less);
	codes_pack(less, n, x->bits, words + 4 * ((group * x->rows + row) * (uint64_t)x->bits / 32), 4);
}

/* ---- AWQ: words along the rows, transposed: codes [cols, rows / 8], zero points [groups, rows / 8] */

static const uint8_t awq_nibble[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static void awq_word(uint32_t word, size_t stride, size_t n, uint8_t *out)
{
	for (size_t j = 0; j < n; j++)
		out[j * stride] = word >> 4 * awq_nibble[j] & 15;
}

static void awq_row(const uint8_t *words, size_t stride, size_t n, uint8_t *out)
{
	for (size_t r = 0; r < n; r += 8)
		awq_word(load_u32(words + r / 2), stride, n - r < 8 ? n - r : 8, out + r * stride);
}

static void awq_codes(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	for (uint64_t c = 0; c < x->cols; c++)
		awq_row(words + (c * x->rows + row) / 2, (size_t)x->cols, n, out + c);
}

static void awq_zeros(const struct codes *x, const uint8_t *words, uint64_t group, uint64_t row, size_t n, uint8_t *out)
{
	awq_row(words + (group * x->rows + row) / 2, 1, n, out);
}

static int awq_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *scale = p->tensor[PART_SCALE], *zero = p->tensor[PART_ZERO];
	int64_t group = 0, bits = 4;
	(void)module;
	if (!json_int(json_get(quant, "bits"), &bits))
		json_int(json_get(quant, "w_bit"), &bits);
	if (!json_int(json_get(quant, "group_size"), &group))
		json_int(json_get(quant, "q_group_size"), &group);
	if (bits != 4)
		return codes_refuse(e, "AWQ in other than 4 bits", "config.json's", "bits");
	if (codes->ndim != 2 || scale->ndim != 2 || zero->ndim != 2 || strcmp(zero->codec->name, "i32") || !codes_are_floats(scale))
		return bad(e, codes, "codes and zero points are not I32, or scales no floats, in two dimensions");
	*x = (struct codes){ .layout = &codes_awq, .rows = codes->dim[1] * 8, .cols = codes->dim[0], .groups = scale->dim[0], .bits = 4, .zeroed = true };
	if (scale->dim[1] != x->rows || zero->dim[0] != x->groups || zero->dim[1] != codes->dim[1])
		return bad(e, codes, "codes, scales and zero points do not go together in their shapes");
	return set_group(x, group, scale, e);
}

static bool awq_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && !c->group_bias && c->bits == 4 && c->has_offset;
}

static int awq_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	if (x->rows % 8)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: AWQ packs 8 rows together, and it has %llu; leave it in 16 bits", t->name,
			       (unsigned long long)x->rows);
	out[PART_CODES] = part("i32", x->cols, x->rows / 8);
	out[PART_SCALE] = part(scale_type(t->codec), x->groups, x->rows);
	out[PART_ZERO] = part("i32", x->groups, x->rows / 8);
	return check_room(t, x, "AWQ", e);
}

static void awq_put_row(const uint8_t *in, size_t stride, size_t n, uint8_t *words)
{
	for (size_t r = 0; r < n; r += 8) {
		uint32_t word = 0;
		for (size_t j = 0; j < 8; j++)
			word |= (uint32_t)in[(r + j) * stride] << 4 * awq_nibble[j];
		store_u32(words + r / 2, word);
	}
}

static void awq_put_codes(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words)
{
	for (uint64_t c = 0; c < x->cols; c++)
		awq_put_row(in + c, (size_t)x->cols, n, words + (c * x->rows + row) / 2);
}

static void awq_put_zeros(const struct codes *x, const uint8_t *in, uint64_t group, uint64_t row, size_t n, uint8_t *words)
{
	awq_put_row(in, 1, n, words + (group * x->rows + row) / 2);
}

/* ---- MLX: words along the columns: codes [..., cols b / 32], scales and biases [..., groups] */

static int mlx_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *scale = p->tensor[PART_SCALE], *bias = p->tensor[PART_ZERO];
	const struct json *own = json_get(quant, module);
	bool e4m3;
	if (codes_mlx_mode(quant, module, &e4m3))
		return codes_mlx_measure_fp4(p, e4m3, x, e);
	if (!bias)
		return err_set(e, ERR_INPUT, "tensor %.200s: %.200s.biases is missing", codes->name, module);
	int64_t bits = 4, group = 64;
	const char *mode = json_string(json_get(quant, "mode"));
	json_int(json_get(quant, "bits"), &bits);
	json_int(json_get(quant, "group_size"), &group);
	json_int(json_get(own, "bits"), &bits);
	json_int(json_get(own, "group_size"), &group);
	mode = json_string(json_get(own, "mode")) ? json_string(json_get(own, "mode")) : mode;
	if (mode && strcmp(mode, "affine"))
		return codes_refuse(e, "MLX in a mode other than affine", "tensor", codes->name);
	if (bits < 2 || bits > 8 || bits == 7 || group < 1)
		return err_set(e, ERR_INPUT, "tensor %.200s: %lld bits in groups of %lld", codes->name, (long long)bits, (long long)group);
	uint32_t last = codes->ndim - 1;
	bool ok = codes->ndim >= 2 && scale->ndim == codes->ndim && bias->ndim == codes->ndim && bias->codec == scale->codec &&
		  codes_are_floats(scale) && !memcmp(scale->dim, codes->dim, last * sizeof *codes->dim) &&
		  !memcmp(scale->dim, bias->dim, codes->ndim * sizeof *codes->dim);
	if (!ok)
		return bad(e, codes, "codes, scales and biases do not go together in their shapes and types");
	*x = (struct codes){ .layout = &codes_mlx, .rows = tensor_rows(codes), .groups = scale->dim[last], .group = (uint64_t)group, .bits = (int)bits };
	x->cols = codes->dim[last] * 32 / (uint64_t)bits;
	if (codes->dim[last] * 32 % (uint64_t)bits || x->cols / x->group != x->groups || x->cols % x->group)
		return err_set(e, ERR_INPUT, "tensor %.200s: its shape is not that of %lld bits in %llu groups of %lld", codes->name,
			       (long long)bits, (unsigned long long)x->groups, (long long)group);
	return ERR_OK;
}

static void mlx_codes(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	size_t bytes = (size_t)(x->cols * (uint64_t)x->bits / 8);
	for (size_t r = 0; r < n; r++)
		codes_unpack(words + (row + r) * bytes, 4, x->bits, (size_t)x->cols, out + r * x->cols);
}

static bool mlx_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && c->group_bias;
}

static int mlx_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	uint64_t rows = 1;
	for (uint32_t a = 0; a + 1 < t->ndim; a++)
		rows *= t->dim[a];
	if (x->cols % x->group)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: rows of %llu do not divide into groups of %llu, which MLX needs", t->name,
			       (unsigned long long)x->cols, (unsigned long long)x->group);
	out[PART_CODES] = part("u32", rows, x->cols * (uint64_t)x->bits / 32);
	out[PART_SCALE] = out[PART_ZERO] = part(scale_type(t->codec), rows, x->groups);
	return ERR_OK;
}

static void mlx_put_codes(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words)
{
	size_t bytes = (size_t)(x->cols * (uint64_t)x->bits / 8);
	for (size_t r = 0; r < n; r++)
		codes_pack(in + r * x->cols, (size_t)x->cols, x->bits, words + (row + r) * bytes, 4);
}

const struct codes_layout codes_gptq = {
	.part = { ".qweight", ".scales", ".qzeros", ".g_idx" }, .type = "i32", .by_group = true,
	.measure = gptq_measure, .codes = gptq_codes, .zeros = gptq_zeros,
	.holds = gptq_holds, .room = gptq_room, .put_codes = gptq_put_codes, .put_zeros = gptq_put_zeros,
};
const struct codes_layout codes_awq = {
	.part = { ".qweight", ".scales", ".qzeros" }, .type = "i32", .by_group = true,
	.measure = awq_measure, .codes = awq_codes, .zeros = awq_zeros,
	.holds = awq_holds, .room = awq_room, .put_codes = awq_put_codes, .put_zeros = awq_put_zeros,
};
const struct codes_layout codes_mlx = {
	.part = { ".weight", ".scales", ".biases" }, .type = "u32", .bias = true, .no_zeros = true,
	.measure = mlx_measure, .codes = mlx_codes,
	.holds = mlx_holds, .room = mlx_room, .put_codes = mlx_put_codes,
};
