#include "calib/fold/fold_layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/run/attention_weights.h"
#include "calib/stats/input_sums.h"
#include "calib/fold/attention_fit.h"
#include "calib/fold/refit_down.h"
#include "calib/stats/stats_file.h"
#include "codec/codec.h"
#include "model/graph.h"

struct driver {
	const struct fold_job *job;
	const struct config *from, *to;
	struct model *student_model;
	struct overlay *shapes;
	const struct windows *text;
	const struct fold_options *o;
	struct stream teacher, student;
	size_t train, tokens;    /* windows that are fitted to; tokens of all */
	uint32_t layer, cols;
	/* of the layer at work */
	struct input_sums q, k, v;
	float *scratch;          /* of gather */
	float *target;           /* [tokens, hidden] */
	float *x;                /* [tokens, cols] */
	float *output;           /* [batch tokens, hidden] of attention */
	bool gathering;
	int tap_rc;
	struct err *e;
	struct fold_steps steps;
};

int fold_check(const struct config *c, struct tensor_source *source, const uint32_t *to, struct err *e)
{
	static const enum role roles[] = { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_DOWN };
	for (uint32_t i = 0; i < c->layers; i++) {
		uint32_t have = c->layer[i].kv_heads;
		if (!to[i] || to[i] > have)
			return err_set(e, ERR_USAGE, "layer %u has %u KV heads; it cannot be folded to %u", i, have, to[i]);
		if (have % to[i])
			return err_set(e, ERR_USAGE, "%u KV heads of layer %u cannot be folded to %u: the count must divide", have, i, to[i]);
		if (to[i] == have)
			continue;
		if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u; fold heads before layers are shared", i,
				       c->layer[i].kv_source);
		int rc = attention_fit_possible(c, i, e);
		if (rc)
			return rc;
		for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
			char name[96];
			const struct tensor *t = source_find(source, role_hf_name(c->arch, roles[k], i, name));
			if (t && t->codec->kind != CODEC_FLOAT)
				return err_set(e, ERR_UNSUPPORTED, "tensor %s is quantized to %s; fold the original first, then quantize", name,
					       t->codec->name);
		}
	}
	for (uint32_t i = 0; i < c->layers; i++)
		if (c->layer[i].kv_source != i && to[c->layer[i].kv_source] != c->layer[c->layer[i].kv_source].kv_heads)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u; fold heads before layers are shared", i,
				       c->layer[i].kv_source);
	return ERR_OK;
}

/* --- taps --- */

static void see_qkv(void *arg, uint32_t layer, const float *q, const float *k, const float *v, size_t n)
{
	(void)layer;
	struct driver *d = arg;
	if (!d->gathering || d->tap_rc)
		return;
	if ((d->tap_rc = input_sums_add(&d->q, q, n, d->scratch, d->e)) || (d->tap_rc = input_sums_add(&d->k, k, n, d->scratch, d->e)) ||
	    (d->tap_rc = input_sums_add(&d->v, v, n, d->scratch, d->e)))
		err_prefix(d->e, "layer %u", layer);
}

static void see_teacher(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	(void)dim;
	struct driver *d = arg;
	if (r == ROLE_O && d->target && !d->tap_rc)
		d->tap_rc = weight_apply(model_weight(d->job->original, ROLE_O, layer), x, n, NULL, d->output, d->e);
}

/* Target of the folded layer: what the original's attention puts out, and a share of what the streams differ by. */
static int teacher_done(void *arg, size_t first, size_t count, const float *output, struct err *e)
{
	(void)output, (void)e;
	struct driver *d = arg;
	size_t width = d->to->hidden, at = first * d->text->ctx * width, n = count * d->text->ctx * width;
	struct block b;
	block_make(d->to, d->layer, &b);
	float share = block_adds(&b, ROLE_O) ? (float)d->o->residual : 0;
	for (size_t i = 0; d->target && i < n; i++)
		d->target[at + i] = d->output[i] + share * (d->teacher.hidden[at + i] - d->student.hidden[at + i]);
	return d->tap_rc;
}

static void see_input(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	(void)layer;
	struct driver *d = arg;
	size_t at = d->student.first * d->text->ctx;
	for (size_t i = 0; r == ROLE_Q && i < n; i++) {
		float *row = d->x + (at + i) * d->cols;
		memcpy(row, x + i * dim, dim * sizeof *x);
		if (d->cols > dim)
			row[dim] = 1;
	}
}

/* --- algebra of one layer --- */

