#include "cmd/quantize_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/quant/tensor_report.h"
#include "codec/codec.h"
#include "formats/file.h"

static bool has_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), k = strlen(suffix);
	return n > k && !strcmp(path + n - k, suffix);
}

int quantize_report_check(const char *path, struct err *e)
{
	if (has_suffix(path, ".json") || has_suffix(path, ".html"))
		return ERR_OK;
	return err_set(e, ERR_USAGE, "--report takes a file that ends in .json or .html, not '%.200s'", path);
}

static const char *method_name(const struct produce *p, const struct calibrated *c, const struct tensor_report *r)
{
	(void)p;
	return c->row && r->role < ROLE_COUNT && role_rows[r->role].linear ? c->row->name : r->method;
}

static void as_json(const struct produce *p, const struct calibrated *c, const struct tensor_report *rows, size_t count,
		    struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_document(&w, "quire-report/1");
	jw_string(&w, "input", p->input);
	jw_string(&w, "output", p->out.path);
	jw_string(&w, "recipe", recipe_name(p->recipe));
	jw_string(&w, "method", c->row ? c->row->name : p->method->name);
	jw_array(&w, "warnings");
	for (size_t i = 0; c->q && i < quantizer_notes(c->q)->count; i++)
		jw_string(&w, NULL, quantizer_notes(c->q)->line[i]);
	jw_end_array(&w);
	jw_array(&w, "tensors");
	for (size_t i = 0; i < count; i++) {
		const struct tensor_report *r = &rows[i];
		jw_object(&w, NULL);
		jw_string(&w, "name", r->name);
		jw_string(&w, "role", r->role < ROLE_COUNT ? role_rows[r->role].name : NULL);
		jw_string(&w, "codec", r->codec->name);
		jw_string(&w, "method", method_name(p, c, r));
		jw_double(&w, "weight_error", r->weight_error);
		jw_string(&w, "weighted_by", r->weighted);
		if (r->tokens)
			jw_uint(&w, "tokens", r->tokens);
		jw_double(&w, "output_error_before", r->before);
		jw_double(&w, "output_error", r->after);
		jw_double(&w, "seconds", r->seconds);
		if (r->chosen) {
			jw_string(&w, "chosen", r->chosen->choice);
			jw_double(&w, "correction", r->chosen->aim);
		}
		if (r->chosen && r->chosen->judged) {
			jw_double(&w, "held_out_error_before", r->chosen->held_before);
			jw_double(&w, "held_out_error", r->chosen->held_after);
		}
		jw_end_object(&w);
	}
	jw_end_array(&w);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
}

static void escaped(struct strbuf *out, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '<': strbuf_puts(out, "&lt;"); break;
		case '>': strbuf_puts(out, "&gt;"); break;
		case '&': strbuf_puts(out, "&amp;"); break;
		case '"': strbuf_puts(out, "&quot;"); break;
		default: strbuf_putc(out, (unsigned char)*text < 0x20 ? '?' : *text);
		}
}

static const char style[] =
	":root{color-scheme:light dark;--fg:#1c1e21;--bg:#fff;--dim:#666;--line:#ddd;--bar:#3b6fb5;--was:#c4cbd6}"
	"@media(prefers-color-scheme:dark){:root{--fg:#e4e6e9;--bg:#16181c;--dim:#9aa0a8;--line:#33373d;--bar:#6ea0e6;--was:#454c57}}"
	"body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:2rem auto;max-width:80rem;padding:0 1rem}"
	"h1{font-size:1.3rem}p{color:var(--dim)}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
	"th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}"
	"th{color:var(--dim);font-weight:600}th:first-child,td:first-child,.t{text-align:left}"
	"svg{display:block}.now{fill:var(--bar)}.was{fill:var(--was)}"
	"@media print{body{margin:0;max-width:none;font-size:9px}.wide{overflow:visible}th,td{padding:.15rem .3rem}}";

