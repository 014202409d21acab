#ifndef QUIRE_KERNEL_KERNEL_H
#define QUIRE_KERNEL_KERNEL_H
/*
 * Inner loops. One portable C version of each, and versions for instruction
 * sets, chosen once at start. A row of the table per instruction set, every row
 * complete: they are made from one template (template.h).
 *
 * Element-wise kernels give the same bits on every row. Kernels that sum keep a
 * fixed number of partial sums (16 lanes, combined pairwise), so that they do
 * as well.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct search_job;

/* A run of codes in a dense stream, low bits first, 2, 3, 4 or 8 bits each, that begins at a byte: value = scale (code - zero). */
struct code_run {
	const uint8_t *codes;
	int bits;
	float scale, zero;
};

/* Onto what numbers are rounded: scale q + offset, q a whole number in [lo, hi] (code 0 is lo), or one of 1 << bits levels. */
struct code_grid {
	float scale, offset, lo, hi;
	const float *levels;
	int bits;
};

/*
 * A codebook: `count` entries (a multiple of 16) of `width` levels, level[k * count + entry]; shift is added to each level.
 * 64-byte aligned.
 */
struct lattice_table {
	const float *level;
	size_t count;
	int width;
	float shift;
};

/* Block formats with kernels of their own: X(name, elements, bytes); codec/ has their pictures. Those with rounded products: */
#define KERNEL_ROUNDED(X) \
	X(q8_0, 32, 34) \
	X(q4_0, 32, 18) \
	X(q4_1, 32, 20) \
	X(q5_0, 32, 22) \
	X(q5_1, 32, 24) \
	X(q2_k, 256, 84) \
	X(q3_k, 256, 110) \
	X(q4_k, 256, 144) \
	X(q5_k, 256, 176) \
	X(q6_k, 256, 210) \
	X(iq4_nl, 32, 18) \
	X(iq4_xs, 256, 136) \
	X(mxfp4, 32, 17)
/* and those that are only decoded and multiplied as floats. */
#define KERNEL_UNROUNDED(X) \
	X(nvfp4, 64, 36) \
	X(q1_0, 128, 18) \
	X(q2_0, 64, 18) \
	X(tq1_0, 256, 54) \
	X(tq2_0, 256, 66) \
	X(iq1_s, 256, 50) \
	X(iq1_m, 256, 56) \
	X(iq2_xxs, 256, 66) \
	X(iq2_xs, 256, 74) \
	X(iq2_s, 256, 82) \
	X(iq3_xxs, 256, 98) \
	X(iq3_s, 256, 110)
#define KERNEL_BLOCKS(X) KERNEL_ROUNDED(X) KERNEL_UNROUNDED(X)
#define BLOCK_ENUM(NAME, BLOCK, BYTES) BLOCK_##NAME,
enum block_id { KERNEL_BLOCKS(BLOCK_ENUM) BLOCK_KERNELS };
#undef BLOCK_ENUM

/*
 * Activations rounded to signed bytes, as ggml does before it multiplies with a block format (docs/numerics.md): by blocks of
 * 32 (its q8_0 and q8_1), two together and spread for sixteen lanes, lane i with elements 4 i to 4 i + 3, or of 256 (q8_K).
 */
struct rounded32 {
	int8_t q[64];
	float scale[16];   /* of the lane's block */
	float sum[16];     /* an eighth of scale times the block's sum, in half precision */
	int32_t four[16];  /* the lane's elements added up */
};
struct rounded256 {
	int8_t q[256];
	int16_t sum[16];   /* of sixteen elements each */
	float scale;
};

/* y[t * stride + r] of rows that lie one after another and tokens that do, rounded by the block of the format. */
struct rounded_product {
	const uint8_t *src;
	const void *x;
	size_t n, rows, tokens, stride;
	float *y;
};

/* n is a multiple of the block. dot: y[rows] of rows that lie one after another, the bits that `dot` gives for each decoded row. */
struct block_kernel {
	void (*decode)(const void *src, float *dst, size_t n);
	void (*dot)(const void *src, const float *x, size_t n, float *y, size_t rows);
	void (*product)(const struct rounded_product *p); /* NULL: none */
};

