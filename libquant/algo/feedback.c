#include "algo/feedback.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernel/kernel.h"
#include "kernel/product.h"

enum {
	CHUNK = 32,   /* rows per piece of work: enough for a matrix product, few enough to share among many cores */
	BATCH = 128,  /* columns rounded before the rest of the row is updated */
	TILE = 256,   /* columns that coordinate descent handles before it updates the rest: one k-quant block */
};

/* One chunk of rows on one worker. Matrices are [rows, n]. */
struct chunk {
	const struct feedback_job *job;
	const struct curvature *c;
	size_t rows, n, block, blocks;
	const float *w;
	float *x;      /* the weights still to be rounded, with feedback, columns in curvature order */
	float *q;      /* the rounded values */
	float *e;      /* (w - q) H */
	float *step;   /* [rows, BATCH or TILE] errors fed back, or changes made */
	float *move, *hmove; /* [n] of one block */
	uint8_t *codes, *trial;
	struct block_params *p; /* [rows, blocks] */
};

static void chunk_free(struct chunk *k)
{
	free(k->x);
	free(k->q);
	free(k->e);
	free(k->step);
	free(k->move);
	free(k->hmove);
	free(k->codes);
	free(k->trial);
	free(k->p);
}

static int chunk_init(struct chunk *k, const struct feedback_job *job, size_t first, size_t rows)
{
	size_t n = job->curvature->n, block = job->codec->block ? job->codec->block : n;
	*k = (struct chunk){ .job = job, .c = job->curvature, .rows = rows, .n = n, .block = block,
			     .blocks = (n + block - 1) / block, .w = job->w + first * n };
	k->x = malloc(rows * n * sizeof(float));
	k->q = malloc(rows * n * sizeof(float));
	k->e = malloc(rows * n * sizeof(float));
	k->step = malloc(rows * TILE * sizeof(float));
	k->move = malloc(n * sizeof(float));
	k->hmove = malloc(n * sizeof(float));
	k->codes = malloc(rows * n);
	k->trial = malloc(n);
	k->p = calloc(rows * k->blocks, sizeof *k->p);
	if (k->x && k->q && k->e && k->step && k->move && k->hmove && k->codes && k->trial && k->p)
		return ERR_OK;
	chunk_free(k);
	return ERR_NOMEM;
}

static size_t block_len(const struct chunk *k, size_t b)
{
	return k->n - b * k->block < k->block ? k->n - b * k->block : k->block;
}

/* ---- 1. parameters */

static int fit_blocks(struct chunk *k)
{
	float *weight = malloc(k->n * sizeof *weight);
	if (!weight)
		return ERR_NOMEM;
	for (size_t i = 0; i < k->n; i++)
		weight[i] = k->c->h[i * k->n + i];
	for (size_t r = 0; r < k->rows; r++)
		codec_fit_row(k->job->codec, k->w + r * k->n, weight, k->n, &k->p[r * k->blocks]);
	free(weight);
	return ERR_OK;
}

/* ---- 2. rounding with feedback */

static void round_batch(struct chunk *k, size_t from, size_t to)
{
	const struct codec *codec = k->job->codec;
	for (size_t t = from; t < to; t++) {
		size_t j = k->c->order[t], b = j / k->block, sub = (j % k->block) / codec_sub_len(codec, block_len(k, b));
		const float *u = k->c->u + t * k->n;
		float inverse = 1 / u[t];
		for (size_t r = 0; r < k->rows; r++) {
			const struct block_params *p = &k->p[r * k->blocks + b];
			float *x = k->x + r * k->n;
			uint8_t code = codec_round(codec, p->scale[sub], p->offset[sub], x[t]);
			float q = codec_value(codec, p->scale[sub], p->offset[sub], code), err = (x[t] - q) * inverse;
			k->codes[r * k->n + j] = code;
			k->q[r * k->n + j] = q;
			k->step[r * TILE + t - from] = err;
			kernels()->axpy(x + t + 1, -err, u + t + 1, to - t - 1);
		}
	}
}

static void round_all(struct chunk *k)
{
	for (size_t r = 0; r < k->rows; r++)
		for (size_t t = 0; t < k->n; t++)
			k->x[r * k->n + t] = k->w[r * k->n + k->c->order[t]];
	for (size_t from = 0; from < k->n; from += BATCH) {
		size_t to = from + BATCH < k->n ? from + BATCH : k->n;
		round_batch(k, from, to);
		if (to < k->n)
			product_gemm(false, false, k->rows, k->n - to, to - from, -1, k->step, TILE, k->c->u + from * k->n + to, k->n, 1,
				  k->x + to, k->n);
	}
}

