/* Equalization on the demo model: the function stays, outlier channels come into line, ordinary ones are left alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calib/quant/equalize.h"
#include "calib/run/loaded.h"
#include "codec/codec.h"

enum { TOKENS = 24, CHANNEL = 5, FACTOR = 64 };

static void put_scaled(struct overlay *o, struct tensor_source *s, const char *name, float factor)
{
	const struct tensor *meta;
	struct err e = { 0 };
	float *x;
	assert_int_equal(source_read_f32(s, name, &x, &meta, &e), ERR_OK);
	size_t rows = (size_t)tensor_rows(meta), cols = (size_t)tensor_cols(meta);
	for (size_t r = 0; r < rows; r++)
		x[r * cols + CHANNEL] *= factor;
	struct tensor t = *meta;
	t.codec = codec_find("f32");
	assert_int_equal(tensor_measure(&t, &e), ERR_OK);
	assert_int_equal(overlay_put(o, &t, x, &e), ERR_OK);
}

static void logits_of(const struct config *c, struct tensor_source *s, float *out)
{
	struct err e = { 0 };
	struct model *m;
	int32_t tokens[TOKENS];
	for (int i = 0; i < TOKENS; i++)
		tokens[i] = (i * 37 + 1) % (int)c->vocab;
	assert_int_equal(model_open(c, s, &m, &e), ERR_OK);
	struct model_run *r = model_run_new(m, 1, TOKENS, &e);
	float *hidden = malloc(TOKENS * c->hidden * sizeof *hidden);
	assert_non_null(r);
	assert_int_equal(model_forward(r, tokens, &(struct model_batch){ 1, TOKENS, NULL, NULL }, hidden, &e), ERR_OK);
	assert_int_equal(model_logits(r, hidden, TOKENS, out, &e), ERR_OK);
	free(hidden);
	model_run_free(r);
	model_close(m);
}

static void outliers_come_in(void **state)
{
	(void)state;
	struct err e = { 0 };
	struct loaded l;
	assert_int_equal(loaded_open(&l, "examples/demo", &e), ERR_OK);
	struct overlay *wild = overlay_new(l.checkpoint->source, &e), *tame;
	const char *readers[] = { "q", "k", "v" };
	char name[96];
	/* a channel 64 times larger in the norm, its columns 64 times smaller: the same function */
	put_scaled(wild, l.checkpoint->source, "model.layers.1.input_layernorm.weight", FACTOR);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "model.layers.1.self_attn.%s_proj.weight", readers[i]);
		put_scaled(wild, l.checkpoint->source, name, 1.0f / FACTOR);
	}
	tame = overlay_new(overlay_source(wild), &e);
	assert_int_equal(equalize(&l.config, overlay_source(wild), tame, NULL, &e), ERR_OK);

	size_t n = (size_t)TOKENS * l.config.vocab;
	float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
	logits_of(&l.config, l.checkpoint->source, a);
	logits_of(&l.config, overlay_source(tame), b);
	for (size_t i = 0; i < n; i++)
		assert_true(fabsf(a[i] - b[i]) <= 1e-4f * (1 + fabsf(a[i])));

	/* the channel is back within an octave or two of where it was */
	const struct tensor *meta;
	float *before, *after;
	assert_int_equal(source_read_f32(l.checkpoint->source, "model.layers.1.input_layernorm.weight", &before, &meta, &e), 0);
	assert_int_equal(source_read_f32(overlay_source(tame), "model.layers.1.input_layernorm.weight", &after, &meta, &e), 0);
	float ratio = after[CHANNEL] / before[CHANNEL];
	assert_true(ratio > 0.2f && ratio < 5);
	assert_true(ratio != FACTOR);
	free(before);
	free(after);
	free(a);
	free(b);
	overlay_free(tame);
	overlay_free(wild);
	loaded_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(outliers_come_in) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
