#include "calib/judge/variants.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/judge/interval.h"

/* Rows of one slice: per worker the reference's log-probabilities and probabilities. */
struct rows {
	const struct compare_arg *a;
	const struct eval_slice *s;
	double *work;            /* [workers, 2 * vocab] */
	atomic_size_t bad;       /* 1 + a row whose logits are not finite */
};

/* What the reference gives for a token. */
struct reference_row {
	const double *log_p, *p; /* [vocab] */
	size_t vocab, top;
};

/* The same operations in the same order as measure_row, so that compare and verify print the same digits. */
static bool variant_row(const float *x, const struct reference_row *r, int32_t target, struct row_figures *f)
{
	double lse, kl = 0;
	size_t top;
	if (!log_sum_exp(x, r->vocab, &lse, &top))
		return false;
	f->nll = lse - x[target];
	f->same_top = top == r->top;
	for (size_t i = 0; i < r->vocab; i++)
		kl += r->p[i] * (r->log_p[i] - (x[i] - lse));
	f->kl = kl > 0 ? kl : 0;
	return true;
}

static void one_row(void *arg, size_t row, int worker)
{
	struct rows *r = arg;
	const struct eval_slice *s = r->s;
	const float *ref = s->logits[0] + row * s->vocab;
	double *log_p = r->work + (size_t)worker * 2 * s->vocab, *p = log_p + s->vocab, lse;
	size_t top;
	if (!log_sum_exp(ref, s->vocab, &lse, &top)) {
		atomic_store(&r->bad, row + 1);
		return;
	}
	for (size_t i = 0; i < s->vocab; i++) {
		log_p[i] = ref[i] - lse;
		p[i] = exp(log_p[i]);
	}
	const struct reference_row reference = { log_p, p, s->vocab, top };
	for (size_t v = 0; v < r->a->variants; v++) {
		struct measurement *m = r->a->m[v];
		struct row_figures f = { .reference_nll = lse - ref[s->target[row]] };
		if (!variant_row(s->logits[v + 1] + row * s->vocab, &reference, s->target[row], &f)) {
			atomic_store(&r->bad, row + 1);
			return;
		}
		measurement_put(m, (s->window - r->a->first_window) * m->scored + row, &f);
	}
}

int compare_visit(void *arg, const struct eval_slice *s, struct err *e)
{
	struct rows r = { .a = arg, .s = s };
	r.work = malloc((size_t)thread_count() * 2 * s->vocab * sizeof *r.work);
	if (!r.work)
		return err_nomem(e);
	thread_for(s->n, one_row, &r);
	free(r.work);
	size_t bad = atomic_load(&r.bad);
	return bad ? measure_bad_logits(s, bad - 1, e) : ERR_OK;
}

struct ranked {
	double p;
	size_t at;
};

static int by_p(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->p != y->p)
		return x->p < y->p ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

int holm_adjust(const double *p, size_t n, double *adjusted, struct err *e)
{
	struct ranked *r = malloc((n ? n : 1) * sizeof *r);
	if (!r)
		return err_nomem(e);
	size_t known = 0;
	for (size_t i = 0; i < n; i++) {
		adjusted[i] = (double)NAN;
		if (!isnan(p[i]))
			r[known++] = (struct ranked){ p[i], i };
	}
	qsort(r, known, sizeof *r, by_p);
	double least = 0;
	for (size_t i = 0; i < known; i++) {
		double a = r[i].p * (double)(known - i);
		if (a > least)
			least = a;
		adjusted[r[i].at] = least < 1 ? least : 1;
	}
	free(r);
	return ERR_OK;
}

size_t compare_pair_index(size_t a, size_t b, size_t count)
{
	if (a > b) {
		size_t t = a;
		a = b;
		b = t;
	}
	return a * count - a * (a + 1) / 2 + (b - a - 1);
}

static int one_pair(const struct measurement *x, const struct measurement *y, float *work, struct compare_pair *out)
{
	size_t n = x->windows * x->scored;
	for (size_t i = 0; i < n; i++)
		work[i] = x->kl[i] - y->kl[i];
	out->difference = clustered_mean(work, x->windows, x->scored, &out->error);
	if (isnan(out->error))
		out->p = (double)NAN;
	else if (out->error > 0)
		out->p = 2 * student_tail(fabs(out->difference) / out->error, (double)(x->windows - 1));
	else
		out->p = out->difference == 0 ? 1 : 0;
	return ERR_OK;
}

