#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "calib/quant/latent.h"
#include "codec/codec.h"
#include "check.h"

enum { ROWS = 20, COLS = 512, STRIDE = COLS + 1, STEPS = 40 };

/* A matrix in f32 over nothing, and over it the same in a codec. */
struct matrix {
	struct tensor_source empty;
	struct overlay *original, *quantized;
	struct plan_item item;
	float w[ROWS * COLS], value[ROWS * STRIDE], grad[ROWS * STRIDE];
	struct latent_shared shared;
	struct latent latent;
};

static void put(struct overlay *o, const struct codec *c, const float *w, struct tensor *out)
{
	uint8_t scratch[COLS];
	*out = (struct tensor){ .name = "w", .codec = c, .ndim = 2, .dim = { ROWS, COLS } };
	ok(tensor_measure(out, &e));
	uint8_t *bytes = some(out->nbytes, 1);
	for (size_t r = 0; r < ROWS; r++)
		codec_encode_row(c, &(struct row_job){ w + r * COLS, NULL, COLS, FIT_RTN }, scratch, bytes + r * codec_row_bytes(c, COLS));
	ok(overlay_put(o, out, bytes, &e));
}

static struct matrix *matrix_open(const struct codec *c)
{
	struct matrix *m = some(1, sizeof *m);
	struct rng rng = { 3 };
	struct tensor ignored;
	for (size_t i = 0; i < ROWS * COLS; i++)
		m->w[i] = 0.02f * (float)rng_normal(&rng);
	ok(source_index(&m->empty, &e));
	m->original = overlay_new(&m->empty, &e);
	put(m->original, codec_find("f32"), m->w, &ignored);
	m->quantized = overlay_new(overlay_source(m->original), &e);
	put(m->quantized, c, m->w, &m->item.out);
	m->shared = (struct latent_shared){ .steps = STEPS, .rate = 0.05, .scale_rate = 0.3, .follow = 0.3f, .flat = some(ROWS * COLS, sizeof(float)),
					    .flat_scales = some(2 * ROWS * COLS, sizeof(float)) };
	ok(latent_open(&m->latent, &m->item, overlay_source(m->quantized), overlay_source(m->original),
		       &(struct latent_room){ m->value, m->grad, STRIDE, &m->shared }, &e));
	return m;
}

static void matrix_close(struct matrix *m)
{
	latent_close(&m->latent);
	free(m->shared.flat);
	free(m->shared.flat_scales);
	overlay_free(m->quantized);
	overlay_free(m->original);
	map_release(&m->empty.index);
	free(m);
}

/* By value: a zero may come with either sign. */
static bool equal(const float *a, const float *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* Before training the weights and bytes are the file's, in every codec: storing what was stored changes nothing. */
static void starts_where_the_file_is(void **state)
{
	(void)state;
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *c = codec_rows[i];
		if (!codec_quantizes(c))
			continue;
		struct matrix *m = matrix_open(c);
		const struct tensor *meta;
		float *decoded;
		uint64_t moved;
		ok(source_read_f32(overlay_source(m->quantized), "w", &decoded, &meta, &e));
		for (size_t r = 0; r < ROWS; r++)
			if (!equal(decoded + r * COLS, m->value + r * STRIDE, COLS))
				fail_msg("%s: row %zu is not what the file decodes to", c->name, r);
		ok(latent_keep(&m->latent, &moved, &e));
		assert_int_equal(moved, 0);
		if (memcmp(m->latent.best, m->latent.bytes, m->item.out.nbytes))
			fail_msg("%s: other bytes", c->name);
		free(decoded);
		matrix_close(m);
	}
}

static double miss(const struct matrix *m, const float *target)
{
	double sum = 0;
	for (size_t r = 0; r < ROWS; r++)
		for (size_t i = 0; i < COLS; i++) {
			double d = (double)m->value[r * STRIDE + i] - (double)target[r * COLS + i];
			sum += d * d;
		}
	return sum;
}

/* Steps against the gradient of the distance to another matrix come closer to it, and what is packed is what was shown. */
static void follows_a_gradient(void **state)
{
	static const char *const names[] = { "q4_0", "q4_1", "q4_k", "q6_k", "q3_k", "iq4_nl", "int4-g128", "int8-row" };
	(void)state;
	for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
		const struct codec *c = codec_find(names[k]);
		struct matrix *m = matrix_open(c);
		struct rng rng = { 4 };
		float *target = some(ROWS * COLS, sizeof *target), *decoded = some(COLS, sizeof *decoded);
		for (size_t i = 0; i < ROWS * COLS; i++)
			target[i] = 1.02f * m->w[i] + 0.003f * (float)rng_normal(&rng);
		double before = miss(m, target);
		for (int s = 0; s < STEPS; s++) {
			for (size_t r = 0; r < ROWS; r++)
				for (size_t i = 0; i < COLS; i++)
					m->grad[r * STRIDE + i] = m->value[r * STRIDE + i] - target[r * COLS + i];
			ok(latent_step(&m->latent, &e));
		}
		ok(latent_show(&m->latent, true, &e));
		double after = miss(m, target);
		if (!(after < 0.85 * before))
			fail_msg("%s: the distance was %g and is %g", c->name, before, after);
		uint64_t moved;
		ok(latent_keep(&m->latent, &moved, &e));
		assert_true(moved > 0);
		for (size_t r = 0; r < ROWS; r++) {
			c->decode(c, m->latent.best + r * codec_row_bytes(c, COLS), decoded, COLS);
			assert_true(equal(decoded, m->value + r * STRIDE, COLS));
		}
		free(target);
		free(decoded);
		matrix_close(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_where_the_file_is),
		cmocka_unit_test(follows_a_gradient),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
