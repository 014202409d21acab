#include "model/attention_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"
#include "model/rms.h"

/* Rows of a weight's gradient that one item takes. */
enum { GRADIENT_ROWS = 64 };

struct attention_fit_work {
	size_t seqs;
	float *q, *k, *v, *a, *y;        /* [tokens, width] after RoPE; y: output, then its error */
	float *dq, *dk, *dv, *da;
	float *qn, *kn;                  /* inverse root mean squares per token and head, with norms */
	float *q_raw, *k_raw;            /* before the norms */
	float *scratch;                  /* per worker: probabilities, their gradient, slopes of the soft-cap, [3, ctx, ctx] */
	int workers;
	double *loss;                    /* [seqs] */
};

/* What one run looks at. */
struct run {
	const struct attention_fit *f;
	const struct attention_weights *w;
	const struct attention_batch *b;
	struct attention_weights *grad;
	const float *k, *v;              /* own or given */
	const float *dy;                 /* gradient by the output */
	float *dx;                       /* by the input, or NULL */
};

void attention_fit_release(struct attention_fit *f)
{
	struct attention_fit_work *w = f->work;
	if (!w)
		return;
	float *all[] = { w->q, w->k, w->v, w->a, w->y, w->dq, w->dk, w->dv, w->da, w->qn, w->kn, w->q_raw, w->k_raw, w->scratch };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	free(w->loss);
	free(w);
	f->work = NULL;
}

static float *room(size_t n, bool *ok)
{
	float *p = malloc((n ? n : 1) * sizeof *p);
	*ok &= p != NULL;
	return p;
}

int attention_fit_init(struct attention_fit *f, size_t seqs, struct err *e)
{
	const struct attention_weights *s = &f->shape;
	size_t n = seqs * f->ctx, q = (size_t)s->heads * s->dim, kv = (size_t)s->kv_heads * s->dim;
	struct attention_fit_work *w = f->work = calloc(1, sizeof *w);
	bool ok = true;
	if (!w)
		return err_nomem(e);
	w->seqs = seqs;
	w->workers = thread_count();
	w->q = room(n * q, &ok);
	w->a = room(n * q, &ok);
	w->dq = room(n * q, &ok);
	w->da = room(n * q, &ok);
	w->k = room(n * kv, &ok);
	w->v = room(n * kv, &ok);
	w->dk = room(n * kv, &ok);
	w->dv = room(n * kv, &ok);
	w->y = room(n * s->hidden, &ok);
	w->scratch = room((size_t)w->workers * 3 * f->ctx * f->ctx, &ok);
	if (s->qk_norm) {
		w->q_raw = room(n * q, &ok);
		w->k_raw = room(n * kv, &ok);
		w->qn = room(n * s->heads, &ok);
		w->kn = room(n * s->kv_heads, &ok);
	}
	w->loss = calloc(seqs, sizeof *w->loss);
	if (ok && w->loss)
		return ERR_OK;
	attention_fit_release(f);
	return err_nomem(e);
}

const float *attention_fit_heads(const struct attention_fit *f)
{
	return f->work->a;
}

const float *attention_fit_errors(const struct attention_fit *f)
{
	return f->work->y;
}

const float *attention_fit_queries(const struct attention_fit *f)
{
	return f->work->q;
}

const float *attention_fit_keys(const struct attention_fit *f)
{
	return f->work->k;
}

const float *attention_fit_values(const struct attention_fit *f)
{
	return f->work->v;
}

/* Turns ctx tokens of `heads` heads by their positions, or back (the transposed rotation). */
static void turn(const struct attention_fit *f, float *x, size_t heads, bool back)
{
	size_t half = f->shape.rope / 2, d = f->shape.dim;
	if (!f->cosine)
		return;
	for (size_t t = 0; t < f->ctx; t++)
		for (size_t h = 0; h < heads; h++, x += d)
			for (size_t j = 0; j < half; j++) {
				float a = x[j], b = x[j + half], c = f->cosine[t * half + j];
				float s = back ? -f->sine[t * half + j] : f->sine[t * half + j];
				x[j] = a * c - b * s;
				x[j + half] = b * c + a * s;
			}
}

