#include "cmd/fold_share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int sharing_options(struct sharing *s, const char *spec, const char *method, bool has_text, struct err *e)
{
	struct strbuf known = { 0 };
	s->spec = spec;
	for (unsigned i = 0; i < share_method_row_count; i++) {
		if (!strcmp(method, share_method_rows[i].name))
			s->method = &share_method_rows[i];
		strbuf_printf(&known, "%s%s", i ? ", " : "", share_method_rows[i].name);
	}
	if (!s->method)
		err_set(e, ERR_USAGE, "unknown method '%.40s'; --share-method takes one of: %s", method, known.data ? known.data : "");
	else if (spec && !has_text && (s->method->method != SHARE_REUSE || !strncmp(spec, "auto", 4)))
		err_set(e, ERR_USAGE, "sharing layers needs a text to calibrate on: --data TEXT");
	strbuf_release(&known);
	return !s->method || (spec && !has_text && (s->method->method != SHARE_REUSE || !strncmp(spec, "auto", 4))) ? ERR_USAGE : ERR_OK;
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
	if (!strncmp(s->spec, "auto", 4)) {
		char *end = NULL;
		unsigned long n = s->spec[4] == ':' && s->spec[5] >= '0' && s->spec[5] <= '9' ? strtoul(s->spec + 5, &end, 10) : 0;
		if (!n || *end || n >= c->layers)
			return err_set(e, ERR_USAGE, "--share-layers '%.80s': auto:N takes N from 1 to %u, the layers that are to read another "
				       "one's cache", s->spec, c->layers - 1);
		s->readers = (uint32_t)n;
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
	int rc = share_search(teacher, source, c, &few, judge, s->readers, s->map, s->kl, progress_step, NULL, e);
	progress_end();
	if (!rc)
		put_map(s, c);
	return rc;
}

int sharing_make(struct sharing *s, struct model *teacher, struct tensor_source *source, struct config *c,
		 const struct windows *text, size_t held, const struct refit_options *refit, const struct common *common,
		 struct err *e)
{
	struct share_options o = { .method = text ? s->method->method : SHARE_REUSE, .held = held, .refit = *refit, .residual = 1,
				   .ffn = true };
	int rc = text && s->readers ? search(s, teacher, source, c, text, held, common, e) : ERR_OK;
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
	for (uint32_t i = 0; i < s->readers && verbose; i++)
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
