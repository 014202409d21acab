#include "calib/budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/damage.h"
#include "calib/fold.h"
#include "calib/fold_weights.h"
#include "calib/share.h"

enum { LEVELS = 12, ELEMENT = 2 /* bytes of f16 */ };

struct budget {
	struct model *model;
	struct tensor_source *source;
	struct config *c;        /* the plan so far */
	const struct windows *text;
	size_t held;
	const struct stats *stats;
	uint32_t *have;          /* [layers] KV heads at the start */
	double *fold;            /* [layers, LEVELS] KL with heads / 2^level */
	double *share;           /* [layers] KL of reading the layer before it; INFINITY: cannot */
	uint64_t tokens;
	plan_progress *progress;
	void *progress_arg;
	uint64_t done, total;
};

static uint64_t cache_bytes(const struct config *c, uint64_t tokens)
{
	return (uint64_t)(config_kv_bytes(c, tokens, ELEMENT) + 0.5);
}

static bool alike(const struct config *c, uint32_t a, uint32_t b)
{
	const struct layer_config *x = &c->layer[a], *y = &c->layer[b];
	return x->window == y->window && x->heads == y->heads && x->rope == y->rope;
}

static uint32_t fewest(uint32_t heads)
{
	while (heads % 2 == 0)
		heads /= 2;
	return heads;
}

uint64_t budget_smallest(const struct config *c, uint64_t tokens)
{
	double sum = 0;
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		uint64_t kept = l->window && l->window < tokens ? l->window : tokens;
		if (i && alike(c, i, i - 1) && fewest(l->kv_heads) == fewest(c->layer[i - 1].kv_heads))
			continue;
		sum += 2.0 * ELEMENT * (double)kept * fewest(l->kv_heads) * c->head_dim;
	}
	return (uint64_t)(sum + 0.5);
}

/* KL of the model as b->c has it at this moment, in closed forms. */
static int measure(struct budget *b, bool heads, double *kl, struct err *e)
{
	const struct config *c = b->c;
	struct overlay *out = overlay_new(b->source, e);
	struct fold_report *fr = calloc(c->layers, sizeof *fr);
	struct share_report *sr = calloc(c->layers, sizeof *sr);
	struct fold_options f = { .method = FOLD_PCA, .search = true, .stats = b->stats, .held = b->held, .refit = refit_defaults };
	struct share_options s = { .method = SHARE_MATCH, .held = b->held, .refit = refit_defaults, .residual = 1 };
	struct damage d;
	int rc = !out ? e->code : fr && sr ? ERR_OK : err_nomem(e);
	if (!rc && heads)
		rc = fold_run(b->model, b->source, c, b->text, &f, out, fr, NULL, NULL, e);
	else if (!rc)
		rc = share_run(b->model, b->source, c, b->text, &s, out, sr, NULL, NULL, e);
	if (!rc)
		rc = damage_measure(b->model, c, overlay_source(out), b->text, b->text->count - b->held, b->text->count, &d, e);
	if (!rc)
		*kl = d.kl > 0 ? d.kl : 0;
	if (fr)
		fold_report_release(fr, c->layers);
	if (sr)
		share_report_release(sr, c->layers);
	overlay_free(out);
	if (!rc && b->progress && !b->progress(b->progress_arg, ++b->done, b->total))
		rc = err_set(e, ERR_IO, "interrupted");
	return rc;
}

static int measure_all(struct budget *b, struct err *e)
{
	struct config *c = b->c;
	int rc = ERR_OK;
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		struct layer_config *l = &c->layer[i];
		double *kl = b->fold + (size_t)i * LEVELS;
		for (uint32_t level = 1; level < LEVELS; level++)
			kl[level] = INFINITY;
		for (uint32_t level = 1; level < LEVELS && !rc && b->have[i] % (1u << level) == 0; level++) {
			l->kv_heads = b->have[i] >> level;
			rc = measure(b, true, &kl[level], e);
			/* fewer heads are never taken for better: that is noise */
			kl[level] = kl[level] > kl[level - 1] ? kl[level] : kl[level - 1];
		}
		l->kv_heads = b->have[i];
		b->share[i] = INFINITY;
		if (rc || !i || !alike(c, i, i - 1) || b->have[i] != b->have[i - 1])
			continue;
		l->kv_source = i - 1;
		rc = measure(b, false, &b->share[i], e);
		l->kv_source = i;
	}
	return rc;
}

