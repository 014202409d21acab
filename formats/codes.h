#ifndef QUIRE_FORMATS_CODES_H
#define QUIRE_FORMATS_CODES_H
/*
 * Weights that others keep as whole numbers in several tensors: codes, scales, and zero points or biases (docs/formats/packed.md).
 *
 *	value = scale * (code - zero)      or, where the layout has biases,      scale * code + bias
 *
 * A row of codes_layouts.c says what the parts are and where a code lies; codes.c makes one tensor of them: in one of our codecs
 * with the same codes where its grid is the same, else in f32.
 */
#include "formats/packed.h"

enum code_part { PART_CODES, PART_SCALE, PART_ZERO, PART_ORDER, PART_SHAPE, PART_GLOBAL, CODE_PARTS };
enum { CODES_TILE = 64 };   /* rows that are unpacked together: whole words whichever way a layout packs */

/* One matrix. */
struct codes {
	size_t part[CODE_PARTS];       /* positions in the inner source; SIZE_MAX: none */
	const struct codes_layout *layout;
	uint64_t rows, cols, groups;
	uint64_t group;                /* columns of one scale; of the last group there may be fewer */
	int bits;
	unsigned less;                 /* zero points are stored less this */
	bool whole;                    /* by the configuration a scale is a row's, not a group's that is as long */
	bool ordered;                  /* PART_ORDER says which group a column is of */
	bool zeroed;                   /* by the configuration there are zero points, even if all are the middle */
	bool e4m3;                     /* scales in 8 bits are E4M3, else exponents of two (E8M0) */
	bool one;                      /* one scale for all */
};

/* The parts of a matrix as they are stored; codes may not have been fetched. */
struct codes_parts {
	const struct tensor *tensor[CODE_PARTS];   /* NULL: not there */
	struct tensor_bytes bytes[CODE_PARTS];
};

struct codes_layout {
	const char *part[CODE_PARTS];  /* how names end, after the module's; NULL: the layout has none */
	const char *type;              /* codec of the codes */
	bool bias;                     /* PART_ZERO holds floats in the shape of the scales */
	bool by_group;                 /* scales are [groups, rows], else [rows, groups] */
	bool no_zeros;                 /* PART_ZERO may be missing: all zero points are the middle, or biases nothing */
	float steps;                   /* scales are of so many steps; 0: of one */
	bool fp4, divides;             /* codes are E2M1, scales in 8 bits; a scale for all divides, else multiplies */
	/* Fills in layout and all but `ordered`; module is the name without its end. */
	int (*measure)(const struct codes_parts *p, const struct json *quant, const char *module, struct codes *x, struct err *e);
	/* The codes of n rows from `row`, a multiple of CODES_TILE: out[n][cols]. */
	void (*codes)(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out);
	/* The zero points of a group of these rows. Not where there are biases. */
	void (*zeros)(const struct codes *x, const uint8_t *words, uint64_t group, uint64_t row, size_t n, uint8_t *out);

	/* Writing, codes_write.c. Words begin as zeros. */
	const char *format;            /* its name in configurations of several layouts */
	bool (*holds)(const struct codec *c);
	bool activations;              /* for those who quantize activations, too */
	/* Types and shapes of the parts, names NULL where there is none; t is the matrix. ERR_UNSUPPORTED: it does not fit, and why. */
	int (*room)(const struct tensor *t, const struct codes *x, struct tensor part[CODE_PARTS], struct err *e);
	void (*put_codes)(const struct codes *x, const uint8_t *in, uint64_t row, size_t n, uint8_t *words);
	void (*put_zeros)(const struct codes *x, const uint8_t *in, uint64_t group, uint64_t row, size_t n, uint8_t *words);
};

extern const struct codes_layout codes_gptq, codes_awq, codes_mlx, codes_ct_packed, codes_ct_int8, codes_ct_fp4, codes_modelopt_fp4, codes_bnb_int8,
	codes_mlx_fp4;

/* n codes of a stream of bits, low bits first, in words that lie `stride` bytes apart; one may lie in two words. */
void codes_unpack(const uint8_t *in, size_t stride, int bits, size_t n, uint8_t *out);
void codes_pack(const uint8_t *in, size_t n, int bits, uint8_t *out, size_t stride);

/* codes_fit.c: which codec has the grid of a matrix. The parts' bytes are there. */
bool codes_are_floats(const struct tensor *t);
float codes_float(const struct tensor *t, const uint8_t *bytes, uint64_t i);
/* The i-th scale. */
float codes_scale(const struct codes_parts *p, const struct codes *x, uint64_t i);
/* codes_fp4.c: is it a mode with four-bit floats? And a matrix of one. */
bool codes_mlx_mode(const struct json *quant, const char *module, bool *e4m3);
int codes_mlx_measure_fp4(const struct codes_parts *p, bool e4m3, struct codes *x, struct err *e);
/* Position of the scale of a row's group. */
static inline uint64_t codes_scale_at(const struct codes *x, uint64_t row, uint64_t group)
{
	return x->one ? 0 : x->layout->by_group ? group * x->rows + row : row * x->groups + group;
}
/* Looks at order and zero points; may correct x->less, says so in a note, and sets x->ordered. */
int codes_inspect(const struct codes_parts *p, const struct json *quant, struct codes *x, struct notes *notes, struct err *e);
/* The codec, or NULL and why there is none. */
const struct codec *codes_codec(const struct codes_parts *p, const struct codes *x, const char **why);
/* The message for what is not read: the layout's name, and where it is said. */
int codes_refuse(struct err *e, const char *name, const char *how, const char *what);

#endif
