/* Times the kernels of every usable row, as ratios to the scalar one, and decoding (as a ratio to memcpy) and encoding of every codec. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"

enum { COLS = 4096, ROWS = 64 };

static float x[COLS], y[COLS], w[COLS];
static float products[ROWS];
static uint8_t bytes[ROWS * 8 * COLS], scratch[COLS];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nanoseconds per element of the fastest of a few runs. */
#define TIME(REPEAT, CALL) __extension__({ \
	double best_ = 1e9; \
	for (int run_ = 0; run_ < 5; run_++) { \
		double start_ = now(); \
		for (unsigned rep_ = 0; rep_ < (REPEAT); rep_++) { CALL; } \
		double took_ = (now() - start_) / (REPEAT); \
		best_ = took_ < best_ ? took_ : best_; \
	} \
	1e9 * best_ / COLS; })

enum { FIGURES = 5 };
static volatile float sink;

static void time_kernels(const struct kernels *k, double took[FIGURES])
{
	float sums[3];
	const struct code_grid grid = { .scale = 0.3f, .lo = -8, .hi = 7 };
	took[0] = TIME(1000, sink = k->dot(x, w, COLS));
	took[1] = TIME(1000, k->axpy(y, 0.1f, x, COLS));
	took[2] = TIME(1000, (memcpy(y, x, sizeof x), sink = k->exp_sum(y, 0, COLS)));
	took[3] = TIME(1000, (memcpy(y, x, sizeof x), k->silu_mul(y, w, COLS)));
	took[4] = TIME(1000, k->grid_scale(x, w, COLS, &grid, sums));
}

int main(void)
{
	struct rng r = { 1 };
	for (int i = 0; i < COLS; i++) {
		x[i] = (float)rng_normal(&r);
		w[i] = (float)rng_unit(&r);
	}
	static const char *const names[FIGURES] = { "dot", "axpy", "exp_sum", "silu_mul", "grid_scale" };
	double scalar[FIGURES] = { 0 };
	for (unsigned i = 0; kernels_row(i); i++) {
		double took[FIGURES];
		if (!kernels_row(i)->usable())
			continue;
		time_kernels(kernels_row(i), took);
		for (int f = 0; f < FIGURES; f++) {
			scalar[f] = i ? scalar[f] : took[f];
			printf("%-8s %-10s %7.3f ns/element %6.1f x scalar\n", kernels_row(i)->name, names[f], took[f], scalar[f] / took[f]);
		}
	}
	double copy = TIME(1000, (memcpy(y, x, sizeof x), sink = y[rep_ % COLS]));
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *c = codec_rows[i];
		uint64_t size = codec_row_bytes(c, COLS);
		double times[2] = { 0 };
		if (!c->encode && !codec_quantizes(c))
			continue;
		for (int e = 0; e < (codec_quantizes(c) ? 2 : 1); e++)
			times[e] = TIME(2, codec_encode_row(c, &(struct row_job){ x, w, COLS, e ? FIT_SEARCH : FIT_RTN }, scratch, bytes));
		for (size_t k = 1; k < ROWS; k++)
			memcpy(bytes + k * size, bytes, (size_t)size);
		double t = TIME(4 * ROWS, c->decode(c, bytes + rep_ % ROWS * size, y, COLS));
		double dot = c->dot ? TIME(4, c->dot(c, bytes, x, COLS, products, ROWS)) / ROWS : 0;
		printf("%-18s decode %6.2f GB/s of f32, %4.2f of memcpy  dot %6.3f ns/element  rtn %7.2f ns/element  search %8.2f ns/element\n", c->name, 4 / t, copy / t,
		       dot, times[0], times[1]);
	}
	return 0;
}