/* ---- 3. coordinate descent */

static void gradient(struct chunk *k)
{
	for (size_t i = 0; i < k->rows * k->n; i++)
		k->x[i] = k->w[i] - k->q[i];
	product_gemm(false, false, k->rows, k->n, k->n, 1, k->x, k->n, k->c->h, k->n, 0, k->e, k->n);
}

/* hmove[0..len) = move H restricted to columns a .. a+len; returns move H move^T. */
static double quadratic(struct chunk *k, size_t a, size_t len)
{
	memset(k->hmove, 0, len * sizeof(float));
	double sum = 0;
	for (size_t i = 0; i < len; i++)
		if (k->move[i] != 0)
			kernels()->axpy(k->hmove, k->move[i], k->c->h + (a + i) * k->n + a, len);
	for (size_t i = 0; i < len; i++)
		sum += (double)k->move[i] * k->hmove[i];
	return sum;
}

/* The part of one row that is being refined. */
struct tile {
	size_t row, at, len; /* columns at .. at + len */
	float *e, *step;     /* gradient of these columns, kept up to date; what has changed in them */
};

/*
 * Tries new parameters for the block at column a: every code goes where the diagonal says it should, and the block
 * moves if the objective falls.
 */
static bool try_params(struct chunk *k, const struct tile *t, size_t a, size_t len, struct block_params *p,
		       const struct block_params *next)
{
	size_t r = t->row;
	float *e = t->e + a - t->at, *step = t->step + a - t->at;
	const struct codec *codec = k->job->codec;
	size_t sub_len = codec_sub_len(codec, len);
	float *q = k->q + r * k->n + a;
	double linear = 0;
	for (size_t i = 0; i < len; i++) {
		size_t s = i / sub_len;
		float target = q[i] + e[i] / k->c->h[(a + i) * k->n + a + i];
		k->trial[i] = codec_round(codec, next->scale[s], next->offset[s], target);
		k->move[i] = codec_value(codec, next->scale[s], next->offset[s], k->trial[i]) - q[i];
		linear += (double)k->move[i] * e[i];
	}
	if (!isfinite(linear) || !(quadratic(k, a, len) < 2 * linear))
		return false;
	for (size_t i = 0; i < len; i++) {
		q[i] += k->move[i];
		step[i] += k->move[i];
		if (k->move[i] != 0)
			kernels()->axpy(t->e, -k->move[i], k->c->h + (a + i) * k->n + t->at, t->len);
	}
	memcpy(k->codes + r * k->n + a, k->trial, len);
	*p = *next;
	return true;
}

/* Scale and offset of each sub-block of block b that minimise the objective for the codes as they are, `eagerness` of the way there. */
static void refit(struct chunk *k, const struct tile *t, size_t b, float eagerness, struct block_params *next)
{
	const struct codec *codec = k->job->codec;
	size_t a = b * k->block, len = block_len(k, b), sub_len = codec_sub_len(codec, len);
	const uint8_t *codes = k->codes + t->row * k->n + a;
	const float *e = t->e + a - t->at;
	*next = k->p[t->row * k->blocks + b];
	for (size_t s = 0, at = 0; at < len; s++, at += sub_len) {
		size_t m = len - at < sub_len ? len - at : sub_len;
		double g1 = 0, g2 = 0, a11 = 0, a12 = 0, a22 = 0;
		for (size_t i = 0; i < m; i++) {
			const float *h = k->c->h + (a + at + i) * k->n + a + at;
			double hl = 0, h1 = 0, level = codec_value(codec, 1, 0, codes[at + i]);
			for (size_t j = 0; j < m; j++) {
				hl += h[j] * codec_value(codec, 1, 0, codes[at + j]);
				h1 += h[j];
			}
			g1 += level * e[at + i];
			g2 += e[at + i];
			a11 += level * hl;
			a12 += level * h1;
			a22 += h1;
		}
		double det = a11 * a22 - a12 * a12, ds = a11 > 0 ? g1 / a11 : 0, d0 = 0;
		if (codec->has_offset && det > 1e-6 * a11 * a22) {
			ds = (g1 * a22 - g2 * a12) / det;
			d0 = (g2 * a11 - g1 * a12) / det;
		}
		next->scale[s] += eagerness * (float)ds;
		next->offset[s] += eagerness * (float)d0;
	}
	codec->store(codec, next, len);
}

