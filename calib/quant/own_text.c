#include "calib/quant/own_text.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "kernel/kernel.h"

/* One token in so many is the text's. */
enum { PROMPT = 8 };

struct writing {
	struct model *model;
	const struct windows *text;
	size_t fitted, first;
	uint64_t seed;
	int32_t *out;
	atomic_int failed;       /* the first code */
};

/* The room of one window at work. */
struct page {
	struct model_run *run;
	struct kv_cache *cache;
	float *hidden, *logits;
};

static size_t prompt_length(size_t ctx)
{
	return ctx / PROMPT > 1 ? ctx / PROMPT : 1;
}

static int page_open(struct page *p, struct model *m, size_t ctx, struct err *e)
{
	const struct config *c = model_config(m);
	*p = (struct page){ .run = model_run_new(m, 1, prompt_length(ctx), e), .cache = kv_cache_new(c, ctx, e),
			    .hidden = malloc(prompt_length(ctx) * c->hidden * sizeof(float)), .logits = malloc(c->vocab * sizeof(float)) };
	return p->run && p->cache && p->hidden && p->logits ? ERR_OK : err_nomem(e);
}

static void page_close(struct page *p)
{
	model_run_free(p->run);
	kv_cache_free(p->cache);
	free(p->hidden);
	free(p->logits);
}

/* Spoils the logits. */
static int32_t sample(const struct config *c, float *logits, struct rng *rng)
{
	const struct kernels *k = kernels();
	for (uint32_t i = 0; i < c->eos_count; i++)
		if (c->eos[i] >= 0 && (uint32_t)c->eos[i] < c->vocab)
			logits[c->eos[i]] = -INFINITY;
	double at = rng_unit(rng) * (double)k->exp_sum(logits, k->max(logits, c->vocab), c->vocab);
	int32_t last = 0;
	for (uint32_t i = 0; i < c->vocab; i++) {
		if (!(logits[i] > 0))
			continue;
		last = (int32_t)i;
		at -= (double)logits[i];
		if (at < 0)
			break;
	}
	return last;
}

static int write_window(struct writing *w, struct page *p, size_t number, int32_t *out, struct err *e)
{
	const struct config *c = model_config(w->model);
	size_t ctx = w->text->ctx, len = prompt_length(ctx), told = 0;
	struct rng rng = { w->seed ^ (number + 1) * 0xd1342543de82ef95ull };
	const int32_t *from = w->text->tokens + (size_t)rng_below(&rng, w->fitted) * ctx;
	out[0] = from[0];
	memcpy(out + 1, from + 1 + (size_t)rng_below(&rng, ctx - len + 1), (len - 1) * sizeof *out);
	for (; len < ctx; len++) {
		int rc = model_forward(p->run, out + told, &(struct model_batch){ 1, len - told, p->cache, NULL }, p->hidden, e);
		if (!rc)
			rc = model_logits(p->run, p->hidden + (len - told - 1) * c->hidden, 1, p->logits, e);
		if (rc)
			return rc;
		told = len;
		out[len] = sample(c, p->logits, &rng);
	}
	return ERR_OK;
}

static void one_window(void *arg, size_t item, int worker)
{
	struct writing *w = arg;
	struct page p;
	struct err e;
	(void)worker;
	int rc = page_open(&p, w->model, w->text->ctx, &e);
	if (!rc)
		rc = write_window(w, &p, w->first + item, w->out + item * w->text->ctx, &e);
	page_close(&p);
	if (rc)
		atomic_store(&w->failed, rc);
}

int own_text_windows(const struct own_text *t, size_t first, size_t count, int32_t *out, struct err *e)
{
	struct writing w = { .model = t->model, .text = t->text, .fitted = t->fitted, .first = first, .seed = t->seed, .out = out };
	atomic_init(&w.failed, ERR_OK);
	thread_for(count, one_window, &w);
	int rc = atomic_load(&w.failed);
	return !rc ? ERR_OK : rc == ERR_NOMEM ? err_nomem(e) : err_set(e, rc, "the model cannot continue the text");
}

uint64_t own_text_memory(const struct config *c, uint64_t ctx)
{
	uint64_t threads = (uint64_t)thread_count(), kv = 0;
	for (uint32_t i = 0; i < c->layers; i++)
		kv += 2 * (uint64_t)c->layer[i].kv_heads * c->head_dim;
	/* caches, logits, and a prompt's activations */
	return 4 * threads * (ctx * kv + c->vocab + ctx / PROMPT * (8 * (uint64_t)c->hidden + 4 * (uint64_t)c->ffn));
}
