#ifndef QUIRE_CALIB_RUN_EVALUATE_H
#define QUIRE_CALIB_RUN_EVALUATE_H
/*
 * Runs one or several models over the same windows of tokens and shows their
 * logits, side by side, to a visitor. Everything that judges a model (perplexity,
 * KL divergence, baselines, comparisons, attribution) is such a visitor.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/progress.h"
#include "model/model.h"
#include "plan/plan.h"

/*
 * llama: the text is cut into windows of ctx tokens, the tail is dropped, the first token of each window is replaced by
 *        BOS when the tokenizer adds one, and positions ctx/2 .. ctx-2 score the token after them (llama.cpp's definition).
 * full:  windows of ctx, nothing replaced, every position but the last scores the token after it (the GPTQ and AWQ papers').
 */
enum protocol { PROTOCOL_LLAMA, PROTOCOL_FULL };

struct protocol_row {
	enum protocol protocol;
	const char *name, *summary;
};
extern const struct protocol_row protocol_rows[];
extern const unsigned protocol_row_count;

struct windows {
	int32_t *tokens;   /* [count, ctx], owned */
	size_t count, ctx;
	size_t first;      /* positions first .. ctx - 2 are scored */
};
static inline size_t windows_scored(const struct windows *w) /* tokens scored per window */
{
	return w->ctx - 1 - w->first;
}
/* Windows [from, to): a view, not to be released. */
static inline struct windows windows_part(const struct windows *w, size_t from, size_t to)
{
	return (struct windows){ w->tokens + from * w->ctx, to - from, w->ctx, w->first };
}

struct window_options {
	enum protocol protocol;
	size_t ctx;
	size_t most;       /* windows; 0: all that the text has */
	int32_t bos;       /* of the tokenizer; < 0: it adds none */
};
/* ERR_INPUT when the text is shorter than one window. */
int windows_cut(struct windows *w, const int32_t *ids, size_t n, const struct window_options *o, struct err *e);
void windows_release(struct windows *w);

/* The scored positions of one window: n rows, row i scores target[i]. */
struct eval_slice {
	size_t window, n, vocab;
	const int32_t *target;        /* [n] */
	const float *const *logits;   /* per model, [n, vocab] */
};
typedef int eval_visit(void *arg, const struct eval_slice *s, struct err *e);

/*
 * How one of the models is run, to see what the machine itself does to the figures: with other kernels (a row of
 * kernels_row(), NULL: those chosen), and window by window.
 */
struct eval_variant {
	const char *kernels;
	bool single;
};
/* Windows that evaluate() runs at once. Parts of a run that begin at multiples of it do exactly what the whole run does. */
size_t evaluate_batch(const struct windows *w);

struct evaluation {
	struct model *const *models;         /* [count] */
	size_t count;
	const struct eval_variant *variants; /* [count], or NULL */
	const struct windows *windows;
	size_t from, to;                     /* of the windows, run in order */
	eval_visit *visit;                   /* its error ends the run */
	void *arg;
	const struct progress *progress;     /* in tokens */
};
/* All models must have the same vocabulary size (else ERR_NOT_COMPARABLE). With variants it changes the chosen kernels while it runs. */
int evaluate(const struct evaluation *v, struct err *e);

#endif
