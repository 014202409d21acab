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

static bool is_float(const struct tensor *t)
{
	const char *name = t->codec->name;
	return !strcmp(name, "f16") || !strcmp(name, "bf16") || !strcmp(name, "f32");
}

/* n codes of a stream of bits, low bits first, in words that lie `stride` bytes apart; one may lie in two words. */
static void unpack_stream(const uint8_t *in, size_t stride, int bits, size_t n, uint8_t *out)
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
	return ERR_OK;
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
		return packed_refuse(e, "GPTQ in another layout", "config.json's", f);
	if (type && strcmp(type, "int32"))
		return packed_refuse(e, "GPTQ in words of another size", "config.json's", type);
	x->less = first;
	if (x->bits != 2 && x->bits != 3 && x->bits != 4 && x->bits != 8)
		return packed_refuse(e, "GPTQ in planes of bits", "tensor", t->name);
	return ERR_OK;
}

static int gptq_measure(const struct tensor *const part[CODE_PARTS], const struct json *quant, const char *module, struct codes *x,
			struct err *e)
{
	const struct tensor *codes = part[PART_CODES], *scale = part[PART_SCALE], *zero = part[PART_ZERO], *order = part[PART_ORDER];
	int64_t group = 0;
	bool moved = false;
	(void)module;
	if (codes->ndim != 2 || scale->ndim != 2 || zero->ndim != 2 || strcmp(zero->codec->name, "i32") || !is_float(scale))
		return bad(e, codes, "codes and zero points are not I32, or scales no floats, in two dimensions");
	*x = (struct codes){ .rows = codes->dim[1], .groups = scale->dim[0] };
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
	int rc = gptq_format(quant, codes, x, e);
	return rc || (order && x->cols % x->groups) ? rc : set_group(x, group, scale, e);
}

static void gptq_codes(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	for (size_t r = 0; r < n; r++)
		unpack_stream(words + 4 * (row + r), (size_t)(4 * x->rows), x->bits, (size_t)x->cols, out + r * x->cols);
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
		unpack_stream(words, 4, x->bits, n, out);
		for (size_t i = 0; i < n; i++)
			out[i] = (uint8_t)((out[i] + x->less) & mask);
		return;
	}
	for (size_t i = 0, per = (size_t)(32 / bits); i < n; i++)
		out[i] = (uint8_t)((load_u32(words + i / per * 4) + ones) >> i % per * bits & mask);
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

static int awq_measure(const struct tensor *const part[CODE_PARTS], const struct json *quant, const char *module, struct codes *x,
		       struct err *e)
{
	const struct tensor *codes = part[PART_CODES], *scale = part[PART_SCALE], *zero = part[PART_ZERO];
	int64_t group = 0, bits = 4;
	(void)module;
	if (!json_int(json_get(quant, "bits"), &bits))
		json_int(json_get(quant, "w_bit"), &bits);
	if (!json_int(json_get(quant, "group_size"), &group))
		json_int(json_get(quant, "q_group_size"), &group);
	if (bits != 4)
		return packed_refuse(e, "AWQ in other than 4 bits", "config.json's", "bits");
	if (codes->ndim != 2 || scale->ndim != 2 || zero->ndim != 2 || strcmp(zero->codec->name, "i32") || !is_float(scale))
		return bad(e, codes, "codes and zero points are not I32, or scales no floats, in two dimensions");
	*x = (struct codes){ .rows = codes->dim[1] * 8, .cols = codes->dim[0], .groups = scale->dim[0], .bits = 4 };
	if (scale->dim[1] != x->rows || zero->dim[0] != x->groups || zero->dim[1] != codes->dim[1])
		return bad(e, codes, "codes, scales and zero points do not go together in their shapes");
	return set_group(x, group, scale, e);
}

/* ---- MLX: words along the columns: codes [..., cols b / 32], scales and biases [..., groups] */

static int mlx_measure(const struct tensor *const part[CODE_PARTS], const struct json *quant, const char *module, struct codes *x,
		       struct err *e)
{
	const struct tensor *codes = part[PART_CODES], *scale = part[PART_SCALE], *bias = part[PART_ZERO];
	const struct json *own = json_get(quant, module);
	int64_t bits = 4, group = 64;
	const char *mode = json_string(json_get(quant, "mode"));
	json_int(json_get(quant, "bits"), &bits);
	json_int(json_get(quant, "group_size"), &group);
	json_int(json_get(own, "bits"), &bits);
	json_int(json_get(own, "group_size"), &group);
	mode = json_string(json_get(own, "mode")) ? json_string(json_get(own, "mode")) : mode;
	if (mode && strcmp(mode, "affine"))
		return packed_refuse(e, "MLX in a mode other than affine", "tensor", codes->name);
	if (bits < 2 || bits > 8 || bits == 7 || group < 1)
		return err_set(e, ERR_INPUT, "tensor %.200s: %lld bits in groups of %lld", codes->name, (long long)bits, (long long)group);
	uint32_t last = codes->ndim - 1;
	bool ok = codes->ndim >= 2 && scale->ndim == codes->ndim && bias->ndim == codes->ndim && bias->codec == scale->codec &&
		  is_float(scale) && !memcmp(scale->dim, codes->dim, last * sizeof *codes->dim) &&
		  !memcmp(scale->dim, bias->dim, codes->ndim * sizeof *codes->dim);
	if (!ok)
		return bad(e, codes, "codes, scales and biases do not go together in their shapes and types");
	*x = (struct codes){ .rows = tensor_rows(codes), .groups = scale->dim[last], .group = (uint64_t)group, .bits = (int)bits };
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
		unpack_stream(words + (row + r) * bytes, 4, x->bits, (size_t)x->cols, out + r * x->cols);
}

const struct codes_layout codes_gptq = {
	.part = { ".qweight", ".scales", ".qzeros", ".g_idx" }, .type = "i32", .by_group = true,
	.measure = gptq_measure, .codes = gptq_codes, .zeros = gptq_zeros,
};
const struct codes_layout codes_awq = {
	.part = { ".qweight", ".scales", ".qzeros", NULL }, .type = "i32", .by_group = true,
	.measure = awq_measure, .codes = awq_codes, .zeros = awq_zeros,
};
const struct codes_layout codes_mlx = {
	.part = { ".weight", ".scales", ".biases", NULL }, .type = "u32", .bias = true,
	.measure = mlx_measure, .codes = mlx_codes,
};
