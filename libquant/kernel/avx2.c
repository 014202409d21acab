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
static inline b16 b_add(b16 a, uint8_t x) { return _mm_add_epi8(a, _mm_set1_epi8((char)x)); }
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

typedef struct { __m256i a, b; } c64;
typedef struct { __m256i a, b; } n16;

static inline __m256i i_load(const void *p) { return _mm256_loadu_si256(p); }
static inline __m256i i_set(uint8_t x) { return _mm256_set1_epi8((char)x); }
static inline c64 c_halves(const void *p, const void *q) { return (c64){ i_load(p), i_load(q) }; }
static inline c64 c_load(const void *p) { return c_halves(p, (const uint8_t *)p + 32); }
static inline __m256i nibbles(b16 q) { return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), i_set(15)); }
static inline c64 c_nibbles(const void *p, const void *q) { return (c64){ nibbles(b_load(p)), nibbles(b_load(q)) }; }
static inline c64 c_and(c64 c, uint8_t m) { return (c64){ _mm256_and_si256(c.a, i_set(m)), _mm256_and_si256(c.b, i_set(m)) }; }
static inline c64 c_or(c64 a, c64 b) { return (c64){ _mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b) }; }
/* in 16 bits: what passes from one byte to the next is masked */
static inline c64 c_shr(c64 c, int m, int n) { return (c64){ _mm256_srl_epi16(c.a, _mm_cvtsi32_si128(m)), _mm256_srl_epi16(c.b, _mm_cvtsi32_si128(n)) }; }

static inline c64 c_shl(c64 c, int n)
{
	__m128i count = _mm_cvtsi32_si128(n);
	return c_and((c64){ _mm256_sll_epi16(c.a, count), _mm256_sll_epi16(c.b, count) }, (uint8_t)(0xff << n));
}

static inline c64 c_lookup(b16 table, c64 c)
{
	__m256i t = _mm256_set_m128i(table, table);
	return (c64){ _mm256_shuffle_epi8(t, c.a), _mm256_shuffle_epi8(t, c.b) };
}

static inline __m256i bits(uint32_t mask, uint8_t value)
{
	__m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201), bytes = _mm256_set1_epi32((int)mask);
	bytes = _mm256_shuffle_epi8(bytes, _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0));
	return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), i_set(value));
}

static inline c64 c_bits(uint32_t m, uint32_t n, uint8_t value) { return (c64){ bits(m, value), bits(n, value) }; }

static inline n16 n_zero(void) { return (n16){ _mm256_setzero_si256(), _mm256_setzero_si256() }; }
static inline n16 n_load(const int32_t *p) { return (n16){ i_load(p), i_load(p + 8) }; }
static inline n16 n_sub(n16 a, n16 b) { return (n16){ _mm256_sub_epi32(a.a, b.a), _mm256_sub_epi32(a.b, b.b) }; }
static inline n16 n_shl(n16 a, int n) { return (n16){ _mm256_slli_epi32(a.a, n), _mm256_slli_epi32(a.b, n) }; }

/* Products of two bytes each, added up in 16 bits: none beyond them, as u is below 128. */
static inline __m256i fours(__m256i u, __m256i x, __m256i scale) { return _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), scale); }
static inline __m256i fours_signed(__m256i w, __m256i x, __m256i scale) { return fours(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w), scale); }
static inline __m256i scales(const int16_t *s) { return _mm256_set_m128i(_mm_set1_epi16(s[1]), _mm_set1_epi16(s[0])); }

static inline n16 n_dot(c64 u, c64 x)
{
	__m256i one = _mm256_set1_epi16(1);
	return (n16){ fours(u.a, x.a, one), fours(u.b, x.b, one) };
}

static inline n16 n_dot_signed(c64 w, c64 x)
{
	__m256i one = _mm256_set1_epi16(1);
	return (n16){ fours_signed(w.a, x.a, one), fours_signed(w.b, x.b, one) };
}

static inline n16 n_scaled(n16 n, c64 u, c64 x, const int16_t *s)
{
	return (n16){ _mm256_add_epi32(n.a, fours(u.a, x.a, scales(s))), _mm256_add_epi32(n.b, fours(u.b, x.b, scales(s + 2))) };
}

static inline n16 n_scaled_signed(n16 n, c64 w, c64 x, const int16_t *s)
{
	return (n16){ _mm256_add_epi32(n.a, fours_signed(w.a, x.a, scales(s))), _mm256_add_epi32(n.b, fours_signed(w.b, x.b, scales(s + 2))) };
}

static inline n16 n_pairs(const int16_t *a, const int16_t *b) { return (n16){ _mm256_madd_epi16(i_load(a), i_load(b)), _mm256_setzero_si256() }; }
static inline void h_widen(b16 q, int16_t *out) { _mm256_storeu_si256((void *)out, _mm256_cvtepi8_epi16(q)); }
static inline v16 v_from_n(n16 n) { return (v16){ _mm256_cvtepi32_ps(n.a), _mm256_cvtepi32_ps(n.b) }; }
static inline v16 v_pair(float a, float b) { return (v16){ _mm256_set1_ps(a), _mm256_set1_ps(b) }; }
static inline v16 v_halves(const uint8_t *p, const uint8_t *q) { return (v16){ v_half(p).a, v_half(q).a }; }

#include "kernel/template.h"

static bool usable(void)
{
	return __builtin_cpu_supports("avx2"); /* asks the system too; no such machine lacks F16C */
}

const struct kernels kernels_avx2 = KERNEL_ROW("avx2", usable, avx2);
#endif
