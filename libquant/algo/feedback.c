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
	float *diagonal; /* [n] of H */
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
	free(k->diagonal);
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
	k->diagonal = malloc(n * sizeof(float));
	for (size_t i = 0; k->diagonal && i < n; i++)
		k->diagonal[i] = k->c->h[i * n + i];
	k->codes = malloc(rows * n);
	k->trial = malloc(n);
	k->p = calloc(rows * k->blocks, sizeof *k->p);
	if (k->x && k->q && k->e && k->step && k->move && k->hmove && k->diagonal && k->codes && k->trial && k->p)
		return ERR_OK;
	chunk_free(k);
	return ERR_NOMEM;
}

static size_t block_len(const struct chunk *k, size_t b)
{
	return k->n - b * k->block < k->block ? k->n - b * k->block : k->block;
}

/* ---- 1. parameters */

static void fit_blocks(struct chunk *k)
{
	for (size_t r = 0; r < k->rows; r++)
		codec_fit_row(k->job->codec, k->w + r * k->n, k->diagonal, k->n, &k->p[r * k->blocks]);
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

/* Codes that hang together (codec->together), which are next to each other in `order` as well. */
enum { MOST_TOGETHER = 8 };

struct metric {
	float m[MOST_TOGETHER][MOST_TOGETHER], diagonal[MOST_TOGETHER];
};

/*
 * What an error in these columns costs after the columns to come have taken over what they can: the inverse of
 * U^T U of their own triangle of U.
 */
static void metric_of(const struct chunk *k, size_t t, struct metric *m)
{
	double inv[MOST_TOGETHER][MOST_TOGETHER] = { { 0 } };
	const float *u = k->c->u + t * k->n + t;
	size_t g = k->job->codec->together;
	for (size_t j = 0; j < g; j++)
		for (size_t i = j + 1; i-- > 0;) {
			double sum = i == j;
			for (size_t l = i + 1; l <= j; l++)
				sum -= (double)u[i * k->n + l] * inv[l][j];
			inv[i][j] = sum / (double)u[i * k->n + i];
		}
	for (size_t i = 0; i < g; i++)
		for (size_t j = 0; j < g; j++) {
			double sum = 0;
			for (size_t l = 0; l < g; l++)
				sum += inv[i][l] * inv[j][l];
			m->m[i][j] = (float)sum;
		}
	for (size_t i = 0; i < g; i++)
		m->diagonal[i] = m->m[i][i];
}

struct group {
	float scale, offset;
	const float *x;
	float q[MOST_TOGETHER];
	uint8_t codes[MOST_TOGETHER];
	float pull[MOST_TOGETHER]; /* half the gradient by q, negative: (x - q) M */
	float error;               /* (x - q) M (x - q) */
};

/* The entry nearest to `target` by the metric's diagonal, and what it costs. */
static void group_at(const struct chunk *k, const struct metric *m, const float *target, struct group *out)
{
	const struct codec *c = k->job->codec;
	struct code_target t = { out->scale, out->offset, target, m->diagonal };
	c->round(c, &t, out->codes);
	out->error = 0;
	for (size_t i = 0; i < c->together; i++)
		out->q[i] = codec_value(c, out->scale, out->offset, out->codes[i]);
	for (size_t i = 0; i < c->together; i++) {
		out->pull[i] = 0;
		for (size_t j = 0; j < c->together; j++)
			out->pull[i] += m->m[i][j] * (out->x[j] - out->q[j]);
		out->error += out->pull[i] * (out->x[i] - out->q[i]);
	}
}

/* The diagonal's nearest entry, and from there downhill: steps that the whole metric asks for, rounded again. */
static void group_round(const struct chunk *k, const struct metric *m, struct group *best)
{
	static const float eager[] = { 1, 0.6f, 0.35f };
	group_at(k, m, best->x, best);
	for (int moves = 0, tried = 0; moves < 4 && tried < 3; tried++) {
		float target[MOST_TOGETHER];
		struct group next = *best;
		for (size_t i = 0; i < k->job->codec->together; i++)
			target[i] = best->q[i] + eager[tried] * best->pull[i] / m->diagonal[i];
		group_at(k, m, target, &next);
		if (next.error < best->error) {
			*best = next;
			moves++;
			tried = -1;
		}
	}
}

/* The columns t .. t + together of one row, and the error carried on to those up to `to`. */
static void feed_group(struct chunk *k, const struct metric *m, size_t r, size_t t, float *step, size_t to)
{
	const struct codec *codec = k->job->codec;
	size_t g = codec->together, j = k->c->order[t], b = j / k->block, sub = j % k->block / codec->sub;
	const struct block_params *p = &k->p[r * k->blocks + b];
	float *x = k->x + r * k->n;
	struct group best = { .scale = p->scale[sub], .offset = p->offset[sub], .x = x + t };
	group_round(k, m, &best);
	for (size_t i = 0; i < g; i++) {
		const float *u = k->c->u + (t + i) * k->n;
		float err = x[t + i] - best.q[i];
		for (size_t l = 0; l < i; l++)
			err -= step[l] * k->c->u[(t + l) * k->n + t + i];
		step[i] = err / u[t + i];
		k->codes[r * k->n + j + i] = best.codes[i];
		k->q[r * k->n + j + i] = best.q[i];
	}
	for (size_t i = 0; i < g; i++)
		kernels()->axpy(x + t + g, -step[i], k->c->u + (t + i) * k->n + t + g, to - t - g);
}

static void round_groups(struct chunk *k, size_t from, size_t to)
{
	struct metric m;
	for (size_t t = from; t < to; t += k->job->codec->together) {
		metric_of(k, t, &m);
		for (size_t r = 0; r < k->rows; r++)
			feed_group(k, &m, r, t, k->step + r * TILE + t - from, to);
	}
}

static void round_all(struct chunk *k)
{
	for (size_t r = 0; r < k->rows; r++)
		for (size_t t = 0; t < k->n; t++)
			k->x[r * k->n + t] = k->w[r * k->n + k->c->order[t]];
	for (size_t from = 0; from < k->n; from += BATCH) {
		size_t to = from + BATCH < k->n ? from + BATCH : k->n;
		(k->job->codec->together ? round_groups : round_batch)(k, from, to);
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
	for (size_t i = 0; i < len; i++)
		k->hmove[i] = q[i] + e[i] / k->diagonal[a + i];
	codec_round_block(codec, next, k->hmove, k->diagonal + a, len, k->trial);
	for (size_t i = 0; i < len; i++) {
		size_t s = i / sub_len;
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

/* Every group of codes that hang together takes a step downhill, a full one or a part of it, if it helps. */
static void refine_groups(struct chunk *k, const struct tile *t)
{
	static const float eager[] = { 1, 0.6f, 0.35f };
	const struct codec *codec = k->job->codec;
	size_t g = codec->together;
	for (size_t i = 0; i < t->len; i += g)
		for (size_t tried = 0; tried < sizeof eager / sizeof *eager; tried++) {
			size_t j = t->at + i, b = j / k->block, sub = j % k->block / codec->sub;
			const struct block_params *p = &k->p[t->row * k->blocks + b];
			float *q = k->q + t->row * k->n + j, target[MOST_TOGETHER];
			struct code_target aim = { p->scale[sub], p->offset[sub], target, k->diagonal + j };
			double linear = 0;
			for (size_t l = 0; l < g; l++)
				target[l] = q[l] + eager[tried] * t->e[i + l] / k->diagonal[j + l];
			codec->round(codec, &aim, k->trial);
			for (size_t l = 0; l < g; l++) {
				k->move[l] = codec_value(codec, p->scale[sub], p->offset[sub], k->trial[l]) - q[l];
				linear += (double)k->move[l] * (double)t->e[i + l];
			}
			if (!isfinite(linear) || !(quadratic(k, j, g) < 2 * linear))
				continue;
			for (size_t l = 0; l < g; l++) {
				if (k->move[l] != 0)
					kernels()->axpy(t->e, -k->move[l], k->c->h + (j + l) * k->n + t->at, t->len);
				q[l] += k->move[l];
				t->step[i + l] += k->move[l];
			}
			memcpy(k->codes + t->row * k->n + j, k->trial, g);
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
			(k->job->codec->together ? refine_groups : refine_codes)(k, &t);
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

static void finish(struct work *w, struct chunk *k, size_t first)
{
	const struct codec *codec = k->job->codec;
	size_t bytes = (size_t)codec_row_bytes(codec, k->n);
	uint8_t *dst = w->job->dst + first * bytes;
	row_objectives(k, w->after + first);
	for (size_t r = 0; r < k->rows; r++) {
		struct row_job row = { k->w + r * k->n, k->diagonal, k->n, FIT_SEARCH };
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
	size_t first = item * CHUNK, rows = w->job->rows - first < CHUNK ? w->job->rows - first : CHUNK;
	struct chunk k;
	if (chunk_init(&k, w->job, first, rows)) {
		atomic_store(&w->failed, 1);
		return;
	}
	fit_blocks(&k);
	round_all(&k);
	if (w->job->sweeps)
		gradient(&k);
	for (int s = 0; s < w->job->sweeps; s++)
		sweep(&k);
	finish(w, &k, first);
	chunk_free(&k);
}

static int quantize_rows(struct feedback_job *job, struct err *e)
{
	struct work w = { .job = job };
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

int feedback_quantize(struct feedback_job *job, struct err *e)
{
	size_t n = job->curvature->n, together = job->codec->together;
	if (!codec_quantizes(job->codec))
		return err_set(e, ERR_UNSUPPORTED, "codec %s has no grid to round to", job->codec->name);
	if (!codec_row_bytes(job->codec, n))
		return err_set(e, ERR_UNSUPPORTED, "codec %s cannot hold rows of %zu", job->codec->name, n);
	if (!together)
		return quantize_rows(job, e);
	struct curvature grouped = *job->curvature;
	struct feedback_job own = *job;
	grouped.u = malloc(n * n * sizeof *grouped.u);
	grouped.order = malloc(n * sizeof *grouped.order);
	own.curvature = &grouped;
	int rc = grouped.u && grouped.order ? curvature_group(&grouped, together, e) : err_nomem(e);
	if (!rc)
		rc = quantize_rows(&own, e);
	job->before = own.before;
	job->after = own.after;
	free(grouped.u);
	free(grouped.order);
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
