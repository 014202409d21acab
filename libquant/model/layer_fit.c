#include "model/layer_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"
#include "model/graph.h"
#include "model/model_impl.h"
#include "model/rms.h"
#include "model/rope.h"
#include "model/weight.h"

/* Rows of a weight's gradient that one item takes; tokens whose logits are held at once. */
enum { GRADIENT_ROWS = 64, HEAD_TOKENS = 64 };

struct layer_fit {
	const struct model *m;
	const struct config *c;
	size_t seqs, ctx;
	struct phase_table phases;
	float *q_norm, *k_norm;          /* [head_dim], plus one where the architecture adds it */
	struct attention_fit attention;
	float *x;                        /* [tokens, hidden + 1]: the attention's input, its last column 1 where there are biases */
	float *middle, *z;               /* [tokens, hidden]: residual stream between the halves; the feed-forward's input */
	float *dy;                       /* [tokens, hidden]: the gradient by the layer's output */
	float *dx;                       /* [tokens, hidden + 1] */
	float *gate, *up, *act, *slope, *d; /* [tokens, ffn] */
	float *head;                     /* [vocab, hidden] */
	float *logits;                   /* per worker: [2, HEAD_TOKENS, vocab], [2, HEAD_TOKENS, hidden], [vocab] */
	size_t stride;
	int workers;
	double *kl;                      /* per piece of the head's work */
};

const char *layer_fit_refusal(const struct config *c)
{
	struct block b;
	if (c->arch->norm == NORM_LAYER)
		return "layer norms";
	for (uint32_t i = 0; i < c->layers; i++) {
		block_make(c, i, &b);
		if (b.parts < 2)
			return "layers whose halves run in parallel";
		if (!block_adds(&b, ROLE_O) || !block_adds(&b, ROLE_DOWN) || c->final_softcap > 0 || !block_has(&b, 0, OP_GLU))
			return "norms after a half, capped logits or a feed-forward without gate";
		if (c->layer[i].kv_source != i)
			return "layers that share KV";
	}
	return NULL;
}

static size_t head_stride(const struct config *c)
{
	return 2 * (size_t)HEAD_TOKENS * ((size_t)c->vocab + c->hidden) + c->vocab;
}

uint64_t layer_fit_memory(const struct config *c, size_t seqs, size_t ctx)
{
	uint64_t n = (uint64_t)seqs * ctx, heads = (uint64_t)c->heads * c->head_dim, threads = (uint64_t)thread_count();
	return 4 * (n * (5 * ((uint64_t)c->hidden + 1) + 5 * config_widths(c).ffn + 10 * heads) + (uint64_t)c->vocab * c->hidden +
		    threads * (head_stride(c) + 3 * (uint64_t)ctx * ctx));
}

static float *room(size_t n, bool *ok)
{
	float *p = malloc((n ? n : 1) * sizeof *p);
	*ok &= p != NULL;
	return p;
}

static float *head_norm(const struct layer_fit *f, enum role r, uint32_t layer, float *out)
{
	const float *w = model_vector(f->m, r, layer);
	for (size_t i = 0; w && i < f->c->head_dim; i++)
		out[i] = w[i] + (f->c->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0);
	return w ? out : NULL;
}

