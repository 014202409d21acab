/* Walks the registry: every codec keeps the promises of codec.h, whatever it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

enum { COLS = 768, MAX_BYTES = 16 * COLS };

static float x[COLS], w[COLS], y[COLS], z[COLS];
static uint8_t bytes[MAX_BYTES], again[MAX_BYTES], codes[COLS];

/* Lengths of rows to try: whole blocks, and short last blocks where the codec has them. */
static size_t row_length(const struct codec *c, unsigned k)
{
	static const size_t ragged[] = { 1, 2, 31, 33, 63, 127, 129, 300, COLS };
	/* groups with a bias share their functions, whose search is slow: a few stand for all */
	if (c->group_bias)
		return k || c->block > 32 || (c->bits != 4 && (c->bits != 6 || c->group_scale)) ? 0 : 3 * c->block / 2;
	if (k == 0)
		return c->block ? c->block : 96;
	if (k == 1)
		return c->block ? c->block * (COLS / c->block < 3 ? COLS / c->block : 3) : 160;
	k -= 2;
	return (c->ragged || c->block == 1) && k < sizeof ragged / sizeof *ragged ? ragged[k] : 0;
}

#define FOR_ROWS(c, n) \
	for (unsigned row_ = 0; row_ < codec_row_count; row_++) \
		for (const struct codec *c = codec_rows[row_]; c; c = NULL) \
			for (size_t k_ = 0, n; (n = row_length(c, (unsigned)k_)) > 0; k_++)
#define FOR_QUANTIZERS(c, n) FOR_ROWS(c, n) if (codec_quantizes(c))

static void encode(const struct codec *c, const float *src, const float *weight, size_t n, enum fit_effort effort,
		   uint8_t *out)
{
	size_t size = (size_t)codec_row_bytes(c, n);
	assert_true(size > 0 && size < MAX_BYTES);
	out[size] = 0xa5;
	codec_encode_row(c, &(struct row_job){ src, weight, n, effort }, codes, out);
	assert_int_equal(out[size], 0xa5);
}

static void decode(const struct codec *c, const uint8_t *in, float *out, size_t n)
{
	c->decode(c, in, out, n);
}

static double error(const float *a, const float *b, const float *weight, size_t n)
{
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (weight ? (double)weight[i] : 1) * ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
	return sum;
}

static void normal(struct rng *r, float *f, size_t n, double scale)
{
	for (size_t i = 0; i < n; i++)
		f[i] = (float)(rng_normal(r) * scale * (rng_below(r, 40) ? 1 : 6));
}

static void lookup(void **state)
{
	char name[64];
	(void)state;
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *c = codec_rows[i];
		assert_ptr_equal(codec_find(c->name), c); /* so that no two share a name */
		for (size_t k = 0; k <= strlen(c->name); k++)
			name[k] = c->name[k] == '-' ? '_' : (char)toupper((unsigned char)c->name[k]);
		assert_ptr_equal(codec_find(name), c);
		if (c->gguf_type >= 0)
			assert_ptr_equal(codec_from_gguf(c->gguf_type), c);
		if (c->safetensors)
			assert_ptr_equal(codec_from_safetensors(c->safetensors), c);
		assert_true(c->summary && *c->summary);
		assert_true(!c->fallback || codec_find(c->fallback));
		assert_true(c->decode != NULL);
		if (codec_quantizes(c))
			assert_true(c->fit && c->pack && c->unpack && c->bits >= 1 && c->bits <= 8);
		else
			assert_true(c->block == 1 && c->block_bytes);
	}
	assert_null(codec_find("q4"));
	assert_null(codec_find(""));
	assert_null(codec_from_gguf(-1));
	assert_null(codec_from_gguf(4));
	assert_null(codec_from_safetensors("Q4_K"));
	assert_string_equal(codec_find("BFloat16")->name, "bf16");
}

