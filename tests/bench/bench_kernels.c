/* Times the kernels of every usable row, and decoding and encoding of every codec. Prints one line per figure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"

enum { COLS = 4096, ROWS = 64 };

static float x[COLS], y[COLS], w[COLS];
static uint8_t bytes[ROWS][8 * COLS], scratch[COLS];

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
		for (int rep_ = 0; rep_ < (REPEAT); rep_++) { CALL; } \
		double took_ = (now() - start_) / (REPEAT); \
		best_ = took_ < best_ ? took_ : best_; \
	} \
	1e9 * best_ / COLS; })

int main(void)
{
	struct rng r = { 1 };
	volatile float sink;
	for (int i = 0; i < COLS; i++) {
		x[i] = (float)rng_normal(&r);
		w[i] = (float)rng_unit(&r);
	}
	for (unsigned i = 0; kernels_row(i); i++) {
		const struct kernels *k = kernels_row(i);
		if (!k->usable())
			continue;
		float sums[3];
		printf("%-8s dot         %7.3f ns/element\n", k->name, TIME(1000, sink = k->dot(x, w, COLS)));
		printf("%-8s axpy        %7.3f ns/element\n", k->name, TIME(1000, k->axpy(y, 0.1f, x, COLS)));
		printf("%-8s exp_sum     %7.3f ns/element\n", k->name, TIME(1000, (memcpy(y, x, sizeof x), sink = k->exp_sum(y, 0, COLS))));
		printf("%-8s silu_mul    %7.3f ns/element\n", k->name, TIME(1000, (memcpy(y, x, sizeof x), k->silu_mul(y, w, COLS))));
		printf("%-8s grid_scale  %7.3f ns/element\n", k->name, TIME(1000, k->grid_scale(x, w, COLS, 0.3f, -8, 7, sums)));
	}
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *c = codec_rows[i];
		uint64_t size = codec_row_bytes(c, COLS);
		double times[2] = { 0 };
		if (!c->encode && !codec_quantizes(c))
			continue;
		for (int e = 0; e < (codec_quantizes(c) ? 2 : 1); e++)
			times[e] = TIME(2, codec_encode_row(c, x, w, COLS, e ? FIT_SEARCH : FIT_RTN, scratch, bytes[0]));
		for (int k = 1; k < ROWS; k++)
			memcpy(bytes[k], bytes[0], (size_t)size);
		double t = TIME(4 * ROWS, c->decode(c, bytes[rep_ % ROWS], y, COLS));
		printf("%-18s decode %6.2f GB/s of f32  rtn %7.2f ns/element  search %8.2f ns/element\n", c->name, 4 / t,
		       times[0], times[1]);
	}
	(void)sink;
	return 0;
}
