/* Both models run over the text; what they read becomes moments. */
#include "calib/quant/sequential_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/product.h"

static void watch_input(void *arg, enum role r, uint32_t place, const float *x, size_t n, size_t dim)
{
	struct side *s = arg;
	if (r != s->watch)
		return;
	if (role_rows[r].per_expert) {
		s->start[place_expert(place)] = s->rows;
		s->count[place_expert(place)] = n;
		memcpy(s->token + s->rows, s->routed, n * sizeof *s->token);
	}
	memcpy(s->input + s->rows * dim, x, n * dim * sizeof *x);
	s->rows += n;
	if (s->arrangement && !role_rows[r].per_expert)
		arrangement_input(s->arrangement, r, place, s->input, n, s->scratch);
}

static void watch_tokens(void *arg, const uint32_t *token, size_t n)
{
	struct side *s = arg;
	(void)n;
	s->routed = token;
}

int side_init(struct driver *d, struct side *s, struct err *e)
{
	int rc = model_open(d->config, d->source, &s->model, e);
	if (!rc)
		rc = stream_open(&s->stream, s->model, d->text, e);
	if (rc)
		return rc;
	size_t widest = config_widths(d->config).input, experts = d->config->experts;
	size_t rows = s->stream.batch * d->text->ctx * (experts ? d->config->experts_used : 1);
	s->input = malloc(rows * widest * sizeof(float));
	s->scratch = malloc(widest * sizeof(float));
	s->token = malloc((rows + 1) * sizeof *s->token);
	s->start = calloc(experts + 1, sizeof *s->start);
	s->count = calloc(experts + 1, sizeof *s->count);
	return s->input && s->scratch && s->token && s->start && s->count ? ERR_OK : err_nomem(e);
}

void side_release(struct side *s)
{
	if (s->stream.model)
		stream_close(&s->stream);
	model_close(s->model);
	free(s->input);
	free(s->scratch);
	free(s->token);
	free(s->start);
	free(s->count);
}

/*
 * Runs one batch of a half layer, with the input of the watched role left in s->input: only so far, or to its end when
 * the stream moves past it.
 */
static int run_half(struct side *s, uint32_t layer, const struct group *g, size_t first, size_t seqs, struct err *e)
{
	bool move = s->leads && g->ends && !g->experts; /* experts may take several passes */
	const struct model_tap tap = { .input = watch_input, .routed = watch_tokens, .arg = s, .stop = !move, .last = g->role[0], .part = g->part };
	const struct stream_visit v = { .tap = &tap, .keep = move };
	s->watch = g->role[0];
	s->rows = 0;
	if (g->experts)
		memset(s->count, 0, g->experts * sizeof *s->count);
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
	product_gemm(true, false, rows, cols, o->n, 1, o->x + at, o->rows, o->y, o->cols, 0, p, o->cols);
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

int gather_group(struct driver *d, const struct group *g, uint32_t layer, struct moments *fit, struct moments *held, struct err *e)
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

/* What tokens of an expert differ by between the models; nothing where the original sends a token elsewhere. */
static void expert_difference(struct driver *d, uint32_t expert, size_t n)
{
	const struct side *t = &d->teacher, *s = &d->student;
	const uint32_t *from = t->token + t->start[expert], *to = s->token + s->start[expert];
	const float *x = t->input + t->start[expert] * n, *y = s->input + s->start[expert] * n;
	for (size_t i = 0, k = 0; i < s->count[expert]; i++) {
		while (k < t->count[expert] && from[k] < to[i])
			k++;
		bool both = k < t->count[expert] && from[k] == to[i];
		for (size_t j = 0; j < n; j++)
			d->difference[i * n + j] = both ? x[k * n + j] - y[i * n + j] : 0;
	}
}

static void add_expert(struct driver *d, struct moments *m, uint32_t expert)
{
	const struct side *s = d->o->sequential ? &d->student : &d->teacher;
	const float *x = s->input + s->start[expert] * m->n;
	size_t tokens = s->count[expert];
	if (!tokens)
		return;
	add_outer((struct outer){ m->own, d->product, x, x, m->n, m->n, tokens, true });
	if (d->o->sequential && d->o->input != 0) {
		expert_difference(d, expert, m->n);
		add_outer((struct outer){ m->cross, d->product, d->difference, x, m->n, m->n, tokens, false });
	}
	m->tokens += tokens;
}

int gather_experts(struct driver *d, const struct group *g, uint32_t layer, struct group_moments *x, size_t count, struct err *e)
{
	size_t windows = d->text->count, fitted = windows - d->held;
	int rc = ERR_OK;
	for (size_t first = 0, seqs; first < windows && !rc; first += seqs) {
		size_t left = first < fitted ? fitted - first : windows - first;
		seqs = left < d->batch ? left : d->batch;
		rc = run_half(&d->teacher, layer, g, first, seqs, e);
		if (!rc && d->o->sequential)
			rc = run_half(&d->student, layer, g, first, seqs, e);
		for (size_t i = 0; i < count && !rc; i++)
			add_expert(d, first < fitted ? &x[i].fit : &x[i].held, x[i].expert);
		if (!rc && !progress_tell(d->progress, d->done, d->total))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	for (size_t i = 0; i < count && !rc; i++) {
		mirror(x[i].fit.own, x[i].fit.n);
		mirror(x[i].held.own, x[i].held.n);
	}
	return rc;
}
