#include "calib/quant/sequential.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "algo/quantize.h"
#include "base/thread.h"
#include "calib/quant/correction.h"
#include "calib/run/stream.h"
#include "kernel/blas.h"
#include "model/graph.h"

/* One of the two models on its way through the layers, and the input of the role that is watched. */
struct side {
	struct model *model;
	struct stream stream;
	float *input;    /* [batch tokens, widest input] */
	enum role watch;
	const struct arrangement *arrangement; /* of the student's channels, which the teacher has not; or NULL */
	float *scratch;  /* [widest input] */
	bool leads;      /* its stream moves past a half once the input of the projection that ends it was seen */
};

struct driver {
	const struct config *config;
	struct tensor_source *source;   /* of both models */
	struct tensor_source *weights;  /* what is quantized: the same, its channels arranged */
	const struct plan *plan;
	const struct windows *text;
	const struct sequential_options *o;
	struct overlay *out;
	struct side teacher, student;
	float *difference;   /* [batch tokens, max(width, n)] */
	float *product;      /* f32 partial moments */
	size_t batch;        /* windows per batch */
	struct sequential_report *report; /* [plan->count] */
	const struct progress *progress;
	uint64_t done, total;
	size_t held;         /* windows, the last ones */
	bool teacher_ahead;  /* its stream is past the half of the layer that is quantized */
};

static void watch_input(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct side *s = arg;
	if (r != s->watch)
		return;
	memcpy(s->input, x, n * dim * sizeof *x);
	if (s->arrangement)
		arrangement_input(s->arrangement, r, layer, s->input, n, s->scratch);
}

static int side_init(struct driver *d, struct side *s, struct err *e)
{
	int rc = model_open(d->config, d->source, &s->model, e);
	if (!rc)
		rc = stream_open(&s->stream, s->model, d->text, e);
	if (rc)
		return rc;
	size_t widest = config_widths(d->config).input;
	s->input = malloc(s->stream.batch * d->text->ctx * widest * sizeof(float));
	s->scratch = malloc(widest * sizeof(float));
	return s->input && s->scratch ? ERR_OK : err_nomem(e);
}

static void side_release(struct side *s)
{
	if (s->stream.model)
		stream_close(&s->stream);
	model_close(s->model);
	free(s->input);
	free(s->scratch);
}

/*
 * Runs one batch of a half layer, with the input of the watched role left in s->input: only so far, or to its end when
 * the stream moves past it.
 */
static int run_half(struct side *s, uint32_t layer, const struct group *g, size_t first, size_t seqs, struct err *e)
{
	bool move = s->leads && g->ends;
	const struct model_tap tap = { .input = watch_input, .arg = s, .stop = !move, .last = g->role[0], .part = g->part };
	const struct stream_visit v = { .tap = &tap, .keep = move };
	s->watch = g->role[0];
	return stream_layer(&s->stream, layer, first, first + seqs, &v, e);
}

