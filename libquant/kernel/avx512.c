/* AVX-512 F, BW, VL, DQ. No fused multiply-add: it would round differently from the other rows. */
#include "base/bytes.h"
#include "kernel/rows.h"

#ifdef __x86_64__
#include <immintrin.h>

typedef __m512 v16;
typedef __m128i b16;

static inline v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
static inline v16 v_set(float x) { return _mm512_set1_ps(x); }
static inline v16 v_add(v16 x, v16 y) { return _mm512_add_ps(x, y); }
static inline v16 v_sub(v16 x, v16 y) { return _mm512_sub_ps(x, y); }
static inline v16 v_mul(v16 x, v16 y) { return _mm512_mul_ps(x, y); }
static inline v16 v_div(v16 x, v16 y) { return _mm512_div_ps(x, y); }
static inline v16 v_max(v16 x, v16 y) { return _mm512_max_ps(x, y); }
static inline v16 v_min(v16 x, v16 y) { return _mm512_min_ps(x, y); }
static inline b16 b_load(const void *p) { return _mm_loadu_si128(p); }
static inline b16 b_and(b16 a, uint8_t m) { return _mm_and_si128(a, _mm_set1_epi8((char)m)); }
static inline b16 b_or(b16 a, b16 b) { return _mm_or_si128(a, b); }
static inline b16 b_shr(b16 a, int n) { return b_and(_mm_srl_epi16(a, _mm_cvtsi32_si128(n)), (uint8_t)(0xff >> n)); }
static inline b16 b_shl(b16 a, int n) { return b_and(_mm_sll_epi16(a, _mm_cvtsi32_si128(n)), (uint8_t)(0xff << n)); }
static inline b16 b_pair(uint64_t lo, uint64_t hi) { return _mm_set_epi64x((long long)hi, (long long)lo); }
static inline b16 b_zip_lo(b16 a, b16 b) { return _mm_unpacklo_epi8(a, b); }
static inline b16 b_zip_hi(b16 a, b16 b) { return _mm_unpackhi_epi8(a, b); }
static inline b16 b_lookup(b16 table, b16 q) { return _mm_shuffle_epi8(table, q); }

static inline b16 b_bits(unsigned mask, uint8_t value) { return _mm_maskz_set1_epi8((__mmask16)mask, (char)value); }
static inline v16 v_from_u8(b16 q) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(q)); }
static inline v16 v_from_s8(b16 q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }

static inline void v_pow2_halves(v16 n, v16 *p, v16 *q)
{
	__m512i k = _mm512_sub_epi32(_mm512_castps_si512(n), _mm512_set1_epi32(0x4b400000));
	__m512i half = _mm512_srai_epi32(k, 1), bias = _mm512_set1_epi32(127);
	*p = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
	*q = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(k, half), bias), 23));
}

static inline v16 v_from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }

static inline float s_from_f16(const uint8_t *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p)))); }
static inline v16 v_half(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)load_u16(p))); }

static inline v16 v_from_bf16(const void *p)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

static inline void v_to_f16(v16 v, void *p)
{
	_mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* Round half to even on the bits; NaN keeps its top bits and turns quiet. */
static inline void v_to_bf16(v16 v, void *p)
{
	__m512i u = _mm512_castps_si512(v), top = _mm512_srli_epi32(u, 16);
	__m512i even = _mm512_add_epi32(_mm512_and_si512(top, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
	__m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, even), 16);
	__mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
	rounded = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
	_mm256_storeu_si256(p, _mm512_cvtepi32_epi16(rounded));
}

static inline float sum4(__m128 v)
{
	v = _mm_add_ps(v, _mm_movehl_ps(v, v));
	return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}

static inline float v_sum(v16 v)
{
	__m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
	return sum4(_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

#include "kernel/template.h"

static bool usable(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const struct kernels kernels_avx512 = KERNEL_ROW("avx512", usable, avx512);
#endif
