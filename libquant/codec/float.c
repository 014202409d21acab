/* Plain floats: one element at a time, little-endian. */
#include <string.h>

#include "base/bytes.h"
#include "codec/rows.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE floats");

static void decode_f32(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	memcpy(dst, src, n * sizeof *dst);
}

static void encode_f32(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	memcpy(dst, src, n * sizeof *src);
}

static void decode_f64(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++) {
		uint64_t u = load_u64((const uint8_t *)src + 8 * i);
		double d;
		memcpy(&d, &u, 8);
		dst[i] = (float)d;
	}
}

static void encode_f64(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++) {
		double d = src[i];
		uint64_t u;
		memcpy(&u, &d, 8);
		store_u64((uint8_t *)dst + 8 * i, u);
	}
}

static void decode_f16(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	kernels()->f32_from_f16(src, dst, n);
}

static void encode_f16(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	kernels()->f16_from_f32(src, dst, n);
}

static void decode_bf16(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	kernels()->f32_from_bf16(src, dst, n);
}

static void encode_bf16(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	kernels()->bf16_from_f32(src, dst, n);
}

static void decode_e4m3(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++)
		dst[i] = f32_from_e4m3(((const uint8_t *)src)[i]);
}

static void encode_e4m3(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)dst)[i] = e4m3_from_f32(src[i]);
}

static void decode_e5m2(const struct codec *c, const void *src, float *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++)
		dst[i] = f32_from_e5m2(((const uint8_t *)src)[i]);
}

static void encode_e5m2(const struct codec *c, const float *src, void *dst, size_t n)
{
	(void)c;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)dst)[i] = e5m2_from_f32(src[i]);
}

static void dot_f16(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows)
{
	for (size_t r = 0; r < rows; r++)
		y[r] = kernels()->dot_f16((const uint8_t *)src + r * c->block_bytes * n, x, n);
}

static void dot_bf16(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows)
{
	for (size_t r = 0; r < rows; r++)
		y[r] = kernels()->dot_bf16((const uint8_t *)src + r * c->block_bytes * n, x, n);
}

#define FLOAT_ROW(ID, NAME, BYTES, GGUF, ST, DOT, SUMMARY) \
	const struct codec codec_##ID = { \
		.name = NAME, .summary = SUMMARY, .kind = CODEC_FLOAT, .block = 1, .block_bytes = BYTES, .sub = 1, \
		.bits = 8 * BYTES, .gguf_type = GGUF, .safetensors = ST, .decode = decode_##ID, .dot = DOT, .encode = encode_##ID }

FLOAT_ROW(f32, "f32", 4, 0, "F32", NULL, "32-bit float");
FLOAT_ROW(f16, "f16", 2, 1, "F16", dot_f16, "IEEE half: 5 exponent bits, 10 fraction bits, up to 65504");
FLOAT_ROW(bf16, "bf16", 2, 30, "BF16", dot_bf16, "the upper half of f32: 8 exponent bits, 7 fraction bits");
FLOAT_ROW(f64, "f64", 8, 28, "F64", NULL, "64-bit float");
FLOAT_ROW(e4m3, "f8_e4m3", 1, -1, "F8_E4M3", NULL, "8-bit float: 4 exponent bits, 3 fraction bits, up to 448, no infinity");
FLOAT_ROW(e5m2, "f8_e5m2", 1, -1, "F8_E5M2", NULL, "8-bit float: 5 exponent bits, 2 fraction bits, up to 57344");
