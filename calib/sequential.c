#include "calib/sequential.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"
#include "calib/stream.h"
#include "kernel/blas.h"

/* Matrices that share an input are rounded against the same moments, in the order a layer runs them. */
static const struct group {
	enum role role[3];
	int count;
	bool adds_to_residual; /* and with it ends its half of the layer */
	enum layer_part part;
} groups[] = {
	{ { ROLE_Q, ROLE_K, ROLE_V }, 3, false, LAYER_ATTENTION },
	{ { ROLE_O }, 1, true, LAYER_ATTENTION },
	{ { ROLE_GATE, ROLE_UP }, 2, false, LAYER_FEED_FORWARD },
	{ { ROLE_DOWN }, 1, true, LAYER_FEED_FORWARD },
};
enum { GROUPS = sizeof groups / sizeof *groups };

/* One of the two models on its way through the layers, and the input of the role that is watched. */
struct side {
	struct model *model;
	struct stream stream;
	float *input;    /* [batch tokens, widest input] */
	enum role watch;
};

struct moments {
	size_t n, width, tokens;
	double *own;      /* [n, n] E[s s^T], s the student's input */
	double *cross;    /* [n, n] E[(t - s) s^T], t the teacher's */
	double *residual; /* [width, n] E[(residual of teacher - of student) s^T] */
};

struct driver {
	const struct config *config;
	struct tensor_source *source;
	const struct plan *plan;
	const struct windows *text;
	const struct sequential_options *o;
	struct overlay *out;
	struct side teacher, student;
	float *difference;   /* [batch tokens, max(width, n)] */
	float *product;      /* f32 partial moments */
	size_t batch;        /* windows per batch */
	struct sequential_report *report;
	size_t reported;
	plan_progress *progress;
	void *progress_arg;
	uint64_t done, total;
	bool teacher_ahead;  /* its stream is past the half of the layer that is quantized */
};

static void watch_input(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	(void)layer;
	struct side *s = arg;
	if (r == s->watch)
		memcpy(s->input, x, n * dim * sizeof *x);
}

static size_t widest_input(const struct config *c)
{
	size_t widest = c->hidden;
	for (uint32_t i = 0; i < c->layers; i++) {
		size_t heads = (size_t)c->layer[i].heads * c->head_dim;
		widest = widest > heads ? widest : heads;
		widest = widest > c->layer[i].ffn ? widest : c->layer[i].ffn;
	}
	return widest;
}

static int side_init(struct driver *d, struct side *s, struct err *e)
{
	int rc = model_open(d->config, d->source, &s->model, e);
	if (!rc)
		rc = stream_open(&s->stream, s->model, d->text, e);
	if (rc)
		return rc;
	s->input = malloc(s->stream.batch * d->text->ctx * widest_input(d->config) * sizeof(float));
	return s->input ? ERR_OK : err_nomem(e);
}

static void side_release(struct side *s)
{
	if (s->stream.model)
		stream_close(&s->stream);
	model_close(s->model);
	free(s->input);
}

/*
 * Runs one batch of a half layer, with the input of the watched role left in s->input: only so far, or to its end when
 * the stream moves past it.
 */
static int run_half(struct side *s, uint32_t layer, const struct group *g, size_t first, size_t seqs, bool move, struct err *e)
{
	const struct model_tap tap = { .input = watch_input, .arg = s, .stop = !move, .last = g->role[0], .part = g->part };
	const struct stream_visit v = { .tap = &tap };
	s->watch = g->role[0];
	return stream_layer(&s->stream, layer, first, first + seqs, move, &v, e);
}

static void moments_release(struct moments *m)
{
	free(m->own);
	free(m->cross);
	free(m->residual);
}

struct outer {
	double *a;
	float *product;
	const float *x, *y;
	size_t rows, cols, n;
	bool square; /* x is y: only what is at or before the diagonal */
};

/* Rows of a moment matrix per piece of work; fixed, so that sums do not depend on the number of threads. */
enum { STRIPE = 64 };

