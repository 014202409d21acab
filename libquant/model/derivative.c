#include "model/derivative.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/kernel.h"
#include "kernel/product.h"
#include "model/activation.h"
#include "model/attention.h"
#include "model/norm.h"

/* Elements of an activation that are worked on at once. */
enum { RUN = 256 };

/* dy has become the gradient by x[0]. */
static void deliver(const struct piece *p)
{
	size_t n = p->n * p->width[0];
	if (!p->dx[0] || p->dx[0] == p->dy)
		return;
	if (p->fresh[0])
		memcpy(p->dx[0], p->dy, n * sizeof *p->dy);
	else
		kernels()->axpy(p->dx[0], 1, p->dy, n);
}

/* ---- norms, of a token or of each head */

static struct norm norm_of(const struct piece *p)
{
	return (struct norm){ .kind = p->c->arch->norm, .weight = p->weight, .bias = p->bias, .n = p->width[0] / p->op->heads,
			      .eps = p->c->norm_eps };
}

static void norm_run(const struct piece *p)
{
	struct norm a = norm_of(p);
	for (size_t i = 0; i < p->n * p->width[0]; i += a.n)
		norm_row(&a, p->x[0] + i, p->y + i);
}

static void norm_back(const struct piece *p)
{
	struct norm a = norm_of(p);
	for (size_t i = 0; i < p->n * p->width[0]; i += a.n)
		norm_row_back(&a, p->x[0] + i, p->dy + i);
	deliver(p);
}

/* ---- linears */

static void linear_run(const struct piece *p)
{
	size_t out = p->out_width;
	if (p->residual)
		memcpy(p->y, p->residual, p->n * out * sizeof *p->y);
	product_gemm(false, true, p->n, out, p->cols, 1, p->x[0], p->cols, p->w, p->cols, p->residual ? 1 : 0, p->y, out);
	for (size_t t = 0; p->bias && t < p->n; t++)
		for (size_t i = 0; i < out; i++)
			p->y[t * out + i] += p->bias[i];
}

static void linear_back(const struct piece *p)
{
	product_gemm(false, false, p->n, p->cols, p->out_width, 1, p->dy, p->out_width, p->w, p->cols, p->fresh[0] ? 0 : 1, p->dx[0], p->cols);
}

void derivative_rows(const struct piece *p, size_t from, size_t rows, float *grad)
{
	if (!p->n) { /* an expert that no token went to */
		memset(grad + from * p->cols, 0, rows * p->cols * sizeof *grad);
		return;
	}
	product_gemm(true, false, rows, p->cols, p->seqs * p->n, 1, p->dy + from, p->out_width, p->x[0], p->cols, 0, grad + from * p->cols,
		  p->cols);
}

/* ---- positions */

static void rope_run(const struct piece *p)
{
	size_t half = p->c->rope.dims / 2;
	if (p->y != p->x[0])
		memcpy(p->y, p->x[0], p->n * p->out_width * sizeof *p->y);
	for (size_t t = 0; t < p->n; t++)
		rope_rotate(p->y + t * p->out_width, p->op->heads, p->c->head_dim, half, p->phases.cosine + t * half, p->phases.sine + t * half);
}

static void rope_back(const struct piece *p)
{
	size_t half = p->c->rope.dims / 2;
	for (size_t t = 0; t < p->n; t++)
		rope_rotate_back(p->dy + t * p->out_width, p->op->heads, p->c->head_dim, half, p->phases.cosine + t * half,
				 p->phases.sine + t * half);
	deliver(p);
}

/* ---- attention */

static struct attention attention_of(const struct piece *p)
{
	const struct layer_config *l = &p->c->layer[p->layer];
	return (struct attention){ .q = p->x[0], .k = p->x[1], .v = p->x[2], .out = p->y, .seqs = p->seqs, .queries = p->n, .keys = p->n,
				   .heads = l->heads, .kv_heads = l->kv_heads, .dim = p->c->head_dim, .window = l->window,
				   .scale = config_score_scale(p->c), .softcap = p->c->attn_softcap, .alibi = p->c->arch->alibi, .scratch = p->scratch,
				   .stride = p->stride };
}

