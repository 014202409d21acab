#include "calib/distill.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "calib/adam.h"
#include "calib/fold_weights.h"
#include "calib/quantizer_impl.h"
#include "codec/codec.h"
#include "model/layer_fit.h"

const struct distill_options distill_defaults = { .passes = 12, .batch = 8, .rate = 0.01, .scale_rate = 0.001, .held_out = 8 };

/* Rows of a matrix per piece of work. */
enum { ROWS = 16 };
/* How far from its code's level a latent starts at most, in distances of levels: half of one is the next code. */
static const float LEAN = 0.3f;
/* Floating-point operations that are worth it unasked: minutes on two cores. Fewer passes than LEAST gain nothing. */
static const double WORTH = 2e13;
enum { LEAST = 4 };
/* Fewer tokens are learned by heart, and too few of them are left to tell. */
enum { LEAST_TOKENS = 8192 };

/* A quantized matrix: what its codes are rounded from. */
struct latent {
	const struct plan_item *item;
	const struct codec *codec;
	const uint8_t *bytes;    /* as quantized, the overlay's */
	size_t rows, n, sub, subs; /* sub-block length; sub-blocks of a row */
	float *scale, *offset;   /* [rows, subs] as stored */
	float *scale0, *offset0; /* [rows, subs] as error feedback left them */
	float *u;                /* [rows, n] in units of levels: rounds to the code */
	float *turn;             /* [2, rows, subs] scale over scale0; what offset gained, in units of `reach` scales */
	float reach;             /* half the span of the levels */
	uint8_t *best;           /* bytes of the pass that is kept, or NULL */
	float *value, *grad;     /* [rows, stride] the layer's weights and their gradient */
	size_t stride;
	struct adam codes, scales;
};

struct layer {
	struct layer_weights w;
	struct latent latent[7];
	int count;
};

struct distiller {
	const struct config *c;
	const struct windows *text;
	const struct distill_options *o;
	struct tensor_source *source;
	struct overlay *out;
	struct model *model;     /* the original, for its norms, biases, embedding and head */
	struct layer_fit *fit;
	struct layer *layer;
	struct layer_weights grad; /* of one layer at a time */
	float *flat;             /* gradients of one matrix by its latents */
	float *flat_scales;      /* and by its scales and offsets */
	float *teacher;          /* [tokens, hidden] after the last layer */
	float *kept;             /* [layers + 1, batch tokens, hidden] what goes into each layer, and comes out of the last */
	float *d;                /* [batch tokens, hidden] */
	int32_t *tokens;         /* [batch tokens] */
	size_t fitted;           /* windows */
	plan_progress *progress;
	void *progress_arg;
	uint64_t done, total;
};

static bool takes(const struct plan_item *item)
{
	return quantizer_takes(item) && item->role != ROLE_HEAD;
}

static size_t held_windows(const struct windows *text, unsigned held_out)
{
	return text->count < held_out ? 1 : text->count / held_out;
}

const char *distill_refusal(const struct config *c, const struct plan *p, uint64_t windows)
{
	bool any = false;
	for (size_t i = 0; i < p->count; i++)
		any |= takes(&p->items[i]);
	if (!any)
		return "no matrix is quantized";
	if (windows < 2)
		return "a single window of text";
	return layer_fit_refusal(c);
}

static bool trained(enum role r)
{
	return r < ROLE_COUNT && role_rows[r].linear && r != ROLE_HEAD;
}

unsigned distill_passes(const struct config *c, const struct plan *p, uint64_t tokens)
{
	double weights = (double)c->vocab * c->hidden;
	if (tokens < LEAST_TOKENS)
		return 0;
	for (size_t i = 0; i < p->count; i++)
		weights += trained(p->items[i].role) ? (double)tensor_elements(&p->items[i].out) : 0;
	/* two operations a weight, in two forward passes and twice as much backward */
	double passes = WORTH / (8 * weights * (double)tokens);
	return passes < LEAST ? 0 : passes < distill_defaults.passes ? (unsigned)passes : distill_defaults.passes;
}

