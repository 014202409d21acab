/* AMX: tiles of bf16 times tiles of bf16 (split.h). Taking apart is AVX512_BF16, which every machine with AMX has. */
#include "kernel/split.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALWAYS static inline __attribute__((always_inline))

/* ---- taking apart */

/* Sixteen registers: a tile. */
struct tile {
	__m512i row[SPLIT_SIDE];
};

/* 16 x 16 numbers of 32 bits change places: what is a row of pairs of the left is one of the right. */
ALWAYS void transpose(struct tile *t)
{
	__m512i a[16], b[16];
	for (int i = 0; i < 16; i += 2) {
		a[i] = _mm512_unpacklo_epi32(t->row[i], t->row[i + 1]);
		a[i + 1] = _mm512_unpackhi_epi32(t->row[i], t->row[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
		b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
		b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
		b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
	}
	for (int i = 0; i < 16; i += 8)
		for (int k = 0; k < 4; k++) {
			a[i + k] = _mm512_shuffle_i32x4(b[i + k], b[i + k + 4], 0x88);
			a[i + k + 4] = _mm512_shuffle_i32x4(b[i + k], b[i + k + 4], 0xdd);
		}
	for (int k = 0; k < 8; k++) {
		t->row[k] = _mm512_shuffle_i32x4(a[k], a[k + 8], 0x88);
		t->row[k + 8] = _mm512_shuffle_i32x4(a[k], a[k + 8], 0xdd);
	}
}

ALWAYS __m512 widen(__m256i h)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Sixteen numbers and sixteen more become their nearest bf16 numbers and what is left. */
ALWAYS __m512i nearest(__m512 *lo, __m512 *hi)
{
	__m512bh h = _mm512_cvtne2ps_pbh(*hi, *lo);
	__m512i bits;
	memcpy(&bits, &h, sizeof bits);
	*lo = _mm512_sub_ps(*lo, widen(_mm512_castsi512_si256(bits)));
	*hi = _mm512_sub_ps(*hi, widen(_mm512_extracti64x4_epi64(bits, 1)));
	return bits;
}

ALWAYS __m512i larger(__m512i most, __m512 x)
{
	return _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
}

ALWAYS void one_row(struct tile t[SPLIT_PARTS], int i, __m512 lo, __m512 hi)
{
	for (int p = 0; p < SPLIT_PARTS; p++)
		t[p].row[i] = nearest(&lo, &hi);
}

/* The first n of 16 numbers. */
ALWAYS __m512 some(const float *x, size_t n)
{
	return n >= 16 ? _mm512_loadu_ps(x) : n ? _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x) : _mm512_setzero_ps();
}

/* A step; most: the largest of row i in most[i]. */
ALWAYS void take_step(const struct split_source *s, size_t k, struct tile t[SPLIT_PARTS], __m512i most[SPLIT_SIDE])
{
	for (size_t i = 0; i < SPLIT_SIDE; i++) {
		const float *x = s->at + i * s->ld + k;
		size_t n = i < s->rows ? s->k - k : 0;
		__m512 lo = some(x, n), hi = some(x + 16, n > 16 ? n - 16 : 0);
		most[i] = larger(larger(most[i], lo), hi);
		one_row(t, (int)i, lo, hi);
	}
}

ALWAYS void store_tile(const struct tile *t, uint16_t *out)
{
	for (int i = 0; i < SPLIT_SIDE; i++)
		_mm512_store_si512(out + i * SPLIT_STEP, t->row[i]);
}

ALWAYS unsigned take_apart(const struct split_source *s, bool right, uint16_t *out, uint32_t *largest)
{
	__m512i most[SPLIT_SIDE], second = _mm512_setzero_si512(), third = second;
	size_t plane = (s->k + SPLIT_STEP - 1) / SPLIT_STEP * SPLIT_TILE;
	for (int i = 0; i < SPLIT_SIDE; i++)
		most[i] = _mm512_setzero_si512();
	for (size_t k = 0; k < s->k; k += SPLIT_STEP, out += SPLIT_TILE) {
		struct tile t[SPLIT_PARTS];
		take_step(s, k, t, most);
		for (int i = 0; i < SPLIT_SIDE; i++) {
			second = _mm512_or_si512(second, t[1].row[i]);
			third = _mm512_or_si512(third, t[2].row[i]);
		}
		for (size_t p = 0; p < SPLIT_PARTS; p++) {
			if (right)
				transpose(&t[p]);
			store_tile(&t[p], out + p * plane);
		}
	}
	for (int i = 0; i < SPLIT_SIDE; i++) {
		uint32_t m = _mm512_reduce_max_epu32(most[i]);
		largest[i] = m > largest[i] ? m : largest[i];
	}
	__m512i digits = _mm512_set1_epi16(0x7fff);
	return (_mm512_test_epi16_mask(second, digits) ? SPLIT_SECOND : 0) | (_mm512_test_epi16_mask(third, digits) ? SPLIT_THIRD : 0);
}

static unsigned left(const struct split_source *s, uint16_t *out, uint32_t *most)
{
	return take_apart(s, false, out, most);
}

static void take_bf16(const struct split_source *s, uint16_t *out, uint32_t *largest)
{
	__m512i most[SPLIT_SIDE];
	for (int i = 0; i < SPLIT_SIDE; i++)
		most[i] = _mm512_setzero_si512();
	for (size_t k = 0; k < s->k; k += SPLIT_STEP, out += SPLIT_TILE) {
		__mmask32 mask = s->k - k < SPLIT_STEP ? (__mmask32)((1u << (s->k - k)) - 1) : 0xffffffff;
		struct tile t;
		for (size_t i = 0; i < SPLIT_SIDE; i++) {
			t.row[i] = i < s->rows ? _mm512_maskz_loadu_epi16(mask, s->bf16 + (i * s->ld + k) * 2) : _mm512_setzero_si512();
			most[i] = _mm512_max_epu16(most[i], _mm512_and_si512(t.row[i], _mm512_set1_epi16(0x7fff)));
		}
		transpose(&t);
		store_tile(&t, out);
	}
	for (int i = 0; i < SPLIT_SIDE; i++) {
		__m512i wide = _mm512_max_epu32(_mm512_slli_epi32(most[i], 16), _mm512_andnot_si512(_mm512_set1_epi32(0xffff), most[i]));
		uint32_t m = _mm512_reduce_max_epu32(wide);
		largest[i] = m > largest[i] ? m : largest[i];
	}
}

static unsigned right(const struct split_source *s, uint16_t *out, uint32_t *most)
{
	if (!s->bf16)
		return take_apart(s, true, out, most);
	take_bf16(s, out, most);
	return 0;
}

/* ---- products: tiles 0 to 3 are sums, 4 and 5 of the left, 6 and 7 of the right */

enum { LINE = 64 };

/* A part of the right, in 6 and 7, meets a part of the left. */
#define MEET(Q) do { \
	_tile_loadd(4, l0 + (size_t)(Q) * plane, LINE); \
	if (two_left) \
		_tile_loadd(5, l1 + (size_t)(Q) * plane, LINE); \
	_tile_dpbf16ps(0, 4, 6); \
	if (two_right) \
		_tile_dpbf16ps(1, 4, 7); \
	if (two_left) \
		_tile_dpbf16ps(2, 5, 6); \
	if (two_left && two_right) \
		_tile_dpbf16ps(3, 5, 7); \
} while (0)

