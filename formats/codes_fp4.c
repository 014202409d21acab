/*
 * Four-bit floats (E2M1) under scales in 8 bits: MXFP4 (powers of two, 32 columns) and NVFP4 (E4M3, 16 columns, and one scale for
 * all), as compressed-tensors, MLX and modelopt lay them out: neighbours share a byte, low bits first.
 */
#include <string.h>

#include "codec/codec.h"
#include "formats/codes.h"

static int bad(struct err *e, const struct tensor *t, const char *why)
{
	return err_set(e, ERR_INPUT, "tensor %.200s: %s", t->name, why);
}

/* Rows of codes in bytes or words; scales [rows, groups] in U8 or E4M3. */
static int measure(const struct codes_parts *p, struct codes *x, struct err *e)
{
	const struct tensor *codes = p->tensor[PART_CODES], *scale = p->tensor[PART_SCALE], *all = p->tensor[PART_GLOBAL];
	uint32_t last = codes->ndim - 1;
	if (codes->ndim < 2 || scale->ndim != codes->ndim || memcmp(scale->dim, codes->dim, last * sizeof *codes->dim) ||
	    scale->codec->block_bytes != 1)
		return bad(e, codes, "codes and scales in 8 bits do not go together in their shapes and types");
	if (all && (tensor_elements(all) != 1 || strcmp(all->codec->name, "f32")))
		return bad(e, all, "not one F32");
	x->rows = tensor_rows(codes);
	x->cols = codes->dim[last] * codes->codec->block_bytes * 2;
	x->groups = scale->dim[last];
	x->bits = 4;
	x->e4m3 |= !strcmp(scale->codec->name, "f8_e4m3");
	x->group = x->e4m3 ? 16 : 32;
	if (x->cols % 8 || x->cols % x->group || x->cols / x->group != x->groups)
		return bad(e, scale, "not a scale for each 16 (E4M3) or 32 (E8M0) columns");
	return ERR_OK;
}

static int ct_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	(void)quant;
	(void)module;
	*x = (struct codes){ .layout = &codes_ct_fp4 };
	return measure(p, x, e);
}

static int modelopt_measure(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e)
{
	(void)quant;
	(void)module;
	*x = (struct codes){ .layout = &codes_modelopt_fp4 };
	return measure(p, x, e);
}

static void unpack(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out)
{
	codes_unpack(words + row * x->cols / 2, 4, 4, n * (size_t)x->cols, out);
}

static void pack(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words)
{
	codes_pack(in, n * (size_t)x->cols, 4, words + row * x->cols / 2, 4);
}

static bool holds(const struct codec *c)
{
	return !strcmp(c->name, "mxfp4");
}

static struct tensor part(const char *codec, uint64_t rows, uint64_t cols)
{
	return (struct tensor){ .name = "", .codec = codec_find(codec), .ndim = 2, .dim = { rows, cols } };
}

static int ct_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	out[PART_CODES] = part("u8", x->rows, x->cols / 2);
	out[PART_SCALE] = part("u8", x->rows, x->groups);
	return t->ndim == 2 ? ERR_OK : err_set(e, ERR_UNSUPPORTED, "tensor %.200s: is not a matrix that compressed-tensors holds", t->name);
}

static int mlx_room(const struct tensor *t, const struct codes *x, struct tensor out[CODE_PARTS], struct err *e)
{
	(void)t;
	(void)e;
	out[PART_CODES] = part("u32", x->rows, x->cols / 8);
	out[PART_SCALE] = part("u8", x->rows, x->groups);
	return ERR_OK;
}

/* MLX calls its layouts modes. */
bool codes_mlx_mode(const struct json *quant, const char *module, bool *e4m3)
{
	const char *own = json_string(json_get(json_get(quant, module), "mode")), *mode = own ? own : json_string(json_get(quant, "mode"));
	*e4m3 = mode && !strcmp(mode, "nvfp4");
	return *e4m3 || (mode && !strcmp(mode, "mxfp4"));
}

int codes_mlx_measure_fp4(const struct codes_parts *p, bool e4m3, struct codes *x, struct err *e)
{
	*x = (struct codes){ .layout = &codes_mlx_fp4, .e4m3 = e4m3 };
	return measure(p, x, e);
}

const struct codes_layout codes_ct_fp4 = {
	.part = { ".weight_packed", ".weight_scale", [PART_GLOBAL] = ".weight_global_scale" }, .type = "u8", .fp4 = true, .divides = true,
	.measure = ct_measure, .codes = unpack,
	.format = "mxfp4-pack-quantized", .holds = holds, .room = ct_room, .put_codes = pack,
};
const struct codes_layout codes_modelopt_fp4 = {
	.part = { ".weight", ".weight_scale", [PART_GLOBAL] = ".weight_scale_2" }, .type = "u8", .fp4 = true,
	.measure = modelopt_measure, .codes = unpack,
};
/* Shares the names of its parts with MLX's other layout, whose measure hands over to it. */
const struct codes_layout codes_mlx_fp4 = {
	.part = { ".weight", ".scales" }, .type = "u32", .fp4 = true,
	.codes = unpack,
	.holds = holds, .room = mlx_room, .put_codes = pack,
};
