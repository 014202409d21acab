#include "calib/fold/refit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "algo/adam.h"
#include "algo/ridge.h"

const struct refit_options refit_defaults = { .steps = 200, .batch = 8, .rate = 0.02, .ridge = 1e-4, .seed = 1 };

enum { PARTS = 4 };

static float *part(const struct attention_weights *w, int i)
{
	return i == 0 ? w->q : i == 1 ? w->k : i == 2 ? w->v : w->o;
}

size_t refit_batch(const struct refit_options *o)
{
	return o->batch;
}

static struct attention_batch batch_at(const struct refit_job *f, size_t first, size_t count)
{
	const struct attention_weights *s = &f->f->shape;
	size_t at = first * f->f->ctx, kv = (size_t)s->kv_heads * s->dim;
	return (struct attention_batch){ .seqs = count, .x = f->t->x + at * s->cols, .target = f->t->target + at * s->hidden,
					 .keys = f->t->keys ? f->t->keys + at * kv : NULL,
					 .values = f->t->values ? f->t->values + at * kv : NULL };
}

/* Mean squared error on the held-out windows. */
static int judge(const struct refit_job *f, double *error, struct err *e)
{
	size_t from = f->t->windows - f->t->held;
	double sum = 0, loss;
	for (size_t at = from; at < f->t->windows; at += f->o->batch) {
		size_t n = f->t->windows - at < f->o->batch ? f->t->windows - at : f->o->batch;
		struct attention_batch b = batch_at(f, at, n);
		int rc = attention_fit_run(f->f, f->w, &b, NULL, &loss, e);
		if (rc)
			return rc;
		sum += loss;
	}
	*error = sum / ((double)f->t->held * (double)f->f->ctx * f->f->shape.hidden);
	return ERR_OK;
}

/* W_O by least squares on what the heads put out now. */
static int fit_output(const struct refit_job *f, struct err *e)
{
	const struct attention_weights *s = &f->f->shape;
	size_t q = (size_t)s->heads * s->dim, train = f->t->windows - f->t->held, ctx = f->f->ctx;
	struct ridge r;
	float *error = malloc(f->o->batch * ctx * s->hidden * sizeof *error);
	int rc = ridge_init(&r, q, s->hidden, e);
	if (!error && !rc)
		rc = err_nomem(e);
	for (size_t at = 0; at < train && !rc; at += f->o->batch) {
		size_t n = train - at < f->o->batch ? train - at : f->o->batch;
		struct attention_batch b = batch_at(f, at, n);
		double loss;
		rc = attention_fit_run(f->f, f->w, &b, NULL, &loss, e);
		if (rc)
			break;
		const float *twice = attention_fit_errors(f->f);
		for (size_t i = 0; i < n * ctx * s->hidden; i++)
			error[i] = -0.5f * twice[i];
		ridge_add(&r, attention_fit_heads(f->f), error, n * ctx);
	}
	if (!rc)
		rc = ridge_solve(&r, f->o->ridge, f->w->o, e);
	ridge_release(&r);
	free(error);
	return rc;
}

static void copy_weights(const struct attention_weights *from, struct attention_weights *to)
{
	for (int i = 0; i < PARTS; i++)
		memcpy(part(to, i), part(from, i), attention_weights_count(from, i) * sizeof(float));
}

/* Windows in an order that changes every round. */
static void shuffle(uint32_t *order, size_t n, struct rng *r)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = (size_t)rng_below(r, i);
		uint32_t t = order[i - 1];
		order[i - 1] = order[k];
		order[k] = t;
	}
}

/* Windows of a step, gathered side by side. */
struct gathered {
	float *x, *target, *keys, *values;
	uint32_t *order;
	size_t next;
	struct rng rng;
};

static int gathered_init(struct gathered *g, const struct refit_job *f, struct err *e)
{
	const struct attention_weights *s = &f->f->shape;
	size_t n = f->o->batch * f->f->ctx, train = f->t->windows - f->t->held, kv = (size_t)s->kv_heads * s->dim;
	*g = (struct gathered){ .rng = { f->o->seed } };
	g->x = malloc(n * s->cols * sizeof(float));
	g->target = malloc(n * s->hidden * sizeof(float));
	g->keys = f->t->keys ? malloc(n * kv * sizeof(float)) : NULL;
	g->values = f->t->values ? malloc(n * kv * sizeof(float)) : NULL;
	g->order = malloc(train * sizeof *g->order);
	if (!g->x || !g->target || !g->order || (f->t->keys && (!g->keys || !g->values)))
		return err_nomem(e);
	for (size_t i = 0; i < train; i++)
		g->order[i] = (uint32_t)i;
	shuffle(g->order, train, &g->rng);
	return ERR_OK;
}

