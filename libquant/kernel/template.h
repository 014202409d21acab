/*
 * The kernels, written once over a vector of 16 floats and included by one
 * file per instruction set. There is no include guard on purpose.
 *
 * The including file defines, before including this:
 *
 *	v16              a type of 16 floats           b16   a type of 16 bytes
 *	v_load v_store   unaligned, 16 floats          b_load  unaligned, 16 bytes
 *	v_set(x) v_add v_sub v_mul v_div
 *	v_max(a, b)      a > b ? a : b                 v_min(a, b)  a < b ? a : b
 *	v_pow2_halves(n, &p, &q)  p = 2^(k >> 1), q = 2^(k - (k >> 1)), where
 *	                 k = bits(n) - bits(1.5 * 2^23) as integers
 *	b_and(a, mask) b_shr(a, count) b_shl(a, count) b_or(a, b) b_add(a, x)
 *	b_pair(lo, hi)   the bytes of two uint64_t, lowest first
 *	b_zip_lo(a, b) b_zip_hi(a, b)   a0 b0 a1 b1 ...: of the lower or the upper eight bytes of each
 *	b_lookup(table, q)   byte k is table[q[k]]; q < 16
 *	b_bits(mask, value)  byte k is value where bit k of mask is set, else 0
 *	v_from_u8(b16) v_from_s8(b16)
 *	v_from_f16(const void *) v_from_bf16(const void *)    s_from_f16(bytes) one float, v_half(bytes) sixteen times
 *	v_sum(v16)       halves added again and again: lane i takes lane i + 8, then i + 4, i + 2, i + 1
 *	v_to_f16(v16, void *) v_to_bf16(v16, void *)    16 elements each
 *
 * Every row does the same IEEE operations in the same order (multiply and add
 * apart, never fused), and sums keep 16 partial sums that are added pairwise
 * at the end, so that all rows give the same bits. Tails are padded to 16 with
 * a value that does not matter, again on every row.
 */
#include <string.h>

#include "base/bytes.h"
#include "kernel/grids.h"
#include "tensor/half.h"

#define ALWAYS static inline __attribute__((always_inline))

static v16 v_load_tail(const float *x, size_t n, float pad)
{
	float buf[16];
	for (size_t i = 0; i < 16; i++)
		buf[i] = i < n ? x[i] : pad;
	return v_load(buf);
}

static void v_store_tail(float *x, v16 v, size_t n)
{
	float buf[16];
	v_store(buf, v);
	memcpy(x, buf, n * sizeof *x);
}

static void k_f32_from_f16(const void *src, float *dst, size_t n)
{
	const uint8_t *s = src;
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_store(dst + i, v_from_f16(s + 2 * i));
	for (; i < n; i++)
		dst[i] = f32_from_f16(load_u16(s + 2 * i));
}

static void k_f32_from_bf16(const void *src, float *dst, size_t n)
{
	const uint8_t *s = src;
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_store(dst + i, v_from_bf16(s + 2 * i));
	for (; i < n; i++)
		dst[i] = f32_from_bf16(load_u16(s + 2 * i));
}

static void k_f16_from_f32(const float *src, void *dst, size_t n)
{
	uint8_t *d = dst;
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_to_f16(v_load(src + i), d + 2 * i);
	for (; i < n; i++)
		store_u16(d + 2 * i, f16_from_f32(src[i]));
}

static void k_bf16_from_f32(const float *src, void *dst, size_t n)
{
	uint8_t *d = dst;
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_to_bf16(v_load(src + i), d + 2 * i);
	for (; i < n; i++)
		store_u16(d + 2 * i, bf16_from_f32(src[i]));
}

static float k_dot(const float *a, const float *b, size_t n)
{
	v16 acc = v_set(0);
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		acc = v_add(acc, v_mul(v_load(a + i), v_load(b + i)));
	if (i < n)
		acc = v_add(acc, v_mul(v_load_tail(a + i, n - i, 0), v_load_tail(b + i, n - i, 0)));
	return v_sum(acc);
}

