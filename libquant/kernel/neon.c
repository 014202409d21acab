/* NEON on 64-bit Arm. No fused multiply-add: it would round differently from the other rows. */
#include "base/bytes.h"
#include "kernel/rows.h"

#ifdef __aarch64__
#include <arm_neon.h>

typedef struct { float32x4_t p[4]; } v16;
typedef uint8x16_t b16;

#define EACH(expression) (v16){ { expression(0), expression(1), expression(2), expression(3) } }

static inline v16 v_load(const float *s) { return (v16){ { vld1q_f32(s), vld1q_f32(s + 4), vld1q_f32(s + 8), vld1q_f32(s + 12) } }; }

static inline void v_store(float *d, v16 v)
{
	vst1q_f32(d, v.p[0]);
	vst1q_f32(d + 4, v.p[1]);
	vst1q_f32(d + 8, v.p[2]);
	vst1q_f32(d + 12, v.p[3]);
}

static inline v16 v_set(float x) { float32x4_t s = vdupq_n_f32(x); return (v16){ { s, s, s, s } }; }
#define ADD(i) vaddq_f32(x.p[i], y.p[i])
#define SUB(i) vsubq_f32(x.p[i], y.p[i])
#define MUL(i) vmulq_f32(x.p[i], y.p[i])
#define DIV(i) vdivq_f32(x.p[i], y.p[i])
/* not vmaxq: that one treats NaN differently from a comparison */
#define MAX(i) vbslq_f32(vcgtq_f32(x.p[i], y.p[i]), x.p[i], y.p[i])
#define MIN(i) vbslq_f32(vcltq_f32(x.p[i], y.p[i]), x.p[i], y.p[i])
static inline v16 v_add(v16 x, v16 y) { return EACH(ADD); }
static inline v16 v_sub(v16 x, v16 y) { return EACH(SUB); }
static inline v16 v_mul(v16 x, v16 y) { return EACH(MUL); }
static inline v16 v_div(v16 x, v16 y) { return EACH(DIV); }
static inline v16 v_max(v16 x, v16 y) { return EACH(MAX); }
static inline v16 v_min(v16 x, v16 y) { return EACH(MIN); }
static inline b16 b_load(const void *s) { return vld1q_u8(s); }
static inline b16 b_and(b16 a, uint8_t m) { return vandq_u8(a, vdupq_n_u8(m)); }
static inline b16 b_or(b16 a, b16 b) { return vorrq_u8(a, b); }
static inline b16 b_add(b16 a, uint8_t x) { return vaddq_u8(a, vdupq_n_u8(x)); }
static inline b16 b_shr(b16 a, int n) { return vshlq_u8(a, vdupq_n_s8((int8_t)-n)); }
static inline b16 b_shl(b16 a, int n) { return vshlq_u8(a, vdupq_n_s8((int8_t)n)); }
static inline b16 b_pair(uint64_t lo, uint64_t hi) { return vcombine_u8(vcreate_u8(lo), vcreate_u8(hi)); }
static inline b16 b_zip_lo(b16 a, b16 b) { return vzip1q_u8(a, b); }
static inline b16 b_zip_hi(b16 a, b16 b) { return vzip2q_u8(a, b); }
static inline b16 b_lookup(b16 table, b16 q) { return vqtbl1q_u8(table, q); }

static inline b16 b_bits(unsigned mask, uint8_t value)
{
	b16 bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
	b16 bytes = vcombine_u8(vdup_n_u8((uint8_t)mask), vdup_n_u8((uint8_t)(mask >> 8)));
	return b_and(vtstq_u8(bytes, bit), value);
}

static inline v16 v_from_u8(b16 q)
{
	uint16x8_t lo = vmovl_u8(vget_low_u8(q)), hi = vmovl_u8(vget_high_u8(q));
	return (v16){ { vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
			vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi))) } };
}

static inline v16 v_from_s8(b16 u)
{
	int8x16_t q = vreinterpretq_s8_u8(u);
	int16x8_t lo = vmovl_s8(vget_low_s8(q)), hi = vmovl_s8(vget_high_s8(q));
	return (v16){ { vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
			vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi))) } };
}

static inline void v_pow2_halves(v16 n, v16 *p, v16 *q)
{
	int32x4_t bias = vdupq_n_s32(127);
	for (int i = 0; i < 4; i++) {
		int32x4_t k = vsubq_s32(vreinterpretq_s32_f32(n.p[i]), vdupq_n_s32(0x4b400000));
		int32x4_t half = vshrq_n_s32(k, 1);
		p->p[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
		q->p[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(k, half), bias), 23));
	}
}

static inline uint16x4_t load_u16x4(const void *s, int i) { return vreinterpret_u16_u8(vld1_u8((const uint8_t *)s + 8 * i)); }
#define FROM_F16(i) vcvt_f32_f16(vreinterpret_f16_u16(load_u16x4(s, i)))
#define FROM_BF16(i) vreinterpretq_f32_u32(vshll_n_u16(load_u16x4(s, i), 16))
static inline v16 v_from_f16(const void *s) { return EACH(FROM_F16); }
static inline float s_from_f16(const uint8_t *s) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(load_u16(s)))), 0); }
static inline v16 v_half(const uint8_t *p) { return v_set(s_from_f16(p)); }
static inline v16 v_from_bf16(const void *s) { return EACH(FROM_BF16); }

static inline void v_to_f16(v16 v, void *d)
{
	for (int i = 0; i < 4; i++)
		vst1_u8((uint8_t *)d + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(v.p[i])));
}

