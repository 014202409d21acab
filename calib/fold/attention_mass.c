#include "calib/fold/attention_mass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/run/stream.h"
#include "kernel/kernel.h"
#include "kernel/product.h"
#include "model/attention.h"
#include "model/rope.h"

struct mass {
	const struct config *c;
	const struct layer_config *l;
	size_t ctx, window, seqs;
	struct phase_table table;
	struct phases phases;    /* of layer l */
	float *q, *k;            /* of a batch, after RoPE */
	float *scratch;          /* per worker: [ctx, ctx] */
	double *sum;             /* [seqs * heads] of the batch */
};

/* Of one head of one sequence. */
static void head(void *arg, size_t item, int worker)
{
	const struct mass *m = arg;
	size_t n = m->ctx, d = m->c->head_dim, h = item % m->l->heads, seq = item / m->l->heads;
	size_t q = (size_t)m->l->heads * d, kv = (size_t)m->l->kv_heads * d, g = h / (m->l->heads / m->l->kv_heads);
	float *p = m->scratch + (size_t)worker * n * n;
	double sum = 0;
	product_gemm(false, true, n, n, d, config_score_scale(m->c), m->q + seq * n * q + h * d, q, m->k + seq * n * kv + g * d, kv, 0, p, n);
	for (size_t t = m->window; t < n; t++) {
		float *row = p + t * n, all, out = 0;
		for (size_t i = 0; m->c->attn_softcap > 0 && i <= t; i++)
			row[i] = m->c->attn_softcap * tanhf(row[i] / m->c->attn_softcap);
		if (m->c->arch->alibi)
			attention_fade(attention_slope(m->l->heads, (uint32_t)h), row, t + 1);
		all = kernels()->exp_sum(row, kernels()->max(row, t + 1), t + 1);
		for (size_t i = 0; i + m->window <= t; i++)
			out += row[i];
		sum += (double)out / all;
	}
	m->sum[item] = sum / (double)(n - m->window);
}

static void see_qkv(void *arg, uint32_t layer, const float *q, const float *k, const float *v, size_t n)
{
	struct mass *m = arg;
	size_t d = m->c->head_dim, half = m->c->rope.dims / 2, qw = (size_t)m->l->heads * d, kw = (size_t)m->l->kv_heads * d;
	(void)layer, (void)v;
	m->seqs = n / m->ctx;
	memcpy(m->q, q, n * qw * sizeof *q);
	if (k)
		memcpy(m->k, k, n * kw * sizeof *k);
	for (size_t t = 0; t < n && m->phases.cosine; t++) {
		size_t at = t % m->ctx * half;
		rope_rotate(m->q + t * qw, m->l->heads, d, half, m->phases.cosine + at, m->phases.sine + at);
		if (k)
			rope_rotate(m->k + t * kw, m->l->kv_heads, d, half, m->phases.cosine + at, m->phases.sine + at);
	}
}

struct visit {
	struct mass *m;
	double *total;
	size_t items;
};

static int batch_done(void *arg, size_t first, size_t count, const float *output, struct err *e)
{
	struct visit *v = arg;
	(void)first, (void)count, (void)output, (void)e;
	thread_for(v->m->seqs * v->m->l->heads, head, v->m);
	for (size_t i = 0; i < v->m->seqs * v->m->l->heads; i++)
		*v->total += v->m->sum[i];
	v->items += v->m->seqs * v->m->l->heads;
	return ERR_OK;
}

int attention_mass(struct model *model, const struct windows *text, size_t window, double *outside, struct err *e)
{
	const struct config *c = model_config(model);
	struct mass m = { .c = c, .ctx = text->ctx, .window = window };
	struct stream s = { 0 };
	uint32_t heads = 0;
	if (window >= text->ctx)
		return err_set(e, ERR_INPUT, "windows of %zu tokens do not reach outside an attention window of %zu; use a larger --ctx",
			       text->ctx, window);
	for (uint32_t i = 0; i < c->layers; i++) {
		heads = c->layer[i].heads > heads ? c->layer[i].heads : heads;
		if (c->layer[i].window)
			return err_set(e, ERR_UNSUPPORTED, "layer %u has a window of %u already", i, c->layer[i].window);
		if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u; windows come before layers are shared", i,
				       c->layer[i].kv_source);
	}
	int rc = stream_open(&s, model, text, e);
	size_t tokens = s.batch * text->ctx, width = (size_t)heads * c->head_dim;
	m.q = malloc(tokens * width * sizeof(float));
	m.k = malloc(tokens * width * sizeof(float));
	m.scratch = malloc((size_t)thread_count() * text->ctx * text->ctx * sizeof(float));
	m.sum = malloc(s.batch * heads * sizeof *m.sum);
	if (!rc)
		rc = m.q && m.k && m.scratch && m.sum ? phase_table_fill(&m.table, model, 0, text->ctx, text->ctx, e) : err_nomem(e);
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		struct model_tap tap = { .qkv = see_qkv, .arg = &m };
		double total = 0;
		struct visit v = { &m, &total, 0 };
		struct stream_visit sv = { .done = batch_done, .tap = &tap, .arg = &v, .keep = true };
		m.l = &c->layer[i];
		m.phases = phases_of(&m.table, i);
		rc = stream_layer(&s, i, 0, text->count, &sv, e);
		outside[i] = v.items ? total / (double)v.items : 0;
	}
	stream_close(&s);
	free(m.q);
	free(m.k);
	free(m.scratch);
	free(m.sum);
	phase_table_release(&m.table);
	return rc;
}
