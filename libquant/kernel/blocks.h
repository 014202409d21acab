/*
 * Block formats, included by template.h: the values of a block are computed in
 * one place, in the order of its elements, sixteen at a time; decoding stores
 * them and a dot product multiplies them. So a dot product with a stored row has the
 * bits of decoding and k_dot, without the trip through memory.
 *
 * The values are codec/'s: value = scale * level + offset with scale and offset
 * computed as its unpack functions do. The pictures of the blocks are there.
 */

/* Where a block's values go. dot and decode are told apart when it is compiled. */
struct sink {
	float *dst;
	const float *x;
	v16 sum;
};

/* shifts by constants: a third of the time of shifts by a count */
#define PRAGMA(TEXT) _Pragma(#TEXT)
#define UNROLL(N) PRAGMA(GCC unroll N)

ALWAYS void put(struct sink *k, bool dot, size_t i, v16 v)
{
	if (dot)
		k->sum = v_add(k->sum, v_mul(v, v_load(k->x + i)));
	else
		v_store(k->dst + i, v);
}

ALWAYS b16 b_low(b16 q) { return b_and(q, 15); }
ALWAYS b16 b_high(b16 q) { return b_and(b_shr(q, 4), 15); }

/* The lowest eight fields of `bits` bits, a byte each: halves moved apart until every field has its byte. */
ALWAYS uint64_t spread(uint64_t x, int bits)
{
	uint64_t four = ((uint64_t)1 << 4 * bits) - 1, two = (((uint64_t)1 << 2 * bits) - 1) * 0x0000000100000001u;
	uint64_t one = (((uint64_t)1 << bits) - 1) * 0x0001000100010001u;
	x = (x & four) | (x >> 4 * bits & four) << 32;
	x = (x & two) | (x >> 2 * bits & two) << 16;
	return (x & one) | (x >> bits & one) << 8;
}

/* Sixteen codes from 2 bits bytes; nothing beyond them is read. */
ALWAYS b16 b_codes(const uint8_t *s, int bits)
{
	uint64_t x;
	if (bits == 8)
		return b_load(s);
	x = load_u32(s);
	if (bits == 4)
		return b_pair(spread(x, 4), spread(load_u32(s + 4), 4));
	if (bits == 3)
		x |= (uint64_t)load_u16(s + 4) << 32;
	return b_pair(spread(x, bits), spread(x >> 8 * bits, bits));
}

ALWAYS void block_q8_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s);
	put(k, dot, i, v_mul(d, v_from_s8(b_load(s + 2))));
	put(k, dot, i + 16, v_mul(d, v_from_s8(b_load(s + 18))));
}

ALWAYS void block_q4_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 bias = v_set(8);
	v16 d = v_half(s);
	b16 q = b_load(s + 2);
	put(k, dot, i, v_mul(d, v_sub(v_from_u8(b_low(q)), bias)));
	put(k, dot, i + 16, v_mul(d, v_sub(v_from_u8(b_high(q)), bias)));
}

ALWAYS void block_q4_1(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s), m = v_half(s + 2);
	b16 q = b_load(s + 4);
	put(k, dot, i, v_add(v_mul(d, v_from_u8(b_low(q))), m));
	put(k, dot, i + 16, v_add(v_mul(d, v_from_u8(b_high(q))), m));
}

ALWAYS void block_q5_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 bias = v_set(16);
	v16 d = v_half(s);
	b16 q = b_load(s + 6);
	put(k, dot, i, v_mul(d, v_sub(v_from_u8(b_or(b_low(q), b_bits(load_u16(s + 2), 16))), bias)));
	put(k, dot, i + 16, v_mul(d, v_sub(v_from_u8(b_or(b_high(q), b_bits(load_u16(s + 4), 16))), bias)));
}

ALWAYS void block_q5_1(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s), m = v_half(s + 2);
	b16 q = b_load(s + 8);
	put(k, dot, i, v_add(v_mul(d, v_from_u8(b_or(b_low(q), b_bits(load_u16(s + 4), 16)))), m));
	put(k, dot, i + 16, v_add(v_mul(d, v_from_u8(b_or(b_high(q), b_bits(load_u16(s + 6), 16)))), m));
}

