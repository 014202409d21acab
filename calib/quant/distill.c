#include "calib/quant/distill.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffers.h"
#include "base/rng.h"
#include "calib/quant/latent.h"
#include "calib/quant/own_text.h"
#include "model/divergence.h"
#include "model/tape.h"

const struct distill_options distill_defaults = { .passes = 12, .batch = 8, .rate = 0.01, .scale_rate = 0.3, .written = 3 };

/* Floating-point operations that are worth it unasked: minutes on two cores. Fewer passes than LEAST gain nothing. */
static const double WORTH = 3e13;
enum { LEAST = 4 };
/* Fewer tokens are learned by heart, and too few of them are left to tell. */
enum { LEAST_TOKENS = 16384 };
/* Windows between two signs of progress; one window in so many is held out; fewer of those cannot tell whether written text helps. */
enum { WRITTEN_AT_ONCE = 32, HELD_OUT = 8, TELLING = 8 };
/* With fewer tokens the codes need those that judge the training as well. */
enum { ENOUGH_TOKENS = 32768 };
/* Steps that the means are over, or one in 32 of all: longer ones lag behind. */
static const double MEAN_STEPS = 50;

struct layer {
	struct block block;
	struct tape_matrix matrix[ROLE_COUNT]; /* what it computes with, experts' one behind the other; gradients are those of the distiller */
	struct latent *latent;
	int count;
	bool attends;
	value kv[2];             /* what its attention reads, ... */
	float *keys[2], *slopes[2]; /* ... and where that lies with its gradient, if other layers read it too; [batch tokens, width] */
};

struct distiller {
	const struct config *c;
	struct windows text;     /* what is fitted to, what is held out, and what the original has written */
	const struct distill_options *o;
	struct tensor_source *source;
	struct overlay *out;
	struct model *model;     /* the original, for its norms, biases, embedding and head */
	struct tape *tape;
	struct divergence *divergence;
	struct layer *layer;
	float *grad[ROLE_COUNT]; /* of one layer at a time */
	struct latent_shared shared;
	float *teacher;          /* [tokens, hidden] after the last layer */
	float *kept;             /* [layers + 1, batch tokens, hidden] what goes into each layer, and comes out of the last */
	float *d;                /* [batch tokens, hidden] the gradient on its way back */
	float *wanted;           /* [batch tokens, hidden] of `teacher` */
	size_t *order;           /* windows: those to fit to, shuffled, then those held out */
	int32_t *tokens;         /* [batch tokens] */
	size_t fitted, held, written, more; /* windows */
	const struct progress *progress;
	uint64_t done, total;
};

static bool trained(enum role r)
{
	return r < ROLE_COUNT && role_rows[r].linear && r != ROLE_HEAD;
}

static bool takes(const struct plan_item *item)
{
	return trained(item->role) && quantizer_takes(item);
}

static size_t held_windows(size_t windows)
{
	return windows < HELD_OUT ? 1 : windows / HELD_OUT;
}

size_t distill_fitted(const struct windows *text)
{
	return text->count * text->ctx < ENOUGH_TOKENS ? text->count : text->count - held_windows(text->count);
}

int distill_check(const struct config *c, const struct plan *p, uint64_t windows, struct err *e)
{
	bool any = false;
	for (size_t i = 0; i < p->count; i++)
		any |= takes(&p->items[i]);
	if (!any)
		return err_set(e, ERR_UNSUPPORTED, "no matrix is quantized");
	if (windows < 2)
		return err_set(e, ERR_UNSUPPORTED, "a single window of text");
	return tape_check(c, e);
}

unsigned distill_passes(const struct config *c, const struct plan *p, uint64_t tokens)
{
	double weights = (double)c->vocab * c->hidden;
	if (tokens < LEAST_TOKENS)
		return 0;
	for (size_t i = 0; i < p->count; i++) {
		enum role r = p->items[i].role;
		double used = trained(r) && role_rows[r].per_expert ? (double)c->experts_used / c->experts : 1;
		weights += trained(r) ? used * (double)tensor_elements(&p->items[i].out) : 0;
	}
	/* two operations a weight, in two forward passes and twice as much backward */
	double passes = WORTH / (8 * weights * (double)tokens);
	return passes < LEAST ? 0 : passes < distill_defaults.passes ? (unsigned)passes : distill_defaults.passes;
}

