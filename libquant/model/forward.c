#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "model/activation.h"
#include "model/attention.h"
#include "model/graph.h"
#include "model/kv.h"
#include "model/model_impl.h"
#include "model/norm.h"
#include "model/rope.h"
#include "model/rounded.h"
#include "model/route.h"
#include "model/weight.h"

struct model_run {
	struct model *m;
	size_t tokens;                   /* room */
	float *room[BLOCK_ROOMS];        /* [tokens, width]: what a layer's operations make, see block.room */
	size_t width[BLOCK_ROOMS];
	uint32_t *token;                 /* [tokens]: those of an expert */
	float *last;                     /* [tokens, hidden]: the head's input */
	float **kept;                    /* per layer that others read, without a cache: K then V of the last pass */
	size_t *kept_tokens;
	struct phase_table phases;
	struct rounded_room rounded;     /* for a runtime that rounds */
	float *scratch;
	size_t stride;                   /* floats per worker */
	int workers;
};

static size_t widest_weight(const struct model *m, size_t tokens)
{
	size_t most = 0;
	for (size_t i = 0; i < site_count(m->config); i++)
		if (m->weight[i].tensor && m->weight[i].tensor->ndim == 2) {
			size_t n = weight_scratch(&m->weight[i], tokens);
			most = n > most ? n : most;
		}
	return most;
}

/* Room for what a runtime rounds; none for the exact arithmetic. */
static bool room_to_round(struct model_run *r)
{
	const struct model *m = r->m;
	for (size_t i = 0; m->arithmetic && i < site_count(m->config); i++)
		if (m->weight[i].tensor && m->weight[i].tensor->ndim == 2) {
			size_t n = rounded_size(&m->weight[i], r->tokens);
			r->rounded.size = n > r->rounded.size ? n : r->rounded.size;
		}
	r->rounded.x = malloc(r->rounded.size + 1);
	return r->rounded.x;
}

static float *floats(size_t n, size_t width, bool *ok)
{
	size_t size;
	float *p = NULL;
	if (!__builtin_mul_overflow(n, width, &size) && size <= SIZE_MAX / sizeof(float) / 2)
		p = malloc((size ? size : 1) * sizeof(float));
	*ok = *ok && p;
	return p;
}

/* Makes the buffers as wide as a layer needs them. */
static int make_room(struct model_run *r, const struct block *b, struct err *e)
{
	for (unsigned i = 0; i < b->rooms; i++) {
		bool ok = true;
		if (b->room[i] <= r->width[i])
			continue;
		free(r->room[i]);
		r->room[i] = floats(r->tokens, b->room[i], &ok);
		r->width[i] = ok ? b->room[i] : 0;
		if (!ok)
			return err_nomem(e);
	}
	return ERR_OK;
}

/* As wide as the widest layer has it. */
static struct block widest_rooms(const struct config *c)
{
	struct block widest = { 0 }, b;
	for (uint32_t i = 0; i < c->layers; i++) {
		block_make(c, i, &b);
		widest.rooms = b.rooms > widest.rooms ? b.rooms : widest.rooms;
		for (unsigned k = 0; k < b.rooms; k++)
			widest.room[k] = b.room[k] > widest.room[k] ? b.room[k] : widest.room[k];
	}
	return widest;
}

/* All at once, so that memory that is not there is missed now. */
static int make_rooms(struct model_run *r, struct err *e)
{
	struct block widest = widest_rooms(r->m->config);
	return make_room(r, &widest, e);
}

uint64_t model_run_memory(const struct config *c, size_t tokens)
{
	struct block widest = widest_rooms(c);
	uint64_t width = c->hidden + (c->experts != 0);
	for (unsigned i = 0; i < widest.rooms; i++)
		width += widest.room[i];
	return 4 * width * tokens;
}

