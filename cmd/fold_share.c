#include "cmd/fold_share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/change_cost.h"

static bool is_auto(const char *spec)
{
	return spec && !strncmp(spec, "auto", 4) && (!spec[4] || spec[4] == ':');
}

int sharing_options(struct sharing *s, const struct sharing_options *o, struct err *e)
{
	const char *spec = o->spec;
	struct strbuf known = { 0 };
	int rc = ERR_OK;
	s->spec = spec;
	s->common = o->common;
	s->dry_run = o->dry_run;
	s->automatic = is_auto(spec);
	for (unsigned i = 0; i < share_method_row_count; i++) {
		if (!strcmp(o->method, share_method_rows[i].name))
			s->method = &share_method_rows[i];
		strbuf_printf(&known, "%s%s", i ? ", " : "", share_method_rows[i].name);
	}
	if (!s->method)
		rc = err_set(e, ERR_USAGE, "unknown method '%.40s'; --share-method takes one of: %s", o->method, known.data ? known.data : "");
	else if (spec && !o->has_text && (s->automatic || (s->method->method != SHARE_REUSE && !o->dry_run)))
		rc = err_set(e, ERR_USAGE, "sharing layers needs a text to calibrate on: --data TEXT");
	else if (o->max_kl != 0 && (!(o->max_kl > 0) || !o->has_text))
		rc = err_set(e, ERR_USAGE, "--max-kl takes nats above 0, and a text to measure them on: --data TEXT");
	s->goal.max_kl = s->automatic ? o->max_kl : 0;
	strbuf_release(&known);
	return rc;
}

bool sharing_any(const struct config *c)
{
	for (uint32_t i = 0; i < c->layers; i++)
		if (c->layer[i].kv_source != i)
			return true;
	return false;
}

static void put_map(const struct sharing *s, struct config *c)
{
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i].kv_source = s->steps.map[i];
}

int sharing_plan(struct sharing *s, struct config *c, struct tensor_source *source, struct err *e)
{
	if (!s->spec)
		return ERR_OK;
	s->steps.map = malloc(c->layers * sizeof *s->steps.map);
	s->steps.kl = calloc(c->layers, sizeof *s->steps.kl);
	if (!s->steps.map || !s->steps.kl)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++)
		s->steps.map[i] = i;
	int rc = ERR_OK;
	if (s->automatic) {
		char *end = NULL;
		const char *at = s->spec + 5;
		unsigned long n = s->spec[4] && *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
		if (s->spec[4] && (!n || *end || n >= c->layers))
			return err_set(e, ERR_USAGE, "--share-layers '%.80s': auto:N takes N from 1 to %u, the layers that are to read another "
				       "one's cache", s->spec, c->layers - 1);
		if (c->layers < 2)
			return err_set(e, ERR_USAGE, "--share-layers %s: the model has one layer", s->spec);
		s->goal.readers = (uint32_t)n;
		s->halved = !n && !s->goal.tokens && !(s->goal.max_kl > 0);
		if (s->halved)
			s->goal.readers = c->layers / 2;
	} else {
		rc = share_map_parse(s->spec, c->layers, s->steps.map, e);
	}
	if (!rc)
		rc = share_check(c, source, s->steps.map, e);
	if (rc)
		return err_prefix(e, "--share-layers");
	put_map(s, c);
	return ERR_OK;
}

int sharing_given(struct sharing *s, const struct config *c, struct err *e)
{
	if (!sharing_any(c))
		return ERR_OK;
	s->spec = "planned";
	s->steps.map = malloc(c->layers * sizeof *s->steps.map);
	if (!s->steps.map)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++)
		s->steps.map[i] = c->layer[i].kv_source;
	return ERR_OK;
}

/* Windows of a search: as many as it takes to tell maps apart. */
enum { SEARCH_FIT = 24, SEARCH_JUDGE = 12 };

static int search(struct sharing *s, const struct fold_job *job, struct config *c, struct err *e)
{
	size_t held = job->held, train = job->text->count - held;
	size_t judge = held < SEARCH_JUDGE ? held : SEARCH_JUDGE, fit = train < SEARCH_FIT ? train : SEARCH_FIT;
	/* the windows just before the held-out ones and the first of those */
	struct windows few = windows_part(job->text, train - fit, train + judge);
	struct fold_job trial = *job;
	trial.text = &few;
	trial.held = judge;
	progress_start(s->common, "search", "maps", 0);
	int rc = share_search(&trial, c, &s->goal, &s->steps, e);
	progress_end();
	if (!rc)
		put_map(s, c);
	return rc ? err_prefix(e, "--share-layers auto") : ERR_OK;
}

