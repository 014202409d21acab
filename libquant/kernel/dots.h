/*
 * Products of block formats with activations that were rounded to 8 bits, included by template.h: sums of a block are
 * integers, and so exact, whatever adds them up; what is done in floats is done in sixteen lanes, as everywhere. Lane i
 * has elements 4 i to 4 i + 3 of every 64.
 *
 * The including file defines, besides what template.h asks for (c64: 64 bytes; n16: sixteen int32):
 *
 *	c_load(p) c_halves(p, q)   64 bytes; 32 and 32
 *	c_nibbles(p, q)            16 bytes each: low nibbles of p, high ones of p, then those of q
 *	c_and(c, mask) c_or(a, b) c_shl(c, count) c_lookup(table, c)   as b_...
 *	c_shr(c, m, n)             the lower 32 bytes by m, the upper by n; what comes in at the top is masked by the caller
 *	c_bits(m, n, value)        value where the bit is set, of 32 bits each
 *	n_zero() n_load n_sub n_shl(n, count) v_from_n(n)
 *	n_dot(u, x)                sums of four products; u below 128, x signed, not -128
 *	n_dot_signed(w, x)         both signed
 *	n_scaled(n, u, x, s)       n + the same times s[k] for the 16 bytes k of 64; n_scaled_signed(n, w, x, s): |w| < 128
 *	n_pairs(a, b)              lane i < 8: a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] of int16_t, the others 0
 *	h_widen(q, out)            16 signed bytes to int16_t
 *	v_pair(a, b) v_halves(p, q)   lanes 0 to 7 and 8 to 15: of two floats, of two halves in memory
 */

/* What becomes of a code's bias: n > 0: codes stand for code - (1 << n). */
enum { SIGNED = -1, NO_BIAS = 0, MINIMA = -2 };

/* ---- rounding ---- */

ALWAYS v16 v_abs(v16 x) { return v_max(x, v_sub(v_set(0), x)); }

ALWAYS float v_largest(v16 v)
{
	float s[16];
	v_store(s, v);
	for (int w = 8; w; w /= 2)
		for (int k = 0; k < w; k++)
			s[k] = s[k] > s[k + w] ? s[k] : s[k + w];
	return s[0];
}

/* Sixteen of them, half to even; up to 127 either way, so that not a number is 127. */
ALWAYS void round_bytes(v16 x, int8_t *q)
{
	float f[16];
	v_store(f, v_code(x, v_set(-127), v_set(127)));
	for (int i = 0; i < 16; i++)
		q[i] = (int8_t)f[i];
}

ALWAYS float through_f16(float x)
{
	uint8_t h[2];
	store_u16(h, f16_from_f32(x));
	return s_from_f16(h);
}

static void k_round_32(const float *x, size_t n, struct rounded32 *out)
{
	for (size_t i = 0; i < n; i += 32) {
		struct rounded32 *o = out + i / 64;
		size_t half = i % 64 / 32;
		v16 a = v_load(x + i), b = v_load(x + i + 16);
		float top = v_largest(v_max(v_abs(a), v_abs(b))), d = top / 127, inverse = top != 0 ? 127 / top : 0, scale = through_f16(d);
		if (!half)
			memset(o, 0, sizeof *o);
		round_bytes(v_mul(a, v_set(inverse)), o->q + 32 * half);
		round_bytes(v_mul(b, v_set(inverse)), o->q + 32 * half + 16);
		int32_t sum = 0;
		for (size_t k = 8 * half; k < 8 * half + 8; k++) {
			o->four[k] = o->q[4 * k] + o->q[4 * k + 1] + o->q[4 * k + 2] + o->q[4 * k + 3];
			sum += o->four[k];
		}
		float eighth = through_f16(d * (float)sum) / 8;
		for (size_t k = 8 * half; k < 8 * half + 8; k++) {
			o->scale[k] = scale;
			o->sum[k] = eighth;
		}
	}
}