/* Do other layers read its keys and values? */
static bool is_read(const struct config *c, uint32_t layer)
{
	for (uint32_t i = layer + 1; i < c->layers; i++)
		if (c->layer[i].kv_source == layer)
			return true;
	return false;
}

/* All of a role's matrices in a layer: experts' too. */
static size_t elements(const struct config *c, const struct block *b, const struct op *op)
{
	return b->value[op->in[0]].width * b->value[op->out].width * role_places(c, op->role);
}

/* Of the widest layer, by role. */
static void gradient_sizes(const struct config *c, size_t most[ROLE_COUNT])
{
	struct block b;
	memset(most, 0, ROLE_COUNT * sizeof *most);
	for (uint32_t i = 0; i < c->layers; i++) {
		block_make(c, i, &b);
		for (unsigned k = 0; k < b.ops; k++)
			if (b.op[k].kind == OP_LINEAR && elements(c, &b, &b.op[k]) > most[b.op[k].role])
				most[b.op[k].role] = elements(c, &b, &b.op[k]);
	}
}

/* ---- layers */

/* What is taken once. */
enum { BUFFERS = ROLE_COUNT + 10 };
static size_t buffers_of(struct distiller *d, const struct plan *p, struct buffer out[BUFFERS])
{
	size_t most[ROLE_COUNT], flat = 1, n = 0, width = d->c->hidden, batch = d->o->batch * d->text.ctx, tokens = d->text.count * d->text.ctx;
	gradient_sizes(d->c, most);
	for (size_t i = 0; i < p->count; i++)
		if (takes(&p->items[i]) && tensor_elements(&p->items[i].out) > flat)
			flat = (size_t)tensor_elements(&p->items[i].out);
	out[n++] = (struct buffer){ &d->text.tokens, tokens, sizeof *d->text.tokens };
	out[n++] = (struct buffer){ &d->layer, d->c->layers, sizeof *d->layer };
	out[n++] = (struct buffer){ &d->teacher, tokens * width, sizeof(float) };
	out[n++] = (struct buffer){ &d->kept, (d->c->layers + 1) * batch * width, sizeof(float) };
	out[n++] = (struct buffer){ &d->d, batch * width, sizeof(float) };
	out[n++] = (struct buffer){ &d->wanted, batch * width, sizeof(float) };
	out[n++] = (struct buffer){ &d->order, d->text.count, sizeof *d->order };
	out[n++] = (struct buffer){ &d->tokens, batch, sizeof *d->tokens };
	out[n++] = (struct buffer){ &d->shared.flat, flat, sizeof(float) };
	out[n++] = (struct buffer){ &d->shared.flat_scales, 2 * flat, sizeof(float) };
	for (int i = 0; i < ROLE_COUNT; i++)
		if (most[i])
			out[n++] = (struct buffer){ &d->grad[i], most[i], sizeof(float) };
	return n;
}

/* What is taken for a layer, whose block is made: matrices, and keys and values that other layers read. */
enum { LAYER_BUFFERS = BLOCK_OPS + 4 };
static size_t layer_buffers(const struct distiller *d, struct layer *l, uint32_t at, struct buffer out[LAYER_BUFFERS])
{
	size_t n = 0, tokens = d->o->batch * d->text.ctx;
	for (unsigned k = 0; k < l->block.ops; k++)
		if (l->block.op[k].kind == OP_LINEAR)
			out[n++] = (struct buffer){ &l->matrix[l->block.op[k].role].w, elements(d->c, &l->block, &l->block.op[k]), sizeof(float) };
	for (int k = 0; k < 2 && l->attends && is_read(d->c, at); k++) {
		out[n++] = (struct buffer){ &l->keys[k], tokens * l->block.value[l->kv[k]].width, sizeof(float) };
		out[n++] = (struct buffer){ &l->slopes[k], tokens * l->block.value[l->kv[k]].width, sizeof(float) };
	}
	return n;
}

