#include "calib/fold/budget.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/change_cost.h"
#include "calib/fold/attention_fit.h"
#include "calib/fold/fold_layers.h"
#include "calib/fold/share.h"

enum { LEVELS = 32 /* more than any sensible number of heads has divisors */, F16 = 2 };

/* The counts that a layer may be folded to, and what each was measured to cost. */
struct ladder {
	uint32_t heads[LEVELS], count; /* descending, the first is what it has */
	double kl[LEVELS];
};

struct budget {
	const struct budget_request *r;
	struct config *c;        /* the plan so far */
	struct ladder *fold;     /* [layers] */
	double *share;           /* [layers] KL of reading the layer before it; INFINITY: cannot */
	double element;          /* bytes, of the cache that is planned for */
	double base;             /* KL before any step: that of windows */
	uint32_t *unwindowed;    /* [layers] windows that the model has; see alone */
	uint64_t done, total;
};

int budget_cache_find(const char *name, size_t dim, struct budget_cache *out, struct err *e)
{
	char k[48];
	const char *plus = strchr(name, '+');
	size_t n = plus ? (size_t)(plus - name) : strlen(name);
	if (!n || strlen(name) >= sizeof out->name)
		return err_set(e, ERR_USAGE, "'%.60s' is no codec for a KV cache; for example q8_0, q8_0+q4_0 (keys and values)", name);
	snprintf(k, sizeof k, "%.*s", (int)n, name);
	*out = (struct budget_cache){ 0 };
	snprintf(out->name, sizeof out->name, "%s", name);
	int rc = kv_codecs_find(&(struct kv_choice){ k, plus ? plus + 1 : NULL, false }, dim, &out->codecs, e);
	out->element = rc ? 0 : (double)(kv_codec_bytes(&out->codecs.k, dim) + kv_codec_bytes(&out->codecs.v, dim)) / (2 * (double)dim);
	return rc;
}

static uint64_t cache_bytes(const struct config *c, uint64_t tokens, double element)
{
	return (uint64_t)(config_kv_bytes(c, tokens, element) + 0.5);
}

static bool alike(const struct config *c, uint32_t a, uint32_t b)
{
	const struct layer_config *x = &c->layer[a], *y = &c->layer[b];
	return x->window == y->window && x->heads == y->heads && x->rope == y->rope && x->local == y->local;
}

/* One head in each layer that cannot read another one. */
uint64_t budget_smallest(const struct config *c, const struct budget_cache *cache, size_t caches, uint64_t tokens)
{
	double sum = 0, element = INFINITY;
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		uint64_t kept = l->window && l->window < tokens ? l->window : tokens;
		if (i && alike(c, i, i - 1) && l->kv_heads == c->layer[i - 1].kv_heads)
			continue;
		sum += 2.0 * (double)kept * c->head_dim;
	}
	for (size_t i = 0; i < caches; i++)
		element = cache[i].element < element ? cache[i].element : element;
	return (uint64_t)(sum * element + 0.5);
}

static int tell(struct budget *b, struct err *e)
{
	const struct budget_request *r = b->r;
	return progress_tell(r->job.progress, ++b->done, b->total) ? ERR_OK : err_set(e, ERR_IO, "interrupted");
}

static int damage(struct budget *b, struct tensor_source *s, const struct kv_codecs *kv, double *kl, struct err *e)
{
	const struct fold_job *j = &b->r->job;
	struct windows judges = windows_part(j->text, j->text->count - j->held, j->text->count);
	struct change_cost d;
	int rc = change_cost_measure(j->original, &(struct change){ b->c, s, kv }, &judges, &d, e);
	if (!rc)
		*kl = d.kl > 0 ? d.kl : 0;
	return rc ? rc : tell(b, e);
}