/* The products of first parts, or all others. */
ALWAYS void sum_steps(const struct split_block *b, bool two_left, bool two_right, int parts, bool main)
{
	const uint16_t *l0 = b->left[0], *l1 = b->left[1], *r0 = b->right[0], *r1 = b->right[1];
	const size_t plane = b->steps * SPLIT_TILE;
	for (size_t s = 0; s < b->steps; s++) {
#pragma GCC unroll 3
		for (int p = 0; p < parts; p++) {
			_tile_loadd(6, r0 + (size_t)p * plane, LINE);
			if (two_right)
				_tile_loadd(7, r1 + (size_t)p * plane, LINE);
			if (main || p)
				MEET(0);
			if (!main && p < 2)
				MEET(1);
			if (!main && p < 1)
				MEET(2);
		}
		l0 += SPLIT_TILE;
		r0 += SPLIT_TILE;
		if (two_left)
			l1 += SPLIT_TILE;
		if (two_right)
			r1 += SPLIT_TILE;
	}
}

ALWAYS void store_sums(float *c, size_t ld, bool two_left, bool two_right)
{
	float *below = c + SPLIT_SIDE * ld;
	_tile_stored(0, c, ld * sizeof *c);
	if (two_right)
		_tile_stored(1, c + SPLIT_SIDE, ld * sizeof *c);
	if (two_left)
		_tile_stored(2, below, ld * sizeof *c);
	if (two_left && two_right)
		_tile_stored(3, below + SPLIT_SIDE, ld * sizeof *c);
}