/* Weights in half precision; n from 16 to 16, the tail as in k_dot. */
ALWAYS float dot_halves(const uint8_t *s, const float *x, size_t n, bool brain)
{
	float buf[16];
	v16 acc = v_set(0);
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		acc = v_add(acc, v_mul(brain ? v_from_bf16(s + 2 * i) : v_from_f16(s + 2 * i), v_load(x + i)));
	if (i < n) {
		(brain ? k_f32_from_bf16 : k_f32_from_f16)(s + 2 * i, buf, n - i);
		acc = v_add(acc, v_mul(v_load_tail(buf, n - i, 0), v_load_tail(x + i, n - i, 0)));
	}
	return v_sum(acc);
}

static float k_dot_f16(const void *src, const float *x, size_t n)
{
	return dot_halves(src, x, n, false);
}

static float k_dot_bf16(const void *src, const float *x, size_t n)
{
	return dot_halves(src, x, n, true);
}

static float k_sum_squares(const float *x, size_t n)
{
	return k_dot(x, x, n);
}

static void k_axpy(float *y, float a, const float *x, size_t n)
{
	v16 f = v_set(a);
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_store(y + i, v_add(v_load(y + i), v_mul(f, v_load(x + i))));
	for (; i < n; i++)
		y[i] += a * x[i];
}

static float k_max(const float *x, size_t n)
{
	float s[16];
	v16 m = v_set(x[0]);
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		m = v_max(m, v_load(x + i));
	if (i < n)
		m = v_max(m, v_load_tail(x + i, n - i, x[0]));
	v_store(s, m);
	for (int w = 8; w; w /= 2)
		for (int k = 0; k < w; k++)
			s[k] = s[k] > s[k + w] ? s[k] : s[k + w];
	return s[0];
}

/*
 * exp(x) = 2^k exp(r), k = round(x / ln 2), |r| <= ln 2 / 2, the polynomial of
 * Cephes expf (Moshier). ln 2 is split in two so that k * LN2_HI is exact. 2^k
 * is applied in two halves, so that results may be subnormal or infinite. The
 * clamps keep k in range: beyond them the result is 0 or infinity anyway. They
 * hand NaN through.
 */
static inline v16 v_exp(v16 x)
{
	const float MAGIC = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
	v16 magic = v_set(MAGIC), p, q;
	x = v_min(v_set(89.0f), v_max(v_set(-104.0f), x));
	v16 n = v_add(v_mul(x, v_set(1.44269504088896341f)), magic);
	v_pow2_halves(n, &p, &q);
	n = v_sub(n, magic);
	v16 r = v_sub(v_sub(x, v_mul(n, v_set(0.693359375f))), v_mul(n, v_set(-2.12194440e-4f)));
	v16 y = v_set(1.9875691500e-4f);
	y = v_add(v_mul(y, r), v_set(1.3981999507e-3f));
	y = v_add(v_mul(y, r), v_set(8.3334519073e-3f));
	y = v_add(v_mul(y, r), v_set(4.1665795894e-2f));
	y = v_add(v_mul(y, r), v_set(1.6666665459e-1f));
	y = v_add(v_mul(y, r), v_set(5.0000001201e-1f));
	y = v_add(v_add(v_mul(y, v_mul(r, r)), r), v_set(1));
	return v_mul(v_mul(y, p), q);
}

static float k_exp_sum(float *x, float shift, size_t n)
{
	v16 s = v_set(shift), sum = v_set(0);
	size_t i = 0;
	for (; i + 16 <= n; i += 16) {
		v16 y = v_exp(v_sub(v_load(x + i), s));
		v_store(x + i, y);
		sum = v_add(sum, y);
	}
	if (i < n) {
		v_store_tail(x + i, v_exp(v_sub(v_load_tail(x + i, n - i, shift), s)), n - i);
		sum = v_add(sum, v_load_tail(x + i, n - i, 0));
	}
	return v_sum(sum);
}