uint64_t distill_memory(const struct config *c, const struct plan *p, uint64_t tokens, uint64_t ctx)
{
	uint64_t batch = distill_defaults.batch * ctx, weights = 0, codes = 0, widest = 0;
	for (size_t i = 0; i < p->count; i++) {
		uint64_t n = tensor_elements(&p->items[i].out);
		if (!trained(p->items[i].role))
			continue;
		weights += 4 * n;
		widest = n > widest ? n : widest;
		/* latents with Adam's two moments, parameters of sub-blocks of 16 likewise, and the bytes of the pass that is kept */
		codes += takes(&p->items[i]) ? 12 * n + 10 * 4 * n / 16 + p->items[i].out.nbytes : 0;
	}
	/* gradients of a layer and of the latents of its widest matrix; hidden states of the original, and between layers */
	return weights + codes + (7 + 1 + 1) * 4 * widest + 4 * c->hidden * (tokens + (c->layers + 3) * batch) +
	       layer_fit_memory(c, distill_defaults.batch, ctx);
}

/* ---- latents */

static float level_gap(const struct codec *c)
{
	int last = (1 << c->bits) - 1;
	return c->levels ? (c->levels[last] - c->levels[0]) / (float)last : 1;
}

static float level_end(const struct codec *c, bool high)
{
	int last = (1 << c->bits) - 1;
	return c->levels ? c->levels[high ? last : 0] : (float)((high ? last : 0) + c->code_bias);
}

struct sweep {
	struct latent *l;
	const float *original;   /* [rows, n] */
	uint8_t *bytes;
	float *flat, *flat_scales;
	atomic_ullong moved;     /* codes */
	atomic_int failed;
};

/* Runs fn over pieces of a matrix's rows. */
static int each_row(struct sweep *s, void (*fn)(void *, size_t, int), struct err *e)
{
	atomic_init(&s->moved, 0);
	atomic_init(&s->failed, 0);
	thread_for((s->l->rows + ROWS - 1) / ROWS, fn, s);
	return atomic_load(&s->failed) ? err_nomem(e) : ERR_OK;
}

static size_t row_end(const struct latent *l, size_t item)
{
	return (item + 1) * ROWS < l->rows ? (item + 1) * ROWS : l->rows;
}

/*
 * A latent starts in its code's interval, on the side on which the original weight lies: a code that was a close decision
 * needs less to change.
 */
static void read_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	size_t row_bytes = (size_t)codec_row_bytes(c, l->n);
	float gap = level_gap(c);
	uint8_t *codes = malloc(l->n);
	(void)worker;
	for (size_t r = item * ROWS; codes && r < row_end(l, item); r++) {
		const uint8_t *src = l->bytes + r * row_bytes;
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			len = codec_block_len(c, at, l->n);
			c->unpack(c, src, &p, codes + at, len);
			src += codec_row_bytes(c, len);
			for (size_t i = 0; i < len; i += l->sub) {
				l->scale0[r * l->subs + (at + i) / l->sub] = p.scale[i / l->sub];
				l->offset0[r * l->subs + (at + i) / l->sub] = p.offset[i / l->sub];
			}
		}
		for (size_t i = 0; i < l->n; i++) {
			float scale = l->scale0[r * l->subs + i / l->sub], offset = l->offset0[r * l->subs + i / l->sub];
			float level = codec_value(c, 1, 0, codes[i]), lean = scale != 0 ? (s->original[r * l->n + i] - offset) / scale - level : 0;
			float most = LEAN * gap;
			lean = lean > most ? most : lean < -most ? -most : lean;
			l->u[r * l->n + i] = level + (isfinite(lean) ? lean : 0);
		}
	}
	if (!codes)
		atomic_store(&s->failed, 1);
	free(codes);
}

/* The parameters of the block at element `at` of a row, as the format can hold them. */
static void block_of(const struct latent *l, size_t r, size_t at, size_t len, struct block_params *p)
{
	size_t first = r * l->subs + at / l->sub, count = (len + l->sub - 1) / l->sub, all = l->rows * l->subs;
	memset(p, 0, sizeof *p);
	for (size_t k = 0; k < count; k++) {
		float scale = l->scale0[first + k];
		p->scale[k] = scale * l->turn[first + k];
		p->offset[k] = l->offset0[first + k] + scale * l->reach * l->turn[all + first + k];
	}
	l->codec->store(l->codec, p, len);
}

