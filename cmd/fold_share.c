#include "cmd/fold_share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_auto(const char *spec)
{
	return spec && !strncmp(spec, "auto", 4) && (!spec[4] || spec[4] == ':');
}

int sharing_options(struct sharing *s, const char *spec, const char *method, double max_kl, bool has_text, bool dry_run,
		    struct err *e)
{
	struct strbuf known = { 0 };
	int rc = ERR_OK;
	s->spec = spec;
	s->automatic = is_auto(spec);
	for (unsigned i = 0; i < share_method_row_count; i++) {
		if (!strcmp(method, share_method_rows[i].name))
			s->method = &share_method_rows[i];
		strbuf_printf(&known, "%s%s", i ? ", " : "", share_method_rows[i].name);
	}
	if (!s->method)
		rc = err_set(e, ERR_USAGE, "unknown method '%.40s'; --share-method takes one of: %s", method, known.data ? known.data : "");
	else if (spec && !has_text && (s->automatic || (s->method->method != SHARE_REUSE && !dry_run)))
		rc = err_set(e, ERR_USAGE, "sharing layers needs a text to calibrate on: --data TEXT");
	else if (max_kl != 0 && (!s->automatic || !(max_kl > 0)))
		rc = err_set(e, ERR_USAGE, "--max-kl takes nats above 0, and only with --share-layers auto");
	s->goal.max_kl = max_kl;
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
		c->layer[i].kv_source = s->map[i];
}

int sharing_plan(struct sharing *s, struct config *c, struct tensor_source *source, struct err *e)
{
	if (!s->spec)
		return ERR_OK;
	s->map = malloc(c->layers * sizeof *s->map);
	s->kl = calloc(c->layers, sizeof *s->kl);
	if (!s->map || !s->kl)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++)
		s->map[i] = i;
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
		rc = share_map_parse(s->spec, c->layers, s->map, e);
	}
	if (!rc)
		rc = share_check(c, source, s->map, e);
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
	s->map = malloc(c->layers * sizeof *s->map);
	if (!s->map)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++)
		s->map[i] = c->layer[i].kv_source;
	return ERR_OK;
}

/* Windows of a search: as many as it takes to tell maps apart. */
enum { SEARCH_FIT = 24, SEARCH_JUDGE = 12 };

static int search(struct sharing *s, struct model *teacher, struct tensor_source *source, struct config *c,
		  const struct windows *text, size_t held, const struct common *common, struct err *e)
{
	struct windows few = *text;
	size_t judge = held < SEARCH_JUDGE ? held : SEARCH_JUDGE, fit = text->count - held < SEARCH_FIT ? text->count - held : SEARCH_FIT;
	/* the windows just before the held-out ones and the first of those */
	few.tokens += (text->count - held - fit) * text->ctx;
	few.count = fit + judge;
	progress_start(common, "search", "maps", 0);
	int rc = share_search(teacher, source, c, &few, judge, &s->goal, s->map, s->kl, &s->steps, progress_step, NULL, e);
	progress_end();
	if (!rc)
		put_map(s, c);
	return rc ? err_prefix(e, "--share-layers auto") : ERR_OK;
}

int sharing_make(struct sharing *s, struct model *teacher, struct tensor_source *source, struct config *c,
		 const struct windows *text, size_t held, const struct refit_options *refit, bool dry_run,
		 const struct common *common, struct err *e)
{
	struct share_options o = { .method = text && !dry_run ? s->method->method : SHARE_REUSE, .held = held, .refit = *refit,
				   .residual = 1, .ffn = true };
	int rc = text && s->automatic ? search(s, teacher, source, c, text, held, common, e) : ERR_OK;
	s->report = calloc(c->layers, sizeof *s->report);
	if (!rc && !s->report)
		rc = err_nomem(e);
	if (!rc && !(s->out = overlay_new(source, e)))
		rc = e->code;
	if (rc)
		return rc;
	progress_start(common, "share", "steps", 0);
	rc = share_run(teacher, source, c, o.method == SHARE_REUSE ? NULL : text, &o, s->out, s->report, progress_step, NULL, e);
	progress_end();
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
	if (s->steps)
		strbuf_printf(out, "search            %u of %u layers read another one's cache, KL %.4g in closed form%s\n", s->steps, c->layers,
			      s->kl[s->steps - 1], s->halved ? " (half of them; auto:N, --max-kl and --kv-budget say otherwise)" : "");
	for (uint32_t i = 0; i < s->steps && verbose; i++)
		strbuf_printf(out, "search, %u layer%s: KL %.4g in closed form\n", i + 1, i ? "s" : "", s->kl[i]);
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
	if (s->steps)
		jw_double(j, "search_kl", s->kl[s->steps - 1]);
	jw_array(j, "kv_source_layer");
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(j, NULL, c->layer[i].kv_source);
	jw_end_array(j);
}

void sharing_release(struct sharing *s, const struct config *c)
{
	if (s->report)
		share_report_release(s->report, c->layers);
	overlay_free(s->out);
	free(s->map);
	free(s->kl);
}