static void layer_block(const struct distiller *d, struct layer *l, uint32_t at)
{
	block_make(d->c, at, &l->block);
	l->attends = tape_keys_values(&l->block, d->c, at, l->kv);
}

/* How many windows are fitted to, held out, taken besides and written; no more than are read. */
static void count_windows(struct distiller *d, const struct windows *text, size_t more)
{
	const struct distill_options *o = d->o;
	d->held = held_windows(text->count);
	d->fitted = text->count - d->held;
	d->more = more < o->passes * d->fitted ? more : o->passes * d->fitted;
	d->written = d->held < TELLING || more ? 0 : d->fitted * (o->written < o->passes ? o->written : o->passes ? o->passes - 1 : 0);
	d->text.count = text->count + d->written + d->more;
	d->text.ctx = text->ctx;
}

uint64_t distill_memory(const struct config *c, const struct plan *p, const struct distill_text *text)
{
	uint64_t ctx = text->ctx;
	struct distiller d = { .c = c, .o = &distill_defaults };
	struct buffer b[(int)BUFFERS > (int)LAYER_BUFFERS ? BUFFERS : LAYER_BUFFERS];
	struct layer l = { .count = 0 };
	uint64_t sum = 0;
	count_windows(&d, &(struct windows){ .count = text->tokens / ctx, .ctx = ctx }, text->more / ctx);
	sum += buffers_size(b, buffers_of(&d, p, b));
	for (uint32_t i = 0; i < c->layers; i++) {
		layer_block(&d, &l, i);
		sum += buffers_size(b, layer_buffers(&d, &l, i, b));
	}
	for (size_t i = 0; i < p->count; i++)
		sum += takes(&p->items[i]) ? sizeof(struct latent) + latent_memory(&p->items[i]) : 0;
	sum += model_run_memory(c, d.o->batch * ctx); /* of the original */
	return sum + tape_memory(c, d.o->batch, ctx) + divergence_memory(c, d.o->batch * ctx) + own_text_memory(c, ctx);
}