/* Latents to the layer's weights; latents that left the grid come back to its end. */
static void round_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	float lo = level_end(c, false), hi = level_end(c, true);
	uint8_t codes[CODEC_MAX_BLOCK];
	(void)worker;
	for (size_t r = item * ROWS; r < row_end(l, item); r++) {
		float *u = l->u + r * l->n, *value = l->value + r * l->stride;
		for (size_t i = 0; i < l->n; i++)
			u[i] = u[i] < lo ? lo : u[i] > hi ? hi : u[i];
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			len = codec_block_len(c, at, l->n);
			block_of(l, r, at, len, &p);
			for (size_t k = 0; k * l->sub < len; k++) {
				l->scale[r * l->subs + at / l->sub + k] = p.scale[k];
				l->offset[r * l->subs + at / l->sub + k] = p.offset[k];
			}
		}
		for (size_t at = 0, len; at < l->n; at += len) {
			size_t k = at / l->sub, end = (k + 1) * l->sub < l->n ? (k + 1) * l->sub : l->n;
			len = end - at < sizeof codes ? end - at : sizeof codes;
			codec_round_run(c, 1, 0, u + at, len, codes);
			for (size_t i = 0; i < len; i++)
				value[at + i] = codec_value(c, l->scale[r * l->subs + k], l->offset[r * l->subs + k], codes[i]);
		}
	}
}

/* By the latents, and with the codes as they are by the scales and offsets. */
static void scale_gradient(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	size_t all = l->rows * l->subs;
	(void)worker;
	for (size_t r = item * ROWS; r < row_end(l, item); r++)
		for (size_t k = 0; k < l->subs; k++) {
			size_t at = r * l->subs + k, end = (k + 1) * l->sub < l->n ? (k + 1) * l->sub : l->n;
			const float *grad = l->grad + r * l->stride, *value = l->value + r * l->stride;
			float scale = l->scale[at], offset = l->offset[at];
			double by_value = 0, sum = 0;
			for (size_t i = k * l->sub; i < end; i++) {
				s->flat[r * l->n + i] = grad[i] * scale;
				by_value += (double)grad[i] * (value[i] - offset);
				sum += grad[i];
			}
			s->flat_scales[at] = (float)by_value;
			s->flat_scales[all + at] = l->codec->has_offset ? (float)(sum * scale * l->reach) : 0;
		}
}

/* The bytes that the latents stand for, and how many codes are not those that error feedback chose. */
static void pack_rows(void *arg, size_t item, int worker)
{
	struct sweep *s = arg;
	struct latent *l = s->l;
	const struct codec *c = l->codec;
	size_t row_bytes = (size_t)codec_row_bytes(c, l->n);
	uint8_t *codes = malloc(2 * l->n), *was = codes ? codes + l->n : NULL;
	(void)worker;
	if (!codes) {
		atomic_store(&s->failed, 1);
		return;
	}
	unsigned long long moved = 0;
	for (size_t r = item * ROWS; r < row_end(l, item); r++) {
		const uint8_t *src = l->bytes + r * row_bytes;
		uint8_t *dst = s->bytes + r * row_bytes;
		codec_round_run(c, 1, 0, l->u + r * l->n, l->n, codes);
		for (size_t at = 0, len; at < l->n; at += len) {
			struct block_params p;
			len = codec_block_len(c, at, l->n);
			c->unpack(c, src, &p, was, len);
			block_of(l, r, at, len, &p);
			c->pack(c, &p, codes + at, len, dst);
			for (size_t i = 0; i < len; i++)
				moved += was[i] != codes[at + i];
			src += codec_row_bytes(c, len);
			dst += codec_row_bytes(c, len);
		}
	}
	atomic_fetch_add(&s->moved, moved);
	free(codes);
}