int layer_fit_new(const struct model *m, size_t seqs, size_t ctx, struct layer_fit **out, struct err *e)
{
	const struct config *c = model_config(m);
	struct layer_fit *f = *out = calloc(1, sizeof *f);
	size_t n = seqs * ctx, ffn = config_widths(c).ffn;
	bool ok = true;
	if (!f)
		return err_nomem(e);
	*f = (struct layer_fit){ .m = m, .c = c, .seqs = seqs, .ctx = ctx, .workers = thread_count(), .stride = head_stride(c) };
	f->q_norm = room(c->head_dim, &ok);
	f->k_norm = room(c->head_dim, &ok);
	f->x = room(n * (c->hidden + 1), &ok);
	f->dx = room(n * (c->hidden + 1), &ok);
	f->dy = room(n * c->hidden, &ok);
	f->z = room(n * c->hidden, &ok);
	f->middle = room(n * c->hidden, &ok);
	f->gate = room(n * ffn, &ok);
	f->up = room(n * ffn, &ok);
	f->act = room(n * ffn, &ok);
	f->slope = room(n * ffn, &ok);
	f->d = room(n * ffn, &ok);
	f->head = room((size_t)c->vocab * c->hidden, &ok);
	f->logits = room((size_t)f->workers * f->stride, &ok);
	f->kl = calloc(n / HEAD_TOKENS + 1, sizeof *f->kl);
	if (!ok || !f->kl || phase_table_fill(&f->phases, m, 0, ctx, e)) {
		layer_fit_free(f);
		*out = NULL;
		return err_nomem(e);
	}
	for (size_t i = 0; i < c->vocab; i++)
		weight_row(model_head(m), i, f->head + i * c->hidden);
	return ERR_OK;
}

void layer_fit_free(struct layer_fit *f)
{
	if (!f)
		return;
	float *all[] = { f->q_norm, f->k_norm, f->x, f->dy, f->z, f->middle, f->dx, f->gate, f->up,
			 f->act, f->slope, f->d, f->head, f->logits };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	phase_table_release(&f->phases);
	attention_fit_release(&f->attention);
	free(f->kl);
	free(f);
}

/* What every piece of work on a batch looks at; an item is a sequence, or a slice of a gradient. */
struct step {
	struct layer_fit *f;
	const struct layer_weights *w;
	struct layer_weights *grad;
	uint32_t layer;
	size_t n, hidden, ffn;           /* tokens of a sequence; sizes of this layer */
	size_t seqs;
	const float *in;                 /* [tokens, hidden] the layer's input */
	float *out;                      /* its output, or the gradient by it */
	const float *y;                  /* what attention put out */
};

static struct step step_of(struct layer_fit *f, uint32_t layer, const struct layer_weights *w, size_t seqs)
{
	return (struct step){ .f = f, .w = w, .layer = layer, .n = f->ctx, .hidden = f->c->hidden, .ffn = f->c->layer[layer].ffn,
			      .seqs = seqs };
}

/* Layers of one shape share the room that attention needs. */
static int attention_for(struct layer_fit *f, uint32_t layer, const struct attention_weights *w, struct err *e)
{
	const struct layer_config *l = &f->c->layer[layer];
	struct attention_fit *a = &f->attention;
	struct phases phases = phases_of(&f->phases, layer);
	const struct attention_weights *had = &a->shape;
	bool fits = a->work && had->heads == w->heads && had->kv_heads == w->kv_heads && had->cols == w->cols;
	if (!fits)
		attention_fit_release(a);
	a->shape = *w;
	a->shape.q = a->shape.k = a->shape.v = a->shape.o = NULL;
	a->ctx = f->ctx;
	a->window = l->window;
	a->scale = config_score_scale(f->c);
	a->softcap = f->c->attn_softcap;
	a->cosine = phases.cosine;
	a->sine = phases.sine;
	a->q_norm = head_norm(f, ROLE_Q_NORM, layer, f->q_norm);
	a->k_norm = head_norm(f, ROLE_K_NORM, layer, f->k_norm);
	a->eps = f->c->norm_eps;
	return fits ? ERR_OK : attention_fit_init(a, f->seqs, e);
}

static float one_of(const struct step *s)
{
	return s->f->c->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0;
}

static float norm(const struct step *s, enum role r, const float *x, float *y)
{
	return rms_norm(x, model_vector(s->f->m, r, s->layer), one_of(s), s->hidden, s->f->c->norm_eps, y);
}

/* d by norm(x) becomes d by x. */
static void norm_back(const struct step *s, enum role r, const float *x, float *d)
{
	float inverse = rms_inverse(x, s->hidden, s->f->c->norm_eps);
	rms_norm_back(d, x, inverse, model_vector(s->f->m, r, s->layer), one_of(s), s->hidden);
}

