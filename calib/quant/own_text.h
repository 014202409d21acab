#ifndef QUIRE_CALIB_QUANT_OWN_TEXT_H
#define QUIRE_CALIB_QUANT_OWN_TEXT_H
/*
 * Text that a model writes itself, sampled at temperature 1: more of what it has been trained on than the calibration text
 * shows (LLM-QAT, Liu et al., arXiv 2305.17888).
 */
#include "calib/run/evaluate.h"

struct own_text {
	struct model *model;
	const struct windows *text;
	size_t fitted;              /* the first windows of the text, which may be taken from */
	uint64_t seed;
};
/*
 * out [count, text->ctx]: windows number first .. first + count - 1 of all that a seed gives. Each starts as one of the
 * windows taken from does, goes on with a piece of that window, and with what the model says to it; tokens that end a text
 * are not chosen. The same for any number of threads, and however the windows are asked for.
 */
int own_text_windows(const struct own_text *t, size_t first, size_t count, int32_t *out, struct err *e);
/* Bytes. */
uint64_t own_text_memory(const struct config *c, uint64_t ctx);

#endif
