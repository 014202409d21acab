#ifndef QUIRE_FORMATS_PACKED_H
#define QUIRE_FORMATS_PACKED_H
/*
 * Checkpoints that others quantized: one row per layout in packed.c says how it is recognised, in config.json or, where
 * that does not say, by tensors that only it has, and how it is read. What has no reader is refused by name: its codes
 * must not be taken for weights.
 */
#include "base/json.h"
#include "formats/checkpoint.h"

struct packed_row {
	const char *name;      /* as its users call it */
	const char *method;    /* quant_method in quantization_config; NULL: only by tensors */
	const char *format;    /* what `format` (or `quant_algo`) begins with; NULL: any */
	const char *mark;      /* how the name of a tensor ends that only this layout has; NULL: none */
	const char *codec;     /* ... and its type; NULL: any */
	/*
	 * Puts a source of plain weights in place of c->source, everything but its index in c's arena; quant is
	 * quantization_config, or NULL. NULL: the layout is not read.
	 */
	int (*attach)(struct checkpoint *c, const struct json *quant, struct err *e);
};
extern const struct packed_row packed_rows[];
extern const unsigned packed_row_count;

/* For readers of safetensors, once source and side files are there. Takes quantization_config out of config.json. */
int packed_attach(struct checkpoint *c, struct err *e);

/* Is it a scale of activations or of the KV cache by its name? quire computes with those in floats. */
bool packed_of_activations(const char *name);

/* scaled.c: 8-bit floats or integers with a scale per tensor, row, group or block. */
int scaled_attach(struct checkpoint *c, const struct json *quant, struct err *e);
/* codes.c: whole numbers with scales and zero points or biases. */
int gptq_attach(struct checkpoint *c, const struct json *quant, struct err *e);
int awq_attach(struct checkpoint *c, const struct json *quant, struct err *e);
int mlx_attach(struct checkpoint *c, const struct json *quant, struct err *e);
int bnb_attach(struct checkpoint *c, const struct json *quant, struct err *e);
int modelopt_attach(struct checkpoint *c, const struct json *quant, struct err *e);
int ct_attach(struct checkpoint *c, const struct json *quant, struct err *e);

#endif