static int layer_latents(struct distiller *d, const struct plan *p, uint32_t at, struct err *e)
{
	struct layer *l = &d->layer[at];
	size_t count = 0;
	for (size_t k = 0; k < p->count; k++)
		count += takes(&p->items[k]) && role_layer(p->items[k].role, p->items[k].layer) == at;
	l->latent = calloc(count + 1, sizeof *l->latent);
	if (!l->latent)
		return err_nomem(e);
	for (size_t k = 0; k < p->count; k++) {
		const struct plan_item *item = &p->items[k];
		if (!takes(item) || role_layer(item->role, item->layer) != at || !l->matrix[item->role].w)
			continue;
		struct tape_matrix *m = &l->matrix[item->role];
		size_t first = role_rows[item->role].per_expert ? place_expert(item->layer) * (size_t)tensor_elements(&item->out) : 0;
		m->grad = d->grad[item->role];
		const struct latent_room room = { m->w + first, m->grad + first, m->cols, &d->shared };
		int rc = latent_open(&l->latent[l->count++], item, overlay_source(d->out), d->source, &room, e);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

/* The matrices of a linear: one, or each expert's. */
static int read_matrices(const struct distiller *d, struct layer *l, const struct op *op, uint32_t at, struct err *e)
{
	size_t n = role_places(d->c, op->role), one = elements(d->c, &l->block, op) / n;
	struct tape_matrix *m = &l->matrix[op->role];
	char name[96];
	int rc = ERR_OK;
	m->cols = l->block.value[op->in[0]].width;
	for (uint32_t i = 0; i < n && !rc; i++) {
		float *w = NULL;
		const struct tensor *meta;
		rc = source_read_f32(overlay_source(d->out), role_hf_name(d->c->arch, op->role, role_place(op->role, at, i), name), &w, &meta, e);
		if (!rc)
			memcpy(m->w + i * one, w, one * sizeof *w);
		free(w);
	}
	return rc;
}

static int layer_open(struct distiller *d, uint32_t at, struct err *e)
{
	struct layer *l = &d->layer[at];
	struct buffer b[LAYER_BUFFERS];
	layer_block(d, l, at);
	int rc = buffers_take(b, layer_buffers(d, l, at, b), e);
	for (unsigned k = 0; k < l->block.ops && !rc; k++)
		if (l->block.op[k].kind == OP_LINEAR)
			rc = read_matrices(d, l, &l->block.op[k], at, e);
	return rc;
}

static void layer_close(struct layer *l)
{
	for (int i = 0; i < l->count; i++)
		latent_close(&l->latent[i]);
	for (int r = 0; r < ROLE_COUNT; r++)
		free(l->matrix[r].w);
	for (int k = 0; k < 2; k++) {
		free(l->keys[k]);
		free(l->slopes[k]);
	}
	free(l->latent);
}

/* ---- steps */

static struct tape_job job_of(const struct distiller *d, uint32_t at, size_t count)
{
	const struct layer *l = &d->layer[at], *owner = &d->layer[d->c->layer[at].kv_source];
	struct tape_job j = { .block = &l->block, .to = l->block.ops, .layer = at, .seqs = count, .matrix = l->matrix,
			      .in = d->kept + at * d->o->batch * d->text.ctx * d->c->hidden };
	for (int k = 0; k < 2 && owner->keys[k]; k++)
		j.place[l->kv[k]] = (struct tape_place){ .x = owner->keys[k], .d = owner->slopes[k] };
	return j;
}

static size_t pool(const struct distiller *d)
{
	return d->fitted + d->written + d->more;
}

static size_t batch_of(const struct distiller *d)
{
	return d->o->batch < pool(d) ? d->o->batch : pool(d);
}

static size_t steps_of_pass(const struct distiller *d)
{
	return (d->fitted + batch_of(d) - 1) / batch_of(d);
}

static int tick(struct distiller *d, size_t windows, struct err *e)
{
	d->done += windows * d->text.ctx;
	return progress_tell(d->progress, d->done, d->total) ? ERR_OK : err_set(e, ERR_IO, "interrupted");
}

/* Windows fitted to are read again and again, and learned by heart; where there is no more text, the original writes some. */
static int write_text(struct distiller *d, struct err *e)
{
	const struct windows real = { .tokens = d->text.tokens, .count = d->fitted + d->held, .ctx = d->text.ctx };
	const struct own_text own = { d->model, &real, d->fitted, d->o->seed };
	int rc = ERR_OK;
	for (size_t at = 0, n; at < d->written && !rc; at += n) {
		n = d->written - at < WRITTEN_AT_ONCE ? d->written - at : WRITTEN_AT_ONCE;
		rc = own_text_windows(&own, at, n, d->text.tokens + (real.count + at) * real.ctx, e);
		if (!rc)
			rc = tick(d, n, e);
	}
	return rc;
}

static int run_teacher(struct distiller *d, struct err *e)
{
	size_t ctx = d->text.ctx;
	struct model_run *run = model_run_new(d->model, d->o->batch, ctx, e);
	int rc = run ? ERR_OK : e->code;
	for (size_t at = 0, n; at < d->text.count && !rc; at += n) {
		n = d->text.count - at < d->o->batch ? d->text.count - at : d->o->batch;
		rc = model_forward(run, d->text.tokens + at * ctx, &(struct model_batch){ n, ctx, NULL, NULL }, d->teacher + at * ctx * d->c->hidden, e);
		if (!rc)
			rc = tick(d, n, e);
	}
	model_run_free(run);
	return rc;
}

/* Runs the student over windows, and leaves the teacher's last hidden states for them in d->wanted. */
static int run_student(struct distiller *d, const size_t *window, size_t count, struct err *e)
{
	size_t ctx = d->text.ctx, size = ctx * d->c->hidden, all = d->o->batch * size;
	for (size_t i = 0; i < count; i++) {
		memcpy(d->tokens + i * ctx, d->text.tokens + window[i] * ctx, ctx * sizeof *d->tokens);
		memcpy(d->wanted + i * size, d->teacher + window[i] * size, size * sizeof *d->wanted);
	}
	int rc = model_embed(d->model, &(struct token_run){ d->tokens, count * ctx, ctx, 0 }, d->kept, e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++) {
		struct tape_job j = job_of(d, i, count);
		j.out = d->kept + (i + 1) * all;
		rc = tape_forward(d->tape, &j, e);
	}
	return rc;
}

/* d->d, the gradient behind a layer, becomes that before it; the matrices get theirs. */
static int layer_back(struct distiller *d, uint32_t at, size_t count, struct err *e)
{
	struct tape_job j = job_of(d, at, count);
	j.d = d->d;
	j.back = true;
	int rc = tape_forward(d->tape, &j, e);
	return rc ? rc : tape_back(d->tape, &j, e);
}

static int one_step(struct distiller *d, const size_t *window, size_t count, struct err *e)
{
	size_t all = d->o->batch * d->text.ctx * d->c->hidden, tokens = count * d->text.ctx;
	const struct divergence_batch b = { d->wanted, d->kept + d->c->layers * all, tokens, d->d, 1 / (float)tokens };
	double kl;
	int rc = run_student(d, window, count, e);
	if (!rc)
		rc = divergence_run(d->divergence, &b, &kl, e);
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < 2 && d->layer[i].slopes[k]; k++)
			memset(d->layer[i].slopes[k], 0, count * d->text.ctx * d->layer[i].block.value[d->layer[i].kv[k]].width * sizeof(float));
	for (uint32_t i = d->c->layers; i-- > 0 && !rc;) {
		rc = layer_back(d, i, count, e);
		for (int k = 0; k < d->layer[i].count && !rc; k++)
			rc = latent_step(&d->layer[i].latent[k], e);
	}
	return rc ? rc : tick(d, count, e);
}

static int show(struct distiller *d, bool means, struct err *e)
{
	int rc = ERR_OK;
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < d->layer[i].count && !rc; k++)
			rc = latent_show(&d->layer[i].latent[k], means, e);
	return rc;
}