struct model_run *model_run_new(struct model *m, size_t seqs, size_t len, struct err *e)
{
	const struct config *c = m->config;
	struct model_run *r = calloc(1, sizeof *r);
	bool ok = r != NULL;
	if (ok && !__builtin_mul_overflow(seqs, len, &r->tokens)) {
		r->m = m;
		r->last = floats(r->tokens, c->hidden, &ok);
		r->token = c->experts && r->tokens <= UINT32_MAX ? calloc(r->tokens + 1, sizeof *r->token) : NULL;
		ok = ok && (r->token || !c->experts);
		r->stride = widest_weight(m, r->tokens);
		r->kept = calloc(c->layers, sizeof *r->kept);
		r->kept_tokens = calloc(c->layers, sizeof *r->kept_tokens);
		ok = ok && r->kept && r->kept_tokens && !make_rooms(r, e) && room_to_round(r);
	} else {
		ok = false;
	}
	if (ok)
		return r;
	model_run_free(r);
	err_nomem(e);
	return NULL;
}

void model_run_free(struct model_run *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < BLOCK_ROOMS; i++)
		free(r->room[i]);
	for (uint32_t i = 0; r->kept && i < r->m->config->layers; i++)
		free(r->kept[i]);
	free(r->kept);
	free(r->kept_tokens);
	free(r->token);
	free(r->last);
	free(r->rounded.x);
	free(r->scratch);
	phase_table_release(&r->phases);
	free(r);
}

/* Scratch for every worker that a loop may now have. */
static int reserve(struct model_run *r, size_t stride, struct err *e)
{
	int workers = thread_count();
	bool ok = true;
	if (r->scratch && stride <= r->stride && workers == r->workers)
		return ERR_OK;
	free(r->scratch);
	size_t widest = widest_weight(r->m, r->tokens); /* a worker's share, of so many */
	stride = stride > widest ? stride : widest;
	r->stride = stride > r->stride ? stride : r->stride;
	r->workers = workers;
	r->scratch = floats((size_t)workers, r->stride, &ok);
	return ok ? ERR_OK : err_nomem(e);
}

/* Rows of an element-wise loop that one item takes: fixed, so that pieces never depend on the thread count. */
enum { ROWS = 8 };

struct rows {
	enum activation act;
	struct norm norm;
	const float *in, *cosine, *sine;
	float *out, scale;
	const struct rope *rope;         /* a temperature by position, from `first` */
	size_t n, dim, len, heads, half, first;
};

static void each_rows(size_t n, void (*fn)(void *, size_t, int), struct rows *a)
{
	thread_for((n + ROWS - 1) / ROWS, fn, a);
}

static void norm_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		norm_row(&a->norm, a->in + t * a->dim, a->out + t * a->dim);
}

static struct norm norm_of(const struct model *m, const struct op *op, uint32_t layer, size_t dim)
{
	return (struct norm){ .kind = m->config->arch->norm, .weight = model_vector(m, op->role, layer),
			      .bias = model_vector(m, op->bias, layer), .n = dim, .eps = m->config->norm_eps };
}

/* in and out may be the same. */
static void norm(struct norm of, const float *in, float *out, size_t n)
{
	struct rows a = { .in = in, .out = out, .n = n, .dim = of.n, .norm = of };
	each_rows(n, norm_rows, &a);
}

static void rotate_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		rope_rotate(a->out + t * a->heads * a->dim, a->heads, a->dim, a->half, a->cosine + t % a->len * a->half,
			    a->sine + t % a->len * a->half);
}

static void rotate(const struct config *c, struct phases phases, float *x, size_t n, size_t len, size_t heads)
{
	struct rows a = { .out = x, .n = n, .len = len, .heads = heads, .dim = c->head_dim, .half = c->rope.dims / 2,
			  .cosine = phases.cosine, .sine = phases.sine };
	each_rows(n, rotate_rows, &a);
}

static void scale_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++) {
		float by = a->rope ? rope_temper(a->rope, a->first + t % a->len) : a->scale;
		for (size_t i = 0; i < a->dim; i++)
			a->out[t * a->dim + i] *= by;
	}
}

