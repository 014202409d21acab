#include "calib/quant/arrange.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "calib/quant/channels.h"
#include "calib/run/stream.h"
#include "codec/codec.h"
#include "model/graph.h"

enum {
	LOOK_TOKENS = 8192,  /* what is run */
	SAMPLE = 2048,       /* tokens kept of it */
	SWAPS = 40,          /* tried per channel */
	BLOCK = 256,         /* activations that share a step */
};
#define LEAST 1e-3 /* of the median channel: what is smaller is as good as dead */

/*
 * Measured: 0.6 is best for the rounding of activations, but that of weights grows with it, which matters less the more bits
 * they have.
 */
static double exponent(const struct codec *c)
{
	return c->bits > 4 ? 0.5 : 0.25;
}

/* What becomes of the channels of one layer; NULL: nothing. */
struct layer_channels {
	uint32_t *order;     /* [ffn] */
	float *down;         /* [ffn] divides the input of down, in the new order */
	float *o, *v;        /* [heads * dim] divides the input of O; [kv_heads * dim] the rows of V */
};

struct arrangement {
	const struct config *config;
	struct layer_channels *layers;
	struct channels *channels;
};

/* One layer while it is looked at. */
struct look {
	const struct config *config;
	struct tensor_source *source;
	const struct plan *plan;
	struct skips *skips;
	uint32_t layer;
	size_t ctx, stride;  /* every so many-th token is kept */
	size_t ffn, heads;   /* widths of the inputs of down and O */
	size_t tokens;       /* kept */
	float *x_down, *x_o; /* [SAMPLE, ffn], [SAMPLE, heads] */
	float *weight;       /* [SAMPLE] what an error counts: layers after it divide by the size of the residual stream */
};

static bool is_quantized(const struct plan *p, enum role r, uint32_t layer)
{
	const struct plan_item *item = plan_find(p, r, layer);
	return item && item->method;
}

/* Blocks of 32 activations lose too little for a change of scales to pay (measured). */
static bool in_long_blocks(const struct plan *p, enum role r, uint32_t layer)
{
	return is_quantized(p, r, layer) && plan_find(p, r, layer)->out.codec->block == BLOCK;
}

/* what, why: NULL where nothing stands in the way. */
static bool nothing(const struct look *k, const char *what, const char *why)
{
	skips_see(k->skips, "arranged channels", what, why);
	return !why;
}

static bool scales_v(const struct look *k)
{
	if (!in_long_blocks(k->plan, ROLE_O, k->layer))
		return false;
	return nothing(k, "attn_o", !config_kv_alone(k->config, k->layer) ? "another layer reads the same values" :
				    !is_quantized(k->plan, ROLE_V, k->layer) ? "attn_v is not quantized and could not hold the inverse" :
				    plan_find(k->plan, ROLE_V_BIAS, k->layer) ? "attn_v has a bias, which would have to be rounded" : NULL);
}

static bool orders_ffn(const struct look *k)
{
	if (in_long_blocks(k->plan, ROLE_EXPERT_DOWN, place_of(k->layer, 0)))
		return nothing(k, "ffn_down_exps", "experts keep the order of their channels");
	if (!in_long_blocks(k->plan, ROLE_DOWN, k->layer))
		return false;
	bool gate = !plan_find(k->plan, ROLE_GATE, k->layer) || is_quantized(k->plan, ROLE_GATE, k->layer);
	return nothing(k, "ffn_down", is_quantized(k->plan, ROLE_UP, k->layer) && gate ? NULL : "ffn_up or ffn_gate is not quantized");
}

/* Without a gate up's rows go through the activation, which is not linear. */
static bool scales_up(const struct look *k)
{
	char text[160];
	struct block b;
	block_make(k->config, k->layer, &b);
	const struct source_of s = block_source(k->config, &b, ROLE_DOWN);
	return nothing(k, "scales of ffn_down", s.role != ROLE_UP ? skips_source(&s, text) :
				    plan_find(k->plan, ROLE_UP_BIAS, k->layer) ? "ffn_up has a bias, which would have to be rounded" : NULL);
}

/* ---- looking */

