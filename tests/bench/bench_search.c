/*
 * Speed of the scale search on one core, in millions of weights a second, for
 * every codec with a fast row encoder and every kernel row this machine has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "codec/codec.h"
#include "kernel/kernel.h"

enum { COLS = 2048, ROWS = 256, REPEAT = 3 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double rate(const struct codec *c, const float *x, const float *w, void *out)
{
	double best = 0;
	for (int k = 0; k < REPEAT; k++) {
		double start = now();
		for (size_t r = 0; r < ROWS; r++)
			c->encode_search(c, x + r * COLS, w, out, COLS);
		double speed = (double)ROWS * COLS / (now() - start) / 1e6;
		best = speed > best ? speed : best;
	}
	return best;
}

int main(void)
{
	float *x = malloc(sizeof(*x) * ROWS * COLS), *w = malloc(sizeof(*w) * COLS);
	void *out = malloc(COLS * sizeof(float));
	struct rng rng = {1};

	if (!x || !w || !out)
		return 6;
	for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
		x[i] = (float)(0.02 * rng_normal(&rng));
	for (size_t i = 0; i < COLS; i++)
		w[i] = (float)rng_unit(&rng);
	for (unsigned k = 0; k < codec_row_count; k++) {
		const struct codec *c = codec_rows[k];
		if (!c->encode_search || !codec_row_bytes(c, COLS))
			continue;
		double scalar[2] = {0};
		for (unsigned r = 0; kernels_row(r); r++)
			if (kernels_select(kernels_row(r)->name)) {
				double plain = rate(c, x, NULL, out), weighted = rate(c, x, w, out);
				scalar[0] = r ? scalar[0] : plain;
				scalar[1] = r ? scalar[1] : weighted;
				printf("%-12s %-8s %7.1f M/s %5.1f x scalar, weighted %7.1f M/s %5.1f x\n", c->name,
				       kernels_row(r)->name, plain, plain / scalar[0], weighted, weighted / scalar[1]);
			}
	}
	free(x);
	free(w);
	free(out);
	return 0;
}