static void attention_input(void *arg, size_t seq, int worker)
{
	const struct step *s = arg;
	size_t cols = s->w->attention.cols;
	(void)worker;
	for (size_t t = seq * s->n; t < (seq + 1) * s->n; t++) {
		float *x = s->f->x + t * cols;
		norm(s, ROLE_ATTN_NORM, s->in + t * s->hidden, x);
		if (cols > s->hidden)
			x[s->hidden] = 1;
	}
}

static void add_bias(const struct step *s, enum role r, float *y, size_t dim)
{
	const float *b = model_vector(s->f->m, r, s->layer);
	for (size_t t = 0; b && t < s->n; t++)
		for (size_t i = 0; i < dim; i++)
			y[t * dim + i] += b[i];
}

static void add_attention(void *arg, size_t seq, int worker)
{
	const struct step *s = arg;
	size_t at = seq * s->n * s->hidden, size = s->n * s->hidden;
	(void)worker;
	for (size_t i = at; i < at + size; i++)
		s->f->middle[i] = s->in[i] + s->y[i];
	add_bias(s, ROLE_O_BIAS, s->f->middle + at, s->hidden);
}

/* y = act(g), and its slope. */
static void activate(enum activation act, const float *g, float *y, float *d, size_t n)
{
	if (act == ACT_SILU) {
		for (size_t i = 0; i < n; i++)
			y[i] = 1;
		memcpy(d, g, n * sizeof *d);
		kernels()->silu_mul(d, y, n);
		for (size_t i = 0; i < n; i++) {
			float a = d[i], sigmoid = fabsf(g[i]) > 1e-3f ? a / g[i] : 0.5f + 0.25f * g[i];
			y[i] = a;
			d[i] = sigmoid + a * (1 - sigmoid);
		}
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float x = g[i];
		if (act == ACT_GELU_TANH) {
			float t = tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x));
			y[i] = 0.5f * x * (1 + t);
			d[i] = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456080286535588f * (1 + 3 * 0.044715f * x * x);
		} else {
			float p = 0.5f * (1 + erff(x * 0.70710678118654752440f));
			y[i] = x * p;
			d[i] = p + x * 0.39894228040143267794f * expf(-0.5f * x * x);
		}
	}
}

/* Leaves z = norm(middle), up, what it is multiplied by in gate, the slope of that and what down reads in act. */
static void feed_forward_input(const struct step *s, size_t seq)
{
	struct layer_fit *f = s->f;
	size_t at = seq * s->n, n = s->n, h = s->hidden, ffn = s->ffn;
	float *gate = f->gate + at * ffn, *up = f->up + at * ffn, *act = f->act + at * ffn, *slope = f->slope + at * ffn;
	float *z = f->z + at * h;
	for (size_t t = 0; t < n; t++)
		norm(s, ROLE_FFN_NORM, f->middle + (at + t) * h, z + t * h);
	blas_gemm(false, true, n, ffn, h, 1, z, h, s->w->up, h, 0, up, ffn);
	add_bias(s, ROLE_UP_BIAS, up, ffn);
	blas_gemm(false, true, n, ffn, h, 1, z, h, s->w->gate, h, 0, gate, ffn);
	add_bias(s, ROLE_GATE_BIAS, gate, ffn);
	activate(f->c->act, gate, act, slope, n * ffn);
	memcpy(gate, act, n * ffn * sizeof *gate);
	for (size_t i = 0; i < n * ffn; i++)
		act[i] *= up[i];
}

static void feed_forward(void *arg, size_t seq, int worker)
{
	const struct step *s = arg;
	size_t at = seq * s->n, h = s->hidden;
	float *out = s->out + at * h;
	(void)worker;
	feed_forward_input(s, seq);
	memcpy(out, s->f->middle + at * h, s->n * h * sizeof *out);
	blas_gemm(false, true, s->n, h, s->ffn, 1, s->f->act + at * s->ffn, s->ffn, s->w->down, s->ffn, 1, out, h);
	add_bias(s, ROLE_DOWN_BIAS, out, h);
}

