#include "calib/fold/share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/run/attention_weights.h"
#include "calib/fold/refit_down.h"
#include "calib/fold/share_parts.h"
#include "model/graph.h"

/* What layers that others read leave for them. */
struct owner {
	float *keys, *values;    /* [tokens, kv_heads * dim] of the student, after RoPE */
	uint32_t last;           /* its last reader; itself when it has none */
};

/* Inputs and outputs of an attention layer, for all tokens, go here; NULL: nowhere. */
struct attention_seen {
	float *x, *y;
};
static const struct attention_seen nothing;

struct driver {
	const struct fold_job *job;
	const struct config *to;
	struct config own;       /* the same with keys and values of its own in every layer: what a fit works on */
	struct model *student_model;
	const struct windows *text;
	const struct share_options *o;
	struct share_report *report;
	struct stream teacher, student;
	struct owner *owner;
	struct attention_weights *w; /* per layer; what readers have been given so far (heads 0: nothing) */
	size_t tokens, cols;
	uint32_t layer;
	bool changed;            /* some layer before this one differs from the original's */
	float *x;                /* [tokens, cols] */
	float *target;           /* [tokens, hidden] */
	/* what the taps work on */
	struct stream *stream;
	struct attention_seen see;
	int tap_rc;
	struct err *e;
	struct fold_steps steps;
};

/* --- running layers --- */

static void see(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct driver *d = arg;
	size_t at = d->stream->first * d->text->ctx;
	for (size_t i = 0; r == ROLE_Q && d->see.x && i < n; i++) {
		float *row = d->see.x + (at + i) * d->cols;
		memcpy(row, x + i * dim, dim * sizeof *x);
		if (d->cols > dim)
			row[dim] = 1;
	}
	if (r == ROLE_O && d->see.y && !d->tap_rc)
		d->tap_rc = weight_apply(model_weight(d->stream->model, ROLE_O, layer), x, n, NULL, d->see.y + at * d->to->hidden, d->e);
}

/* Runs a layer of one of the streams and shows its attention; keep: the stream moves past it. */
static int run_layer(struct driver *d, struct stream *s, uint32_t layer, bool keep, struct attention_seen see_to, struct err *e)
{
	struct model_tap tap = { .input = see, .arg = d, .stop = !keep, .last = see_to.y ? ROLE_O : ROLE_Q };
	struct stream_visit v = { .tap = &tap, .arg = d, .keep = keep };
	d->stream = s;
	d->see = see_to;
	d->tap_rc = 0;
	int rc = stream_layer(s, layer, 0, d->text->count, &v, e);
	d->see = nothing;
	return rc ? rc : d->tap_rc;
}

/* --- weights --- */

static bool reader(const struct driver *d, uint32_t layer)
{
	return d->to->layer[layer].kv_source != layer;
}

/* A fit of a layer as the source has it, whose heads may be fewer than the original's: others' keys are put in their place. */
static int fit_open(const struct driver *d, struct attention_fit *f, uint32_t layer, enum fit_keys keys,
		    const struct attention_weights *shape, struct err *e)
{
	const struct attention_fit_layer l = { .model = d->job->original, .config = &d->own, .layer = layer, .keys = keys,
					       .key_layer = d->to->layer[layer].kv_source };
	return attention_fit_init(f, &l, shape, refit_batch(&d->o->refit), d->text->ctx, e);
}

/* Q with its bias, and O; K and V only of owners. */
static int write_weights(struct driver *d, uint32_t layer, const struct attention_weights *w, struct err *e)
{
	const struct weights_sink k = { d->to, d->job->source, d->job->out, d->student_model };
	if (!reader(d, layer))
		return attention_weights_write(&k, layer, w, e);
	size_t rows = (size_t)w->heads * w->dim;
	float *values = malloc(rows * w->hidden * sizeof *values), *bias = malloc(rows * sizeof *bias);
	int rc = values && bias ? ERR_OK : err_nomem(e);
	for (size_t r = 0; r < rows && !rc; r++) {
		memcpy(values + r * w->hidden, w->q + r * w->cols, w->hidden * sizeof *values);
		bias[r] = w->q[r * w->cols + w->cols - 1];
	}
	if (!rc)
		rc = attention_weights_put(&k, ROLE_Q, layer, values, e);
	if (!rc && w->cols > w->hidden)
		rc = attention_weights_put(&k, ROLE_Q_BIAS, layer, bias, e);
	if (!rc)
		rc = attention_weights_put(&k, ROLE_O, layer, w->o, e);
	free(values);
	free(bias);
	return rc;
}

