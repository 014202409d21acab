#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "algo/adam.h"
#include "algo/ridge.h"
#include "calib/fold/share_parts.h"

/* A batch of windows of every member, gathered side by side. */
struct joint {
	struct share_member *m;
	size_t count, windows, held;
	const struct refit_options *o;
	struct attention_weights *grad, *best; /* per member */
	float **x, **target;     /* per member, of a batch */
	float *error;
	uint32_t *order;
	size_t next;
	struct rng rng;
};

/* The members' shared part is the first one's. */
static struct attention_weights view(const struct joint *j, size_t i)
{
	struct attention_weights w = j->m[i].w;
	w.k = j->m[0].w.k;
	w.v = j->m[0].w.v;
	return w;
}

static int run(struct joint *j, size_t i, const struct attention_batch *b, struct attention_weights *grad, double *loss, struct err *e)
{
	struct attention_weights w = view(j, i);
	return attention_fit_run(&j->m[i].fit, &w, b, grad, loss, e);
}

static struct attention_batch batch_at(const struct joint *j, size_t i, size_t first, size_t count)
{
	const struct share_member *m = &j->m[i];
	size_t at = first * m->fit.ctx;
	return (struct attention_batch){ .seqs = count, .x = m->x + at * m->w.cols, .target = m->target + at * m->w.hidden,
					 .x_kv = i ? j->m[0].x + at * m->w.cols : NULL };
}

/* Mean squared error of all members on the held-out windows. */
static int judge(struct joint *j, double *error, struct err *e)
{
	size_t from = j->windows - j->held;
	double sum = 0, loss;
	for (size_t i = 0; i < j->count; i++)
		for (size_t at = from; at < j->windows; at += j->o->batch) {
			size_t n = j->windows - at < j->o->batch ? j->windows - at : j->o->batch;
			struct attention_batch b = batch_at(j, i, at, n);
			int rc = run(j, i, &b, NULL, &loss, e);
			if (rc)
				return rc;
			sum += loss;
		}
	*error = sum / ((double)j->held * (double)j->m[0].fit.ctx * j->m[0].w.hidden);
	return ERR_OK;
}

static int fit_output(struct joint *j, size_t i, struct err *e)
{
	struct share_member *m = &j->m[i];
	size_t train = j->windows - j->held, ctx = m->fit.ctx;
	struct ridge r;
	int rc = ridge_init(&r, (size_t)m->w.heads * m->w.dim, m->w.hidden, e);
	for (size_t at = 0; at < train && !rc; at += j->o->batch) {
		size_t n = train - at < j->o->batch ? train - at : j->o->batch;
		struct attention_batch b = batch_at(j, i, at, n);
		double loss;
		rc = run(j, i, &b, NULL, &loss, e);
		const float *twice = attention_fit_errors(&m->fit);
		for (size_t k = 0; !rc && k < n * ctx * m->w.hidden; k++)
			j->error[k] = -0.5f * twice[k];
		if (!rc)
			ridge_add(&r, attention_fit_heads(&m->fit), j->error, n * ctx);
	}
	if (!rc)
		rc = ridge_solve(&r, j->o->ridge, m->w.o, e);
	ridge_release(&r);
	return rc;
}

static void copy(const struct attention_weights *from, struct attention_weights *to)
{
	memcpy(to->q, from->q, attention_weights_count(from, 0) * sizeof(float));
	memcpy(to->k, from->k, attention_weights_count(from, 1) * sizeof(float));
	memcpy(to->v, from->v, attention_weights_count(from, 2) * sizeof(float));
	memcpy(to->o, from->o, attention_weights_count(from, 3) * sizeof(float));
}

static int accept(struct joint *j, double *error, struct err *e)
{
	double now;
	int rc = judge(j, &now, e);
	bool better = !rc && now < *error;
	for (size_t i = 0; i < j->count && !rc; i++)
		copy(better ? &j->m[i].w : &j->best[i], better ? &j->best[i] : &j->m[i].w);
	if (better)
		*error = now;
	return rc;
}

static size_t gather(struct joint *j)
{
	size_t ctx = j->m[0].fit.ctx, train = j->windows - j->held, n = j->o->batch < train ? j->o->batch : train;
	for (size_t i = 0; i < n; i++, j->next++) {
		j->next = j->next == train ? 0 : j->next;
		for (size_t k = train; k > 1 && !j->next; k--) {
			size_t other = (size_t)rng_below(&j->rng, k);
			uint32_t t = j->order[k - 1];
			j->order[k - 1] = j->order[other];
			j->order[other] = t;
		}
		for (size_t k = 0; k < j->count; k++) {
			const struct share_member *m = &j->m[k];
			size_t at = j->order[j->next] * ctx;
			memcpy(j->x[k] + i * ctx * m->w.cols, m->x + at * m->w.cols, ctx * m->w.cols * sizeof(float));
			memcpy(j->target[k] + i * ctx * m->w.hidden, m->target + at * m->w.hidden, ctx * m->w.hidden * sizeof(float));
		}
	}
	return n;
}