static void one_stripe(void *arg, size_t item, int worker)
{
	(void)worker;
	struct outer *o = arg;
	size_t at = item * STRIPE, rows = o->rows - at < STRIPE ? o->rows - at : STRIPE;
	size_t cols = o->square ? at + rows : o->cols;
	float *p = o->product + at * o->cols;
	blas_gemm(true, false, rows, cols, o->n, 1, o->x + at, o->rows, o->y, o->cols, 0, p, o->cols);
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < cols; i++)
			o->a[(at + r) * o->cols + i] += p[r * o->cols + i];
}

/* a[rows, cols] += x^T y of n tokens, through f32 products per batch whose sum over batches is kept in f64. */
static void add_product(struct driver *d, double *a, size_t rows, size_t cols, const float *x, const float *y, size_t n)
{
	struct outer o = { a, d->product, x, y, rows, cols, n, false };
	thread_for((rows + STRIPE - 1) / STRIPE, one_stripe, &o);
}

/* a[m, m] += x^T x, whose part after the diagonal is left to mirror(). */
static void add_square(struct driver *d, double *a, size_t m, const float *x, size_t n)
{
	struct outer o = { a, d->product, x, x, m, m, n, true };
	thread_for((m + STRIPE - 1) / STRIPE, one_stripe, &o);
}

static void mirror(double *a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			a[i * n + j] = a[j * n + i];
}

/* What the residual stream of the student lacks before this half of the layer adds to it. */
static void residual_difference(struct driver *d, size_t first, size_t tokens)
{
	size_t width = d->config->hidden, at = first * d->text->ctx * width;
	const float *t = d->teacher.stream.hidden + at, *s = d->student.stream.hidden + at;
	for (size_t i = 0; i < tokens * width; i++)
		d->difference[i] = t[i] - s[i];
}

static int gather(struct driver *d, const struct group *g, uint32_t layer, struct moments *m, struct err *e)
{
	const struct tensor *w = model_weight(d->student.model, g->role[0], layer)->tensor;
	size_t width = d->config->hidden, n = (size_t)tensor_cols(w);
	*m = (struct moments){ .n = n, .width = width };
	m->own = calloc(n * n, sizeof(double));
	m->cross = calloc(n * n, sizeof(double));
	bool carried = g->adds_to_residual && d->o->sequential && d->o->residual != 0;
	m->residual = carried ? calloc(width * n, sizeof(double)) : NULL;
	if (!m->own || !m->cross || (carried && !m->residual))
		return err_nomem(e);
	/* once it has shown the input of the projection that ends a half, nothing keeps the original from going on */
	bool move = g->adds_to_residual;
	for (size_t first = 0; first < d->text->count; first += d->batch) {
		size_t seqs = d->text->count - first < d->batch ? d->text->count - first : d->batch, tokens = seqs * d->text->ctx;
		if (m->residual)
			residual_difference(d, first, tokens);
		int rc = run_half(&d->teacher, layer, g, first, seqs, move, e);
		if (!rc && d->o->sequential)
			rc = run_half(&d->student, layer, g, first, seqs, false, e);
		if (rc)
			return rc;
		const float *t = d->teacher.input, *s = d->o->sequential ? d->student.input : t;
		add_square(d, m->own, n, s, tokens);
		if (m->residual)
			add_product(d, m->residual, width, n, d->difference, s, tokens);
		if (d->o->sequential && d->o->input != 0) {
			for (size_t i = 0; i < tokens * n; i++)
				d->difference[i] = t[i] - s[i];
			add_product(d, m->cross, n, n, d->difference, s, tokens);
		}
		m->tokens += tokens;
		d->done += tokens;
		if (d->progress && !d->progress(d->progress_arg, d->done, d->total))
			return err_set(e, ERR_IO, "interrupted");
	}
	d->teacher_ahead = move;
	mirror(m->own, n);
	double scale = 1 / (double)m->tokens;
	for (size_t i = 0; i < n * n; i++) {
		m->own[i] *= scale;
		m->cross[i] *= scale;
	}
	for (size_t i = 0; i < width * n && m->residual; i++)
		m->residual[i] *= scale;
	return ERR_OK;
}

/* The weights to round: W + (input W cross + residual R) (own + damping)^-1, the least-squares correction of the layer. */
struct aim {
	const struct driver *d;
	const struct moments *m;
	double *l;       /* [n, n] lower Cholesky factor of the damped second moments; NULL: no correction */
	float *w;        /* [rows, n] corrected in place */
	size_t rows;
	int failed;
};