static void norm_heads(const struct attention_fit *f, float *x, float *raw, float *inverse, const float *weight, size_t heads)
{
	size_t d = f->shape.dim;
	memcpy(raw, x, f->ctx * heads * d * sizeof *x);
	for (size_t i = 0; i < f->ctx * heads; i++)
		inverse[i] = rms_norm(raw + i * d, weight, 0, d, f->eps, x + i * d);
}

/* The gradient by what went into the norm, in place. */
static void norm_back(const struct attention_fit *f, float *dx, const float *raw, const float *inverse, const float *weight,
		      size_t heads)
{
	size_t d = f->shape.dim;
	for (size_t i = 0; i < f->ctx * heads; i++)
		rms_norm_back(dx + i * d, raw + i * d, inverse[i], weight, 0, d);
}

static void project(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	const struct attention_fit *f = r->f;
	const struct attention_weights *w = r->w;
	struct attention_fit_work *k = f->work;
	size_t n = f->ctx, cols = w->cols, q = (size_t)w->heads * w->dim, kv = (size_t)w->kv_heads * w->dim;
	const float *x = r->b->x + seq * n * cols;
	blas_gemm(false, true, n, q, cols, 1, x, cols, w->q, cols, 0, k->q + seq * n * q, q);
	if (w->qk_norm)
		norm_heads(f, k->q + seq * n * q, k->q_raw + seq * n * q, k->qn + seq * n * w->heads, f->q_norm, w->heads);
	turn(f, k->q + seq * n * q, w->heads, false);
	if (r->b->keys)
		return;
	x = r->b->x_kv ? r->b->x_kv + seq * n * cols : x;
	blas_gemm(false, true, n, kv, cols, 1, x, cols, w->k, cols, 0, k->k + seq * n * kv, kv);
	blas_gemm(false, true, n, kv, cols, 1, x, cols, w->v, cols, 0, k->v + seq * n * kv, kv);
	if (w->qk_norm)
		norm_heads(f, k->k + seq * n * kv, k->k_raw + seq * n * kv, k->kn + seq * n * w->kv_heads, f->k_norm, w->kv_heads);
	turn(f, k->k + seq * n * kv, w->kv_heads, false);
}

/* Probabilities p [ctx, ctx] of a head; with a soft-cap, slope [ctx, ctx] gets the derivative of the cap. */
static void probabilities(const struct attention_fit *f, const float *q, size_t q_stride, const float *k, size_t k_stride,
			  float *p, float *slope)
{
	const struct kernels *kn = kernels();
	size_t n = f->ctx;
	blas_gemm(false, true, n, n, f->shape.dim, f->scale, q, q_stride, k, k_stride, 0, p, n);
	for (size_t t = 0; t < n; t++) {
		float *row = p + t * n;
		size_t from = f->window && t + 1 > f->window ? t + 1 - f->window : 0, count = t + 1 - from;
		for (size_t i = from; f->softcap > 0 && i <= t; i++) {
			float c = tanhf(row[i] / f->softcap);
			row[i] = f->softcap * c;
			if (slope)
				slope[t * n + i] = 1 - c * c;
		}
		float inverse = 1 / kn->exp_sum(row + from, kn->max(row + from, count), count);
		for (size_t i = from; i <= t; i++)
			row[i] *= inverse;
		memset(row, 0, from * sizeof *row);
		memset(row + t + 1, 0, (n - t - 1) * sizeof *row);
	}
}

static void attend(void *arg, size_t item, int worker)
{
	const struct run *r = arg;
	const struct attention_fit *f = r->f;
	const struct attention_weights *w = r->w;
	size_t n = f->ctx, d = w->dim, q = (size_t)w->heads * d, kv = (size_t)w->kv_heads * d;
	size_t seq = item / w->heads, h = item % w->heads, g = h / (w->heads / w->kv_heads);
	float *p = f->work->scratch + (size_t)worker * 3 * n * n;
	probabilities(f, f->work->q + seq * n * q + h * d, q, r->k + seq * n * kv + g * d, kv, p, NULL);
	blas_gemm(false, false, n, d, n, 1, p, n, r->v + seq * n * kv + g * d, kv, 0, f->work->a + seq * n * q + h * d, q);
}

static void output(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	const struct attention_weights *w = r->w;
	struct attention_fit_work *k = r->f->work;
	size_t n = r->f->ctx, q = (size_t)w->heads * w->dim, hidden = w->hidden;
	blas_gemm(false, true, n, hidden, q, 1, k->a + seq * n * q, q, w->o, q, 0, k->y + seq * n * hidden, hidden);
}

