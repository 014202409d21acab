#include "calib/judge/baseline.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "base/thread.h"

enum { BUCKETS = 512, CODE_MAX = 65535 };
#define STEP (1.0 / 2048)
#define BUCKETS_PER_NAT 16.0f

const double baseline_thresholds[BASELINE_THRESHOLDS] = {
	0.2, 0.1, 0.07, 0.05, 0.035, 0.03, 0.025, 0.02, 0.015, 0.01, 0.007, 0.005,
};

static uint16_t encode_log(double log_p)
{
	double c = -log_p / STEP;
	return c > 0 ? c < CODE_MAX ? (uint16_t)(c + 0.5) : CODE_MAX : 0;
}

static double decode_log(uint16_t code)
{
	return -STEP * code;
}

static int more_likely(const void *a, const void *b)
{
	const struct baseline_rank *x = a, *y = b;
	if (x->logit != y->logit)
		return x->logit < y->logit ? 1 : -1;
	return (x->id > y->id) - (x->id < y->id);
}

static unsigned bucket_of(float max, float logit)
{
	float at = (max - logit) * BUCKETS_PER_NAT;
	return at < BUCKETS - 1 ? (unsigned)at : BUCKETS - 1;
}

/* ids by falling logit: exactly for the first BASELINE_MAX_TOP, by buckets of 1/16 nat after that. */
static void sort_ids(const float *logits, size_t vocab, float max, struct baseline_rank *order)
{
	size_t start[BUCKETS + 1] = { 0 }, head = 0;
	for (size_t i = 0; i < vocab; i++)
		start[bucket_of(max, logits[i]) + 1]++;
	for (unsigned b = 0; b < BUCKETS; b++) {
		start[b + 1] += start[b];
		if (!head && (start[b + 1] >= BASELINE_MAX_TOP || start[b + 1] == vocab))
			head = start[b + 1];
	}
	for (size_t i = 0; i < vocab; i++)
		order[start[bucket_of(max, logits[i])]++] = (struct baseline_rank){ logits[i], (uint32_t)i };
	qsort(order, head, sizeof *order, more_likely);
}

/* Logits from the most likely on. */
struct ordered {
	const struct baseline_rank *rank;
	size_t vocab;
	double lse;
};

/* Systematic sampling: equal steps through the tail's mass, from a random start `next`. */
static void sample_tail(struct baseline_row *row, const struct ordered *o, double mass, double next)
{
	double step = mass / row->sampled, sum = 0;
	size_t taken = 0;
	for (size_t i = row->top; i < o->vocab && taken < row->sampled; i++) {
		double log_p = o->rank[i].logit - o->lse;
		sum += exp(log_p);
		/* rounding of the sums may leave the last step beyond the end: the last token takes it */
		while (taken < row->sampled && (next < sum || i + 1 == o->vocab)) {
			row->id[row->top + taken] = o->rank[i].id;
			row->code[row->top + taken++] = encode_log(log_p);
			next += step;
		}
	}
}

static size_t count_top(const struct baseline_rank *order, size_t vocab, double lse, double threshold)
{
	size_t top = 0;
	while (top < vocab && top < BASELINE_MAX_TOP && (top < BASELINE_MIN_TOP || order[top].logit - lse > log(threshold)))
		top++;
	return top;
}

static size_t count_sample(double mass, double threshold)
{
	double want = ceil(mass / threshold);
	return want < BASELINE_MIN_SAMPLE ? BASELINE_MIN_SAMPLE : want > BASELINE_MAX_SAMPLE ? BASELINE_MAX_SAMPLE : (size_t)want;
}

bool baseline_row_plan(const float *logits, size_t vocab, struct baseline_rank *order, uint16_t entries[BASELINE_THRESHOLDS])
{
	double lse, mass = 1;
	size_t best, top = 0;
	if (!log_sum_exp(logits, vocab, &lse, &best))
		return false;
	sort_ids(logits, vocab, logits[best], order);
	for (unsigned k = 0; k < BASELINE_THRESHOLDS; k++) {
		size_t more = count_top(order, vocab, lse, baseline_thresholds[k]);
		for (; top < more; top++)
			mass -= exp(order[top].logit - lse);
		entries[k] = (uint16_t)(top + (top < vocab ? count_sample(mass, baseline_thresholds[k]) : 0));
	}
	return true;
}

