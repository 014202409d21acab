#include "calib/judge/interval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { RESAMPLES = 2000, RESAMPLES_QUANTILE = 500 };
/* Windows: fewer than FEW say nothing about the shape of their distribution; MANY leave nothing of it in the mean. */
enum { FEW = 8, MANY = 1000 };

/* Continued fraction of the incomplete beta function (Lentz; DLMF 8.17.22). */
static double beta_fraction(double a, double b, double x)
{
	const double tiny = 1e-300;
	double c = 1, d = 1 - (a + b) * x / (a + 1);
	d = 1 / (fabs(d) < tiny ? tiny : d);
	double f = d;
	for (int i = 1; i < 500; i++) {
		double m = i, term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
		d = 1 + term * d;
		c = 1 + term / c;
		d = 1 / (fabs(d) < tiny ? tiny : d);
		f *= d * c;
		term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
		d = 1 + term * d;
		c = 1 + term / c;
		d = 1 / (fabs(d) < tiny ? tiny : d);
		f *= d * c;
		if (fabs(d * c - 1) < 1e-14)
			break;
	}
	return f;
}

/* P(T > t), t >= 0: half of I_x(dof/2, 1/2) with x = dof / (dof + t^2). */
double student_tail(double t, double dof)
{
	double x = dof / (dof + t * t), a = dof / 2, b = 0.5;
	double front = exp(a * log(x) + b * log1p(-x) - (lgamma(a) + lgamma(b) - lgamma(a + b)));
	double beta = x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
	return t > 0 ? beta / 2 : 0.5;
}

double student_quantile(double p, double dof)
{
	double low = 0, high = 1;
	while (student_tail(high, dof) > 1 - p && high < 1e12)
		high *= 2;
	for (int i = 0; i < 200; i++) {
		double middle = (low + high) / 2;
		if (student_tail(middle, dof) > 1 - p)
			low = middle;
		else
			high = middle;
	}
	return (low + high) / 2;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void mean_error(const double *x, size_t n, double *mean, double *error)
{
	double sum = 0, squares = 0;
	for (size_t i = 0; i < n; i++)
		sum += x[i];
	*mean = sum / (double)n;
	for (size_t i = 0; i < n; i++)
		squares += (x[i] - *mean) * (x[i] - *mean);
	*error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : (double)NAN;
}

/* The p-quantile of sorted values, rounded outward. */
static double tail_of(const double *sorted, size_t n, double p)
{
	double at = p * (double)(n - 1);
	return sorted[(size_t)(p < 0.5 ? floor(at) : ceil(at))];
}

/* A resample of one value many times has no error: its ratio counts as the farthest on its side. */
static double ratio(double mean, double truth, double error, double scale)
{
	if (error > 1e-12 * scale)
		return (mean - truth) / error;
	return mean < truth ? -1e9 : 1e9;
}

static void resample(const double *x, size_t n, const struct interval *v, double *student, int count, double *draw)
{
	struct rng r = { 0x5eed };
	for (int b = 0; b < count; b++) {
		double mean, error;
		for (size_t i = 0; i < n; i++)
			draw[i] = x[rng_below(&r, n)];
		mean_error(draw, n, &mean, &error);
		student[b] = ratio(mean, v->estimate, error, v->error);
	}
	qsort(student, (size_t)count, sizeof *student, ascending);
}

/* The same ratio for samples of a log-normal distribution that varies as much as the values do. */
static void resample_long(size_t n, double variation, double *student, int count, double *draw)
{
	struct rng r = { 0x10c };
	double sigma = sqrt(log1p(variation * variation)), truth = exp(sigma * sigma / 2);
	for (int b = 0; b < count; b++) {
		double mean, error;
		for (size_t i = 0; i < n; i++)
			draw[i] = exp(sigma * rng_normal(&r));
		mean_error(draw, n, &mean, &error);
		student[b] = ratio(mean, truth, error, truth);
	}
	qsort(student, (size_t)count, sizeof *student, ascending);
}

static int mean_bounds(const double *x, size_t n, double confidence, int resamples, struct interval *out, struct err *e)
{
	*out = (struct interval){ .lower = (double)NAN, .upper = (double)NAN };
	mean_error(x, n, &out->estimate, &out->error);
	if (n < 2)
		return ERR_OK;
	double t = student_quantile(confidence, (double)(n - 1)), least = 0;
	out->lower = out->estimate - t * out->error;
	out->upper = out->estimate + t * out->error;
	for (size_t i = 0; i < n; i++)
		least = fmin(least, x[i]);
	/* with few windows the ratio of a resample can be anything: then t is what there is */
	if (!(out->error > 0) || n < FEW)
		return ERR_OK;
	double *draw = malloc((n + (size_t)resamples) * sizeof *draw), *student = draw + n;
	if (!draw)
		return err_nomem(e);
	resample(x, n, out, student, resamples, draw);
	double low = tail_of(student, (size_t)resamples, 1 - confidence), high = tail_of(student, (size_t)resamples, confidence);
	if (least >= 0 && n < MANY) {
		resample_long(n, out->error * sqrt((double)n) / out->estimate, student, resamples / 2, draw);
		double further = tail_of(student, (size_t)resamples / 2, 1 - confidence);
		low = further > -50 ? fmin(low, further) : low;
	}
	if (low > -50)
		out->upper = fmax(out->upper, out->estimate - low * out->error);
	if (high < 50)
		out->lower = fmin(out->lower, out->estimate - high * out->error);
	free(draw);
	return ERR_OK;
}

int interval_mean(const double *x, size_t n, double confidence, struct interval *out, struct err *e)
{
	return mean_bounds(x, n, confidence, RESAMPLES, out, e);
}

struct ranked {
	float value;
	uint32_t window;
};

static int falling(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->value != y->value)
		return x->value < y->value ? 1 : -1;
	return (x->window > y->window) - (x->window < y->window);
}