static void attend_run(const struct piece *p)
{
	struct attention a = attention_of(p);
	attention_run(&a);
}

/* Probabilities, their gradient and the slopes of the soft-cap. */
static size_t attend_scratch(const struct piece *p, bool back)
{
	struct attention a = attention_of(p);
	size_t n = attention_scratch(&a), whole = (a.softcap > 0 ? 3 : 2) * p->n * p->n;
	return back && whole > n ? whole : n;
}

struct attend_back {
	const struct piece *p;
	struct attention a;
};

/* Rows and columns of scores that are worked on at once: what lies behind a tile's last query is not computed. */
enum { TILE = 64 };

struct tile {
	size_t from, n;          /* queries; or keys */
	size_t first, end;       /* keys that some of the queries see; or queries that see some of the keys */
};

static struct tile queries_at(const struct attention *a, size_t from)
{
	size_t n = a->queries - from < TILE ? a->queries - from : TILE;
	return (struct tile){ from, n, a->window && from + 1 > a->window ? from + 1 - a->window : 0, from + n };
}

static struct tile keys_at(const struct attention *a, size_t from)
{
	size_t n = a->keys - from < TILE ? a->keys - from : TILE, end = from + n - 1 + a->window;
	return (struct tile){ from, n, from, a->window && end < a->queries ? end : a->queries };
}

/* Where a query head and its KV head begin in what a sequence has. */
struct head_at {
	const struct piece *p;
	const struct attention *a;
	float *s, *ds, *slope;   /* [n, n] */
	float fade;              /* of alibi */
	size_t q, kv;
	bool first;              /* of the query heads that read this KV head */
};

/* Scores of queries become probabilities, s [n, n]; with a soft-cap, slope [n, n] gets the derivative of the cap. */
static void probabilities(const struct head_at *h, const struct tile *tile)
{
	const struct attention *a = h->a;
	float *s = h->s, *slope = h->slope;
	const struct kernels *kn = kernels();
	size_t n = a->queries;
	for (size_t t = tile->from; t < tile->end; t++) {
		float *row = s + t * n;
		size_t from = a->window && t + 1 > a->window ? t + 1 - a->window : 0, count = t + 1 - from;
		if (a->alibi)
			attention_fade(h->fade, row + from, count);
		for (size_t i = from; slope && i <= t; i++) {
			float c = tanhf(row[i] / a->softcap);
			row[i] = a->softcap * c;
			slope[t * n + i] = 1 - c * c;
		}
		float inverse = 1 / kn->exp_sum(row + from, kn->max(row + from, count), count);
		for (size_t i = from; i <= t; i++)
			row[i] *= inverse;
		memset(row, 0, from * sizeof *row);
		memset(row + t + 1, 0, (tile->end - t - 1) * sizeof *row);
	}
}

/* dS = P * (dP - rows of sum P dP), in place of dP. */
static void softmax_back(const struct attention *a, const struct tile *tile, const float *p, float *dp, const float *slope)
{
	size_t n = a->queries;
	for (size_t t = tile->from; t < tile->end; t++) {
		size_t from = a->window && t + 1 > a->window ? t + 1 - a->window : 0;
		memset(dp + t * n, 0, from * sizeof *dp);
		float dot = kernels()->dot(p + t * n, dp + t * n, t + 1);
		for (size_t i = from; i <= t; i++)
			dp[t * n + i] = p[t * n + i] * (dp[t * n + i] - dot) * (slope ? slope[t * n + i] : 1);
		memset(dp + t * n + t + 1, 0, (tile->end - t - 1) * sizeof *dp);
	}
}