static void misfit(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	size_t size = r->f->ctx * r->w->hidden;
	float *y = r->f->work->y + seq * size;
	const float *target = r->b->target + seq * size;
	double sum = 0;
	for (size_t i = 0; i < size; i++) {
		float error = y[i] - target[i];
		sum += (double)error * error;
		y[i] = 2 * error;
	}
	r->f->work->loss[seq] = sum;
}

/* What the output's gradient means for the heads' outputs. */
static void output_back(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	size_t n = r->f->ctx, q = (size_t)r->w->heads * r->w->dim, hidden = r->w->hidden;
	blas_gemm(false, false, n, q, hidden, 1, r->dy + seq * n * hidden, hidden, r->w->o, q, 0, r->f->work->da + seq * n * q, q);
}

/* dS = P * (dP - rows of sum P dP), in place of dP. */
static void softmax_back(const struct attention_fit *f, const float *p, float *dp, const float *slope)
{
	size_t n = f->ctx;
	for (size_t t = 0; t < n; t++) {
		float dot = kernels()->dot(p + t * n, dp + t * n, t + 1);
		for (size_t i = 0; i <= t; i++)
			dp[t * n + i] = p[t * n + i] * (dp[t * n + i] - dot) * (slope ? slope[t * n + i] : 1);
		memset(dp + t * n + t + 1, 0, (n - t - 1) * sizeof *dp);
	}
}

/* An item is a KV head of a sequence, with all query heads that read it. */
static void attend_back(void *arg, size_t item, int worker)
{
	const struct run *r = arg;
	const struct attention_fit *f = r->f;
	const struct attention_weights *w = r->w;
	struct attention_fit_work *k = f->work;
	size_t n = f->ctx, d = w->dim, q = (size_t)w->heads * d, kv = (size_t)w->kv_heads * d;
	size_t seq = item / w->kv_heads, g = item % w->kv_heads, share = w->heads / w->kv_heads;
	float *p = k->scratch + (size_t)worker * 3 * n * n, *dp = p + n * n;
	size_t at_kv = seq * n * kv + g * d;
	float *slope = f->softcap > 0 ? dp + n * n : NULL;
	for (size_t i = 0; i < share; i++) {
		size_t at = seq * n * q + (g * share + i) * d;
		float beta = i ? 1 : 0;
		probabilities(f, k->q + at, q, r->k + at_kv, kv, p, slope);
		blas_gemm(false, true, n, n, d, 1, k->da + at, q, r->v + at_kv, kv, 0, dp, n);
		softmax_back(f, p, dp, slope);
		blas_gemm(false, false, n, d, n, f->scale, dp, n, r->k + at_kv, kv, 0, k->dq + at, q);
		if (r->b->keys)
			continue;
		blas_gemm(true, false, n, d, n, 1, p, n, k->da + at, q, beta, k->dv + at_kv, kv);
		blas_gemm(true, false, n, d, n, f->scale, dp, n, k->q + at, q, beta, k->dk + at_kv, kv);
	}
}

static void positions_back(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	const struct attention_fit *f = r->f;
	const struct attention_weights *w = r->w;
	struct attention_fit_work *k = f->work;
	size_t q = seq * f->ctx * w->heads, kv = seq * f->ctx * w->kv_heads, d = w->dim;
	turn(f, k->dq + q * d, w->heads, true);
	if (w->qk_norm)
		norm_back(f, k->dq + q * d, k->q_raw + q * d, k->qn + q, f->q_norm, w->heads);
	if (r->b->keys)
		return;
	turn(f, k->dk + kv * d, w->kv_heads, true);
	if (w->qk_norm)
		norm_back(f, k->dk + kv * d, k->k_raw + kv * d, k->kn + kv, f->k_norm, w->kv_heads);
}