ALWAYS void block_q2_k(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s + 80), dmin = s_from_f16(s + 82);
	UNROLL(16)
	for (int j = 0; j < 16; j++) {
		b16 q = b_load(s + 16 + 32 * (j / 8) + 16 * (j % 2));
		v16 scale = v_set(d * (float)(s[j] & 15)), m = v_set(dmin * (float)(s[j] >> 4));
		put(k, dot, i + 16 * (size_t)j, v_sub(v_mul(scale, v_from_u8(b_and(b_shr(q, j % 8 / 2 * 2), 3))), m));
	}
}

ALWAYS void block_q3_k(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 bias = v_set(4);
	const uint8_t *sc = s + 96;
	float d = s_from_f16(s + 108);
	UNROLL(16)
	for (int j = 0; j < 16; j++) {
		b16 q = b_load(s + 32 + 32 * (j / 8) + 16 * (j % 2)), h = b_load(s + 16 * (j % 2));
		int scale = (sc[j % 8] >> (j / 8 * 4) & 15) | (sc[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
		q = b_or(b_and(b_shr(q, j % 8 / 2 * 2), 3), b_shl(b_and(b_shr(h, j / 2), 1), 2));
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(scale - 32)), v_sub(v_from_u8(q), bias)));
	}
}

/* The twelve bytes of six-bit scales and minima that Q4_K and Q5_K share. */
ALWAYS void k_scales(const uint8_t s[12], uint8_t sc[8], uint8_t mn[8])
{
	for (int k = 0; k < 4; k++) {
		sc[k] = s[k] & 63;
		mn[k] = s[4 + k] & 63;
		sc[4 + k] = (uint8_t)((s[8 + k] & 15) | s[k] >> 6 << 4);
		mn[4 + k] = (uint8_t)(s[8 + k] >> 4 | s[4 + k] >> 6 << 4);
	}
}

/* Q4_K; and Q5_K, whose fifth bits stand in front of the nibbles. */
ALWAYS void put_scaled(const uint8_t *s, size_t i, struct sink *k, bool dot, bool fifth)
{
	const uint8_t *low = s + (fifth ? 48 : 16);
	float d = s_from_f16(s), dmin = s_from_f16(s + 2);
	uint8_t sc[8], mn[8];
	k_scales(s + 4, sc, mn);
	UNROLL(8)
	for (int j = 0; j < 8; j++) {
		v16 scale = v_set(d * (float)sc[j]), m = v_set(dmin * (float)mn[j]);
		for (int t = 0; t < 2; t++) {
			b16 q = b_load(low + 32 * (j / 2) + 16 * t);
			q = j % 2 ? b_high(q) : b_low(q);
			if (fifth)
				q = b_or(q, b_shl(b_and(b_shr(b_load(s + 16 + 16 * t), j), 1), 4));
			put(k, dot, i + (size_t)(32 * j + 16 * t), v_sub(v_mul(scale, v_from_u8(q)), m));
		}
	}
}

ALWAYS void block_q4_k(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	put_scaled(s, i, k, dot, false);
}

ALWAYS void block_q5_k(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	put_scaled(s, i, k, dot, true);
}

ALWAYS void block_q6_k(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 bias = v_set(32);
	float d = s_from_f16(s + 208);
	UNROLL(16)
	for (int j = 0; j < 16; j++) { /* quarter t of half j / 8 takes nibble t / 2 of its ql and bits 2 t of its qh */
		int t = j % 8 / 2;
		b16 l = b_load(s + 64 * (j / 8) + 32 * (t % 2) + 16 * (j % 2)), h = b_load(s + 128 + 32 * (j / 8) + 16 * (j % 2));
		b16 q = b_or(t / 2 ? b_high(l) : b_low(l), b_shl(b_and(b_shr(h, 2 * t), 3), 4));
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(int8_t)s[192 + j]), v_sub(v_from_u8(q), bias)));
	}
}