static int latent_open(struct distiller *d, struct latent *l, const struct plan_item *item, float *value, float *grad, size_t stride,
		       int steps, struct err *e)
{
	struct tensor_source *quantized = overlay_source(d->out);
	const struct tensor *t = source_find(quantized, item->out.name), *meta;
	struct tensor_bytes bytes;
	float *original = NULL;
	if (!t || t->codec != item->out.codec)
		return err_set(e, ERR_BUG, "%s is not quantized", item->out.name);
	int rc = quantized->get(quantized, source_position(quantized, t), &bytes, e);
	if (rc)
		return rc;
	*l = (struct latent){ .item = item, .codec = t->codec, .bytes = bytes.data, .rows = (size_t)tensor_rows(t), .n = (size_t)tensor_cols(t),
			      .value = value, .grad = grad, .stride = stride };
	l->sub = l->codec->sub ? l->codec->sub : l->codec->block ? l->codec->block : l->n;
	l->subs = (l->n + l->sub - 1) / l->sub;
	l->reach = (level_end(l->codec, true) - level_end(l->codec, false)) / 2;
	size_t all = l->rows * l->subs;
	l->scale = malloc(all * sizeof *l->scale);
	l->offset = malloc(all * sizeof *l->offset);
	l->scale0 = malloc(all * sizeof *l->scale0);
	l->offset0 = malloc(all * sizeof *l->offset0);
	l->turn = malloc(2 * all * sizeof *l->turn);
	l->u = malloc(l->rows * l->n * sizeof *l->u);
	if (!l->scale || !l->offset || !l->scale0 || !l->offset0 || !l->turn || !l->u)
		return err_nomem(e);
	for (size_t i = 0; i < all; i++) {
		l->turn[i] = 1;
		l->turn[all + i] = 0;
	}
	rc = source_read_f32(d->source, item->out.name, &original, &meta, e);
	struct sweep s = { .l = l, .original = original };
	if (!rc)
		rc = each_row(&s, read_rows, e);
	free(original);
	if (!rc)
		rc = each_row(&s, round_rows, e);
	if (!rc)
		rc = adam_init(&l->codes, 1, steps, d->o->rate, e);
	if (!rc)
		rc = adam_add(&l->codes, l->u, d->flat, l->rows * l->n, e);
	if (!rc)
		rc = adam_init(&l->scales, 1, steps, d->o->scale_rate, e);
	if (!rc)
		rc = adam_add(&l->scales, l->turn, d->flat_scales, 2 * all, e);
	if (!rc) {
		l->codes.matrix[0].scale = (double)level_gap(l->codec);
		l->scales.matrix[0].scale = 1;
	}
	return rc;
}

static void latent_close(struct latent *l)
{
	adam_release(&l->codes);
	adam_release(&l->scales);
	free(l->scale);
	free(l->offset);
	free(l->scale0);
	free(l->offset0);
	free(l->turn);
	free(l->u);
	free(l->best);
}

/* ---- layers */

static int read_matrix(const struct distiller *d, enum role r, uint32_t layer, float **out, struct err *e)
{
	char name[96];
	const struct tensor *meta;
	return source_read_f32(overlay_source(d->out), role_hf_name(d->c->arch, r, layer, name), out, &meta, e);
}

/* Gradients for the widest of each matrix. */
static int gradients_new(struct distiller *d, struct err *e)
{
	struct layer_weights *g = &d->grad;
	struct attention_weights most = d->layer[0].w.attention;
	size_t ffn = 0, flat = 0;
	for (uint32_t i = 0; i < d->c->layers; i++) {
		const struct attention_weights *a = &d->layer[i].w.attention;
		most.heads = a->heads > most.heads ? a->heads : most.heads;
		most.kv_heads = a->kv_heads > most.kv_heads ? a->kv_heads : most.kv_heads;
		ffn = d->c->layer[i].ffn > ffn ? d->c->layer[i].ffn : ffn;
	}
	int rc = attention_weights_new(&g->attention, &most, most.kv_heads, e);
	for (int i = 0; i < 4 && !rc; i++)
		flat = attention_weights_count(&most, i) > flat ? attention_weights_count(&most, i) : flat;
	flat = ffn * d->c->hidden > flat ? ffn * d->c->hidden : flat;
	g->gate = malloc(ffn * d->c->hidden * sizeof *g->gate);
	g->up = malloc(ffn * d->c->hidden * sizeof *g->up);
	g->down = malloc(ffn * d->c->hidden * sizeof *g->down);
	d->flat = malloc(flat * sizeof *d->flat);
	d->flat_scales = malloc(2 * flat * sizeof *d->flat_scales);
	return rc ? rc : g->gate && g->up && g->down && d->flat && d->flat_scales ? ERR_OK : err_nomem(e);
}