static void act_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		activation_run(a->act, a->out + t * a->dim, a->in ? a->in + t * a->dim : NULL, a->out + t * a->dim, a->dim);
}

static void add_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	size_t from = item * ROWS * a->dim, to = (item + 1) * ROWS < a->n ? (item + 1) * ROWS * a->dim : a->n * a->dim;
	kernels()->axpy(a->out + from, 1, a->in + from, to - from);
}

/* Only what the source lent: replaced weights are somebody's memory, which would not come back. */
static void drop(const struct model *m, const struct weight *w)
{
	const struct tensor *first = m->source->tensors;
	if (m->streaming && !w->bytes.owned && w->tensor >= first && w->tensor < first + m->source->count)
		source_drop(m->source, w->bytes.data, w->bytes.size);
}

static void multiply(struct model_run *r, const struct product *p, unsigned count, const float *x, size_t n)
{
	if (r->rounded.size) {
		r->rounded.scratch = r->scratch;
		r->rounded.stride = r->stride;
		rounded_products(p, count, x, n, &r->rounded);
	} else {
		weight_products(p, count, x, n, r->scratch, r->stride);
	}
	for (unsigned i = 0; i < count; i++)
		drop(r->m, p[i].w);
}

/* One layer on its way through its operations. */
struct pass {
	const struct block *b;
	uint32_t layer, place; /* place: the layer, or the expert that is at work */
	const struct layer_config *l;
	size_t seqs, len, n, start; /* n: tokens, of the expert that is at work */
	struct kv_cache *cache;
	const struct model_tap *tap;
	float *hidden;
	bool stopped;    /* by the tap */
	bool shown;      /* queries, keys and values, to the tap */
};

static float *lies(const struct model_run *r, const struct pass *p, value v)
{
	return v == NO_VALUE ? NULL : v == STREAM ? p->hidden : r->room[p->b->value[v].room];
}

static size_t width(const struct pass *p, value v)
{
	return p->b->value[v].width;
}

/* The linears of a group. The layer ends here when the tap wants no more than their input. */
static void project(struct model_run *r, struct pass *p, const struct op *op)
{
	const struct model_tap *tap = p->tap;
	const float *x = lies(r, p, op->in[0]);
	struct product product[PRODUCTS];
	if (tap && tap->input)
		tap->input(tap->arg, op->role, p->place, x, p->n, width(p, op->in[0]));
	if ((p->stopped = tap && tap->stop && tap->last == op->role))
		return;
	for (unsigned i = 0, n; i < op->group; i += n) {
		for (n = 0; n < PRODUCTS && i + n < op->group; n++)
			product[n] = (struct product){ model_weight(r->m, op[i + n].role, p->place),
						       model_vector(r->m, op[i + n].bias, p->place), lies(r, p, op[i + n].out) };
		multiply(r, product, n, x, p->n);
	}
}

/* The value before it was turned by its position; it lies where that one does. */
static value unturned(const struct block *b, value v)
{
	while (v != NO_VALUE && v != STREAM && (b->op[b->value[v].maker].kind == OP_ROPE || b->op[b->value[v].maker].kind == OP_TEMPER))
		v = b->op[b->value[v].maker].in[0];
	return v;
}

/* Queries, keys and values are complete when the first of them is turned, or read. */
static void show_qkv(struct model_run *r, struct pass *p)
{
	const struct op *op = p->b->op;
	if (p->shown || !p->tap || !p->tap->qkv)
		return;
	while (op->kind != OP_ATTEND)
		op++;
	p->tap->qkv(p->tap->arg, p->layer, lies(r, p, unturned(p->b, op->in[0])), lies(r, p, unturned(p->b, op->in[1])),
		    lies(r, p, op->in[2]), p->n);
	p->shown = true;
}