bool baseline_row_make(struct baseline_row *row, const float *logits, size_t vocab, int32_t target,
		       const struct baseline_sampling *s, struct baseline_rank *order)
{
	double lse;
	size_t best;
	*row = (struct baseline_row){ 0 };
	if (!log_sum_exp(logits, vocab, &lse, &best))
		return false;
	sort_ids(logits, vocab, logits[best], order);
	row->nll = (float)(lse - logits[target]);
	size_t top = count_top(order, vocab, lse, s->threshold);
	for (size_t i = 0; i < top; i++) {
		row->id[i] = order[i].id;
		row->code[i] = encode_log(order[i].logit - lse);
	}
	row->top = (uint8_t)top;
	if (top == vocab)
		return true;
	double mass = 0; /* summed as it is, not as a difference from 1 */
	for (size_t i = top; i < vocab; i++)
		mass += exp(order[i].logit - lse);
	row->sampled = (uint8_t)count_sample(mass, s->threshold);
	row->tail = encode_log(log(mass > 0 ? mass : 1e-300));
	double at = mass / row->sampled * rng_unit(&(struct rng){ s->seed });
	sample_tail(row, &(struct ordered){ order, vocab, lse }, mass, at);
	return true;
}

/* p log(p/q) - p + q: never negative, and sums to the KL divergence of two distributions. */
static double divergence(double p, double log_p, double log_q)
{
	return p * (log_p - log_q) - p + exp(log_q);
}

bool baseline_row_figures(const struct baseline_row *row, const float *logits, size_t vocab, int32_t target,
			  struct row_figures *out, double *kl_variance)
{
	double lse, in_top = 0;
	size_t best;
	*out = (struct row_figures){ .reference_nll = row->nll };
	*kl_variance = 0;
	if (!log_sum_exp(logits, vocab, &lse, &best))
		return false;
	out->nll = lse - logits[target];
	out->same_top = row->id[0] == best;
	for (size_t i = 0; i < row->top; i++) {
		double log_p = decode_log(row->code[i]), log_q = logits[row->id[i]] - lse;
		out->kl += divergence(exp(log_p), log_p, log_q);
		in_top += exp(log_q);
	}
	if (row->sampled) {
		double log_tail = decode_log(row->tail), tail = exp(log_tail);
		double log_rest = log(in_top < 1 - 1e-14 ? 1 - in_top : 1e-14), sum = 0, squares = 0;
		out->kl += divergence(tail, log_tail, log_rest);
		for (size_t i = row->top; i < (size_t)row->top + row->sampled; i++) {
			double r = decode_log(row->code[i]) - log_tail - (logits[row->id[i]] - lse - log_rest);
			double term = r - 1 + exp(-r);
			sum += term;
			squares += term * term;
		}
		double n = row->sampled, mean = sum / n, var = n > 1 ? (squares - n * mean * mean) / (n - 1) : mean * mean;
		out->kl += tail * mean;
		*kl_variance = var > 0 ? tail * tail * var / n : 0;
	}
	return true;
}

/*
 * Bytes of a window, in planes so that like stands by like: loss (four planes), counts of top and of sample, code of
 * the tail (two planes), codes of the entries as differences along the row (two planes), ids (as many planes as the
 * vocabulary needs).
 */
static unsigned id_planes(size_t vocab)
{
	return vocab > 1 << 16 ? 3 : 2;
}

static size_t row_entries(const struct baseline_row *r)
{
	return (size_t)r->top + r->sampled;
}

