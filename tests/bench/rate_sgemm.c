/* The machine's sgemm rate: GFLOP/s of [512, 2048] x [2048, 2048] by the clock, and per second of processor time. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/thread.h"
#include "kernel/blas.h"

enum { M = 512, N = 2048, REPEAT = 24 };

static double now(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(void)
{
	float *a = calloc((size_t)M * N, sizeof *a), *b = calloc((size_t)N * N, sizeof *b), *c = calloc((size_t)M * N, sizeof *c);
	const double flops = 2.0 * M * N * N;
	double wall = 1e9, cpu = 1e9;
	if (!a || !b || !c)
		return 6;
	for (size_t i = 0; i < (size_t)N * N; i++)
		b[i] = (float)(i % 97) * 0.01f;
	for (size_t i = 0; i < (size_t)M * N; i++)
		a[i] = (float)(i % 89) * 0.01f;
	blas_set_threads(thread_count());
	for (int k = 0; k < REPEAT; k++) {
		double w = now(CLOCK_MONOTONIC), p = now(CLOCK_PROCESS_CPUTIME_ID);
		blas_gemm(false, true, M, N, N, 1, a, N, b, N, 0, c, N);
		w = now(CLOCK_MONOTONIC) - w;
		p = now(CLOCK_PROCESS_CPUTIME_ID) - p;
		wall = w < wall ? w : wall;
		cpu = p < cpu ? p : cpu;
	}
	printf("%.1f %.1f\n", flops / wall * 1e-9, flops / cpu * 1e-9);
	free(a);
	free(b);
	free(c);
	return 0;
}
