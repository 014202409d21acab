#include "model/tape.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "model/derivative.h"
#include "model/tape_plan.h"

/* Rows of a matrix's gradient that one item takes. */
enum { GRADIENT_ROWS = 64 };

struct tape {
	const struct model *m;
	const struct config *c;
	size_t seqs, ctx;
	struct tape_plan plan;           /* of the last run */
	const struct tape_job *job;      /* whose way back is prepared */
	struct phase_table phases;
	struct routing routing;          /* of the last run; made where a layer has experts */
	float *room[TAPE_ROOMS];         /* [seqs * ctx, width] */
	size_t width[TAPE_ROOMS];
	float *scratch;                  /* `stride` floats per worker */
	size_t stride;
	int workers;
};

int tape_new(const struct model *m, const struct config *c, size_t seqs, size_t ctx, struct tape **out, struct err *e)
{
	struct tape *t = *out = calloc(1, sizeof *t);
	if (!t)
		return err_nomem(e);
	*t = (struct tape){ .m = m, .c = c, .seqs = seqs, .ctx = ctx };
	int rc = phase_table_fill(&t->phases, m, 0, ctx, ctx, e);
	if (rc) {
		tape_free(t);
		*out = NULL;
	}
	return rc;
}

void tape_free(struct tape *t)
{
	if (!t)
		return;
	for (int i = 0; i < TAPE_ROOMS; i++)
		free(t->room[i]);
	free(t->scratch);
	routing_release(&t->routing);
	phase_table_release(&t->phases);
	free(t);
}

/* ---- where things lie */

static float *value_at(const struct tape *t, const struct tape_job *j, size_t v)
{
	const struct tape_plan *p = &t->plan;
	if (v == STREAM)
		return (float *)(uintptr_t)j->in;
	if (v < BLOCK_VALUES && j->place[v].x)
		return j->place[v].x;
	if (v == p->last_stream && j->out)
		return j->out;
	return p->x[v].room == NO_ROOM ? NULL : t->room[p->x[v].room];
}

static float *gradient_at(const struct tape *t, const struct tape_job *j, size_t v)
{
	const struct tape_plan *p = &t->plan;
	if (p->value[v].stream || p->value[v].lent)
		return j->d;
	if (j->place[v].d)
		return j->place[v].d;
	return p->d[v].room == NO_ROOM ? NULL : t->room[p->d[v].room];
}

static float *row(float *x, size_t tokens, size_t width)
{
	return x ? x + tokens * width : NULL;
}

/* An operation on sequences [first, first + seqs). */
static struct piece piece_of(const struct tape *t, const struct tape_job *j, unsigned i, size_t first, size_t seqs)
{
	const struct tape_plan *p = &t->plan;
	const struct op *op = &p->op[i];
	size_t at = first * t->ctx;
	value out = p->value[op->out].joined ? p->op[i + 1].out : op->out;
	struct piece s = { .op = op, .c = t->c, .layer = j->layer, .seqs = seqs, .n = t->ctx, .out_width = p->value[op->out].width,
			   .weight = op->role == ROLE_K_NORM && j->key_norm ? j->key_norm : model_vector(t->m, op->role, j->layer),
			   .bias = model_vector(t->m, op->bias, j->layer), .phases = phases_of(&t->phases, j->layer),
			   .routing = (struct routing *)(uintptr_t)&t->routing, .scratch = t->scratch, .stride = t->stride };
	for (int k = 0; k < 3; k++)
		if (op->in[k] != NO_VALUE) {
			s.width[k] = p->value[op->in[k]].width;
			s.cols = s.width[k];
			s.x[k] = value_at(t, j, op->in[k]);
		}
	if (op->kind == OP_LINEAR) {
		s.w = j->matrix[op->role].w;
		s.cols = j->matrix[op->role].cols;
		s.bias = s.cols > s.width[0] ? NULL : s.bias;
		s.x[0] = row((float *)(uintptr_t)s.x[0], at, s.cols);
	}
	for (int k = op->kind == OP_LINEAR; k < 3; k++)
		s.x[k] = row((float *)(uintptr_t)s.x[k], at, s.width[k]);
	s.y = row(value_at(t, j, out), at, s.out_width);
	if (out != op->out)
		s.residual = row(value_at(t, j, p->op[i + 1].in[1]), at, s.out_width);
	return s;
}

