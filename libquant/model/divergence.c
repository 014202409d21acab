#include "model/divergence.h"

#include <math.h>
#include <stdlib.h>

#include "base/thread.h"
#include "kernel/kernel.h"
#include "kernel/product.h"
#include "model/model_impl.h"
#include "model/norm.h"
#include "model/weight.h"

/* Tokens whose logits are held at once. */
enum { HEAD_TOKENS = 64 };

struct divergence {
	const struct model *m;
	const struct config *c;
	size_t tokens, stride;
	int workers;
	float *head;                     /* [vocab, hidden] */
	float *logits;                   /* per worker: [2, HEAD_TOKENS, vocab], [2, HEAD_TOKENS, hidden], [2, vocab] */
	double *kl;                      /* per piece of work */
};

static size_t stride_of(const struct config *c)
{
	return 2 * ((size_t)HEAD_TOKENS * ((size_t)c->vocab + c->hidden) + c->vocab);
}

uint64_t divergence_memory(const struct config *c, size_t tokens)
{
	return 4 * ((uint64_t)c->vocab * c->hidden + (uint64_t)thread_count() * stride_of(c)) + 8 * (tokens / HEAD_TOKENS + 1);
}

int divergence_new(const struct model *m, size_t tokens, struct divergence **out, struct err *e)
{
	const struct config *c = model_config(m);
	struct divergence *f = *out = calloc(1, sizeof *f);
	if (!f)
		return err_nomem(e);
	*f = (struct divergence){ .m = m, .c = c, .tokens = tokens, .workers = thread_count(), .stride = stride_of(c) };
	f->head = malloc((size_t)c->vocab * c->hidden * sizeof *f->head);
	f->logits = malloc((size_t)f->workers * f->stride * sizeof *f->logits);
	f->kl = calloc(tokens / HEAD_TOKENS + 1, sizeof *f->kl);
	if (!f->head || !f->logits || !f->kl) {
		divergence_free(f);
		*out = NULL;
		return err_nomem(e);
	}
	for (size_t i = 0; i < c->vocab; i++)
		weight_row(model_head(m), i, f->head + i * c->hidden);
	float scale = config_logit_scale(c);
	for (size_t i = 0; scale != 1 && i < (size_t)c->vocab * c->hidden; i++)
		f->head[i] *= scale;
	return ERR_OK;
}

void divergence_free(struct divergence *f)
{
	if (!f)
		return;
	free(f->head);
	free(f->logits);
	free(f->kl);
	free(f);
}

struct head_work {
	struct divergence *f;
	const struct divergence_batch *b;
};

/* Logits become what the cap makes of them; slope (may be NULL) gets its derivative. */
static void cap(float softcap, float *x, float *slope, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float c = tanhf(x[i] / softcap);
		x[i] = softcap * c;
		if (slope)
			slope[i] = 1 - c * c;
	}
}

/* KL(t || s) of one token; s becomes its gradient by s, times scale. Logits [vocab]. */
static double one_token(float *t, float *s, float *difference, size_t vocab, float scale)
{
	const struct kernels *k = kernels();
	float max_t = k->max(t, vocab), max_s = k->max(s, vocab);
	for (size_t i = 0; i < vocab; i++)
		difference[i] = t[i] - s[i];
	float sum_t = k->exp_sum(t, max_t, vocab), sum_s = k->exp_sum(s, max_s, vocab);
	double kl = 0;
	for (size_t i = 0; i < vocab; i++)
		kl += (double)t[i] * difference[i];
	for (size_t i = 0; i < vocab; i++)
		s[i] = scale * (s[i] / sum_s - t[i] / sum_t);
	return kl / (double)sum_t - (double)max_t - log((double)sum_t) + (double)max_s + log((double)sum_s);
}

static double capped_token(float softcap, float *t, float *s, float *rows, size_t vocab, float scale)
{
	float *slope = rows + vocab;
	cap(softcap, t, NULL, vocab);
	cap(softcap, s, slope, vocab);
	double kl = one_token(t, s, rows, vocab, scale);
	for (size_t i = 0; i < vocab; i++)
		s[i] *= slope[i];
	return kl;
}

static void head_item(void *arg, size_t item, int worker)
{
	const struct head_work *h = arg;
	struct divergence *f = h->f;
	const struct config *c = f->c;
	size_t at = item * HEAD_TOKENS, n = h->b->n - at < HEAD_TOKENS ? h->b->n - at : HEAD_TOKENS, vocab = c->vocab, width = c->hidden;
	float *t = f->logits + (size_t)worker * f->stride, *s = t + HEAD_TOKENS * vocab, *x = s + HEAD_TOKENS * vocab;
	float *y = x + HEAD_TOKENS * width, *rows = y + HEAD_TOKENS * width;
	model_final_norm(f->m, h->b->teacher + at * width, y, n);
	model_final_norm(f->m, h->b->student + at * width, x, n);
	product_gemm(false, true, n, vocab, width, 1, y, width, f->head, width, 0, t, vocab);
	product_gemm(false, true, n, vocab, width, 1, x, width, f->head, width, 0, s, vocab);
	double kl = 0;
	const float *bias = model_vector(f->m, ROLE_HEAD_BIAS, UINT32_MAX);
	for (size_t i = 0; bias && i < n; i++) {
		kernels()->axpy(t + i * vocab, 1, bias, vocab);
		kernels()->axpy(s + i * vocab, 1, bias, vocab);
	}
	for (size_t i = 0; i < n; i++)
		kl += c->final_softcap > 0 ? capped_token(c->final_softcap, t + i * vocab, s + i * vocab, rows, vocab, h->b->scale)
					   : one_token(t + i * vocab, s + i * vocab, rows, vocab, h->b->scale);
	f->kl[item] = kl;
	if (!h->b->d)
		return;
	float *d = h->b->d + at * width;
	product_gemm(false, false, n, width, vocab, 1, s, vocab, f->head, width, 0, d, width);
	struct norm norm = { .kind = c->arch->norm, .weight = model_vector(f->m, ROLE_FINAL_NORM, UINT32_MAX), .n = width, .eps = c->norm_eps };
	for (size_t i = 0; i < n; i++)
		norm_row_back(&norm, h->b->student + (at + i) * width, d + i * width);
}

int divergence_run(struct divergence *f, const struct divergence_batch *b, double *kl, struct err *e)
{
	struct head_work h = { f, b };
	size_t items = (b->n + HEAD_TOKENS - 1) / HEAD_TOKENS;
	if (b->n > f->tokens || thread_count() > f->workers)
		return err_set(e, ERR_BUG, "more tokens or workers than the divergence has room for");
	thread_for(items, head_item, &h);
	*kl = 0;
	for (size_t i = 0; i < items; i++)
		*kl += f->kl[i];
	return ERR_OK;
}
