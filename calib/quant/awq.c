#include "calib/quant/awq.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/quant/channels.h"
#include "codec/codec.h"
#include "kernel/product.h"
#include "model/graph.h"

enum { ALPHAS = 20, SAMPLE = 128 /* rows of each matrix that judge a candidate */ };

/* Of what the matrices of a group read. */
struct scale {
	float *columns;   /* [n]; NULL: left alone */
	float *rows;      /* what the rows of the projection before are divided by; NULL: a norm takes the inverse */
	enum role before; /* that projection */
};

struct awq {
	struct tensor_source *source;
	const struct config *config;
	struct scale *scales;            /* by site_id of the role that leads a group */
	struct overlay *norms;
	struct channels *channels;       /* over the norms */
};

/* One group of one layer while its scales are chosen. */
struct choice {
	const struct config *config;
	struct group group;
	struct source_of source;         /* what takes the inverse */
	uint32_t layer;                  /* its place */
	size_t n;
	const struct tensor *before;     /* the norm */
	float *norm;                     /* [n], NULL unless a norm takes the inverse */
	float *mean;                     /* [n] magnitudes */
	const float *importance;         /* [n] */
	float *h;                        /* [n, n] or NULL */
	const struct codec *codec[BLOCK_READERS];
	float *w[BLOCK_READERS];         /* [rows, n] sampled */
	size_t rows[BLOCK_READERS];
	double loss[ALPHAS];
	atomic_int failed;
};

/* NULL: there is no such place. */
static struct scale *scale_of(const struct awq *a, enum role leader, uint32_t place)
{
	size_t id = site_id(a->config, leader, place);
	return id == SIZE_MAX ? NULL : &a->scales[id];
}

const float *awq_columns(const struct awq *a, enum role r, uint32_t place)
{
	struct block b;
	uint32_t layer = role_layer(r, place);
	if (r >= ROLE_COUNT || !role_rows[r].linear || layer >= a->config->layers)
		return NULL;
	block_make(a->config, layer, &b);
	const struct scale *s = scale_of(a, block_leader(&b, r), place);
	return s ? s->columns : NULL;
}

const float *awq_rows(const struct awq *a, enum role r, uint32_t place)
{
	for (int g = 0; g < ROLE_COUNT && role_layer(r, place) < a->config->layers; g++) {
		const struct scale *s = role_rows[g].per_layer ? scale_of(a, (enum role)g, place) : NULL;
		if (s && s->rows && s->before == r)
			return s->rows;
	}
	return NULL;
}

/* ---- the scaled model */

static int show(struct awq *a, struct err *e)
{
	struct tensor_source *source = overlay_source(a->norms);
	a->channels = channels_new(source, e);
	int rc = a->channels ? ERR_OK : ERR_NOMEM;
	for (size_t i = 0; i < source->count && !rc; i++) {
		uint32_t layer = 0;
		enum role r = role_from_hf(a->config->arch, source->tensors[i].name, &layer);
		struct channel_map m = { .row_scale = awq_rows(a, r, layer), .column_scale = awq_columns(a, r, layer) };
		if (m.row_scale || m.column_scale)
			rc = channels_set(a->channels, i, &m, e);
	}
	return rc;
}

struct tensor_source *awq_source(struct awq *a)
{
	return channels_source(a->channels);
}

/* ---- choosing */

/* What a value becomes in the type that the norm is stored in. */
static float stored(const struct codec *c, float x)
{
	uint8_t bytes[16];
	float y = x;
	c->encode(c, &x, bytes, 1);
	c->decode(c, bytes, &y, 1);
	return y;
}