static void back_queries(const struct head_at *h, size_t from)
{
	const struct piece *p = h->p;
	const struct attention *a = h->a;
	size_t n = p->n, d = a->dim, q = p->width[0], kv = p->width[1];
	struct tile t = queries_at(a, from);
	size_t corner = t.from * n + t.first, seen = t.end - t.first;
	const float *k = p->x[1] + h->kv + t.first * kv, *v = p->x[2] + h->kv + t.first * kv;
	product_gemm(false, true, t.n, seen, d, a->scale, p->x[0] + h->q + t.from * q, q, k, kv, 0, h->s + corner, n);
	probabilities(h, &t);
	product_gemm(false, true, t.n, seen, d, 1, p->dy + h->q + t.from * q, q, v, kv, 0, h->ds + corner, n);
	softmax_back(a, &t, h->s, h->ds, h->slope);
	if (p->dx[0])
		product_gemm(false, false, t.n, d, seen, a->scale, h->ds + corner, n, k, kv, p->fresh[0] ? 0 : 1, p->dx[0] + h->q + t.from * q, q);
}

static void back_keys(const struct head_at *h, size_t from)
{
	const struct piece *p = h->p;
	size_t n = p->n, d = h->a->dim, q = p->width[0], kv = p->width[1];
	struct tile t = keys_at(h->a, from);
	size_t corner = t.first * n + t.from, seen = t.end - t.first, at = h->kv + t.from * kv, by = h->q + t.first * q;
	if (p->dx[2])
		product_gemm(true, false, t.n, d, seen, 1, h->s + corner, n, p->dy + by, q, h->first && p->fresh[2] ? 0 : 1, p->dx[2] + at, kv);
	if (p->dx[1])
		product_gemm(true, false, t.n, d, seen, h->a->scale, h->ds + corner, n, p->x[0] + by, q, h->first && p->fresh[1] ? 0 : 1,
			  p->dx[1] + at, kv);
}

/* An item is a KV head of a sequence, with all query heads that read it. */
static void attend_back_item(void *arg, size_t item, int worker)
{
	const struct attend_back *b = arg;
	const struct piece *p = b->p;
	const struct attention *a = &b->a;
	size_t n = p->n, share = a->heads / a->kv_heads, seq = item / a->kv_heads, g = item % a->kv_heads;
	float *s = p->scratch + (size_t)worker * p->stride;
	for (size_t i = 0; i < share; i++) {
		struct head_at h = { p, a, s, s + n * n, a->softcap > 0 ? s + 2 * n * n : NULL,
				     attention_slope(a->heads, (uint32_t)(g * share + i)), seq * n * p->width[0] + (g * share + i) * a->dim,
				     seq * n * p->width[1] + g * a->dim, i == 0 };
		for (size_t t = 0; t < n; t += TILE)
			back_queries(&h, t);
		for (size_t t = 0; t < n; t += TILE)
			back_keys(&h, t);
	}
}

static void attend_back(const struct piece *p)
{
	struct attend_back b = { p, attention_of(p) };
	thread_for(p->seqs * b.a.kv_heads, attend_back_item, &b);
}

/* ---- activations */

static void act_run(const struct piece *p)
{
	activation_run(p->c->act, p->x[0], p->x[1], p->y, p->n * p->out_width);
}

static void act_back(const struct piece *p)
{
	float y[RUN], slope[RUN];
	for (size_t at = 0, all = p->n * p->out_width, n; at < all; at += n) {
		n = all - at < RUN ? all - at : RUN;
		activation_slope(p->c->act, p->x[0] + at, y, slope, n);
		for (size_t i = 0; i < n; i++)
			p->dy[at + i] *= slope[i];
	}
	deliver(p);
}

static void glu_back(const struct piece *p)
{
	float y[RUN], slope[RUN];
	for (size_t at = 0, all = p->n * p->out_width, n; at < all; at += n) {
		const float *up = p->x[1] + at;
		float *d = p->dy + at, *by_up = p->dx[1] ? p->dx[1] + at : NULL;
		n = all - at < RUN ? all - at : RUN;
		activation_slope(p->c->act, p->x[0] + at, y, slope, n);
		for (size_t i = 0; i < n; i++) {
			float u = d[i] * y[i];
			d[i] = d[i] * slope[i] * up[i];
			if (by_up)
				by_up[i] = p->fresh[1] ? u : by_up[i] + u;
		}
	}
	deliver(p);
}

/* ---- the stream: x[1] is what it was */