/* Rows corrected at once, on one worker; fixed, so that results do not depend on the number of threads. */
enum { AIM_ROWS = 64 };

static void factor_moments(void *arg, size_t item, int worker)
{
	(void)item;
	(void)worker;
	struct aim *a = arg;
	a->failed = blas_cholesky(a->m->n, a->l, a->m->n);
}

static int aim_prepare(struct aim *a, double damping, struct err *e)
{
	const struct sequential_options *o = a->d->o;
	size_t n = a->m->n;
	double mean = 0;
	if (!o->sequential || (o->input == 0 && (o->residual == 0 || !a->m->residual)))
		return ERR_OK;
	a->l = malloc(n * n * sizeof *a->l);
	if (!a->l)
		return err_nomem(e);
	memcpy(a->l, a->m->own, n * n * sizeof *a->l);
	for (size_t i = 0; i < n; i++)
		mean += a->l[i * n + i] / (double)n;
	for (size_t i = 0; i < n; i++)
		a->l[i * n + i] += damping * mean;
	thread_for(1, factor_moments, a);
	if (a->failed)
		return err_set(e, ERR_INPUT, "the inputs' second moments are singular; use more calibration text or more damping");
	return ERR_OK;
}

static void aim_rows(void *arg, size_t item, int worker)
{
	(void)worker;
	struct aim *a = arg;
	const struct sequential_options *o = a->d->o;
	size_t n = a->m->n, first = item * AIM_ROWS, rows = a->rows - first < AIM_ROWS ? a->rows - first : AIM_ROWS;
	float *w = a->w + first * n;
	double *wd = malloc(rows * n * sizeof *wd), *b = malloc(rows * n * sizeof *b);
	if (!wd || !b) {
		a->failed = 1;
		goto out;
	}
	for (size_t i = 0; i < rows * n; i++)
		wd[i] = w[i];
	/* b = cross^T W^T, [n, rows]: the right-hand side of own X = b with X the transposed correction */
	blas_dgemm(true, true, n, rows, n, o->input, a->m->cross, n, wd, n, 0, b, rows);
	for (size_t r = 0; r < rows && a->m->residual && o->residual != 0; r++)
		for (size_t i = 0; i < n; i++)
			b[i * rows + r] += o->residual * a->m->residual[(first + r) * n + i];
	blas_cholesky_solve(n, rows, a->l, n, b, rows);
	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < n; i++)
			w[r * n + i] += (float)b[i * rows + r];
out:
	free(wd);
	free(b);
}

static int aim_weights(struct aim *a, float *w, size_t rows, struct err *e)
{
	if (!a->l)
		return ERR_OK;
	a->w = w;
	a->rows = rows;
	thread_for((rows + AIM_ROWS - 1) / AIM_ROWS, aim_rows, a);
	return a->failed ? err_nomem(e) : ERR_OK;
}

static const struct plan_item *plan_find(const struct plan *p, enum role r, uint32_t layer)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->items[i].role == r && p->items[i].layer == layer)
			return &p->items[i];
	return NULL;
}

static int quantize_one(struct driver *d, const struct plan_item *item, struct aim *a, const struct curvature *c, struct err *e)
{
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	const struct tensor *meta;
	float *w;
	int rc = source_read_f32(d->source, item->out.name, &w, &meta, e);
	if (rc)
		return rc;
	size_t rows = (size_t)tensor_rows(meta);
	struct feedback_job job = { .codec = item->out.codec, .w = w, .rows = rows, .curvature = c, .sweeps = d->o->sweeps };
	job.dst = malloc(item->out.nbytes);
	/* errors are reported relative to what the layer puts out on these inputs */
	double scale = feedback_objective(c, w, NULL, rows);
	rc = job.dst ? aim_weights(a, w, rows, e) : err_nomem(e);
	if (!rc)
		rc = feedback_quantize(&job, e);
	/* the overlay owns the bytes and outlives the student, which borrows them */
	if (!rc)
		rc = model_replace(d->student.model, item->role, item->layer, &item->out, job.dst, e);
	if (!rc)
		rc = overlay_put(d->out, &item->out, job.dst, e);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (!rc) {
		struct sequential_report *r = &d->report[d->reported++];
		*r = (struct sequential_report){ .role = item->role, .layer = item->layer, .before = job.before / scale,
						 .after = job.after / scale,
						 .seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec) };
		snprintf(r->name, sizeof r->name, "%s", item->out.name);
	} else {
		free(job.dst);
		err_prefix(e, "%s", item->out.name);
	}
	free(w);
	return rc;
}