/* Candidate k: magnitudes to the power k / ALPHAS. With a norm, only ratios that its type can hold. */
static void candidate(const struct choice *c, int k, float *s, float *before)
{
	float most = 0, least = INFINITY, one = c->config->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0;
	for (size_t i = 0; i < c->n; i++)
		most = c->mean[i] > most ? c->mean[i] : most;
	for (size_t i = 0; i < c->n; i++) {
		float m = c->mean[i] > 1e-4f * most ? c->mean[i] : 1e-4f * most;
		s[i] = most > 0 ? powf(m, (float)k / ALPHAS) : 1;
		least = s[i] < least ? s[i] : least;
	}
	most = most > 0 ? powf(most, (float)k / ALPHAS) : 1;
	float scale = 1 / sqrtf(most * least);
	for (size_t i = 0; i < c->n; i++) {
		s[i] = k ? s[i] * scale : 1;
		if (!c->norm) {
			before[i] = s[i];
			continue;
		}
		float old = c->norm[i] + one, new = stored(c->before->codec, old / s[i] - one) + one, ratio = old / new;
		bool good = old != 0 && isfinite(ratio) && ratio > s[i] / 2 && ratio < s[i] * 2;
		s[i] = good ? ratio : 1;
		before[i] = good ? new - one : c->norm[i];
	}
}

/* GQA: query heads that read the same KV head must agree, because its V rows are scaled only once. */
static void share_heads(const struct choice *c)
{
	const struct layer_config *l = &c->config->layer[c->layer];
	size_t d = c->config->head_dim, per = l->heads / l->kv_heads;
	for (size_t k = 0; k < l->kv_heads; k++)
		for (size_t i = 0; i < d; i++) {
			float sum = 0;
			for (size_t h = 0; h < per; h++)
				sum += c->mean[(k * per + h) * d + i];
			for (size_t h = 0; h < per; h++)
				c->mean[(k * per + h) * d + i] = sum / (float)per;
		}
}

static double weighted(const struct choice *c, const float *d, float *dh, size_t rows)
{
	double sum = 0;
	if (c->h)
		product_gemm(false, false, rows, c->n, c->n, 1, d, c->n, c->h, c->n, 0, dh, c->n);
	for (size_t i = 0; i < rows * c->n; i++)
		sum += (double)d[i] * (c->h ? dh[i] : c->importance[i % c->n] * d[i]);
	return sum;
}

/* Runs on one worker, its product as well, so that the loss does not depend on how many there are. */
static void try_candidate(void *arg, size_t k, int worker)
{
	struct choice *c = arg;
	(void)worker;
	size_t n = c->n;
	float *s = malloc(n * sizeof *s), *before = malloc(n * sizeof *before), *imp = malloc(n * sizeof *imp);
	float *x = malloc(SAMPLE * n * sizeof *x), *d = malloc(SAMPLE * n * sizeof *d), *dh = malloc(SAMPLE * n * sizeof *dh);
	uint8_t *bytes = malloc(n * 8 + 64), *scratch = malloc(n + CODEC_MAX_BLOCK);
	if (s && before && imp && x && d && dh && bytes && scratch) {
		candidate(c, (int)k, s, before);
		c->loss[k] = 0;
		const struct row_job row = { x, imp, n, FIT_SEARCH };
		for (size_t i = 0; i < n; i++)
			imp[i] = c->importance[i] / (s[i] * s[i]);
		for (int m = 0; m < (int)c->group.count; m++) {
			for (size_t r = 0; r < c->rows[m]; r++) {
				const float *w = c->w[m] + r * n;
				for (size_t i = 0; i < n; i++)
					x[i] = w[i] * s[i];
				codec_encode_row(c->codec[m], &row, scratch, bytes);
				c->codec[m]->decode(c->codec[m], bytes, x, n);
				for (size_t i = 0; i < n; i++)
					d[r * n + i] = x[i] / s[i] - w[i];
			}
			c->loss[k] += weighted(c, d, dh, c->rows[m]);
		}
	} else
		atomic_store(&c->failed, 1);
	free(s);
	free(before);
	free(imp);
	free(x);
	free(d);
	free(dh);
	free(bytes);
	free(scratch);
}

static bool has(const struct awq *a, enum role r, uint32_t layer)
{
	char name[96];
	return role_hf_name(a->config->arch, r, layer, name) && source_find(a->source, name);
}

/* Is there anything to round? */
static bool concerns(const struct plan *p, const struct choice *c)
{
	for (unsigned i = 0; i < c->group.count; i++) {
		const struct plan_item *item = plan_find(p, c->group.role[i], c->layer);
		if (item && item->method)
			return true;
	}
	return false;
}

/*
 * Everything that reads the scaled thing must be scaled with it, and nothing may have to be rounded to take the inverse.
 * NULL: so it is.
 */