static void sizes(void **state)
{
	(void)state;
	assert_int_equal(codec_row_bytes(codec_find("q4_0"), 64), 36);
	assert_int_equal(codec_row_bytes(codec_find("q4_0"), 65), 0);
	assert_int_equal(codec_row_bytes(codec_find("q8_0"), 32), 34);
	assert_int_equal(codec_row_bytes(codec_find("int4-g128"), 256), 132);
	assert_int_equal(codec_row_bytes(codec_find("int4-g128-zp"), 256), 134);
	assert_int_equal(codec_row_bytes(codec_find("int4-g128"), 131), 66 + 2 + 2);
	assert_int_equal(codec_row_bytes(codec_find("int8-g32-zp-bf16"), 33), 35 + 4);
	assert_int_equal(codec_row_bytes(codec_find("int4-row"), 5000), 2502);
	assert_int_equal(codec_row_bytes(codec_find("f64"), UINT64_MAX / 4), 0);
	assert_int_equal(codec_row_bytes(codec_find("int8-row"), UINT64_MAX / 4), 0);
	assert_int_equal(codec_row_bytes(codec_find("q8_0"), UINT64_MAX & ~31ull), 0);
	for (unsigned i = 0; i < codec_row_count; i++) {
		assert_int_equal(codec_row_bytes(codec_rows[i], 0), 0);
		for (uint64_t n = 1; n < 600; n += 7) {
			const struct codec *c = codec_for_row(codec_rows[i], n);
			assert_true(codec_row_bytes(c, n) > 0);
			if (codec_row_bytes(codec_rows[i], n))
				assert_ptr_equal(c, codec_rows[i]);
		}
	}
	assert_true(codec_bits_per_weight(codec_find("q4_0"), 1) == 4.5);
	assert_true(codec_bits_per_weight(codec_find("int4-row"), 1024) == 4 + 16.0 / 1024);
}

/* unpack then pack gives the bytes back, and decode agrees with codec_value. */
static void packing(void **state)
{
	struct rng r = { 1 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		if (c->bits % 8 && n % 8)
			continue; /* the last byte has spare bits */
		for (int round = 0; round < 30; round++) {
			size_t size = (size_t)codec_row_bytes(c, n), at = 0;
			for (size_t i = 0; i < size; i++)
				bytes[i] = (uint8_t)rng_u64(&r);
			decode(c, bytes, y, n);
			memset(again, 0, sizeof again);
			for (size_t i = 0; i < n;) {
				size_t len = codec_block_len(c, i, n), sub = codec_sub_len(c, len);
				size_t here = (size_t)codec_row_bytes(c, len);
				struct block_params p;
				c->unpack(c, bytes + at, &p, codes, len);
				c->pack(c, &p, codes, len, again + at);
				for (size_t k = 0; k < len; k++) {
					float v = codec_value(c, p.scale[k / sub], p.offset[k / sub], codes[k]);
					if (codes[k] >> c->bits || (v != y[i + k] && isfinite(v) && isfinite(y[i + k])))
						fail_msg("%s: element %zu is %a, its code %d means %a", c->name, i + k,
							 (double)y[i + k], codes[k], (double)v);
				}
				at += here;
				i += len;
			}
			assert_int_equal(at, size);
			if (memcmp(bytes, again, size) && strcmp(c->name, "tq1_0")) /* which gives 243 of the 256 values of a byte */
				fail_msg("%s: pack(unpack(bytes)) differs, %zu elements", c->name, n);
		}
	}
}

/* What store() says is stored is what unpack() reads. */
static void storing(void **state)
{
	struct rng r = { 2 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		size_t len = codec_block_len(c, 0, n);
		for (int round = 0; round < 20; round++) {
			struct block_params p, q;
			size_t sub = codec_sub_len(c, len);
			normal(&r, x, len, 0.02);
			c->fit(c, x, NULL, len, round & 1 ? FIT_SEARCH : FIT_RTN, &p);
			codec_round_block(c, &p, x, NULL, len, codes);
			c->pack(c, &p, codes, len, bytes);
			c->unpack(c, bytes, &q, codes, len);
			for (size_t s = 0; s * sub < len; s++)
				if (p.scale[s] != q.scale[s] || p.offset[s] != q.offset[s])
					fail_msg("%s: sub-block %zu was fitted as %a, %a and reads %a, %a", c->name, s,
						 (double)p.scale[s], (double)p.offset[s], (double)q.scale[s],
						 (double)q.offset[s]);
		}
	}
}

