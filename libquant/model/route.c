#include "model/route.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/kernel.h"

/* Tokens that one item of a loop takes: fixed, so that pieces never depend on the thread count. */
enum { ROWS = 8 };

struct rows {
	const struct config *config;
	const float *x, *weights;
	const uint32_t *token;
	float *out;
	size_t n, dim, experts;
	uint32_t expert;
};

/* Of equally likely experts the first goes first. The softmax is over all of them, whoever is chosen. */
static void choose(const struct config *c, float *x)
{
	float most = x[0], left, weight = INFINITY;
	double all = 0, chosen = 0;
	size_t last = 0;
	for (uint32_t i = 1; i < c->experts; i++)
		most = x[i] > most ? x[i] : most;
	for (uint32_t i = 0; i < c->experts; i++)
		all += (double)(x[i] = expf(x[i] - most));
	/* the k'th largest: the next below the one before, counting equals by their order */
	for (uint32_t k = 0; k < c->experts_used; k++) {
		size_t best = SIZE_MAX;
		left = -1;
		for (size_t i = 0; i < c->experts; i++)
			if ((x[i] < weight || (x[i] == weight && i > last)) && x[i] > left) {
				left = x[i];
				best = i;
			}
		if (best == SIZE_MAX) /* not numbers: every expert takes the token, and the result is not one either */
			return;
		weight = left;
		last = best;
		chosen += (double)weight;
	}
	double by = c->experts_sum_to_one ? chosen : all;
	for (size_t i = 0; i < c->experts; i++)
		x[i] = x[i] > weight || (x[i] == weight && i <= last) ? (float)((double)x[i] / by) : 0;
}

static void choose_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		choose(a->config, a->out + t * a->config->experts);
}

static void each(void (*fn)(void *, size_t, int), struct rows *a)
{
	thread_for((a->n + ROWS - 1) / ROWS, fn, a);
}

void route_weights(const struct config *c, float *x, size_t n)
{
	struct rows a = { .config = c, .out = x, .n = n };
	each(choose_rows, &a);
}

size_t route_tokens(const float *weights, size_t n, size_t experts, uint32_t expert, uint32_t *token)
{
	size_t count = 0;
	for (size_t t = 0; t < n; t++)
		if (weights[t * experts + expert] != 0)
			token[count++] = (uint32_t)t;
	return count;
}

static void gather_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t i = item * ROWS; i < a->n && i < (item + 1) * ROWS; i++)
		memcpy(a->out + i * a->dim, a->x + a->token[i] * a->dim, a->dim * sizeof *a->out);
}

void route_gather(const float *x, const uint32_t *token, size_t n, size_t dim, float *out)
{
	struct rows a = { .x = x, .token = token, .n = n, .dim = dim, .out = out };
	each(gather_rows, &a);
}

static void merge_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t i = item * ROWS; i < a->n && i < (item + 1) * ROWS; i++)
		kernels()->axpy(a->out + a->token[i] * a->dim, a->weights[a->token[i] * a->experts + a->expert], a->x + i * a->dim, a->dim);
}

void route_merge(const struct routed *t, const float *x, size_t dim, float *out)
{
	struct rows a = { .x = x, .token = t->token, .n = t->n, .dim = dim, .weights = t->weights, .experts = t->experts, .expert = t->expert,
			  .out = out };
	each(merge_rows, &a);
}

/* ---- all experts */

int routing_new(struct routing *r, const struct config *c, size_t tokens, struct err *e)
{
	size_t rows = tokens * c->experts_used;
	*r = (struct routing){ .tokens = tokens, .used = c->experts_used, .experts = c->experts,
			       .first = calloc((size_t)c->experts + 1, sizeof *r->first), .token = calloc(rows + 1, sizeof *r->token),
			       .expert = calloc(rows + 1, sizeof *r->expert), .row = calloc(rows + 1, sizeof *r->row) };
	if (rows < NO_ROW && r->first && r->token && r->expert && r->row)
		return ERR_OK;
	routing_release(r);
	return err_nomem(e);
}

void routing_release(struct routing *r)
{
	free(r->first);
	free(r->token);
	free(r->expert);
	free(r->row);
	*r = (struct routing){ 0 };
}

uint64_t routing_memory(const struct config *c, size_t tokens)
{
	return c->experts ? 8 * ((uint64_t)c->experts + 1) + 12 * ((uint64_t)tokens * c->experts_used + 1) : 0;
}

void routing_make(struct routing *r, const float *weights, size_t n)
{
	size_t *next = r->first + 1; /* while rows are given out: where the next one of an expert goes */
	memset(r->first, 0, (r->experts + 1) * sizeof *r->first);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t t = 0; t < n; t++) {
			size_t have = 0;
			for (size_t i = 0; i < r->experts && have < r->used; i++) {
				if (weights[t * r->experts + i] == 0)
					continue;
				if (pass) {
					r->token[next[i]] = (uint32_t)t;
					r->expert[next[i]] = (uint32_t)i;
					r->row[t * r->used + have] = (uint32_t)next[i];
				}
				next[i]++;
				have++;
			}
			for (; pass && have < r->used; have++)
				r->row[t * r->used + have] = NO_ROW;
		}
		/* numbers become beginnings, which the second pass moves to the beginning of the next */
		for (size_t i = 0, at = 0; i < r->experts && !pass; i++) {
			size_t count = next[i];
			next[i] = at;
			at += count;
		}
	}
}