static void k_round_256(const float *x, size_t n, struct rounded256 *out)
{
	for (; n; n -= 256, x += 256, out++) {
		v16 most = v_abs(v_load(x));
		size_t at = 0;
		for (size_t i = 16; i < 256; i += 16)
			most = v_max(most, v_abs(v_load(x + i)));
		float top = v_largest(most);
		while (at < 255 && !(x[at] == top || x[at] == -top)) /* its sign counts: it becomes -127 */
			at++;
		float inverse = top != 0 ? -127 / x[at] : 0;
		out->scale = top != 0 ? 1 / inverse : 0;
		for (size_t i = 0; i < 256; i += 16) {
			int sum = 0;
			round_bytes(v_mul(v_load(x + i), v_set(inverse)), out->q + i);
			for (size_t k = i; k < i + 16; k++)
				sum += out->q[k];
			out->sum[i / 16] = (int16_t)sum;
		}
	}
}

/* ---- blocks of 32, two at a time ---- */

struct pair {
	c64 q;
	v16 d, m;
};

ALWAYS struct pair pair_q8_0(const uint8_t *s)
{
	return (struct pair){ .q = c_halves(s + 2, s + 36), .d = v_halves(s, s + 34) };
}

ALWAYS struct pair pair_q4_0(const uint8_t *s)
{
	return (struct pair){ .q = c_nibbles(s + 2, s + 20), .d = v_halves(s, s + 18) };
}

ALWAYS struct pair pair_q4_1(const uint8_t *s)
{
	return (struct pair){ c_nibbles(s + 4, s + 24), v_halves(s, s + 20), v_halves(s + 2, s + 22) };
}

ALWAYS struct pair pair_q5_0(const uint8_t *s)
{
	c64 q = c_or(c_nibbles(s + 6, s + 28), c_bits(load_u32(s + 2), load_u32(s + 24), 16));
	return (struct pair){ .q = q, .d = v_halves(s, s + 22) };
}

ALWAYS struct pair pair_q5_1(const uint8_t *s)
{
	c64 q = c_or(c_nibbles(s + 8, s + 32), c_bits(load_u32(s + 4), load_u32(s + 28), 16));
	return (struct pair){ q, v_halves(s, s + 24), v_halves(s + 2, s + 26) };
}

ALWAYS struct pair pair_iq4_nl(const uint8_t *s)
{
	return (struct pair){ .q = c_lookup(b_load(iq4_table), c_nibbles(s + 2, s + 20)), .d = v_halves(s, s + 18) };
}

ALWAYS struct pair pair_mxfp4(const uint8_t *s)
{
	c64 q = c_lookup(b_load(mxfp4_table), c_nibbles(s + 1, s + 18));
	return (struct pair){ .q = q, .d = v_pair(mxfp4_unit(s[0]), mxfp4_unit(s[17])) };
}

ALWAYS v16 add_pair(v16 sum, const struct pair *k, const struct rounded32 *x, int how)
{
	c64 q = c_load(x->q);
	n16 n = how == SIGNED ? n_dot_signed(k->q, q) : n_dot(k->q, q);
	if (how > 0)
		n = n_sub(n, n_shl(n_load(x->four), how));
	sum = v_add(sum, v_mul(v_mul(k->d, v_load(x->scale)), v_from_n(n)));
	return how == MINIMA ? v_add(sum, v_mul(k->m, v_load(x->sum))) : sum;
}

/* ---- blocks of 256 ---- */

/* Sixteen scales and, with MINIMA, minima; what they are multiples of. */
struct super {
	int16_t sc[16], mn[16];
	v16 d, m;
};

ALWAYS b16 b_doubled(uint64_t x) { b16 b = b_pair(x, 0); return b_zip_lo(b, b); }
ALWAYS c64 c_twice(const uint8_t *p) { return c_halves(p, p); }

/* The twelve bytes that Q4_K and Q5_K share, as in k_scales; each scale is that of 32 elements. */
ALWAYS struct super super_scaled(const uint8_t *s)
{
	const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x03030303;
	uint32_t a = load_u32(s + 4), b = load_u32(s + 8), c = load_u32(s + 12);
	struct super k = { .d = v_half(s), .m = v_half(s + 2) };
	h_widen(b_doubled((a & six) | (uint64_t)((c & four) | (a >> 6 & two) << 4) << 32), k.sc);
	h_widen(b_doubled((b & six) | (uint64_t)((c >> 4 & four) | (b >> 6 & two) << 4) << 32), k.mn);
	return k;
}

ALWAYS struct super super_q4_k(const uint8_t *s) { return super_scaled(s); }
ALWAYS struct super super_q5_k(const uint8_t *s) { return super_scaled(s); }