static void rounding(void **state)
{
	struct rng r = { 3 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		if (k_)
			continue;
		for (int round = 0; round < 2000; round++) {
			float scale = (float)(rng_normal(&r) * 0.1), offset = c->has_offset ? (float)(rng_normal(&r) * 0.1) : 0;
			float v = (float)rng_normal(&r);
			if (c->levels && scale < 0)
				scale = -scale;
			double least = HUGE_VAL;
			for (int k = 0; k < 1 << c->bits; k++)
				least = fmin(least, fabs((double)v - codec_value(c, scale, offset, (uint8_t)k)));
			uint8_t code = codec_round(c, scale, offset, v);
			double miss = fabs((double)v - codec_value(c, scale, offset, code));
			if (code >> c->bits || miss > least + 1e-6)
				fail_msg("%s: %g rounds to code %d, off by %g where %g is possible", c->name, (double)v,
					 code, miss, least);
		}
		assert_true(fabsf(codec_value(c, 1, 0, codec_round(c, 0, 0, 1))) <= 1 || c->together); /* codebooks have no level so near */
		assert_true(codec_round(c, NAN, 0, 1) >> c->bits == 0);
		assert_true(codec_round(c, 1, 0, NAN) >> c->bits == 0);
		assert_true(codec_round(c, 1e-45f, 0, 1e38f) >> c->bits == 0);
	}
}

static void search_is_never_worse(void **state)
{
	struct rng r = { 4 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		double total[2][2] = { { 0 } };
		for (int round = 0; round < 16; round++) {
			bool weighted = round & 1;
			normal(&r, x, n, round & 2 ? 0.02 : 3);
			for (size_t i = 0; i < n; i++) {
				if (round & 4) /* values on a coarse grid, all of one sign */
					x[i] = rintf(fabsf(x[i]) * 4) / 4;
				w[i] = rng_below(&r, 5) ? (float)(rng_unit(&r) * rng_unit(&r)) : 0;
			}
			const float *weight = weighted ? w : NULL;
			encode(c, x, weight, n, FIT_RTN, bytes);
			decode(c, bytes, y, n);
			encode(c, x, weight, n, FIT_SEARCH, bytes);
			decode(c, bytes, z, n);
			double rtn = error(x, y, weight, n), found = error(x, z, weight, n);
			total[weighted][0] += rtn;
			total[weighted][1] += found;
			if (!(found <= rtn * (1 + 1e-6)))
				fail_msg("%s n=%zu round %d: search %g, plain %g", c->name, n, round, found, rtn);
		}
		if (n >= 256 && c->bits > 1) /* and over many blocks it is better (of signs alone the plain rule is the best) */
			for (int k = 0; k < 2; k++)
				if (!(total[k][1] < total[k][0]))
					fail_msg("%s: search finds nothing (%g)", c->name, total[k][0]);
	}
}

/* The fast path of a row gives the bytes of its parts; every kernel row gives the same. */
static void paths_agree(void **state)
{
	struct rng r = { 5 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		normal(&r, x, n, 1);
		for (size_t i = 0; i < n; i++)
			w[i] = (float)rng_unit(&r) + 0.01f;
		for (int weighted = 0; weighted < 2; weighted++) {
			const float *weight = weighted ? w : NULL;
			size_t size = (size_t)codec_row_bytes(c, n), at = 0;
			encode(c, x, weight, n, FIT_SEARCH, bytes);
			memset(again, 0, sizeof again);
			struct block_params *row = calloc(n, sizeof *row), *own = row;
			assert_non_null(row);
			codec_fit_row(c, x, weight, n, row);
			for (size_t i = 0; i < n;) {
				size_t len = codec_block_len(c, i, n), sub = codec_sub_len(c, len);
				struct block_params p = { 0 };
				c->fit(c, x + i, weight ? weight + i : NULL, len, FIT_SEARCH, &p);
				for (size_t k = 0; k < len; k += sub)
					assert_true(own->scale[k / sub] == p.scale[k / sub] && own->offset[k / sub] == p.offset[k / sub]);
				own++;
				codec_round_block(c, &p, x + i, weight ? weight + i : NULL, len, codes);
				c->pack(c, &p, codes, len, again + at);
				at += (size_t)codec_row_bytes(c, len);
				i += len;
			}
			free(row);
			if (memcmp(bytes, again, size))
				fail_msg("%s: the row differs from its blocks", c->name);
			for (unsigned k = 0; kernels_row(k); k++) {
				if (!kernels_select(kernels_row(k)->name))
					continue;
				encode(c, x, weight, n, FIT_SEARCH, again);
				if (memcmp(bytes, again, size))
					fail_msg("%s: %s kernels give other bytes", c->name, kernels_row(k)->name);
			}
			kernels_select("auto");
		}
	}
}

static void zeros(void **state)
{
	(void)state;
	memset(x, 0, sizeof x);
	FOR_ROWS(c, n) {
		if (!codec_quantizes(c) && !c->encode)
			continue;
		for (int effort = 0; effort < 2; effort++) {
			encode(c, x, NULL, n, effort ? FIT_SEARCH : FIT_RTN, bytes);
			decode(c, bytes, y, n);
			for (size_t i = 0; i < n; i++)
				if (y[i] != 0)
					fail_msg("%s: zero becomes %g", c->name, (double)y[i]);
		}
	}
}

