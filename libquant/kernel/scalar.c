/* The portable row: vectors of the C compiler, no instructions named. It runs on every machine of the target. */
#include "kernel/rows.h"
#include "base/bytes.h"
#include "tensor/half.h"

/* Four lanes are what SSE2 and NEON have; the compiler lowers them to plain code where there is nothing. */
typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef struct { f4 p, q, r, s; } v16;

#define EACH(op) (v16){ op(p), op(q), op(r), op(s) }
#define ADD(k) a.k + b.k
#define SUB(k) a.k - b.k
#define MUL(k) a.k * b.k
#define DIV(k) a.k / b.k
#define MAX(k) (f4)(((a.k > b.k) & (i4)a.k) | (~(a.k > b.k) & (i4)b.k))
#define MIN(k) (f4)(((a.k < b.k) & (i4)a.k) | (~(a.k < b.k) & (i4)b.k))
static inline v16 v_load(const float *p) { v16 r; memcpy(&r, p, sizeof r); return r; }
static inline void v_store(float *p, v16 v) { memcpy(p, &v, sizeof v); }
static inline b16 b_load(const void *p) { b16 r; memcpy(&r, p, sizeof r); return r; }
static inline v16 v_set(float x) { f4 v = { x, x, x, x }; return (v16){ v, v, v, v }; }
static inline v16 v_add(v16 a, v16 b) { return EACH(ADD); }
static inline v16 v_sub(v16 a, v16 b) { return EACH(SUB); }
static inline v16 v_mul(v16 a, v16 b) { return EACH(MUL); }
static inline v16 v_div(v16 a, v16 b) { return EACH(DIV); }
static inline v16 v_max(v16 a, v16 b) { return EACH(MAX); }
static inline v16 v_min(v16 a, v16 b) { return EACH(MIN); }
static inline b16 b_and(b16 a, uint8_t m) { return a & m; }
static inline b16 b_or(b16 a, b16 b) { return a | b; }
static inline b16 b_add(b16 a, uint8_t x) { return a + x; }
static inline b16 b_shr(b16 a, int n) { return a >> (uint8_t)n; }
static inline b16 b_shl(b16 a, int n) { return a << (uint8_t)n; }

static inline b16 b_pair(uint64_t lo, uint64_t hi)
{
	uint8_t r[16];
	store_u64(r, lo);
	store_u64(r + 8, hi);
	return b_load(r);
}

static inline b16 b_zip(b16 a, b16 b, int from)
{
	b16 r = { 0 };
	for (int k = 0; k < 8; k++) {
		r[2 * k] = a[from + k];
		r[2 * k + 1] = b[from + k];
	}
	return r;
}

static inline b16 b_zip_lo(b16 a, b16 b) { return b_zip(a, b, 0); }
static inline b16 b_zip_hi(b16 a, b16 b) { return b_zip(a, b, 8); }

static inline b16 b_lookup(b16 table, b16 q)
{
	b16 r;
	for (int k = 0; k < 16; k++)
		r[k] = table[q[k]];
	return r;
}

static inline b16 b_bits(unsigned mask, uint8_t value)
{
	b16 r;
	for (int k = 0; k < 16; k++)
		r[k] = mask >> k & 1 ? value : 0;
	return r;
}

#define U8(i) (float)q[i]
#define S8(i) (float)(int8_t)q[i]
#define F16(i) f32_from_f16(load_u16(h + 2 * (i)))
#define BF16(i) f32_from_bf16(load_u16(h + 2 * (i)))
#define FOUR(op, i) { op(i), op(i + 1), op(i + 2), op(i + 3) }
#define SIXTEEN(op) (v16){ FOUR(op, 0), FOUR(op, 4), FOUR(op, 8), FOUR(op, 12) }
static inline v16 v_from_u8(b16 q) { return SIXTEEN(U8); }
static inline v16 v_from_s8(b16 q) { return SIXTEEN(S8); }
static inline v16 v_from_f16(const void *p) { const uint8_t *h = p; return SIXTEEN(F16); }
static inline float s_from_f16(const uint8_t *p) { return f32_from_f16(load_u16(p)); }
static inline v16 v_half(const uint8_t *p) { return v_set(s_from_f16(p)); }
static inline v16 v_from_bf16(const void *p) { const uint8_t *h = p; return SIXTEEN(BF16); }

static inline void v_to_f16(v16 v, void *p)
{
	float f[16];
	v_store(f, v);
	for (int i = 0; i < 16; i++)
		store_u16((uint8_t *)p + 2 * i, f16_from_f32(f[i]));
}

static inline void v_to_bf16(v16 v, void *p)
{
	float f[16];
	v_store(f, v);
	for (int i = 0; i < 16; i++)
		store_u16((uint8_t *)p + 2 * i, bf16_from_f32(f[i]));
}