/* Runs attention: its input stays in f->x, the stream after it in f->middle. */
static int attention(struct step *s, struct attention_batch *b, struct err *e)
{
	int rc = attention_for(s->f, s->layer, &s->w->attention, e);
	if (rc)
		return rc;
	thread_for(s->seqs, attention_input, s);
	*b = (struct attention_batch){ .seqs = s->seqs, .x = s->f->x };
	rc = attention_fit_forward(&s->f->attention, &s->w->attention, b, &s->y, e);
	if (!rc)
		thread_for(s->seqs, add_attention, s);
	return rc;
}

int layer_fit_forward(struct layer_fit *f, uint32_t layer, const struct layer_weights *w, float *hidden, size_t seqs, struct err *e)
{
	struct step s = step_of(f, layer, w, seqs);
	struct attention_batch b;
	s.in = s.out = hidden;
	int rc = attention(&s, &b, e);
	if (!rc)
		thread_for(seqs, feed_forward, &s);
	return rc;
}

/* The stream's gradient gets what comes back through the norm of x in front of a half; f->dx has `cols` per token. */
static void join(const struct step *s, size_t seq, enum role r, const float *x, size_t cols)
{
	for (size_t t = seq * s->n; t < (seq + 1) * s->n; t++) {
		float *d = s->f->dx + t * cols;
		norm_back(s, r, x + t * s->hidden, d);
		kernels()->axpy(s->out + t * s->hidden, 1, d, s->hidden);
	}
}

/* Leaves the gradients by the outputs of down, gate and up in f->dy, f->gate and f->up, for those by the weights. */
static void feed_forward_back(void *arg, size_t seq, int worker)
{
	struct step *s = arg;
	struct layer_fit *f = s->f;
	size_t at = seq * s->n, n = s->n, h = s->hidden, ffn = s->ffn;
	float *gate = f->gate + at * ffn, *up = f->up + at * ffn, *d = f->d + at * ffn, *dz = f->dx + at * h, *dy = f->dy + at * h;
	const float *slope = f->slope + at * ffn;
	(void)worker;
	feed_forward_input(s, seq);
	memcpy(dy, s->out + at * h, n * h * sizeof *dy);
	blas_gemm(false, false, n, ffn, h, 1, dy, h, s->w->down, ffn, 0, d, ffn);
	for (size_t i = 0; i < n * ffn; i++) {
		float by_up = d[i] * gate[i];
		gate[i] = d[i] * slope[i] * up[i];
		up[i] = by_up;
	}
	blas_gemm(false, false, n, h, ffn, 1, up, ffn, s->w->up, h, 0, dz, h);
	blas_gemm(false, false, n, h, ffn, 1, gate, ffn, s->w->gate, h, 1, dz, h);
	join(s, seq, ROLE_FFN_NORM, f->middle, h);
}

static void attention_input_back(void *arg, size_t seq, int worker)
{
	const struct step *s = arg;
	(void)worker;
	join(s, seq, ROLE_ATTN_NORM, s->in, s->w->attention.cols);
}

