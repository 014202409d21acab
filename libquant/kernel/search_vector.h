/* A part of search_template.h, which includes it: the lanes of an instruction set, and rounding in them. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define VL 8
#else
#define VL 4
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint8_t vb __attribute__((vector_size(VL)));

#define INLINE static inline __attribute__((always_inline))

INLINE vf vset(float a)
{
	return (vf){0} + a;
}

INLINE vf vload(const float *p)
{
	vf v;
	memcpy(&v, p, sizeof(v));
	return v;
}

INLINE void vstore(float *p, vf v)
{
	memcpy(p, &v, sizeof(v));
}

INLINE vf vselect(vi mask, vf a, vf b)
{
	return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

INLINE vf vmin(vf a, vf b)
{
#if VL == 16
	return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif VL == 8
	return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
	return (vf)_mm_min_ps((__m128)a, (__m128)b);
#elif defined(__ARM_NEON)
	return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
	return vselect(a < b, a, b);
#endif
}

INLINE vf vmax(vf a, vf b)
{
#if VL == 16
	return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 8
	return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
	return (vf)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__ARM_NEON)
	return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
	return vselect(a > b, a, b);
#endif
}

/* To the nearest integer, ties to even, for |a| < 2^22. */
INLINE vf vround(vf a)
{
	return (a + 12582912.0f) - 12582912.0f;
}

INLINE vf vclamp(vf a, vf lo, vf hi)
{
	return vmin(vmax(a, lo), hi);
}

INLINE vf vabs(vf a)
{
	return (vf)((vi)a & 0x7fffffff);
}

INLINE vf vreciprocal(vf a)
{
	vi zero = a == vset(0);
	return vselect(zero, vset(0), 1.0f / vselect(zero, vset(1), a));
}

/* To half precision, never to zero or past the largest half: a super-scale of zero would lose the block. */
INLINE vf vhalf(vf a)
{
	vf m = vclamp(vabs(a), vset(0x1p-24f), vset(65504.0f));
	vf split = m * 8193.0f;
	vf normal = split - (split - m);      /* 11 significant bits */
	vf small = (m + 0.75f) - 0.75f;       /* multiples of 2^-24 */
	vf r = vselect(m < vset(0x1p-14f), small, normal);
	return (vf)((vi)r | ((vi)a & (int32_t)0x80000000));
}

/* The scale of a super-block of one is the super-scale; nothing else can make a block zero, so it becomes zero as f16 does. */
INLINE vf only_scale(vf s)
{
	return vselect(vabs(s) > vset(0x1p-25f), vhalf(s), vset(0));
}

/* To half precision or, as half, to bfloat16; zero stays zero. */
INLINE vf vstored(bool bf16, vf a)
{
	vi m = (vi)vmin(vabs(a), vset(bf16 ? 0x1.fep127f : 65504.0f));
	int cut = bf16 ? 16 : 13;
	vi r = (m + ((1 << (cut - 1)) - 1) + (m >> cut & 1)) & -(1 << cut);
	if (!bf16) /* below the normal numbers: multiples of 2^-24 */
		r = (vi)vselect((vf)m < vset(0x1p-14f), ((vf)m + 0.75f) - 0.75f, (vf)r);
	return (vf)(r | ((vi)a & (int32_t)0x80000000));
}
