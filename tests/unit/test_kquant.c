#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "tensor/half.h"

static const char *const names[] = {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4",
				    "nvfp4", "q1_0", "q2_0", "tq1_0", "tq2_0",
				    "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"};
enum { NAMES = sizeof(names) / sizeof(*names), LONG = 5 * 256 };

static const struct codec *codec(const char *name)
{
	const struct codec *c = codec_find(name);
	assert_non_null(c);
	return c;
}

static void read_golden(const char *name, void *buf, size_t size)
{
	char path[200];
	snprintf(path, sizeof(path), "tests/golden/kquant/%s", name);
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fread(buf, 1, size, f), size);
	assert_int_equal(fgetc(f), EOF);
	fclose(f);
}

/* Random bytes decode to the bits that the public gguf package gives: tests/golden/make_kquant.py. */
static void decode_golden(void **state)
{
	(void)state;
	for (int t = 0; t < NAMES; t++) {
		const struct codec *c = codec(names[t]);
		uint8_t raw[4 * 210 + 4 * 256 * 4], again[210], codes[256];
		float got[4 * 256];
		char file[32];
		size_t size = 4 * c->block_bytes, n = 4 * c->block;

		snprintf(file, sizeof(file), "%s.bin", names[t]);
		read_golden(file, raw, size + 4 * n);
		c->decode(c, raw, got, n);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(f32_bits(got[i]), load_u32(raw + size + 4 * i));
		for (unsigned b = 0; b < 4; b++) {
			struct block_params p = {0};
			c->unpack(c, raw + b * c->block_bytes, &p, codes, c->block);
			for (unsigned i = 0; i < c->block; i++) {
				float v = codec_value(c, p.scale[i / c->sub], p.offset[i / c->sub], codes[i]);
				assert_int_equal(f32_bits(v), f32_bits(got[b * c->block + i]));
			}
			c->pack(c, &p, codes, c->block, again);
			if (strcmp(c->name, "tq1_0") || b < 2) /* the others hold bytes that no encoder writes */
				assert_memory_equal(again, raw + b * c->block_bytes, c->block_bytes);
		}
	}
}

static void scale_examples(void **state)
{
	static const uint8_t sc4[8] = {1, 2, 3, 63, 5, 20, 40, 63}, mn4[8] = {0, 10, 33, 63, 7, 16, 48, 62};
	static const uint8_t want4[12] = {0x01, 0x42, 0x83, 0xff, 0x00, 0x4a, 0xe1, 0xff, 0x75, 0x04, 0x08, 0xef};
	static const uint8_t sc3[16] = {0, 1, 31, 32, 33, 63, 37, 27, 42, 22, 52, 12, 62, 2, 47, 16};
	static const uint8_t want3[12] = {0xa0, 0x61, 0x4f, 0xc0, 0xe1, 0x2f, 0xf5, 0x0b, 0xe8, 0x1c, 0xb9, 0x46};
	static const uint8_t scx[8] = {0, 15, 16, 31, 32, 47, 48, 63};
	static const uint8_t wantx[6] = {0x50, 0xfa, 0xf0, 0xf0, 0xf0, 0xf0};
	struct block_params p = {0};
	uint8_t codes[256] = {0}, out[210];

	(void)state;
	memcpy(p.sc, sc4, 8);
	memcpy(p.mn, mn4, 8);
	codec("q4_k")->pack(codec("q4_k"), &p, codes, 256, out);
	assert_memory_equal(out + 4, want4, 12);
	codec("q5_k")->pack(codec("q5_k"), &p, codes, 256, out);
	assert_memory_equal(out + 4, want4, 12);
	memcpy(p.sc, sc3, 16);
	codec("q3_k")->pack(codec("q3_k"), &p, codes, 256, out);
	assert_memory_equal(out + 96, want3, 12);
	memcpy(p.sc, scx, 8);
	codec("iq4_xs")->pack(codec("iq4_xs"), &p, codes, 256, out);
	assert_memory_equal(out + 2, wantx, 6);
}