static int one_group(struct driver *d, const struct group *g, uint32_t layer, struct err *e)
{
	const struct plan_item *item[3] = { 0 };
	int wanted = 0;
	for (int i = 0; i < g->count; i++) {
		item[i] = plan_find(d->plan, g->role[i], layer);
		if (item[i] && (!codec_quantizes(item[i]->out.codec) || !item[i]->method))
			item[i] = NULL;
		wanted += item[i] != NULL;
	}
	if (!wanted)
		return ERR_OK;
	struct moments m;
	struct curvature *c = NULL;
	struct aim a = { .d = d, .m = &m };
	int rc = gather(d, g, layer, &m, e);
	if (!rc)
		rc = curvature_new(m.own, m.n, d->o->damping, &c, e);
	if (!rc)
		rc = aim_prepare(&a, c->damping, e);
	if (rc)
		err_prefix(e, "layer %u, %s", layer, role_rows[g->role[0]].name);
	for (int i = 0; i < g->count && !rc; i++)
		if (item[i])
			rc = quantize_one(d, item[i], &a, c, e);
	free(a.l);
	curvature_free(c);
	moments_release(&m);
	return rc;
}

/* Takes both streams past a half of a layer. */
static int advance(struct driver *d, uint32_t layer, enum layer_part part, struct err *e)
{
	const struct model_tap tap = { .part = part };
	const struct stream_visit v = { .tap = &tap };
	int rc = d->teacher_ahead ? ERR_OK : stream_layer(&d->teacher.stream, layer, 0, d->text->count, true, &v, e);
	d->teacher_ahead = false;
	if (!rc && d->o->sequential)
		rc = stream_layer(&d->student.stream, layer, 0, d->text->count, true, &v, e);
	return rc;
}

static int driver_init(struct driver *d, struct err *e)
{
	size_t widest = widest_input(d->config);
	int rc = side_init(d, &d->teacher, e);
	if (!rc)
		rc = side_init(d, &d->student, e);
	if (rc)
		return rc;
	d->batch = d->teacher.stream.batch;
	d->total = (uint64_t)d->config->layers * GROUPS * d->text->count * d->text->ctx;
	d->difference = malloc(d->batch * d->text->ctx * widest * sizeof(float));
	d->product = malloc(widest * widest * sizeof(float));
	d->report = calloc(d->plan->count, sizeof *d->report);
	if (!d->difference || !d->product || !d->report)
		return err_nomem(e);
	return ERR_OK;
}

int sequential_quantize(const struct config *config, struct tensor_source *source, const struct plan *plan,
			const struct windows *text, const struct sequential_options *o, struct overlay *out,
			struct sequential_report **report, size_t *report_count, plan_progress *progress, void *progress_arg,
			struct err *e)
{
	struct driver d = { .config = config, .source = source, .plan = plan, .text = text, .o = o, .out = out,
			    .progress = progress, .progress_arg = progress_arg };
	int rc = config->arch->parallel_residual ? err_set(e, ERR_UNSUPPORTED, "layer-after-layer quantization of layers whose halves run "
							   "in parallel is not supported; use --method gptq") : driver_init(&d, e);
	for (uint32_t layer = 0; layer < config->layers && !rc; layer++) {
		for (int g = 0; g < GROUPS && !rc; g++) {
			rc = one_group(&d, &groups[g], layer, e);
			if (!rc && groups[g].adds_to_residual)
				rc = advance(&d, layer, groups[g].part, e);
		}
	}
	side_release(&d.teacher);
	side_release(&d.student);
	free(d.difference);
	free(d.product);
	*report = rc ? NULL : d.report;
	*report_count = rc ? 0 : d.reported;
	if (rc)
		free(d.report);
	return rc;
}
