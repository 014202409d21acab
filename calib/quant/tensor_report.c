#include "calib/quant/tensor_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "kernel/product.h"

enum { ROWS = 64 };

/* One matrix; rows are taken ROWS at a time, by several workers. */
struct measure {
	const struct plan_item *item;
	const float *w, *written;  /* [rows, n] */
	const float *importance;   /* [n] or NULL */
	float *h;                  /* [n, n] or NULL */
	size_t rows, n;
	double *weight, *before, *after, *output; /* [pieces] sums */
	double *norm;
	bool failed;
};

/* tr(x H x^T) of rows; hx is scratch. */
static double energy(const struct measure *m, const float *x, float *hx, size_t rows)
{
	double sum = 0;
	if (m->h)
		product_gemm(false, false, rows, m->n, m->n, 1, x, m->n, m->h, m->n, 0, hx, m->n);
	for (size_t i = 0; i < rows * m->n; i++)
		sum += (double)x[i] * (m->h ? hx[i] : m->importance ? m->importance[i % m->n] * x[i] : x[i]);
	return sum;
}

static void one_piece(void *arg, size_t piece, int worker)
{
	struct measure *m = arg;
	const struct codec *c = m->item->out.codec;
	size_t first = piece * ROWS, rows = m->rows - first < ROWS ? m->rows - first : ROWS, n = m->n;
	const float *w = m->w + first * n;
	float *d = malloc(rows * n * sizeof *d), *hx = malloc(rows * n * sizeof *hx);
	uint8_t *bytes = malloc((size_t)codec_row_bytes(c, n)), *scratch = malloc(n + CODEC_MAX_BLOCK);
	(void)worker;
	if (d && hx && bytes && scratch) {
		m->output[piece] = energy(m, w, hx, rows);
		for (size_t i = 0; i < rows * n; i++) {
			d[i] = w[i] - m->written[first * n + i];
			m->weight[piece] += (double)d[i] * d[i];
			m->norm[piece] += (double)w[i] * w[i];
		}
		m->after[piece] = energy(m, d, hx, rows);
		for (size_t r = 0; r < rows; r++) {
			struct row_job row = { w + r * n, m->importance, n, FIT_SEARCH };
			codec_encode_row(c, &row, scratch, bytes);
			c->decode(c, bytes, d + r * n, n);
			for (size_t i = 0; i < n; i++)
				d[r * n + i] = w[r * n + i] - d[r * n + i];
		}
		m->before[piece] = energy(m, d, hx, rows);
	} else
		m->output[piece] = -1;
	free(d);
	free(hx);
	free(bytes);
	free(scratch);
}

static int measure(struct measure *m, struct tensor_report *out, struct err *e)
{
	size_t pieces = (m->rows + ROWS - 1) / ROWS;
	double *sums = calloc(pieces * 5, sizeof *sums), total[5] = { 0 };
	if (!sums)
		return err_nomem(e);
	m->weight = sums;
	m->norm = sums + pieces;
	m->before = sums + 2 * pieces;
	m->after = sums + 3 * pieces;
	m->output = sums + 4 * pieces;
	thread_for(pieces, one_piece, m);
	bool failed = false;
	for (size_t k = 0; k < 5 * pieces; k++) {
		total[k / pieces] += sums[k];
		failed |= k >= 4 * pieces && sums[k] == -1;
	}
	free(sums);
	if (failed)
		return err_nomem(e);
	out->weight_error = total[1] > 0 ? sqrt(total[0] / total[1]) : 0;
	out->before = total[4] > 0 ? total[2] / total[4] : 0;
	out->after = total[4] > 0 ? total[3] / total[4] : 0;
	return ERR_OK;
}

static int find_weighting(struct measure *m, struct stats *stats, struct tensor_report *out, struct err *e)
{
	size_t n = 0;
	out->weighted = "weights";
	if (!stats || m->item->role >= ROLE_COUNT)
		return ERR_OK;
	m->importance = stats_importance(stats, m->item->role, m->item->layer, &n);
	if (n != m->n)
		m->importance = NULL;
	if (m->importance)
		out->weighted = "importance";
	if (!m->importance || !stats_has_moment(stats, m->item->role, m->item->layer))
		return ERR_OK;
	double *h;
	int rc = stats_moment(stats, m->item->role, m->item->layer, &h, &n, e);
	if (rc)
		return rc;
	m->h = malloc(n * n * sizeof *m->h);
	for (size_t i = 0; m->h && i < n * n; i++)
		m->h[i] = (float)h[i];
	free(h);
	out->weighted = "second moments";
	return m->h ? ERR_OK : err_nomem(e);
}

static int one_item(const struct tensor_report_job *job, const struct plan_item *item, struct tensor_report *out, struct err *e)
{
	const struct tensor *meta;
	float *w = NULL, *y = NULL;
	struct measure m = { .item = item };
	int rc = source_read_f32(job->source, item->out.name, &w, &meta, e);
	if (!rc)
		rc = source_read_f32(job->written->source, item->out.name, &y, &meta, e);
	if (!rc) {
		m.n = (size_t)tensor_cols(&item->out);
		m.rows = (size_t)tensor_rows(&item->out);
		if (job->q)
			quantizer_undo(job->q, item, y, m.rows, m.n);
		m.w = w;
		m.written = y;
		rc = find_weighting(&m, job->stats, out, e);
	}
	if (!rc)
		rc = measure(&m, out, e);
	free(m.h);
	free(w);
	free(y);
	return rc;
}

static void take_measured(const struct quantizer *q, struct tensor_report *r)
{
	const struct sequential_report *m = q ? quantizer_measured(q, r->item) : NULL;
	const struct distill_report *trained = q ? quantizer_trained(q) : NULL;
	if (!m)
		return;
	r->before = m->before;
	r->after = m->after;
	r->seconds = m->seconds;
	r->chosen = m;
	r->weighted = trained && trained->kept ? "inputs as quantized, before training" : "inputs as quantized";
}

static int worst_first(const void *a, const void *b)
{
	const struct tensor_report *x = a, *y = b;
	return x->after > y->after ? -1 : x->after < y->after ? 1 : strcmp(x->name, y->name);
}

int tensor_report_make(const struct tensor_report_job *job, struct tensor_report **out, size_t *count, struct err *e)
{
	const struct plan *p = job->plan;
	struct tensor_report *rows = calloc(p->count + 1, sizeof *rows);
	int rc = rows ? ERR_OK : err_nomem(e);
	*count = 0;
	for (size_t i = 0; i < p->count && !rc; i++) {
		const struct plan_item *item = &p->items[i];
		if (!codec_quantizes(item->out.codec) || !item->method)
			continue;
		struct tensor_report *r = &rows[(*count)++];
		*r = (struct tensor_report){ .item = i, .name = item->out.name, .role = item->role, .layer = item->layer, .codec = item->out.codec,
					     .method = item->method->name };
		r->tokens = job->stats && item->role < ROLE_COUNT ? stats_count(job->stats, item->role, item->layer) : 0;
		rc = one_item(job, item, r, e);
		take_measured(job->q, r);
	}
	if (rc) {
		free(rows);
		return rc;
	}
	qsort(rows, *count, sizeof *rows, worst_first);
	*out = rows;
	return ERR_OK;
}
