#include "calib/judge/measure.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

int measurement_init(struct measurement *m, size_t windows, size_t scored, bool has_reference, struct err *e)
{
	size_t n = windows * scored;
	*m = (struct measurement){ .windows = windows, .scored = scored, .has_reference = has_reference };
	n = n ? n : 1; /* a part of a run may have no windows */
	m->nll = calloc(n, sizeof *m->nll);
	if (has_reference) {
		m->reference_nll = calloc(n, sizeof *m->reference_nll);
		m->kl = calloc(n, sizeof *m->kl);
		m->same_top = calloc(n, 1);
	}
	if (!m->nll || (has_reference && (!m->reference_nll || !m->kl || !m->same_top))) {
		measurement_release(m);
		return err_nomem(e);
	}
	return ERR_OK;
}

void measurement_release(struct measurement *m)
{
	free(m->nll);
	free(m->reference_nll);
	free(m->kl);
	free(m->same_top);
	free(m->kl_variance);
	free(m->accept);
	*m = (struct measurement){ 0 };
}

unsigned measurement_fields(const struct measurement *m)
{
	return (m->has_reference ? MEASURE_REFERENCE : 0) | (m->kl_variance ? MEASURE_VARIANCE : 0) | (m->accept ? MEASURE_ACCEPT : 0);
}

int measurement_add(struct measurement *m, enum measurement_field field, struct err *e)
{
	float **place = field == MEASURE_VARIANCE ? &m->kl_variance : &m->accept;
	size_t n = m->windows * m->scored;
	*place = calloc(n ? n : 1, sizeof **place);
	return *place ? ERR_OK : err_nomem(e);
}

bool log_sum_exp(const float *x, size_t n, double *lse, size_t *top)
{
	size_t best = 0;
	float poison = 0; /* becomes NaN if any value is NaN or infinite */
	for (size_t i = 0; i < n; i++) {
		poison += x[i] * 0.0f;
		if (x[i] > x[best])
			best = i;
	}
	if (!(poison == 0.0f))
		return false;
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += exp((double)x[i] - x[best]);
	*lse = x[best] + log(sum);
	*top = best;
	return true;
}

bool measure_row(const float *logits, const float *reference, size_t vocab, int32_t target, struct row_figures *out)
{
	double lse, ref_lse;
	size_t top, ref_top;
	*out = (struct row_figures){ 0 };
	if (!log_sum_exp(logits, vocab, &lse, &top))
		return false;
	out->nll = lse - logits[target];
	if (!reference)
		return true;
	if (!log_sum_exp(reference, vocab, &ref_lse, &ref_top))
		return false;
	out->reference_nll = ref_lse - reference[target];
	out->same_top = top == ref_top;
	double kl = 0;
	for (size_t i = 0; i < vocab; i++) {
		double log_p = reference[i] - ref_lse;
		kl += exp(log_p) * (log_p - (logits[i] - lse));
	}
	out->kl = kl > 0 ? kl : 0; /* rounding can take a zero below zero */
	return true;
}

double measure_accept(const float *logits, const float *reference, size_t vocab)
{
	double lse = 0, ref_lse = 0, sum = 0;
	size_t top;
	log_sum_exp(logits, vocab, &lse, &top);
	log_sum_exp(reference, vocab, &ref_lse, &top);
	for (size_t i = 0; i < vocab; i++) {
		double a = logits[i] - lse, b = reference[i] - ref_lse;
		sum += exp(a < b ? a : b);
	}
	return sum < 1 ? sum : 1;
}

void measurement_put(struct measurement *m, size_t at, const struct row_figures *f)
{
	m->nll[at] = (float)f->nll;
	if (m->has_reference) {
		m->reference_nll[at] = (float)f->reference_nll;
		m->kl[at] = (float)f->kl;
		m->same_top[at] = f->same_top;
	}
	if (m->accept)
		m->accept[at] = (float)f->accept;
}

int measure_bad_logits(const struct eval_slice *s, size_t row, struct err *e)
{
	return err_set(e, ERR_GATE, "window %zu: logits at scored position %zu are NaN or infinite", s->window, row);
}

struct rows {
	const struct measure_arg *a;
	const struct eval_slice *s;
	size_t base;
	atomic_size_t bad; /* 1 + a row whose logits are not finite */
};

static void one_row(void *arg, size_t i, int worker)
{
	(void)worker;
	struct rows *r = arg;
	const struct eval_slice *s = r->s;
	struct measurement *m = r->a->m;
	const float *ref = m->has_reference ? s->logits[r->a->reference] + i * s->vocab : NULL;
	struct row_figures f;
	if (!measure_row(s->logits[r->a->model] + i * s->vocab, ref, s->vocab, s->target[i], &f)) {
		atomic_store(&r->bad, i + 1);
		return;
	}
	if (m->accept && ref)
		f.accept = measure_accept(s->logits[r->a->model] + i * s->vocab, ref, s->vocab);
	measurement_put(m, r->base + i, &f);
}

