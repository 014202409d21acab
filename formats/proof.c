#include "formats/proof.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"
#include "base/zip.h"
#include "codec/codec.h"

struct meant {
	uint64_t bytes;
	uint32_t crc;
	double start, end;
};

struct proof {
	struct tensor_sink base;   /* first: the sink is cast back to this */
	struct tensor_sink *sink;
	const struct plan *plan;
	struct meant *items;
	size_t at;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int item(struct tensor_sink *k, size_t index, struct err *e)
{
	struct proof *p = (struct proof *)k;
	p->at = index;
	p->items[index] = (struct meant){ .start = now(), .end = now() };
	return p->sink->item(p->sink, index, e);
}

static int bytes(struct tensor_sink *k, const void *data, size_t size, struct err *e)
{
	struct proof *p = (struct proof *)k;
	struct meant *m = &p->items[p->at];
	m->crc = zip_crc32(m->crc, data, size);
	m->bytes += size;
	int rc = p->sink->bytes(p->sink, data, size, e);
	m->end = now();
	return rc;
}

static int seal(struct tensor_sink *k, const char **path, struct err *e)
{
	struct proof *p = (struct proof *)k;
	return p->sink->seal(p->sink, path, e);
}

static int finish(struct tensor_sink *k, struct err *e)
{
	(void)k;
	(void)e;
	return ERR_OK;
}

static void close_nothing(struct tensor_sink *k)
{
	(void)k;
}

int proof_new(const struct plan *plan, struct tensor_sink *sink, struct proof **out, struct err *e)
{
	struct proof *p = calloc(1, sizeof *p);
	if (!p)
		return err_nomem(e);
	p->base = (struct tensor_sink){ item, bytes, seal, finish, close_nothing };
	p->sink = sink;
	p->plan = plan;
	p->items = calloc(plan->count + 1, sizeof *p->items);
	if (!p->items) {
		free(p);
		return err_nomem(e);
	}
	*out = p;
	return ERR_OK;
}

struct tensor_sink *proof_sink(struct proof *p)
{
	return &p->base;
}

double proof_seconds(const struct proof *p, size_t i)
{
	return p->items[i].end - p->items[i].start;
}

/* ---- looking at values */

enum { LOOK_ROWS = 16 };

/* Rows are looked at by several workers; each row has its own place for what it found. */
struct look {
	const struct tensor *in, *out;
	const uint8_t *src, *dst;
	size_t cols, block;
	struct found {
		uint64_t constant, same, column;
		bool infinite;
	} *rows;
	size_t row_count;
};

static bool constant(const float *x, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (x[i] != x[0])
			return false;
	return true;
}

static void look_at_rows(void *arg, size_t slice, int worker)
{
	struct look *l = arg;
	(void)worker;
	float *a = malloc(l->cols * sizeof *a), *b = malloc(l->cols * sizeof *b);
	size_t first = slice * LOOK_ROWS, last = first + LOOK_ROWS < l->row_count ? first + LOOK_ROWS : l->row_count;
	for (size_t r = first; r < last && a && b; r++) {
		struct found *f = &l->rows[r];
		bool have = false;
		l->out->codec->decode(l->out->codec, l->dst + r * codec_row_bytes(l->out->codec, l->cols), a, l->cols);
		for (size_t i = 0; i < l->cols && !f->infinite; i++)
			if (!isfinite(a[i])) {
				f->infinite = true;
				f->column = i;
			}
		for (size_t at = 0; at < l->cols && !f->infinite; at += l->block) {
			size_t n = l->cols - at < l->block ? l->cols - at : l->block;
			if (n < 2 || !constant(a + at, n))
				continue;
			if (!have) /* rare, so the source is decoded only then */
				l->in->codec->decode(l->in->codec, l->src + r * codec_row_bytes(l->in->codec, l->cols), b, l->cols);
			have = true;
			if (constant(b + at, n)) {
				f->same++;
				continue;
			}
			f->column = f->constant ? f->column : at;
			f->constant++;
		}
	}
	free(a);
	free(b);
}

static int look_at(struct look *l, struct proof_result *out, struct err *e)
{
	l->cols = (size_t)tensor_cols(l->out);
	l->row_count = (size_t)tensor_rows(l->out);
	l->block = l->out->codec->block ? l->out->codec->block : l->cols;
	l->rows = calloc(l->row_count, sizeof *l->rows);
	if (!l->rows)
		return err_nomem(e);
	thread_for((l->row_count + LOOK_ROWS - 1) / LOOK_ROWS, look_at_rows, l);
	int rc = ERR_OK;
	for (size_t r = 0; r < l->row_count && !rc; r++) {
		const struct found *f = &l->rows[r];
		if (f->infinite)
			rc = err_set(e, ERR_INPUT, "tensor %s: a scale at row %zu, column %llu is not finite", l->out->name, r,
				     (unsigned long long)f->column);
		if (f->constant && !out->constant)
			snprintf(out->first, sizeof out->first, "tensor %.90s, row %zu, column %llu", l->out->name, r,
				 (unsigned long long)f->column);
		out->constant += f->constant;
		out->same += f->same;
		out->blocks += (l->cols + l->block - 1) / l->block;
	}
	out->quantized++;
	free(l->rows);
	return rc;
}

static int check_values(const struct plan_item *x, const struct tensor_bytes *got, struct tensor_source *source,
			struct proof_result *out, struct err *e)
{
	struct tensor_bytes b = { 0 };
	if (!codec_quantizes(x->out.codec) || !tensor_elements(&x->out))
		return ERR_OK;
	int rc = source->get(source, x->source, &b, e);
	struct look l = { .in = &source->tensors[x->source], .out = &x->out, .src = b.data, .dst = got->data };
	if (!rc)
		rc = look_at(&l, out, e);
	source_drop(source, b.data, b.size);
	tensor_bytes_release(&b);
	return rc;
}

/* A file that is broken as soon as it is written is the disk's fault, not a bad input. */
static int just_written(int rc, struct err *e)
{
	return rc == ERR_INPUT ? e->code = ERR_IO : rc;
}

static int check_item(const struct proof *p, size_t i, struct checkpoint *c, struct tensor_source *source,
		      struct proof_result *out, struct err *e)
{
	const struct plan_item *x = &p->plan->items[i];
	const struct tensor *t = source_find(c->source, x->out.name);
	struct tensor_bytes got = { 0 };
	if (!t)
		return err_set(e, ERR_IO, "tensor %s is not in the file that was written", x->out.name);
	if (t->codec != x->out.codec || t->nbytes != p->items[i].bytes)
		return err_set(e, ERR_IO, "tensor %s reads back as %s of %llu bytes, not %s of %llu", x->out.name, t->codec->name,
			       (unsigned long long)t->nbytes, x->out.codec->name, (unsigned long long)p->items[i].bytes);
	size_t at = source_position(c->source, t);
	uint32_t crc;
	int rc = just_written(c->source->get(c->source, at, &got, e), e);
	/* a reader that sums what it gives needs nobody to do it again */
	if (!rc && !source_summed(c->source, at, &crc))
		crc = zip_crc32(0, got.data, got.size);
	if (!rc && crc != p->items[i].crc)
		rc = err_set(e, ERR_IO, "tensor %s reads back with other bytes than were written", x->out.name);
	if (!rc)
		rc = check_values(x, &got, source, out, e);
	out->tensors++;
	out->bytes += got.size;
	source_drop(c->source, got.data, got.size);
	tensor_bytes_release(&got);
	return rc;
}

/* Of tensors nothing is left to do after a proof: what remains are side files and what lies between them. */
static int checksums(struct checkpoint *c, const struct progress *progress, struct err *e)
{
	return c->format->check ? just_written(c->format->check(c, progress, e), e) : ERR_OK;
}

int proof_check(const struct proof *p, const char *path, struct tensor_source *source, struct proof_result *out,
		const struct progress *progress, struct err *e)
{
	struct checkpoint *c;
	*out = (struct proof_result){ 0 };
	int rc = just_written(checkpoint_open(path, &c, e), e);
	if (rc)
		return rc;
	for (size_t i = 0; i < p->plan->count && !rc; i++) {
		rc = check_item(p, i, c, source, out, e);
		if (!rc && !progress_tell(progress, out->bytes, p->plan->bytes))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	if (!rc)
		rc = checksums(c, NULL, e);
	checkpoint_close(c);
	return rc;
}

int proof_checksums(const char *path, const struct progress *progress, struct err *e)
{
	struct checkpoint *c;
	int rc = just_written(checkpoint_open(path, &c, e), e);
	if (rc)
		return rc;
	rc = checksums(c, progress, e);
	checkpoint_close(c);
	return rc;
}

void proof_free(struct proof *p)
{
	if (!p)
		return;
	free(p->items);
	free(p);
}