/* Heads folded as b->c has them, no layer shared. */
static int fold(struct budget *b, struct overlay *out, struct err *e)
{
	struct config *c = b->c;
	struct fold_options o = { .method = FOLD_PCA, .search = true, .stats = b->r->stats, .refit = refit_defaults };
	struct fold_report *report = calloc(c->layers, sizeof *report);
	uint32_t *source = malloc(c->layers * sizeof *source);
	int rc = report && source ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		source[i] = c->layer[i].kv_source;
		c->layer[i].kv_source = i;
	}
	struct fold_job job = b->r->job;
	job.to = c;
	job.out = out;
	job.progress = NULL;
	if (!rc)
		rc = fold_run(&job, &o, report, e);
	for (uint32_t i = 0; i < c->layers && source && report; i++)
		c->layer[i].kv_source = source[i];
	if (report)
		fold_report_release(report, c->layers);
	free(source);
	return rc;
}

static int share(struct budget *b, struct tensor_source *source, struct overlay *out, struct err *e)
{
	struct share_options o = { .method = SHARE_MATCH, .refit = refit_defaults, .residual = 1 };
	struct share_report *report = calloc(b->c->layers, sizeof *report);
	struct fold_job job = b->r->job;
	job.source = source;
	job.to = b->c;
	job.out = out;
	job.progress = NULL;
	int rc = report ? share_run(&job, &o, report, e) : err_nomem(e);
	if (report)
		share_report_release(report, b->c->layers);
	return rc;
}

/* KL of the model as b->c has it at this moment, in closed forms. */
static int measure(struct budget *b, const struct kv_codecs *kv, double *kl, struct err *e)
{
	struct overlay *folded = overlay_new(b->r->job.source, e), *shared = NULL;
	bool heads = false, layers = false;
	int rc = folded ? ERR_OK : e->code;
	for (uint32_t i = 0; i < b->c->layers; i++) {
		heads |= b->c->layer[i].kv_heads != b->fold[i].heads[0];
		layers |= b->c->layer[i].kv_source != i;
	}
	if (!rc && heads)
		rc = fold(b, folded, e);
	if (!rc && layers && !(shared = overlay_new(overlay_source(folded), e)))
		rc = e->code;
	if (!rc && layers)
		rc = share(b, overlay_source(folded), shared, e);
	if (!rc)
		rc = damage(b, overlay_source(layers ? shared : folded), kv, kl, e);
	overlay_free(shared);
	overlay_free(folded);
	return rc;
}

static void swap_windows(struct budget *b)
{
	for (uint32_t i = 0; i < b->c->layers; i++) {
		uint32_t w = b->c->layer[i].window;
		b->c->layer[i].window = b->unwindowed[i];
		b->unwindowed[i] = w;
	}
}

/* Without new windows: beside their KL that of one step would be lost in noise, or below zero. */
static int alone(struct budget *b, double *kl, struct err *e)
{
	swap_windows(b);
	int rc = measure(b, NULL, kl, e);
	swap_windows(b);
	return rc;
}

static int measure_layer(struct budget *b, uint32_t i, struct err *e)
{
	struct config *c = b->c;
	struct layer_config *l = &c->layer[i];
	struct ladder *f = &b->fold[i];
	int rc = ERR_OK;
	for (uint32_t k = 1; k < f->count && !rc; k++) {
		l->kv_heads = f->heads[k];
		rc = alone(b, &f->kl[k], e);
		/* fewer heads are never taken for better: that is noise */
		f->kl[k] = f->kl[k] > f->kl[k - 1] ? f->kl[k] : f->kl[k - 1];
	}
	l->kv_heads = f->heads[0];
	b->share[i] = INFINITY;
	if (rc || !i || !alike(c, i, i - 1) || f->heads[0] != b->fold[i - 1].heads[0])
		return rc;
	l->kv_source = i - 1;
	rc = alone(b, &b->share[i], e);
	l->kv_source = i;
	return rc;
}

static uint32_t level_of(const struct budget *b, uint32_t layer)
{
	uint32_t level = 0;
	while (b->fold[layer].heads[level] > b->c->layer[layer].kv_heads)
		level++;
	return level;
}

/* What fewer heads of an owner and its readers add. */
static double narrowing(const struct budget *b, uint32_t owner, uint32_t *heads)
{
	uint32_t level = level_of(b, owner);
	double sum = 0;
	if (level + 1 >= b->fold[owner].count)
		return INFINITY;
	*heads = b->fold[owner].heads[level + 1];
	for (uint32_t i = owner; i < b->c->layers; i++)
		if (b->c->layer[i].kv_source == owner)
			sum += b->fold[i].kl[level + 1] - b->fold[i].kl[level];
	return sum;
}

