#include "tensor/half.h"

/*
 * Rounds a finite magnitude (sign bit clear) to a float with `mant` fraction
 * bits and the given exponent bias, half to even. The exponent may grow past
 * the format's range: the caller compares with its own infinity, which works
 * because such bit patterns are ordered as the numbers are.
 */
static uint32_t narrow(uint32_t u, uint32_t mant, uint32_t bias)
{
	uint32_t shift = 23 - mant, e = u >> 23;
	if (e > 127 - bias) {
		u -= (127 - bias) << 23;
	} else {
		/* subnormal in the target: shift the explicit leading one down */
		uint32_t more = 128 - bias - e;
		if (!e || shift + more > 24 + 1)
			return 0;
		u = (u & 0x7fffff) | 0x800000;
		shift += more;
	}
	return (u + (1u << (shift - 1)) - 1 + (u >> shift & 1)) >> shift;
}

float f32_from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, m = (uint32_t)(h & 0x7fff) << 13;
	if ((h & 0x7c00) == 0x7c00)
		return f32_from_bits(sign | 0x7f800000 | m | (h & 0x3ff ? 0x400000 : 0));
	/* 2^112 moves the exponent bias from 15 to 127; it is exact, also for subnormals */
	return f32_from_bits(sign | f32_bits(f32_from_bits(m) * 0x1p112f));
}

uint16_t f16_from_f32(float f)
{
	uint32_t u = f32_bits(f), a = u & 0x7fffffff, sign = u >> 16 & 0x8000;
	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	uint32_t h = narrow(a, 10, 15);
	return (uint16_t)(sign | (h < 0x7c00 ? h : 0x7c00));
}

float f32_from_e4m3(uint8_t b)
{
	uint32_t sign = (uint32_t)(b & 0x80) << 24, m = b & 0x7f;
	if (m == 0x7f)
		return f32_from_bits(sign | 0x7fc00000);
	return f32_from_bits(sign | f32_bits(f32_from_bits(m << 20) * 0x1p120f));
}

float f32_from_e5m2(uint8_t b)
{
	return f32_from_f16((uint16_t)(b << 8)); /* the upper half of a half */
}

uint8_t e4m3_from_f32(float f)
{
	uint32_t u = f32_bits(f), a = u & 0x7fffffff, sign = u >> 24 & 0x80;
	if (a > 0x7f800000)
		return (uint8_t)(sign | 0x7f);
	uint32_t b = narrow(a, 3, 7);
	return (uint8_t)(sign | (b < 0x7e ? b : 0x7e));
}

uint8_t e5m2_from_f32(float f)
{
	uint32_t u = f32_bits(f), a = u & 0x7fffffff, sign = u >> 24 & 0x80;
	if (a > 0x7f800000)
		return (uint8_t)(sign | 0x7e);
	uint32_t b = narrow(a, 2, 15);
	return (uint8_t)(sign | (b < 0x7c ? b : 0x7c));
}
