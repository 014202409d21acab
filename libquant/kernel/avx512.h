/* Vectors of AVX-512 F, BW, VL, DQ, and with VNNI where that is compiled for; for the rows made of them. No include guard, as template.h. */
#include <immintrin.h>

#include "base/bytes.h"
#include "kernel/rows.h"

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
static inline b16 b_add(b16 a, uint8_t x) { return _mm_add_epi8(a, _mm_set1_epi8((char)x)); }
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

typedef __m512i c64;
typedef __m512i n16;

static inline c64 c_load(const void *p) { return _mm512_loadu_si512(p); }
static inline c64 c_halves(const void *p, const void *q) { return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(p)), _mm256_loadu_si256(q), 1); }
static inline c64 c_and(c64 c, uint8_t m) { return _mm512_and_si512(c, _mm512_set1_epi8((char)m)); }
static inline c64 c_or(c64 a, c64 b) { return _mm512_or_si512(a, b); }
static inline c64 c_shl(c64 c, int n) { return c_and(_mm512_slli_epi16(c, (unsigned)n), (uint8_t)(0xff << n)); }
static inline c64 c_lookup(b16 table, c64 c) { return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), c); }
static inline c64 c_bits(uint32_t m, uint32_t n, uint8_t value) { return _mm512_maskz_set1_epi8((uint64_t)n << 32 | m, (char)value); }

/* in 16 bits: what passes from one byte to the next is masked */
static inline c64 c_shr(c64 c, int m, int n)
{
	return _mm512_srlv_epi16(c, _mm512_inserti64x4(_mm512_set1_epi16((short)m), _mm256_set1_epi16((short)n), 1));
}

static inline c64 c_nibbles(const void *p, const void *q)
{
	__m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(b_load(p)), b_load(q), 1);
	__m512i twice = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0), _mm512_castsi256_si512(both));
	__m512i four = _mm512_set1_epi16(4), shift = _mm512_mask_mov_epi64(_mm512_setzero_si512(), 0xcc, four);
	return c_and(_mm512_srlv_epi16(twice, shift), 15);
}

static inline n16 n_zero(void) { return _mm512_setzero_si512(); }
static inline n16 n_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline n16 n_sub(n16 a, n16 b) { return _mm512_sub_epi32(a, b); }
static inline n16 n_shl(n16 a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }

/* x where w is positive, -x where it is negative. */
static inline c64 c_signed(c64 x, c64 w) { return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x); }
static inline c64 scales(const int16_t *s)
{
	const __m512i spread = _mm512_broadcast_i32x4(_mm_set1_epi16(0x0100));
	const __m512i which = _mm512_set_epi64(0x0606060606060606, 0x0606060606060606, 0x0404040404040404, 0x0404040404040404,
					       0x0202020202020202, 0x0202020202020202, 0, 0);
	long long four;
	memcpy(&four, s, sizeof four);
	return _mm512_shuffle_epi8(_mm512_set1_epi64(four), _mm512_add_epi8(spread, which));
}

/* Products of two bytes each are added up in 16 bits: none beyond them, as u is below 128. */
#ifdef __AVX512VNNI__
static inline n16 n_dot(c64 u, c64 x) { return _mm512_dpbusd_epi32(n_zero(), u, x); }
static inline n16 n_scaled(n16 n, c64 u, c64 x, const int16_t *s) { return _mm512_dpwssd_epi32(n, _mm512_maddubs_epi16(u, x), scales(s)); }
#else
static inline n16 n_dot(c64 u, c64 x) { return _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), _mm512_set1_epi16(1)); }
static inline n16 n_scaled(n16 n, c64 u, c64 x, const int16_t *s) { return _mm512_add_epi32(n, _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), scales(s))); }
#endif
static inline n16 n_dot_signed(c64 w, c64 x) { return n_dot(_mm512_abs_epi8(w), c_signed(x, w)); }
static inline n16 n_scaled_signed(n16 n, c64 w, c64 x, const int16_t *s) { return n_scaled(n, _mm512_abs_epi8(w), c_signed(x, w), s); }
static inline n16 n_pairs(const int16_t *a, const int16_t *b) { return _mm512_zextsi256_si512(_mm256_madd_epi16(_mm256_loadu_si256((const void *)a), _mm256_loadu_si256((const void *)b))); }
static inline void h_widen(b16 q, int16_t *out) { _mm256_storeu_si256((void *)out, _mm256_cvtepi8_epi16(q)); }
static inline v16 v_from_n(n16 n) { return _mm512_cvtepi32_ps(n); }
static inline v16 v_pair(float a, float b) { return _mm512_mask_broadcastss_ps(v_set(a), 0xff00, _mm_set_ss(b)); }

static inline v16 v_halves(const uint8_t *p, const uint8_t *q)
{
	return _mm512_cvtph_ps(_mm256_mask_set1_epi16(_mm256_set1_epi16((short)load_u16(p)), 0xff00, (short)load_u16(q)));
}

#include "kernel/template.h"

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