/* Slices of rows of the four weights' gradients. */
static void weights_back(void *arg, size_t item, int worker)
{
	(void)worker;
	const struct run *r = arg;
	const struct attention_weights *w = r->w;
	struct attention_fit_work *k = r->f->work;
	size_t q = (size_t)w->heads * w->dim, kv = (size_t)w->kv_heads * w->dim, n = r->b->seqs * r->f->ctx;
	const float *x_kv = r->b->x_kv ? r->b->x_kv : r->b->x;
	struct {
		const float *error, *input;
		float *grad;
		size_t rows, cols;
	} part[] = {
		{ k->dq, r->b->x, r->grad->q, q, w->cols },
		{ r->dy, k->a, r->grad->o, w->hidden, q },
		{ k->dk, x_kv, r->grad->k, kv, w->cols },
		{ k->dv, x_kv, r->grad->v, kv, w->cols },
	};
	for (size_t i = 0; i < 4; i++) {
		size_t slices = (part[i].rows + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
		if (item >= slices) {
			item -= slices;
			continue;
		}
		size_t from = item * GRADIENT_ROWS, rows = part[i].rows - from < GRADIENT_ROWS ? part[i].rows - from : GRADIENT_ROWS;
		blas_gemm(true, false, rows, part[i].cols, n, 1, part[i].error + from, part[i].rows, part[i].input, part[i].cols, 0,
			  part[i].grad + from * part[i].cols, part[i].cols);
		return;
	}
}

static size_t slices(size_t rows)
{
	return (rows + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
}

/* By the input, from what the projections' outputs got. */
static void input_back(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct run *r = arg;
	const struct attention_weights *w = r->w;
	const struct attention_fit_work *k = r->f->work;
	size_t n = r->f->ctx, q = (size_t)w->heads * w->dim, kv = (size_t)w->kv_heads * w->dim, cols = w->cols;
	float *dx = r->dx + seq * n * cols;
	blas_gemm(false, false, n, cols, q, 1, k->dq + seq * n * q, q, w->q, cols, 0, dx, cols);
	if (r->b->keys || r->b->x_kv)
		return;
	blas_gemm(false, false, n, cols, kv, 1, k->dk + seq * n * kv, kv, w->k, cols, 1, dx, cols);
	blas_gemm(false, false, n, cols, kv, 1, k->dv + seq * n * kv, kv, w->v, cols, 1, dx, cols);
}

static void back(struct run *r)
{
	const struct attention_weights *w = r->w;
	size_t q = (size_t)w->heads * w->dim, kv = (size_t)w->kv_heads * w->dim, seqs = r->b->seqs;
	thread_for(seqs, output_back, r);
	thread_for(seqs * w->kv_heads, attend_back, r);
	thread_for(seqs, positions_back, r);
	if (r->grad)
		thread_for(slices(q) + slices(w->hidden) + (r->b->keys ? 0 : 2 * slices(kv)), weights_back, r);
	if (r->dx)
		thread_for(seqs, input_back, r);
}

static int heads(struct run *r, struct err *e)
{
	const struct attention_fit_work *k = r->f->work;
	if (r->b->seqs > k->seqs)
		return err_set(e, ERR_BUG, "%zu sequences exceed the room for %zu", r->b->seqs, k->seqs);
	if (thread_count() > k->workers)
		return err_set(e, ERR_BUG, "more workers than the fit has scratch for");
	thread_for(r->b->seqs, project, r);
	thread_for(r->b->seqs * r->w->heads, attend, r);
	return ERR_OK;
}

static struct run run_of(const struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b)
{
	const struct attention_fit_work *k = f->work;
	return (struct run){ .f = f, .w = w, .b = b, .k = b->keys ? b->keys : k->k, .v = b->values ? b->values : k->v, .dy = k->y };
}

int attention_fit_run(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
		      struct attention_weights *grad, double *loss, struct err *e)
{
	struct run r = run_of(f, w, b);
	int rc = heads(&r, e);
	if (rc || !b->target)
		return rc;
	thread_for(b->seqs, output, &r);
	thread_for(b->seqs, misfit, &r);
	*loss = 0;
	for (size_t i = 0; i < b->seqs; i++)
		*loss += f->work->loss[i];
	r.grad = grad;
	if (grad)
		back(&r);
	return ERR_OK;
}

int attention_fit_forward(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
			  const float **y, struct err *e)
{
	struct run r = run_of(f, w, b);
	int rc = heads(&r, e);
	if (!rc)
		thread_for(b->seqs, output, &r);
	*y = f->work->y;
	return rc;
}

void attention_fit_back(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
			const float *dy, struct attention_weights *grad, float *dx)
{
	struct run r = run_of(f, w, b);
	r.dy = dy;
	r.grad = grad;
	r.dx = dx;
	back(&r);
}