static const char *obstacle(const struct awq *a, const struct plan *p, const struct choice *c, char text[160])
{
	const struct source_of *s = &c->source;
	if (!plan_find(p, c->group.role[0], c->layer))
		return "one of them is missing";
	for (unsigned i = 0; i < c->group.count; i++) {
		const struct plan_item *item = plan_find(p, c->group.role[i], c->layer);
		if (item ? !item->method : has(a, c->group.role[i], c->layer))
			return "one of them is not quantized";
	}
	if (s->role == ROLE_UNKNOWN)
		return skips_source(s, text);
	const char *name = role_rows[s->role].name;
	const struct plan_item *before = plan_find(p, s->role, c->layer);
	const char *why = !before ? "is missing" :
			  s->norm ? a->source->tensors[before->source].codec->kind == CODEC_FLOAT ? NULL : "is not stored as floats" :
			  !before->method ? "is not quantized and could not hold the inverse" :
			  s->heads && !config_kv_alone(a->config, c->layer) ? "is read by another layer" :
			  has(a, role_rows[s->role].bias_role, c->layer) ? "has a bias, which would have to be rounded" : NULL;
	if (why)
		snprintf(text, 160, "%s before it %s", name, why);
	return why ? text : NULL;
}

static int read_sample(struct awq *a, struct choice *c, int m, const struct plan_item *item, struct err *e)
{
	const struct tensor *meta;
	float *x;
	int rc = source_read_f32(a->source, item->out.name, &x, &meta, e);
	if (rc)
		return rc;
	size_t rows = (size_t)tensor_rows(meta), kept = rows < SAMPLE ? rows : SAMPLE;
	for (size_t r = 0; r < kept; r++)
		memmove(x + r * c->n, x + r * rows / kept * c->n, c->n * sizeof *x);
	float *less = realloc(x, kept * c->n * sizeof *x);
	c->w[m] = less ? less : x;
	c->rows[m] = kept;
	c->codec[m] = item->out.codec;
	return ERR_OK;
}

static int read_inputs(struct awq *a, struct choice *c, struct stats *stats, struct err *e)
{
	enum role r = c->group.role[0];
	float *largest = NULL;
	size_t n = 0;
	c->importance = stats_importance(stats, r, c->layer, &n);
	if (!c->importance || n != c->n)
		return err_set(e, ERR_INPUT, "the statistics hold nothing for %s of layer %u", role_rows[r].name, role_layer(r, c->layer));
	if (stats_magnitudes(stats, r, c->layer, &largest, &c->mean, &n)) {
		free(largest);
	} else {
		/* an importance matrix has mean squares only */
		c->mean = malloc(c->n * sizeof *c->mean);
		if (!c->mean)
			return err_nomem(e);
		for (size_t i = 0; i < c->n; i++)
			c->mean[i] = sqrtf(c->importance[i]);
	}
	if (stats_has_moment(stats, r, c->layer)) {
		double *h;
		int rc = stats_moment(stats, r, c->layer, &h, &n, e);
		if (rc)
			return rc;
		c->h = malloc(n * n * sizeof *c->h);
		for (size_t i = 0; c->h && i < n * n; i++)
			c->h[i] = (float)h[i];
		free(h);
		if (!c->h)
			return err_nomem(e);
	}
	if (!c->source.norm)
		return ERR_OK;
	return source_read_f32(a->source, c->before->name, &c->norm, &c->before, e);
}

static int replace_norm(struct awq *a, const struct choice *c, const float *norm, struct err *e)
{
	const struct tensor *t = c->before;
	void *bytes = malloc((size_t)t->nbytes);
	if (!bytes)
		return err_nomem(e);
	t->codec->encode(t->codec, norm, bytes, c->n);
	return overlay_put(a->norms, t, bytes, e);
}