static const int8_t iq4_table[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t mxfp4_table[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* Sixteen bytes of nibbles, low ones first, through a table. */
ALWAYS void put_table(struct sink *k, bool dot, size_t i, v16 scale, b16 table, const uint8_t *s)
{
	b16 q = b_load(s);
	put(k, dot, i, v_mul(scale, v_from_s8(b_lookup(table, b_low(q)))));
	put(k, dot, i + 16, v_mul(scale, v_from_s8(b_lookup(table, b_high(q)))));
}

ALWAYS void block_iq4_nl(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	b16 table = b_load(iq4_table);
	put_table(k, dot, i, v_half(s), table, s + 2);
}

ALWAYS void block_iq4_xs(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	b16 table = b_load(iq4_table);
	float d = s_from_f16(s);
	unsigned high = load_u16(s + 2);
	UNROLL(8)
	for (int j = 0; j < 8; j++) {
		int sc = (s[4 + j / 2] >> (j % 2 * 4) & 15) | (int)(high >> 2 * j & 3) << 4;
		put_table(k, dot, i + 32 * (size_t)j, v_set(d * (float)(sc - 32)), table, s + 8 + 16 * j);
	}
}

/* 2^(e - 128), the smallest two subnormal: the levels are doubled so that they are integers. */
ALWAYS float mxfp4_unit(unsigned e)
{
	return f32_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

ALWAYS void block_mxfp4(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	b16 table = b_load(mxfp4_table);
	put_table(k, dot, i, v_set(mxfp4_unit(s[0])), table, s + 1);
}

/* Half of an E4M3 number, its sign bit ignored; 0x7f is 0. */
ALWAYS float nvfp4_unit(unsigned b)
{
	unsigned magnitude = b & 127;
	if (b == 0x7f)
		return 0;
	return magnitude < 8 ? (float)magnitude * 0x1p-10f : f32_from_bits((magnitude + (119u << 3)) << 20);
}

ALWAYS void block_nvfp4(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	b16 table = b_load(mxfp4_table);
	const uint64_t low = 0x0f0f0f0f0f0f0f0fu;
	UNROLL(4)
	for (int j = 0; j < 4; j++) {
		uint64_t q = load_u64(s + 4 + 8 * j);
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(nvfp4_unit(s[j])), v_from_s8(b_lookup(table, b_pair(q & low, q >> 4 & low)))));
	}
}

ALWAYS void block_q1_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s);
	UNROLL(8)
	for (int j = 0; j < 8; j++) {
		unsigned m = load_u16(s + 2 + 2 * j);
		put(k, dot, i + 16 * (size_t)j, v_mul(d, v_from_s8(b_or(b_bits(m, 1), b_bits(~m & 0xffff, 0xff)))));
	}
}

ALWAYS void block_q2_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s), bias = v_set(1);
	UNROLL(4)
	for (int j = 0; j < 4; j++)
		put(k, dot, i + 16 * (size_t)j, v_mul(d, v_sub(v_from_u8(b_codes(s + 2 + 4 * j, 2)), bias)));
}

ALWAYS void block_tq2_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	v16 d = v_half(s + 64), bias = v_set(1);
	UNROLL(16)
	for (int j = 0; j < 16; j++) {
		b16 q = b_load(s + 32 * (j / 8) + 16 * (j % 2));
		put(k, dot, i + 16 * (size_t)j, v_mul(d, v_sub(v_from_u8(b_and(b_shr(q, j % 8 / 2 * 2), 3)), bias)));
	}
}

/* Digit `power` = 3^t of sixteen bytes. */
ALWAYS b16 b_digit(const uint8_t *s, unsigned power)
{
	uint8_t q[16];
	for (int k = 0; k < 16; k++)
		q[k] = (uint8_t)((uint8_t)(s[k] * power) * 3u >> 8);
	return b_load(q);
}

