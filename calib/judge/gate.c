#include "calib/judge/gate.h"

#include <math.h>
#include <stdlib.h>

static double loss(const struct measurement *m, size_t i)
{
	return m->nll[i];
}

/* paired: what both models find hard cancels */
static double loss_added(const struct measurement *m, size_t i)
{
	return (double)m->nll[i] - m->reference_nll[i];
}

static double divergence(const struct measurement *m, size_t i)
{
	return m->kl[i];
}

static double agreement(const struct measurement *m, size_t i)
{
	return m->same_top[i];
}

const struct gate_row gate_rows[GATE_COUNT] = {
	[GATE_PPL] = { "perplexity", "max-ppl", "perplexity", false, false, true, 0, loss },
	[GATE_PPL_RATIO] = { "perplexity_ratio", "max-ppl-ratio", "perplexity ratio", false, true, true, 0, loss_added },
	[GATE_KL] = { "kl_mean", "max-kl", "mean KL", false, true, false, 0, divergence },
	[GATE_KL_P99] = { "kl_p99", "max-kl-p99", "99th percentile of KL", false, true, false, 0.99, divergence },
	[GATE_TOP1] = { "top1", "min-top1", "same top token", true, true, false, 0, agreement },
};
const char *const gate_verdict_names[] = { [GATE_PASS] = "pass", [GATE_FAIL] = "fail", [GATE_UNDECIDED] = "undecided" };


static int of_means(const struct measurement *m, const struct gate_row *row, double confidence, struct interval *out, struct err *e)
{
	double *mean = calloc(m->windows ? m->windows : 1, sizeof *mean);
	if (!mean)
		return err_nomem(e);
	for (size_t w = 0; w < m->windows; w++) {
		for (size_t i = 0; i < m->scored; i++)
			mean[w] += row->value(m, w * m->scored + i);
		mean[w] /= (double)m->scored;
	}
	int rc = interval_mean(mean, m->windows, confidence, out, e);
	free(mean);
	return rc;
}

int gate_interval(const struct measurement *m, enum gate_metric metric, double confidence, struct interval *out, struct err *e)
{
	const struct gate_row *row = &gate_rows[metric];
	if (row->quantile > 0)
		return interval_quantile(&(struct window_values){ m->kl, m->windows, m->scored }, row->quantile, confidence, out, e);
	int rc = of_means(m, row, confidence, out, e);
	if (!rc && row->logarithm) {
		/* means of logarithms; bounds map through exp as they are */
		out->estimate = exp(out->estimate);
		out->error *= out->estimate;
		out->lower = exp(out->lower);
		out->upper = exp(out->upper);
	}
	return rc;
}

/* Bounds close in with the square root of the windows. */
static size_t windows_needed(const struct gate_result *g, size_t windows)
{
	const struct interval *v = &g->interval;
	double gap = g->limit - v->estimate, width = gap > 0 ? v->upper - v->estimate : v->estimate - v->lower;
	double n = gap != 0 && width > 0 ? ceil((double)windows * (width / gap) * (width / gap)) + 1 : 0;
	return n > 0 && n < 1e12 ? (size_t)n : 0;
}

int gate_decide(const struct measurement *m, enum gate_metric metric, double limit, double confidence, struct gate_result *out,
		struct err *e)
{
	const struct gate_row *row = &gate_rows[metric];
	*out = (struct gate_result){ .metric = metric, .limit = limit };
	if (row->reference && !m->has_reference)
		return err_set(e, ERR_USAGE, "--%s compares with a reference; add --against REF or --baseline FILE", row->option);
	int rc = gate_interval(m, metric, confidence, &out->interval, e);
	const struct interval *v = &out->interval;
	bool inside = row->minimum ? v->lower >= limit : v->upper <= limit;
	bool outside = row->minimum ? v->upper < limit : v->lower > limit;
	/* one window: the bounds are NaN and nothing is decided */
	out->verdict = inside ? GATE_PASS : outside ? GATE_FAIL : GATE_UNDECIDED;
	if (out->verdict == GATE_UNDECIDED)
		out->windows_needed = m->windows < 2 ? 8 : windows_needed(out, m->windows);
	return rc;
}