/* Means as a full matrix, out of sums as a packed triangle. */
static double *full(const struct input_sums *g)
{
	double *m = malloc(g->n * g->n * sizeof *m);
	for (size_t i = 0; m && i < g->n; i++)
		for (size_t j = 0; j <= i; j++)
			m[i * g->n + j] = m[j * g->n + i] = g->moment[triangle(i) + j] / (double)g->count;
	return m;
}

static int moments(struct driver *d, struct fold_moments *m, struct err *e)
{
	if (d->o->stats)
		return stats_kv(d->o->stats, d->layer, m, e);
	*m = (struct fold_moments){ full(&d->k), full(&d->v), malloc(d->q.n * sizeof *m->qq) };
	if (!m->kk || !m->vv || !m->qq)
		return err_nomem(e);
	for (size_t i = 0; i < d->q.n; i++)
		m->qq[i] = d->q.sum_squares[i] / (double)d->q.count;
	return ERR_OK;
}

struct algebra {
	const struct attention_weights *w;
	const struct fold_moments *m;
	const struct fold_options *o;
	struct head_groups groups;
	struct attention_weights *out;
	int rc;
	struct err *e;
};

/* In a loop of one item, so that LAPACK runs on one thread: its bits depend on how many it has. */
static void algebra(void *arg, size_t item, int worker)
{
	(void)item, (void)worker;
	struct algebra *a = arg;
	a->rc = fold_group(a->w, a->m, &a->groups, a->o->search, a->e);
	if (!a->rc)
		a->rc = fold_heads(a->w, a->m, a->o->method, &a->groups, a->out, a->e);
}

static int fold_layer(struct driver *d, struct fold_report *r, struct attention_weights *out, struct err *e)
{
	struct attention_weights w;
	struct fold_moments m = { 0 };
	r->kv_heads = d->to->layer[d->layer].kv_heads;
	r->order = calloc(d->from->layer[d->layer].kv_heads, sizeof *r->order);
	int rc = r->order ? attention_weights_read(d->from, d->job->source, d->layer, &w, e) : err_nomem(e);
	if (rc)
		return rc;
	if (d->text || d->o->stats)
		rc = moments(d, &m, e);
	struct algebra a = { &w, m.kk ? &m : NULL, d->o, { r->order, r->kv_heads }, out, 0, e };
	if (!rc) {
		thread_for(1, algebra, &a);
		rc = a.rc;
	}
	fold_moments_release(&m);
	attention_weights_release(&w);
	return rc ? err_prefix(e, "layer %u", d->layer) : ERR_OK;
}

/* --- refit --- */

static int refit(struct driver *d, struct attention_weights *w, struct fold_report *r, struct err *e)
{
	const struct attention_fit_layer l = { .model = d->job->original, .config = d->to, .layer = d->layer };
	struct attention_fit f = { 0 };
	struct stream_visit v = { .tap = &(struct model_tap){ .input = see_input, .arg = d }, .arg = d };
	int rc = stream_layer(&d->student, d->layer, 0, d->text->count, &v, e);
	if (!rc)
		rc = attention_fit_init(&f, &l, w, refit_batch(&d->o->refit), d->text->ctx, e);
	struct refit_text t = { .windows = d->text->count, .held = d->job->held, .x = d->x, .target = d->target };
	if (!rc)
		rc = refit_attention(&(struct refit_job){ &f, w, &t, &d->o->refit, &(struct progress){ fold_fit_step, &d->steps } }, &r->attention, e);
	attention_fit_release(&f);
	return rc ? err_prefix(e, "layer %u", d->layer) : ERR_OK;
}

static int down(struct driver *d, struct fold_report *r, struct err *e)
{
	struct refit_down f = { .to = d->to, .source = d->job->source, .out = d->job->out, .text = d->text, .held = d->job->held,
				.ridge = d->o->refit.ridge, .teacher = &d->teacher, .student = &d->student };
	int rc = refit_down(&f, d->layer, &r->ffn_before, &r->ffn_after, e);
	return rc ? err_prefix(e, "layer %u", d->layer) : ERR_OK;
}

/* --- one layer --- */