static void html_row(const struct produce *p, const struct calibrated *c, const struct tensor_report *r, double most, bool chosen,
		     struct strbuf *out)
{
	enum { WIDTH = 80 };
	double was = most > 0 ? WIDTH * sqrt(r->before / most) : 0, now = most > 0 ? WIDTH * sqrt(r->after / most) : 0;
	strbuf_puts(out, "<tr><td>");
	escaped(out, r->name);
	strbuf_printf(out, "<td class=t><svg width=%d height=14 role=img aria-label=\"before and after\"><rect class=was width=%.1f height=6 />"
		      "<rect class=now y=7 width=%.1f height=6 /></svg><td>%.3e<td>%.3e<td>", WIDTH, was < WIDTH ? was : WIDTH,
		      now < WIDTH ? now : WIDTH, r->before, r->after);
	if (r->before > 0)
		strbuf_printf(out, "%.2f", r->after / r->before);
	strbuf_printf(out, "<td>%.4f<td class=t>%s<td class=t>%s", r->weight_error, r->codec->name, method_name(p, c, r));
	if (chosen) {
		strbuf_puts(out, "<td class=t>");
		if (r->chosen && strcmp(r->chosen->choice, "feedback"))
			strbuf_puts(out, r->chosen->choice);
		else if (r->chosen)
			strbuf_printf(out, "feedback, %.0f %%", 100 * r->chosen->aim);
		strbuf_puts(out, "<td>");
		if (r->chosen && r->chosen->judged)
			strbuf_printf(out, "%.3e", r->chosen->held_before - r->chosen->held_after);
	}
	strbuf_printf(out, "<td class=t>%s<td>%.2f\n", r->weighted, r->seconds);
}

static void as_html(const struct produce *p, const struct calibrated *c, const struct tensor_report *rows, size_t count,
		    struct strbuf *out)
{
	double most = 0;
	bool chosen = false;
	for (size_t i = 0; i < count; i++) {
		chosen |= rows[i].chosen != NULL;
		most = rows[i].before > most ? rows[i].before : most;
		most = rows[i].after > most ? rows[i].after : most;
	}
	strbuf_puts(out, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
	escaped(out, path_basename(p->out.path));
	strbuf_printf(out, "</title><style>%s</style><h1>", style);
	escaped(out, path_basename(p->out.path));
	strbuf_printf(out, ": what quantization did to each tensor</h1><p>%zu tensors, recipe ", count);
	escaped(out, recipe_name(p->recipe));
	strbuf_printf(out, ", method %s, from ", c->row ? c->row->name : p->method->name);
	escaped(out, p->input);
	strbuf_puts(out, ".</p><p>Output error is the squared error of what the layer puts out, relative to what it puts out: <i>before</i> with the "
			 "importance-weighted search, <i>after</i> as written. Bars are on a square-root scale, grey before. Worst first.");
	if (chosen)
		strbuf_puts(out, " <i>Chosen</i> on calibration tokens kept apart: error feedback with so much of the correction towards the "
				 "original's outputs; <i>gain there</i> is how much less the error is than the search's.");
	for (size_t i = 0; c->q && i < quantizer_notes(c->q)->count; i++) {
		strbuf_puts(out, "</p><p>");
		escaped(out, quantizer_notes(c->q)->line[i]);
	}
	strbuf_printf(out, "</p><div class=wide><table><tr><th>tensor<th class=t>output error<th>before<th>after<th>ratio<th>weight error"
		      "<th class=t>codec<th class=t>method%s<th class=t>weighted by<th>seconds\n",
		      chosen ? "<th class=t>chosen<th>gain there" : "");
	for (size_t i = 0; i < count; i++)
		html_row(p, c, &rows[i], most, chosen, out);
	strbuf_puts(out, "</table></div></html>\n");
}

/* Where plan_execute chose the codes, its time is the tensor's. */
static void add_times(const struct proof *proof, struct tensor_report *rows, size_t count)
{
	for (size_t i = 0; i < count && proof; i++)
		if (rows[i].seconds == 0)
			rows[i].seconds = proof_seconds(proof, rows[i].item);
}

int quantize_report(const struct produce *p, const struct produced *made, struct err *e)
{
	const struct calibrated *c = made->calibrated;
	struct checkpoint *written;
	struct tensor_report *rows = NULL;
	struct strbuf out = { 0 };
	size_t count = 0;
	int rc = checkpoint_open(made->path, &written, e);
	if (rc)
		return rc;
	rc = tensor_report_make(&(struct tensor_report_job){ made->plan, made->source, written, c->stats, c->q }, &rows, &count, e);
	if (!rc) {
		add_times(made->proof, rows, count);
		(has_suffix(p->report, ".html") ? as_html : as_json)(p, c, rows, count, &out);
		rc = out.failed ? err_nomem(e) : file_write(p->report, out.data, out.len, e);
	}
	strbuf_release(&out);
	free(rows);
	checkpoint_close(written);
	return rc;
}