static void refine_params(struct chunk *k, const struct tile *t, size_t b)
{
	/* full and half steps, and a little up and down from wherever that led */
	static const float eager[] = { 1.0f, 0.5f }, zoom[] = { 1.02f, 0.98f, 1.06f, 0.94f };
	const struct codec *codec = k->job->codec;
	size_t a = b * k->block, len = block_len(k, b), subs = (len + codec_sub_len(codec, len) - 1) / codec_sub_len(codec, len);
	struct block_params *p = &k->p[t->row * k->blocks + b], next;
	for (size_t i = 0; i < sizeof eager / sizeof *eager; i++) {
		refit(k, t, b, eager[i], &next);
		if (try_params(k, t, a, len, p, &next))
			break;
	}
	for (size_t i = 0; i < sizeof zoom / sizeof *zoom; i++) {
		next = *p;
		for (size_t s = 0; s < subs; s++) {
			next.scale[s] *= zoom[i];
			next.offset[s] *= zoom[i];
		}
		codec->store(codec, &next, len);
		if (try_params(k, t, a, len, p, &next))
			break;
	}
}

/* Every code of the tile moves to its best value, the others held. */
static void refine_codes(struct chunk *k, const struct tile *t)
{
	const struct codec *codec = k->job->codec;
	size_t r = t->row;
	for (size_t i = 0; i < t->len; i++) {
		size_t j = t->at + i, b = j / k->block, sub = (j % k->block) / codec_sub_len(codec, block_len(k, b));
		const struct block_params *p = &k->p[r * k->blocks + b];
		float *q = k->q + r * k->n + j, target = *q + t->e[i] / k->c->h[j * k->n + j];
		uint8_t code = codec_round(codec, p->scale[sub], p->offset[sub], target);
		if (code == k->codes[r * k->n + j])
			continue;
		float value = codec_value(codec, p->scale[sub], p->offset[sub], code), d = value - *q;
		kernels()->axpy(t->e, -d, k->c->h + j * k->n + t->at, t->len);
		k->codes[r * k->n + j] = code;
		*q = value;
		t->step[i] += d;
	}
}

static void sweep(struct chunk *k)
{
	bool tiled = k->block <= TILE && TILE % k->block == 0 && k->job->codec->store;
	for (size_t a = 0; a < k->n; a += TILE) {
		size_t len = k->n - a < TILE ? k->n - a : TILE;
		for (size_t r = 0; r < k->rows; r++) {
			struct tile t = { r, a, len, k->e + r * k->n + a, k->step + r * TILE };
			memset(t.step, 0, TILE * sizeof *t.step);
			if (tiled)
				for (size_t b = a / k->block; b < k->blocks && b * k->block < a + len; b++)
					refine_params(k, &t, b);
			refine_codes(k, &t);
		}
		/* the tile's own gradient is up to date; the columns on both sides are not */
		if (a)
			product_gemm(false, false, k->rows, a, len, -1, k->step, TILE, k->c->h + a * k->n, k->n, 1, k->e, k->n);
		if (a + len < k->n)
			product_gemm(false, false, k->rows, k->n - a - len, len, -1, k->step, TILE, k->c->h + a * k->n + a + len, k->n, 1,
				  k->e + a + len, k->n);
	}
}

/* ---- 4. the better of two */

static void row_objectives(struct chunk *k, double *out)
{
	gradient(k);
	for (size_t r = 0; r < k->rows; r++) {
		out[r] = 0;
		for (size_t i = 0; i < k->n; i++)
			out[r] += (double)k->x[r * k->n + i] * k->e[r * k->n + i];
	}
}

struct work {
	struct feedback_job *job;
	double *before, *after; /* [rows] */
	atomic_int failed;
};

static void pack_row(const struct chunk *k, size_t r, uint8_t *dst)
{
	const struct codec *codec = k->job->codec;
	for (size_t b = 0; b < k->blocks; b++) {
		size_t len = block_len(k, b);
		codec->pack(codec, &k->p[r * k->blocks + b], k->codes + r * k->n + b * k->block, len, dst);
		dst += codec_row_bytes(codec, len);
	}
}