static struct piece piece_back(const struct tape *t, const struct tape_job *j, const struct tape_step *step, size_t first, size_t seqs)
{
	const struct tape_plan *p = &t->plan;
	struct piece s = piece_of(t, j, step->op, first, seqs);
	for (int k = 0; k < 3; k++) {
		value v = s.op->in[k];
		if (v == NO_VALUE || !p->value[v].wanted)
			continue;
		s.dx[k] = row(gradient_at(t, j, v), first * t->ctx, s.op->kind == OP_LINEAR ? s.cols : s.width[k]);
		s.fresh[k] = step->fresh[k];
	}
	s.dy = row(gradient_at(t, j, s.op->out), first * t->ctx, s.out_width);
	return s;
}

/* What of an operation on the whole batch is an expert's. */
static void take_expert(const struct tape *t, struct piece *s, uint32_t expert)
{
	size_t at = t->routing.first[expert];
	s->seqs = 1;
	s->n = t->routing.first[expert + 1] - at;
	for (int k = 0; k < 3; k++) {
		s->x[k] = row((float *)(uintptr_t)s->x[k], at, s->width[k]);
		s->dx[k] = row(s->dx[k], at, s->width[k]);
	}
	s->y = row(s->y, at, s->out_width);
	s->dy = row(s->dy, at, s->out_width);
	s->w = s->w ? s->w + expert * s->out_width * s->cols : NULL;
	s->bias = model_vector(t->m, s->op->bias, place_of(s->layer, expert));
}

static int make_room(struct tape *t, const struct tape_plan *p, struct err *e)
{
	if (p->experts && !t->routing.first && routing_new(&t->routing, t->c, t->seqs * t->ctx, e))
		return e->code;
	for (unsigned i = 0; i < p->rooms; i++) {
		if (p->room[i] <= t->width[i])
			continue;
		free(t->room[i]);
		t->room[i] = calloc(t->seqs * t->ctx, p->room[i] * sizeof(float));
		t->width[i] = t->room[i] ? p->room[i] : 0;
		if (!t->room[i])
			return err_nomem(e);
	}
	return ERR_OK;
}

static size_t scratch_of(const struct config *c, const struct tape_job *j, const struct tape_plan *p, size_t ctx)
{
	size_t most = 0;
	for (unsigned i = 0; i < p->ops; i++) {
		const struct derivative *d = derivative_of(p->op[i].kind);
		const struct piece s = { .op = &p->op[i], .c = c, .layer = j->layer, .seqs = j->seqs, .n = ctx };
		size_t n = d->scratch ? d->scratch(&s, j->back) : 0;
		most = n > most ? n : most;
	}
	return most;
}

static int make_scratch(struct tape *t, size_t stride, struct err *e)
{
	if (stride <= t->stride && thread_count() <= t->workers)
		return ERR_OK;
	free(t->scratch);
	t->stride = stride > t->stride ? stride : t->stride;
	t->workers = thread_count();
	t->scratch = malloc((size_t)t->workers * t->stride * sizeof *t->scratch);
	if (t->scratch)
		return ERR_OK;
	t->stride = 0;
	return err_nomem(e);
}

/* ---- whole layers */

struct whole {
	struct block block;
	struct tape_matrix matrix[ROLE_COUNT];
	struct tape_job job;
	struct tape_plan plan;
};

static void whole_layer(struct whole *w, const struct config *c, uint32_t layer, size_t seqs)
{
	static float some;
	value kv[2];
	block_make(c, layer, &w->block);
	bool other = tape_keys_values(&w->block, c, layer, kv) && c->layer[layer].kv_source != layer;
	w->job = (struct tape_job){ .block = &w->block, .to = w->block.ops, .layer = layer, .seqs = seqs, .matrix = w->matrix, .in = &some,
				    .d = &some, .back = true };
	for (int i = 0; i < 2 && other; i++)
		w->job.place[kv[i]] = (struct tape_place){ .x = &some, .d = &some };
	for (int r = 0; r < ROLE_COUNT; r++)
		w->matrix[r].grad = &some;
	tape_plan_make(&w->plan, c, &w->job);
}