/* Numbers far outside of what a format holds: nothing breaks, and finite input gives finite values. */
static void extremes(void **state)
{
	static const float sizes_of[] = { 1e-45f, 1e-40f, 1e-30f, 1e-20f, 1e-7f, 1e5f, 1e10f, 1e20f, 1e30f, 3e38f };
	struct rng r = { 6 };
	(void)state;
	FOR_QUANTIZERS(c, n) {
		for (size_t s = 0; s < sizeof sizes_of / sizeof *sizes_of; s++)
			for (int effort = 0; effort < 4; effort++) {
				for (size_t i = 0; i < n; i++) {
					x[i] = sizes_of[s] * (float)(2 * rng_unit(&r) - 1);
					w[i] = (float)rng_unit(&r);
				}
				encode(c, x, effort & 2 ? w : NULL, n, effort & 1 ? FIT_SEARCH : FIT_RTN, bytes);
				decode(c, bytes, y, n);
				for (size_t i = 0; i < n; i++)
					if (!isfinite(y[i]))
						fail_msg("%s: effort %d turns numbers of about %g into %g", c->name, effort,
							 (double)sizes_of[s], (double)y[i]);
			}
		static const float odd[] = { NAN, INFINITY, -INFINITY };
		for (int k = 0; k < 24; k++) {
			normal(&r, x, n, 1);
			for (size_t i = 0; i < n; i += 1 + rng_below(&r, 20))
				x[i] = odd[k % 3];
			if (k >= 12)
				for (size_t i = 0; i < n; i++)
					x[i] = odd[k % 3];
			encode(c, x, k & 4 ? w : NULL, n, k & 1 ? FIT_SEARCH : FIT_RTN, bytes);
			decode(c, bytes, y, n);
		}
		/* weights of nothing, and weights that overflow when summed */
		normal(&r, x, n, 1);
		for (int k = 0; k < 2; k++) {
			for (size_t i = 0; i < n; i++)
				w[i] = k ? 1e38f : 0;
			encode(c, x, w, n, FIT_SEARCH, bytes);
			decode(c, bytes, y, n);
			for (size_t i = 0; i < n; i++)
				assert_true(isfinite(y[i]));
		}
	}
}

/* Constant blocks are common (a padded row, a fresh bias); each must come back close. */
static void constants(void **state)
{
	(void)state;
	FOR_QUANTIZERS(c, n) {
		/* the plain rule of codebooks asks for their largest level in every place, which only some entries have */
		for (int k = c->together ? 2 : 0; k < 4; k++) {
			for (size_t i = 0; i < n; i++)
				x[i] = k & 1 ? -0.3f : 0.3f;
			encode(c, x, NULL, n, k & 2 ? FIT_SEARCH : FIT_RTN, bytes);
			decode(c, bytes, y, n);
			for (size_t i = 0; i < n; i++)
				if (fabsf(y[i] - x[i]) > 0.3f * 0.34f)
					fail_msg("%s: %g becomes %g", c->name, (double)x[i], (double)y[i]);
		}
	}
}

static unsigned hex(const char *s, uint8_t *out)
{
	unsigned n = 0;
	for (char byte[3] = { 0 }; *s; s++)
		if (*s != ' ' && *s != '|') {
			byte[0] = *s++;
			byte[1] = *s;
			out[n++] = (uint8_t)strtoul(byte, NULL, 16);
		}
	return n;
}

static void check_example(const char *name, const char *text)
{
	const struct codec *c = codec_find(name);
	uint8_t want[512], got[512];
	unsigned n = hex(text, want);
	size_t cols = n / c->block_bytes * c->block;
	assert_int_equal(codec_row_bytes(c, cols), n);
	codec_encode_row(c, &(struct row_job){ x, NULL, cols, FIT_RTN }, codes, got);
	for (unsigned i = 0; i < n; i++)
		if (want[i] != got[i])
			fail_msg("%s: byte %u is %02x, not %02x", name, i, got[i], want[i]);
	c->decode(c, want, y, cols);
}