static void add(float *sum, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum[i] += x[i];
}

static int descend(struct joint *j, const struct progress *progress, struct err *e)
{
	struct adam a;
	struct attention_weights *g = j->grad, *owner = &j->m[0].w;
	int rc = adam_init(&a, 2 + 2 * j->count, j->o->steps, j->o->rate, e);
	if (!rc && !(rc = adam_add(&a, owner->k, g->k, attention_weights_count(owner, 1), e)))
		rc = adam_add(&a, owner->v, g->v, attention_weights_count(owner, 2), e);
	for (size_t i = 0; i < j->count && !rc; i++)
		if (!(rc = adam_add(&a, j->m[i].w.q, g[i].q, attention_weights_count(owner, 0), e)))
			rc = adam_add(&a, j->m[i].w.o, g[i].o, attention_weights_count(owner, 3), e);
	for (int step = 0; step < j->o->steps && !rc; step++) {
		size_t n = gather(j);
		double loss;
		for (size_t i = 0; i < j->count && !rc; i++) {
			struct attention_batch b = { .seqs = n, .x = j->x[i], .target = j->target[i], .x_kv = i ? j->x[0] : NULL };
			rc = run(j, i, &b, &g[i], &loss, e);
			if (!rc && !isfinite(loss))
				rc = err_set(e, ERR_INPUT, "activations are not finite");
			if (!rc && i) {
				add(g->k, g[i].k, attention_weights_count(owner, 1));
				add(g->v, g[i].v, attention_weights_count(owner, 2));
			}
		}
		if (!rc)
			adam_step(&a);
		if (!rc && !progress_tell(progress, (uint64_t)step + 1, (uint64_t)j->o->steps))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	adam_release(&a);
	return rc;
}

static int joint_init(struct joint *j, struct err *e)
{
	const struct attention_weights *w = &j->m[0].w;
	size_t tokens = j->o->batch * j->m[0].fit.ctx, train = j->windows - j->held;
	j->grad = calloc(j->count, sizeof *j->grad);
	j->best = calloc(j->count, sizeof *j->best);
	j->x = calloc(j->count, sizeof *j->x);
	j->target = calloc(j->count, sizeof *j->target);
	j->order = malloc((train + 1) * sizeof *j->order);
	j->error = malloc(tokens * w->hidden * sizeof *j->error);
	if (!j->grad || !j->best || !j->x || !j->target || !j->order || !j->error)
		return err_nomem(e);
	for (size_t i = 0; i < train; i++)
		j->order[i] = (uint32_t)i;
	for (size_t i = 0; i < j->count; i++) {
		int rc = attention_weights_new(&j->grad[i], w, w->kv_heads, e);
		if (!rc)
			rc = attention_weights_new(&j->best[i], w, w->kv_heads, e);
		j->x[i] = malloc(tokens * w->cols * sizeof(float));
		j->target[i] = malloc(tokens * w->hidden * sizeof(float));
		if (!rc && (!j->x[i] || !j->target[i]))
			rc = err_nomem(e);
		if (rc)
			return rc;
		copy(&j->m[i].w, &j->best[i]);
	}
	return ERR_OK;
}

static void joint_release(struct joint *j)
{
	for (size_t i = 0; i < j->count; i++) {
		if (j->grad)
			attention_weights_release(&j->grad[i]);
		if (j->best)
			attention_weights_release(&j->best[i]);
		if (j->x)
			free(j->x[i]);
		if (j->target)
			free(j->target[i]);
	}
	free(j->grad);
	free(j->best);
	free(j->x);
	free(j->target);
	free(j->order);
	free(j->error);
}

int share_joint(const struct share_joint *job, const struct refit_options *o, double *before, double *after, struct err *e)
{
	struct joint j = { .m = job->m, .count = job->count, .windows = job->windows, .held = job->held, .o = o, .rng = { o->seed } };
	int rc = joint_init(&j, e);
	if (!rc)
		rc = judge(&j, before, e);
	*after = *before;
	/* readers' W_O first: a descent from a far start would bend the owner's keys for what W_O takes back alone */
	for (size_t i = 1; i < job->count && !rc; i++)
		rc = fit_output(&j, i, e);
	if (!rc)
		rc = accept(&j, after, e);
	if (!rc)
		rc = descend(&j, job->progress, e);
	for (size_t i = 0; i < job->count && !rc; i++)
		rc = fit_output(&j, i, e);
	if (!rc)
		rc = accept(&j, after, e);
	joint_release(&j);
	return rc;
}
