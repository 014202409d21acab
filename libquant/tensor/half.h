#ifndef QUIRE_TENSOR_HALF_H
#define QUIRE_TENSOR_HALF_H
/* Scalar conversions; IEEE round to nearest even, NaN stays NaN, overflow gives infinity. Bulk versions are in kernel/. */
#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t u)
{
	float f;
	memcpy(&f, &u, 4);
	return f;
}

static inline uint32_t f32_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}

static inline float f32_from_bf16(uint16_t h)
{
	return f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_from_f32(float f)
{
	uint32_t u = f32_bits(f);
	if ((u & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float f32_from_f16(uint16_t h);
uint16_t f16_from_f32(float f);
float f32_from_e4m3(uint8_t b);   /* F8_E4M3, the "fn" variant: no infinities, 0x7f is NaN */
float f32_from_e5m2(uint8_t b);
uint8_t e4m3_from_f32(float f);   /* saturates at +-448, as the field does */
uint8_t e5m2_from_f32(float f);

#endif