static int attend(struct model_run *r, struct attention *a, struct err *e)
{
	size_t need = attention_scratch(a);
	int rc = reserve(r, need, e);
	if (rc)
		return rc;
	a->scratch = r->scratch;
	a->stride = r->stride;
	attention_run(a);
	return ERR_OK;
}

/* What attention reads and where it puts what it finds: of one pass. */
struct qkv {
	float *q, *k, *v, *out; /* k and v NULL: another layer's */
};

/* A chunk may be longer than what a window's buffer can take at once. */
static int attend_cached(struct model_run *r, const struct pass *p, const struct qkv *x, struct attention *a, struct err *e)
{
	const struct config *c = r->m->config;
	size_t q_width = (size_t)p->l->heads * c->head_dim, kv_width = (size_t)p->l->kv_heads * c->head_dim;
	size_t step = x->k ? kv_step(p->cache, p->layer) : p->len;
	int rc = reserve(r, c->head_dim, e);
	a->codecs = kv_cache_codecs(p->cache);
	for (size_t at = 0, n; at < p->len && !rc; at += n) {
		n = p->len - at < step ? p->len - at : step;
		if (x->k) {
			const struct kv_rows add = { x->k + at * kv_width, x->v + at * kv_width, p->start + at, n };
			if ((rc = kv_append(p->cache, p->layer, &add, r->scratch, e)))
				return rc;
		}
		struct kv_view v = kv_view(p->cache, p->layer, p->start + at + n);
		if (v.first + v.count != p->start + at + n)
			return err_set(e, ERR_BUG, "layer %u runs before layer %u, whose KV cache it reads", p->layer,
				       p->l->kv_source);
		if (v.first && p->start + at < v.first + p->l->window - 1)
			return err_set(e, ERR_BUG, "layer %u reads tokens that layer %u no longer holds", p->layer, p->l->kv_source);
		a->q = x->q + at * q_width;
		a->out = x->out + at * q_width;
		a->k = v.k;
		a->v = v.v;
		a->queries = n;
		a->keys = v.count;
		a->first = p->start + at - v.first;
		rc = attend(r, a, e);
	}
	return rc;
}

/* Without a cache, layers that others read leave a copy. */
static int keep_kv(struct model_run *r, const struct pass *p, const struct qkv *x, struct err *e)
{
	const struct config *c = r->m->config;
	size_t size = p->n * p->l->kv_heads * c->head_dim;
	bool read = false, ok = true;
	for (uint32_t i = p->layer + 1; i < c->layers; i++)
		read |= c->layer[i].kv_source == p->layer;
	if (!read)
		return ERR_OK;
	if (!r->kept[p->layer])
		r->kept[p->layer] = floats(r->tokens, 2 * (size_t)p->l->kv_heads * c->head_dim, &ok);
	if (!ok)
		return err_nomem(e);
	memcpy(r->kept[p->layer], x->k, size * sizeof(float));
	memcpy(r->kept[p->layer] + size, x->v, size * sizeof(float));
	r->kept_tokens[p->layer] = p->n;
	return ERR_OK;
}

/* Keys and values become what a cache in the model's codecs would give back. */
static int pass_kv(struct model_run *r, const struct pass *p, const struct qkv *x, struct err *e)
{
	size_t dim = r->m->config->head_dim, rows = p->n * p->l->kv_heads;
	const struct kv_codecs *kv = &r->m->kv;
	if (kv_codec_plain(&kv->k) && kv_codec_plain(&kv->v))
		return ERR_OK;
	int rc = reserve(r, 3 * dim, e);
	if (rc)
		return rc;
	kv_codec_pass(&kv->k, x->k, rows, dim, r->scratch);
	kv_codec_pass(&kv->v, x->v, rows, dim, r->scratch);
	return ERR_OK;
}

