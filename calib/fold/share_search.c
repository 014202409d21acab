#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/change_cost.h"
#include "calib/fold/share.h"

/* How many owners before a layer are tried for it. */
enum { NEAREST = 2 };

struct search {
	const struct fold_job *job;
	struct config *c;
	double kl;               /* of the map so far */
	double *adds;            /* [layers, layers] KL that a layer's reading of an owner was last seen to add */
	uint64_t done;
};

static void set_map(struct config *c, const uint32_t *map)
{
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i].kv_source = map[i];
}

/* KL on the held-out windows with this map, readers as the closed form makes them. */
static int try_map(struct search *s, const uint32_t *map, double *kl, struct err *e)
{
	const struct windows *text = s->job->text;
	struct share_options o = { .method = SHARE_MATCH, .refit = refit_defaults, .residual = 1 };
	struct share_report *report = calloc(s->c->layers, sizeof *report);
	struct fold_job job = *s->job;
	job.to = s->c;
	job.out = overlay_new(job.source, e);
	job.progress = NULL;
	struct change_cost d;
	int rc = !job.out ? e->code : report ? ERR_OK : err_nomem(e);
	set_map(s->c, map);
	if (!rc)
		rc = share_run(&job, &o, report, e);
	struct windows judges = windows_part(text, text->count - job.held, text->count);
	if (!rc)
		rc = change_cost_measure(job.original, &(struct change){ s->c, overlay_source(job.out), NULL }, &judges, &d, e);
	if (!rc)
		*kl = d.kl;
	share_report_release(report, s->c->layers);
	overlay_free(job.out);
	if (!rc && !progress_tell(s->job->progress, ++s->done, 0))
		rc = err_set(e, ERR_IO, "interrupted");
	return rc;
}

static bool alike(const struct config *c, uint32_t a, uint32_t b)
{
	const struct layer_config *x = &c->layer[a], *y = &c->layer[b];
	return x->window == y->window && x->heads == y->heads && x->kv_heads == y->kv_heads && x->rope == y->rope &&
	       x->local == y->local;
}

/* The map in which `layer` and its readers read `owner`. */
static void join(const uint32_t *map, uint32_t layers, uint32_t layer, uint32_t owner, uint32_t *out)
{
	for (uint32_t i = 0; i < layers; i++)
		out[i] = map[i] == layer ? owner : map[i];
}

/* One more reader: the candidate (layer, owner) whose KL is least when measured with the map as it is. */
static int one_more(struct search *s, uint32_t *map, double *least, bool *found, struct err *e)
{
	uint32_t layers = s->c->layers, *trial = malloc(layers * sizeof *trial), best = 0, owner = 0;
	bool *fresh = calloc((size_t)layers * layers, sizeof *fresh);
	int rc = trial && fresh ? ERR_OK : err_nomem(e);
	*found = false;
	while (!rc) {
		double low = INFINITY, kl;
		bool any = false;
		for (uint32_t i = 1; i < layers; i++)
			for (uint32_t k = i, tried = 0; map[i] == i && k-- > 0 && tried < NEAREST;) {
				if (map[k] != k || !alike(s->c, i, k))
					continue;
				tried++;
				double adds = s->adds[(size_t)i * layers + k];
				if (any && !(adds < low))
					continue;
				any = true;
				low = adds;
				best = i;
				owner = k;
			}
		if (!any)
			break;
		size_t at = (size_t)best * layers + owner;
		join(map, layers, best, owner, trial);
		if (fresh[at]) {
			memcpy(map, trial, layers * sizeof *map);
			*least = s->kl + s->adds[at];
			*found = true;
			break;
		}
		rc = try_map(s, trial, &kl, e);
		s->adds[at] = rc ? 0 : kl - s->kl;
		fresh[at] = true;
	}
	free(trial);
	free(fresh);
	return rc;
}

static uint64_t cache_bytes(struct search *s, const uint32_t *map, uint64_t tokens)
{
	set_map(s->c, map);
	return (uint64_t)(config_kv_bytes(s->c, tokens, 2) + 0.5);
}

static int no_more(struct search *s, const uint32_t *map, const struct share_goal *g, uint32_t readers, struct err *e)
{
	if (g->tokens)
		return err_set(e, ERR_USAGE, "no further layer can share a cache; the smallest is %llu bytes at %llu tokens",
			       (unsigned long long)cache_bytes(s, map, g->tokens), (unsigned long long)g->tokens);
	return err_set(e, ERR_USAGE, "no further layer can share a cache than %u: windows or head counts differ", readers);
}

static bool met(struct search *s, const uint32_t *map, const struct share_goal *g, uint32_t readers)
{
	if (g->tokens)
		return cache_bytes(s, map, g->tokens) <= g->bytes;
	return g->readers && readers >= g->readers;
}

static int search(struct search *s, const struct share_goal *g, uint32_t readers, struct share_steps *out, struct err *e)
{
	uint32_t layers = s->c->layers, *map = out->map, *next = malloc(layers * sizeof *next);
	int rc = next ? ERR_OK : err_nomem(e);
	out->count = 0;
	while (!rc && !met(s, map, g, readers)) {
		double least = 0;
		bool found;
		memcpy(next, map, layers * sizeof *next);
		rc = one_more(s, next, &least, &found, e);
		if (!rc && !found && (g->tokens || g->readers))
			rc = no_more(s, map, g, readers, e);
		bool above = g->max_kl > 0 && least > g->max_kl;
		if (!rc && found && above && (!out->count || g->tokens || g->readers))
			rc = err_set(e, ERR_USAGE, "KL %.3g is not enough for %u layer%s that read%s another one's cache: in closed form the least is "
				     "%.3g", g->max_kl, readers + 1, readers ? "s" : "", readers ? "" : "s", least);
		if (rc || !found || above)
			break;
		memcpy(map, next, layers * sizeof *map);
		s->kl = least;
		if (out->kl)
			out->kl[out->count] = least;
		out->count++;
		readers++;
	}
	free(next);
	return rc;
}

int share_search(const struct fold_job *job, struct config *c, const struct share_goal *goal, struct share_steps *out, struct err *e)
{
	struct search s = { .job = job, .c = c };
	uint32_t have = 0, *was = malloc(c->layers * sizeof *was);
	s.adds = malloc((size_t)c->layers * c->layers * sizeof *s.adds);
	int rc = was && s.adds ? ERR_OK : err_nomem(e);
	/* what was never measured comes first */
	for (size_t i = 0; i < (size_t)c->layers * c->layers && !rc; i++)
		s.adds[i] = -INFINITY;
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		was[i] = c->layer[i].kv_source;
		have += out->map[i] != i;
	}
	if (!rc && goal->readers >= c->layers)
		rc = err_set(e, ERR_USAGE, "%u of %u layers cannot read another one's cache; at most %u", goal->readers, c->layers,
			     c->layers - 1);
	/* heads may have been folded before, and windows set */
	if (!rc)
		rc = try_map(&s, out->map, &s.kl, e);
	if (!rc)
		rc = search(&s, goal, have, out, e);
	if (was)
		set_map(c, was);
	free(was);
	free(s.adds);
	return rc;
}