static int layer_latents(struct distiller *d, const struct plan *p, uint32_t at, int steps, struct err *e)
{
	struct layer *l = &d->layer[at];
	struct attention_weights *a = &l->w.attention, *g = &d->grad.attention;
	const struct {
		enum role role;
		float *value, *grad;
		size_t stride;
	} part[] = {
		{ ROLE_Q, a->q, g->q, a->cols }, { ROLE_K, a->k, g->k, a->cols }, { ROLE_V, a->v, g->v, a->cols },
		{ ROLE_O, a->o, g->o, (size_t)a->heads * a->dim }, { ROLE_GATE, l->w.gate, d->grad.gate, a->hidden },
		{ ROLE_UP, l->w.up, d->grad.up, a->hidden }, { ROLE_DOWN, l->w.down, d->grad.down, d->c->layer[at].ffn },
	};
	for (size_t i = 0; i < sizeof part / sizeof *part; i++)
		for (size_t k = 0; k < p->count; k++) {
			const struct plan_item *item = &p->items[k];
			if (item->role != part[i].role || item->layer != at || !takes(item))
				continue;
			int rc = latent_open(d, &l->latent[l->count++], item, part[i].value, part[i].grad, part[i].stride, steps, e);
			if (rc)
				return rc;
		}
	return ERR_OK;
}

static int layer_open(struct distiller *d, uint32_t at, struct err *e)
{
	struct layer *l = &d->layer[at];
	int rc = fold_weights_read(d->c, overlay_source(d->out), at, &l->w.attention, e);
	if (!rc)
		rc = read_matrix(d, ROLE_GATE, at, &l->w.gate, e);
	if (!rc)
		rc = read_matrix(d, ROLE_UP, at, &l->w.up, e);
	return rc ? rc : read_matrix(d, ROLE_DOWN, at, &l->w.down, e);
}

static void layer_close(struct layer *l)
{
	for (int i = 0; i < l->count; i++)
		latent_close(&l->latent[i]);
	attention_weights_release(&l->w.attention);
	free(l->w.gate);
	free(l->w.up);
	free(l->w.down);
}

/* ---- steps */

static int tick(struct distiller *d, size_t windows, struct err *e)
{
	d->done += windows * d->text->ctx;
	return !d->progress || d->progress(d->progress_arg, d->done, d->total) ? ERR_OK : err_set(e, ERR_IO, "interrupted");
}

static int run_teacher(struct distiller *d, struct err *e)
{
	size_t ctx = d->text->ctx;
	struct model_run *run = model_run_new(d->model, d->o->batch, ctx, e);
	int rc = run ? ERR_OK : e->code;
	for (size_t at = 0, n; at < d->text->count && !rc; at += n) {
		n = d->text->count - at < d->o->batch ? d->text->count - at : d->o->batch;
		rc = model_forward(run, d->text->tokens + at * ctx, n, ctx, NULL, NULL, d->teacher + at * ctx * d->c->hidden, e);
		if (!rc)
			rc = tick(d, n, e);
	}
	model_run_free(run);
	return rc;
}