/* The examples of the format description. */
static void worked_examples(void **state)
{
	(void)state;
	for (int i = 0; i < 32; i++)
		x[i] = (float)(i % 16) / 2 - 4;
	check_example("q4_0", "00 38 | 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff");
	for (int i = 0; i < 32; i++)
		assert_true(y[i] == x[i]);
	for (int i = 0; i < 32; i++)
		x[i] = (float)i / 4;
	check_example("q4_1", "22 38 00 00 | 80 80 91 91 a2 a2 b3 b3 c4 c4 d5 d5 e6 e6 f7 f7");
	for (int i = 0; i < 32; i++)
		x[i] = (float)i - 16;
	check_example("q5_0", "00 3c | 00 00 ff ff | 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff");
	for (int i = 0; i < 32; i++)
		assert_true(y[i] == x[i]);
	for (int i = 0; i < 32; i++)
		x[i] = (float)i / 4 - 1;
	check_example("q5_1", "00 34 00 bc | 00 00 ff ff | 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff");
	for (int i = 0; i < 32; i++)
		assert_true(y[i] == x[i]);
	for (int i = 0; i < 32; i++)
		x[i] = (float)i;
	check_example("q8_0", "d0 33 | 00 04 08 0c 10 14 19 1d 21 25 29 2d 31 35 39 3d"
		      " 42 46 4a 4e 52 56 5a 5e 62 66 6b 6f 73 77 7b 7f");
	/* four bits, low nibble first; zero point and odd length */
	static const float four[5] = { -7.5f, 7.5f, 0, 1, -3 };
	memcpy(x, four, sizeof four);
	uint8_t want[16], got[16];
	unsigned n = hex("00 3c | f0 98 05", want);
	assert_int_equal(codec_row_bytes(codec_find("int4-g32"), 5), n);
	codec_encode_row(codec_find("int4-g32"), &(struct row_job){ x, NULL, 5, FIT_RTN }, codes, got);
	assert_memory_equal(want, got, n);
	static const float zp[4] = { -1, 0, 14, 3 };
	memcpy(x, zp, sizeof zp);
	n = hex("80 3f 01 | 10 4f", want);
	codec_encode_row(codec_find("int4-row-zp-bf16"), &(struct row_job){ x, NULL, 4, FIT_RTN }, codes, got);
	assert_memory_equal(want, got, n);
	codec_find("int4-row-zp-bf16")->decode(codec_find("int4-row-zp-bf16"), got, y, 4);
	assert_memory_equal(x, y, sizeof zp);
}

/* Legacy types against blocks that the reference wrote are in the GGUF tests; here its rules, restated in plain C. */
static void plain_rules(void **state)
{
	struct rng r = { 7 };
	(void)state;
	for (int round = 0; round < 500; round++) {
		normal(&r, x, 32, 1);
		float top = 0, lo = x[0], hi = x[0];
		for (int i = 0; i < 32; i++) {
			top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
			lo = fminf(lo, x[i]);
			hi = fmaxf(hi, x[i]);
		}
		const struct codec *c = codec_find("q5_0");
		struct block_params p;
		encode(c, x, NULL, 32, FIT_RTN, bytes);
		c->unpack(c, bytes, &p, codes, 32);
		float d = top / -16;
		assert_int_equal(p.d, f16_from_f32(d));
		for (int i = 0; i < 32; i++) {
			int q = (int)(x[i] * (1 / d) + 16.5f);
			assert_int_equal(codes[i], q > 31 ? 31 : q);
		}
		c = codec_find("q4_1");
		encode(c, x, NULL, 32, FIT_RTN, bytes);
		c->unpack(c, bytes, &p, codes, 32);
		d = (hi - lo) / 15;
		assert_int_equal(p.d, f16_from_f32(d));
		assert_int_equal(p.dmin, f16_from_f32(lo));
		for (int i = 0; i < 32; i++)
			assert_int_equal(codes[i], (int)((x[i] - lo) * (1 / d) + 0.5f));
		c = codec_find("q8_0");
		encode(c, x, NULL, 32, FIT_RTN, bytes);
		d = fabsf(top) / 127;
		assert_int_equal(load_u16(bytes), f16_from_f32(d));
		for (int i = 0; i < 32; i++)
			assert_int_equal((int8_t)bytes[2 + i], (int)roundf(x[i] * (1 / d)));
	}
}

