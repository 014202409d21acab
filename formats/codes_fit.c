/* Whose grid is it? A matrix of codes goes into one of our codecs only where every value stays what it was. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "formats/codes.h"
#include "tensor/half.h"

int codes_refuse(struct err *e, const char *name, const char *how, const char *what)
{
	return err_set(e, ERR_UNSUPPORTED, "its weights are quantized by another program (%.60s, as %s %.160s says), which is not read; "
		       "dequantize them to bf16 with that program first, or take the original model", name, how, what);
}

bool codes_are_floats(const struct tensor *t)
{
	const char *name = t->codec->name;
	return !strcmp(name, "f16") || !strcmp(name, "bf16") || !strcmp(name, "f32");
}

float codes_float(const struct tensor *t, const uint8_t *bytes, uint64_t i)
{
	if (t->codec->block_bytes == 4)
		return f32_from_bits(load_u32(bytes + 4 * i));
	uint16_t raw = load_u16(bytes + 2 * i);
	return *t->codec->name == 'b' ? f32_from_bf16(raw) : f32_from_f16(raw);
}

float codes_scale(const struct codes_parts *p, const struct codes *x, uint64_t i)
{
	const struct tensor *t = p->tensor[PART_SCALE];
	const uint8_t *bytes = p->bytes[PART_SCALE].data;
	if (!x->layout->fp4)
		return codes_float(t, bytes, i) / (x->layout->steps > 0 ? x->layout->steps : 1);
	float scale, all;
	if (!x->e4m3)
		return ldexpf(1, bytes[i] - 127);
	const struct codec *c = codec_find("f8_e4m3");
	c->decode(c, bytes + i, &scale, 1);
	if (!p->tensor[PART_GLOBAL])
		return scale;
	all = f32_from_bits(load_u32(p->bytes[PART_GLOBAL].data));
	return x->layout->divides ? scale / all : scale * all;
}

/* ---- zero points and the order of columns */

struct zeros {
	unsigned least, most;
};

static struct zeros look(const struct codes_parts *p, const struct codes *x)
{
	unsigned middle = 1u << (x->bits - 1);
	struct zeros z = { 255, 0 };
	if (!p->tensor[PART_ZERO])
		return (struct zeros){ middle, middle };
	uint8_t tile[CODES_TILE];
	for (uint64_t g = 0; g < x->groups; g++)
		for (uint64_t row = 0; row < x->rows; row += CODES_TILE) {
			size_t n = x->rows - row < CODES_TILE ? (size_t)(x->rows - row) : CODES_TILE;
			x->layout->zeros(x, p->bytes[PART_ZERO].data, g, row, n, tile);
			for (size_t i = 0; i < n; i++) {
				z.least = tile[i] < z.least ? tile[i] : z.least;
				z.most = tile[i] > z.most ? tile[i] : z.most;
			}
		}
	return z;
}

/* One step beside the middle everywhere, in what is symmetric by its configuration: a file of the other of GPTQ's two layouts. */
static void correct(const struct codes_parts *p, const struct json *quant, struct codes *x, struct notes *notes)
{
	struct zeros z = look(p, x);
	unsigned middle = 1u << (x->bits - 1), off = x->less ? middle + 1 : middle - 1;
	bool symmetric = false;
	if (x->layout == &codes_gptq && json_bool(json_get(quant, "sym"), &symmetric) && symmetric && z.least == off && z.most == off) {
		x->less = !x->less;
		notes_add(notes, "quantization_config says sym, but by its checkpoint_format all zero points would be one beside the middle: "
			  "read as %s", x->less ? "gptq" : "gptq_v2");
	} else if (x->less && !z.least) {
		notes_add(notes, "zero points of 0, which programs read differently from this layout of GPTQ: read as GPTQModel does");
	}
}

/* Programs that order columns give each group its own: where one has none, the file is of another kind. */
static int no_group_is_empty(const struct codes_parts *p, const struct codes *x, struct err *e)
{
	const uint8_t *order = p->bytes[PART_ORDER].data;
	bool *has = calloc(x->groups ? x->groups : 1, sizeof *has);
	uint64_t g = 0;
	if (!has)
		return err_nomem(e);
	for (uint64_t c = 0; c < x->cols; c++)
		has[load_u32(order + 4 * c)] = true;
	while (g < x->groups && has[g])
		g++;
	free(has);
	return g == x->groups ? ERR_OK : codes_refuse(e, "GPTQ with a group that has no column", "tensor", p->tensor[PART_ORDER]->name);
}

static int inspect_order(const struct codes_parts *p, struct codes *x, struct err *e)
{
	const uint8_t *order = p->bytes[PART_ORDER].data;
	uint64_t first = 0;
	for (uint64_t c = 0; c < x->cols; c++)
		if (load_u32(order + 4 * c) >= x->groups)
			return err_set(e, ERR_INPUT, "tensor %.200s: column %llu is of no group", p->tensor[PART_ORDER]->name,
				       (unsigned long long)c);
	if (no_group_is_empty(p, x, e))
		return e->code;
	/* the length of a group by what is there, whatever the configuration says */
	while (first < x->cols && load_u32(order + 4 * first) == 0)
		first++;
	x->group = first ? first : 1;
	x->ordered = (x->cols + x->group - 1) / x->group != x->groups;
	for (uint64_t c = 0; c < x->cols && !x->ordered; c++)
		x->ordered = load_u32(order + 4 * c) != c / x->group;
	return ERR_OK;
}

