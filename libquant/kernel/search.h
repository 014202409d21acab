#ifndef QUIRE_KERNEL_SEARCH_H
#define QUIRE_KERNEL_SEARCH_H
/*
 * The parameter search of formats whose sub-block scales (and offsets) are small
 * integers times a half-precision super-scale:
 *
 *	value = (d * sc) * level + -(dmin * mn)
 *
 * Sixteen sub-blocks are searched side by side, one per lane, so that no sum
 * ever crosses lanes: every instruction set gives the same bits, and so does a
 * sub-block in any lane. Formats with one stored scale per block are searched in
 * the same way, with sc = mn = 1.
 *
 * The search is alternating least squares: a grid of starting steps, each
 * rounded and refitted in closed form; then a scan of super-scales on the
 * quadratic that the fit left; then moves of the integer scales and offsets, each
 * judged by rounding the elements again. The error is the one of the stored values.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum { SEARCH_LANES = 16, SEARCH_MAX_SUB = 128 };

/* What a format can store. */
struct search_grid {
	int n;                    /* elements of a sub-block: 16, 32, or with free scales any number up to SEARCH_MAX_SUB */
	int subs;                 /* sub-blocks under one super-scale: 1, 8 or 16 */
	float level_lo, level_hi; /* smallest and largest level */
	float sc_lo, sc_hi;       /* range of the integer scale */
	float mn_hi;              /* largest integer offset; 0: the format has none */
	const float *levels;      /* 16 ascending levels, or NULL: every integer */
	/* Without offsets: the largest element starts this many levels past either end, `starts` times. */
	float start_first, start_step;
	int starts;
	/*
	 * The scale (and offset, of either sign) is stored as a half, or the scale as a bfloat16: subs and all sc and mn
	 * are 1 then. The plain rule gives the largest element this level; positive: its magnitude.
	 */
	bool free, bf16;
	float plain_level;
};

struct search_job {
	const struct search_grid *grid;
	bool plain;               /* the plain rule only: no search */
	bool store;               /* no elements: rounds the free scales and offsets in s, o */
	bool weighted;            /* else every weight is 1 and w is not read */
	/* x[16 i + lane], w[16 i + lane]: element i of the lane's sub-block and its weight, finite, w in [0, 1]; 64-byte aligned */
	const float *x;
	const float *w;
	float s[SEARCH_LANES], o[SEARCH_LANES];
	/* Results. d and dmin per lane, equal within a super-block, exactly representable in half precision. */
	float d[SEARCH_LANES], dmin[SEARCH_LANES];
	float sc[SEARCH_LANES], mn[SEARCH_LANES];
};

/* The functions of one instruction set; see kernel.h. */
#define SEARCH_FUNCTIONS(set) \
	void search_affine_##set(struct search_job *job); \
	void search_scaled_##set(struct search_job *job); \
	void search_table_##set(struct search_job *job); \
	void round_uniform_##set(const float *x, size_t n, const struct code_grid *g, uint8_t *codes); \
	void round_table_##set(const float *x, size_t n, const struct code_grid *g, uint8_t *codes); \
	void extremes_##set(const float *x, size_t n, float *lo, float *hi); \
	void round_away_##set(const float *x, size_t n, float inv, uint8_t *codes); \
	void round_down_##set(const float *x, size_t n, const struct code_grid *g, uint8_t *codes); \
	void lattice_sums_##set(const struct lattice_table *t, const float *xw, const float *w, float *a, float *b); \
	unsigned lattice_at_##set(const float *a, const float *b, size_t count, float s)

SEARCH_FUNCTIONS(base);
SEARCH_FUNCTIONS(avx2);
SEARCH_FUNCTIONS(avx512);

#endif