/* Takes the original past the layer; gathers moments over the windows that are fitted to, and the targets of all. */
static int teacher_layer(struct driver *d, bool folded, struct err *e)
{
	const struct layer_config *l = &d->from->layer[d->layer];
	size_t kv = (size_t)l->kv_heads * d->from->head_dim;
	struct model_tap tap = { .input = folded ? see_teacher : NULL, .qkv = folded ? see_qkv : NULL, .arg = d };
	struct stream_visit v = { .done = folded ? teacher_done : NULL, .tap = &tap, .arg = d, .keep = true };
	int rc = ERR_OK;
	d->gathering = folded && !d->o->stats;
	d->tap_rc = 0;
	if (d->gathering && ((rc = input_sums_init(&d->q, (size_t)l->heads * d->from->head_dim, false, e)) ||
			     (rc = input_sums_init(&d->k, kv, true, e)) || (rc = input_sums_init(&d->v, kv, true, e))))
		return rc;
	rc = stream_layer(&d->teacher, d->layer, 0, d->train, &v, e);
	d->gathering = false;
	if (!rc)
		rc = stream_layer(&d->teacher, d->layer, d->train, d->text->count, &v, e);
	return rc;
}

static int one_layer(struct driver *d, struct fold_report *r, struct err *e)
{
	bool folded = d->to->layer[d->layer].kv_heads != d->from->layer[d->layer].kv_heads, refits = d->target != NULL;
	struct attention_weights w = { 0 };
	int rc = d->teacher.run ? teacher_layer(d, folded, e) : ERR_OK;
	r->kv_heads = d->to->layer[d->layer].kv_heads;
	r->attention = (struct refit_report){ NAN, NAN, NAN };
	r->ffn_before = r->ffn_after = NAN;
	if (!rc && folded)
		rc = fold_layer(d, r, &w, e);
	if (!rc && folded && refits)
		rc = refit(d, &w, r, e);
	if (!rc && folded)
		rc = attention_weights_write(&(struct weights_sink){ d->to, d->job->source, d->job->out, d->student_model }, d->layer, &w, e);
	attention_weights_release(&w);
	input_sums_release(&d->q);
	input_sums_release(&d->k);
	input_sums_release(&d->v);
	if (!rc && folded && refits && d->o->ffn && !refit_down_obstacle(d->to, d->layer))
		rc = down(d, r, e);
	if (!rc && refits)
		rc = stream_layer(&d->student, d->layer, 0, d->text->count, &(struct stream_visit){ .keep = true }, e);
	if (!rc && !fold_step(&d->steps))
		rc = err_set(e, ERR_IO, "interrupted");
	return rc;
}

static int prepare_text(struct driver *d, struct err *e)
{
	const struct config *c = d->to;
	d->tokens = d->text->count * d->text->ctx;
	d->train = d->text->count - d->job->held;
	d->cols = c->hidden + (c->qkv_bias ? 1 : 0);
	if (d->o->stats && d->o->method != FOLD_REFIT)
		return ERR_OK;
	int rc = stream_open(&d->teacher, d->job->original, d->text, e);
	d->scratch = malloc(input_sums_scratch() * sizeof *d->scratch);
	if (!rc && !d->scratch)
		rc = err_nomem(e);
	if (rc || d->o->method != FOLD_REFIT)
		return rc;
	rc = attention_weights_shapes(d->from, c, d->job->source, &d->shapes, e);
	if (!rc)
		rc = model_open(c, overlay_source(d->shapes), &d->student_model, e);
	if (!rc)
		rc = stream_open(&d->student, d->student_model, d->text, e);
	if (rc)
		return rc;
	d->x = malloc(d->tokens * d->cols * sizeof *d->x);
	d->target = malloc(d->tokens * c->hidden * sizeof *d->target);
	d->output = malloc(d->student.batch * d->text->ctx * c->hidden * sizeof *d->output);
	return d->x && d->target && d->output ? ERR_OK : err_nomem(e);
}

int fold_run(const struct fold_job *job, const struct fold_options *o, struct fold_report *report, struct err *e)
{
	const struct config *to = job->to;
	struct driver d = { .job = job, .steps.progress = job->progress, .from = model_config(job->original), .to = to, .text = job->text, .o = o, .e = e };
	int rc = d.text ? prepare_text(&d, e) : ERR_OK;
	for (uint32_t i = 0; i < to->layers; i++)
		d.steps.total += 1 + (o->method == FOLD_REFIT && to->layer[i].kv_heads != d.from->layer[i].kv_heads ? (uint64_t)o->refit.steps : 0);
	for (uint32_t i = 0; i < to->layers && !rc; i++) {
		d.layer = i;
		rc = one_layer(&d, &report[i], e);
	}
	stream_close(&d.teacher);
	stream_close(&d.student);
	model_close(d.student_model);
	overlay_free(d.shapes);
	free(d.scratch);
	free(d.target);
	free(d.x);
	free(d.output);
	return rc;
}

void fold_report_release(struct fold_report *r, size_t layers)
{
	for (size_t i = 0; r && i < layers; i++)
		free(r[i].order);
	free(r);
}