static int attend_fresh(struct model_run *r, const struct pass *p, const struct qkv *x, struct attention *a, struct err *e)
{
	const struct config *c = r->m->config;
	int rc = x->k ? pass_kv(r, p, x, e) : ERR_OK;
	if (!rc && x->k)
		rc = keep_kv(r, p, x, e);
	if (rc)
		return rc;
	const float *kept = r->kept[p->l->kv_source];
	if (!x->k && (!kept || r->kept_tokens[p->l->kv_source] != p->n))
		return err_set(e, ERR_BUG, "layer %u runs before layer %u, whose keys and values it reads", p->layer,
			       p->l->kv_source);
	a->q = x->q;
	a->k = x->k ? x->k : kept;
	a->v = x->k ? x->v : kept + p->n * p->l->kv_heads * c->head_dim;
	a->out = x->out;
	a->queries = a->keys = p->len;
	return attend(r, a, e);
}

static int attention(struct model_run *r, const struct pass *p, const struct op *op, struct err *e)
{
	const struct config *c = r->m->config;
	struct attention a = { .seqs = p->seqs, .heads = p->l->heads, .kv_heads = p->l->kv_heads, .dim = c->head_dim,
			       .window = p->l->window, .scale = config_score_scale(c), .softcap = c->attn_softcap, .alibi = c->arch->alibi };
	const struct qkv x = { lies(r, p, op->in[0]), lies(r, p, op->in[1]), lies(r, p, op->in[2]), lies(r, p, op->out) };
	return p->cache ? attend_cached(r, p, &x, &a, e) : attend_fresh(r, p, &x, &a, e);
}

/* Operations that work in place were given the room of their input. */
static void elementwise(struct model_run *r, struct pass *p, const struct op *op)
{
	const struct config *c = r->m->config;
	float *in = lies(r, p, op->in[0]), *out = lies(r, p, op->out);
	size_t dim = width(p, op->in[0]);
	struct rows a = { .act = c->act, .out = out, .in = in, .n = p->n, .dim = dim };
	switch (op->kind) {
	case OP_NORM: norm(norm_of(r->m, op, p->layer, dim), in, out, p->n); return;
	case OP_HEAD_NORM: norm(norm_of(r->m, op, p->layer, dim / op->heads), in, out, p->n * op->heads); return;
	case OP_ADD: each_rows(p->n, add_rows, &a); return;
	default: break;
	}
	if (out != in)
		memcpy(out, in, p->n * dim * sizeof *out);
	if (op->kind == OP_ROPE) {
		rotate(c, phases_of(&r->phases, p->layer), out, p->n, p->len, op->heads);
		return;
	}
	if (op->kind == OP_SCALE || op->kind == OP_TEMPER) {
		a.scale = op->scale;
		a.rope = op->kind == OP_TEMPER ? &c->rope : NULL;
		a.first = p->start;
		a.len = p->len;
		each_rows(p->n, scale_rows, &a);
		return;
	}
	if (op->kind == OP_ROUTE) {
		route_weights(c, out, p->n);
		return;
	}
	a.in = lies(r, p, op->in[1]);
	each_rows(p->n, act_rows, &a);
}

static int run_op(struct model_run *r, struct pass *p, const struct op *op, struct err *e)
{
	if (op->kind == OP_LINEAR) {
		if (op->group)
			project(r, p, op);
		return ERR_OK;
	}
	if (op->kind == OP_ROPE || op->kind == OP_TEMPER || op->kind == OP_ATTEND)
		show_qkv(r, p);
	if (op->kind == OP_ATTEND)
		return attention(r, p, op, e);
	elementwise(r, p, op);
	return ERR_OK;
}

/*
 * Operations `from` to its OP_MERGE, by each expert over the tokens that go to it; experts in order, so that a token's sum
 * has one order. Where the tap ends the layer it ends each expert.
 */