static uint32_t level_of(const struct budget *b, uint32_t layer)
{
	uint32_t level = 0;
	while (b->have[layer] >> level > b->c->layer[layer].kv_heads)
		level++;
	return level;
}

/* What halving the heads of an owner and its readers adds. */
static double halving(const struct budget *b, uint32_t owner)
{
	double sum = 0;
	for (uint32_t i = owner; i < b->c->layers; i++)
		if (b->c->layer[i].kv_source == owner) {
			uint32_t level = level_of(b, i);
			const double *kl = b->fold + (size_t)i * LEVELS;
			sum += level + 1 < LEVELS ? kl[level + 1] - kl[level] : INFINITY;
		}
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
static bool next_step(struct budget *b, struct budget_step *best)
{
	struct config *c = b->c;
	uint64_t now = cache_bytes(c, b->tokens);
	double least = INFINITY;
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		double unit = 2.0 * ELEMENT * l->kv_heads * c->head_dim * (double)(l->window && l->window < b->tokens ? l->window : b->tokens);
		uint32_t to;
		if (l->kv_source != i)
			continue;
		double half = halving(b, i), join = joining(b, i, &to);
		if (isfinite(half) && l->kv_heads % 2 == 0 && half / (unit / 2) < least) {
			least = half / (unit / 2);
			*best = (struct budget_step){ i, l->kv_heads / 2, i, half, now - (uint64_t)(unit / 2) };
		}
		if (isfinite(join) && join / unit < least) {
			least = join / unit;
			*best = (struct budget_step){ i, l->kv_heads, to, join, now - (uint64_t)unit };
		}
	}
	return isfinite(least);
}

static int spend(struct budget *b, uint64_t bytes, struct budget_plan *out, struct err *e)
{
	size_t room = (size_t)b->c->layers * (LEVELS + 1);
	out->step = calloc(room, sizeof *out->step);
	if (!out->step)
		return err_nomem(e);
	out->before = out->after = cache_bytes(b->c, b->tokens);
	while (out->after > bytes) {
		struct budget_step s;
		if (out->count == room || !next_step(b, &s))
			return err_set(e, ERR_USAGE, "the KV cache cannot be made smaller than %llu bytes at %llu tokens this way",
				       (unsigned long long)out->after, (unsigned long long)b->tokens);
		apply(b->c, s.layer, s.kv_heads, s.source);
		out->after = s.bytes = cache_bytes(b->c, b->tokens);
		out->kl += s.kl;
		out->step[out->count++] = s;
	}
	uint32_t most = 0;
	for (uint32_t i = 0; i < b->c->layers; i++)
		most = b->c->layer[i].kv_heads > most ? b->c->layer[i].kv_heads : most;
	b->c->kv_heads = most;
	return ERR_OK;
}

int budget_make(struct model *model, struct tensor_source *source, struct config *c, const struct windows *text, size_t held,
		const struct stats *stats, uint64_t bytes, uint64_t tokens, struct budget_plan *out, plan_progress *progress, void *progress_arg,
		struct err *e)
{
	struct budget b = { .model = model, .source = source, .c = c, .text = text, .held = held, .stats = stats, .tokens = tokens, .progress = progress,
			    .progress_arg = progress_arg };
	uint64_t least = budget_smallest(c, tokens);
	*out = (struct budget_plan){ .before = cache_bytes(c, tokens), .after = cache_bytes(c, tokens) };
	if (bytes < least)
		return err_set(e, ERR_USAGE, "a KV cache of %llu bytes at %llu tokens cannot be reached; the smallest is %llu",
			       (unsigned long long)bytes, (unsigned long long)tokens, (unsigned long long)least);
	if (out->before <= bytes)
		return ERR_OK;
	b.have = malloc(c->layers * sizeof *b.have);
	b.fold = calloc((size_t)c->layers * LEVELS, sizeof *b.fold);
	b.share = calloc(c->layers, sizeof *b.share);
	int rc = b.have && b.fold && b.share ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		b.have[i] = c->layer[i].kv_heads;
		b.total += 1 + (uint64_t)__builtin_ctz(b.have[i]);
		if (c->layer[i].kv_source != i)
			rc = err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u already; start from the original", i,
				     c->layer[i].kv_source);
	}
	if (!rc)
		rc = measure_all(&b, e);
	if (!rc)
		rc = spend(&b, bytes, out, e);
	free(b.have);
	free(b.fold);
	free(b.share);
	return rc;
}

void budget_plan_release(struct budget_plan *p)
{
	free(p->step);
	*p = (struct budget_plan){ 0 };
}