static void finish(struct work *w, struct chunk *k, size_t first, const float *weight)
{
	const struct codec *codec = k->job->codec;
	size_t bytes = (size_t)codec_row_bytes(codec, k->n);
	uint8_t *dst = w->job->dst + first * bytes;
	row_objectives(k, w->after + first);
	for (size_t r = 0; r < k->rows; r++) {
		struct row_job row = { k->w + r * k->n, weight, k->n, FIT_SEARCH };
		codec_encode_row(codec, &row, k->trial, dst + r * bytes);
		codec->decode(codec, dst + r * bytes, k->q + r * k->n, k->n);
	}
	row_objectives(k, w->before + first);
	for (size_t r = 0; r < k->rows; r++) {
		if (w->after[first + r] < w->before[first + r])
			pack_row(k, r, dst + r * bytes);
		else
			w->after[first + r] = w->before[first + r];
	}
}

static void one_chunk(void *arg, size_t item, int worker)
{
	(void)worker;
	struct work *w = arg;
	size_t first = item * CHUNK, rows = w->job->rows - first < CHUNK ? w->job->rows - first : CHUNK, n = w->job->curvature->n;
	struct chunk k;
	float *weight = malloc(n * sizeof *weight);
	if (!weight || chunk_init(&k, w->job, first, rows)) {
		atomic_store(&w->failed, 1);
		free(weight);
		return;
	}
	for (size_t i = 0; i < n; i++)
		weight[i] = k.c->h[i * n + i];
	if (fit_blocks(&k))
		atomic_store(&w->failed, 1);
	else {
		round_all(&k);
		if (w->job->sweeps)
			gradient(&k);
		for (int s = 0; s < w->job->sweeps; s++)
			sweep(&k);
		finish(w, &k, first, weight);
	}
	chunk_free(&k);
	free(weight);
}

int feedback_quantize(struct feedback_job *job, struct err *e)
{
	struct work w = { .job = job };
	if (!codec_quantizes(job->codec))
		return err_set(e, ERR_UNSUPPORTED, "codec %s has no grid to round to", job->codec->name);
	if (!codec_row_bytes(job->codec, job->curvature->n))
		return err_set(e, ERR_UNSUPPORTED, "codec %s cannot hold rows of %zu", job->codec->name, job->curvature->n);
	w.before = calloc(job->rows, sizeof(double));
	w.after = calloc(job->rows, sizeof(double));
	if (!w.before || !w.after)
		atomic_store(&w.failed, 1);
	else
		thread_for((job->rows + CHUNK - 1) / CHUNK, one_chunk, &w);
	job->before = job->after = 0;
	int rc = atomic_load(&w.failed) ? err_nomem(e) : ERR_OK;
	for (size_t r = 0; r < job->rows && !rc; r++) {
		job->before += w.before[r];
		job->after += w.after[r];
	}
	free(w.before);
	free(w.after);
	return rc;
}

struct objective {
	const struct curvature *c;
	const float *w, *q;
	size_t rows;
	double *sum; /* per chunk */
	atomic_int failed;
};

static void objective_chunk(void *arg, size_t item, int worker)
{
	(void)worker;
	struct objective *o = arg;
	size_t n = o->c->n, first = item * CHUNK, rows = o->rows - first < CHUNK ? o->rows - first : CHUNK;
	float *d = calloc(rows * n, sizeof *d), *h = calloc(rows * n, sizeof *h);
	if (d && h) {
		for (size_t i = 0; i < rows * n; i++)
			d[i] = o->w[first * n + i] - (o->q ? o->q[first * n + i] : 0);
		product_gemm(false, false, rows, n, n, 1, d, n, o->c->h, n, 0, h, n);
		for (size_t i = 0; i < rows * n; i++)
			o->sum[item] += (double)d[i] * h[i];
	} else
		atomic_store(&o->failed, 1);
	free(d);
	free(h);
}

double feedback_objective(const struct curvature *c, const float *w, const float *q, size_t rows)
{
	size_t chunks = (rows + CHUNK - 1) / CHUNK;
	struct objective o = { .c = c, .w = w, .q = q, .rows = rows, .sum = calloc(chunks, sizeof(double)) };
	double sum = 0;
	if (!o.sum)
		return NAN;
	thread_for(chunks, objective_chunk, &o);
	for (size_t i = 0; i < chunks; i++)
		sum += o.sum[i];
	free(o.sum);
	return atomic_load(&o.failed) ? (double)NAN : sum;
}