/* Runs the student over windows, and leaves the teacher's last hidden states for them in `teacher`. */
static int run_student(struct distiller *d, const size_t *window, size_t count, float *teacher, struct err *e)
{
	size_t ctx = d->text->ctx, size = ctx * d->c->hidden, all = d->o->batch * size;
	for (size_t i = 0; i < count; i++) {
		memcpy(d->tokens + i * ctx, d->text->tokens + window[i] * ctx, ctx * sizeof *d->tokens);
		memcpy(teacher + i * size, d->teacher + window[i] * size, size * sizeof *teacher);
	}
	int rc = model_embed(d->model, d->tokens, count * ctx, d->kept, e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++) {
		memcpy(d->kept + (i + 1) * all, d->kept + i * all, count * size * sizeof *d->kept);
		rc = layer_fit_forward(d->fit, i, &d->layer[i].w, d->kept + (i + 1) * all, count, e);
	}
	return rc;
}

static int update(struct distiller *d, struct layer *l, struct err *e)
{
	int rc = ERR_OK;
	for (int i = 0; i < l->count && !rc; i++) {
		struct sweep s = { .l = &l->latent[i], .flat = d->flat, .flat_scales = d->flat_scales };
		rc = each_row(&s, scale_gradient, e);
		adam_step(&l->latent[i].codes);
		adam_step(&l->latent[i].scales);
		if (!rc)
			rc = each_row(&s, round_rows, e);
	}
	return rc;
}

static int one_step(struct distiller *d, const size_t *window, size_t count, float *teacher, struct err *e)
{
	size_t all = d->o->batch * d->text->ctx * d->c->hidden;
	double kl;
	int rc = run_student(d, window, count, teacher, e);
	if (!rc)
		rc = layer_fit_divergence(d->fit, teacher, d->kept + d->c->layers * all, count, 1 / (float)(count * d->text->ctx), d->d, &kl, e);
	for (uint32_t i = d->c->layers; i-- > 0 && !rc;) {
		rc = layer_fit_back(d->fit, i, &d->layer[i].w, d->kept + i * all, d->d, &d->grad, count, e);
		if (!rc)
			rc = update(d, &d->layer[i], e);
	}
	return rc ? rc : tick(d, count, e);
}

/* Mean KL on the windows held out. */
static int judge(struct distiller *d, float *teacher, double *out, struct err *e)
{
	size_t all = d->o->batch * d->text->ctx * d->c->hidden, window[64], tokens = (d->text->count - d->fitted) * d->text->ctx;
	int rc = ERR_OK;
	*out = 0;
	for (size_t at = d->fitted, n; at < d->text->count && !rc; at += n) {
		double kl = 0;
		n = d->text->count - at < d->o->batch ? d->text->count - at : d->o->batch;
		for (size_t i = 0; i < n; i++)
			window[i] = at + i;
		rc = run_student(d, window, n, teacher, e);
		if (!rc)
			rc = layer_fit_divergence(d->fit, teacher, d->kept + d->c->layers * all, n, 1, NULL, &kl, e);
		*out += kl / (double)tokens;
	}
	return rc;
}

static int keep_pass(struct distiller *d, struct distill_report *r, struct err *e)
{
	int rc = ERR_OK;
	r->moved = 0;
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < d->layer[i].count && !rc; k++) {
			struct latent *l = &d->layer[i].latent[k];
			if (!l->best && !(l->best = malloc(l->item->out.nbytes)))
				return err_nomem(e);
			struct sweep s = { .l = l, .bytes = l->best };
			rc = each_row(&s, pack_rows, e);
			r->moved += atomic_load(&s.moved);
		}
	return rc;
}

static void shuffle(size_t *order, size_t n, struct rng *rng)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = (size_t)rng_below(rng, i), was = order[i - 1];
		order[i - 1] = order[k];
		order[k] = was;
	}
}

static int train(struct distiller *d, size_t *order, float *teacher, struct distill_report *r, struct err *e)
{
	struct rng rng = { d->o->seed };
	int rc = judge(d, teacher, &r->before, e);
	r->after = r->before;
	for (size_t i = 0; i < d->fitted; i++)
		order[i] = i;
	for (unsigned pass = 1; pass <= d->o->passes && !rc; pass++) {
		double kl;
		shuffle(order, d->fitted, &rng);
		for (size_t at = 0, n; at < d->fitted && !rc; at += n) {
			n = d->fitted - at < d->o->batch ? d->fitted - at : d->o->batch;
			rc = one_step(d, order + at, n, teacher, e);
		}
		if (!rc)
			rc = judge(d, teacher, &kl, e);
		if (rc || !(kl < r->after))
			continue;
		r->after = kl;
		r->kept = pass;
		rc = keep_pass(d, r, e);
	}
	return rc;
}

