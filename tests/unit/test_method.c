#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "algo/quantize.h"
#include "base/rng.h"

static double error(const struct quantize_job *job)
{
	uint64_t row = codec_row_bytes(job->codec, job->cols);
	float *y = malloc(job->cols * sizeof(*y));
	double sum = 0;
	assert_non_null(y);
	for (size_t r = 0; r < job->rows; r++) {
		job->codec->decode(job->codec, job->dst + r * row, y, job->cols);
		for (size_t i = 0; i < job->cols; i++) {
			double d = (double)job->x[r * job->cols + i] - y[i];
			sum += (job->importance ? (double)job->importance[i] : 1) * d * d;
		}
	}
	free(y);
	return sum;
}

static float x[6 * 512], w[512];
static uint8_t dst[6 * 512 * 4 + 1], slice[6 * 512 * 4];

static int setup(void **state)
{
	struct rng rng;
	(void)state;
	rng = (struct rng){9};
	for (size_t i = 0; i < 6 * 512; i++)
		x[i] = (float)(0.04 * (rng_unit(&rng) + rng_unit(&rng) + rng_unit(&rng) - 1.5));
	for (size_t i = 0; i < 512; i++)
		w[i] = (float)(rng_unit(&rng) * (i % 16 ? 0.1 : 10));
	return 0;
}

/* Every quantizing codec: search is at or below rtn, weighted or not, and slices of rows give the same bytes. */
static void every_codec(void **state)
{
	const struct method *rtn = method_find("rtn"), *search = method_find("search");
	struct err e;
	int seen = 0;

	(void)state;
	for (unsigned k = 0; k < codec_row_count; k++) {
		const struct codec *c = codec_rows[k];
		uint64_t row = codec_row_bytes(c, 512);
		if (!codec_quantizes(c) || !row)
			continue;
		seen++;
		for (int weighted = 0; weighted < 2; weighted++) {
			struct quantize_job job = {.codec = c, .x = x, .rows = 6, .cols = 512, .dst = dst,
						   .importance = weighted ? w : NULL};
			dst[6 * row] = 0x5a;
			assert_int_equal(rtn->run(&job, &e), 0);
			double plain = error(&job);
			assert_int_equal(search->run(&job, &e), 0);
			double best = error(&job);
			assert_true(best <= plain * 1.00001);
			assert_int_equal(dst[6 * row], 0x5a);
			for (size_t r = 0; r < 6; r += 2) {
				struct quantize_job part = job;
				part.x = x + r * 512;
				part.rows = 2;
				part.dst = slice + r * row;
				assert_int_equal(search->run(&part, &e), 0);
			}
			assert_memory_equal(dst, slice, 6 * row);
		}
	}
	assert_true(seen >= 8);
}

static void refusals(void **state)
{
	struct err e = {0};
	struct quantize_job job = {.codec = codec_find("q4_k"), .x = x, .rows = 1, .cols = 100, .dst = dst};

	(void)state;
	assert_int_equal(method_find("search")->run(&job, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "100"));
	job.codec = codec_find("i32");
	assert_int_equal(method_find("rtn")->run(&job, &e), ERR_UNSUPPORTED);
	assert_null(method_find("no-such-method"));
	for (unsigned i = 0; i < method_row_count; i++) {
		assert_ptr_equal(method_find(method_rows[i].name), &method_rows[i]);
		assert_non_null(method_rows[i].summary);
		assert_non_null(method_rows[i].run);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_codec), cmocka_unit_test(refusals)};
	return cmocka_run_group_tests(tests, setup, NULL);
}