static void plain_types(void **state)
{
	(void)state;
	const uint8_t minus[8] = { 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const struct {
		const char *name;
		float value;
	} t[] = { { "i8", -2 }, { "i16", -2 }, { "i32", -2 }, { "i64", -2 }, { "u8", 254 }, { "u16", 65534 },
		  { "u32", 4294967294.0f }, { "u64", 18446744073709551614.0f }, { "bool", 1 } };
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		const struct codec *c = codec_find(t[i].name);
		assert_non_null(c);
		c->decode(c, minus, y, 1);
		assert_true(y[0] == t[i].value);
		assert_null(c->encode);
	}
	x[0] = -1.5f;
	x[1] = 3e-5f;
	static const char *const floats[] = { "f32", "f64", "f16", "bf16", "f8_e4m3", "f8_e5m2" };
	for (size_t i = 0; i < 6; i++) {
		const struct codec *c = codec_find(floats[i]);
		encode(c, x, NULL, 2, FIT_RTN, bytes);
		decode(c, bytes, y, 2);
		assert_true(y[0] == -1.5f && fabsf(y[1] - 3e-5f) <= 3e-5f);
	}
}

/* One line of a table of the document: its codecs, then what it says of them. Returns how many codecs it names. */
static unsigned documented(char *line)
{
	char cell[5][256] = { "" }, *next;
	unsigned count = 0;
	int n = 0;
	for (char *at = line + 1; n < 5 && (next = strchr(at, '|')); at = next + 1)
		snprintf(cell[n++], sizeof cell[0], "%.*s", (int)(next - at), at);
	unsigned a = (unsigned)strtoul(cell[1], NULL, 10), b = (unsigned)strtoul(cell[2], NULL, 10);
	int c = (int)strtol(cell[3], NULL, 10);
	char type[16] = "";
	sscanf(cell[2], " %15s", type);
	for (char *name = strtok(cell[0], " "); name; name = strtok(NULL, " ")) {
		const struct codec *k = codec_find(name);
		if (!strncmp(name, "codec", 5) || *name == '-')
			continue;
		assert_non_null(k);
		assert_string_equal(k->name, name);
		count++;
		if (k->kind == CODEC_BLOCK) {
			assert_int_equal(k->block, a);
			assert_int_equal(k->block_bytes, b);
			assert_int_equal(k->gguf_type, c);
		} else if (k->kind == CODEC_GROUP) {
			assert_int_equal(k->bits, a);
			if (k->block)
				assert_int_equal(k->block_bytes, b + (k->has_offset && !k->group_bias));
		} else {
			assert_int_equal(k->block_bytes, a);
			assert_string_equal(k->safetensors, type);
		}
	}
	return count;
}

static void document(void **state)
{
	(void)state;
	FILE *f = fopen("docs/formats/codecs.md", "r"); /* tests run in the project's folder */
	char line[1024];
	unsigned count = 0;
	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (*line == '|')
			count += documented(line);
	fclose(f);
	assert_int_equal(count, codec_row_count);
}

/* What is too small for a scale in half precision becomes zero (llama.cpp: d is 0), never more than it was. */
static void tiny_blocks_do_not_grow(void **state)
{
	(void)state;
	FOR_QUANTIZERS(c, n)
	{
		for (float top = 1e-4f; top > 1e-30f; top *= 0.25f)
			for (int effort = FIT_RTN; effort <= FIT_SEARCH; effort++)
				for (int weighted = 0; weighted < 2; weighted++) {
					float most = 0;
					for (size_t i = 0; i < n; i++) {
						x[i] = top * (float)((int)(i * 7919 % 201) - 100) / 100;
						w[i] = 1 + (float)(i % 3);
					}
					codec_encode_row(c, &(struct row_job){ x, weighted ? w : NULL, n, (enum fit_effort)effort }, codes, bytes);
					c->decode(c, bytes, y, n);
					for (size_t i = 0; i < n; i++)
						most = fabsf(y[i]) > most ? fabsf(y[i]) : most;
					if (!(most <= 2 * top) || (c->kind == CODEC_BLOCK && strcmp(c->name, "mxfp4") && top < 1e-11f && most > 0))
						fail_msg("%s, effort %d: %g becomes %g", c->name, effort, (double)top, (double)most);
				}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(document), cmocka_unit_test(lookup), cmocka_unit_test(sizes), cmocka_unit_test(plain_types),
		cmocka_unit_test(worked_examples), cmocka_unit_test(plain_rules), cmocka_unit_test(packing),
		cmocka_unit_test(storing), cmocka_unit_test(rounding), cmocka_unit_test(search_is_never_worse),
		cmocka_unit_test(paths_agree), cmocka_unit_test(zeros), cmocka_unit_test(extremes),
		cmocka_unit_test(constants), cmocka_unit_test(tiny_blocks_do_not_grow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