static inline void pow2_halves(f4 n, f4 *p, f4 *q)
{
	typedef uint32_t u4 __attribute__((vector_size(16))); /* out-of-range values must wrap */
	u4 k = (u4)n - 0x4b400000u, half = (u4)((i4)k >> 1);
	*p = (f4)((half + 127u) << 23u);
	*q = (f4)((k - half + 127u) << 23u);
}

static inline void v_pow2_halves(v16 n, v16 *p, v16 *q)
{
	pow2_halves(n.p, &p->p, &q->p);
	pow2_halves(n.q, &p->q, &q->q);
	pow2_halves(n.r, &p->r, &q->r);
	pow2_halves(n.s, &p->s, &q->s);
}

static inline float v_sum(v16 v)
{
	f4 t = (v.p + v.r) + (v.q + v.s);
	return (t[0] + t[2]) + (t[1] + t[3]);
}

typedef struct { b16 p[4]; } c64;
typedef struct { int32_t v[16]; } n16;

static inline c64 c_halves(const void *p, const void *q)
{
	c64 c;
	memcpy(&c, p, 32);
	memcpy(&c.p[2], q, 32);
	return c;
}

#define C_EACH(op) (c64){ { op(0), op(1), op(2), op(3) } }
#define C_AND(k) c.p[k] & m
#define C_OR(k) a.p[k] | b.p[k]
#define C_SHL(k) c.p[k] << (uint8_t)n
#define C_SHR(k) c.p[k] >> (uint8_t)((k) < 2 ? m : n)
#define C_LOOKUP(k) b_lookup(table, c.p[k])
#define C_BITS(k) b_bits(((k) < 2 ? m : n) >> 16 * ((k) % 2), value)
static inline c64 c_load(const void *p) { return c_halves(p, (const uint8_t *)p + 32); }
static inline c64 c_nibbles(const void *p, const void *q) { b16 a = b_load(p), b = b_load(q); return (c64){ { a & 15, a >> 4, b & 15, b >> 4 } }; }
static inline c64 c_and(c64 c, uint8_t m) { return C_EACH(C_AND); }
static inline c64 c_or(c64 a, c64 b) { return C_EACH(C_OR); }
static inline c64 c_shl(c64 c, int n) { return C_EACH(C_SHL); }
static inline c64 c_shr(c64 c, int m, int n) { return C_EACH(C_SHR); }
static inline c64 c_lookup(b16 table, c64 c) { return C_EACH(C_LOOKUP); }
static inline c64 c_bits(uint32_t m, uint32_t n, uint8_t value) { return C_EACH(C_BITS); }

static inline n16 n_zero(void) { return (n16){ { 0 } }; }
static inline n16 n_load(const int32_t *p) { n16 n; memcpy(&n, p, sizeof n); return n; }

static inline n16 n_sub(n16 a, n16 b)
{
	for (int i = 0; i < 16; i++)
		a.v[i] -= b.v[i];
	return a;
}

static inline n16 n_shl(n16 a, int n)
{
	for (int i = 0; i < 16; i++)
		a.v[i] *= 1 << n;
	return a;
}

static inline n16 n_dot_signed(c64 w, c64 x)
{
	int8_t a[64], b[64];
	n16 n;
	memcpy(a, &w, sizeof a);
	memcpy(b, &x, sizeof b);
	for (int i = 0; i < 16; i++)
		n.v[i] = a[4 * i] * b[4 * i] + a[4 * i + 1] * b[4 * i + 1] + a[4 * i + 2] * b[4 * i + 2] + a[4 * i + 3] * b[4 * i + 3];
	return n;
}

static inline n16 n_scaled_signed(n16 n, c64 w, c64 x, const int16_t *s)
{
	n16 d = n_dot_signed(w, x);
	for (int i = 0; i < 16; i++)
		n.v[i] += d.v[i] * s[i / 4];
	return n;
}

static inline n16 n_dot(c64 u, c64 x) { return n_dot_signed(u, x); }
static inline n16 n_scaled(n16 n, c64 u, c64 x, const int16_t *s) { return n_scaled_signed(n, u, x, s); }

static inline n16 n_pairs(const int16_t *a, const int16_t *b)
{
	n16 n = n_zero();
	for (int i = 0; i < 8; i++)
		n.v[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
	return n;
}

static inline void h_widen(b16 q, int16_t *out)
{
	for (int i = 0; i < 16; i++)
		out[i] = (int8_t)q[i];
}

#define N32(i) (float)n.v[i]
static inline v16 v_from_n(n16 n) { return SIXTEEN(N32); }
static inline v16 v_pair(float a, float b) { v16 lo = v_set(a), hi = v_set(b); return (v16){ lo.p, lo.p, hi.p, hi.p }; }
static inline v16 v_halves(const uint8_t *p, const uint8_t *q) { return v_pair(s_from_f16(p), s_from_f16(q)); }

#include "kernel/template.h"

static bool always(void)
{
	return true;
}

const struct kernels kernels_scalar = KERNEL_ROW("scalar", always, base);
