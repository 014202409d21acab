#ifndef QUIRE_FORMATS_CT_H
#define QUIRE_FORMATS_CT_H
/*
 * compressed-tensors, format `pack-quantized`: what vLLM and transformers load
 * as W4A16 and W8A16. A linear layer's weight is several tensors:
 *
 *	weight_packed      I32 [out, ceil(in b / 32)]   codes q + 2^(b-1), b bits each, lowest bit first along a row
 *	weight_scale       F16 or BF16 [out, groups]
 *	weight_zero_point  I32 [ceil(out b / 32), groups]  zero + 2^(b-1), packed along out; only when asymmetric
 *	weight_shape       I64 [2]  out, in
 *
 * Specification: the `compressors/pack_quantized` module of github.com/vllm-project/compressed-tensors. Our group
 * codecs hold the same unsigned codes and zero points, so nothing is rounded either way.
 */
#include "base/json.h"
#include "formats/checkpoint.h"

struct ct_layout {
	const struct codec *codec;
	uint64_t rows, cols, groups;
	uint64_t words;        /* of a packed row */
	uint64_t zero_words;   /* rows of the packed zero points; 0: symmetric */
};

/* Does the format hold this codec: int4 or int8 groups? */
bool ct_holds(const struct codec *c);
/* ERR_UNSUPPORTED when rows do not divide by the group. */
int ct_layout_of(const struct tensor *t, struct ct_layout *out, struct err *e);
/* Between rows in the codec and the parts, all little-endian: packed [rows, words] and zero [zero_words, groups] of 4 bytes, scale of 2. */
void ct_split(const struct ct_layout *l, const uint8_t *bytes, uint8_t *packed, uint8_t *scale, uint8_t *zero);
void ct_join(const struct ct_layout *l, const uint8_t *packed, const uint8_t *scale, const uint8_t *zero, uint8_t *bytes);

/* Does the plan hold codecs that a folder takes in this form? */
bool ct_wanted(const struct plan *p);
/*
 * Writing: *parts becomes the plan of the tensors that are really written; *out, a sink for p that passes them on to
 * inner, which the sink then owns. Free parts with plan_release after closing.
 */
int ct_plan(const struct plan *p, struct plan *parts, struct err *e);
int ct_sink_new(const struct plan *p, struct tensor_sink *inner, struct tensor_sink **out, struct err *e);
/* Puts quantization_config into a config.json's text. config may be NULL. */
int ct_config_add(const struct plan *p, const struct config *config, struct strbuf *text, struct err *e);

/* Reading, as packed.h says: a tensor `weight` in our codec takes the place of its parts. */
int ct_attach(struct checkpoint *c, const struct json *quant, struct err *e);

#endif