int tape_reserve(struct tape *t, struct err *e)
{
	int rc = ERR_OK;
	for (uint32_t i = 0; i < t->c->layers && !rc; i++) {
		struct whole w;
		whole_layer(&w, t->c, i, t->seqs);
		rc = make_room(t, &w.plan, e);
		if (!rc)
			rc = make_scratch(t, scratch_of(t->c, &w.job, &w.plan, t->ctx), e);
	}
	return rc;
}

uint64_t tape_memory(const struct config *c, size_t seqs, size_t ctx)
{
	size_t room[TAPE_ROOMS] = { 0 }, stride = 0;
	uint64_t sum = 0;
	for (uint32_t i = 0; i < c->layers; i++) {
		struct whole w;
		whole_layer(&w, c, i, seqs);
		size_t n = scratch_of(c, &w.job, &w.plan, ctx);
		stride = n > stride ? n : stride;
		for (unsigned k = 0; k < w.plan.rooms; k++)
			room[k] = w.plan.room[k] > room[k] ? w.plan.room[k] : room[k];
	}
	for (int i = 0; i < TAPE_ROOMS; i++)
		sum += room[i];
	return 4 * (sum * seqs * ctx + (uint64_t)thread_count() * stride) + routing_memory(c, seqs * ctx);
}

static bool known(const struct op *op)
{
	const struct derivative *d = derivative_of(op->kind);
	return d && d->back;
}

int tape_check(const struct config *c, struct err *e)
{
	struct block b;
	for (uint32_t i = 0; i < c->layers; i++) {
		block_make(c, i, &b);
		for (unsigned k = 0; k < b.ops; k++) {
			const struct derivative *d = derivative_of(b.op[k].kind);
			if (!known(&b.op[k]))
				return err_set(e, ERR_UNSUPPORTED, "layer %u has %s, and the derivative of that is not known here", i,
					       d ? d->name : "an operation of a new kind");
		}
	}
	return ERR_OK;
}

bool tape_keys_values(struct block *b, const struct config *c, uint32_t layer, value kv[2])
{
	const struct layer_config *l = &c->layer[layer];
	unsigned i = 0;
	while (i < b->ops && b->op[i].kind != OP_ATTEND)
		i++;
	for (int k = 0; k < 2 && i < b->ops; k++) {
		value *v = &b->op[i].in[1 + k];
		if (*v == NO_VALUE && b->values < BLOCK_VALUES) {
			b->value[b->values] = (struct value_info){ .width = (size_t)l->kv_heads * c->head_dim };
			*v = (value)b->values++;
		}
		kv[k] = *v;
	}
	return i < b->ops;
}

/* ---- forward */

/* Operations, or steps of the way back, that are cut the same way. */
struct stretch {
	const struct tape *t;
	const struct tape_job *j;
	unsigned from, to;
	enum tape_cut cut;
};

static size_t stretch_items(const struct stretch *s)
{
	return s->cut == BY_EXPERT ? s->t->c->experts : s->j->seqs;
}

static void run_item(void *arg, size_t item, int worker)
{
	const struct stretch *s = arg;
	bool expert = s->cut == BY_EXPERT;
	(void)worker;
	for (unsigned i = s->from; i < s->to; i++)
		if (s->t->plan.needed[i]) {
			struct piece p = piece_of(s->t, s->j, i, expert ? 0 : item, expert ? s->j->seqs : 1);
			if (expert)
				take_expert(s->t, &p, (uint32_t)item);
			if (p.n)
				derivative_of(p.op->kind)->run(&p);
		}
}

static int prepare(struct tape *t, const struct tape_job *j, struct err *e)
{
	if (j->seqs > t->seqs)
		return err_set(e, ERR_BUG, "%zu sequences exceed the room for %zu", j->seqs, t->seqs);
	for (unsigned i = j->from; i < j->to; i++)
		if (!known(&j->block->op[i]))
			return err_set(e, ERR_BUG, "operation %u of layer %u has no derivative", i, j->layer);
	if (j->block->full || !tape_plan_make(&t->plan, t->c, j))
		return err_set(e, ERR_BUG, "layer %u has more operations than there is room for", j->layer);
	int rc = make_room(t, &t->plan, e);
	return rc ? rc : make_scratch(t, scratch_of(t->c, j, &t->plan, t->ctx), e);
}

