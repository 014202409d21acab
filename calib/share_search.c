#include <stdlib.h>
#include <string.h>

#include "calib/damage.h"
#include "calib/share.h"

/* How many owners before a layer are tried for it. */
enum { NEAREST = 2 };

struct search {
	struct model *teacher;
	struct tensor_source *source;
	struct config *c;
	const struct windows *text;
	size_t held;
	plan_progress *progress;
	void *progress_arg;
	uint64_t done, total;
};

static void set_map(struct config *c, const uint32_t *map)
{
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i].kv_source = map[i];
}

/* KL on the held-out windows with this map, readers as the closed form makes them. */
static int try_map(struct search *s, const uint32_t *map, double *kl, struct err *e)
{
	struct share_options o = { .method = SHARE_MATCH, .held = s->held, .refit = refit_defaults, .residual = 1 };
	struct share_report *report = calloc(s->c->layers, sizeof *report);
	struct overlay *out = overlay_new(s->source, e);
	struct damage d;
	int rc = !out ? e->code : report ? ERR_OK : err_nomem(e);
	set_map(s->c, map);
	if (!rc)
		rc = share_run(s->teacher, s->source, s->c, s->text, &o, out, report, NULL, NULL, e);
	if (!rc)
		rc = damage_measure(s->teacher, s->c, overlay_source(out), s->text, s->text->count - s->held, s->text->count, &d, e);
	if (!rc)
		*kl = d.kl;
	share_report_release(report, s->c->layers);
	overlay_free(out);
	if (!rc && s->progress && !s->progress(s->progress_arg, ++s->done, s->total))
		rc = err_set(e, ERR_IO, "interrupted");
	return rc;
}

static bool alike(const struct config *c, uint32_t a, uint32_t b)
{
	const struct layer_config *x = &c->layer[a], *y = &c->layer[b];
	return x->window == y->window && x->heads == y->heads && x->kv_heads == y->kv_heads && x->rope == y->rope;
}

/* The map in which `layer` and its readers read `owner`. */
static void join(const uint32_t *map, uint32_t layers, uint32_t layer, uint32_t owner, uint32_t *out)
{
	for (uint32_t i = 0; i < layers; i++)
		out[i] = map[i] == layer ? owner : map[i];
}

static int one_more(struct search *s, uint32_t *map, double *least, struct err *e)
{
	uint32_t layers = s->c->layers, *trial = malloc(layers * sizeof *trial), *best = malloc(layers * sizeof *best);
	bool found = false;
	int rc = trial && best ? ERR_OK : err_nomem(e);
	for (uint32_t i = 1; i < layers && !rc; i++)
		for (uint32_t k = i, tried = 0; map[i] == i && k-- > 0 && tried < NEAREST && !rc;) {
			double kl;
			if (map[k] != k || !alike(s->c, i, k))
				continue;
			tried++;
			join(map, layers, i, k, trial);
			rc = try_map(s, trial, &kl, e);
			if (!rc && (!found || kl < *least)) {
				found = true;
				*least = kl;
				memcpy(best, trial, layers * sizeof *best);
			}
		}
	if (!rc && !found)
		rc = err_set(e, ERR_USAGE, "no further layer can share a cache: windows or head counts differ");
	if (!rc)
		memcpy(map, best, layers * sizeof *best);
	free(trial);
	free(best);
	return rc;
}

int share_search(struct model *teacher, struct tensor_source *source, struct config *c, const struct windows *text, size_t held,
		 uint32_t readers, uint32_t *map, double *kl, plan_progress *progress, void *progress_arg, struct err *e)
{
	struct search s = { teacher, source, c, text, held, progress, progress_arg, 0, 0 };
	uint32_t have = 0, *was = malloc(c->layers * sizeof *was);
	int rc = was ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < c->layers && !rc; i++) {
		was[i] = c->layer[i].kv_source;
		have += map[i] != i;
	}
	if (!rc && readers >= c->layers)
		rc = err_set(e, ERR_USAGE, "%u of %u layers cannot read another one's cache; at most %u", readers, c->layers, c->layers - 1);
	s.total = (uint64_t)(readers > have ? readers - have : 0) * NEAREST * c->layers;
	for (uint32_t n = have; n < readers && !rc; n++) {
		double least = 0;
		rc = one_more(&s, map, &least, e);
		if (kl)
			kl[n - have] = least;
	}
	if (was)
		set_map(c, was);
	free(was);
	return rc;
}
