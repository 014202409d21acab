#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "model/attention.h"
#include "model/kv.h"
#include "model/model_impl.h"
#include "model/rms.h"
#include "model/rope.h"
#include "model/weight.h"

struct model_run {
	struct model *m;
	size_t tokens;                   /* room */
	float *x, *y;                    /* [tokens, hidden]: input of a block, its output */
	float *q, *k, *v, *att;          /* [tokens, heads * head_dim] */
	float *gate, *up;                /* [tokens, ffn] */
	float **kept;                    /* per layer that others read, without a cache: K then V of the last pass */
	size_t *kept_tokens;
	struct phase_table phases;
	float *scratch;
	size_t stride;                   /* floats per worker */
	int workers;
};

static size_t widest_weight(const struct model *m)
{
	size_t most = 0;
	for (size_t i = 0; i < ((size_t)m->config->layers + 1) * ROLE_COUNT; i++)
		if (m->weight[i].tensor && m->weight[i].tensor->ndim == 2) {
			size_t n = weight_scratch(&m->weight[i]);
			most = n > most ? n : most;
		}
	return most;
}

static float *floats(size_t n, size_t width, bool *ok)
{
	size_t size;
	float *p = NULL;
	if (!__builtin_mul_overflow(n, width, &size) && size <= SIZE_MAX / sizeof(float) / 2)
		p = malloc((size ? size : 1) * sizeof(float));
	*ok = *ok && p;
	return p;
}

struct model_run *model_run_new(struct model *m, size_t seqs, size_t len, struct err *e)
{
	const struct config *c = m->config;
	struct model_run *r = calloc(1, sizeof *r);
	bool ok = r != NULL;
	if (ok && !__builtin_mul_overflow(seqs, len, &r->tokens)) {
		struct config_widths w = config_widths(c);
		size_t n = r->tokens;
		r->m = m;
		r->x = floats(n, c->hidden, &ok);
		r->y = floats(n, c->hidden, &ok);
		r->q = floats(n, w.q, &ok);
		r->k = floats(n, w.kv, &ok);
		r->v = floats(n, w.kv, &ok);
		r->att = floats(n, w.q, &ok);
		r->gate = floats(n, w.ffn, &ok);
		r->up = c->arch->gated ? floats(n, w.ffn, &ok) : NULL;
		r->stride = widest_weight(m);
		r->kept = calloc(c->layers, sizeof *r->kept);
		r->kept_tokens = calloc(c->layers, sizeof *r->kept_tokens);
		ok = ok && r->kept && r->kept_tokens;
	} else {
		ok = false;
	}
	if (ok)
		return r;
	model_run_free(r);
	err_nomem(e);
	return NULL;
}

void model_run_free(struct model_run *r)
{
	if (!r)
		return;
	float *all[] = { r->x, r->y, r->q, r->k, r->v, r->att, r->gate, r->up, r->scratch };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	for (uint32_t i = 0; r->kept && i < r->m->config->layers; i++)
		free(r->kept[i]);
	free(r->kept);
	free(r->kept_tokens);
	phase_table_release(&r->phases);
	free(r);
}

/* Scratch for every worker that a loop may now have. */
static int reserve(struct model_run *r, size_t stride, struct err *e)
{
	int workers = thread_count();
	bool ok = true;
	if (r->scratch && stride <= r->stride && workers <= r->workers)
		return ERR_OK;
	free(r->scratch);
	r->stride = stride > r->stride ? stride : r->stride;
	r->workers = workers;
	r->scratch = floats((size_t)workers, r->stride, &ok);
	return ok ? ERR_OK : err_nomem(e);
}

/* Rows of an element-wise loop that one item takes: fixed, so that pieces never depend on the thread count. */
enum { ROWS = 8 };

struct rows {
	const struct arch *arch;
	const struct config *config;
	const float *in, *weight, *bias, *cosine, *sine;
	float *out;
	size_t n, dim, len, heads, half;
};

static void each_rows(size_t n, void (*fn)(void *, size_t, int), struct rows *a)
{
	thread_for((n + ROWS - 1) / ROWS, fn, a);
}

static void norm_rms(const struct rows *a, const float *x, float *y)
{
	rms_norm(x, a->weight, a->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0, a->dim, a->config->norm_eps, y);
}

