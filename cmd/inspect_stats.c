/* quire inspect: statistics of tensors. */
#include "cmd/inspect.h"

#include <math.h>
#include <stdlib.h>

#include "base/thread.h"
#include "codec/codec.h"

/* Chan, Golub, LeVeque 1979: joins two partial moments. */
static void stats_join(struct tensor_stats *a, const struct tensor_stats *b)
{
	a->zeros += b->zeros;
	a->nans += b->nans;
	a->infs += b->infs;
	if (!b->count)
		return;
	if (!a->count) {
		a->count = b->count;
		a->mean = b->mean;
		a->m2 = b->m2;
		a->min = b->min;
		a->max = b->max;
		return;
	}
	double n = (double)a->count + (double)b->count, d = b->mean - a->mean;
	a->m2 += b->m2 + d * d * ((double)a->count * (double)b->count / n);
	a->mean += d * ((double)b->count / n);
	a->count += b->count;
	a->min = b->min < a->min ? b->min : a->min;
	a->max = b->max > a->max ? b->max : a->max;
}

static void stats_add(struct tensor_stats *s, const float *x, size_t n)
{
	struct tensor_stats p = { .min = INFINITY, .max = -INFINITY };
	double sum = 0;
	for (size_t i = 0; i < n; i++) {
		if (!isfinite(x[i])) {
			p.nans += isnan(x[i]) != 0;
			p.infs += isnan(x[i]) == 0;
			continue;
		}
		p.count++;
		p.zeros += x[i] == 0;
		sum += x[i];
		p.min = x[i] < p.min ? x[i] : p.min;
		p.max = x[i] > p.max ? x[i] : p.max;
	}
	p.mean = p.count ? sum / (double)p.count : 0;
	for (size_t i = 0; i < n; i++)
		if (isfinite(x[i]))
			p.m2 += (x[i] - p.mean) * (x[i] - p.mean);
	stats_join(s, &p);
}

/* Work is cut into groups of rows of about this many elements, whatever the number of threads. */
enum { GROUP_ELEMENTS = 1 << 18, PIECE_ELEMENTS = 1 << 16 };

struct scan {
	const struct tensor *t;
	const uint8_t *data;
	uint64_t row_bytes, rows, group_rows, piece;
	struct tensor_stats *part; /* one per group */
	float *scratch;            /* piece elements per worker */
};

static void scan_group(void *arg, size_t item, int worker)
{
	struct scan *s = arg;
	const struct codec *c = s->t->codec;
	uint64_t cols = tensor_cols(s->t), first = item * s->group_rows;
	uint64_t last = first + s->group_rows < s->rows ? first + s->group_rows : s->rows;
	float *x = s->scratch + (size_t)worker * s->piece;
	for (uint64_t r = first; r < last; r++)
		for (uint64_t at = 0; at < cols; at += s->piece) {
			uint64_t n = cols - at < s->piece ? cols - at : s->piece;
			uint64_t skip = c->block ? at / c->block * c->block_bytes : 0;
			c->decode(c, s->data + r * s->row_bytes + skip, x, (size_t)n);
			stats_add(&s->part[item], x, (size_t)n);
		}
}

int inspect_scan(struct tensor_source *src, size_t index, struct tensor_stats *out, struct err *e)
{
	const struct tensor *t = &src->tensors[index];
	struct tensor_bytes bytes = { 0 };
	struct scan s = { .t = t, .row_bytes = codec_row_bytes(t->codec, tensor_cols(t)), .rows = tensor_rows(t) };
	uint64_t cols = tensor_cols(t);
	*out = (struct tensor_stats){ .min = 0 };
	if (src->get(src, index, &bytes, e))
		return e->code;
	if (!cols || !s.rows || !t->codec->decode) {
		tensor_bytes_release(&bytes);
		return ERR_OK;
	}
	s.data = bytes.data;
	s.group_rows = cols < GROUP_ELEMENTS ? GROUP_ELEMENTS / cols : 1;
	s.piece = t->codec->block ? PIECE_ELEMENTS / t->codec->block * t->codec->block : cols;
	size_t groups = (size_t)((s.rows + s.group_rows - 1) / s.group_rows);
	s.part = calloc(groups, sizeof *s.part);
	s.scratch = calloc((size_t)thread_count(), (size_t)s.piece * sizeof *s.scratch);
	int rc = s.part && s.scratch ? ERR_OK : err_nomem(e);
	if (!rc) {
		thread_for(groups, scan_group, &s);
		for (size_t i = 0; i < groups; i++)
			stats_join(out, &s.part[i]);
	}
	free(s.part);
	free(s.scratch);
	source_drop(src, bytes.data, bytes.size);
	tensor_bytes_release(&bytes);
	return rc;
}

double inspect_deviation(const struct tensor_stats *s)
{
	return s->count ? sqrt(s->m2 / (double)s->count) : 0;
}

float inspect_largest(const struct tensor_stats *s)
{
	return fabsf(s->min) > fabsf(s->max) ? fabsf(s->min) : fabsf(s->max);
}

double inspect_bits(const struct tensor *t)
{
	uint64_t n = tensor_elements(t);
	return n ? 8.0 * (double)t->nbytes / (double)n : 0.0;
}
