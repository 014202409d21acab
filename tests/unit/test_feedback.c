/* Error feedback on every quantizing codec: what it reports is what was written, and it beats rounding alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "algo/feedback.h"
#include "base/rng.h"
#include "base/thread.h"

enum { N = 512, ROWS = 40, SAMPLES = 1500 };

/* Inputs as a network has them: correlated channels of unlike size. */
static double *moments(size_t n, uint64_t seed)
{
	struct rng r = { seed };
	double *h = calloc(n * n, sizeof *h);
	float *x = malloc(n * sizeof *x), *size = malloc(n * sizeof *size);
	for (size_t i = 0; i < n; i++)
		size[i] = (float)exp(rng_normal(&r));
	for (int s = 0; s < SAMPLES; s++) {
		double common = rng_normal(&r);
		for (size_t i = 0; i < n; i++)
			x[i] = size[i] * (float)(rng_normal(&r) + 1.5 * common * (i % 7 == 0) + 0.5 * common);
		for (size_t i = 0; i < n; i++)
			for (size_t j = 0; j < n; j++)
				h[i * n + j] += (double)x[i] * x[j] / SAMPLES;
	}
	free(x);
	free(size);
	return h;
}

static float *weights(size_t count, uint64_t seed)
{
	struct rng r = { seed };
	float *w = malloc(count * sizeof *w);
	for (size_t i = 0; i < count; i++)
		w[i] = (float)(0.05 * rng_normal(&r));
	return w;
}

static void every_codec(void **state)
{
	(void)state;
	double *h = moments(N, 3);
	float *w = weights((size_t)ROWS * N, 4), *q = malloc((size_t)ROWS * N * sizeof *q);
	struct curvature *c;
	struct err e = { 0 };
	assert_int_equal(curvature_new(h, N, 0.01, &c, &e), ERR_OK);
	int tried = 0;
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *codec = codec_rows[i];
		if (!codec_quantizes(codec) || codec_row_bytes(codec, N) == 0)
			continue;
		tried++;
		size_t bytes = (size_t)codec_row_bytes(codec, N);
		uint8_t *dst = malloc(bytes * ROWS), *again = malloc(bytes * ROWS);
		struct feedback_job plain = { .codec = codec, .w = w, .rows = ROWS, .curvature = c, .dst = again };
		struct feedback_job job = { .codec = codec, .w = w, .rows = ROWS, .curvature = c, .sweeps = 3, .dst = dst };
		assert_int_equal(feedback_quantize(&plain, &e), ERR_OK);
		assert_int_equal(feedback_quantize(&job, &e), ERR_OK);
		for (size_t r = 0; r < ROWS; r++)
			codec->decode(codec, dst + r * bytes, q + r * N, N);
		double real = feedback_objective(c, w, q, ROWS);
		if (fabs(real - job.after) > 1e-3 * real || plain.after > 0.9 * job.before || job.after > plain.after)
			fail_msg("%s: search %g, feedback %g, with descent %g (written: %g)", codec->name, job.before, plain.after,
				 job.after, real);
		thread_set(1);
		memset(again, 0, bytes * ROWS);
		job.dst = again;
		assert_int_equal(feedback_quantize(&job, &e), ERR_OK);
		thread_set(0);
		assert_memory_equal(dst, again, bytes * ROWS);
		free(dst);
		free(again);
	}
	assert_true(tried >= 8);
	curvature_free(c);
	free(h);
	free(w);
	free(q);
}

static void bad_moments(void **state)
{
	(void)state;
	double zero[4] = { 0 }, nan[4] = { 1, NAN, NAN, 1 }, negative[4] = { 1, 0, 0, -1 }, singular[4] = { 1, 1, 1, 1 };
	double dead[4] = { 2, 0, 0, 0 };
	struct curvature *c;
	struct err e = { 0 };
	assert_int_equal(curvature_new(zero, 2, 0.01, &c, &e), ERR_INPUT);
	assert_int_equal(curvature_new(nan, 2, 0.01, &c, &e), ERR_INPUT);
	assert_int_equal(curvature_new(negative, 2, 0.01, &c, &e), ERR_INPUT);
	assert_int_equal(curvature_new(singular, 2, 0, &c, &e), ERR_OK);
	assert_true(c->damping > 0);
	curvature_free(c);
	assert_int_equal(curvature_new(dead, 2, 0.01, &c, &e), ERR_OK);
	assert_int_equal(c->dead, 1);
	assert_int_equal(c->order[0], 0);
	curvature_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_codec),
		cmocka_unit_test(bad_moments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