/* Mean KL of what would be kept on the windows held out. */
static int judge(struct distiller *d, double *out, struct err *e)
{
	size_t all = d->o->batch * d->text.ctx * d->c->hidden, tokens = d->held * d->text.ctx;
	int rc = show(d, true, e);
	*out = 0;
	for (size_t at = pool(d), n; at < d->text.count && !rc; at += n) {
		double kl = 0;
		n = d->text.count - at < d->o->batch ? d->text.count - at : d->o->batch;
		const struct divergence_batch b = { d->wanted, d->kept + d->c->layers * all, n * d->text.ctx, NULL, 1 };
		rc = run_student(d, d->order + at, n, e);
		if (!rc)
			rc = divergence_run(d->divergence, &b, &kl, e);
		*out += kl / (double)tokens;
	}
	return rc ? rc : show(d, false, e);
}

static int keep_pass(struct distiller *d, struct distill_report *r, struct err *e)
{
	int rc = ERR_OK;
	r->moved = 0;
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < d->layer[i].count && !rc; k++) {
			uint64_t moved = 0;
			rc = latent_keep(&d->layer[i].latent[k], &moved, e);
			r->moved += moved;
		}
	return rc;
}

static void shuffle(size_t *order, size_t n, struct rng *rng)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = (size_t)rng_below(rng, i), was = order[i - 1];
		order[i - 1] = order[k];
		order[k] = was;
	}
}

/* A model that writes something else than it was shown learns nothing from it that holds there, which is soon seen. */
static unsigned patience(const struct distiller *d)
{
	return d->written ? (d->o->passes + 2) / 3 : d->o->passes;
}

static int train(struct distiller *d, struct distill_report *r, struct err *e)
{
	struct rng rng = { d->o->seed };
	size_t batch = batch_of(d), next = pool(d);
	int rc = judge(d, &r->before, e);
	r->after = r->before;
	for (unsigned pass = 1; pass <= d->o->passes && (r->kept || pass <= patience(d)) && !rc; pass++) {
		double kl;
		for (size_t i = 0; i < steps_of_pass(d) && !rc; i++, next += batch) {
			if (next + batch > pool(d)) {
				shuffle(d->order, pool(d), &rng);
				next = 0;
			}
			rc = one_step(d, d->order + next, batch, e);
		}
		if (!rc)
			rc = judge(d, &kl, e);
		if (rc || !(kl < r->after))
			continue;
		r->after = kl;
		r->kept = pass;
		rc = keep_pass(d, r, e);
	}
	return rc;
}