static int run_experts(struct model_run *r, struct pass *p, unsigned from, struct err *e)
{
	const struct op *op = &p->b->op[from], *merge = &p->b->op[block_merge(p->b, from)];
	const float *x = lies(r, p, op->in[0]), *weights = lies(r, p, op->in[1]);
	float *sum = lies(r, p, merge->out);
	size_t n = p->n, dim = width(p, op->in[0]), experts = r->m->config->experts;
	bool stopped = false;
	int rc = ERR_OK;
	memset(sum, 0, n * width(p, merge->out) * sizeof *sum);
	for (uint32_t i = 0; i < experts && !rc; i++) {
		p->n = route_tokens(weights, n, experts, i, r->token);
		if (!p->n)
			continue;
		p->place = place_of(p->layer, i);
		p->stopped = false;
		route_gather(x, r->token, p->n, dim, lies(r, p, op->out));
		if (p->tap && p->tap->routed)
			p->tap->routed(p->tap->arg, r->token, p->n);
		for (const struct op *o = op + 1; o < merge && !rc && !p->stopped; o++)
			rc = run_op(r, p, o, e);
		const struct routed mine = { r->token, p->n, weights, experts, i };
		if (!p->stopped)
			route_merge(&mine, lies(r, p, merge->in[0]), width(p, merge->in[0]), sum);
		stopped |= p->stopped;
	}
	p->n = n;
	p->place = p->layer;
	p->stopped = stopped;
	return rc;
}

static int check_pass(const struct model_run *r, const struct pass *p, struct err *e)
{
	size_t n;
	if (__builtin_mul_overflow(p->seqs, p->len, &n) || n > r->tokens)
		return err_set(e, ERR_BUG, "%zu sequences of %zu tokens exceed the room for %zu", p->seqs, p->len, r->tokens);
	if (p->cache && p->seqs != 1)
		return err_set(e, ERR_BUG, "a KV cache serves one sequence, not %zu", p->seqs);
	if (p->b->full)
		return err_set(e, ERR_BUG, "layer %u has more operations than there is room for", p->layer);
	if (p->tap && p->tap->part > p->b->parts)
		return err_set(e, ERR_BUG, "layer %u cannot be cut into more than %u parts", p->layer, p->b->parts);
	return ERR_OK;
}

int model_layer(struct model_run *r, uint32_t layer, float *hidden, const struct model_batch *of, struct err *e)
{
	const struct config *c = r->m->config;
	const struct model_tap *tap = of->tap;
	struct block b;
	struct pass p = { .b = &b, .layer = layer, .place = layer, .seqs = of->seqs, .len = of->len, .cache = of->cache, .tap = tap,
			  .hidden = hidden };
	if (layer >= c->layers)
		return err_set(e, ERR_BUG, "the model has no layer %u", layer);
	block_make(c, layer, &b);
	int rc = check_pass(r, &p, e);
	if (rc)
		return rc;
	p.l = &c->layer[layer];
	p.n = p.seqs * p.len;
	p.start = p.cache ? kv_cache_length(p.cache) : 0;
	if (!p.n)
		return ERR_OK;
	if ((rc = make_room(r, &b, e)) || (rc = reserve(r, r->stride, e)) ||
	    (rc = phase_table_fill(&r->phases, r->m, p.start, p.len, p.cache ? kv_capacity(p.cache) : p.len, e)))
		return rc;
	unsigned part = tap ? tap->part : 0, end = b.part[part ? part : b.parts];
	for (unsigned i = b.part[part ? part - 1 : 0]; i < end && !rc && !p.stopped; i++) {
		bool experts = b.op[i].kind == OP_EXPERTS;
		rc = experts ? run_experts(r, &p, i, e) : run_op(r, &p, &b.op[i], e);
		i = experts ? block_merge(&b, i) : i;
	}
	return rc;
}

/* A norm outside of layers. */
static void outer_norm(const struct model *m, enum role r, const float *hidden, float *out, size_t n)
{
	struct block b;
	block_make(m->config, OUTSIDE, &b);
	norm(norm_of(m, block_op(&b, r), OUTSIDE, m->config->hidden), hidden, out, n);
}

