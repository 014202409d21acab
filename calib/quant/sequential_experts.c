/*
 * Matrices of experts. Each sees only the tokens that go to it, so that all moments of a layer come from few passes over the
 * text, as many experts at once as memory allows. One that saw fewer tokens than it has columns knows less than their number
 * of directions: it waits until all others are through, takes the lacking tokens from the mean of the layer's experts, and is
 * not corrected towards the original's output, for which its own tokens are too few.
 */
#include "calib/quant/sequential_impl.h"

#include <stdlib.h>

enum { MEMORY = 1 << 30 };

struct pool {
	double *own, tokens; /* sums */
};

static void add_to_pool(struct pool *p, const struct moments *m)
{
	for (size_t i = 0; i < m->n * m->n; i++)
		p->own[i] += m->own[i];
	p->tokens += (double)m->tokens;
}

static void borrow(const struct pool *p, struct moments *m)
{
	double lack = ((double)m->n - (double)m->tokens) / (double)m->n;
	moments_combine(m, 1 / (double)m->n, NULL, 0);
	for (size_t i = 0; i < m->n * m->n && p->tokens > 0; i++)
		m->own[i] += lack * p->own[i] / p->tokens;
}

/* Own and cross moments, fitted and held out, of each. */
static size_t at_once(size_t n, uint32_t experts)
{
	size_t fit = n ? MEMORY / (4 * n * n * sizeof(double)) : experts;
	return fit < 1 ? 1 : fit < experts ? fit : experts;
}

uint64_t sequential_experts_memory(const struct config *c, uint64_t batch)
{
	uint64_t n = c->hidden > c->expert_ffn ? c->hidden : c->expert_ffn;
	return c->experts ? (4 * at_once(n, c->experts) + 1) * n * n * sizeof(double) + 2 * batch * c->experts_used * n * sizeof(float) : 0;
}

struct work {
	struct driver *d;
	const struct group *g;
	uint32_t layer;
	size_t n, room;              /* columns; experts at once */
	struct group_moments *x;    /* [room] */
	struct pool pool;
	uint32_t *few;               /* experts that wait */
	size_t few_count;
	group_quantize *one;
};

static int one_of(struct work *w, struct group_moments *x, struct err *e)
{
	struct moments *fit = &x->fit, *held = &x->held;
	if (x->shared || !fit->tokens || !held->tokens) {
		moments_combine(fit, 1, held, 1);
		moments_release(held);
		if (x->shared)
			borrow(&w->pool, fit);
		else
			moments_combine(fit, 1 / (double)fit->tokens, NULL, 0);
	} else {
		moments_combine(fit, 1 / (double)fit->tokens, NULL, 0);
		moments_combine(held, 1 / (double)held->tokens, NULL, 0);
	}
	return w->one(w->d, w->g, place_of(w->layer, x->expert), x, e);
}

/* Experts of a list; all of them (NULL): those with too few tokens are put aside. */
static int some(struct work *w, const uint32_t *list, size_t from, size_t count, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < count && !rc; i++) {
		w->x[i] = (struct group_moments){ .expert = list ? list[from + i] : (uint32_t)(from + i), .shared = list != NULL };
		rc = moments_init(&w->x[i].fit, w->n, w->d->config->hidden, false, e);
		if (!rc)
			rc = moments_init(&w->x[i].held, w->n, w->d->config->hidden, false, e);
	}
	if (!rc)
		rc = gather_experts(w->d, w->g, w->layer, w->x, count, e);
	for (size_t i = 0; i < count && !rc; i++) {
		struct group_moments *x = &w->x[i];
		if (!list) {
			add_to_pool(&w->pool, &x->fit);
			add_to_pool(&w->pool, &x->held);
		}
		if (!list && x->fit.tokens + x->held.tokens < w->n)
			w->few[w->few_count++] = x->expert;
		else
			rc = one_of(w, x, e);
		moments_release(&x->fit);
		moments_release(&x->held);
	}
	for (size_t i = 0; i < count && rc; i++) {
		moments_release(&w->x[i].fit);
		moments_release(&w->x[i].held);
	}
	return rc;
}

int each_expert(struct driver *d, const struct group *g, uint32_t layer, group_quantize *one, struct err *e)
{
	struct block b;
	block_make(d->config, layer, &b);
	struct work w = { .d = d, .g = g, .layer = layer, .n = block_width(&b, g->role[0]), .one = one };
	w.room = at_once(w.n, g->experts);
	w.x = calloc(w.room, sizeof *w.x);
	w.few = calloc(g->experts, sizeof *w.few);
	w.pool.own = calloc(w.n * w.n, sizeof *w.pool.own);
	int rc = w.x && w.few && w.pool.own ? ERR_OK : err_nomem(e);
	for (size_t at = 0; at < g->experts && !rc; at += w.room)
		rc = some(&w, NULL, at, g->experts - at < w.room ? g->experts - at : w.room, e);
	for (size_t at = 0; at < w.few_count && !rc; at += w.room)
		rc = some(&w, w.few, at, w.few_count - at < w.room ? w.few_count - at : w.room, e);
	d->done += (uint64_t)d->text->count * d->text->ctx;
	free(w.x);
	free(w.few);
	free(w.pool.own);
	return rc;
}