/* One method's readers and owners; kl: on the held-out windows, if it is wanted. */
static int share_by(struct sharing *s, enum share_method method, struct fold_job job, const struct refit_options *refit, double *kl,
		    struct err *e)
{
	struct share_options o = { .method = method, .refit = *refit, .residual = 1, .ffn = true };
	const struct windows *text = job.text;
	struct change_cost d;
	s->out = overlay_new(job.source, e);
	s->report = calloc(job.to->layers, sizeof *s->report);
	if (!s->out || !s->report)
		return s->out ? err_nomem(e) : e->code;
	job.out = s->out;
	job.text = method == SHARE_REUSE ? NULL : text;
	progress_start(s->common, "share", "steps", 0);
	int rc = share_run(&job, &o, s->report, e);
	progress_end();
	if (rc || !kl)
		return rc;
	struct windows judges = windows_part(text, text->count - job.held, text->count);
	rc = change_cost_measure(job.original, &(struct change){ job.to, overlay_source(s->out), NULL }, &judges, &d, e);
	if (!rc)
		*kl = d.kl;
	return rc;
}

/* A simpler method, if it is better on held-out windows: with little text least squares and descent fit the text. */
static int simpler(struct sharing *s, enum share_method method, const struct fold_job *job, const struct refit_options *refit,
		   double *best, struct err *e)
{
	struct sharing other = *s;
	double kl = 0;
	int rc = share_by(&other, method, *job, refit, &kl, e);
	bool better = !rc && kl < *best;
	if (better) {
		warn("sharing by method %s: KL %.4g on held-out windows, %.4g by method %s, which is kept; use more text", s->method->name, *best,
		     kl, share_method_rows[method].name);
		*best = kl;
	}
	struct sharing *loser = better ? s : &other;
	overlay_free(loser->out);
	if (loser->report)
		share_report_release(loser->report, job->to->layers);
	if (better) {
		*s = other;
		s->method = &share_method_rows[method];
	}
	return rc;
}

int sharing_make(struct sharing *s, const struct fold_job *job, struct config *c, const struct refit_options *refit, struct err *e)
{
	enum share_method method = job->text && !s->dry_run ? s->method->method : SHARE_REUSE;
	double kl = 0;
	int rc = job->text && s->automatic ? search(s, job, c, e) : ERR_OK;
	if (!rc)
		rc = share_by(s, method, *job, refit, method == SHARE_REUSE ? NULL : &kl, e);
	if (!rc && method > SHARE_MATCH)
		rc = simpler(s, SHARE_MATCH, job, refit, &kl, e);
	if (!rc && method > SHARE_REUSE)
		rc = simpler(s, SHARE_REUSE, job, refit, &kl, e);
	return rc;
}

static void map_text(const struct config *c, struct strbuf *out)
{
	for (uint32_t i = 0; i < c->layers; i++)
		strbuf_printf(out, "%s%u", i ? "," : "", c->layer[i].kv_source);
}

void sharing_text(const struct sharing *s, const struct config *c, bool verbose, struct strbuf *out)
{
	if (!sharing_any(c))
		return;
	if (s->steps.count)
		strbuf_printf(out, "search            %u of %u layers read another one's cache, KL %.4g in closed form%s\n", s->steps.count, c->layers,
			      s->steps.kl[s->steps.count - 1], s->halved ? " (half of them; auto:N, --max-kl and --kv-budget say otherwise)" : "");
	for (uint32_t i = 0; i < s->steps.count && verbose; i++)
		strbuf_printf(out, "search, %u layer%s: KL %.4g in closed form\n", i + 1, i ? "s" : "", s->steps.kl[i]);
	for (uint32_t i = 0; s->report && verbose && i < c->layers; i++) {
		const struct share_report *r = &s->report[i];
		if (!isnan(r->joint_before) && r->joint_before > 0)
			strbuf_printf(out, "layer %-3u shared K and V: error with all its readers %.3g -> %.3g\n", i, r->joint_before, r->joint_after);
		if (r->source != i)
			strbuf_printf(out, "layer %-3u reads layer %u", i, r->source);
		if (r->heads) {
			strbuf_puts(out, ", heads");
			for (uint32_t k = 0; k < c->layer[i].kv_heads; k++)
				strbuf_printf(out, " %u", r->heads[k]);
		}
		if (r->source != i && r->heads && !isnan(r->attention.start))
			strbuf_printf(out, "  attention error %.3g -> %.3g (W_O) -> %.3g (W_Q, W_O)", r->attention.start, r->attention.output,
				      r->attention.joint);
		if (r->source != i && r->ffn_before > 0)
			strbuf_printf(out, "  layer %.3g -> %.3g (W_down)", r->ffn_before, r->ffn_after);
		if (r->source != i)
			strbuf_putc(out, '\n');
	}
	strbuf_puts(out, "KV cache of layer ");
	map_text(c, out);
	strbuf_putc(out, '\n');
}

void sharing_json(const struct sharing *s, const struct config *c, struct json_writer *j)
{
	if (!s->spec)
		return;
	jw_string(j, "share_method", s->method->name);
	if (s->steps.count)
		jw_double(j, "search_kl", s->steps.kl[s->steps.count - 1]);
	jw_array(j, "kv_source_layers");
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(j, NULL, c->layer[i].kv_source);
	jw_end_array(j);
}

void sharing_release(struct sharing *s, const struct config *c)
{
	if (s->report)
		share_report_release(s->report, c->layers);
	overlay_free(s->out);
	free(s->steps.map);
	free(s->steps.kl);
}
