#include "calib/quant/sequential.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "algo/quantize.h"
#include "base/thread.h"
#include "calib/quant/sequential_impl.h"

/* Rows of a matrix per piece of work; fixed, so that nothing depends on the number of threads. */
enum { STRIPE = 64 };

/* What held-out tokens say of a matrix. */
struct choice {
	bool feedback;       /* else the importance-weighted search on the original weights, as method imatrix */
	double aim;          /* how much of the correction to take */
	bool shared;         /* an expert's moments, filled up with those of its layer */
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
					 .seconds = seconds, .choice = choice->shared ? "shared" : choice->feedback ? "feedback" : "imatrix",
					 .aim = choice->feedback ? choice->aim : 0, .judged = d->held != 0 && !choice->shared,
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

/* The matrices of a group that are to be quantized: how many. */
static int find_items(const struct driver *d, const struct group *g, uint32_t place, const struct plan_item *item[BLOCK_READERS])
{
	int wanted = 0;
	for (unsigned i = 0; i < BLOCK_READERS; i++) {
		item[i] = i < g->count ? plan_find(d->plan, g->role[i], place) : NULL;
		if (item[i] && (!codec_quantizes(item[i]->out.codec) || !item[i]->method))
			item[i] = NULL;
		wanted += item[i] != NULL;
	}
	return wanted;
}

/* Held-out tokens are asked where there are some. */
static int quantize_group(struct driver *d, const struct group *g, uint32_t place, struct group_moments *m, struct err *e)
{
	const struct plan_item *item[BLOCK_READERS];
	struct choice choice[BLOCK_READERS];
	struct prepared p = { 0 };
	int rc = ERR_OK;
	if (!find_items(d, g, place, item))
		return ERR_OK;
	for (unsigned i = 0; i < g->count; i++)
		choice[i] = (struct choice){ .feedback = true, .aim = m->shared ? 0 : 1, .shared = m->shared };
	if (m->held.own)
		rc = choose_group(d, item, &m->fit, &m->held, choice, e);
	if (!rc)
		rc = prepare(d, &m->fit, &p, e);
	if (rc)
		err_prefix(e, "layer %u, %s", role_layer(g->role[0], place), role_rows[g->role[0]].name);
	for (unsigned i = 0; i < g->count && !rc; i++)
		if (item[i])
			rc = quantize_one(d, item[i], &p, &choice[i], e);
	prepared_release(&p);
	return rc;
}

static int one_group(struct driver *d, const struct group *g, uint32_t layer, struct err *e)
{
	const struct plan_item *item[BLOCK_READERS];
	struct group_moments m = { 0 };
	int wanted = 0;
	for (uint32_t i = 0; i < group_places(g) && !wanted; i++)
		wanted = find_items(d, g, group_place(g, layer, i), item);
	if (!wanted)
		return ERR_OK;
	if (g->experts)
		return each_expert(d, g, layer, quantize_group, e);
	int rc = gather_group(d, g, layer, &m.fit, &m.held, e);
	if (!rc)
		rc = quantize_group(d, g, layer, &m, e);
	moments_release(&m.fit);
	moments_release(&m.held);
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