ALWAYS struct super super_q2_k(const uint8_t *s)
{
	struct super k = { .d = v_half(s + 80), .m = v_half(s + 82) };
	b16 q = b_load(s);
	h_widen(b_low(q), k.sc);
	h_widen(b_high(q), k.mn);
	return k;
}

ALWAYS struct super super_q3_k(const uint8_t *s)
{
	const uint64_t four = 0x0f0f0f0f0f0f0f0f;
	const uint32_t two = 0x03030303;
	uint64_t low = load_u64(s + 96);
	uint32_t h = load_u32(s + 104);
	struct super k = { .d = v_half(s + 108) };
	uint64_t a = (low & four) | (uint64_t)(h & two) << 4 | (uint64_t)(h >> 2 & two) << 36;
	uint64_t b = (low >> 4 & four) | (uint64_t)(h >> 4 & two) << 4 | (uint64_t)(h >> 6 & two) << 36;
	h_widen(b_add(b_pair(a, b), (uint8_t)-32), k.sc);
	return k;
}

ALWAYS struct super super_q6_k(const uint8_t *s)
{
	struct super k = { .d = v_half(s + 208) };
	h_widen(b_load(s + 192), k.sc);
	return k;
}

ALWAYS struct super super_iq4_xs(const uint8_t *s)
{
	struct super k = { .d = v_half(s) };
	h_widen(b_add(b_doubled(spread(load_u32(s + 4), 4) | spread(load_u16(s + 2), 2) << 4), (uint8_t)-32), k.sc);
	return k;
}

/* Elements 64 j to 64 j + 63. */
ALWAYS c64 codes_q2_k(const uint8_t *s, int j)
{
	return c_and(c_shr(c_twice(s + 16 + j / 2 * 32), j % 2 * 4, j % 2 * 4 + 2), 3);
}

ALWAYS c64 codes_q3_k(const uint8_t *s, int j)
{
	c64 q = c_and(c_shr(c_twice(s + 32 + j / 2 * 32), j % 2 * 4, j % 2 * 4 + 2), 3);
	return c_or(q, c_shl(c_and(c_shr(c_twice(s), 2 * j, 2 * j + 1), 1), 2));
}

ALWAYS c64 codes_q4_k(const uint8_t *s, int j)
{
	return c_and(c_shr(c_twice(s + 16 + 32 * j), 0, 4), 15);
}

ALWAYS c64 codes_q5_k(const uint8_t *s, int j)
{
	c64 fifth = c_and(c_shr(c_twice(s + 16), 2 * j, 2 * j + 1), 1);
	return c_or(c_and(c_shr(c_twice(s + 48 + 32 * j), 0, 4), 15), c_shl(fifth, 4));
}

ALWAYS c64 codes_q6_k(const uint8_t *s, int j)
{
	c64 l = c_load(s + j / 2 * 64), h = c_twice(s + 128 + j / 2 * 32);
	l = c_and(c_shr(l, j % 2 * 4, j % 2 * 4), 15);
	return c_or(l, c_shl(c_and(c_shr(h, j % 2 * 4, j % 2 * 4 + 2), 3), 4));
}

ALWAYS c64 codes_iq4_xs(const uint8_t *s, int j)
{
	return c_lookup(b_load(iq4_table), c_nibbles(s + 8 + 32 * j, s + 24 + 32 * j));
}

ALWAYS v16 add_super(v16 sum, const struct super *k, const c64 q[4], const struct rounded256 *x, int how)
{
	n16 n = n_zero();
	UNROLL(4)
	for (int j = 0; j < 4; j++) {
		c64 a = c_load(x->q + 64 * j);
		n = how == SIGNED ? n_scaled_signed(n, q[j], a, k->sc + 4 * j) : n_scaled(n, q[j], a, k->sc + 4 * j);
	}
	if (how > 0)
		n = n_sub(n, n_shl(n_pairs(k->sc, x->sum), how));
	v16 part = v_mul(v_mul(k->d, v_set(x->scale)), v_from_n(n));
	if (how == MINIMA)
		part = v_sub(part, v_mul(v_mul(k->m, v_set(x->scale)), v_from_n(n_pairs(k->mn, x->sum))));
	return v_add(sum, part);
}

/* ---- products ---- */