static int remove_kv(struct driver *d, uint32_t layer, struct err *e)
{
	static const enum role roles[] = { ROLE_K, ROLE_V, ROLE_K_BIAS, ROLE_V_BIAS, ROLE_K_NORM };
	char name[96];
	int rc = ERR_OK;
	for (size_t i = 0; i < sizeof roles / sizeof *roles && !rc; i++)
		if (role_hf_name(d->to->arch, roles[i], layer, name) && source_find(d->job->source, name))
			rc = overlay_remove(d->job->out, name, e);
	return rc;
}

/* --- owners --- */

/* Keys and values of all tokens, from d->x and the weights as written. */
static int leave_kv(struct driver *d, uint32_t layer, struct err *e)
{
	struct attention_weights w;
	struct owner *s = &d->owner[layer];
	size_t batch = refit_batch(&d->o->refit), ctx = d->text->ctx;
	int rc = attention_weights_read(d->to, overlay_source(d->job->out), layer, &w, e);
	if (rc)
		return rc;
	size_t kv = (size_t)w.kv_heads * w.dim;
	struct attention_fit f = { 0 };
	free(s->keys);
	free(s->values);
	s->keys = malloc(d->tokens * kv * sizeof *s->keys);
	s->values = malloc(d->tokens * kv * sizeof *s->values);
	rc = s->keys && s->values ? fit_open(d, &f, layer, FIT_OWN, &w, e) : err_nomem(e);
	for (size_t at = 0; at < d->text->count && !rc; at += batch) {
		size_t n = d->text->count - at < batch ? d->text->count - at : batch;
		struct attention_batch b = { .seqs = n, .x = d->x + at * ctx * d->cols };
		double unused;
		rc = attention_fit_run(&f, &w, &b, NULL, &unused, e);
		if (rc)
			break;
		memcpy(s->keys + at * ctx * kv, attention_fit_keys(&f), n * ctx * kv * sizeof(float));
		memcpy(s->values + at * ctx * kv, attention_fit_values(&f), n * ctx * kv * sizeof(float));
	}
	attention_fit_release(&f);
	attention_weights_release(&w);
	return rc;
}

/* The closed form of a reader: its weights for the cache of its owner, from input x. */
static int match(struct driver *d, uint32_t layer, const float *x, struct err *e)
{
	const struct owner *s = &d->owner[d->to->layer[layer].kv_source];
	struct share_report *r = &d->report[layer];
	struct attention_weights own;
	size_t batch = refit_batch(&d->o->refit);
	int rc = attention_weights_read(d->to, d->job->source, layer, &own, e);
	if (rc)
		return rc;
	struct attention_fit f = { 0 };
	r->heads = calloc(own.kv_heads, sizeof *r->heads);
	rc = r->heads ? fit_open(d, &f, layer, FIT_OWN, &own, e) : err_nomem(e);
	if (!rc)
		rc = share_match(&f, &own, &(struct share_seen){ x, s->keys, s->values, d->text->count - d->job->held, batch }, &d->w[layer],
				 r->heads, e);
	attention_fit_release(&f);
	attention_weights_release(&own);
	return rc;
}

/* What the original puts out at the readers of `layer`, and what it puts in: x, y per reader. */
static int look_ahead(struct driver *d, uint32_t layer, struct share_member *m, float **x, float **y, struct err *e)
{
	struct stream ahead = { 0 };
	int rc = stream_open(&ahead, d->job->original, d->text, e);
	size_t n = 1;
	if (!rc)
		memcpy(ahead.hidden, d->teacher.hidden, d->tokens * d->to->hidden * sizeof(float));
	for (uint32_t i = layer; i <= d->owner[layer].last && !rc; i++) {
		bool reads = i > layer && d->to->layer[i].kv_source == layer;
		if (reads) {
			m[n].x = x[n] = malloc(d->tokens * d->cols * sizeof(float));
			m[n].target = y[n] = malloc(d->tokens * d->to->hidden * sizeof(float));
			if (!x[n] || !y[n])
				rc = err_nomem(e);
		}
		if (!rc)
			rc = run_layer(d, &ahead, i, true, reads ? (struct attention_seen){ x[n], y[n] } : nothing, e);
		n += reads;
	}
	stream_close(&ahead);
	return rc;
}