struct outer {
	double *a;           /* [rows, cols] */
	float *product;
	const float *x, *y;  /* [n, rows], [n, cols] */
	size_t rows, cols, n;
	bool square; /* x is y: only what is at or before the diagonal; the rest is left to mirror() */
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

/* a += x^T y, through f32 products per batch whose sum over batches is kept in f64. */
static void add_outer(struct outer o)
{
	thread_for((o.rows + STRIPE - 1) / STRIPE, one_stripe, &o);
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

static void add_batch(struct driver *d, struct moments *m, size_t tokens)
{
	const float *t = d->teacher.input, *s = d->o->sequential ? d->student.input : t;
	add_outer((struct outer){ m->own, d->product, s, s, m->n, m->n, tokens, true });
	if (m->residual)
		add_outer((struct outer){ m->residual, d->product, d->difference, s, m->width, m->n, tokens, false });
	if (d->o->sequential && d->o->input != 0) {
		for (size_t i = 0; i < tokens * m->n; i++)
			d->difference[i] = t[i] - s[i];
		add_outer((struct outer){ m->cross, d->product, d->difference, s, m->n, m->n, tokens, false });
	}
	m->tokens += tokens;
}

/* Moments of the inputs of a group, as means: of the windows that the codes are fitted to, and of those held out. */
static int gather(struct driver *d, const struct group *g, uint32_t layer, struct moments *fit, struct moments *held, struct err *e)
{
	size_t width = d->config->hidden, n = (size_t)tensor_cols(model_weight(d->student.model, g->role[0], layer)->tensor);
	size_t count = d->text->count, fitted = count - d->held;
	/* once in a half: of two halves over one stream the last one takes what the stream lacks */
	bool carried = g->adds && g->ends && d->o->sequential && d->o->residual != 0;
	int rc = moments_init(fit, n, width, carried, e);
	if (!rc && d->held)
		rc = moments_init(held, n, width, carried, e);
	for (size_t first = 0, seqs; first < count && !rc; first += seqs) {
		size_t left = first < fitted ? fitted - first : count - first;
		seqs = left < d->batch ? left : d->batch;
		if (carried)
			residual_difference(d, first, seqs * d->text->ctx);
		rc = run_half(&d->teacher, layer, g, first, seqs, e);
		if (!rc && d->o->sequential)
			rc = run_half(&d->student, layer, g, first, seqs, e);
		if (rc)
			return rc;
		add_batch(d, first < fitted ? fit : held, seqs * d->text->ctx);
		d->done += seqs * d->text->ctx;
		if (!progress_tell(d->progress, d->done, d->total))
			return err_set(e, ERR_IO, "interrupted");
	}
	if (rc)
		return rc;
	d->teacher_ahead = g->ends;
	mirror(fit->own, n);
	moments_combine(fit, 1 / (double)fit->tokens, NULL, 0);
	if (d->held) {
		mirror(held->own, n);
		moments_combine(held, 1 / (double)held->tokens, NULL, 0);
	}
	return ERR_OK;
}

/* What held-out tokens say of a matrix. */
struct choice {
	bool feedback;       /* else the importance-weighted search on the original weights, as method imatrix */
	double aim;          /* how much of the correction to take */
	double before, after;/* output error on held-out tokens, relative to the output's energy: of the search, and of the choice */
};

/* The moments of one group, prepared. */
struct prepared {
	struct curvature *c;
	struct correction aim;
};

static int prepare(const struct driver *d, const struct moments *m, struct prepared *p, struct err *e)
{
	bool corrects = d->o->sequential;
	int rc = curvature_new(m->own, m->n, d->o->damping, &p->c, e);
	return rc ? rc : correction_init(&p->aim, m, corrects ? d->o->input : 0, corrects ? d->o->residual : 0, p->c->damping, e);
}

static void prepared_release(struct prepared *p)
{
	correction_release(&p->aim);
	curvature_free(p->c);
}

/* d[rows, n] = what bytes decode to, less w. */
static void decode_difference(const struct codec *c, const uint8_t *bytes, const float *w, size_t rows, size_t n, float *d)
{
	for (size_t r = 0; r < rows; r++)
		c->decode(c, bytes + r * (size_t)codec_row_bytes(c, n), d + r * n, n);
	for (size_t i = 0; i < rows * n; i++)
		d[i] -= w[i];
}

struct searching {
	struct quantize_job job;
	int (*run)(const struct quantize_job *job, struct err *e);
	size_t row;          /* bytes */
	atomic_int failed;
};

static void search_chunk(void *arg, size_t item, int worker)
{
	struct searching *s = arg;
	struct quantize_job part = s->job;
	struct err e;
	size_t at = item * STRIPE, left = part.rows - at;
	(void)worker;
	part.rows = left < STRIPE ? left : STRIPE;
	part.x += at * part.cols;
	part.dst += at * s->row;
	if (s->run(&part, &e))
		atomic_store(&s->failed, 1);
}

/* Method imatrix, with the curvature's diagonal; rows that a codec holds leave it nothing to fail for but memory. */
static int search_rows(const struct codec *codec, const struct curvature *c, const float *w, size_t rows, uint8_t *dst, struct err *e)
{
	struct searching s = { .job = { .codec = codec, .x = w, .rows = rows, .cols = c->n, .dst = dst },
			       .run = method_find("imatrix")->run, .row = (size_t)codec_row_bytes(codec, c->n) };
	float *weight = malloc(c->n * sizeof *weight);
	if (!weight)
		return err_nomem(e);
	for (size_t i = 0; i < c->n; i++)
		weight[i] = c->h[i * c->n + i];
	s.job.importance = weight;
	atomic_init(&s.failed, 0);
	thread_for((rows + STRIPE - 1) / STRIPE, search_chunk, &s);
	free(weight);
	return atomic_load(&s.failed) ? err_nomem(e) : ERR_OK;
}

/* Rows of a matrix that decide for it. */
enum { SAMPLE_ROWS = 64 };

struct trial {
	const struct driver *d;
	const struct codec *codec;
	const struct prepared *fit;  /* without the held-out tokens */
	const struct correction *held;
	struct some_rows some;       /* of w */
	size_t n;
	float *w, *aimed, *change;   /* [rows, n] */
	uint8_t *bytes;
};

/* The correction that was fitted, as far as it helps where it was not: the minimum of a parabola. */
static int trial_correction(struct trial *t, double *strength, struct err *e)
{
	struct judged j;
	*strength = 1;
	if (!t->fit->aim.l)
		return ERR_OK;
	int rc = correction_weights(&t->fit->aim, &t->some, 1, t->aimed, e);
	for (size_t i = 0; i < t->some.rows * t->n && !rc; i++)
		t->change[i] = t->aimed[i] - t->w[i];
	if (!rc)
		rc = correction_judge(t->held, &t->some, t->change, &j, e);
	if (!rc && j.square > 0)
		*strength = j.linear < 0 ? 0 : j.linear < j.square ? j.linear / j.square : 1;
	return rc;
}

static int trial_error(struct trial *t, double energy, double *out, struct err *e)
{
	struct judged j;
	decode_difference(t->codec, t->bytes, t->w, t->some.rows, t->n, t->change);
	int rc = correction_judge(t->held, &t->some, t->change, &j, e);
	*out = (j.square - 2 * j.linear) / energy;
	return rc;
}

static int try_both(struct trial *t, struct choice *c, struct err *e)
{
	struct judged energy;
	int rc = trial_correction(t, &c->aim, e);
	if (!rc)
		rc = correction_judge(t->held, &t->some, t->w, &energy, e);
	if (rc || !(energy.square > 0))
		return rc;
	rc = correction_weights(&t->fit->aim, &t->some, c->aim, t->aimed, e);
	struct feedback_job job = { .codec = t->codec, .w = t->aimed, .rows = t->some.rows, .curvature = t->fit->c, .sweeps = t->d->o->sweeps,
				    .dst = t->bytes };
	if (!rc)
		rc = feedback_quantize(&job, e);
	if (!rc)
		rc = trial_error(t, energy.square, &c->after, e);
	if (!rc)
		rc = search_rows(t->codec, t->fit->c, t->w, t->some.rows, t->bytes, e);
	if (!rc)
		rc = trial_error(t, energy.square, &c->before, e);
	c->feedback = !(c->after > c->before);
	if (!c->feedback)
		c->after = c->before;
	return rc;
}

static int choose(const struct driver *d, const struct plan_item *item, const struct prepared *fit, const struct correction *held,
		  struct choice *c, struct err *e)
{
	const struct tensor *meta;
	float *w;
	int rc = source_read_f32(d->weights, item->out.name, &w, &meta, e);
	if (rc)
		return rc;
	size_t all = (size_t)tensor_rows(meta), n = (size_t)tensor_cols(meta);
	struct trial t = { .d = d, .codec = item->out.codec, .fit = fit, .held = held, .n = n, .w = w };
	size_t stride = all > SAMPLE_ROWS ? all / SAMPLE_ROWS : 1, rows = (all + stride - 1) / stride;
	t.some = (struct some_rows){ w, rows, stride };
	for (size_t r = 1; r < rows; r++)
		memmove(w + r * n, w + r * stride * n, n * sizeof *w);
	t.aimed = malloc(rows * n * sizeof(float));
	t.change = malloc(rows * n * sizeof(float));
	t.bytes = malloc(rows * (size_t)codec_row_bytes(t.codec, n));
	rc = t.aimed && t.change && t.bytes ? try_both(&t, c, e) : err_nomem(e);
	free(t.aimed);
	free(t.change);
	free(t.bytes);
	free(w);
	return rc ? err_prefix(e, "%s", item->out.name) : ERR_OK;
}

static int quantize_rows(struct feedback_job *job, float *w, const struct prepared *p, const struct choice *choice, struct err *e)
{
	if (choice->feedback) {
		int rc = correction_weights(&p->aim, &(struct some_rows){ w, job->rows, 1 }, choice->aim, w, e);
		return rc ? rc : feedback_quantize(job, e);
	}
	int rc = search_rows(job->codec, p->c, w, job->rows, job->dst, e);
	if (rc)
		return rc;
	float *d = malloc(job->rows * p->c->n * sizeof *d);
	if (!d)
		return err_nomem(e);
	decode_difference(job->codec, job->dst, w, job->rows, p->c->n, d);
	job->before = job->after = feedback_objective(p->c, d, NULL, job->rows);
	free(d);
	return ERR_OK;
}

static double seconds_since(const struct timespec *t0)
{
	struct timespec t1;
	clock_gettime(CLOCK_MONOTONIC, &t1);
	return (double)(t1.tv_sec - t0->tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0->tv_nsec);
}

static void note_result(struct driver *d, const struct plan_item *item, const struct feedback_job *job, double scale,
			const struct choice *choice, double seconds)
{
	struct sequential_report *r = &d->report[item - d->plan->items];
	*r = (struct sequential_report){ .before = job->before / scale, .after = job->after / scale,
					 .seconds = seconds, .choice = choice->feedback ? "feedback" : "imatrix",
					 .aim = choice->feedback ? choice->aim : 0, .judged = d->held != 0,
					 .held_before = choice->before, .held_after = choice->after };
}

static int quantize_one(struct driver *d, const struct plan_item *item, const struct prepared *p, const struct choice *choice,
			struct err *e)
{
	struct timespec start;
	clock_gettime(CLOCK_MONOTONIC, &start);
	const struct tensor *meta;
	float *w;
	int rc = source_read_f32(d->weights, item->out.name, &w, &meta, e);
	if (rc)
		return rc;
	size_t rows = (size_t)tensor_rows(meta);
	struct feedback_job job = { .codec = item->out.codec, .w = w, .rows = rows, .curvature = p->c, .sweeps = d->o->sweeps };
	job.dst = malloc(item->out.nbytes);
	/* errors are reported relative to what the layer puts out on these inputs */
	double scale = feedback_objective(p->c, w, NULL, rows);
	rc = job.dst ? quantize_rows(&job, w, p, choice, e) : err_nomem(e);
	/* the overlay owns the bytes and outlives the student, which borrows them */
	if (!rc)
		rc = model_replace(d->student.model, item->role, item->layer, &item->out, job.dst, e);
	if (!rc)
		rc = overlay_put(d->out, &item->out, job.dst, e);
	if (!rc) {
		note_result(d, item, &job, scale, choice, seconds_since(&start));
	} else {
		free(job.dst);
		err_prefix(e, "%s", item->out.name);
	}
	free(w);
	return rc;
}

/* Asks the held-out tokens, then lets them join the others. */
static int choose_group(struct driver *d, const struct plan_item *const *item, struct moments *fit, struct moments *held,
			struct choice *choice, struct err *e)
{
	struct prepared p = { 0 };
	struct correction judge = { .m = held, .input = d->o->sequential ? d->o->input : 0, .residual = held->residual ? d->o->residual : 0 };
	int rc = prepare(d, fit, &p, e);
	for (unsigned i = 0; i < BLOCK_READERS && !rc; i++)
		if (item[i])
			rc = choose(d, item[i], &p, &judge, &choice[i], e);
	prepared_release(&p);
	double all = (double)(fit->tokens + held->tokens);
	moments_combine(fit, (double)fit->tokens / all, held, (double)held->tokens / all);
	moments_release(held);
	return rc;
}

static int one_group(struct driver *d, const struct group *g, uint32_t layer, struct err *e)
{
	const struct plan_item *item[BLOCK_READERS] = { 0 };
	struct choice choice[BLOCK_READERS];
	int wanted = 0;
	for (unsigned i = 0; i < g->count; i++) {
		choice[i] = (struct choice){ .feedback = true, .aim = 1 };
		item[i] = plan_find(d->plan, g->role[i], layer);
		if (item[i] && (!codec_quantizes(item[i]->out.codec) || !item[i]->method))
			item[i] = NULL;
		wanted += item[i] != NULL;
	}
	if (!wanted)
		return ERR_OK;
	struct moments fit = { 0 }, held = { 0 };
	struct prepared p = { 0 };
	int rc = gather(d, g, layer, &fit, &held, e);
	if (!rc && d->held)
		rc = choose_group(d, item, &fit, &held, choice, e);
	if (!rc)
		rc = prepare(d, &fit, &p, e);
	if (rc)
		err_prefix(e, "layer %u, %s", layer, role_rows[g->role[0]].name);
	for (unsigned i = 0; i < g->count && !rc; i++)
		if (item[i])
			rc = quantize_one(d, item[i], &p, &choice[i], e);
	prepared_release(&p);
	moments_release(&fit);
	moments_release(&held);
	return rc;
}

/* Takes both streams past a half of a layer. */
static int advance(struct driver *d, uint32_t layer, unsigned part, struct err *e)
{
	const struct model_tap tap = { .part = part };
	const struct stream_visit v = { .tap = &tap, .keep = true };
	int rc = d->teacher_ahead ? ERR_OK : stream_layer(&d->teacher.stream, layer, 0, d->text->count, &v, e);
	d->teacher_ahead = false;
	if (!rc && d->o->sequential)
		rc = stream_layer(&d->student.stream, layer, 0, d->text->count, &v, e);
	return rc;
}

static int driver_init(struct driver *d, struct err *e)
{
	size_t widest = config_widths(d->config).input;
	int rc = side_init(d, &d->teacher, e);
	d->teacher.leads = true; /* nothing keeps the original from going on */
	if (!rc)
		rc = side_init(d, &d->student, e);
	if (rc)
		return rc;
	d->batch = d->teacher.stream.batch;
	d->held = d->o->held_out ? d->text->count / d->o->held_out : 0;
	for (uint32_t layer = 0; layer < d->config->layers; layer++) {
		struct group group[BLOCK_GROUPS];
		struct block b;
		block_make(d->config, layer, &b);
		d->total += (uint64_t)block_groups(&b, group) * d->text->count * d->text->ctx;
	}
	d->difference = malloc(d->batch * d->text->ctx * widest * sizeof(float));
	d->product = malloc(widest * widest * sizeof(float));
	if (!d->difference || !d->product)
		return err_nomem(e);
	return ERR_OK;
}

/* Matrices that share an input are rounded against the same moments, in the order a layer runs them. */
static int one_layer(struct driver *d, uint32_t layer, struct err *e)
{
	struct group group[BLOCK_GROUPS];
	struct block b;
	int rc = ERR_OK;
	block_make(d->config, layer, &b);
	unsigned count = block_groups(&b, group);
	for (unsigned g = 0; g < count && !rc; g++) {
		rc = one_group(d, &group[g], layer, e);
		if (!rc && group[g].ends)
			rc = advance(d, layer, group[g].part, e);
	}
	return rc;
}

int sequential_quantize(const struct quant_job *job, struct arrangement *arrangement, const struct sequential_options *o,
			struct overlay *out, struct sequential_report *report, struct err *e)
{
	const struct config *config = job->config;
	struct driver d = { .config = config, .source = job->source,
			    .weights = arrangement ? arrangement_source(arrangement) : job->source, .teacher.arrangement = arrangement,
			    .plan = job->plan, .text = job->text, .o = o, .out = out, .report = report, .progress = job->progress };
	int rc = driver_init(&d, e);
	for (uint32_t layer = 0; layer < config->layers && !rc; layer++)
		rc = one_layer(&d, layer, e);
	side_release(&d.teacher);
	side_release(&d.student);
	free(d.difference);
	free(d.product);
	return rc;
}