static void norm_layer(const struct rows *a, const float *x, float *y)
{
	double mean = 0, square = 0;
	for (size_t i = 0; i < a->dim; i++)
		mean += x[i];
	mean /= (double)a->dim;
	for (size_t i = 0; i < a->dim; i++)
		square += (x[i] - mean) * (x[i] - mean);
	float scale = (float)(1 / sqrt(square / (double)a->dim + a->config->norm_eps));
	for (size_t i = 0; i < a->dim; i++)
		y[i] = (x[i] - (float)mean) * scale * a->weight[i] + (a->bias ? a->bias[i] : 0);
}

static void norm_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		(a->arch->norm == NORM_LAYER ? norm_layer : norm_rms)(a, a->in + t * a->dim, a->out + t * a->dim);
}

static enum role norm_bias(enum role r)
{
	return r == ROLE_ATTN_NORM    ? ROLE_ATTN_NORM_BIAS
	       : r == ROLE_FFN_NORM   ? ROLE_FFN_NORM_BIAS
	       : r == ROLE_FINAL_NORM ? ROLE_FINAL_NORM_BIAS
				      : ROLE_UNKNOWN;
}

/* in and out may be the same. */
static void norm(const struct model *m, enum role role, uint32_t layer, const float *in, float *out, size_t n, size_t dim)
{
	struct rows a = { .arch = m->config->arch, .config = m->config, .in = in, .out = out, .n = n, .dim = dim,
			  .weight = model_vector(m, role, layer), .bias = model_vector(m, norm_bias(role), layer) };
	each_rows(n, norm_rows, &a);
}

static void rotate_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++)
		rope_rotate(a->out + t * a->heads * a->dim, a->heads, a->dim, a->half, a->cosine + t % a->len * a->half,
			    a->sine + t % a->len * a->half);
}

static void rotate(const struct config *c, struct phases phases, float *x, size_t n, size_t len, size_t heads)
{
	struct rows a = { .out = x, .n = n, .len = len, .heads = heads, .dim = c->head_dim, .half = c->rope.dims / 2,
			  .cosine = phases.cosine, .sine = phases.sine };
	each_rows(n, rotate_rows, &a);
}

static void act_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	const struct kernels *k = kernels();
	(void)worker;
	for (size_t t = item * ROWS; t < a->n && t < (item + 1) * ROWS; t++) {
		float *g = a->out + t * a->dim;
		const float *up = a->in ? a->in + t * a->dim : NULL;
		if (a->config->act == ACT_SILU && up) {
			k->silu_mul(g, up, a->dim);
			continue;
		}
		for (size_t i = 0; i < a->dim; i++) {
			float x = g[i], y;
			if (a->config->act == ACT_SILU)
				y = x / (1 + expf(-x));
			else if (a->config->act == ACT_GELU_TANH)
				y = 0.5f * x * (1 + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
			else
				y = 0.5f * x * (1 + erff(x * 0.70710678118654752440f));
			g[i] = up ? y * up[i] : y;
		}
	}
}

static void add_rows(void *arg, size_t item, int worker)
{
	const struct rows *a = arg;
	(void)worker;
	size_t from = item * ROWS * a->dim, to = (item + 1) * ROWS < a->n ? (item + 1) * ROWS * a->dim : a->n * a->dim;
	kernels()->axpy(a->out + from, 1, a->in + from, to - from);
}

/* hidden += y, after the norm that some architectures put there. */
static void residual(const struct model *m, enum role post_norm, uint32_t layer, float *hidden, float *y, size_t n)
{
	struct rows a = { .out = hidden, .in = y, .n = n, .dim = m->config->hidden };
	if (m->config->arch->sandwich_norm)
		norm(m, post_norm, layer, y, y, n, a.dim);
	each_rows(n, add_rows, &a);
}

static struct product product(const struct model *m, enum role r, enum role bias, uint32_t layer, float *y)
{
	return (struct product){ model_weight(m, r, layer), model_vector(m, bias, layer), y };
}

/* Only what the source lent: replaced weights are somebody's memory, which would not come back. */
static void drop(const struct model *m, const struct weight *w)
{
	const struct tensor *first = m->source->tensors;
	if (m->streaming && !w->bytes.owned && w->tensor >= first && w->tensor < first + m->source->count)
		source_drop(m->source, w->bytes.data, w->bytes.size);
}

static void multiply(struct model_run *r, const struct product *p, unsigned count, const float *x, size_t n)
{
	weight_products(p, count, x, n, r->scratch, r->stride);
	for (unsigned i = 0; i < count; i++)
		drop(r->m, p[i].w);
}

/* Returns true when the layer ends here. */
static bool tap_input(const struct model_tap *tap, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	if (tap && tap->input)
		tap->input(tap->arg, r, layer, x, n, dim);
	return tap && tap->stop && tap->last == r;
}