int tape_forward(struct tape *t, const struct tape_job *j, struct err *e)
{
	int rc = prepare(t, j, e);
	t->job = !rc && j->back ? j : NULL;
	for (unsigned i = 0, next; i < t->plan.ops && !rc; i = next) {
		struct stretch s = { t, j, i, i + 1, t->plan.cut[i] };
		while (s.cut != WHOLE && s.to < t->plan.ops && t->plan.cut[s.to] == s.cut)
			s.to++;
		next = s.to;
		if (s.cut != WHOLE)
			thread_for(stretch_items(&s), run_item, &s);
		else if (t->plan.needed[i]) {
			struct piece p = piece_of(t, j, i, 0, j->seqs);
			derivative_of(p.op->kind)->run(&p);
		}
	}
	return rc;
}

const float *tape_value(const struct tape *t, value v)
{
	uint8_t room = t->plan.x[v].room;
	return room == NO_ROOM ? NULL : t->room[room];
}

/* ---- backward */

static void back_item(void *arg, size_t item, int worker)
{
	const struct stretch *s = arg;
	bool expert = s->cut == BY_EXPERT;
	(void)worker;
	for (unsigned i = s->from; i < s->to; i++) {
		struct piece p = piece_back(s->t, s->j, &s->t->plan.step[i], expert ? 0 : item, expert ? s->j->seqs : 1);
		if (expert)
			take_expert(s->t, &p, (uint32_t)item);
		if (p.n && (p.op->kind != OP_LINEAR || p.dx[0]))
			derivative_of(p.op->kind)->back(&p);
	}
}

static size_t slices_of_one(const struct tape *t, unsigned step)
{
	return (t->plan.value[t->plan.op[t->plan.step[step].op].out].width + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
}

/* Slices of rows of a matrix's gradient; each expert's. */
static size_t slices(const struct stretch *s, unsigned step)
{
	const struct op *op = &s->t->plan.op[s->t->plan.step[step].op];
	return s->j->matrix[op->role].grad ? slices_of_one(s->t, step) * (s->cut == BY_EXPERT ? s->t->c->experts : 1) : 0;
}

/* Slices of rows of the gradients by the matrices of a group. */
static void back_rows(void *arg, size_t item, int worker)
{
	const struct stretch *s = arg;
	unsigned i = s->from;
	(void)worker;
	for (; item >= slices(s, i); i++)
		item -= slices(s, i);
	struct piece p = piece_back(s->t, s->j, &s->t->plan.step[i], 0, s->j->seqs);
	size_t each = slices_of_one(s->t, i), from = item % each * GRADIENT_ROWS, left = p.out_width - from;
	float *grad = s->j->matrix[p.op->role].grad + item / each * p.out_width * p.cols;
	if (s->cut == BY_EXPERT)
		take_expert(s->t, &p, (uint32_t)(item / each));
	derivative_rows(&p, from, left < GRADIENT_ROWS ? left : GRADIENT_ROWS, grad);
}

int tape_back(struct tape *t, const struct tape_job *j, struct err *e)
{
	const struct tape_plan *p = &t->plan;
	if (t->job != j)
		return err_set(e, ERR_BUG, "the way back was not prepared");
	t->job = NULL;
	for (unsigned i = 0, next; i < p->steps; i = next) {
		unsigned group = p->step[i].group;
		struct stretch s = { t, j, i, i + group, p->cut[p->step[i].op] };
		size_t items = 0;
		for (unsigned k = s.from; k < s.to; k++)
			items += slices(&s, k);
		thread_for(items, back_rows, &s);
		s.to += !group;
		while (s.cut != WHOLE && s.to < p->steps && !p->step[s.to].group && p->cut[p->step[s.to].op] == s.cut)
			s.to++;
		next = s.to;
		if (s.cut != WHOLE)
			thread_for(stretch_items(&s), back_item, &s);
		else {
			struct piece whole = piece_back(t, j, &p->step[i], 0, j->seqs);
			derivative_of(whole.op->kind)->back(&whole);
		}
	}
	return ERR_OK;
}