static void add_run(const struct piece *p)
{
	for (size_t i = 0; i < p->n * p->out_width; i++)
		p->y[i] = p->x[1][i] + p->x[0][i];
}

static void add_back(const struct piece *p)
{
	deliver(p);
}

/* ---- experts */

static void route_run(const struct piece *p)
{
	if (p->y != p->x[0])
		memcpy(p->y, p->x[0], p->n * p->out_width * sizeof *p->y);
	route_weights(p->c, p->y, p->n);
}

/* The softmax is over those that were chosen, or over all. */
static void route_row_back(const struct config *c, const float *x, const float *y, float *d)
{
	double sum = 0, all = 0;
	float most = x[0];
	for (uint32_t i = 0; i < c->experts; i++)
		sum += y[i] != 0 ? (double)y[i] * (double)d[i] : 0;
	for (uint32_t i = 0; i < c->experts && c->experts_sum_to_one; i++)
		d[i] = y[i] * (float)((double)d[i] - sum);
	if (c->experts_sum_to_one)
		return;
	for (uint32_t i = 1; i < c->experts; i++)
		most = x[i] > most ? x[i] : most;
	for (uint32_t i = 0; i < c->experts; i++)
		all += (double)expf(x[i] - most);
	for (uint32_t i = 0; i < c->experts; i++)
		d[i] = (float)((double)expf(x[i] - most) / all * ((y[i] != 0 ? (double)d[i] : 0) - sum));
}

static void route_back(const struct piece *p)
{
	for (size_t t = 0; t < p->n; t++)
		route_row_back(p->c, p->x[0] + t * p->out_width, p->y + t * p->out_width, p->dy + t * p->out_width);
	deliver(p);
}

/* Tokens that an item of these loops takes. */
enum { TOKENS = 8 };

static void each_token(const struct piece *p, void (*fn)(void *, size_t, int))
{
	thread_for((p->seqs * p->n + TOKENS - 1) / TOKENS, fn, (void *)(uintptr_t)p);
}

static size_t token_end(const struct piece *p, size_t item)
{
	return (item + 1) * TOKENS < p->seqs * p->n ? (item + 1) * TOKENS : p->seqs * p->n;
}

/* The rows that experts have of token t, in order; *i is the number of the next one, from 0. */
static bool next_row(const struct routing *r, size_t t, size_t *i, size_t *row)
{
	bool there = *i < r->used && r->row[t * r->used + *i] != NO_ROW;
	*row = there ? r->row[t * r->used + *i] : 0;
	++*i;
	return there;
}

static void experts_tokens(void *arg, size_t item, int worker)
{
	const struct piece *p = arg;
	(void)worker;
	for (size_t t = item * TOKENS, row; t < token_end(p, item); t++)
		for (size_t i = 0; next_row(p->routing, t, &i, &row);)
			memcpy(p->y + row * p->out_width, p->x[0] + t * p->out_width, p->out_width * sizeof *p->y);
}

static void experts_run(const struct piece *p)
{
	routing_make(p->routing, p->x[1], p->seqs * p->n);
	each_token(p, experts_tokens);
}

static void experts_tokens_back(void *arg, size_t item, int worker)
{
	const struct piece *p = arg;
	(void)worker;
	for (size_t t = item * TOKENS, row; t < token_end(p, item); t++) {
		float *d = p->dx[0] + t * p->out_width;
		if (p->fresh[0])
			memset(d, 0, p->out_width * sizeof *d);
		for (size_t i = 0; next_row(p->routing, t, &i, &row);)
			kernels()->axpy(d, 1, p->dy + row * p->out_width, p->out_width);
	}
}

static void experts_back(const struct piece *p)
{
	if (p->dx[0])
		each_token(p, experts_tokens_back);
}

static void merge_tokens(void *arg, size_t item, int worker)
{
	const struct piece *p = arg;
	const struct routing *r = p->routing;
	(void)worker;
	for (size_t t = item * TOKENS, row; t < token_end(p, item); t++) {
		memset(p->y + t * p->out_width, 0, p->out_width * sizeof *p->y);
		for (size_t i = 0; next_row(r, t, &i, &row);)
			kernels()->axpy(p->y + t * p->out_width, p->x[1][t * r->experts + r->expert[row]], p->x[0] + row * p->out_width,
					p->out_width);
	}
}

