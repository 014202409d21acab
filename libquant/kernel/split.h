#ifndef QUIRE_KERNEL_SPLIT_H
#define QUIRE_KERNEL_SPLIT_H
/*
 * Products of f32 matrices from products of bf16 numbers that are summed in f32, as AMX makes them.
 *
 * A number is the sum of up to three bf16 numbers, exactly: x = x1 + x2 + x3, each the nearest to what is left. Of the nine
 * products of two such sums the six that matter in f32 are taken; what is left out is below 2^-26 of |x w|. A bf16 weight
 * has one part and needs three products, f16 or a code of four bits times a scale two parts and five.
 *
 * What one step does with 32 columns (k) of a row of the left and of the right, for each pair of parts:
 *	even = odd = 0; for p = 0 .. 15: even = fma(l[2p], r[2p], even), odd = fma(l[2p + 1], r[2p + 1], odd)
 *	sum = sum + (even + odd)
 * rounded to nearest even, subnormal operands and results taken as 0. This is the arithmetic of TDPBF16PS, so that the
 * portable version has its bits. Blocks of 512 columns are summed from 0, the small products first, those of first parts
 * last, and added to each other in order: few roundings happen where the sum is large. How rows are cut does not matter.
 *
 * Rows whose largest number is not in [2^-40, 2^40] (or 0), or is none, go through sgemm, so that what is taken as 0 is
 * always far below what rounding loses, and nothing overflows that did not before.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/product.h"

/*
 * A tile: of the left 16 rows of 32 numbers, of the right 16 pairs of numbers of 16 rows (bf16). A strip: a block of up to
 * 16 steps of 16 rows; the tiles of the first part, one for each step, then those of the second and of the third.
 */
enum { SPLIT_SIDE = 16, SPLIT_STEP = 32, SPLIT_PARTS = 3, SPLIT_TILE = SPLIT_SIDE * SPLIT_STEP, SPLIT_BLOCK = 16 };

/* What a strip has: numbers out of range, numbers in the second and the third part. */
enum { SPLIT_OUT = 1, SPLIT_SECOND = 2, SPLIT_THIRD = 4 };

/*
 * A block of numbers, f32 or bf16: row i, column k at i * ld + k; up to 16 rows of up to SPLIT_BLOCK * SPLIT_STEP.
 */
struct split_source {
	const float *at;
	const uint8_t *bf16;
	size_t ld, rows, k;
};

/* Products of a block: 16 or 32 rows of the left (left[1] NULL: 16) by as many of the right. */
struct split_block {
	const uint16_t *left[2], *right[2];     /* strips */
	size_t steps;
	int parts;                              /* of the right */
	float *c;                               /* [16 or 32, 16 or 32] from a row to the next: ld */
	size_t ld;
	bool first;                             /* begin with 0 instead of what is in c */
};

/* What differs between the portable version and those for instructions. */
struct split_ops {
	/*
	 * Takes a strip apart, padded with zeros to full rows and steps (of bf16 numbers the first part alone). most[i]
	 * becomes the bits of the largest |number| of row i if that is more. Returns SPLIT_SECOND, SPLIT_THIRD.
	 */
	unsigned (*left)(const struct split_source *s, uint16_t *out, uint32_t most[SPLIT_SIDE]);
	unsigned (*right)(const struct split_source *s, uint16_t *out, uint32_t most[SPLIT_SIDE]);
	void (*block)(const struct split_block *b);
	/* Around blocks, on each thread. */
	void (*begin)(void);
	void (*end)(void);
};

size_t split_floats(size_t n, size_t rows, size_t cols);
void split_weights(const struct split_ops *ops, const struct product_job *job);
/* f32 by f32: to take both apart costs what the tiles gain. */
void split_gemm(const struct gemm *g);

#endif