int baseline_encode(const struct baseline_row *rows, size_t n, size_t vocab, struct strbuf *out, struct err *e)
{
	for (unsigned plane = 0; plane < 4; plane++)
		for (size_t i = 0; i < n; i++) {
			uint32_t bits;
			memcpy(&bits, &rows[i].nll, sizeof bits);
			strbuf_putc(out, (char)(bits >> 8 * plane));
		}
	for (size_t i = 0; i < n; i++)
		strbuf_putc(out, (char)rows[i].top);
	for (size_t i = 0; i < n; i++)
		strbuf_putc(out, (char)rows[i].sampled);
	for (unsigned plane = 0; plane < 2; plane++)
		for (size_t i = 0; i < n; i++)
			strbuf_putc(out, (char)(rows[i].tail >> 8 * plane));
	for (unsigned plane = 0; plane < 2; plane++)
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < row_entries(&rows[i]); k++) {
				/* mod 2^16: the sample's order follows buckets, so that a difference can be below zero */
				uint16_t d = (uint16_t)(rows[i].code[k] - (k ? rows[i].code[k - 1] : 0));
				strbuf_putc(out, (char)(d >> 8 * plane));
			}
	for (unsigned plane = 0; plane < id_planes(vocab); plane++)
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < row_entries(&rows[i]); k++)
				strbuf_putc(out, (char)(rows[i].id[k] >> 8 * plane));
	return out->failed ? err_nomem(e) : ERR_OK;
}

static int check_row(const struct baseline_row *r, size_t at, size_t vocab, struct err *e)
{
	for (size_t k = 0; k < row_entries(r); k++)
		if (r->id[k] >= vocab)
			return err_set(e, ERR_INPUT, "row %zu names token %u of a vocabulary of %zu", at, r->id[k], vocab);
	if (!isfinite(r->nll) || r->nll < -1e-3f)
		return err_set(e, ERR_INPUT, "the loss of row %zu makes no sense", at);
	return ERR_OK;
}

