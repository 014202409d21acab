#include "calib/judge/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "kernel/kernel.h"

static double tokens_in_order(const struct measurement *m, unsigned length)
{
	double sum = 0;
	size_t starts = 0;
	for (size_t w = 0; w < m->windows; w++)
		for (size_t i = 0; i + length <= m->scored; i++, starts++) {
			double all = 1;
			sum += 1;
			for (unsigned k = 0; k < length; k++)
				sum += all *= m->accept[w * m->scored + i + k];
		}
	return starts ? sum / (double)starts : (double)NAN;
}

void draft_summarise(const struct measurement *m, unsigned from, unsigned count, double cost, struct draft_summary *s,
		     struct draft_row *rows)
{
	*s = (struct draft_summary){ .cost = cost };
	s->acceptance = clustered_mean(m->accept, m->windows, m->scored, &s->acceptance_error);
	double a = s->acceptance;
	for (unsigned i = 0; i < count; i++) {
		struct draft_row *r = &rows[i];
		r->length = from + i;
		r->tokens_iid = a < 1 ? (1 - pow(a, r->length + 1)) / (1 - a) : r->length + 1;
		r->tokens = tokens_in_order(m, r->length);
		r->speedup = r->tokens / (r->length * cost + 1);
		if (r->speedup > rows[s->best].speedup)
			s->best = i;
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int decode_seconds(struct model *m, const int32_t *tokens, size_t n, double *seconds, struct err *e)
{
	enum { ROUNDS = 5 };
	const struct config *c = model_config(m);
	struct model_run *run = model_run_new(m, 1, 1, e);
	struct kv_cache *cache = run ? kv_cache_new_in(c, n, model_kv(m), e) : NULL;
	float *hidden = cache ? malloc((c->hidden + (size_t)c->vocab) * sizeof *hidden) : NULL;
	int rc = hidden ? ERR_OK : cache ? err_nomem(e) : e->code;
	*seconds = INFINITY;
	for (int round = 0; round < ROUNDS && !rc; round++) {
		double start = now();
		kv_cache_truncate(cache, 0);
		for (size_t i = 0; i < n && !rc; i++) {
			rc = model_forward(run, tokens + i, &(struct model_batch){ 1, 1, cache, NULL }, hidden, e);
			if (!rc)
				rc = model_logits(run, hidden, 1, hidden + c->hidden, e);
		}
		*seconds = fmin(*seconds, (now() - start) / (double)n);
	}
	free(hidden);
	kv_cache_free(cache);
	model_run_free(run);
	return rc;
}

/* Ordinary tokens: no control, byte or unused ones. */
static size_t ordinary(const struct tokenizer *t, size_t vocab, int32_t *out)
{
	size_t n = 0;
	for (size_t i = 0; i < vocab && i < tokenizer_size(t); i++)
		if (tokenizer_type(t, (int32_t)i) == TOKEN_NORMAL && tokenizer_piece(t, (int32_t)i, NULL))
			out[n++] = (int32_t)i;
	return n;
}

int copy_test(struct model *const *models, size_t count, const struct tokenizer *t, size_t ctx, struct copy_figures *out, struct err *e)
{
	enum { SEED = 1 };
	const size_t windows = 8;
	size_t vocab = model_config(models[0])->vocab, bos = tokenizer_bos(t) >= 0, half = (ctx - bos) / 2, len = bos + 2 * half;
	struct windows w = { .count = windows, .ctx = len };
	struct measurement m = { 0 };
	struct rng r = { SEED };
	*out = (struct copy_figures){ .windows = windows, .length = half };
	if (half < 2)
		return err_set(e, ERR_USAGE, "a context of %zu is too short for the copy test", ctx);
	int32_t *pool = malloc(vocab * sizeof *pool);
	w.tokens = malloc(windows * len * sizeof *w.tokens);
	int rc = pool && w.tokens ? measurement_init(&m, windows, windows_scored(&w), count > 1, e) : err_nomem(e);
	size_t n = rc ? 1 : ordinary(t, vocab, pool);
	if (!n)
		rc = err_set(e, ERR_UNSUPPORTED, "the vocabulary has no ordinary tokens for the copy test");
	for (size_t k = 0; k < windows && !rc; k++) {
		int32_t *at = w.tokens + k * len;
		if (bos)
			*at++ = tokenizer_bos(t);
		for (size_t i = 0; i < half; i++)
			at[i] = at[half + i] = pool[rng_below(&r, n)];
	}
	struct measure_arg arg = { .m = &m, .reference = 1 };
	if (!rc)
		rc = evaluate(&(struct evaluation){ .models = models, .count = count, .windows = &w, .to = windows, .visit = measure_visit,
						    .arg = &arg }, e);
	for (size_t k = 0; k < windows && !rc; k++)
		for (size_t i = 0; i < m.scored; i++) {
			/* row i scores token i + 1; the second copy's first token cannot be known to be one */
			bool second = i + 1 > bos + half;
			size_t of = second ? half - 1 : m.scored - (half - 1);
			double weight = 1 / (double)(of * windows);
			*(second ? &out->second : &out->first) += weight * m.nll[k * m.scored + i];
			if (count > 1)
				*(second ? &out->reference_second : &out->reference_first) += weight * m.reference_nll[k * m.scored + i];
		}
	measurement_release(&m);
	free(w.tokens);
	free(pool);
	return rc;
}

static void compare_rows(const float *a, const float *b, size_t n, size_t vocab, struct decode_figures *out)
{
	double difference = 0, scale = 0;
	for (size_t i = 0; i < n; i++) {
		struct row_figures f;
		if (!measure_row(b + i * vocab, a + i * vocab, vocab, 0, &f)) {
			out->relative_error = out->kl_max = INFINITY;
			return;
		}
		out->kl_max = f.kl > out->kl_max ? f.kl : out->kl_max;
		for (size_t k = i * vocab; k < (i + 1) * vocab; k++) {
			difference = fmax(difference, fabs((double)a[k] - b[k]));
			scale = fmax(scale, fabs((double)a[k]));
		}
	}
	out->relative_error = scale > 0 ? difference / scale : difference;
}

int decode_check(struct model *m, const int32_t *tokens, size_t n, struct decode_figures *out, struct err *e)
{
	const struct config *c = model_config(m);
	size_t vocab = c->vocab;
	*out = (struct decode_figures){ .tokens = n };
	struct model_run *run = model_run_new(m, 1, n, e);
	struct kv_cache *cache = run ? kv_cache_new_in(c, n, model_kv(m), e) : NULL;
	if (!cache) {
		model_run_free(run);
		return e->code;
	}
	float *hidden = malloc(n * c->hidden * sizeof *hidden);
	float *prefill = malloc(n * vocab * sizeof *prefill), *decoded = malloc(n * vocab * sizeof *decoded);
	int rc = hidden && prefill && decoded ? model_forward(run, tokens, &(struct model_batch){ 1, n, NULL, NULL }, hidden, e) : err_nomem(e);
	if (!rc)
		rc = model_logits(run, hidden, n, prefill, e);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = model_forward(run, tokens + i, &(struct model_batch){ 1, 1, cache, NULL }, hidden, e);
		if (!rc)
			rc = model_logits(run, hidden, 1, decoded + i * vocab, e);
	}
	if (!rc)
		compare_rows(prefill, decoded, n, vocab, out);
	out->agree = out->relative_error < DECODE_TOLERANCE;
	free(hidden);
	free(prefill);
	free(decoded);
	kv_cache_free(cache);
	model_run_free(run);
	return rc;
}

/* Some other row that this machine can run; scalar comes first. */
static const char *other_kernels(void)
{
	const struct kernels *k;
	for (unsigned i = 0; (k = kernels_row(i)); i++)
		if (k != kernels() && (!k->usable || k->usable()))
			return k->name;
	return kernels()->name;
}

int noise_measure(struct model *m, const struct windows *w, size_t windows, struct noise_figures *out, struct err *e)
{
	*out = (struct noise_figures){ .kernels = kernels()->name, .other_kernels = other_kernels(),
				       .windows = windows < w->count ? windows : w->count };
	struct model *models[2] = { m, m };
	struct eval_variant variants[2] = { { out->other_kernels, true }, { NULL, false } };
	struct measurement figures;
	struct measure_arg arg = { .m = &figures, .model = 0, .reference = 1 };
	int rc = measurement_init(&figures, out->windows, windows_scored(w), true, e);
	if (!rc)
		rc = evaluate(&(struct evaluation){ .models = models, .count = 2, .variants = variants, .windows = w, .to = out->windows,
						    .visit = measure_visit, .arg = &arg }, e);
	if (!rc)
		rc = measurement_summary(&figures, &out->summary, e);
	measurement_release(&figures);
	return rc;
}