static inline v16 v_silu_mul(v16 g, v16 u)
{
	v16 e = v_exp(v_sub(v_set(0), g));
	return v_mul(v_div(g, v_add(v_set(1), e)), u);
}

static void k_silu_mul(float *gate, const float *up, size_t n)
{
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		v_store(gate + i, v_silu_mul(v_load(gate + i), v_load(up + i)));
	if (i < n)
		v_store_tail(gate + i, v_silu_mul(v_load_tail(gate + i, n - i, 0), v_load_tail(up + i, n - i, 0)),
			     n - i);
}

/* Rounds half to even; the clamp comes first, so that the integer stays below 2^22. NaN becomes hi. */
static inline v16 v_code(v16 t, v16 lo, v16 hi)
{
	v16 magic = v_set(12582912.0f);
	return v_sub(v_add(v_max(v_min(t, hi), lo), magic), magic);
}

/* Weights of the last, short step: 0 past the end. */
static v16 v_weights_tail(const float *w, size_t from, size_t n)
{
	float buf[16];
	for (size_t i = 0; i < 16; i++)
		buf[i] = from + i < n ? (w ? w[from + i] : 1) : 0;
	return v_load(buf);
}

static void k_grid_scale(const float *x, const float *w, size_t n, const struct code_grid *g, float sums[3])
{
	v16 s = v_set(g->scale), inv = v_set(1 / g->scale), l = v_set(g->lo), h = v_set(g->hi), one = v_set(1);
	v16 err = v_set(0), xq = err, qq = err;
	for (size_t i = 0; i < n; i += 16) {
		bool tail = n - i < 16;
		v16 a = tail ? v_load_tail(x + i, n - i, 0) : v_load(x + i);
		v16 f = tail ? v_weights_tail(w, i, n) : w ? v_load(w + i) : one;
		v16 q = v_code(v_mul(a, inv), l, h), e = v_sub(a, v_mul(s, q)), fq = v_mul(f, q);
		err = v_add(err, v_mul(f, v_mul(e, e)));
		xq = v_add(xq, v_mul(fq, a));
		qq = v_add(qq, v_mul(fq, q));
	}
	sums[0] = v_sum(err);
	sums[1] = v_sum(xq);
	sums[2] = v_sum(qq);
}

#include "kernel/blocks.h"
#include "kernel/dots.h"

/* SEARCH: the suffix of the row's functions in search.h. */
#define KERNEL_ROW(NAME, USABLE, SEARCH) { \
	.name = NAME, .usable = USABLE, \
	.f32_from_f16 = k_f32_from_f16, .f32_from_bf16 = k_f32_from_bf16, \
	.f16_from_f32 = k_f16_from_f32, .bf16_from_f32 = k_bf16_from_f32, \
	.block = { KERNEL_ROUNDED(BLOCK_ENTRY) KERNEL_UNROUNDED(BLOCK_ENTRY_UNROUNDED) }, .codes_decode = k_codes_decode, .codes_dot = k_codes_dot, .lanes_sum = k_lanes_sum, \
	.round_32 = k_round_32, .round_256 = k_round_256, \
	.dot_f16 = k_dot_f16, .dot_bf16 = k_dot_bf16, \
	.dot = k_dot, .axpy = k_axpy, .sum_squares = k_sum_squares, .max = k_max, \
	.exp_sum = k_exp_sum, .silu_mul = k_silu_mul, .grid_scale = k_grid_scale, \
	.search_affine = search_affine_##SEARCH, .search_scaled = search_scaled_##SEARCH, \
	.search_table = search_table_##SEARCH, \
	.round_uniform = round_uniform_##SEARCH, .round_table = round_table_##SEARCH, \
	.extremes = extremes_##SEARCH, .round_away = round_away_##SEARCH, .round_down = round_down_##SEARCH, \
	.lattice_sums = lattice_sums_##SEARCH, .lattice_at = lattice_at_##SEARCH }