static void keep_rows(const struct look *k, const float *x, size_t n, size_t dim, float *kept)
{
	size_t at = k->tokens;
	for (size_t i = 0; i < n && at < SAMPLE; i += k->stride, at++)
		memcpy(kept + at * dim, x + i * dim, dim * sizeof *x);
}

static void see_input(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct look *k = arg;
	(void)layer;
	if (r == ROLE_DOWN || r == ROLE_O)
		keep_rows(k, x, n, dim, r == ROLE_DOWN ? k->x_down : k->x_o);
}

static int see_output(void *arg, size_t first, size_t count, const float *output, struct err *e)
{
	struct look *k = arg;
	size_t width = k->config->hidden;
	(void)first;
	(void)e;
	for (size_t i = 0; i < count * k->ctx && k->tokens < SAMPLE; i += k->stride) {
		double sum = 0;
		for (size_t j = 0; j < width; j++)
			sum += (double)output[i * width + j] * output[i * width + j];
		k->weight[k->tokens++] = sum > 0 && isfinite(sum) ? (float)((double)width / sum) : 0;
	}
	return ERR_OK;
}

/* ---- choosing */

static int ascending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

/*
 * From mean squares to scales, their geometric mean 1: large channels get large ones. False where there is nothing to
 * go by.
 */
static bool to_scales(const double *square, size_t n, double power, float *scale)
{
	double mean = 0;
	for (size_t i = 0; i < n; i++) {
		scale[i] = (float)sqrt(square[i]);
		if (!isfinite(scale[i]))
			return false;
	}
	float *sorted = malloc(n * sizeof *sorted);
	if (!sorted)
		return false;
	memcpy(sorted, scale, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, ascending);
	float least = (float)LEAST * sorted[n / 2];
	free(sorted);
	if (!(least > 0))
		return false;
	for (size_t i = 0; i < n; i++) {
		scale[i] = powf(scale[i] > least ? scale[i] : least, (float)power);
		mean += log(scale[i]);
	}
	mean = exp(mean / (double)n);
	for (size_t i = 0; i < n; i++)
		scale[i] = (float)(scale[i] / mean);
	return true;
}

static void mean_squares(const struct look *k, const float *x, size_t dim, size_t channels, const uint32_t *channel_of, double *square)
{
	memset(square, 0, channels * sizeof *square);
	for (size_t t = 0; t < k->tokens; t++)
		for (size_t i = 0; i < dim; i++)
			square[channel_of ? channel_of[i] : i] += (double)k->weight[t] * x[t * dim + i] * x[t * dim + i];
}

static int choose_v(const struct look *k, struct layer_channels *l, struct err *e)
{
	size_t n = (size_t)k->config->layer[k->layer].kv_heads * k->config->head_dim;
	uint32_t *channel = malloc(k->heads * sizeof *channel);
	double *square = malloc(n * sizeof *square);
	l->v = malloc(n * sizeof *l->v);
	l->o = malloc(k->heads * sizeof *l->o);
	int rc = channel && square && l->v && l->o ? ERR_OK : err_nomem(e);
	for (size_t i = 0; i < k->heads && !rc; i++)
		channel[i] = (uint32_t)config_v_row(k->config, k->layer, i);
	bool some = false;
	if (!rc) {
		mean_squares(k, k->x_o, k->heads, n, channel, square);
		some = to_scales(square, n, exponent(plan_find(k->plan, ROLE_O, k->layer)->out.codec), l->v);
	}
	for (size_t i = 0; i < k->heads && some; i++)
		l->o[i] = l->v[channel[i]];
	if (!some) {
		free(l->v);
		free(l->o);
		l->v = l->o = NULL;
	}
	free(channel);
	free(square);
	return rc;
}

/* The grouping of channels into blocks of activations while it is improved. */
struct blocks {
	size_t n, count, tokens;
	const float *weight;     /* [tokens] */
	float *z;                /* [n, tokens] magnitudes, scaled */
	double *columns;         /* [n] squared norms of down's columns, scaled back */
	uint32_t *member;        /* [count, BLOCK] */
	float *first, *second;   /* [count, tokens] largest and second largest magnitude */
	double *norm, *cost;     /* [count] sum of columns; what its rounding costs: mean largest^2, weighted, times norm */
};