/* Which bytes of a block a code, or a sub-block's scale, of element 200 touches. */
static void element_200(void **state)
{
	static const struct {
		const char *name;
		uint8_t code, sc, mn;
		struct { int at, value; } byte[5];
	} rows[] = {
		{"q2_k", 3, 0, 0, {{16 + 40, 0x30}, {-1, 0}}},
		{"q2_k", 0, 15, 9, {{12, 0x9f}, {-1, 0}}},
		{"q3_k", 7, 0, 0, {{32 + 40, 0x30}, {8, 0x40}, {-1, 0}}},
		{"q3_k", 0, 63, 0, {{96 + 4, 0xf0}, {96 + 8, 0xc0}, {-1, 0}}},
		{"q4_k", 15, 0, 0, {{16 + 104, 0x0f}, {-1, 0}}},
		{"q4_k", 0, 63, 63, {{4 + 10, 0xff}, {4 + 2, 0xc0}, {4 + 6, 0xc0}, {-1, 0}}},
		{"q5_k", 31, 0, 0, {{48 + 104, 0x0f}, {16 + 8, 0x40}, {-1, 0}}},
		{"q5_k", 0, 63, 63, {{4 + 10, 0xff}, {4 + 2, 0xc0}, {4 + 6, 0xc0}, {-1, 0}}},
		{"q6_k", 43, 0, 0, {{72, 0xb0}, {128 + 40, 0x20}, {-1, 0}}},
		{"q6_k", 0, 0x85, 0, {{192 + 12, 0x85}, {-1, 0}}},
		{"iq4_xs", 15, 0, 0, {{8 + 104, 0x0f}, {-1, 0}}},
		{"iq4_xs", 0, 63, 0, {{4 + 3, 0x0f}, {2 + 1, 0x30}, {-1, 0}}},
	};

	(void)state;
	for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
		const struct codec *c = codec(rows[r].name);
		struct block_params p = {0};
		uint8_t codes[256] = {0}, got[210], want[210] = {0};
		codes[200] = rows[r].code;
		p.sc[200 / c->sub] = rows[r].sc;
		p.mn[200 / c->sub] = rows[r].mn;
		c->pack(c, &p, codes, 256, got);
		for (int k = 0; rows[r].byte[k].at >= 0; k++)
			want[rows[r].byte[k].at] = (uint8_t)rows[r].byte[k].value;
		assert_memory_equal(got, want, c->block_bytes);
	}
}

static void mxfp4_example(void **state)
{
	static const float half[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -.5f, -1, -1.5f, -2, -3, -4, -6, 0};
	static const uint8_t want[17] = {0x80, 0x70, 0x50, 0x51, 0x51, 0x52, 0x53, 0x54, 0x55,
					 0x50, 0x59, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x50};
	float x[32];
	uint8_t out[17], scratch[CODEC_MAX_BLOCK];

	(void)state;
	memcpy(x, half, sizeof(half));
	x[16] = 12;
	for (int i = 17; i < 32; i++)
		x[i] = 6;
	codec_encode_row(codec("mxfp4"), &(struct row_job){ x, NULL, 32, FIT_RTN }, scratch, out);
	assert_memory_equal(out, want, 17);
}

static void encode(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort, uint8_t *out)
{
	uint8_t scratch[CODEC_MAX_BLOCK];
	codec_encode_row(c, &(struct row_job){ x, w, n, effort }, scratch, out);
}

static double error(const struct codec *c, const float *x, const float *w, size_t n, const uint8_t *bytes, bool relative)
{
	float *y = malloc(n * sizeof(*y));
	double sum = 0, all = 0;
	assert_non_null(y);
	c->decode(c, bytes, y, n);
	for (size_t i = 0; i < n; i++) {
		double r = (double)x[i] - y[i], k = w ? (double)w[i] : 1;
		assert_true(isfinite(y[i]));
		sum += k * r * r;
		all += k * (double)x[i] * x[i];
	}
	free(y);
	return relative ? sum / all : sum;
}

/* A row of some shape of numbers, and weights of some shape; both vary with the seed. */
static void make_row(uint64_t seed, float *x, float *w, size_t n)
{
	struct rng rng;
	rng = (struct rng){seed};
	double size = pow(10, (double)(seed % 9) - 6), shift = seed % 4 == 3 ? 2 : 0;
	for (size_t i = 0; i < n; i++) {
		double a = 0;
		for (int k = 0; k < 4; k++)
			a += rng_unit(&rng) - 0.5;
		if (seed % 5 == 1 && rng_unit(&rng) < 0.02)
			a *= 20; /* outliers */
		if (seed % 5 == 2 && i / 32 % 2)
			a = 0;
		x[i] = (float)(size * (a + shift));
		w[i] = (float)(seed % 7 == 4 && i % 64 < 32 ? 0 : pow(rng_unit(&rng), 4));
	}
}