/* What it adds when an owner and its readers read the owner before them: each is one layer farther from what it reads. */
static double joining(const struct budget *b, uint32_t owner, uint32_t *to)
{
	double sum = 0;
	*to = owner ? b->c->layer[owner - 1].kv_source : 0;
	if (!owner || b->c->layer[*to].kv_heads != b->c->layer[owner].kv_heads)
		return INFINITY;
	for (uint32_t i = owner; i < b->c->layers; i++)
		if (b->c->layer[i].kv_source == owner)
			sum += b->share[i];
	for (uint32_t i = *to + 1; i < owner; i++) /* farther than was measured */
		sum += b->share[i];
	return sum;
}

static void apply(struct config *c, uint32_t owner, uint32_t heads, uint32_t to)
{
	for (uint32_t i = c->layers; i-- > owner;)
		if (c->layer[i].kv_source == owner) {
			c->layer[i].kv_heads = heads;
			c->layer[i].kv_source = to;
		}
}

/* The step of least KL per byte; false when there is none left. */
static bool next_step(const struct budget *b, struct budget_step *best)
{
	const struct config *c = b->c;
	uint64_t tokens = b->r->tokens;
	double least = INFINITY;
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		double head = 2.0 * b->element * c->head_dim * (double)(l->window && l->window < tokens ? l->window : tokens);
		uint32_t to, heads = 0;
		if (l->kv_source != i)
			continue;
		double fewer = narrowing(b, i, &heads) / (head * (l->kv_heads - heads)), join = joining(b, i, &to) / (head * l->kv_heads);
		if (fewer < least) {
			least = fewer;
			*best = (struct budget_step){ .layer = i, .kv_heads = heads, .source = i, .kl = narrowing(b, i, &heads) };
		}
		if (join < least) {
			least = join;
			*best = (struct budget_step){ .layer = i, .kv_heads = l->kv_heads, .source = to, .kl = joining(b, i, &to) };
		}
	}
	return isfinite(least);
}

static void reset(struct budget *b)
{
	for (uint32_t i = 0; i < b->c->layers; i++) {
		b->c->layer[i].kv_heads = b->fold[i].heads[0];
		b->c->layer[i].kv_source = i;
	}
}

/* With the cache in one codec. ERR_USAGE when steps end before the budget is met. */
static int spend(struct budget *b, const struct budget_cache *cache, struct budget_plan *out, struct err *e)
{
	const struct budget_request *r = b->r;
	size_t room = (size_t)b->c->layers * (LEVELS + 1);
	reset(b);
	b->element = cache->element;
	*out = (struct budget_plan){ .step = calloc(room, sizeof *out->step), .cache = cache, .windows = b->base, .kl = b->base + cache->kl };
	if (!out->step)
		return err_nomem(e);
	out->before = cache_bytes(model_config(r->job.original), r->tokens, F16);
	out->stored = out->after = cache_bytes(b->c, r->tokens, b->element);
	while (out->after > r->bytes) {
		struct budget_step s;
		if (out->count == room || !next_step(b, &s))
			return err_set(e, ERR_USAGE, "the KV cache cannot be made smaller than %llu bytes at %llu tokens this way",
				       (unsigned long long)out->after, (unsigned long long)r->tokens);
		apply(b->c, s.layer, s.kv_heads, s.source);
		out->after = s.bytes = cache_bytes(b->c, r->tokens, b->element);
		out->kl += s.kl;
		out->step[out->count++] = s;
	}
	return ERR_OK;
}

/* The codec whose plan is predicted to cost least; b->c as its plan has it. */
static int choose(struct budget *b, struct budget_plan *out, struct err *e)
{
	const struct budget_request *r = b->r;
	const struct budget_cache *best = NULL;
	double least = INFINITY;
	int rc = ERR_OK;
	for (size_t i = 0; i < r->caches; i++) {
		struct budget_plan p;
		rc = spend(b, &r->cache[i], &p, e);
		if (!rc && (p.kl < least || (p.kl == least && r->cache[i].element > best->element))) {
			least = p.kl;
			best = &r->cache[i];
		}
		budget_plan_release(&p);
		if (rc && rc != ERR_USAGE)
			return rc;
	}
	return best ? spend(b, best, out, e) : rc;
}