/* One block of 256, or two of 32, of a row with those of `tokens` tokens. */
#define STEP_32(NAME, BYTES, HOW) \
	ALWAYS void step_##NAME(const uint8_t *s, const struct rounded32 *x, size_t line, size_t tokens, v16 *sum) \
	{ \
		struct pair k = pair_##NAME(s); \
		UNROLL(4) \
		for (size_t t = 0; t < tokens; t++) \
			sum[t] = add_pair(sum[t], &k, x + t * line, HOW); \
	}
#define STEP_256(NAME, BYTES, HOW) \
	ALWAYS void step_##NAME(const uint8_t *s, const struct rounded256 *x, size_t line, size_t tokens, v16 *sum) \
	{ \
		struct super k = super_##NAME(s); \
		const c64 q[4] = { codes_##NAME(s, 0), codes_##NAME(s, 1), codes_##NAME(s, 2), codes_##NAME(s, 3) }; \
		UNROLL(4) \
		for (size_t t = 0; t < tokens; t++) \
			sum[t] = add_super(sum[t], &k, q, x + t * line, HOW); \
	}
/* The second block of a pair may be missing: it is one of zeroes. */
#define LAST_32(NAME, BYTES) \
	if (i < n) { \
		uint8_t last[2 * BYTES] = { 0 }; \
		memcpy(last, s + j * stride + at, BYTES); \
		step_##NAME(last, x + i / 64, line, tokens, sum + j * tokens); \
	}
#define LAST_256(NAME, BYTES)

/* `rows` rows by `tokens` tokens, one of which is 1 and the other 1 or 4. */
#define PRODUCT(NAME, BLOCK, BYTES, HOW, WIDTH) \
	STEP_##BLOCK(NAME, BYTES, HOW) \
	ALWAYS void tile_##NAME(const struct rounded_product *p, size_t r, size_t t, size_t rows, size_t tokens) \
	{ \
		size_t n = p->n, stride = n / BLOCK * BYTES, line = (n + WIDTH - 1) / WIDTH, i = 0, at = 0; \
		const uint8_t *s = p->src + r * stride; \
		const struct rounded##BLOCK *x = (const struct rounded##BLOCK *)p->x + t * line; \
		v16 sum[4] = { v_set(0), v_set(0), v_set(0), v_set(0) }; \
		for (; i + WIDTH <= n; i += WIDTH, at += WIDTH / BLOCK * BYTES) \
			UNROLL(4) \
			for (size_t j = 0; j < rows; j++) \
				step_##NAME(s + j * stride + at, x + i / WIDTH, line, tokens, sum + j * tokens); \
		UNROLL(4) \
		for (size_t j = 0; j < rows; j++) { \
			LAST_##BLOCK(NAME, BYTES) \
			UNROLL(4) \
			for (size_t u = 0; u < tokens; u++) \
				p->y[(t + u) * p->stride + r + j] = v_sum(sum[j * tokens + u]); \
		} \
	} \
	static void k_product_##NAME(const struct rounded_product *p) \
	{ \
		size_t t = 0; \
		for (; t + 4 <= p->tokens; t += 4) \
			for (size_t r = 0; r < p->rows; r++) \
				tile_##NAME(p, r, t, 1, 4); \
		for (; t < p->tokens; t++) { \
			size_t r = 0; \
			for (; r + 4 <= p->rows; r += 4) \
				tile_##NAME(p, r, t, 4, 1); \
			for (; r < p->rows; r++) \
				tile_##NAME(p, r, t, 1, 1); \
		} \
	}
PRODUCT(q8_0, 32, 34, SIGNED, 64)
PRODUCT(q4_0, 32, 18, 3, 64)
PRODUCT(q4_1, 32, 20, MINIMA, 64)
PRODUCT(q5_0, 32, 22, 4, 64)
PRODUCT(q5_1, 32, 24, MINIMA, 64)
PRODUCT(iq4_nl, 32, 18, SIGNED, 64)
PRODUCT(mxfp4, 32, 17, SIGNED, 64)
PRODUCT(q2_k, 256, 84, MINIMA, 256)
PRODUCT(q3_k, 256, 110, 2, 256)
PRODUCT(q4_k, 256, 144, MINIMA, 256)
PRODUCT(q5_k, 256, 176, MINIMA, 256)
PRODUCT(q6_k, 256, 210, 5, 256)
PRODUCT(iq4_xs, 256, 136, SIGNED, 256)