static void search_beats_plain(void **state)
{
	(void)state;
	for (int t = 0; t < NAMES; t++) {
		const struct codec *c = codec(names[t]);
		for (uint64_t seed = 0; seed < 60; seed += c->together ? 7 : 1) {
			float x[LONG], w[LONG];
			uint8_t plain[LONG * 2], search[LONG * 2];
			make_row(seed, x, w, LONG);
			/* block by block: no block may pay for another */
			for (size_t at = 0; at < LONG; at += c->block)
				for (int weighted = 0; weighted < 2; weighted++) {
					const float *k = weighted ? w + at : NULL;
					encode(c, x + at, NULL, c->block, FIT_RTN, plain);
					encode(c, x + at, k, c->block, FIT_SEARCH, search);
					double p = error(c, x + at, k, c->block, plain, false);
					double s = error(c, x + at, k, c->block, search, false);
					/* the search sums in single precision; one part in 10^5 is its rounding */
					assert_true(s <= p * 1.00001);
				}
		}
	}
}

/* fit, round and pack one block at a time give the bytes of the fast row encoder, on every kernel row. */
static void generic_is_fast(void **state)
{
	(void)state;
	for (int t = 0; t < NAMES; t++) {
		const struct codec *c = codec(names[t]);
		for (uint64_t seed = 0; seed < 12; seed += c->together ? 5 : 1) {
			float x[LONG], w[LONG];
			uint8_t want[LONG * 2], got[LONG * 2], codes[256];
			const float *k = seed & 1 ? w : NULL;
			enum fit_effort effort = seed % 3 == 2 ? FIT_RTN : FIT_SEARCH;
			uint8_t *out = want;

			make_row(seed + 100, x, w, LONG);
			if (effort == FIT_RTN)
				k = NULL;
			assert_true(kernels_select("scalar"));
			for (size_t at = 0; at < LONG; at += c->block, out += c->block_bytes) {
				struct block_params p = {0};
				c->fit(c, x + at, k ? k + at : NULL, c->block, effort, &p);
				codec_round_block(c, &p, x + at, k ? k + at : NULL, c->block, codes);
				c->pack(c, &p, codes, c->block, out);
			}
			for (unsigned r = 0; kernels_row(r); r++) {
				if (!kernels_row(r)->usable())
					continue;
				assert_true(kernels_select(kernels_row(r)->name));
				memset(got, 0xa5, sizeof(got));
				encode(c, x, k, LONG, effort, got);
				assert_memory_equal(got, want, (size_t)(out - want));
				assert_int_equal(got[out - want], 0xa5);
			}
			kernels_select(NULL);
		}
	}
}

/* Sixteen rows of a trained model; relative errors that ggml's own quantizers reach on them, without and with weights. */
static void quality(void **state)
{
	static const struct {
		const char *name;
		double plain, weighted;
	} rows[] = {
		{"q2_k", 0.0841725, 0.0607395}, {"q3_k", 0.0215246, 0.0180054}, {"q4_k", 0.00485556, 0.00442411},
		{"q5_k", 0.0012358, 0.00107928}, {"q6_k", 0.000303964, 0.000265586},
		{"iq4_nl", 0.00574547, 0.005171}, {"iq4_xs", 0.00587576, 0.00531403},
		{"mxfp4", 0.0136735, 0.0138613},
		/* weights of one where it refuses to do without */
		{"iq1_s", 0.233584, 0.202104}, {"iq1_m", 0.201609, 0.160014}, {"iq2_xxs", 0.11764, 0.0888673},
		{"iq2_xs", 0.0909632, 0.0679057}, {"iq2_s", 0.0680938, 0.051422}, {"iq3_xxs", 0.045747, 0.0236807},
		{"iq3_s", 0.0255471, 0.01484}, {"tq1_0", 0.623618, 0.624867}, {"tq2_0", 0.623618, 0.624867},
		{"q2_0", 0.50234, 0.500924}, {"q1_0", 0.350053, 0.346644}, {"nvfp4", 0.0101864, 0.010179},
	};
	uint8_t raw[16 * 256 * 2], out[16 * 256];
	float x[16 * 256], w[16 * 256];

	(void)state;
	read_golden("weights.bf16", raw, sizeof(raw));
	for (size_t i = 0; i < 16 * 256; i++) {
		x[i] = f32_from_bf16(load_u16(raw + 2 * i));
		w[i] = (float)(0.05 + (double)(i % 256 % 7) / 3);
	}
	for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
		const struct codec *c = codec(rows[r].name);
		encode(c, x, NULL, 16 * 256, FIT_SEARCH, out);
		assert_true(error(c, x, NULL, 16 * 256, out, true) <= rows[r].plain * 1.00001);
		encode(c, x, w, 16 * 256, FIT_SEARCH, out);
		assert_true(error(c, x, w, 16 * 256, out, true) < rows[r].weighted);
	}
}

