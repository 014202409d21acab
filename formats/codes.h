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

enum code_part { PART_CODES, PART_SCALE, PART_ZERO, PART_ORDER, CODE_PARTS };
enum { CODES_TILE = 64 };   /* rows that are unpacked together: whole words whichever way a layout packs */

/* One matrix. */
struct codes {
	size_t part[CODE_PARTS];       /* positions in the inner source; SIZE_MAX: none */
	uint64_t rows, cols, groups;
	uint64_t group;                /* columns of one scale; of the last group there may be fewer */
	int bits;
	unsigned less;                 /* zero points are stored less this */
	bool ordered;                  /* PART_ORDER says which group a column is of */
};

struct codes_layout {
	const char *part[CODE_PARTS];  /* how names end, after the module's; NULL: the layout has none */
	const char *type;              /* codec of the codes */
	bool bias;                     /* PART_ZERO holds floats in the shape of the scales */
	bool by_group;                 /* scales are [groups, rows], else [rows, groups] */
	/* Fills in all but `ordered` from the shapes; parts that are not there are NULL, module is the name without its end. */
	int (*measure)(const struct tensor *const part[CODE_PARTS], const struct json *quant, const char *module, struct codes *x,
		       struct err *e);
	/* The codes of n rows from `row`, a multiple of CODES_TILE: out[n][cols]. */
	void (*codes)(const struct codes *x, const uint8_t *words, uint64_t row, size_t n, uint8_t *out);
	/* The zero points of a group of these rows. Not where there are biases. */
	void (*zeros)(const struct codes *x, const uint8_t *words, uint64_t group, uint64_t row, size_t n, uint8_t *out);
};

extern const struct codes_layout codes_gptq, codes_awq, codes_mlx;

/* Puts a source with the matrices of this layout in place of c->source. */
int codes_attach(struct checkpoint *c, const struct json *quant, const struct codes_layout *layout, const char *name, struct err *e);

/* codes_fit.c: which codec has the grid of a matrix. The parts' bytes are there. */
struct codes_parts {
	const struct tensor *tensor[CODE_PARTS];
	struct tensor_bytes bytes[CODE_PARTS];
};
float codes_float(const struct tensor *t, const uint8_t *bytes, uint64_t i);
/* Position of the scale of a row's group. */
static inline uint64_t codes_scale_at(const struct codes_layout *l, const struct codes *x, uint64_t row, uint64_t group)
{
	return l->by_group ? group * x->rows + row : row * x->groups + group;
}
/* Looks at order and zero points; may correct x->less, says so in a note, and sets x->ordered. */
int codes_inspect(const struct codes_layout *l, const struct codes_parts *p, const struct json *quant, struct codes *x,
		  struct notes *notes, struct err *e);
/* The codec, or NULL and why there is none. */
const struct codec *codes_codec(const struct codes_layout *l, const struct codes_parts *p, const struct codes *x, const char **why);

#endif