/* The owner's keys and values for all its readers; readers begin with what comes out of it. */
static int joint(struct driver *d, uint32_t layer, struct err *e)
{
	size_t count = 1, n = 1;
	for (uint32_t i = layer + 1; i <= d->owner[layer].last; i++)
		count += d->to->layer[i].kv_source == layer;
	struct share_member *m = calloc(count, sizeof *m);
	float **x = calloc(count, sizeof *x), **y = calloc(count, sizeof *y);
	int rc = m && x && y ? look_ahead(d, layer, m, x, y, e) : err_nomem(e);
	if (!rc)
		rc = attention_weights_read(d->to, d->job->source, layer, &m[0].w, e);
	if (!rc) {
		m[0].x = d->x;
		m[0].target = d->target;
		rc = fit_open(d, &m[0].fit, layer, FIT_OWN, &m[0].w, e);
	}
	for (uint32_t i = layer + 1; i <= d->owner[layer].last && !rc; i++) {
		if (d->to->layer[i].kv_source != layer)
			continue;
		rc = match(d, i, x[n], e);
		m[n].w = d->w[i];
		if (!rc)
			rc = fit_open(d, &m[n].fit, i, FIT_OF_INPUT, &d->w[i], e);
		n++;
	}
	struct share_report *r = &d->report[layer];
	if (!rc)
		rc = share_joint(&(struct share_joint){ m, count, d->text->count, d->job->held, &(struct progress){ fold_fit_step, &d->steps } }, &d->o->refit,
				 &r->joint_before, &r->joint_after, e);
	if (!rc)
		rc = write_weights(d, layer, &m[0].w, e);
	for (size_t i = 0; m && i < count; i++) {
		attention_fit_release(&m[i].fit);
		free(x ? x[i] : NULL);
		free(y ? y[i] : NULL);
	}
	if (m)
		attention_weights_release(&m[0].w);
	free(m);
	free(x);
	free(y);
	return rc;
}

/* --- one layer --- */

/* The original's output, and a share of what the streams differ by before this layer. */
static int aim(struct driver *d, struct err *e)
{
	struct block b;
	block_make(d->to, d->layer, &b);
	float share = block_adds(&b, ROLE_O) ? (float)d->o->residual : 0;
	int rc = run_layer(d, &d->teacher, d->layer, false, (struct attention_seen){ .y = d->target }, e);
	for (size_t i = 0; i < d->tokens * d->to->hidden && !rc; i++)
		d->target[i] += share * (d->teacher.hidden[i] - d->student.hidden[i]);
	return rc;
}

static int own_layer(struct driver *d, struct err *e)
{
	int rc = run_layer(d, &d->student, d->layer, false, (struct attention_seen){ .x = d->x }, e);
	if (!rc)
		rc = leave_kv(d, d->layer, e);
	if (rc || d->o->method < SHARE_JOINT)
		return rc;
	rc = aim(d, e);
	if (!rc)
		rc = joint(d, d->layer, e);
	return rc ? rc : leave_kv(d, d->layer, e);
}

static int read_layer(struct driver *d, struct share_report *r, struct err *e)
{
	struct attention_weights *w = &d->w[d->layer];
	const struct owner *s = &d->owner[r->source];
	int rc = remove_kv(d, d->layer, e);
	if (rc || d->o->method == SHARE_REUSE)
		return rc;
	rc = run_layer(d, &d->student, d->layer, false, (struct attention_seen){ .x = d->x }, e);
	if (!rc && !w->heads)
		rc = match(d, d->layer, d->x, e);
	if (!rc)
		rc = aim(d, e);
	if (rc)
		return rc;
	struct refit_options o = d->o->refit;
	o.steps = d->o->method >= SHARE_REFIT ? o.steps : 0;
	struct attention_fit f = { 0 };
	struct refit_text t = { .windows = d->text->count, .held = d->job->held, .x = d->x, .target = d->target, .keys = s->keys,
				.values = s->values };
	rc = fit_open(d, &f, d->layer, FIT_GIVEN, w, e);
	if (!rc)
		rc = refit_attention(&(struct refit_job){ &f, w, &t, &o, &(struct progress){ fold_fit_step, &d->steps } }, &r->attention, e);
	attention_fit_release(&f);
	return rc ? rc : write_weights(d, d->layer, w, e);
}