int codes_inspect(const struct codes_parts *p, const struct json *quant, struct codes *x, struct notes *notes, struct err *e)
{
	if (x->layout->zeros)
		correct(p, quant, x, notes);
	return p->tensor[PART_ORDER] ? inspect_order(p, x, e) : ERR_OK;
}

/* ---- codecs */

static bool all_half(const struct codes_parts *p, enum code_part part, bool bf16)
{
	const struct tensor *t = p->tensor[part];
	uint64_t n = tensor_elements(t);
	for (uint64_t i = 0; i < n; i++) {
		float v = codes_float(t, p->bytes[part].data, i);
		if ((bf16 ? f32_from_bf16(bf16_from_f32(v)) : f32_from_f16(f16_from_f32(v))) != v)
			return false;
	}
	return true;
}

/* Scales in 16 bits, without rounding: as f16, as bf16, or not at all. */
enum half { NO_HALF, AS_F16, AS_BF16 };

static enum half scales_as(const struct codes_parts *p)
{
	const char *name = p->tensor[PART_SCALE]->codec->name;
	if (!strcmp(name, "f16") || !strcmp(name, "bf16"))
		return *name == 'b' ? AS_BF16 : AS_F16;
	return all_half(p, PART_SCALE, false) ? AS_F16 : all_half(p, PART_SCALE, true) ? AS_BF16 : NO_HALF;
}

/* Is every bias a whole zero point times its scale? */
static bool whole_zeros(const struct codes_parts *p, const struct codes *x)
{
	uint64_t n = x->rows * x->groups;
	for (uint64_t i = 0; i < n; i++) {
		double s = codes_float(p->tensor[PART_SCALE], p->bytes[PART_SCALE].data, i);
		double b = codes_float(p->tensor[PART_ZERO], p->bytes[PART_ZERO].data, i), z = s != 0 ? rint(-b / s) : 0;
		if (!(z >= 0 && z <= (1 << x->bits) - 1) || -z * s != b)
			return false;
	}
	return true;
}

/* Our groups are of 32, 64 or 128 columns, or whole rows; a longer group is several with the same scale. */
static const struct codec *group_codec(const struct codes *x, const char *offset, enum half scales)
{
	static const unsigned spans[] = { 128, 64, 32 };
	char name[48], span[16] = "";
	bool row = x->groups == 1;
	for (size_t i = 0; i < sizeof spans / sizeof *spans && !*span && !(row && x->whole); i++)
		if (x->group % spans[i] == 0)
			snprintf(span, sizeof span, "g%u", spans[i]);
	if (!*span && row)
		snprintf(span, sizeof span, "row");
	snprintf(name, sizeof name, "int%d-%s%s%s", x->bits, span, offset, scales == AS_BF16 ? "-bf16" : "");
	return codec_find(name);
}

static const struct codec *with_biases(const struct codes_parts *p, const struct codes *x, const char **why)
{
	enum half scales = scales_as(p);
	bool wide = p->tensor[PART_SCALE]->codec->block_bytes == 4;
	const struct codec *c = wide && scales != NO_HALF && whole_zeros(p, x) ? group_codec(x, "-zp", scales) : NULL;
	if (c)
		return c;
	*why = "scales or biases need more than 16 bits";
	if (scales == NO_HALF || (wide && !all_half(p, PART_ZERO, scales == AS_BF16)))
		return NULL;
	*why = "no codec has groups of this length";
	return group_codec(x, "-bias", scales);
}

/* Exponents that every level is finite under. */
static const struct codec *fp4_codec(const struct codes_parts *p, const struct codes *x, const char **why)
{
	uint8_t most = 0;
	*why = "no codec has four-bit floats under scales in E4M3";
	for (size_t i = 0; i < p->bytes[PART_SCALE].size && !x->e4m3; i++)
		most = p->bytes[PART_SCALE].data[i] > most ? p->bytes[PART_SCALE].data[i] : most;
	if (!x->e4m3)
		*why = "scales are not finite";
	return x->e4m3 || most > 252 ? NULL : codec_find("mxfp4");
}

const struct codec *codes_codec(const struct codes_parts *p, const struct codes *x, const char **why)
{
	unsigned middle = 1u << (x->bits - 1);
	if (x->layout->bias)
		return with_biases(p, x, why);
	if (x->layout->fp4)
		return fp4_codec(p, x, why);
	*why = "columns are grouped in an order of their own";
	if (x->ordered)
		return NULL;
	enum half scales = x->layout->steps > 0 ? NO_HALF : scales_as(p);
	struct zeros z = look(p, x);
	*why = scales == NO_HALF ? "scales need more than 16 bits" : "no codec has groups or codes of this length";
	bool zeros = x->zeroed || z.least != middle || z.most != middle;
	return scales == NO_HALF ? NULL : group_codec(x, zeros ? "-zp" : "", scales);
}