/* Adds the vector of a token's position. */
static int add_position(const struct model *m, size_t position, float *row, float *hidden, struct err *e)
{
	const struct config *c = m->config;
	if (position >= c->context)
		return err_set(e, ERR_INPUT, "the model has %u positions, and this text needs one more", c->context);
	weight_row(model_weight(m, ROLE_POSITIONS, UINT32_MAX), position + c->arch->position_offset, row);
	kernels()->axpy(hidden, 1, row, c->hidden);
	return ERR_OK;
}

int model_embed(struct model *m, const struct token_run *tokens, float *hidden, struct err *e)
{
	const struct config *c = m->config;
	const struct weight *w = model_weight(m, ROLE_EMBED, UINT32_MAX);
	float scale = config_embed_scale(c), *row = c->arch->learned_positions ? malloc(c->hidden * sizeof *row) : NULL;
	int rc = c->arch->learned_positions && !row ? err_nomem(e) : ERR_OK;
	for (size_t i = 0; i < tokens->count && !rc; i++) {
		float *h = hidden + i * c->hidden;
		int32_t id = tokens->id[i];
		if (id < 0 || (uint32_t)id >= c->vocab) {
			rc = err_set(e, ERR_INPUT, "token %d is outside the vocabulary of %u", id, c->vocab);
			break;
		}
		weight_row(w, (uint64_t)id, h);
		for (size_t j = 0; scale != 1 && j < c->hidden; j++)
			h[j] *= scale;
		if (row)
			rc = add_position(m, tokens->first + i % tokens->len, row, h, e);
	}
	free(row);
	if (!rc && c->arch->embed_norm)
		outer_norm(m, ROLE_EMBED_NORM, hidden, hidden, tokens->count);
	return rc;
}

void model_final_norm(const struct model *m, const float *hidden, float *out, size_t n)
{
	outer_norm(m, ROLE_FINAL_NORM, hidden, out, n);
}

int model_logits(struct model_run *r, const float *hidden, size_t n, float *logits, struct err *e)
{
	struct model *m = r->m;
	const struct config *c = m->config;
	int rc = reserve(r, r->stride, e);
	for (size_t at = 0, k; at < n && !rc; at += k) {
		k = n - at < r->tokens ? n - at : r->tokens;
		if (!k)
			return err_set(e, ERR_BUG, "there is no room for logits");
		struct product head = { model_head(m), model_vector(m, ROLE_HEAD_BIAS, OUTSIDE), logits + at * c->vocab };
		model_final_norm(m, hidden + at * c->hidden, r->last, k);
		multiply(r, &head, 1, r->last, k);
	}
	float scale = config_logit_scale(c);
	for (size_t i = 0; !rc && scale != 1 && i < n * c->vocab; i++)
		logits[i] *= scale;
	for (size_t i = 0; !rc && c->final_softcap > 0 && i < n * c->vocab; i++)
		logits[i] = c->final_softcap * tanhf(logits[i] / c->final_softcap);
	return rc;
}

int model_forward(struct model_run *r, const int32_t *tokens, const struct model_batch *b, float *hidden, struct err *e)
{
	const struct config *c = r->m->config;
	struct kv_cache *cache = b->cache;
	struct model_batch part = *b;
	size_t len = b->len;
	size_t room = cache ? kv_capacity(cache) - kv_cache_length(cache) : len;
	if (len > room)
		return err_set(e, ERR_INPUT, "the KV cache has room for %zu more tokens, not %zu", room, len);
	const struct token_run run = { tokens, b->seqs * len, len, cache ? kv_cache_length(cache) : 0 };
	int rc = model_embed(r->m, &run, hidden, e);
	size_t most = cache ? kv_chunk(cache) : len;
	for (size_t at = 0, n; at < len && !rc; at += n) {
		part.len = n = len - at < most ? len - at : most;
		for (uint32_t i = 0; i < c->layers && !rc; i++)
			rc = model_layer(r, i, hidden + at * c->hidden, &part, e);
		if (!rc && cache)
			kv_advance(cache, n);
	}
	return rc;
}