static int one_layer(struct driver *d, struct err *e)
{
	uint32_t i = d->layer;
	struct share_report *r = &d->report[i];
	struct refit_down down = { .to = d->to, .source = d->job->source, .out = d->job->out, .text = d->text, .held = d->job->held,
				   .ridge = d->o->refit.ridge, .teacher = &d->teacher, .student = &d->student };
	int rc = ERR_OK;
	*r = (struct share_report){ .source = d->to->layer[i].kv_source, .heads = r->heads, .attention = { NAN, NAN, NAN },
				    .joint_before = NAN, .joint_after = NAN, .ffn_before = NAN, .ffn_after = NAN };
	if (!d->text)
		return reader(d, i) ? remove_kv(d, i, e) : ERR_OK;
	if (d->owner[i].last != i) {
		rc = own_layer(d, e);
		d->changed |= d->o->method >= SHARE_JOINT;
	} else if (reader(d, i)) {
		rc = read_layer(d, r, e);
		d->changed = true;
	}
	if (!rc)
		rc = run_layer(d, &d->teacher, i, true, nothing, e);
	if (!rc && d->changed && d->o->ffn && d->o->method >= SHARE_MATCH && !refit_down_obstacle(d->to, i))
		rc = refit_down(&down, i, &r->ffn_before, &r->ffn_after, e);
	if (!rc)
		rc = run_layer(d, &d->student, i, true, nothing, e);
	for (uint32_t k = 0; k <= i; k++)
		if (d->owner[k].last == i) {
			free(d->owner[k].keys);
			free(d->owner[k].values);
			d->owner[k].keys = d->owner[k].values = NULL;
		}
	if (!rc && !fold_step(&d->steps))
		rc = err_set(e, ERR_IO, "interrupted");
	return rc ? err_prefix(e, "layer %u", i) : ERR_OK;
}

static int prepare(struct driver *d, struct err *e)
{
	const struct config *c = d->to;
	d->owner = calloc(c->layers, sizeof *d->owner);
	d->w = calloc(c->layers, sizeof *d->w);
	if (!d->owner || !d->w)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++) {
		d->owner[i].last = i;
		d->owner[c->layer[i].kv_source].last = i;
		d->steps.total += 1 + (c->layer[i].kv_source != i && d->o->method >= SHARE_REFIT ? (uint64_t)d->o->refit.steps : 0);
	}
	for (uint32_t i = 0; i < c->layers; i++)
		d->steps.total += d->owner[i].last != i && d->o->method >= SHARE_JOINT ? (uint64_t)d->o->refit.steps : 0;
	if (!d->text)
		return ERR_OK;
	d->tokens = d->text->count * d->text->ctx;
	d->cols = c->hidden + (c->qkv_bias ? 1 : 0);
	int rc = stream_open(&d->teacher, d->job->original, d->text, e);
	if (!rc)
		rc = model_open(c, d->job->source, &d->student_model, e);
	if (!rc)
		rc = stream_open(&d->student, d->student_model, d->text, e);
	if (rc)
		return rc;
	d->x = malloc(d->tokens * d->cols * sizeof *d->x);
	d->target = malloc(d->tokens * c->hidden * sizeof *d->target);
	return d->x && d->target ? ERR_OK : err_nomem(e);
}

int share_run(const struct fold_job *job, const struct share_options *o, struct share_report *report, struct err *e)
{
	const struct config *to = job->to;
	struct driver d = { .job = job, .steps.progress = job->progress, .to = to, .text = job->text, .o = o, .report = report, .e = e };
	if (!job->text && o->method != SHARE_REUSE)
		return err_set(e, ERR_USAGE, "sharing layers by method %s needs a text", share_method_rows[o->method].name);
	d.own = *to;
	d.own.layer = malloc(to->layers * sizeof *d.own.layer);
	int rc = d.own.layer ? prepare(&d, e) : err_nomem(e);
	for (uint32_t i = 0; i < to->layers && d.own.layer; i++) {
		d.own.layer[i] = to->layer[i];
		d.own.layer[i].kv_source = i;
	}
	for (d.layer = 0; d.layer < to->layers && !rc; d.layer++)
		rc = one_layer(&d, e);
	stream_close(&d.teacher);
	stream_close(&d.student);
	model_close(d.student_model);
	for (uint32_t i = 0; i < to->layers; i++) {
		if (d.w)
			attention_weights_release(&d.w[i]);
		if (d.owner) {
			free(d.owner[i].keys);
			free(d.owner[i].values);
		}
	}
	free(d.owner);
	free(d.own.layer);
	free(d.w);
	free(d.x);
	free(d.target);
	return rc;
}

void share_report_release(struct share_report *r, size_t layers)
{
	for (size_t i = 0; r && i < layers; i++)
		free(r[i].heads);
	free(r);
}
