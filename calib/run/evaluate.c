#include "calib/run/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/product.h"

const struct protocol_row protocol_rows[] = {
	{ PROTOCOL_LLAMA, "llama", "llama.cpp's: the second half of each window counts" },
	{ PROTOCOL_FULL, "full", "the GPTQ and AWQ papers': every token of a window counts" },
};
const unsigned protocol_row_count = sizeof protocol_rows / sizeof *protocol_rows;

/* Tokens run at once: enough that decoding a weight is small beside multiplying by it, few enough to stay in memory. */
enum { BATCH_TOKENS = 2048 };

int windows_cut(struct windows *w, const int32_t *ids, size_t n, const struct window_options *o, struct err *e)
{
	size_t ctx = o->ctx;
	bool llama = o->protocol == PROTOCOL_LLAMA;
	*w = (struct windows){ .ctx = ctx, .first = llama ? ctx / 2 : 0 };
	if (ctx < 2 || !windows_scored(w))
		return err_set(e, ERR_USAGE, "windows of %zu tokens leave none to score; --ctx must be at least %d", ctx,
			       llama ? 3 : 2);
	w->count = n / ctx;
	if (!w->count)
		return err_set(e, ERR_INPUT, "the text has %zu tokens, fewer than one window of %zu; use more text or a smaller --ctx",
			       n, ctx);
	if (o->most && w->count > o->most)
		w->count = o->most;
	w->tokens = malloc(w->count * ctx * sizeof *w->tokens);
	if (!w->tokens)
		return err_nomem(e);
	memcpy(w->tokens, ids, w->count * ctx * sizeof *w->tokens);
	if (llama && o->bos >= 0)
		for (size_t i = 0; i < w->count; i++)
			w->tokens[i * ctx] = o->bos;
	return ERR_OK;
}

void windows_release(struct windows *w)
{
	free(w->tokens);
	*w = (struct windows){ 0 };
}

/* What one evaluation holds; one entry per model in each array. */
struct state {
	struct model *const *models;
	const struct windows *windows;
	size_t count, vocab;
	struct model_run **run;
	float **hidden, **logits;
	const float **view;
};

static int state_init(struct state *s, struct model *const *models, size_t count, const struct windows *w, size_t batch,
		      struct err *e)
{
	*s = (struct state){ .models = models, .windows = w, .count = count, .vocab = model_config(models[0])->vocab };
	s->run = calloc(count, sizeof *s->run);
	s->hidden = calloc(count, sizeof *s->hidden);
	s->logits = calloc(count, sizeof *s->logits);
	s->view = calloc(count, sizeof *s->view);
	if (!s->run || !s->hidden || !s->logits || !s->view)
		return err_nomem(e);
	for (size_t m = 0; m < count; m++) {
		const struct config *c = model_config(models[m]);
		if (c->vocab != s->vocab)
			return err_set(e, ERR_NOT_COMPARABLE, "the models have vocabularies of %zu and %u tokens", s->vocab, c->vocab);
		s->run[m] = model_run_new(models[m], batch, w->ctx, e);
		if (!s->run[m])
			return e->code;
		s->hidden[m] = malloc(batch * w->ctx * c->hidden * sizeof(float));
		s->logits[m] = malloc(windows_scored(w) * s->vocab * sizeof(float));
		s->view[m] = s->logits[m];
		if (!s->hidden[m] || !s->logits[m])
			return err_nomem(e);
	}
	return ERR_OK;
}

static void state_release(struct state *s)
{
	for (size_t m = 0; m < s->count; m++) {
		if (s->run)
			model_run_free(s->run[m]);
		if (s->hidden)
			free(s->hidden[m]);
		if (s->logits)
			free(s->logits[m]);
	}
	free(s->run);
	free(s->hidden);
	free(s->logits);
	free(s->view);
}

static int check_tokens(const struct windows *w, size_t from, size_t to, size_t vocab, struct err *e)
{
	for (size_t i = from * w->ctx; i < to * w->ctx; i++)
		if (w->tokens[i] < 0 || (size_t)w->tokens[i] >= vocab)
			return err_set(e, ERR_NOT_COMPARABLE,
				       "token id %d is outside the model's vocabulary of %zu; is this its tokenizer?", w->tokens[i], vocab);
	return ERR_OK;
}

size_t evaluate_batch(const struct windows *w)
{
	return BATCH_TOKENS / w->ctx ? BATCH_TOKENS / w->ctx : 1;
}

/* n windows from `at` on through model m, as its variant says. */
static int run_windows(struct state *s, size_t m, const struct eval_variant *v, size_t at, size_t n, struct err *e)
{
	const struct windows *w = s->windows;
	size_t step = v && v->single ? 1 : n, hidden = model_config(s->models[m])->hidden;
	int rc = ERR_OK;
	for (size_t i = 0; i < n && !rc; i += step)
		rc = model_forward(s->run[m], w->tokens + (at + i) * w->ctx, &(struct model_batch){ step, w->ctx, NULL, NULL }, s->hidden[m] + i * w->ctx * hidden, e);
	return rc;
}

struct rows {
	const char *kernels, *products;
};

static void choose_again(struct rows r)
{
	kernels_select(r.kernels);
	products_select(r.products);
}

/* Other kernels bring the products that every machine has. Returns what was chosen, to be chosen again. */
static struct rows choose_rows(const struct eval_variant *v)
{
	struct rows now = { kernels()->name, products()->name };
	if (v && v->kernels)
		choose_again((struct rows){ v->kernels, product_sgemm.name });
	return now;
}

/* Shows window `at` to the visitor, `place` being its place among the windows that have just been run. */
static int show(struct state *s, const struct evaluation *v, size_t at, size_t place, struct err *e)
{
	const struct windows *w = v->windows;
	int rc = ERR_OK;
	for (size_t m = 0; m < v->count && !rc; m++) {
		size_t hidden = model_config(v->models[m])->hidden;
		struct rows chosen = choose_rows(v->variants ? &v->variants[m] : NULL);
		rc = model_logits(s->run[m], s->hidden[m] + (place * w->ctx + w->first) * hidden, windows_scored(w), s->logits[m], e);
		choose_again(chosen);
	}
	struct eval_slice slice = { .window = at, .n = windows_scored(w), .vocab = s->vocab,
				    .target = w->tokens + at * w->ctx + w->first + 1, .logits = s->view };
	return rc ? rc : v->visit(v->arg, &slice, e);
}

int evaluate(const struct evaluation *v, struct err *e)
{
	const struct windows *w = v->windows;
	size_t batch = evaluate_batch(w);
	if (batch > v->to - v->from)
		batch = v->to - v->from;
	struct state s;
	int rc = state_init(&s, v->models, v->count, w, batch, e);
	if (!rc)
		rc = check_tokens(w, v->from, v->to, s.vocab, e);
	uint64_t total = (uint64_t)(v->to - v->from) * w->ctx * v->count, done = 0;
	for (size_t at = v->from; at < v->to && !rc; at += batch) {
		size_t n = v->to - at < batch ? v->to - at : batch;
		for (size_t m = 0; m < v->count && !rc; m++) {
			const struct eval_variant *variant = v->variants ? &v->variants[m] : NULL;
			struct rows chosen = choose_rows(variant);
			rc = run_windows(&s, m, variant, at, n, e);
			choose_again(chosen);
			done += n * w->ctx;
			if (!rc && !progress_tell(v->progress, done, total))
				rc = err_set(e, ERR_IO, "interrupted");
		}
		for (size_t i = 0; i < n && !rc; i++)
			rc = show(&s, v, at + i, i, e);
	}
	state_release(&s);
	return rc;
}