static size_t slices(size_t rows)
{
	return (rows + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
}

/* Slices of rows of the feed-forward's gradients. */
static void feed_forward_weights(void *arg, size_t item, int worker)
{
	const struct step *s = arg;
	const struct layer_fit *f = s->f;
	size_t n = s->seqs * s->n, h = s->hidden, ffn = s->ffn;
	const struct {
		const float *error, *input;
		float *grad;
		size_t rows, cols;
	} part[] = { { f->dy, f->act, s->grad->down, h, ffn }, { f->up, f->z, s->grad->up, ffn, h }, { f->gate, f->z, s->grad->gate, ffn, h } };
	size_t i = 0;
	(void)worker;
	for (; item >= slices(part[i].rows); i++)
		item -= slices(part[i].rows);
	size_t from = item * GRADIENT_ROWS, rows = part[i].rows - from < GRADIENT_ROWS ? part[i].rows - from : GRADIENT_ROWS;
	blas_gemm(true, false, rows, part[i].cols, n, 1, part[i].error + from, part[i].rows, part[i].input, part[i].cols, 0,
		  part[i].grad + from * part[i].cols, part[i].cols);
}

int layer_fit_back(struct layer_fit *f, uint32_t layer, const struct layer_weights *w, const float *hidden, float *d,
		   struct layer_weights *grad, size_t seqs, struct err *e)
{
	struct step s = step_of(f, layer, w, seqs);
	struct attention_batch b;
	s.in = hidden;
	s.out = d;
	s.grad = grad;
	int rc = attention(&s, &b, e);
	if (rc)
		return rc;
	thread_for(seqs, feed_forward_back, &s);
	thread_for(slices(s.hidden) + 2 * slices(s.ffn), feed_forward_weights, &s);
	attention_fit_back(&f->attention, &w->attention, &b, d, &grad->attention, f->dx);
	thread_for(seqs, attention_input_back, &s);
	return ERR_OK;
}

/* ---- the output head */

struct head_work {
	struct layer_fit *f;
	const float *teacher, *student;
	float *d;
	size_t tokens;
	float scale;
};

/* KL(t || s) of one token; s becomes its gradient by s, times scale. Logits [vocab]. */
static double divergence(float *t, float *s, float *difference, size_t vocab, float scale)
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

static void head_item(void *arg, size_t item, int worker)
{
	const struct head_work *h = arg;
	struct layer_fit *f = h->f;
	const struct config *c = f->c;
	size_t at = item * HEAD_TOKENS, n = h->tokens - at < HEAD_TOKENS ? h->tokens - at : HEAD_TOKENS, vocab = c->vocab, width = c->hidden;
	float *t = f->logits + (size_t)worker * f->stride, *s = t + HEAD_TOKENS * vocab, *x = s + HEAD_TOKENS * vocab;
	float *y = x + HEAD_TOKENS * width, *row = y + HEAD_TOKENS * width;
	model_final_norm(f->m, h->teacher + at * width, y, n);
	model_final_norm(f->m, h->student + at * width, x, n);
	blas_gemm(false, true, n, vocab, width, 1, y, width, f->head, width, 0, t, vocab);
	blas_gemm(false, true, n, vocab, width, 1, x, width, f->head, width, 0, s, vocab);
	double kl = 0;
	for (size_t i = 0; i < n; i++)
		kl += divergence(t + i * vocab, s + i * vocab, row, vocab, h->scale);
	f->kl[item] = kl;
	if (!h->d)
		return;
	float *d = h->d + at * width;
	blas_gemm(false, false, n, width, vocab, 1, s, vocab, f->head, width, 0, d, width);
	const struct step none = { .f = f, .layer = UINT32_MAX, .hidden = width };
	for (size_t i = 0; i < n; i++)
		norm_back(&none, ROLE_FINAL_NORM, h->student + (at + i) * width, d + i * width);
}

int layer_fit_divergence(struct layer_fit *f, const float *teacher, const float *student, size_t seqs, float scale, float *d,
			 double *kl, struct err *e)
{
	struct head_work h = { f, teacher, student, d, seqs * f->ctx, scale };
	size_t items = (h.tokens + HEAD_TOKENS - 1) / HEAD_TOKENS;
	if (seqs > f->seqs || thread_count() > f->workers)
		return err_set(e, ERR_BUG, "more sequences or workers than the fit has room for");
	thread_for(items, head_item, &h);
	*kl = 0;
	for (size_t i = 0; i < items; i++)
		*kl += f->kl[i];
	return ERR_OK;
}
