/* AVX2 and F16C. No fused multiply-add: it would round differently from the other rows. */
#include "base/bytes.h"
#include "kernel/rows.h"

#ifdef __x86_64__
#include <immintrin.h>

typedef struct { __m256 a, b; } v16;
typedef __m128i b16;

static inline v16 v_load(const float *p) { return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
static inline void v_store(float *p, v16 v) { _mm256_storeu_ps(p, v.a); _mm256_storeu_ps(p + 8, v.b); }
static inline v16 v_set(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
static inline v16 v_add(v16 x, v16 y) { return (v16){ _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b) }; }
static inline v16 v_sub(v16 x, v16 y) { return (v16){ _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b) }; }
static inline v16 v_mul(v16 x, v16 y) { return (v16){ _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) }; }
static inline v16 v_div(v16 x, v16 y) { return (v16){ _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b) }; }
static inline v16 v_max(v16 x, v16 y) { return (v16){ _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b) }; }
static inline v16 v_min(v16 x, v16 y) { return (v16){ _mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b) }; }
static inline b16 b_load(const void *p) { return _mm_loadu_si128(p); }
static inline b16 b_and(b16 a, uint8_t m) { return _mm_and_si128(a, _mm_set1_epi8((char)m)); }
static inline b16 b_or(b16 a, b16 b) { return _mm_or_si128(a, b); }
static inline b16 b_shr(b16 a, int n) { return b_and(_mm_srl_epi16(a, _mm_cvtsi32_si128(n)), (uint8_t)(0xff >> n)); }
static inline b16 b_shl(b16 a, int n) { return b_and(_mm_sll_epi16(a, _mm_cvtsi32_si128(n)), (uint8_t)(0xff << n)); }
static inline b16 b_pair(uint64_t lo, uint64_t hi) { return _mm_set_epi64x((long long)hi, (long long)lo); }
static inline b16 b_zip_lo(b16 a, b16 b) { return _mm_unpacklo_epi8(a, b); }
static inline b16 b_zip_hi(b16 a, b16 b) { return _mm_unpackhi_epi8(a, b); }
static inline b16 b_lookup(b16 table, b16 q) { return _mm_shuffle_epi8(table, q); }

static inline b16 b_bits(unsigned mask, uint8_t value)
{
	b16 bit = _mm_set1_epi64x((long long)0x8040201008040201), bytes = _mm_cvtsi32_si128((int)mask);
	bytes = _mm_shuffle_epi8(bytes, _mm_set_epi64x(0x0101010101010101, 0));
	return b_and(_mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit), value);
}

static inline v16 v_from_u8(b16 q)
{
	return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(q)),
		      _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(q, 8))) };
}

static inline v16 v_from_s8(b16 q)
{
	return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
		      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))) };
}

static inline void pow2_halves(__m256 n, __m256 *p, __m256 *q)
{
	__m256i k = _mm256_sub_epi32(_mm256_castps_si256(n), _mm256_set1_epi32(0x4b400000));
	__m256i half = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
	*p = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
	*q = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23));
}

static inline void v_pow2_halves(v16 n, v16 *p, v16 *q)
{
	pow2_halves(n.a, &p->a, &q->a);
	pow2_halves(n.b, &p->b, &q->b);
}

static inline v16 v_from_f16(const void *p)
{
	const __m128i *s = p;
	return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(s)), _mm256_cvtph_ps(_mm_loadu_si128(s + 1)) };
}

static inline float s_from_f16(const uint8_t *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p)))); }
static inline v16 v_half(const uint8_t *p) { __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((short)load_u16(p))); return (v16){ d, d }; }

static inline v16 v_from_bf16(const void *p)
{
	const __m128i *s = p;
	__m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(s)), b = _mm256_cvtepu16_epi32(_mm_loadu_si128(s + 1));
	return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)) };
}

static inline void v_to_f16(v16 v, void *p)
{
	__m128i *d = p;
	_mm_storeu_si128(d, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
	_mm_storeu_si128(d + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}

/* Round half to even on the bits; NaN keeps its top bits and turns quiet. */
static inline __m256i bf16_bits(__m256 f)
{
	__m256i u = _mm256_castps_si256(f), top = _mm256_srli_epi32(u, 16);
	__m256i even = _mm256_add_epi32(_mm256_and_si256(top, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
	__m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, even), 16);
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
	return _mm256_blendv_epi8(rounded, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
}

static inline void v_to_bf16(v16 v, void *p)
{
	/* packus works in lanes of 128 bits; the permutation puts the quarters back in order */
	__m256i packed = _mm256_packus_epi32(bf16_bits(v.a), bf16_bits(v.b));
	_mm256_storeu_si256(p, _mm256_permute4x64_epi64(packed, 0xd8));
}

static inline float sum4(__m128 v)
{
	v = _mm_add_ps(v, _mm_movehl_ps(v, v));
	return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}

static inline float v_sum(v16 v)
{
	__m256 s = _mm256_add_ps(v.a, v.b);
	return sum4(_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

#include "kernel/template.h"

static bool usable(void)
{
	return __builtin_cpu_supports("avx2"); /* asks the system too; no such machine lacks F16C */
}

const struct kernels kernels_avx2 = KERNEL_ROW("avx2", usable, avx2);
#endif