/* The overlay takes the bytes over. */
static int put_results(struct distiller *d, struct err *e)
{
	int rc = ERR_OK;
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < d->layer[i].count && !rc; k++) {
			struct latent *l = &d->layer[i].latent[k];
			if (l->best)
				rc = overlay_put(d->out, &l->item->out, l->best, e);
			l->best = NULL;
		}
	return rc;
}

static int distiller_open(struct distiller *d, const struct quant_job *job, struct err *e)
{
	const struct windows *text = job->text;
	const struct plan *p = job->plan;
	struct buffer b[BUFFERS];
	int rc = buffers_take(b, buffers_of(d, p, b), e);
	if (!rc)
		memcpy(d->text.tokens, text->tokens, text->count * text->ctx * sizeof *text->tokens);
	if (!rc && d->more)
		memcpy(d->text.tokens + (text->count + d->written) * text->ctx, job->more->tokens, d->more * text->ctx * sizeof *text->tokens);
	if (!rc)
		rc = model_open(d->c, d->source, &d->model, e);
	if (!rc)
		rc = tape_new(d->model, d->c, d->o->batch, d->text.ctx, &d->tape, e);
	if (!rc)
		rc = tape_reserve(d->tape, e);
	if (!rc)
		rc = divergence_new(d->model, d->o->batch * d->text.ctx, &d->divergence, e);
	for (size_t i = 0; i < d->text.count && !rc; i++)
		d->order[i < d->fitted ? i : i < d->fitted + d->held ? i + d->written + d->more : i - d->held] = i;
	for (uint32_t i = 0; i < d->c->layers && !rc; i++)
		rc = layer_open(d, i, e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++)
		rc = layer_latents(d, p, i, e);
	return rc;
}

static void distiller_close(struct distiller *d)
{
	for (uint32_t i = 0; d->layer && i < d->c->layers; i++)
		layer_close(&d->layer[i]);
	free(d->layer);
	for (int r = 0; r < ROLE_COUNT; r++)
		free(d->grad[r]);
	free(d->shared.flat);
	free(d->shared.flat_scales);
	free(d->teacher);
	free(d->kept);
	free(d->d);
	free(d->wanted);
	free(d->order);
	free(d->tokens);
	free(d->text.tokens);
	tape_free(d->tape);
	divergence_free(d->divergence);
	model_close(d->model);
}

static int distill_on(struct distiller *d, const struct quant_job *job, struct distill_report *r, struct err *e)
{
	const struct distill_options *o = d->o;
	count_windows(d, job->text, job->more ? job->more->count : 0);
	size_t steps = steps_of_pass(d) * o->passes;
	d->total = (uint64_t)(job->text->count + 2 * d->written + d->more + steps * batch_of(d)) * job->text->ctx;
	d->shared = (struct latent_shared){ .steps = (int)steps, .rate = o->rate, .scale_rate = o->scale_rate,
					    .follow = (float)(1 / fmin(MEAN_STEPS, 1 + (double)steps / 32)) };
	*r = (struct distill_report){ 0 };
	int rc = distiller_open(d, job, e);
	if (!rc)
		rc = write_text(d, e);
	if (!rc)
		rc = run_teacher(d, e);
	if (!rc)
		rc = train(d, r, e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++)
		for (int k = 0; k < d->layer[i].count; k++)
			r->codes += (uint64_t)d->layer[i].latent[k].rows * d->layer[i].latent[k].n;
	if (!rc)
		rc = put_results(d, e);
	distiller_close(d);
	return rc;
}

int distill(const struct quant_job *job, const struct distill_options *o, struct overlay *out, struct distill_report *r, struct err *e)
{
	struct distill_options real = *o;
	const struct distiller fresh = { .c = job->config, .o = o, .source = job->source, .out = out, .progress = job->progress };
	struct distiller d = fresh;
	int rc = distill_on(&d, job, r, e);
	if (rc || r->kept || !d.written)
		return rc;
	real.written = 0;
	d = fresh;
	d.o = &real;
	return distill_on(&d, job, r, e);
}
