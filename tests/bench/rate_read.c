/* How fast one thread reads memory that lies in no cache: GB a second of processor time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WORDS = 1 << 25, LANES = 16, REPEAT = 6 };

int main(void)
{
	uint64_t *a = malloc(WORDS * sizeof *a), sum[LANES] = { 0 };
	double best = 1e9;
	if (!a)
		return 6;
	memset(a, 1, WORDS * sizeof *a);
	for (int r = 0; r < REPEAT; r++) {
		clock_t start = clock();
		for (size_t i = 0; i < WORDS; i += LANES)
			for (size_t k = 0; k < LANES; k++)
				sum[k] += a[i + k];
		double took = (double)(clock() - start) / CLOCKS_PER_SEC;
		best = took < best ? took : best;
	}
	for (int k = 1; k < LANES; k++)
		sum[0] += sum[k];
	free(a);
	printf("%.2f\n", sum[0] ? WORDS * sizeof *a / best * 1e-9 : 0);
	return 0;
}