static int decide(struct awq *a, struct choice *c, struct err *e)
{
	struct scale *s = scale_of(a, c->group.role[0], c->layer);
	if (c->source.heads)
		share_heads(c);
	thread_for(ALPHAS, try_candidate, c);
	if (atomic_load(&c->failed))
		return err_nomem(e);
	int best = 0;
	for (int k = 1; k < ALPHAS; k++)
		if (c->loss[k] < c->loss[best])
			best = k;
	if (!best)
		return ERR_OK;
	float *before = malloc(c->n * sizeof *before);
	s->columns = malloc(c->n * sizeof *s->columns);
	if (!s->columns || !before) {
		free(before);
		return err_nomem(e);
	}
	candidate(c, best, s->columns, before);
	if (c->norm) {
		int rc = replace_norm(a, c, before, e);
		free(before);
		return rc;
	}
	if (c->source.heads) {
		/* the first query head of each group speaks for its V rows */
		const struct layer_config *l = &c->config->layer[c->layer];
		size_t d = c->config->head_dim, per = l->heads / l->kv_heads;
		for (size_t k = 0; k < l->kv_heads; k++)
			memmove(before + k * d, s->columns + k * per * d, d * sizeof *before);
	}
	s->rows = before;
	s->before = c->source.role;
	return ERR_OK;
}

static int one_group(struct awq *a, const struct quant_job *job, struct stats *stats, struct choice *c, struct err *e)
{
	const struct plan *plan = job->plan;
	char what[64], text[160];
	if (!concerns(plan, c))
		return ERR_OK;
	const char *why = obstacle(a, plan, c, text);
	skips_name(&c->group, what);
	skips_see(job->skips, "awq", what, why);
	if (why)
		return ERR_OK;
	c->before = &a->source->tensors[plan_find(plan, c->source.role, c->layer)->source];
	int rc = read_inputs(a, c, stats, e);
	for (int i = 0; i < (int)c->group.count && !rc; i++)
		rc = read_sample(a, c, i, plan_find(plan, c->group.role[i], c->layer), e);
	if (!rc)
		rc = decide(a, c, e);
	for (int i = 0; i < BLOCK_READERS; i++)
		free(c->w[i]);
	free(c->h);
	free(c->mean);
	free(c->norm);
	return rc;
}

int awq_new(const struct quant_job *job, struct stats *stats, struct awq **out, struct err *e)
{
	const struct config *config = job->config;
	struct awq *a = calloc(1, sizeof *a);
	if (!a)
		return err_nomem(e);
	a->source = job->source;
	a->config = config;
	a->scales = calloc(site_count(config), sizeof *a->scales);
	a->norms = overlay_new(job->source, e);
	int rc = !a->norms ? ERR_NOMEM : a->scales ? ERR_OK : err_nomem(e);
	for (uint32_t layer = 0; layer < config->layers && !rc; layer++) {
		struct group group[BLOCK_GROUPS];
		struct block b;
		block_make(config, layer, &b);
		unsigned count = block_groups(&b, group);
		for (unsigned g = 0; g < count && !rc; g++) {
			enum role leader = group[g].role[0];
			struct source_of source = block_source(config, &b, leader);
			for (uint32_t i = 0; i < group_places(&group[g]) && !rc; i++) {
				struct choice c = { .config = config, .group = group[g], .source = source,
						    .layer = group_place(&group[g], layer, i), .n = block_width(&b, leader) };
				rc = one_group(a, job, stats, &c, e);
			}
			if (!rc && !progress_tell(job->progress, (uint64_t)layer * count + g + 1, (uint64_t)config->layers * count))
				rc = err_set(e, ERR_IO, "interrupted");
		}
	}
	if (!rc)
		rc = show(a, e);
	if (rc)
		awq_free(a);
	else
		*out = a;
	return rc;
}

void awq_free(struct awq *a)
{
	if (!a)
		return;
	for (size_t i = 0; a->scales && i < site_count(a->config); i++) {
		free(a->scales[i].columns);
		free(a->scales[i].rows);
	}
	channels_free(a->channels);
	overlay_free(a->norms);
	free(a->scales);
	free(a);
}

uint64_t awq_memory(const struct plan *plan)
{
	uint64_t most = 0, workers = (uint64_t)thread_count();
	for (size_t i = 0; i < plan->count; i++) {
		const struct tensor *t = &plan->items[i].out;
		uint64_t n = tensor_cols(t), m = tensor_rows(t) * n * 4 + n * n * 12 + workers * SAMPLE * n * 12 + 3 * SAMPLE * n * 4;
		most = plan->items[i].role < ROLE_COUNT && role_rows[plan->items[i].role].linear && m > most ? m : most;
	}
	return most;
}