int compare_pairs(const struct measurement *const *m, size_t count, double alpha, struct compare_pair **out, size_t *pairs,
		  struct err *e)
{
	*out = NULL;
	*pairs = count * (count ? count - 1 : 0) / 2;
	if (!*pairs)
		return ERR_OK;
	struct compare_pair *all = calloc(*pairs, sizeof *all);
	double *p = calloc(*pairs * 2, sizeof *p);
	float *work = malloc(m[0]->windows * m[0]->scored * sizeof *work);
	int rc = all && p && work ? ERR_OK : err_nomem(e);
	for (size_t a = 0, k = 0; a < count && !rc; a++)
		for (size_t b = a + 1; b < count; b++, k++) {
			all[k].a = a;
			all[k].b = b;
			one_pair(m[a], m[b], work, &all[k]);
			p[k] = all[k].p;
		}
	if (!rc)
		rc = holm_adjust(p, *pairs, p + *pairs, e);
	for (size_t k = 0; k < *pairs && !rc; k++) {
		all[k].p_holm = p[*pairs + k];
		all[k].significant = all[k].p_holm <= alpha; /* false for NaN */
	}
	free(p);
	free(work);
	if (rc)
		free(all);
	else
		*out = all;
	return rc;
}

void pareto_front(const struct candidate *c, size_t n, bool *front)
{
	for (size_t i = 0; i < n; i++) {
		front[i] = true;
		for (size_t k = 0; k < n; k++)
			if (c[k].size <= c[i].size && c[k].kl <= c[i].kl && (c[k].size < c[i].size || c[k].kl < c[i].kl))
				front[i] = false;
	}
}

/* Is a to be taken rather than b? Ties go to the nearer, then to the smaller. */
static bool better(const struct candidate *a, const struct candidate *b, const struct choice_limits *l)
{
	if (l->fastest && a->seconds != b->seconds)
		return a->seconds > 0 && (!(b->seconds > 0) || a->seconds < b->seconds);
	if ((l->max_kl > 0 || !(l->max_size > 0)) && a->size != b->size)
		return a->size < b->size;
	return a->kl != b->kl ? a->kl < b->kl : a->size < b->size;
}

struct choice choose(const struct candidate *c, size_t n, const struct choice_limits *l)
{
	struct choice r = { .index = CHOICE_NONE, .smallest = CHOICE_NONE, .nearest = CHOICE_NONE };
	for (size_t i = 0; i < n; i++) {
		double bound = isnan(c[i].kl_bound) ? (double)INFINITY : c[i].kl_bound;
		double near = r.nearest < 0 ? (double)INFINITY : c[r.nearest].kl_bound;
		if (r.smallest < 0 || c[i].size < c[r.smallest].size)
			r.smallest = (long)i;
		if (r.nearest < 0 || bound < near)
			r.nearest = (long)i;
		bool inside = (!(l->max_size > 0) || c[i].size <= l->max_size) && (!(l->max_kl > 0) || bound <= l->max_kl);
		if (inside && (r.index < 0 || better(&c[i], &c[r.index], l)))
			r.index = (long)i;
	}
	if (r.index < 0 && n) {
		double size = c[r.smallest].size - l->max_size, kl = c[r.nearest].kl_bound - l->max_kl;
		r.size_excess = l->max_size > 0 && size > 0 ? size : 0;
		r.kl_excess = l->max_kl > 0 && !(kl <= 0) ? kl : 0;
	}
	return r;
}

/* Adds the squared distance and length of layer `l`'s output. */
static void add_distance(const float *x, const float *ref, size_t n, double *distance, double *length)
{
	for (size_t i = 0; i < n; i++) {
		double d = (double)x[i] - ref[i];
		*distance += d * d;
		*length += (double)ref[i] * ref[i];
	}
}

int compare_layers(const struct loaded *model, const struct loaded *reference, const struct windows *w, size_t windows, double *out,
		   struct err *e)
{
	size_t n = w->ctx * reference->config.hidden, layers = reference->config.layers;
	const struct loaded *both[2] = { reference, model };
	struct model_run *run[2] = { 0 };
	float *hidden[2] = { 0 };
	double *length = calloc(layers, sizeof *length);
	int rc = length ? ERR_OK : err_nomem(e);
	memset(out, 0, layers * sizeof *out);
	for (int k = 0; k < 2 && !rc; k++) {
		hidden[k] = malloc(n * sizeof(float));
		run[k] = model_run_new(both[k]->model, 1, w->ctx, e);
		rc = !hidden[k] ? err_nomem(e) : !run[k] ? e->code : ERR_OK;
	}
	for (size_t i = 0; i < windows && !rc; i++) {
		for (int k = 0; k < 2 && !rc; k++)
			rc = model_embed(both[k]->model, &(struct token_run){ w->tokens + i * w->ctx, w->ctx, w->ctx, 0 }, hidden[k], e);
		for (uint32_t l = 0; l < layers && !rc; l++) {
			for (int k = 0; k < 2 && !rc; k++)
				rc = model_layer(run[k], l, hidden[k], &(struct model_batch){ 1, w->ctx, NULL, NULL }, e);
			if (!rc)
				add_distance(hidden[1], hidden[0], n, &out[l], &length[l]);
		}
	}
	for (size_t l = 0; l < layers && !rc; l++)
		out[l] = length[l] > 0 ? sqrt(out[l] / length[l]) : 0;
	for (int k = 0; k < 2; k++) {
		if (run[k])
			model_run_free(run[k]);
		free(hidden[k]);
	}
	free(length);
	return rc;
}