struct pass {
	uint32_t layer;
	const struct layer_config *l;
	size_t seqs, len, n, start;
	bool owner;
	struct kv_cache *cache;
	const struct model_tap *tap;
	bool stopped; /* by the tap */
};

static void project(struct model_run *r, const struct pass *p)
{
	struct model *m = r->m;
	const struct config *c = m->config;
	struct product q[3] = {
		product(m, ROLE_Q, ROLE_Q_BIAS, p->layer, r->q),
		product(m, ROLE_K, ROLE_K_BIAS, p->layer, r->k),
		product(m, ROLE_V, ROLE_V_BIAS, p->layer, r->v),
	};
	multiply(r, q, p->owner ? 3 : 1, r->x, p->n);
	if (c->arch->qk_norm) {
		norm(m, ROLE_Q_NORM, p->layer, r->q, r->q, p->n * p->l->heads, c->head_dim);
		if (p->owner)
			norm(m, ROLE_K_NORM, p->layer, r->k, r->k, p->n * p->l->kv_heads, c->head_dim);
	}
	if (p->tap && p->tap->qkv)
		p->tap->qkv(p->tap->arg, p->layer, r->q, p->owner ? r->k : NULL, p->owner ? r->v : NULL, p->n);
	struct phases phases = phases_of(&r->phases, p->layer);
	if (!phases.cosine)
		return;
	rotate(c, phases, r->q, p->n, p->len, p->l->heads);
	if (p->owner)
		rotate(c, phases, r->k, p->n, p->len, p->l->kv_heads);
}

static int attend(struct model_run *r, struct attention *a, struct err *e)
{
	size_t need = attention_scratch(a);
	int rc = reserve(r, need, e);
	if (rc)
		return rc;
	a->scratch = r->scratch;
	a->stride = r->stride;
	attention_run(a);
	return ERR_OK;
}

/* A chunk may be longer than what a window's buffer can take at once. */
static int attend_cached(struct model_run *r, const struct pass *p, struct attention *a, struct err *e)
{
	const struct config *c = r->m->config;
	size_t q_width = (size_t)p->l->heads * c->head_dim, kv_width = (size_t)p->l->kv_heads * c->head_dim;
	size_t step = p->owner ? kv_step(p->cache, p->layer) : p->len;
	int rc = reserve(r, c->head_dim, e);
	a->codecs = kv_cache_codecs(p->cache);
	for (size_t at = 0, n; at < p->len && !rc; at += n) {
		n = p->len - at < step ? p->len - at : step;
		if (p->owner && (rc = kv_append(p->cache, p->layer, p->start + at, r->k + at * kv_width,
						r->v + at * kv_width, n, r->scratch, e)))
			return rc;
		struct kv_view v = kv_view(p->cache, p->layer, p->start + at + n);
		if (v.first + v.count != p->start + at + n)
			return err_set(e, ERR_BUG, "layer %u runs before layer %u, whose KV cache it reads", p->layer,
				       p->l->kv_source);
		if (v.first && p->start + at < v.first + p->l->window - 1)
			return err_set(e, ERR_BUG, "layer %u reads tokens that layer %u no longer holds", p->layer, p->l->kv_source);
		a->q = r->q + at * q_width;
		a->out = r->att + at * q_width;
		a->k = v.k;
		a->v = v.v;
		a->queries = n;
		a->keys = v.count;
		a->first = p->start + at - v.first;
		rc = attend(r, a, e);
	}
	return rc;
}

/* Without a cache, layers that others read leave a copy. */
static int keep_kv(struct model_run *r, const struct pass *p, struct err *e)
{
	const struct config *c = r->m->config;
	size_t size = p->n * p->l->kv_heads * c->head_dim;
	bool read = false, ok = true;
	for (uint32_t i = p->layer + 1; i < c->layers; i++)
		read |= c->layer[i].kv_source == p->layer;
	if (!read)
		return ERR_OK;
	if (!r->kept[p->layer])
		r->kept[p->layer] = floats(r->tokens, 2 * (size_t)p->l->kv_heads * c->head_dim, &ok);
	if (!ok)
		return err_nomem(e);
	memcpy(r->kept[p->layer], r->k, size * sizeof(float));
	memcpy(r->kept[p->layer] + size, r->v, size * sizeof(float));
	r->kept_tokens[p->layer] = p->n;
	return ERR_OK;
}