/* Whatever goes in, finite numbers come out, and a block of nothing stays nothing. */
static void hostile_numbers(void **state)
{
	static const float odd[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-44f, 1e30f, 1, -1e-8f, 6e4f};
	enum { ODD = sizeof(odd) / sizeof(*odd) };

	(void)state;
	for (int t = 0; t < NAMES; t++) {
		const struct codec *c = codec(names[t]);
		for (int k = 0; k < 4 * ODD; k++)
			for (int effort = FIT_RTN; effort <= FIT_SEARCH; effort++) {
				float x[256], w[256], y[256];
				uint8_t out[256];
				for (int i = 0; i < 256; i++) {
					x[i] = k < ODD ? odd[k] : odd[(i * k + i / 16) % ODD];
					w[i] = k % 3 ? odd[(i + k) % ODD] : 0;
				}
				encode(c, x, k & 1 ? w : NULL, 256, (enum fit_effort)effort, out);
				c->decode(c, out, y, 256);
				for (int i = 0; i < 256; i++) {
					assert_true(isfinite(y[i]));
					if (k < 2)
						assert_true(y[i] == 0);
				}
			}
	}
}

/* What store() makes of free parameters is what the fields then say, and is close to them. */
static void store_rounds(void **state)
{
	(void)state;
	for (int t = 0; t < NAMES; t++) {
		const struct codec *c = codec(names[t]);
		struct block_params p = {0}, q = {0}, was;
		uint8_t out[210], codes[256] = {0};
		struct rng rng;

		rng = (struct rng){5};
		assert_non_null(c->store);
		for (unsigned j = 0; j < c->block / c->sub; j++) {
			p.scale[j] = (float)(0.01 * (0.5 + rng_unit(&rng)));
			p.offset[j] = c->has_offset ? (float)(-0.05 * (0.5 + rng_unit(&rng))) : 0;
		}
		was = p;
		c->store(c, &p, c->block);
		c->pack(c, &p, codes, c->block, out);
		c->unpack(c, out, &q, codes, c->block);
		for (unsigned j = 0; j < c->block / c->sub; j++) {
			assert_int_equal(f32_bits(p.scale[j]), f32_bits(q.scale[j]));
			assert_int_equal(f32_bits(p.offset[j]), f32_bits(q.offset[j]));
			/* coarsest: a power of two (a factor of 1.42), one scale for two, 4-bit scales (a sixteenth of the largest) */
			bool coarse = !strcmp(names[t], "mxfp4") || !strcmp(names[t], "iq1_m");
			assert_true(fabsf(p.scale[j] - was.scale[j]) < (coarse ? 0.0065f : 0.0016f));
			if (!c->together) /* where an offset is a sign alone */
				assert_true(fabsf(p.offset[j] - was.offset[j]) < 0.008f);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decode_golden), cmocka_unit_test(scale_examples), cmocka_unit_test(element_200),
		cmocka_unit_test(mxfp4_example), cmocka_unit_test(search_beats_plain), cmocka_unit_test(generic_is_fast),
		cmocka_unit_test(quality), cmocka_unit_test(hostile_numbers), cmocka_unit_test(store_rounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