int baseline_decode(struct baseline_row *rows, size_t n, size_t vocab, const uint8_t *data, size_t size, struct err *e)
{
	const uint8_t *top, *sampled, *tail, *code, *id;
	size_t entries = 0, at = 0;
	if (size / 8 < n)
		return err_set(e, ERR_INPUT, "%zu bytes are too few for %zu rows", size, n);
	top = data + 4 * n;
	sampled = top + n;
	tail = sampled + n;
	for (size_t i = 0; i < n; i++) {
		if (!top[i] || top[i] > BASELINE_MAX_TOP || top[i] > vocab || sampled[i] > BASELINE_MAX_SAMPLE || (!sampled[i] && top[i] != vocab))
			return err_set(e, ERR_INPUT, "row %zu has %u tokens and %u samples", i, top[i], sampled[i]);
		entries += (size_t)top[i] + sampled[i];
	}
	if (size != 8 * n + entries * (2 + id_planes(vocab)))
		return err_set(e, ERR_INPUT, "%zu bytes do not hold %zu rows of %zu entries", size, n, entries);
	code = tail + 2 * n;
	id = code + 2 * entries;
	for (size_t i = 0; i < n; i++) {
		struct baseline_row *r = &rows[i];
		uint32_t bits = data[i] | (uint32_t)data[n + i] << 8 | (uint32_t)data[2 * n + i] << 16 | (uint32_t)data[3 * n + i] << 24;
		memcpy(&r->nll, &bits, sizeof bits);
		r->top = top[i];
		r->sampled = sampled[i];
		r->tail = (uint16_t)(tail[i] | tail[n + i] << 8);
		uint16_t sum = 0;
		for (size_t k = 0; k < row_entries(r); k++, at++) {
			sum = (uint16_t)(sum + (code[at] | code[entries + at] << 8));
			r->code[k] = sum;
			r->id[k] = id[at] | (uint32_t)id[entries + at] << 8;
			if (id_planes(vocab) > 2)
				r->id[k] |= (uint32_t)id[2 * entries + at] << 16;
		}
		int rc = check_row(r, i, vocab, e);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

/* One window's worth of rows and what the workers need. */
struct job {
	const struct eval_slice *s;
	size_t model;
	struct baseline_row *rows;
	struct baseline_rank *order;  /* [workers, vocab], when saving */
	uint16_t (*entries)[BASELINE_THRESHOLDS];
	double threshold;
	struct measurement *m;        /* when measuring */
	size_t base;
	atomic_size_t bad;            /* 1 + a row whose logits are not finite */
};

static void plan_row(void *arg, size_t i, int worker)
{
	struct job *j = arg;
	const struct eval_slice *s = j->s;
	if (!baseline_row_plan(s->logits[j->model] + i * s->vocab, s->vocab, j->order + (size_t)worker * s->vocab, j->entries[i]))
		atomic_store(&j->bad, i + 1);
}

/* The lowest threshold that the budget allows; the highest when none is allowed. */
static double choose_threshold(const struct job *j, size_t n)
{
	double chosen = baseline_thresholds[0];
	for (unsigned k = 0; k < BASELINE_THRESHOLDS; k++) {
		size_t sum = 0;
		for (size_t i = 0; i < n; i++)
			sum += j->entries[i][k];
		if (sum <= BASELINE_BUDGET * n)
			chosen = baseline_thresholds[k];
	}
	return chosen;
}

static void save_row(void *arg, size_t i, int worker)
{
	struct job *j = arg;
	const struct eval_slice *s = j->s;
	const struct baseline_sampling sampling = { j->threshold, (uint64_t)s->window << 32 | i };
	if (!baseline_row_make(&j->rows[i], s->logits[j->model] + i * s->vocab, s->vocab, s->target[i], &sampling,
			       j->order + (size_t)worker * s->vocab))
		atomic_store(&j->bad, i + 1);
}

static void measure_one(void *arg, size_t i, int worker)
{
	(void)worker;
	struct job *j = arg;
	const struct eval_slice *s = j->s;
	struct row_figures f;
	double variance;
	if (!baseline_row_figures(&j->rows[i], s->logits[j->model] + i * s->vocab, s->vocab, s->target[i], &f, &variance)) {
		atomic_store(&j->bad, i + 1);
		return;
	}
	measurement_put(j->m, j->base + i, &f);
	if (j->m->kl_variance)
		j->m->kl_variance[j->base + i] = (float)variance;
}

int baseline_save_visit(void *arg, const struct eval_slice *s, struct err *e)
{
	const struct baseline_save *a = arg;
	struct job j = { .s = s, .model = a->model };
	struct strbuf raw = { 0 };
	j.rows = calloc(s->n, sizeof *j.rows);
	j.order = calloc((size_t)thread_count() * s->vocab, sizeof *j.order);
	j.entries = calloc(s->n, sizeof *j.entries);
	int rc = j.rows && j.order && j.entries ? ERR_OK : err_nomem(e);
	if (!rc) {
		thread_for(s->n, plan_row, &j);
		j.threshold = choose_threshold(&j, s->n);
	}
	if (!rc && !atomic_load(&j.bad))
		thread_for(s->n, save_row, &j);
	if (!rc && atomic_load(&j.bad))
		rc = measure_bad_logits(s, atomic_load(&j.bad) - 1, e);
	if (!rc)
		rc = baseline_encode(j.rows, s->n, s->vocab, &raw, e);
	if (!rc)
		rc = records_add(a->writer, raw.data, raw.len, e);
	strbuf_release(&raw);
	free(j.rows);
	free(j.order);
	free(j.entries);
	return rc;
}

int baseline_measure_visit(void *arg, const struct eval_slice *s, struct err *e)
{
	const struct baseline_measure *a = arg;
	const struct records *b = a->baseline;
	struct job j = { .s = s, .model = a->model, .m = a->m, .base = (s->window - a->first_window) * s->n };
	uint8_t *raw = NULL;
	j.rows = calloc(s->n, sizeof *j.rows);
	int rc = j.rows ? records_block(b, s->window, &raw, e) : err_nomem(e);
	if (!rc && (rc = baseline_decode(j.rows, s->n, s->vocab, raw, b->block[s->window].raw, e)))
		err_prefix(e, "window %zu", s->window);
	if (rc)
		err_prefix(e, "%s", b->map.path ? b->map.path : "baseline");
	if (!rc)
		thread_for(s->n, measure_one, &j);
	if (!rc && atomic_load(&j.bad))
		rc = measure_bad_logits(s, atomic_load(&j.bad) - 1, e);
	free(raw);
	free(j.rows);
	return rc;
}
