/* For tests over the library's calls: each must succeed, and says why when it does not. Include after cmocka.h. */
#ifndef QUIRE_TESTS_CHECK_H
#define QUIRE_TESTS_CHECK_H
#include <math.h>
#include <stdlib.h>

#include "base/err.h"

static struct err e;

static inline void ok(int rc)
{
	if (rc)
		fail_msg("%d: %s", rc, e.message);
}

/* Zeroed; the test ends when there is none. */
static inline void *some(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	assert_non_null(p);
	return p;
}

/* The largest difference over the largest value of b. No fmax: gcc 12 fails to compile a loop of it for arm64. */
static inline double distance(const float *a, const float *b, size_t n)
{
	double most = 0, diff = 0;
	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - b[i]), v = fabs((double)b[i]);
		diff = !(d <= diff) ? d : diff;
		most = v > most ? v : most;
	}
	return diff / most;
}
#endif
