/*
 * A layer's list of operations, in double and as plainly as it can be written: what the tape's values and, by differences, its
 * gradients are held against. Include after check.h.
 */
#ifndef QUIRE_TESTS_LIST_IN_DOUBLE_H
#define QUIRE_TESTS_LIST_IN_DOUBLE_H
#include <string.h>

#include "model/tape.h"

struct in_double {
	const struct model *m;
	const struct config *c;
	const struct block *b;
	unsigned from, to;
	uint32_t layer;
	size_t seqs, n;
	struct phases phases;
	/* its own: */
	uint32_t expert;         /* at work */
	double *w[ROLE_COUNT];
	double *given[BLOCK_VALUES]; /* the caller puts here what the list reads and does not make */
	double *x[BLOCK_VALUES];
};

/* d: the facts are set. w: by role. */
static inline void in_double_open(struct in_double *d, const struct tape_matrix *w)
{
	const struct block *b = d->b;
	for (unsigned v = 0; v < b->values; v++)
		d->x[v] = some(d->seqs * d->n * b->value[v].width, sizeof(double));
	for (unsigned i = d->from; i < d->to; i++) {
		const struct op *op = &b->op[i];
		if (op->kind != OP_LINEAR)
			continue;
		size_t size = b->value[op->in[0]].width * b->value[op->out].width * role_places(d->c, op->role);
		d->w[op->role] = some(size, sizeof(double));
		for (size_t k = 0; k < size; k++)
			d->w[op->role][k] = (double)w[op->role].w[k];
	}
}

static inline void in_double_close(struct in_double *d)
{
	for (int v = 0; v < BLOCK_VALUES; v++) {
		free(d->given[v]);
		free(d->x[v]);
	}
	for (int r = 0; r < ROLE_COUNT; r++)
		free(d->w[r]);
}

static inline void norm_in_double(const struct in_double *d, const struct op *op, const double *x, double *y, size_t n)
{
	const float *w = model_vector(d->m, op->role, d->layer), *b = model_vector(d->m, op->bias, d->layer);
	double mean = 0, square = 0, one = d->c->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0;
	for (size_t i = 0; i < n && d->c->arch->norm == NORM_LAYER; i++)
		mean += x[i] / (double)n;
	for (size_t i = 0; i < n; i++)
		square += (x[i] - mean) * (x[i] - mean) / (double)n;
	for (size_t i = 0; i < n; i++)
		y[i] = (x[i] - mean) / sqrt(square + (double)d->c->norm_eps) * ((double)w[i] + one) + (b ? (double)b[i] : 0);
}