ALWAYS void block_tq1_0(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
	v16 d = v_half(s + 52), bias = v_set(1);
	uint8_t last[16];
	UNROLL(1)
	for (int j = 0; j < 10; j++)
		put(k, dot, i + 16 * (size_t)j, v_mul(d, v_sub(v_from_u8(b_digit(s + 16 * (j % 2), power[j / 2])), bias)));
	UNROLL(1)
	for (int j = 0; j < 5; j++)
		put(k, dot, i + 160 + 16 * (size_t)j, v_mul(d, v_sub(v_from_u8(b_digit(s + 32, power[j])), bias)));
	for (int j = 0; j < 16; j++)
		last[j] = (uint8_t)(s[48 + j % 4] * power[j / 4]);
	put(k, dot, i + 240, v_mul(d, v_sub(v_from_u8(b_digit(last, 1)), bias)));
}

/* Eight bytes, negated where a bit of `negative` is set; none may be 0. */
ALWAYS uint64_t with_signs(uint64_t bytes, unsigned negative)
{
	uint64_t turn = spread(negative, 1);
	return (bytes ^ turn * 255) + turn;
}

/* The last of eight signs where they are even. */
ALWAYS unsigned eighth_sign(unsigned seven)
{
	unsigned p = seven & 127;
	p ^= p >> 4;
	return (seven & 127) | (0x6996u >> (p & 15) & 1) << 7;
}

static const uint64_t ones = 0x0101010101010101u;

/* An entry of the iq2 codebooks: 8, 25, 43. */
ALWAYS uint64_t iq2_eight(unsigned entry, unsigned negative)
{
	uint64_t q = spread(entry, 2);
	return with_signs(ones * 8 + q * 17 + (q >> 1 & ones), negative);
}

/* Two entries of iq3_xxs: 4, 12 ... 52, 62. */
ALWAYS uint64_t iq3_xxs_eight(unsigned first, unsigned second, unsigned negative)
{
	uint64_t q = spread(first | (uint64_t)second << 12, 3);
	return with_signs(ones * 4 + q * 8 + ((q + ones) >> 2 & ones * 2), negative);
}

/* Two entries of iq3_s: 1, 3 ... 15. */
ALWAYS uint64_t iq3_s_eight(unsigned first, unsigned second, unsigned negative)
{
	return with_signs(ones + spread(first | (uint64_t)second << 12, 3) * 2, negative);
}

/* An entry of iq1's codebook and its offset, eight times: what is over 16. */
ALWAYS uint64_t iq1_eight(unsigned entry, bool negative)
{
	return spread(entry, 2) * 8 + ones * (negative ? 7 : 9);
}

ALWAYS void block_iq1_s(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s) * 0.125f;
	v16 bias = v_set(16);
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		const uint8_t *q = s + 2 + 2 * j;
		unsigned h = load_u16(s + 34 + 2 * (j / 2)), up = h >> j % 2 * 6;
		v16 scale = v_set(d * (float)(2 * (h >> 12 & 7) + 1));
		put(k, dot, i + 16 * (size_t)j, v_mul(scale, v_sub(v_from_u8(b_pair(iq1_eight(iq1_s_grid[q[0] | (up & 7) << 8], h >> 15),
										iq1_eight(iq1_s_grid[q[1] | (up >> 3 & 7) << 8], h >> 15))), bias)));
	}
}

ALWAYS void block_iq1_m(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	uint8_t half[2] = { (uint8_t)(s[49] >> 4 | (s[51] & 0xf0)), (uint8_t)(s[53] >> 4 | (s[55] & 0xf0)) };
	float d = s_from_f16(half) * 0.125f;
	v16 bias = v_set(16);
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		const uint8_t *q = s + 2 * j;
		unsigned h = s[32 + j], sc = load_u16(s + 48 + 2 * (j / 4)) >> j % 4 * 3 & 7;
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * sc + 1)), v_sub(v_from_u8(b_pair(iq1_eight(iq1_s_grid[q[0] | (h & 7) << 8], h >> 3 & 1),
														iq1_eight(iq1_s_grid[q[1] | (h >> 4 & 7) << 8], h >> 7))), bias)));
	}
}