struct kernels {
	const char *name;              /* "scalar", "avx2", "avx512", "avx512vnni", "neon" */
	bool (*usable)(void);          /* does this machine have it */

	void (*f32_from_f16)(const void *src, float *dst, size_t n);
	void (*f32_from_bf16)(const void *src, float *dst, size_t n);
	void (*f16_from_f32)(const float *src, void *dst, size_t n);
	void (*bf16_from_f32)(const float *src, void *dst, size_t n);

	struct block_kernel block[BLOCK_KERNELS];

	/* Of n activations, a multiple of the block; out: (n + 63) / 64, or n / 256. */
	void (*round_32)(const float *x, size_t n, struct rounded32 *out);
	void (*round_256)(const float *x, size_t n, struct rounded256 *out);

	/*
	 * Runs of codes; n is a multiple of 16 but for the last of a row. codes_dot adds to 16 partial sums, which
	 * lanes_sum adds up: as dot of the decoded row.
	 */
	void (*codes_decode)(const struct code_run *r, float *dst, size_t n);
	void (*codes_dot)(const struct code_run *r, const float *x, size_t n, float lanes[16]);
	float (*lanes_sum)(const float lanes[16]);

	float (*dot)(const float *a, const float *b, size_t n);
	float (*dot_f16)(const void *src, const float *x, size_t n);        /* as dot of the decoded row */
	float (*dot_bf16)(const void *src, const float *x, size_t n);
	void (*axpy)(float *y, float a, const float *x, size_t n);          /* y += a x */
	float (*sum_squares)(const float *x, size_t n);
	float (*max)(const float *x, size_t n);                             /* n > 0 */
	/* x := exp(x - shift), returns the sum; the exponential is quire's own polynomial, within 2 ulp, on every row */
	float (*exp_sum)(float *x, float shift, size_t n);
	void (*silu_mul)(float *gate, const float *up, size_t n);           /* gate := silu(gate) * up */

	/*
	 * One step of a scale search: with q = x / scale rounded to an integer in [lo, hi] (no offset, no levels),
	 *	sums = { sum w (x - scale q)^2, sum w x q, sum w q^2 }
	 * so that sums[1] / sums[2] is the best scale for these codes. w NULL means 1.
	 */
	void (*grid_scale)(const float *x, const float *w, size_t n, const struct code_grid *g, float sums[3]);

	/* Scale and offset search for block formats, sixteen sub-blocks at a time; see search.h. */
	void (*search_affine)(struct search_job *job);
	void (*search_scaled)(struct search_job *job);
	void (*search_table)(struct search_job *job);

	/* codec_round() of n elements, n a multiple of 16: onto integers, or levels. */
	void (*round_uniform)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes);
	void (*round_table)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes);

	/*
	 * Of every entry of a codebook, against `width` elements: a = sum xw level, b = sum w level^2. An entry under scale s
	 * costs s (s b - 2 a) more than nothing; lattice_at is the first entry with the smallest s b - 2 a.
	 */
	void (*lattice_sums)(const struct lattice_table *t, const float *xw, const float *w, float *a, float *b);
	unsigned (*lattice_at)(const float *a, const float *b, size_t count, float s);

	/* The plain rules of the blocks of 32; n a multiple of 16. NaN counts as 0. */
	void (*extremes)(const float *x, size_t n, float *lo, float *hi);
	/* code = 128 + x inv, rounded half away from zero, |x inv| cut to 127 */
	void (*round_away)(const float *x, size_t n, float inv, uint8_t *codes);
	/* code = (x - offset) / scale + 0.5 - lo, by the reciprocal (0 for a scale of 0), truncated and cut to 0..hi - lo */
	void (*round_down)(const float *x, size_t n, const struct code_grid *g, uint8_t *codes);
};

/* The active kernels, never NULL. */
const struct kernels *kernels(void);
/* Chooses a row by name, or the best usable one when name is NULL or "auto"; false when unknown or not usable here. */
bool kernels_select(const char *name);
/* For tests and benchmarks: every compiled-in row, scalar first; ask usable() before calling. */
const struct kernels *kernels_row(unsigned i); /* NULL past the end */

#endif
