#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/thread.h"
#include "calib/quant/more_text.h"
#include "calib/quant/own_text.h"
#include "formats/checkpoint.h"
#include "check.h"

enum { CTX = 48, COUNT = 6, FITTED = 3, PIECE = CTX / 8 };

struct written {
	struct checkpoint *checkpoint;
	struct config config;
	struct model *model;
	struct windows text;
	int32_t out[COUNT * CTX];
};

static struct written *written_open(void)
{
	struct written *t = some(1, sizeof *t);
	ok(checkpoint_open("examples/demo", &t->checkpoint, &e));
	ok(checkpoint_config(t->checkpoint, &t->config, &e));
	ok(model_open(&t->config, t->checkpoint->source, &t->model, &e));
	t->text = (struct windows){ .count = FITTED + 1, .ctx = CTX };
	t->text.tokens = some((FITTED + 1) * CTX, sizeof *t->text.tokens);
	/* every token of a window says where it was, so that a piece can be found again */
	for (int32_t i = 0; i < (FITTED + 1) * CTX; i++)
		t->text.tokens[i] = i % CTX ? 10 + i : 1;
	return t;
}

static int write(const struct written *t, uint64_t seed, size_t first, size_t count, int32_t *out)
{
	return own_text_windows(&(struct own_text){ t->model, &t->text, FITTED, seed }, first, count, out, &e);
}

static void written_close(struct written *t)
{
	model_close(t->model);
	config_release(&t->config);
	checkpoint_close(t->checkpoint);
	windows_release(&t->text);
	free(t);
}

static void starts_as_the_text_does(void **state)
{
	(void)state;
	struct written *t = written_open();
	ok(write(t, 5, 0, COUNT, t->out));
	for (size_t i = 0; i < COUNT; i++) {
		const int32_t *w = t->out + i * CTX;
		assert_int_equal(w[0], 1);
		assert_in_range(w[1], 11, 10 + FITTED * CTX - 1);
		for (int k = 1; k < PIECE; k++)
			assert_int_equal(w[k], w[1] + k - 1);
	}
	written_close(t);
}

/* What ends a text is never chosen, even if it is what the model would say: here, any token that it has said. */
static void ends_no_text(void **state)
{
	(void)state;
	struct written *t = written_open();
	ok(write(t, 5, 0, COUNT, t->out));
	t->config.eos[0] = t->out[PIECE];
	t->config.eos_count = 1;
	ok(write(t, 5, 0, COUNT, t->out));
	for (size_t i = 0; i < COUNT; i++)
		for (size_t k = PIECE; k < CTX; k++) {
			int32_t id = t->out[i * CTX + k];
			assert_true(id >= 0 && (uint32_t)id < t->config.vocab && id != t->config.eos[0]);
		}
	written_close(t);
}

/* However many threads, and however many windows at once; another seed writes another text. */
static void depends_on_seed_and_number(void **state)
{
	(void)state;
	struct written *t = written_open();
	int32_t one[CTX], all[COUNT * CTX];
	thread_set(3);
	ok(write(t, 5, 0, COUNT, t->out));
	thread_set(1);
	ok(write(t, 5, 0, COUNT, all));
	assert_memory_equal(all, t->out, sizeof all);
	ok(write(t, 5, 4, 1, one));
	assert_memory_equal(one, t->out + 4 * CTX, sizeof one);
	ok(write(t, 6, 0, COUNT, all));
	assert_memory_not_equal(all, t->out, sizeof all);
	assert_memory_not_equal(t->out, t->out + CTX, CTX * sizeof *all);
	written_close(t);
}

/* The text is what the model would say: its own loss on it is that of its distribution, far below that of chance. */
static void is_what_the_model_says(void **state)
{
	(void)state;
	struct written *t = written_open();
	size_t vocab = t->config.vocab, scored = 0;
	float *hidden = some(CTX * t->config.hidden, sizeof *hidden), *logits = some(CTX * vocab, sizeof *logits);
	double loss = 0;
	struct model_run *run = model_run_new(t->model, 1, CTX, &e);
	assert_non_null(run);
	ok(write(t, 7, 0, COUNT, t->out));
	for (size_t i = 0; i < COUNT; i++) {
		ok(model_forward(run, t->out + i * CTX, &(struct model_batch){ 1, CTX, NULL, NULL }, hidden, &e));
		ok(model_logits(run, hidden, CTX, logits, &e));
		for (size_t k = CTX / 2; k + 1 < CTX; k++, scored++) {
			double sum = 0;
			for (size_t j = 0; j < vocab; j++)
				sum += exp((double)logits[k * vocab + j]);
			loss += log(sum) - (double)logits[k * vocab + (size_t)t->out[i * CTX + k + 1]];
		}
	}
	assert_true(loss / (double)scored < 0.6 * log((double)vocab));
	model_run_free(run);
	free(hidden);
	free(logits);
	written_close(t);
}

/* 16 tokens in a row are too many, 15 may be chance; too many windows are spread. */
static void leaves_out_what_is_known(void **state)
{
	(void)state;
	enum { N = 6, LENGTH = 32 };
	int32_t known[LENGTH], tokens[N * LENGTH];
	const struct windows text = { .tokens = known, .count = 1, .ctx = LENGTH };
	for (int32_t i = 0; i < LENGTH; i++)
		known[i] = i;
	for (int32_t i = 0; i < N * LENGTH; i++)
		tokens[i] = 100 + i;
	memcpy(tokens + 1 * LENGTH + 5, known + 9, 16 * sizeof *known);
	memcpy(tokens + 3 * LENGTH + 5, known + 9, 15 * sizeof *known);
	memcpy(tokens + 4 * LENGTH + 16, known, 16 * sizeof *known);
	struct windows more = { .tokens = tokens, .count = N, .ctx = LENGTH };
	ok(more_text_keep(&text, SIZE_MAX, &more, &e));
	assert_int_equal(more.count, 4);
	const int32_t first[] = { 100, 100 + 2 * LENGTH, 100 + 3 * LENGTH, 100 + 5 * LENGTH };
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(more.tokens[i * LENGTH], first[i]);
	ok(more_text_keep(&text, 2, &more, &e));
	assert_int_equal(more.count, 2);
	assert_int_equal(more.tokens[LENGTH], first[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_as_the_text_does),
		cmocka_unit_test(leaves_out_what_is_known),
		cmocka_unit_test(ends_no_text),
		cmocka_unit_test(depends_on_seed_and_number),
		cmocka_unit_test(is_what_the_model_says),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