ALWAYS void block_iq2_xxs(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s) * 0.125f;
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		const uint8_t *q = s + 2 + 8 * (j / 2);
		unsigned h = load_u32(q + 4), signs = h >> j % 2 * 14;
		uint64_t lo = iq2_eight(iq2_xxs_grid[q[j % 2 * 2]], eighth_sign(signs)), hi = iq2_eight(iq2_xxs_grid[q[j % 2 * 2 + 1]], eighth_sign(signs >> 7));
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * (h >> 28) + 1)), v_from_s8(b_pair(lo, hi))));
	}
}

ALWAYS void block_iq2_xs(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s) * 0.125f;
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		unsigned a = load_u16(s + 2 + 4 * j), b = load_u16(s + 4 + 4 * j), sc = s[66 + j / 2] >> j % 2 * 4 & 15u;
		uint64_t lo = iq2_eight(iq2_xs_grid[a & 511], eighth_sign(a >> 9)), hi = iq2_eight(iq2_xs_grid[b & 511], eighth_sign(b >> 9));
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * sc + 1)), v_from_s8(b_pair(lo, hi))));
	}
}

ALWAYS void block_iq2_s(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s) * 0.125f;
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		unsigned up = s[66 + j / 2] >> j % 2 * 4, sc = s[74 + j / 2] >> j % 2 * 4 & 15u;
		const uint8_t *q = s + 2 + 2 * j, *signs = s + 34 + 2 * j;
		uint64_t lo = iq2_eight(iq2_s_grid[q[0] | (up & 3) << 8], signs[0]), hi = iq2_eight(iq2_s_grid[q[1] | (up >> 2 & 3) << 8], signs[1]);
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * sc + 1)), v_from_s8(b_pair(lo, hi))));
	}
}

ALWAYS void block_iq3_xxs(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s) * 0.25f;
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		const uint8_t *q = s + 2 + 4 * j;
		unsigned h = load_u32(s + 66 + 4 * (j / 2)), signs = h >> j % 2 * 14;
		uint64_t lo = iq3_xxs_eight(iq3_xxs_grid[q[0]], iq3_xxs_grid[q[1]], eighth_sign(signs));
		uint64_t hi = iq3_xxs_eight(iq3_xxs_grid[q[2]], iq3_xxs_grid[q[3]], eighth_sign(signs >> 7));
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * (h >> 28) + 1)), v_from_s8(b_pair(lo, hi))));
	}
}

ALWAYS void block_iq3_s(const uint8_t *s, size_t i, struct sink *k, bool dot)
{
	float d = s_from_f16(s);
	UNROLL(1)
	for (int j = 0; j < 16; j++) {
		const uint8_t *q = s + 2 + 4 * j, *signs = s + 74 + 2 * j;
		unsigned up = (unsigned)s[66 + j / 2] >> j % 2 * 4, sc = s[106 + j / 4] >> j / 2 % 2 * 4 & 15u;
		uint64_t lo = iq3_s_eight(iq3_s_grid[q[0] | (up & 1) << 8], iq3_s_grid[q[1] | (up & 2) << 7], signs[0]);
		uint64_t hi = iq3_s_eight(iq3_s_grid[q[2] | (up & 4) << 6], iq3_s_grid[q[3] | (up & 8) << 5], signs[1]);
		put(k, dot, i + 16 * (size_t)j, v_mul(v_set(d * (float)(2 * sc + 1)), v_from_s8(b_pair(lo, hi))));
	}
}

/*
 * Four rows at a time: a sum waits for the addition before it, and the rows do not wait for each other. They use
 * x as it is in the first level of the cache.
 */
enum { DOT_ROWS = 4 };

