#include "model/tape_plan.h"

#include <string.h>

#include "model/derivative.h"

/* From OP_EXPERTS to OP_MERGE there are as many rows as tokens have experts. False: the job has only some of these operations. */
static bool cut_ops(struct tape_plan *p, const struct config *c)
{
	bool inside = false, whole = true;
	for (unsigned i = 0; i < p->ops; i++) {
		const struct op *op = &p->op[i];
		bool ends = op->kind == OP_MERGE, begins = op->kind == OP_EXPERTS;
		whole &= !ends || inside;
		inside = (inside && !ends) || begins;
		p->experts |= begins;
		p->cut[i] = begins || ends || derivative_of(op->kind)->batch ? WHOLE : inside ? BY_EXPERT : BY_SEQUENCE;
		p->value[op->out].rows = inside ? c->experts_used : 1;
	}
	return whole && !inside;
}

static void copy_ops(struct tape_plan *p, const struct tape_job *j)
{
	const struct block *b = j->block;
	value stream = STREAM;
	p->values = b->values;
	for (size_t v = 0; v < TAPE_VALUES; v++)
		p->value[v] = (struct tape_value_plan){ .width = v < b->values ? b->value[v].width : 0, .rows = 1, .maker = -1, .stream = v == STREAM };
	for (unsigned i = j->from; i < j->to; i++) {
		struct op *op = &p->op[p->ops];
		*op = b->op[i];
		for (int k = 0; k < 3; k++)
			op->in[k] = op->in[k] == STREAM ? stream : op->in[k];
		if (op->kind == OP_ADD) {
			op->in[1] = stream;
			op->out = stream = (value)p->values++;
			p->value[stream].width = b->value[STREAM].width;
			p->value[stream].stream = true;
		}
		p->value[op->out].maker = (int)p->ops++;
		for (int k = 0; k < 3; k++)
			if (op->in[k] != NO_VALUE)
				p->value[op->in[k]].readers++;
	}
	p->last_stream = stream;
}

static bool kept(const struct tape_job *j, size_t v)
{
	return v < BLOCK_VALUES && j->place[v].kept;
}

static bool placed(const struct tape_job *j, size_t v, bool gradient)
{
	return v < BLOCK_VALUES && (gradient ? j->place[v].d : j->place[v].x);
}

static void find_lent(struct tape_plan *p, const struct tape_job *j)
{
	for (unsigned i = 0; i + 1 < p->ops; i++) {
		struct tape_value_plan *v = &p->value[p->op[i].out];
		v->lent = p->op[i].kind == OP_LINEAR && p->op[i + 1].kind == OP_ADD && p->op[i + 1].in[0] == p->op[i].out && v->readers == 1 &&
			  !placed(j, p->op[i].out, false) && !placed(j, p->op[i].out, true) && !kept(j, p->op[i].out);
		v->joined = v->lent && i + 2 == p->ops;
	}
}

static void find_wanted(struct tape_plan *p, const struct tape_job *j)
{
	for (unsigned v = 0; v < p->values; v++)
		p->value[v].wanted = p->value[v].stream ? j->d != NULL : placed(j, v, true);
	for (unsigned i = 0; i < p->ops; i++) {
		const struct op *op = &p->op[i];
		bool any = op->kind == OP_LINEAR && j->matrix[op->role].grad;
		for (int k = 0; k < 3; k++)
			any |= op->in[k] != NO_VALUE && p->value[op->in[k]].wanted;
		if (!p->value[op->out].stream)
			p->value[op->out].wanted |= any;
	}
}

/* How far gradients have come while the way back is laid out. */
struct arrivals {
	bool has[TAPE_VALUES];   /* some gradient by this value */
	int known[TAPE_VALUES];  /* when the last part of it came */
	int clock;
};

static bool has_gradient(const struct tape_plan *p, const struct arrivals *g, value v)
{
	return p->value[v].wanted && (g->has[v] || p->value[v].stream || p->value[v].lent);
}

static void add_step(struct tape_plan *p, struct arrivals *g, unsigned i, unsigned group)
{
	struct tape_step *s = &p->step[p->steps++];
	*s = (struct tape_step){ .op = (uint8_t)i, .group = (uint8_t)group };
	for (int k = 0; k < 3; k++) {
		value v = p->op[i].in[k];
		if (v == NO_VALUE || !p->value[v].wanted)
			continue;
		s->fresh[k] = !g->has[v] && !p->value[v].stream;
		g->has[v] = true;
		g->known[v] = g->clock++;
	}
}