/* Keys and values become what a cache in the model's codecs would give back. */
static int pass_kv(struct model_run *r, const struct pass *p, struct err *e)
{
	size_t dim = r->m->config->head_dim, rows = p->n * p->l->kv_heads;
	const struct kv_codecs *kv = &r->m->kv;
	if (kv_codec_plain(&kv->k) && kv_codec_plain(&kv->v))
		return ERR_OK;
	int rc = reserve(r, 3 * dim, e);
	if (rc)
		return rc;
	kv_codec_pass(&kv->k, r->k, rows, dim, r->scratch);
	kv_codec_pass(&kv->v, r->v, rows, dim, r->scratch);
	return ERR_OK;
}

static int attend_fresh(struct model_run *r, const struct pass *p, struct attention *a, struct err *e)
{
	const struct config *c = r->m->config;
	int rc = p->owner ? pass_kv(r, p, e) : ERR_OK;
	if (!rc && p->owner)
		rc = keep_kv(r, p, e);
	if (rc)
		return rc;
	const float *kept = r->kept[p->l->kv_source];
	if (!p->owner && (!kept || r->kept_tokens[p->l->kv_source] != p->n))
		return err_set(e, ERR_BUG, "layer %u runs before layer %u, whose keys and values it reads", p->layer,
			       p->l->kv_source);
	a->q = r->q;
	a->k = p->owner ? r->k : kept;
	a->v = p->owner ? r->v : kept + p->n * p->l->kv_heads * c->head_dim;
	a->out = r->att;
	a->queries = a->keys = p->len;
	return attend(r, a, e);
}

/* x -> y */
static int attention(struct model_run *r, struct pass *p, struct err *e)
{
	const struct config *c = r->m->config;
	struct attention a = { .seqs = p->seqs, .heads = p->l->heads, .kv_heads = p->l->kv_heads, .dim = c->head_dim,
			       .window = p->l->window, .scale = 1 / sqrtf((float)c->head_dim), .softcap = c->attn_softcap };
	if ((p->stopped = tap_input(p->tap, ROLE_Q, p->layer, r->x, p->n, c->hidden)))
		return ERR_OK;
	project(r, p);
	int rc = p->cache ? attend_cached(r, p, &a, e) : attend_fresh(r, p, &a, e);
	if (rc)
		return rc;
	if ((p->stopped = tap_input(p->tap, ROLE_O, p->layer, r->att, p->n, (size_t)p->l->heads * c->head_dim)))
		return ERR_OK;
	struct product o = product(r->m, ROLE_O, ROLE_O_BIAS, p->layer, r->y);
	multiply(r, &o, 1, r->att, p->n);
	return ERR_OK;
}

/* x -> y */
static void feed_forward(struct model_run *r, struct pass *p)
{
	struct model *m = r->m;
	const struct config *c = m->config;
	bool gated = c->arch->gated;
	struct product up[2] = {
		product(m, ROLE_UP, ROLE_UP_BIAS, p->layer, gated ? r->up : r->gate),
		product(m, ROLE_GATE, ROLE_GATE_BIAS, p->layer, r->gate),
	};
	if ((p->stopped = tap_input(p->tap, gated ? ROLE_GATE : ROLE_UP, p->layer, r->x, p->n, c->hidden)))
		return;
	multiply(r, up, gated ? 2 : 1, r->x, p->n);
	struct rows a = { .config = c, .out = r->gate, .in = gated ? r->up : NULL, .n = p->n, .dim = p->l->ffn };
	each_rows(p->n, act_rows, &a);
	if ((p->stopped = tap_input(p->tap, ROLE_DOWN, p->layer, r->gate, p->n, p->l->ffn)))
		return;
	struct product down = product(m, ROLE_DOWN, ROLE_DOWN_BIAS, p->layer, r->y);
	multiply(r, &down, 1, r->gate, p->n);
}

static int check_pass(const struct model_run *r, const struct pass *p, struct err *e)
{
	size_t n;
	if (p->layer >= r->m->config->layers)
		return err_set(e, ERR_BUG, "the model has no layer %u", p->layer);
	if (__builtin_mul_overflow(p->seqs, p->len, &n) || n > r->tokens)
		return err_set(e, ERR_BUG, "%zu sequences of %zu tokens exceed the room for %zu", p->seqs, p->len, r->tokens);
	if (p->cache && p->seqs != 1)
		return err_set(e, ERR_BUG, "a KV cache serves one sequence, not %zu", p->seqs);
	if (p->tap && p->tap->part != LAYER_WHOLE && r->m->config->arch->parallel_residual)
		return err_set(e, ERR_BUG, "the halves of layer %u run in parallel", p->layer);
	return ERR_OK;
}