/* Round half to even on the bits; NaN keeps its top bits and turns quiet. */
static inline void v_to_bf16(v16 v, void *d)
{
	for (int i = 0; i < 4; i++) {
		uint32x4_t u = vreinterpretq_u32_f32(v.p[i]), top = vshrq_n_u32(u, 16);
		uint32x4_t even = vaddq_u32(vandq_u32(top, vdupq_n_u32(1)), vdupq_n_u32(0x7fff));
		uint32x4_t rounded = vshrq_n_u32(vaddq_u32(u, even), 16);
		uint32x4_t same = vceqq_f32(v.p[i], v.p[i]);
		rounded = vbslq_u32(same, rounded, vorrq_u32(top, vdupq_n_u32(0x40)));
		vst1_u8((uint8_t *)d + 8 * i, vreinterpret_u8_u16(vmovn_u32(rounded)));
	}
}

static inline float v_sum(v16 v)
{
	float32x4_t s = vaddq_f32(vaddq_f32(v.p[0], v.p[2]), vaddq_f32(v.p[1], v.p[3]));
	float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
	return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}

typedef struct { uint8x16_t p[4]; } c64;
typedef struct { int32x4_t p[4]; } n16;

#define C_EACH(op) (c64){ { op(0), op(1), op(2), op(3) } }
#define N_EACH(op) (n16){ { op(0), op(1), op(2), op(3) } }
#define C_HALVES(i) vld1q_u8((const uint8_t *)((i) < 2 ? p : q) + 16 * ((i) % 2))
#define C_AND(i) b_and(c.p[i], m)
#define C_OR(i) vorrq_u8(a.p[i], b.p[i])
#define C_SHL(i) b_shl(c.p[i], n)
#define C_SHR(i) b_shr(c.p[i], (i) < 2 ? m : n)
#define C_LOOKUP(i) vqtbl1q_u8(table, c.p[i])
#define C_BITS(i) b_bits(((i) < 2 ? m : n) >> 16 * ((i) % 2), value)
static inline c64 c_halves(const void *p, const void *q) { return C_EACH(C_HALVES); }
static inline c64 c_load(const void *p) { return c_halves(p, (const uint8_t *)p + 32); }
static inline c64 c_nibbles(const void *p, const void *q) { b16 a = b_load(p), b = b_load(q); return (c64){ { b_and(a, 15), vshrq_n_u8(a, 4), b_and(b, 15), vshrq_n_u8(b, 4) } }; }
static inline c64 c_and(c64 c, uint8_t m) { return C_EACH(C_AND); }
static inline c64 c_or(c64 a, c64 b) { return C_EACH(C_OR); }
static inline c64 c_shl(c64 c, int n) { return C_EACH(C_SHL); }
static inline c64 c_shr(c64 c, int m, int n) { return C_EACH(C_SHR); }
static inline c64 c_lookup(b16 table, c64 c) { return C_EACH(C_LOOKUP); }
static inline c64 c_bits(uint32_t m, uint32_t n, uint8_t value) { return C_EACH(C_BITS); }

/* Sums of four products of signed bytes. */
static inline int32x4_t fours(uint8x16_t u, uint8x16_t v)
{
	int8x16_t a = vreinterpretq_s8_u8(u), b = vreinterpretq_s8_u8(v);
	return vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), vpaddlq_s16(vmull_high_s8(a, b)));
}

static inline int32x4_t few(const int16_t *a, const int16_t *b)
{
	int16x8_t x = vld1q_s16(a), y = vld1q_s16(b);
	return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}

#define N_ZERO(i) vdupq_n_s32(0)
#define N_LOAD(i) vld1q_s32(p + 4 * (i))
#define N_SUB(i) vsubq_s32(a.p[i], b.p[i])
#define N_SHL(i) vshlq_s32(a.p[i], vdupq_n_s32(n))
#define N_DOT(i) fours(w.p[i], x.p[i])
#define N_SCALED(i) vmlaq_n_s32(n.p[i], fours(w.p[i], x.p[i]), s[i])
#define V_FROM_N(i) vcvtq_f32_s32(n.p[i])
static inline n16 n_zero(void) { return N_EACH(N_ZERO); }
static inline n16 n_load(const int32_t *p) { return N_EACH(N_LOAD); }
static inline n16 n_sub(n16 a, n16 b) { return N_EACH(N_SUB); }
static inline n16 n_shl(n16 a, int n) { return N_EACH(N_SHL); }
static inline n16 n_dot_signed(c64 w, c64 x) { return N_EACH(N_DOT); }
static inline n16 n_dot(c64 u, c64 x) { return n_dot_signed(u, x); }
static inline n16 n_scaled_signed(n16 n, c64 w, c64 x, const int16_t *s) { return N_EACH(N_SCALED); }
static inline n16 n_scaled(n16 n, c64 u, c64 x, const int16_t *s) { return n_scaled_signed(n, u, x, s); }
static inline n16 n_pairs(const int16_t *a, const int16_t *b) { return (n16){ { few(a, b), few(a + 8, b + 8), vdupq_n_s32(0), vdupq_n_s32(0) } }; }
static inline v16 v_from_n(n16 n) { return EACH(V_FROM_N); }
static inline v16 v_pair(float a, float b) { float32x4_t lo = vdupq_n_f32(a), hi = vdupq_n_f32(b); return (v16){ { lo, lo, hi, hi } }; }
static inline v16 v_halves(const uint8_t *p, const uint8_t *q) { return v_pair(s_from_f16(p), s_from_f16(q)); }

static inline void h_widen(b16 u, int16_t *out)
{
	int8x16_t q = vreinterpretq_s8_u8(u);
	vst1q_s16(out, vmovl_s8(vget_low_s8(q)));
	vst1q_s16(out + 8, vmovl_high_s8(q));
}

#include "kernel/template.h"

static bool usable(void)
{
	return true; /* part of the base of the architecture */
}

const struct kernels kernels_neon = KERNEL_ROW("neon", usable, base);
#endif