static void see_magnitude(float z, float *first, float *second)
{
	float low = z < *first ? z : *first;
	*first = z > *first ? z : *first;
	*second = low > *second ? low : *second;
}

static void fill_block(struct blocks *b, size_t block)
{
	const uint32_t *member = b->member + block * BLOCK;
	float *first = b->first + block * b->tokens, *second = b->second + block * b->tokens;
	memset(first, 0, b->tokens * sizeof *first);
	memset(second, 0, b->tokens * sizeof *second);
	for (size_t i = 0; i < BLOCK; i++) {
		const float *z = b->z + member[i] * b->tokens;
		b->norm[block] += b->columns[member[i]];
		for (size_t t = 0; t < b->tokens; t++)
			see_magnitude(z[t], &first[t], &second[t]);
	}
}

/* Where the one that leaves was among the two largest, the others are looked through. */
static void exchange(struct blocks *b, size_t block, size_t place, uint32_t in)
{
	uint32_t *member = b->member + block * BLOCK, out = member[place];
	float *first = b->first + block * b->tokens, *second = b->second + block * b->tokens;
	const float *gone = b->z + out * b->tokens, *come = b->z + in * b->tokens;
	member[place] = in;
	b->norm[block] += b->columns[in] - b->columns[out];
	for (size_t t = 0; t < b->tokens; t++) {
		if (gone[t] < second[t]) {
			see_magnitude(come[t], &first[t], &second[t]);
			continue;
		}
		first[t] = second[t] = 0;
		for (size_t i = 0; i < BLOCK; i++)
			see_magnitude(b->z[member[i] * b->tokens + t], &first[t], &second[t]);
	}
}

/* Mean square of a block's largest magnitude, when channel `out` leaves and `in` comes. */
static double cost_after(const struct blocks *b, size_t block, uint32_t out, uint32_t in)
{
	const float *first = b->first + block * b->tokens, *second = b->second + block * b->tokens;
	const float *gone = b->z + out * b->tokens, *come = b->z + in * b->tokens;
	float sum[8] = { 0 };
	for (size_t t = 0; t + 8 <= b->tokens; t += 8)
		for (size_t i = 0; i < 8; i++) {
			float rest = gone[t + i] >= first[t + i] ? second[t + i] : first[t + i];
			float most = come[t + i] > rest ? come[t + i] : rest;
			sum[i] += b->weight[t + i] * most * most;
		}
	double all = 0;
	for (size_t i = 0; i < 8; i++)
		all += (double)sum[i];
	return all * (b->norm[block] - b->columns[out] + b->columns[in]);
}

static void improve(struct blocks *b)
{
	struct rng rng = { 1 };
	for (size_t i = 0; i < b->count; i++) {
		fill_block(b, i);
		b->cost[i] = cost_after(b, i, b->member[i * BLOCK], b->member[i * BLOCK]);
	}
	for (size_t i = 0; i < SWAPS * b->n && b->count > 1; i++) {
		size_t p = rng_below(&rng, b->n), q = rng_below(&rng, b->n), from = p / BLOCK, to = q / BLOCK;
		uint32_t x = b->member[p], y = b->member[q];
		if (from == to)
			continue;
		double a = cost_after(b, from, x, y), c = cost_after(b, to, y, x);
		if (!(a + c < b->cost[from] + b->cost[to]))
			continue;
		exchange(b, from, p % BLOCK, y);
		exchange(b, to, q % BLOCK, x);
		b->cost[from] = a;
		b->cost[to] = c;
	}
}

static int column_squares(const struct look *k, const float *scale, double *square, struct err *e)
{
	const struct tensor *meta;
	float *w;
	int rc = source_read_f32(k->source, plan_find(k->plan, ROLE_DOWN, k->layer)->out.name, &w, &meta, e);
	if (rc)
		return rc;
	for (size_t r = 0; r < (size_t)tensor_rows(meta); r++)
		for (size_t i = 0; i < k->ffn; i++) {
			double x = (double)w[r * k->ffn + i] * (scale ? scale[i] : 1);
			square[i] += x * x;
		}
	free(w);
	return ERR_OK;
}