#define BLOCK_PAIR(NAME, BLOCK, BYTES) \
	static void k_decode_##NAME(const void *src, float *dst, size_t n) \
	{ \
		const uint8_t *s = src; \
		struct sink k = { .dst = dst }; \
		for (size_t i = 0; i < n; i += BLOCK, s += BYTES) \
			block_##NAME(s, i, &k, false); \
	} \
	static void k_dot_##NAME(const void *src, const float *x, size_t n, float *y, size_t rows) \
	{ \
		size_t stride = n / BLOCK * BYTES, r = 0; \
		const uint8_t *s = src; \
		for (; r + DOT_ROWS <= rows; r += DOT_ROWS, s += DOT_ROWS * stride) { \
			struct sink k[DOT_ROWS] = { { .x = x, .sum = v_set(0) }, { .x = x, .sum = v_set(0) }, \
						    { .x = x, .sum = v_set(0) }, { .x = x, .sum = v_set(0) } }; \
			for (size_t i = 0, at = 0; i < n; i += BLOCK, at += BYTES) \
				UNROLL(4) \
				for (size_t j = 0; j < DOT_ROWS; j++) \
					block_##NAME(s + j * stride + at, i, &k[j], true); \
			UNROLL(4) \
			for (size_t j = 0; j < DOT_ROWS; j++) \
				y[r + j] = v_sum(k[j].sum); \
		} \
		for (; r < rows; r++, s += stride) { \
			struct sink k = { .x = x, .sum = v_set(0) }; \
			for (size_t i = 0, at = 0; i < n; i += BLOCK, at += BYTES) \
				block_##NAME(s + at, i, &k, true); \
			y[r] = v_sum(k.sum); \
		} \
	}
KERNEL_BLOCKS(BLOCK_PAIR)
#define BLOCK_ENTRY(NAME, BLOCK, BYTES) [BLOCK_##NAME] = { k_decode_##NAME, k_dot_##NAME, k_product_##NAME },
#define BLOCK_ENTRY_UNROUNDED(NAME, BLOCK, BYTES) [BLOCK_##NAME] = { k_decode_##NAME, k_dot_##NAME, NULL },

/* ---- dense streams of codes ---- */

ALWAYS void walk_codes(const struct code_run *r, int bits, size_t n, struct sink *k, bool dot)
{
	const uint8_t *s = r->codes;
	v16 d = v_set(r->scale), z = v_set(r->zero);
	size_t i = 0;
	if (bits == 4) /* the common case, thirty-two at a time */
		for (; i + 32 <= n; i += 32, s += 16) {
			b16 q = b_load(s), lo = b_low(q), hi = b_high(q);
			put(k, dot, i, v_mul(d, v_sub(v_from_u8(b_zip_lo(lo, hi)), z)));
			put(k, dot, i + 16, v_mul(d, v_sub(v_from_u8(b_zip_hi(lo, hi)), z)));
		}
	for (; i + 16 <= n; i += 16, s += 2 * bits)
		put(k, dot, i, v_mul(d, v_sub(v_from_u8(b_codes(s, bits)), z)));
	if (i == n)
		return;
	uint8_t last[16] = { 0 };
	memcpy(last, s, ((n - i) * (size_t)bits + 7) / 8);
	v16 v = v_mul(d, v_sub(v_from_u8(b_codes(last, bits)), z));
	if (!dot) {
		v_store_tail(k->dst + i, v, n - i);
		return;
	}
	float value[16];
	v_store(value, v);
	k->sum = v_add(k->sum, v_mul(v_load_tail(value, n - i, 0), v_load_tail(k->x + i, n - i, 0)));
}

/* One copy of the walk per width, so that its shifts are constants. */
ALWAYS void walk_widths(const struct code_run *r, size_t n, struct sink *k, bool dot)
{
	if (r->bits == 2)
		walk_codes(r, 2, n, k, dot);
	else if (r->bits == 3)
		walk_codes(r, 3, n, k, dot);
	else if (r->bits == 4)
		walk_codes(r, 4, n, k, dot);
	else
		walk_codes(r, 8, n, k, dot);
}

static void k_codes_decode(const struct code_run *r, float *dst, size_t n)
{
	struct sink k = { .dst = dst };
	walk_widths(r, n, &k, false);
}

static void k_codes_dot(const struct code_run *r, const float *x, size_t n, float lanes[16])
{
	struct sink k = { .x = x, .sum = v_load(lanes) };
	walk_widths(r, n, &k, true);
	v_store(lanes, k.sum);
}

static float k_lanes_sum(const float lanes[16])
{
	return v_sum(v_load(lanes));
}
