/*
 * Products with weights by every row of the table, as ratios to sgemm in the same run: weights in bf16, in 16 bits of
 * mantissa (two bf16 parts) and in f32, at the widths of models of 100 M and 1 B. And what f32 multiply-adds the processor
 * can do at most, one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "base/thread.h"
#include "kernel/product.h"
#include "tensor/half.h"

enum { TOKENS = 1024, REPEAT = 7, FORMS = 3 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct problem {
	size_t rows, cols;
	float *x, *w, *y;
	uint8_t *bf16;
};

static void decode(const void *arg, size_t first, size_t n, float *out)
{
	const struct problem *p = arg;
	memcpy(out, p->w + first * p->cols, n * p->cols * sizeof *out);
}

/* GFLOP/s of the fastest of some runs, by processor time. */
static double rate(const struct product_row *row, const struct problem *p, bool bf16)
{
	size_t floats = row->floats(TOKENS, p->rows, p->cols);
	float *scratch = malloc(floats * sizeof *scratch);
	struct product_term t = { { p->rows, p->cols, bf16 ? PRODUCT_BF16 : PRODUCT_CODED, p->bf16, decode, p }, NULL, p->y };
	double best = 1e9;
	for (int k = 0; scratch && k < REPEAT; k++) {
		double start = now();
		row->weights(&(struct product_job){ &t, 1, p->x, TOKENS, scratch, floats });
		start = now() - start;
		best = start < best ? start : best;
	}
	free(scratch);
	return 2e-9 * TOKENS * (double)p->rows * (double)p->cols / best;
}

static void one_shape(size_t rows, size_t cols)
{
	static const char *const names[FORMS] = { "bf16", "two parts", "f32" };
	struct rng r = { 1 };
	struct problem p = { rows, cols, malloc(TOKENS * cols * 4), malloc(rows * cols * 4), malloc(TOKENS * rows * 4), malloc(rows * cols * 2) };
	if (!p.x || !p.w || !p.y || !p.bf16)
		exit(6);
	for (size_t i = 0; i < TOKENS * cols; i++)
		p.x[i] = (float)rng_normal(&r);
	for (int form = 0; form < FORMS; form++) {
		for (size_t i = 0; i < rows * cols; i++) {
			p.w[i] = f32_from_bits(f32_bits((float)rng_normal(&r)) & ~0u << (16 - 8 * form));
			p.bf16[2 * i] = (uint8_t)(f32_bits(p.w[i]) >> 16);
			p.bf16[2 * i + 1] = (uint8_t)(f32_bits(p.w[i]) >> 24);
		}
		double plain = rate(&product_sgemm, &p, form == 0);
		printf("%d x %zu x %zu, weights %-9s  sgemm %.1f GFLOP/s", TOKENS, cols, rows, names[form], plain);
		const struct product_row *row;
		for (unsigned k = 0; (row = products_row(k)); k++)
			if (row != &product_sgemm && row != &product_split && row->usable())
				printf("  %s %.2f of it", row->name, rate(row, &p, form == 0) / plain);
		putchar('\n');
	}
	free(p.x);
	free(p.w);
	free(p.y);
	free(p.bf16);
}

/* Ten vectors of sums that do not wait for each other. */
static double peak(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	if (__builtin_cpu_supports("avx512f")) {
		enum { LOOPS = 1 << 22 };
		double start = now();
		for (int i = 0; i < LOOPS; i++)
			__asm__ volatile("vfmadd231ps %%zmm0, %%zmm1, %%zmm2\n\tvfmadd231ps %%zmm0, %%zmm1, %%zmm3\n\t"
					 "vfmadd231ps %%zmm0, %%zmm1, %%zmm4\n\tvfmadd231ps %%zmm0, %%zmm1, %%zmm5\n\t"
					 "vfmadd231ps %%zmm0, %%zmm1, %%zmm6\n\tvfmadd231ps %%zmm0, %%zmm1, %%zmm7\n\t"
					 "vfmadd231ps %%zmm0, %%zmm1, %%zmm8\n\tvfmadd231ps %%zmm0, %%zmm1, %%zmm9\n\t"
					 "vfmadd231ps %%zmm0, %%zmm1, %%zmm10\n\tvfmadd231ps %%zmm0, %%zmm1, %%zmm11"
					 ::: "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
		return 10 * 32e-9 * LOOPS / (now() - start);
	}
#endif
	return 0;
}

int main(void)
{
	thread_set(1);
	if (peak() > 0)
		printf("f32 multiply-adds at most %.1f GFLOP/s, one thread\n", peak());
	one_shape(2048, 768);
	one_shape(768, 2048);
	one_shape(2048, 2048);
	return 0;
}