/* The overlay takes the bytes over. */
static int put_results(struct distiller *d, struct err *e)
{
	int rc = ERR_OK;
	for (uint32_t i = 0; i < d->c->layers; i++)
		for (int k = 0; k < d->layer[i].count && !rc; k++) {
			struct latent *l = &d->layer[i].latent[k];
			if (l->best)
				rc = overlay_put(d->out, &l->item->out, l->best, e);
			l->best = NULL;
		}
	return rc;
}

static int distiller_open(struct distiller *d, const struct plan *p, struct err *e)
{
	size_t width = d->c->hidden, tokens = d->text->count * d->text->ctx, batch = d->o->batch * d->text->ctx;
	int steps = (int)((d->fitted + d->o->batch - 1) / d->o->batch * d->o->passes);
	int rc = model_open(d->c, d->source, &d->model, e);
	if (!rc)
		rc = layer_fit_new(d->model, d->o->batch, d->text->ctx, &d->fit, e);
	d->layer = calloc(d->c->layers, sizeof *d->layer);
	d->teacher = malloc(tokens * width * sizeof(float));
	d->kept = malloc((d->c->layers + 1) * batch * width * sizeof(float));
	d->d = malloc(batch * width * sizeof(float));
	d->tokens = malloc(batch * sizeof *d->tokens);
	if (!rc && (!d->layer || !d->teacher || !d->kept || !d->d || !d->tokens))
		rc = err_nomem(e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++)
		rc = layer_open(d, i, e);
	if (!rc)
		rc = gradients_new(d, e);
	for (uint32_t i = 0; i < d->c->layers && !rc; i++)
		rc = layer_latents(d, p, i, steps, e);
	return rc;
}

static void distiller_close(struct distiller *d)
{
	for (uint32_t i = 0; d->layer && i < d->c->layers; i++)
		layer_close(&d->layer[i]);
	free(d->layer);
	attention_weights_release(&d->grad.attention);
	free(d->grad.gate);
	free(d->grad.up);
	free(d->grad.down);
	free(d->flat);
	free(d->flat_scales);
	free(d->teacher);
	free(d->kept);
	free(d->d);
	free(d->tokens);
	layer_fit_free(d->fit);
	model_close(d->model);
}

int distill(const struct config *c, struct tensor_source *source, const struct plan *p, const struct windows *text,
	    const struct distill_options *o, struct overlay *out, struct distill_report *r, plan_progress *progress, void *progress_arg,
	    struct err *e)
{
	struct distiller d = { .c = c, .text = text, .o = o, .source = source, .out = out, .progress = progress, .progress_arg = progress_arg,
			       .fitted = text->count - held_windows(text, o->held_out) };
	d.total = (uint64_t)(text->count + o->passes * d.fitted) * text->ctx;
	*r = (struct distill_report){ 0 };
	int rc = distiller_open(&d, p, e);
	size_t *order = malloc(d.fitted * sizeof *order);
	float *teacher = malloc(o->batch * text->ctx * c->hidden * sizeof *teacher);
	if (!rc && (!order || !teacher))
		rc = err_nomem(e);
	if (!rc)
		rc = run_teacher(&d, e);
	if (!rc)
		rc = train(&d, order, teacher, r, e);
	for (uint32_t i = 0; i < c->layers && !rc; i++)
		for (int k = 0; k < d.layer[i].count; k++)
			r->codes += (uint64_t)d.layer[i].latent[k].rows * d.layer[i].latent[k].n;
	if (!rc)
		rc = put_results(&d, e);
	free(order);
	free(teacher);
	distiller_close(&d);
	return rc;
}