static void merge_run(const struct piece *p)
{
	each_token(p, merge_tokens);
}

static void merge_tokens_back(void *arg, size_t item, int worker)
{
	const struct piece *p = arg;
	const struct routing *r = p->routing;
	size_t n = p->out_width;
	(void)worker;
	for (size_t t = item * TOKENS, row; t < token_end(p, item); t++) {
		const float *dy = p->dy + t * n, *weight = p->x[1] + t * r->experts;
		float *by_weight = p->dx[1] ? p->dx[1] + t * r->experts : NULL;
		if (by_weight && p->fresh[1])
			memset(by_weight, 0, r->experts * sizeof *by_weight);
		for (size_t i = 0; next_row(r, t, &i, &row);) {
			if (by_weight)
				by_weight[r->expert[row]] += kernels()->dot(p->x[0] + row * n, dy, n);
			for (size_t k = 0; p->dx[0] && k < n; k++)
				p->dx[0][row * n + k] = weight[r->expert[row]] * dy[k] + (p->fresh[0] ? 0 : p->dx[0][row * n + k]);
		}
	}
}

static void merge_back(const struct piece *p)
{
	each_token(p, merge_tokens_back);
}

/* ---- scales; run and back are the same */

static void scale_values(const struct piece *p, const float *x, float *y)
{
	for (size_t t = 0; t < p->n; t++) {
		float by = p->op->kind == OP_TEMPER ? rope_temper(&p->c->rope, t) : p->op->scale;
		for (size_t i = t * p->out_width; i < (t + 1) * p->out_width; i++)
			y[i] = by * x[i];
	}
}

static void scale_run(const struct piece *p)
{
	scale_values(p, p->x[0], p->y);
}

static void scale_back(const struct piece *p)
{
	scale_values(p, p->dy, p->dy);
	deliver(p);
}

enum { X0 = 1, X1 = 2, X2 = 4 };
static const struct derivative rows[] = {
	[OP_NORM] = { .name = "a norm", .run = norm_run, .back = norm_back, .reads = X0, .in_place = true },
	[OP_HEAD_NORM] = { .name = "a norm of each head", .run = norm_run, .back = norm_back, .reads = X0, .in_place = true },
	[OP_LINEAR] = { .name = "a matrix", .run = linear_run, .back = linear_back, .reads = X0 },
	[OP_ROPE] = { .name = "rotary positions", .run = rope_run, .back = rope_back, .in_place = true },
	[OP_ATTEND] = { .name = "attention", .run = attend_run, .back = attend_back, .reads = X0 | X1 | X2, .batch = true,
			.scratch = attend_scratch },
	[OP_ACT] = { .name = "an activation", .run = act_run, .back = act_back, .reads = X0, .in_place = true },
	[OP_GLU] = { .name = "a gated activation", .run = act_run, .back = glu_back, .reads = X0 | X1, .in_place = true, .lends = true },
	[OP_ADD] = { .name = "a sum", .run = add_run, .back = add_back, .in_place = true },
	[OP_SCALE] = { .name = "a scale", .run = scale_run, .back = scale_back, .in_place = true },
	[OP_TEMPER] = { .name = "a temperature", .run = scale_run, .back = scale_back, .in_place = true },
	[OP_ROUTE] = { .name = "a choice of experts", .run = route_run, .back = route_back, .reads = X0 | READS_Y, .in_place = true },
	[OP_EXPERTS] = { .name = "experts", .run = experts_run, .back = experts_back, .batch = true },
	[OP_MERGE] = { .name = "a sum of experts", .run = merge_run, .back = merge_back, .reads = X0 | X1, .batch = true },
};

const struct derivative *derivative_of(enum op_kind k)
{
	return (size_t)k < sizeof rows / sizeof *rows && rows[k].name ? &rows[k] : NULL;
}
