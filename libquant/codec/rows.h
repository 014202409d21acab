#ifndef QUIRE_CODEC_ROWS_H
#define QUIRE_CODEC_ROWS_H
/* The rows of the codec table, for registry.c and the files that define them. Everything else looks codecs up. */
#include "codec/codec.h"
#include "kernel/kernel.h"

extern const struct codec codec_f32, codec_f16, codec_bf16, codec_f64, codec_e4m3, codec_e5m2;
extern const struct codec codec_i8, codec_i16, codec_i32, codec_i64, codec_u8, codec_u16, codec_u32, codec_u64,
	codec_boolean;
extern const struct codec codec_q8_0, codec_q4_0, codec_q4_1, codec_q5_0, codec_q5_1;
extern const struct codec codec_q2_k, codec_q3_k, codec_q4_k, codec_q5_k, codec_q6_k;
extern const struct codec codec_iq4_nl, codec_iq4_xs, codec_mxfp4, codec_nvfp4;
extern const struct codec codec_q1_0, codec_q2_0, codec_tq1_0, codec_tq2_0;
extern const struct codec codec_iq1_s, codec_iq1_m, codec_iq2_xxs, codec_iq2_xs, codec_iq2_s, codec_iq3_xxs, codec_iq3_s;

/* Group codecs, X(bits, tag, elements); each line gives four rows: f16 or bf16 scales, without or with zero point. */
#define CODEC_GROUP_ROWS(X) \
	X(2, g32, 32) \
	X(2, g64, 64) \
	X(2, g128, 128) \
	X(2, row, 0) \
	X(3, g32, 32) \
	X(3, g64, 64) \
	X(3, g128, 128) \
	X(3, row, 0) \
	X(4, g32, 32) \
	X(4, g64, 64) \
	X(4, g128, 128) \
	X(4, row, 0) \
	X(8, g32, 32) \
	X(8, g64, 64) \
	X(8, g128, 128) \
	X(8, row, 0)

/* The same with a float beside the scale instead of a zero point: two rows each, for f16 and bf16. */
#define CODEC_BIAS_WIDTH(X, BITS) \
	X(BITS, g32, 32) \
	X(BITS, g64, 64) \
	X(BITS, g128, 128)
#define CODEC_BIAS_ROWS(X) \
	CODEC_BIAS_WIDTH(X, 2) \
	CODEC_BIAS_WIDTH(X, 3) \
	CODEC_BIAS_WIDTH(X, 4) \
	CODEC_BIAS_WIDTH(X, 5) \
	CODEC_BIAS_WIDTH(X, 6) \
	CODEC_BIAS_WIDTH(X, 8)

#define DECLARE(BITS, TAG, GROUP) \
	extern const struct codec codec_int##BITS##_##TAG, codec_int##BITS##_##TAG##_zp, \
		codec_int##BITS##_##TAG##_bf16, codec_int##BITS##_##TAG##_zp_bf16;
CODEC_GROUP_ROWS(DECLARE)
#undef DECLARE
#define DECLARE(BITS, TAG, GROUP) extern const struct codec codec_int##BITS##_##TAG##_bias, codec_int##BITS##_##TAG##_bias_bf16;
CODEC_BIAS_ROWS(DECLARE)
#undef DECLARE

/* Bytes in front of the codes of one group (CODEC_GROUP): the scale and, if there is one, the zero point or bias. */
static inline unsigned codec_group_header(const struct codec *c)
{
	return c->group_bias ? 4 : c->has_offset ? 3 : 2;
}

/* The codes of a codec under a scale and an offset, as the kernels take them. */
struct code_grid codec_grid(const struct codec *c, float scale, float offset);
/* decode and dot of the formats with kernels of their own. */
void codec_block_decode(const struct codec *c, const void *src, float *dst, size_t n);
void codec_block_dot(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows);

#endif