/* Interpolates as measure.c's quantiles do, in values sorted from the largest and counted as often as their window. */
static double weighted_quantile(const struct ranked *s, size_t n, const uint32_t *weight, size_t total, double q)
{
	double at = (1 - q) * (double)(total - 1), frac = at - floor(at);
	size_t want = (size_t)at, seen = 0;
	for (size_t i = 0; i < n; i++) {
		size_t next = seen + weight[s[i].window];
		if (next > want) {
			if (next > want + 1 || frac == 0)
				return s[i].value;
			size_t k = i + 1;
			while (k < n && !weight[s[k].window])
				k++;
			return k < n ? s[i].value * (1 - frac) + s[k].value * frac : s[i].value;
		}
		seen = next;
	}
	return n ? s[n - 1].value : 0;
}

/*
 * The largest value that may be the quantile: by the bound of the mean of windows' shares above it, those that are above
 * the quantile being 1 - q. s is sorted from the largest.
 */
static int largest_quantile(const struct ranked *s, const struct window_values *of, double q, double confidence, double *out,
			    struct err *e)
{
	size_t windows = of->windows, scored = of->scored;
	double *share = malloc(windows * sizeof *share);
	size_t low = 0, high = (size_t)((1 - q) * (double)(windows * scored)) + 1; /* how many are above */
	int rc = share ? ERR_OK : err_nomem(e);
	while (low < high && !rc) {
		size_t above = (low + high) / 2;
		size_t touched = 0;
		struct interval v;
		memset(share, 0, windows * sizeof *share);
		for (size_t i = 0; i < above; i++) {
			touched += share[s[i].window] == 0;
			share[s[i].window] += 1 / (double)scored;
		}
		rc = mean_bounds(share, windows, confidence, RESAMPLES_QUANTILE, &v, e);
		/* so few windows that other samples would have had none of them: their shares bound nothing */
		if ((double)touched < -log(1 - confidence) || v.upper >= 1 - q)
			high = above;
		else
			low = above + 1;
	}
	free(share);
	*out = s[low < windows * scored ? low : windows * scored - 1].value;
	return rc;
}

int interval_quantile(const struct window_values *v, double q, double confidence, struct interval *out, struct err *e)
{
	size_t windows = v->windows, scored = v->scored, n = windows * scored;
	*out = (struct interval){ .error = (double)NAN, .lower = (double)NAN, .upper = (double)NAN };
	struct ranked *s = malloc((n ? n : 1) * sizeof *s);
	uint32_t *weight = calloc(windows ? windows : 1, sizeof *weight);
	double boot[RESAMPLES_QUANTILE], most = 0;
	int rc = ERR_OK;
	if (!s || !weight) {
		free(s);
		free(weight);
		return err_nomem(e);
	}
	for (size_t i = 0; i < n; i++)
		s[i] = (struct ranked){ v->values[i], (uint32_t)(i / scored) };
	qsort(s, n, sizeof *s, falling);
	for (size_t w = 0; w < windows; w++)
		weight[w] = 1;
	out->estimate = weighted_quantile(s, n, weight, n, q);
	struct rng r = { 0x5eed };
	for (int b = 0; b < RESAMPLES_QUANTILE && windows > 1; b++) {
		memset(weight, 0, windows * sizeof *weight);
		for (size_t w = 0; w < windows; w++)
			weight[rng_below(&r, windows)]++;
		boot[b] = weighted_quantile(s, n, weight, n, q);
	}
	if (windows > 1) {
		double mean;
		qsort(boot, RESAMPLES_QUANTILE, sizeof *boot, ascending);
		mean_error(boot, RESAMPLES_QUANTILE, &mean, &out->error);
		out->error *= sqrt((double)RESAMPLES_QUANTILE);
		double tail = (1 - confidence) * (RESAMPLES_QUANTILE - 1);
		/* percentiles of resamples are too narrow at the far end; Student's t with the resamples' spread is not */
		double t = student_quantile(confidence, (double)(windows - 1)) * out->error;
		out->lower = fmin(boot[(size_t)tail], out->estimate - t);
		rc = windows < FEW ? ERR_OK : largest_quantile(s, v, q, confidence, &most, e);
		out->upper = fmax(fmax(boot[(size_t)ceil(RESAMPLES_QUANTILE - 1 - tail)], out->estimate + t), most);
	}
	free(s);
	free(weight);
	return rc;
}