/* Linears that read one value give their parts of its gradient together; the one whose own became known last is first. */
static void add_group(struct tape_plan *p, struct arrivals *g, unsigned first, unsigned last)
{
	unsigned order[BLOCK_OPS], n = 0;
	for (unsigned i = first; i <= last; i++) {
		if (!has_gradient(p, g, p->op[i].out))
			continue;
		unsigned at = n++;
		for (; at && g->known[p->op[order[at - 1]].out] < g->known[p->op[i].out]; at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	for (unsigned i = 0; i < n; i++)
		add_step(p, g, order[i], i ? 0 : n);
}

static void find_steps(struct tape_plan *p, const struct tape_job *j)
{
	struct arrivals g = { 0 };
	for (unsigned v = 0; v < p->values; v++)
		g.has[v] = placed(j, v, true);
	for (unsigned i = p->ops; i-- > 0;) {
		unsigned last = i;
		if (p->op[i].kind == OP_LINEAR) {
			while (i && p->op[i - 1].kind == OP_LINEAR && p->op[i - 1].in[0] == p->op[i].in[0])
				i--;
			add_group(p, &g, i, last);
		} else if (!(p->op[i].kind == OP_ADD && p->value[p->op[i].in[0]].lent) && has_gradient(p, &g, p->op[i].out)) {
			add_step(p, &g, i, 0);
		}
	}
}

static void find_needed(struct tape_plan *p, const struct tape_job *j)
{
	bool need[TAPE_VALUES] = { false };
	for (unsigned v = 0; v < p->values; v++)
		need[v] = placed(j, v, false) || kept(j, v) || (v == p->last_stream && j->out);
	for (unsigned s = 0; s < p->steps; s++) {
		const struct op *op = &p->op[p->step[s].op];
		uint8_t reads = derivative_of(op->kind)->reads;
		for (int k = 0; k < 3; k++)
			if (reads >> k & 1 && op->in[k] != NO_VALUE)
				need[op->in[k]] = true;
		if (reads & READS_Y)
			need[op->out] = true;
	}
	for (unsigned i = p->ops; i-- > 0;) {
		bool run = need[p->op[i].out];
		for (int k = 0; k < 3 && run; k++)
			if (p->op[i].in[k] != NO_VALUE)
				need[p->op[i].in[k]] = true;
		p->needed[i] = run && !(p->op[i].kind == OP_ADD && p->value[p->op[i].in[0]].joined);
	}
}

static void stretch(struct tape_life *l, int at)
{
	l->from = l->from < 0 || at < l->from ? at : l->from;
	l->to = at > l->to ? at : l->to;
}

static bool lies_outside(const struct tape_plan *p, const struct tape_job *j, size_t v)
{
	return v == STREAM || p->value[v].maker < 0 || placed(j, v, false) || (v == p->last_stream && j->out);
}

static void find_lives(struct tape_plan *p, const struct tape_job *j)
{
	const struct tape_life none = { -1, -2, NO_ROOM };
	for (unsigned v = 0; v < TAPE_VALUES; v++)
		p->x[v] = p->d[v] = none;
	for (unsigned i = 0; i < p->ops; i++) {
		bool joined = p->needed[i] && p->value[p->op[i].out].joined;
		if (!p->needed[i])
			continue;
		stretch(&p->x[joined ? p->op[i + 1].out : p->op[i].out], (int)i);
		for (int k = 0; k < 3; k++)
			if (p->op[i].in[k] != NO_VALUE)
				stretch(&p->x[p->op[i].in[k]], (int)i);
		if (joined)
			stretch(&p->x[p->op[i + 1].in[1]], (int)i);
	}
	for (unsigned s = 0; s < p->steps; s++) {
		const struct op *op = &p->op[p->step[s].op];
		int at = (int)(p->ops + s);
		stretch(&p->d[op->out], at);
		if (derivative_of(op->kind)->reads & READS_Y)
			stretch(&p->x[op->out], at);
		for (int k = 0; k < 3; k++) {
			if (op->in[k] == NO_VALUE)
				continue;
			if (derivative_of(op->kind)->reads >> k & 1)
				stretch(&p->x[op->in[k]], at);
			if (p->value[op->in[k]].wanted)
				stretch(&p->d[op->in[k]], at);
		}
	}
	for (unsigned v = 0; v < p->values; v++) {
		if (kept(j, v))
			stretch(&p->x[v], (int)(p->ops + p->steps));
		if (lies_outside(p, j, v))
			p->x[v] = none;
		if (p->value[v].stream || p->value[v].lent || placed(j, v, true))
			p->d[v] = none;
	}
}

/* ---- rooms: first come, first served */

struct rooms {
	struct tape_plan *p;
	struct {
		bool taken;
		size_t width;    /* of the last value in it, */
		int until;       /* which left in this stretch */
	} room[TAPE_ROOMS];
	int stretch;             /* operations that a sequence goes through by itself, while others are elsewhere in it */
	bool full;
};

/* Within a stretch the places of sequences must not change, which they do with the width. */
static bool is_free(const struct rooms *r, unsigned i, size_t width)
{
	return !r->room[i].taken && (r->room[i].until < r->stretch || r->room[i].width == width);
}

static void enter(struct rooms *r, struct tape_life *l, int at, size_t width, struct tape_life *from)
{
	unsigned i = 0;
	if (l->from != at || l->to < l->from || l->room != NO_ROOM)
		return;
	if (from && from->room != NO_ROOM && from->to == at) {
		l->room = from->room;
		from->to = -2; /* the room goes on, under another name */
		return;
	}
	while (i < TAPE_ROOMS && !is_free(r, i, width))
		i++;
	r->full |= i == TAPE_ROOMS;
	if (i == TAPE_ROOMS)
		return;
	r->room[i].taken = true;
	r->room[i].width = width;
	l->room = (uint8_t)i;
	r->p->rooms = i + 1 > r->p->rooms ? i + 1 : r->p->rooms;
	r->p->room[i] = width > r->p->room[i] ? width : r->p->room[i];
}

static void leave(struct rooms *r, const struct tape_life *l, int at)
{
	if (l->room == NO_ROOM || l->to != at)
		return;
	r->room[l->room].taken = false;
	r->room[l->room].until = r->stretch;
}

static bool begins_stretch(const struct tape_plan *p, int at)
{
	int n = (int)p->ops;
	if (at == 0 || at == n)
		return true;
	const struct tape_step *s = at > n ? &p->step[at - n] : NULL;
	unsigned op = s ? s->op : (unsigned)at, before = s ? p->step[at - n - 1].op : (unsigned)at - 1;
	return (s && s->group) || p->cut[op] == WHOLE || p->cut[op] != p->cut[before];
}

static void find_rooms(struct rooms *r)
{
	struct tape_plan *p = r->p;
	for (int at = 0; at < (int)(p->ops + p->steps); at++) {
		bool back = at >= (int)p->ops;
		const struct op *op = &p->op[back ? p->step[at - (int)p->ops].op : at];
		const struct derivative *d = derivative_of(op->kind);
		r->stretch += begins_stretch(p, at);
		for (unsigned v = 0; v < p->values; v++) {
			bool first = back ? v == op->in[0] : v == op->out, second = back && v == op->in[1];
			size_t width = p->value[v].width * p->value[v].rows;
			enter(r, &p->x[v], at, width, !back && first && d->in_place ? &p->x[op->in[0]] : NULL);
			enter(r, &p->d[v], at, width,
			      first && d->in_place ? &p->d[op->out] : second && d->lends ? &p->x[op->in[1]] : NULL);
		}
		for (unsigned v = 0; v < p->values; v++) {
			leave(r, &p->x[v], at);
			leave(r, &p->d[v], at);
		}
	}
}

bool tape_plan_make(struct tape_plan *p, const struct config *c, const struct tape_job *j)
{
	struct rooms r = { .p = p };
	*p = (struct tape_plan){ 0 };
	copy_ops(p, j);
	bool whole = cut_ops(p, c);
	find_lent(p, j);
	find_wanted(p, j);
	if (j->back)
		find_steps(p, j);
	find_needed(p, j);
	find_lives(p, j);
	find_rooms(&r);
	return whole && !r.full;
}