static void gathered_release(struct gathered *g)
{
	free(g->x);
	free(g->target);
	free(g->keys);
	free(g->values);
	free(g->order);
}

static struct attention_batch gather_next(struct gathered *g, const struct refit_job *f)
{
	const struct attention_weights *s = &f->f->shape;
	size_t ctx = f->f->ctx, train = f->t->windows - f->t->held, kv = (size_t)s->kv_heads * s->dim;
	size_t n = f->o->batch < train ? f->o->batch : train;
	for (size_t i = 0; i < n; i++) {
		if (g->next == train) {
			shuffle(g->order, train, &g->rng);
			g->next = 0;
		}
		size_t at = g->order[g->next++] * ctx, to = i * ctx;
		memcpy(g->x + to * s->cols, f->t->x + at * s->cols, ctx * s->cols * sizeof(float));
		memcpy(g->target + to * s->hidden, f->t->target + at * s->hidden, ctx * s->hidden * sizeof(float));
		if (g->keys) {
			memcpy(g->keys + to * kv, f->t->keys + at * kv, ctx * kv * sizeof(float));
			memcpy(g->values + to * kv, f->t->values + at * kv, ctx * kv * sizeof(float));
		}
	}
	return (struct attention_batch){ .seqs = n, .x = g->x, .target = g->target, .keys = g->keys, .values = g->values };
}

static int descend(const struct refit_job *f, struct err *e)
{
	struct attention_weights grad;
	struct adam a = { 0 };
	struct gathered g = { 0 };
	int rc = attention_weights_new(&grad, f->w, f->w->kv_heads, e);
	if (rc)
		return rc;
	rc = adam_init(&a, PARTS, f->o->steps, f->o->rate, e);
	for (int i = 0; i < PARTS && !rc; i++)
		if (!f->t->keys || i == 0 || i == PARTS - 1) /* another layer's keys and values stay */
			rc = adam_add(&a, part(f->w, i), part(&grad, i), attention_weights_count(f->w, i), e);
	if (!rc)
		rc = gathered_init(&g, f, e);
	for (int step = 0; step < f->o->steps && !rc; step++) {
		struct attention_batch b = gather_next(&g, f);
		double loss;
		rc = attention_fit_run(f->f, f->w, &b, &grad, &loss, e);
		if (!rc && !isfinite(loss))
			rc = err_set(e, ERR_INPUT, "activations are not finite");
		if (!rc)
			adam_step(&a);
		if (!rc && !progress_tell(f->progress, (uint64_t)step + 1, (uint64_t)f->o->steps))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	gathered_release(&g);
	attention_weights_release(&grad);
	adam_release(&a);
	return rc;
}

/* Keeps the new weights if they are better on the held-out windows, else goes back to `best`. */
static int accept(const struct refit_job *f, struct attention_weights *best, double *error, struct err *e)
{
	double now;
	int rc = judge(f, &now, e);
	if (!rc && now < *error) {
		*error = now;
		copy_weights(f->w, best);
	} else if (!rc) {
		copy_weights(best, f->w);
	}
	return rc;
}

int refit_attention(const struct refit_job *f, struct refit_report *r, struct err *e)
{
	struct attention_weights best;
	int rc = attention_weights_new(&best, f->w, f->w->kv_heads, e);
	if (rc)
		return rc;
	copy_weights(f->w, &best);
	rc = judge(f, &r->start, e);
	r->output = r->start;
	if (!rc)
		rc = fit_output(f, e);
	if (!rc)
		rc = accept(f, &best, &r->output, e);
	r->joint = r->output;
	if (!rc && f->o->steps) {
		rc = descend(f, e);
		if (!rc)
			rc = accept(f, &best, &r->joint, e);
		if (!rc)
			rc = fit_output(f, e);
		if (!rc)
			rc = accept(f, &best, &r->joint, e);
	}
	attention_weights_release(&best);
	return rc;
}