static int group(const struct look *k, const float *scale, uint32_t *order, struct err *e)
{
	size_t n = k->ffn;
	struct blocks b = { .n = n, .count = n / BLOCK, .tokens = k->tokens, .weight = k->weight, .member = order };
	b.z = malloc(n * k->tokens * sizeof *b.z);
	b.columns = calloc(n, sizeof *b.columns);
	b.first = malloc(b.count * k->tokens * sizeof *b.first);
	b.second = malloc(b.count * k->tokens * sizeof *b.second);
	b.norm = calloc(b.count, sizeof *b.norm);
	b.cost = malloc(b.count * sizeof *b.cost);
	int rc = b.z && b.columns && b.first && b.second && b.norm && b.cost ? column_squares(k, scale, b.columns, e) : err_nomem(e);
	if (!rc) {
		for (size_t i = 0; i < n; i++)
			for (size_t t = 0; t < k->tokens; t++)
				b.z[i * k->tokens + t] = fabsf(k->x_down[t * n + i]) / (scale ? scale[i] : 1);
		improve(&b);
	}
	free(b.z);
	free(b.columns);
	free(b.first);
	free(b.second);
	free(b.norm);
	free(b.cost);
	return rc;
}

static int choose_ffn(const struct look *k, struct layer_channels *l, struct err *e)
{
	size_t n = k->ffn;
	double *square = malloc(n * sizeof *square);
	float *scale = malloc(n * sizeof *scale);
	l->order = malloc(n * sizeof *l->order);
	int rc = square && scale && l->order ? ERR_OK : err_nomem(e);
	if (!rc) {
		mean_squares(k, k->x_down, n, n, NULL, square);
		bool scaled = scales_up(k) && to_scales(square, n, exponent(plan_find(k->plan, ROLE_DOWN, k->layer)->out.codec), scale);
		for (uint32_t i = 0; i < n; i++)
			l->order[i] = i;
		rc = group(k, scaled ? scale : NULL, l->order, e);
		if (!rc && scaled && !(l->down = malloc(n * sizeof *l->down)))
			rc = err_nomem(e);
		for (size_t i = 0; i < n && scaled && !rc; i++)
			l->down[i] = scale[l->order[i]];
	}
	free(square);
	free(scale);
	return rc;
}

/* ---- the arranged model */

static int set_maps(struct arrangement *a, struct tensor_source *source, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < source->count && !rc; i++) {
		uint32_t layer = 0;
		enum role r = role_from_hf(a->config->arch, source->tensors[i].name, &layer);
		if (r >= ROLE_COUNT || !role_rows[r].per_layer || layer >= a->config->layers)
			continue;
		const struct layer_channels *l = &a->layers[layer];
		struct channel_map m = { 0 };
		switch (r) {
		case ROLE_UP: m = (struct channel_map){ .row_order = l->order, .row_scale = l->down }; break;
		case ROLE_GATE:
		case ROLE_GATE_BIAS:
		case ROLE_UP_BIAS: m.row_order = l->order; break;
		case ROLE_DOWN: m = (struct channel_map){ .column_order = l->order, .column_scale = l->down }; break;
		case ROLE_V: m.row_scale = l->v; break;
		case ROLE_O: m.column_scale = l->o; break;
		default: continue;
		}
		rc = channels_set(a->channels, i, &m, e);
	}
	return rc;
}

static int look_init(struct look *k, const struct windows *text, struct err *e)
{
	struct config_widths w = config_widths(k->config);
	k->ctx = text->ctx;
	k->stride = (text->count * text->ctx + SAMPLE - 1) / SAMPLE;
	k->x_down = malloc(SAMPLE * w.ffn * sizeof *k->x_down);
	k->x_o = malloc(SAMPLE * w.q * sizeof *k->x_o);
	k->weight = malloc(SAMPLE * sizeof *k->weight);
	return k->x_down && k->x_o && k->weight ? ERR_OK : err_nomem(e);
}

static int one_layer(struct arrangement *a, struct look *k, struct stream *s, struct err *e)
{
	const struct layer_config *l = &k->config->layer[k->layer];
	const struct model_tap tap = { .input = see_input, .arg = k };
	const struct stream_visit v = { .tap = &tap, .done = see_output, .arg = k, .keep = true };
	k->ffn = l->ffn;
	k->heads = (size_t)l->heads * k->config->head_dim;
	k->tokens = 0;
	int rc = stream_layer(s, k->layer, 0, s->text->count, &v, e);
	if (!rc && scales_v(k))
		rc = choose_v(k, &a->layers[k->layer], e);
	if (!rc && orders_ffn(k))
		rc = choose_ffn(k, &a->layers[k->layer], e);
	return rc;
}