static inline double act_in_double(enum activation act, double x)
{
	const double pi = 3.14159265358979323846;
	if (act == ACT_SILU)
		return x / (1 + exp(-x));
	if (act == ACT_GELU_QUICK)
		return x / (1 + exp(-1.702 * x));
	if (act == ACT_RELU || act == ACT_RELU2)
		return x < 0 ? 0 : act == ACT_RELU ? x : x * x;
	if (act == ACT_GELU_TANH)
		return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
	return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static inline void rope_in_double(const struct in_double *d, const struct op *op, const double *x, double *y, size_t t)
{
	size_t dim = d->c->head_dim, half = d->c->rope.dims / 2;
	const float *cosine = d->phases.cosine + t * half, *sine = d->phases.sine + t * half;
	memcpy(y, x, op->heads * dim * sizeof *y);
	for (size_t h = 0; h < op->heads; h++)
		for (size_t i = 0; i < half; i++) {
			double re = x[h * dim + i], im = x[h * dim + i + half];
			y[h * dim + i] = re * (double)cosine[i] - im * (double)sine[i];
			y[h * dim + i + half] = im * (double)cosine[i] + re * (double)sine[i];
		}
}

static inline void attend_in_double(const struct in_double *d, const double *q, const double *k, const double *v, double *y)
{
	const struct layer_config *l = &d->c->layer[d->layer];
	size_t dim = d->c->head_dim, kv = l->kv_heads * dim, width = l->heads * dim;
	double root = sqrt(d->c->query_scalar > 0 ? (double)d->c->query_scalar : (double)dim);
	double scale = d->c->score_scale > 0 ? (double)d->c->score_scale : 1 / root, cap = (double)d->c->attn_softcap, p[64];
	for (size_t h = 0; h < l->heads; h++)
		for (size_t t = 0; t < d->n; t++) {
			size_t g = h / (l->heads / l->kv_heads), from = l->window && t + 1 > l->window ? t + 1 - l->window : 0;
			double sum = 0;
			for (size_t s = from; s <= t; s++) {
				double score = 0;
				for (size_t i = 0; i < dim; i++)
					score += scale * q[t * width + h * dim + i] * k[s * kv + g * dim + i];
				/* of four heads: a quarter, a sixteenth, ... of the distance */
				score -= d->c->arch->alibi ? pow(2, -8.0 * (double)(h + 1) / l->heads) * (double)(t - s) : 0;
				p[s] = exp(cap > 0 ? cap * tanh(score / cap) : score);
				sum += p[s];
			}
			for (size_t i = 0; i < dim; i++) {
				double *out = &y[t * width + h * dim + i];
				*out = 0;
				for (size_t s = from; s <= t; s++)
					*out += p[s] / sum * v[s * kv + g * dim + i];
			}
		}
}

/* The most likely experts one after the other; their softmax is over themselves or over all. */
static inline void route_in_double(const struct config *c, const double *x, double *y)
{
	double all = 0, chosen = 0;
	for (uint32_t i = 0; i < c->experts; i++) {
		all += exp(x[i]);
		y[i] = 0;
	}
	for (uint32_t k = 0; k < c->experts_used; k++) {
		uint32_t best = c->experts;
		for (uint32_t i = 0; i < c->experts; i++)
			if (y[i] == 0 && (best == c->experts || x[i] > x[best]))
				best = i;
		y[best] = exp(x[best]);
		chosen += y[best];
	}
	for (uint32_t i = 0; i < c->experts; i++)
		y[i] /= c->experts_sum_to_one ? chosen : all;
}

static inline void token_in_double(const struct in_double *d, const struct op *op, double *const in[3], double *y, size_t t)
{
	size_t width = d->b->value[op->in[0]].width, out = d->b->value[op->out].width;
	const float *bias = op->kind == OP_LINEAR ? model_vector(d->m, op->bias, d->layer) : NULL;
	const double *x = in[0];
	switch (op->kind) {
	case OP_NORM:
	case OP_HEAD_NORM:
		for (size_t h = 0; h < op->heads; h++)
			norm_in_double(d, op, x + h * (width / op->heads), y + h * (width / op->heads), width / op->heads);
		break;
	case OP_LINEAR:
		for (size_t r = 0; r < out; r++) {
			y[r] = bias ? (double)bias[r] : 0;
			for (size_t i = 0; i < width; i++)
				y[r] += d->w[op->role][(d->expert * out + r) * width + i] * x[i];
		}
		break;
	case OP_ROUTE: route_in_double(d->c, x, y); break;
	case OP_EXPERTS: memcpy(y, x, out * sizeof *y); break;
	case OP_MERGE:
		for (size_t i = 0; i < out; i++)
			y[i] += in[1][d->expert] * x[i];
		break;
	case OP_SCALE:
	case OP_TEMPER:
		for (size_t i = 0; i < out; i++)
			y[i] = x[i] * (op->kind == OP_SCALE ? (double)op->scale : 1 + (double)d->c->rope.temper * log(1 + floor((double)(t % d->n) /
					d->c->rope.original_context)));
		break;
	case OP_ROPE: rope_in_double(d, op, x, y, t % d->n); break;
	case OP_ACT:
	case OP_GLU:
		for (size_t i = 0; i < out; i++)
			y[i] = act_in_double(d->c->act, x[i]) * (op->kind == OP_GLU ? in[1][i] : 1);
		break;
	case OP_ADD:
		for (size_t i = 0; i < out; i++)
			y[i] += x[i];
		break;
	default: fail_msg("an operation of kind %d is not known in double", (int)op->kind);
	}
}

static inline void op_in_double(struct in_double *d, const struct op *op, size_t t)
{
	double *in[3] = { NULL }, *y = d->x[op->out] + t * d->b->value[op->out].width;
	for (int k = 0; k < 3; k++)
		in[k] = op->in[k] == NO_VALUE ? NULL : d->x[op->in[k]] + t * d->b->value[op->in[k]].width;
	if (op->kind == OP_ATTEND)
		attend_in_double(d, in[0], in[1], in[2], y);
	else
		token_in_double(d, op, in, y, t);
}

/* A token through the experts that have a weight there. */
static inline void experts_in_double(struct in_double *d, unsigned from, size_t t)
{
	unsigned merge = block_merge(d->b, from);
	const struct op *op = d->b->op;
	const double *weight = d->x[op[from].in[1]] + t * d->c->experts;
	size_t out = d->b->value[op[merge].out].width;
	memset(d->x[op[merge].out] + t * out, 0, out * sizeof(double));
	for (d->expert = 0; d->expert < d->c->experts; d->expert++)
		for (unsigned i = from; weight[d->expert] != 0 && i <= merge; i++)
			op_in_double(d, &op[i], t);
	d->expert = 0;
}

static inline void in_double_run(struct in_double *d)
{
	for (unsigned v = 0; v < d->b->values; v++)
		if (d->given[v])
			memcpy(d->x[v], d->given[v], d->seqs * d->n * d->b->value[v].width * sizeof(double));
	for (unsigned i = d->from; i < d->to; i++) {
		const struct op *op = &d->b->op[i];
		for (size_t t = 0; t < d->seqs * d->n; t += op->kind == OP_ATTEND ? d->n : 1)
			if (op->kind == OP_EXPERTS)
				experts_in_double(d, i, t);
			else
				op_in_double(d, op, t);
		i = op->kind == OP_EXPERTS ? block_merge(d->b, i) : i;
	}
}

#endif