ALWAYS void of_shape(const struct split_block *b, bool two_left, bool two_right)
{
	_tile_zero(0);
	_tile_zero(1);
	_tile_zero(2);
	_tile_zero(3);
	if (b->parts == 1)
		sum_steps(b, two_left, two_right, 1, false);
	else if (b->parts == 2)
		sum_steps(b, two_left, two_right, 2, false);
	else
		sum_steps(b, two_left, two_right, 3, false);
	sum_steps(b, two_left, two_right, 1, true);
	if (b->first) {
		store_sums(b->c, b->ld, two_left, two_right);
		return;
	}
	enum { PAIR = 2 * SPLIT_SIDE };
	float sums[PAIR * PAIR] __attribute__((aligned(LINE)));
	store_sums(sums, PAIR, two_left, two_right);
	for (int i = 0; i < (two_left ? PAIR : SPLIT_SIDE); i++)
		for (int k = 0; k < (two_right ? PAIR : SPLIT_SIDE); k += SPLIT_SIDE) {
			float *c = b->c + (size_t)i * b->ld + k;
			_mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), _mm512_load_ps(sums + i * PAIR + k)));
		}
}

static void block(const struct split_block *b)
{
	if (b->left[1] && b->right[1])
		of_shape(b, true, true);
	else if (b->left[1])
		of_shape(b, true, false);
	else if (b->right[1])
		of_shape(b, false, true);
	else
		of_shape(b, false, false);
}

static void begin(void)
{
	/* palette 1: every tile 16 rows of 64 bytes. Not on the stack: gcc takes the instruction to read no more than a pointer. */
	static const struct {
		uint8_t palette, start, reserved[14];
		uint16_t bytes[16];
		uint8_t rows[16];
	} c = { 1, 0, { 0 }, { LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE }, { 16, 16, 16, 16, 16, 16, 16, 16 } };
	_tile_loadconfig(&c);
}

static void end(void)
{
	_tile_release();
}

/* The processor has it, the system saves tiles, and lets this process use them (ARCH_REQ_XCOMP_PERM, the state's number). */
static bool usable(void)
{
	enum { ASK = 0x1023, TILES = 18, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5 };
	unsigned a, b, c, d, e;
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
	    !__builtin_cpu_supports("avx512dq") || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &e, &b, &c, &b))
		return false;
	return d & AMX_BF16 && d & AMX_TILE && e & AVX512_BF16 && !syscall(SYS_arch_prctl, ASK, TILES);
}

static const struct split_ops ops = { left, right, block, begin, end };

static void weights(const struct product_job *job)
{
	split_weights(&ops, job);
}

const struct product_row product_amx = { "amx", "bf16 tiles", usable, split_floats, weights, split_gemm };
#endif