/* The text's windows come in random order: the first few speak for all. */
static struct windows first_windows(const struct windows *text)
{
	struct windows w = *text;
	size_t most = LOOK_TOKENS / text->ctx ? LOOK_TOKENS / text->ctx : 1;
	w.count = w.count < most ? w.count : most;
	return w;
}

static int look_at_layers(struct arrangement *a, struct look *k, const struct windows *text, const struct progress *progress,
			  struct err *e)
{
	struct model *m = NULL;
	struct stream s = { 0 };
	int rc = model_open(k->config, k->source, &m, e);
	if (!rc)
		rc = stream_open(&s, m, text, e);
	if (!rc)
		rc = look_init(k, text, e);
	for (k->layer = 0; k->layer < k->config->layers && !rc; k->layer++) {
		rc = one_layer(a, k, &s, e);
		if (!rc && !progress_tell(progress, k->layer + 1, k->config->layers))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	if (s.model)
		stream_close(&s);
	model_close(m);
	free(k->x_down);
	free(k->x_o);
	free(k->weight);
	return rc;
}

int arrangement_new(const struct quant_job *job, struct arrangement **out, struct err *e)
{
	struct arrangement *a = calloc(1, sizeof *a);
	if (!a)
		return err_nomem(e);
	struct look k = { .config = job->config, .source = job->source, .plan = job->plan, .skips = job->skips };
	struct windows w = first_windows(job->text);
	a->config = job->config;
	a->layers = calloc(a->config->layers, sizeof *a->layers);
	a->channels = channels_new(job->source, e);
	int rc = !a->channels ? e->code : !a->layers ? err_nomem(e) : look_at_layers(a, &k, &w, job->progress, e);
	if (!rc)
		rc = set_maps(a, job->source, e);
	if (rc)
		arrangement_free(a);
	else
		*out = a;
	return rc;
}

void arrangement_free(struct arrangement *a)
{
	if (!a)
		return;
	for (uint32_t i = 0; a->layers && i < a->config->layers; i++) {
		free(a->layers[i].order);
		free(a->layers[i].down);
		free(a->layers[i].o);
		free(a->layers[i].v);
	}
	free(a->layers);
	channels_free(a->channels);
	free(a);
}

struct tensor_source *arrangement_source(struct arrangement *a)
{
	return channels_source(a->channels);
}

void arrangement_input(const struct arrangement *a, enum role r, uint32_t layer, float *x, size_t n, float *scratch)
{
	const struct layer_channels *l = &a->layers[layer];
	const uint32_t *order = r == ROLE_DOWN ? l->order : NULL;
	const float *scale = r == ROLE_DOWN ? l->down : r == ROLE_O ? l->o : NULL;
	if (!order && !scale)
		return;
	struct block b;
	block_make(a->config, layer, &b);
	size_t dim = block_width(&b, r);
	for (size_t t = 0; t < n; t++) {
		memcpy(scratch, x + t * dim, dim * sizeof *x);
		for (size_t i = 0; i < dim; i++)
			x[t * dim + i] = scratch[order ? order[i] : i] / (scale ? scale[i] : 1);
	}
}

uint64_t arrangement_memory(const struct config *c, uint64_t tokens, uint64_t ctx)
{
	const struct config_widths w = config_widths(c);
	uint64_t looked = tokens < LOOK_TOKENS ? tokens : LOOK_TOKENS;
	looked = looked < ctx ? ctx : looked;
	/* the stream and its batch with a layer's activations; the sample and its transpose with the largest of each block */
	return looked * c->hidden * 4 + 2048 * (4 * (uint64_t)c->hidden + 8 * ((uint64_t)w.ffn + w.q)) * 4 +
	       SAMPLE * (w.ffn * 2 + w.q + w.ffn / BLOCK * 2) * 4 + (uint64_t)c->hidden * w.ffn * 4;
}