int measure_visit(void *arg, const struct eval_slice *s, struct err *e)
{
	const struct measure_arg *a = arg;
	struct rows r = { .a = a, .s = s, .base = (s->window - a->first_window) * a->m->scored };
	thread_for(s->n, one_row, &r);
	size_t bad = atomic_load(&r.bad);
	return bad ? measure_bad_logits(s, bad - 1, e) : ERR_OK;
}

double clustered_mean(const float *values, size_t windows, size_t scored, double *error)
{
	double mean = 0, squares = 0;
	for (size_t pass = 0; pass < 2; pass++)
		for (size_t w = 0; w < windows; w++) {
			double sum = 0;
			for (size_t i = 0; i < scored; i++)
				sum += values[w * scored + i];
			sum /= (double)scored;
			if (pass == 0)
				mean += sum / (double)windows;
			else
				squares += (sum - mean) * (sum - mean);
		}
	if (error)
		*error = windows > 1 ? sqrt(squares / (double)(windows - 1) / (double)windows) : (double)NAN;
	return mean;
}

static int ascending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static double quantile(const float *sorted, size_t n, double q)
{
	double at = q * (double)(n - 1);
	size_t i = (size_t)at;
	double frac = at - (double)i;
	return i + 1 < n ? sorted[i] * (1 - frac) + sorted[i + 1] * frac : sorted[i];
}

static int against(const struct measurement *m, struct summary *s, struct err *e)
{
	size_t n = s->tokens;
	float *work = calloc(n, sizeof *work);
	if (!work)
		return err_nomem(e);
	s->reference_perplexity = exp(clustered_mean(m->reference_nll, m->windows, m->scored, NULL));
	for (size_t i = 0; i < n; i++)
		work[i] = m->nll[i] - m->reference_nll[i];
	double error;
	s->perplexity_ratio = exp(clustered_mean(work, m->windows, m->scored, &error));
	s->perplexity_ratio_error = s->perplexity_ratio * error;
	s->kl_mean = clustered_mean(m->kl, m->windows, m->scored, &s->kl_mean_error);
	for (size_t i = 0; i < n; i++)
		work[i] = m->same_top[i];
	s->top1 = clustered_mean(work, m->windows, m->scored, &s->top1_error);
	memcpy(work, m->kl, n * sizeof *work);
	qsort(work, n, sizeof *work, ascending);
	s->kl_median = quantile(work, n, 0.5);
	s->kl_p99 = quantile(work, n, 0.99);
	s->kl_max = work[n - 1];
	for (size_t i = 0; m->kl_variance && i < n; i++)
		s->kl_sampling_error += m->kl_variance[i];
	s->kl_sampling_error = sqrt(s->kl_sampling_error) / (double)n;
	free(work);
	return ERR_OK;
}

size_t measurement_by_position(const struct measurement *m, struct position_bin *bin, size_t bins)
{
	if (bins > m->scored)
		bins = m->scored;
	for (size_t b = 0; b < bins; b++) {
		size_t from = b * m->scored / bins, to = (b + 1) * m->scored / bins;
		double mean = 0, squares = 0;
		for (int pass = 0; pass < 2; pass++)
			for (size_t w = 0; w < m->windows; w++) {
				double sum = 0;
				for (size_t i = from; i < to; i++)
					sum += m->kl[w * m->scored + i];
				sum /= (double)(to - from);
				if (pass)
					squares += (sum - mean) * (sum - mean);
				else
					mean += sum / (double)m->windows;
			}
		double n = (double)m->windows;
		bin[b] = (struct position_bin){ from, to, mean, n > 1 ? sqrt(squares / (n - 1) / n) : (double)NAN };
	}
	return bins;
}

int measurement_summary(const struct measurement *m, struct summary *s, struct err *e)
{
	size_t n = m->windows * m->scored;
	*s = (struct summary){ .tokens = n, .windows = m->windows };
	double sum = 0, squares = 0;
	for (size_t i = 0; i < n; i++) {
		sum += m->nll[i];
		squares += (double)m->nll[i] * m->nll[i];
	}
	double mean = sum / (double)n, var = squares / (double)n - mean * mean;
	s->perplexity = exp(mean);
	s->perplexity_error = n > 1 ? s->perplexity * sqrt((var > 0 ? var : 0) / (double)(n - 1)) : (double)NAN;
	return m->has_reference ? against(m, s, e) : ERR_OK;
}