static void climb(struct ladder *f, uint32_t heads)
{
	*f = (struct ladder){ 0 };
	for (uint32_t n = heads; n && f->count < LEVELS; n--)
		if (heads % n == 0)
			f->heads[f->count++] = n;
}

static bool windows_added(const struct budget *b)
{
	for (uint32_t i = 0; i < b->c->layers; i++)
		if (b->c->layer[i].window != b->unwindowed[i])
			return true;
	return false;
}

static int measure_all(struct budget *b, struct err *e)
{
	const struct budget_request *r = b->r;
	int rc = ERR_OK;
	for (uint32_t i = 0; i < b->c->layers; i++)
		b->total += b->fold[i].count;
	b->total += r->caches;
	swap_windows(b);
	for (size_t i = 0; i < r->caches && !rc; i++)
		rc = damage(b, r->job.source, &r->cache[i].codecs, &r->cache[i].kl, e);
	swap_windows(b);
	for (uint32_t i = 0; i < b->c->layers && !rc; i++)
		rc = measure_layer(b, i, e);
	return rc;
}

static int make(struct budget *b, struct budget_plan *out, struct err *e)
{
	struct config *c = b->c;
	const struct budget_request *r = b->r;
	bool fits = false;
	for (uint32_t i = 0; i < c->layers; i++) {
		if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u already; start from the original", i,
				       c->layer[i].kv_source);
		climb(&b->fold[i], c->layer[i].kv_heads);
	}
	/* what fits as it is needs nothing measured */
	for (size_t i = 0; i < r->caches; i++)
		fits |= r->cache[i].element >= F16 && cache_bytes(c, r->tokens, r->cache[i].element) <= r->bytes;
	int rc = ERR_OK;
	for (uint32_t i = 0; i < c->layers && !fits && !rc; i++)
		rc = attention_fit_possible(c, i, e);
	if (rc)
		return rc;
	rc = windows_added(b) ? damage(b, r->job.source, NULL, &b->base, e) : ERR_OK;
	if (!rc && !fits)
		rc = measure_all(b, e);
	if (!rc)
		rc = choose(b, out, e);
	if (!rc && !fits)
		rc = measure(b, &out->cache->codecs, &out->together, e);
	else if (!rc)
		out->together = b->base;
	uint32_t most = 0;
	for (uint32_t i = 0; i < c->layers; i++)
		most = c->layer[i].kv_heads > most ? c->layer[i].kv_heads : most;
	c->kv_heads = most;
	return rc;
}

int budget_make(const struct budget_request *r, struct config *c, struct budget_plan *out, struct err *e)
{
	struct budget b = { .r = r, .c = c };
	uint64_t least = budget_smallest(c, r->cache, r->caches, r->tokens);
	*out = (struct budget_plan){ 0 };
	if (r->bytes < least)
		return err_set(e, ERR_USAGE, "a KV cache of %llu bytes at %llu tokens cannot be reached; the smallest is %llu",
			       (unsigned long long)r->bytes, (unsigned long long)r->tokens, (unsigned long long)least);
	b.fold = calloc(c->layers, sizeof *b.fold);
	b.share = calloc(c->layers, sizeof *b.share);
	b.unwindowed = calloc(c->layers, sizeof *b.unwindowed);
	for (uint32_t i = 0; i < c->layers && b.unwindowed; i++)
		b.unwindowed[i] = model_config(r->job.original)->layer[i].window;
	int rc = b.fold && b.share && b.unwindowed ? make(&b, out, e) : err_nomem(e);
	free(b.unwindowed);
	free(b.fold);
	free(b.share);
	return rc;
}

void budget_plan_release(struct budget_plan *p)
{
	free(p->step);
	*p = (struct budget_plan){ 0 };
}