int model_layer(struct model_run *r, uint32_t layer, float *hidden, size_t seqs, size_t len, struct kv_cache *cache,
		const struct model_tap *tap, struct err *e)
{
	struct model *m = r->m;
	const struct config *c = m->config;
	struct pass p = { .layer = layer, .seqs = seqs, .len = len, .cache = cache, .tap = tap };
	enum layer_part part = tap ? tap->part : LAYER_WHOLE;
	int rc = check_pass(r, &p, e);
	if (rc)
		return rc;
	p.l = &c->layer[layer];
	p.n = seqs * len;
	p.start = cache ? kv_cache_length(cache) : 0;
	p.owner = p.l->kv_source == layer;
	if (!p.n)
		return ERR_OK;
	if ((rc = reserve(r, r->stride, e)) || (rc = phase_table_fill(&r->phases, m, p.start, len, e)))
		return rc;
	if (part != LAYER_FEED_FORWARD) {
		norm(m, ROLE_ATTN_NORM, layer, hidden, r->x, p.n, c->hidden);
		if ((rc = attention(r, &p, e)) || p.stopped)
			return rc;
		residual(m, ROLE_POST_ATTN_NORM, layer, hidden, r->y, p.n);
	}
	if (part == LAYER_ATTENTION)
		return ERR_OK;
	/* with a parallel residual both halves see the same normed input, which attention leaves in x */
	if (!c->arch->parallel_residual)
		norm(m, ROLE_FFN_NORM, layer, hidden, r->x, p.n, c->hidden);
	feed_forward(r, &p);
	if (p.stopped)
		return ERR_OK;
	residual(m, ROLE_POST_FFN_NORM, layer, hidden, r->y, p.n);
	return ERR_OK;
}

int model_embed(struct model *m, const int32_t *tokens, size_t n, float *hidden, struct err *e)
{
	const struct config *c = m->config;
	const struct weight *w = model_weight(m, ROLE_EMBED, UINT32_MAX);
	float scale = sqrtf((float)c->hidden);
	for (size_t i = 0; i < n; i++) {
		float *h = hidden + i * c->hidden;
		if (tokens[i] < 0 || (uint32_t)tokens[i] >= c->vocab)
			return err_set(e, ERR_INPUT, "token %d is outside the vocabulary of %u", tokens[i], c->vocab);
		weight_row(w, (uint64_t)tokens[i], h);
		for (size_t j = 0; c->arch->scale_embedding && j < c->hidden; j++)
			h[j] *= scale;
	}
	return ERR_OK;
}

void model_final_norm(const struct model *m, const float *hidden, float *out, size_t n)
{
	norm(m, ROLE_FINAL_NORM, UINT32_MAX, hidden, out, n, m->config->hidden);
}

int model_logits(struct model_run *r, const float *hidden, size_t n, float *logits, struct err *e)
{
	struct model *m = r->m;
	const struct config *c = m->config;
	int rc = reserve(r, r->stride, e);
	for (size_t at = 0, k; at < n && !rc; at += k) {
		k = n - at < r->tokens ? n - at : r->tokens;
		if (!k)
			return err_set(e, ERR_BUG, "there is no room for logits");
		struct product head = { model_head(m), NULL, logits + at * c->vocab };
		norm(m, ROLE_FINAL_NORM, UINT32_MAX, hidden + at * c->hidden, r->x, k, c->hidden);
		multiply(r, &head, 1, r->x, k);
	}
	for (size_t i = 0; !rc && c->final_softcap > 0 && i < n * c->vocab; i++)
		logits[i] = c->final_softcap * tanhf(logits[i] / c->final_softcap);
	return rc;
}

int model_forward(struct model_run *r, const int32_t *tokens, size_t seqs, size_t len, struct kv_cache *cache,
		  const struct model_tap *tap, float *hidden, struct err *e)
{
	const struct config *c = r->m->config;
	size_t room = cache ? kv_capacity(cache) - kv_cache_length(cache) : len;
	if (len > room)
		return err_set(e, ERR_INPUT, "the KV cache has room for %zu more tokens, not %zu", room, len);
	int rc = model_embed(r->m, tokens, seqs * len, hidden, e);
	size_t most = cache ? kv_chunk(cache) : len;
	for (size_t at = 0, n; at < len && !rc; at += n) {
		n = len - at < most ? len - at : most;
		for (uint32_t i = 0; i < c->layers && !rc; i++)
			rc = model_layer(r, i, hidden + at * c->hidden, seqs, n, cache, tap, e);
		if (!rc && cache)
			kv_advance(cache, n);
	}
	return rc;
}
