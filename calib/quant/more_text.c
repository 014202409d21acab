#include "calib/quant/more_text.h"

#include <stdlib.h>
#include <string.h>

/* Tokens in a row that two texts have in common by chance only. */
enum { RUN = 16 };

static uint64_t hash_run(const int32_t *t)
{
	uint64_t h = 0xcbf29ce484222325ull;
	for (int i = 0; i < RUN; i++)
		h = (h ^ (uint32_t)t[i]) * 0x100000001b3ull;
	return h;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static bool shares(const uint64_t *runs, size_t n, const int32_t *window, size_t ctx)
{
	for (size_t i = 0; i + RUN <= ctx; i++) {
		uint64_t h = hash_run(window + i);
		if (bsearch(&h, runs, n, sizeof h, by_value))
			return true;
	}
	return false;
}

/* [windows, ctx - RUN + 1] of the text, sorted; NULL without memory. */
static uint64_t *runs_of(const struct windows *text, size_t *n)
{
	size_t each = text->ctx < RUN ? 0 : text->ctx - RUN + 1;
	*n = text->count * each;
	uint64_t *runs = malloc((*n ? *n : 1) * sizeof *runs);
	for (size_t w = 0; runs && w < text->count; w++)
		for (size_t i = 0; i < each; i++)
			runs[w * each + i] = hash_run(text->tokens + w * text->ctx + i);
	if (runs)
		qsort(runs, *n, sizeof *runs, by_value);
	return runs;
}

int more_text_keep(const struct windows *text, size_t most, struct windows *more, struct err *e)
{
	size_t ctx = text->ctx, n, kept = 0, bytes = ctx * sizeof *more->tokens;
	uint64_t *runs = runs_of(text, &n);
	if (!runs)
		return err_nomem(e);
	for (size_t w = 0; w < more->count; w++)
		if (!shares(runs, n, more->tokens + w * ctx, ctx))
			memmove(more->tokens + kept++ * ctx, more->tokens + w * ctx, bytes);
	for (size_t w = 0; kept > most && w < most; w++)
		memmove(more->tokens + w * ctx, more->tokens + w * kept / most * ctx, bytes);
	more->count = kept < most ? kept : most;
	free(runs);
	return ERR_OK;
}
