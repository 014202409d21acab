/* The page of `compare`: one file, no scripts, nothing from elsewhere. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/compare.h"
#include "cmd/plot.h"

static const char style[] =
	":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5b6572;--grid:#e4e8ec;--card:#f5f7f9;--edge:#d5dbe1;--good:#e3f3e6;"
	"--s0:#1f6feb;--s1:#c45a00;--s2:#1a7f4b;--s3:#b8327a;--s4:#7a4fd0;--s5:#8a6a00;--s6:#00809a;--s7:#c93a2b}\n"
	"@media (prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e6eaef;--dim:#9aa6b3;--grid:#27303a;--card:#1a2027;--edge:#36414d;"
	"--good:#17351f;--s0:#6aa9ff;--s1:#ffa657;--s2:#56d490;--s3:#ff8cc0;--s4:#bda0ff;--s5:#dcbb4f;--s6:#4fd0e6;--s7:#ff8b7d}}\n"
	"@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--grid:#ddd;--card:#fff;--edge:#bbb;--good:#eee;"
	"--s0:#1f6feb;--s1:#c45a00;--s2:#1a7f4b;--s3:#b8327a;--s4:#7a4fd0;--s5:#8a6a00;--s6:#00809a;--s7:#c93a2b}"
	"section,figure,tr{break-inside:avoid}.scroll{overflow:visible!important}table{font-size:8.5pt}}\n"
	"*{box-sizing:border-box}body{margin:0 auto;max-width:1080px;padding:20px 16px 48px;background:var(--bg);color:var(--fg);"
	"font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",sans-serif}\n"
	"h1{font-size:1.5rem;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.8em 0 .4em}h3{font-size:.95rem;margin:1.2em 0 .3em}"
	"p{margin:.3em 0}.dim{color:var(--dim);font-size:.9rem;overflow-wrap:anywhere}\n"
	".take{border:1px solid var(--edge);border-left:4px solid var(--s2);background:var(--card);padding:.6em .9em;margin:1em 0;"
	"border-radius:4px;overflow-wrap:anywhere}.take.none{border-left-color:var(--s7)}\n"
	".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%}"
	"th,td{padding:.35em .6em;text-align:right;white-space:nowrap;border-bottom:1px solid var(--edge)}"
	"th{color:var(--dim);font-weight:600;vertical-align:bottom}"
	"th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--bg)}"
	"tr.chosen td{background:var(--good)}td small{color:var(--dim)}\n"
	"figure{margin:0}svg{display:block;width:100%;height:auto}.narrow{display:none}"
	"text{font-size:12px;fill:var(--fg)}.tick{fill:var(--dim)}.name{fill:var(--dim)}.label{font-weight:600;paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}"
	".grid{stroke:var(--grid)}.axis{stroke:var(--dim)}.mark{stroke:var(--dim);stroke-dasharray:5 4}.leader{stroke:var(--dim)}"
	".line{fill:none;stroke:var(--c);stroke-width:2}.disc{fill:var(--c);stroke:var(--bg);stroke-width:1}"
	".ring{fill:var(--bg);stroke:var(--c);stroke-width:2}.dashed{stroke-dasharray:6 3}\n"
	".s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}"
	".s7{--c:var(--s7)}\n"
	".legend{display:flex;flex-wrap:wrap;gap:.2em 1.2em;padding:0;margin:.3em 0 .3em;list-style:none;font-size:.88rem}"
	".legend svg{display:inline-block;width:22px;height:10px;margin-right:.4em}\n"
	".bars td:nth-child(2){width:55%;min-width:110px;text-align:left}.bar{background:var(--s0);height:.8em;border-radius:2px;min-width:1px}"
	".bar.minus{background:var(--s7)}\n"
	"@media screen and (max-width:600px){.wide{display:none}.narrow{display:block}th,td{padding:.35em .4em}.bars td:nth-child(2){min-width:60px;width:30%}}\n";

static void heading(const struct compare *c, struct strbuf *out)
{
	struct strbuf verdict = { 0 };
	strbuf_puts(out, "<h1>Variants of ");
	html_text(out, c->model);
	strbuf_puts(out, "</h1>\n<p class=\"dim\">Judged on ");
	html_text(out, c->o->data);
	strbuf_printf(out, ": %zu tokens in %zu windows of %zu, protocol %s. KL divergence from the original in nats per token; intervals hold "
		      "with %g %% confidence and take a window as one observation.</p>\n", c->w.count * windows_scored(&c->w), c->w.count,
		      c->w.ctx, c->o->protocol, 100 * c->o->confidence);
	compare_verdict(c, &verdict);
	if (c->asked && verdict.data) {
		strbuf_printf(out, "<p class=\"take%s\">", c->choice.index < 0 ? " none" : "");
		*verdict.data = (char)(*verdict.data - 'a' + 'A');
		html_text(out, verdict.data);
		strbuf_puts(out, ".</p>\n");
	}
	strbuf_release(&verdict);
}

static void row(const struct compare *c, size_t i, struct strbuf *out)
{
	const struct variant *v = &c->variants[i];
	char size[32], kv[32];
	strbuf_printf(out, "<tr%s><td>%zu&#8194;", c->asked && c->choice.index == (long)i ? " class=\"chosen\"" : "", i + 1);
	html_text(out, v->name);
	strbuf_printf(out, "%s</td><td>%s</td>", v->front ? " ★" : "", size_text(v->bytes, size));
	strbuf_printf(out, "<td>%.3g<br/><small>%.3g–%.3g</small></td>", v->kl.estimate, v->kl.lower, v->kl.upper);
	strbuf_printf(out, "<td>%.4f<br/><small>%.4f–%.4f</small></td>", v->ratio.estimate, v->ratio.lower, v->ratio.upper);
	strbuf_printf(out, "<td>%.2f %%<br/><small>%.2f–%.2f</small></td><td>%.3g</td>", 100 * v->top1.estimate, 100 * v->top1.lower,
		      100 * v->top1.upper, v->s.kl_p99);
	strbuf_printf(out, "<td>%.3f</td><td>%s</td><td>%.0f</td><td>", v->bits, size_text((uint64_t)(v->kv_bytes + 0.5), kv),
		      v->run_seconds > 0 ? (double)(c->w.count * c->w.ctx) / v->run_seconds : 0);
	compare_alike(c, i, out);
	strbuf_puts(out, "</td></tr>\n");
}

static void table(const struct compare *c, struct strbuf *out)
{
	char size[32], kv[32];
	strbuf_puts(out, "<div class=\"scroll\"><table><thead><tr><th>variant</th><th>size</th><th>KL</th><th>perplexity<br/>ratio</th>"
			 "<th>same top<br/>token</th><th>KL, 99th<br/>percentile</th><th>bits per<br/>weight</th><th>KV per<br/>token</th><th>tokens/s<br/>here</th>"
			 "<th>alike</th></tr></thead>\n<tbody>");
	strbuf_printf(out, "<tr><td>original</td><td>%s</td><td></td><td><small>perplexity %.4f</small></td><td></td><td></td>"
		      "<td>%.3f</td><td>%s</td><td></td><td></td></tr>\n", size_text(c->bytes, size), c->variants[0].s.reference_perplexity, c->bits,
		      size_text((uint64_t)(c->kv_bytes + 0.5), kv));
	for (size_t i = 0; i < c->count; i++)
		row(c, i, out);
	strbuf_puts(out, "</tbody></table></div>\n<p class=\"dim\">★ no other is both smaller and nearer to the original. alike: variants whose KL "
			 "cannot be told from this one's (paired by token, Holm's adjustment over all pairs). tokens/s: prefill in this program's "
			 "own f32 pass, not on a device.</p>\n");
}

/* The same plot for wide and for narrow screens; printed is the wide one. */
static void both(struct plot *p, struct strbuf *out)
{
	strbuf_puts(out, "<figure><div class=\"wide\">");
	p->width = 900;
	p->height = 400;
	plot_svg(p, out);
	strbuf_puts(out, "</div><div class=\"narrow\">");
	p->width = 360;
	p->height = 330;
	plot_svg(p, out);
	strbuf_puts(out, "</div></figure>\n");
}

static void legend(const struct compare *c, struct strbuf *out)
{
	strbuf_puts(out, "<ul class=\"legend\">");
	for (size_t i = 0; i < c->count; i++) {
		strbuf_printf(out, "<li><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\"><path class=\"line s%zu%s\" d=\"M0 5L22 5\"/></svg>",
			      i % PLOT_COLOURS, i >= PLOT_COLOURS ? " dashed" : "");
		html_text(out, c->variants[i].name);
		strbuf_puts(out, "</li>");
	}
	strbuf_puts(out, "</ul>\n");
}

static void size_plot(const struct compare *c, struct strbuf *out)
{
	struct plot_point *all = calloc(2 * c->count, sizeof *all), *front = all + c->count;
	size_t n = 0;
	bool large = c->variants[c->count - 1].bytes >= (uint64_t)4 << 30, small = c->variants[c->count - 1].bytes < 1 << 20;
	double unit = large ? 0x1p30 : small ? 0x1p10 : 0x1p20;
	if (!all) {
		out->failed = true;
		return;
	}
	for (size_t i = 0; i < c->count; i++) {
		const struct variant *v = &c->variants[i];
		all[i] = (struct plot_point){ (double)v->bytes / unit, v->kl.estimate, v->kl.lower, v->kl.upper, v->name, !v->front };
		if (v->front)
			front[n++] = (struct plot_point){ .x = all[i].x, .y = all[i].y, .low = (double)NAN, .high = (double)NAN };
	}
	const struct plot_series series[2] = { { front, n, 2, true, false, false }, { all, c->count, 0, false, true, false } };
	struct plot p = { .title = "KL against size", .x_label = large ? "file size, GiB" : small ? "file size, KiB" : "file size, MiB",
			  .y_label = "KL, nats per token", .log_y = true, .series = series, .count = 2,
			  .mark_x = c->o->budget ? (double)c->o->budget / unit : (double)NAN, .mark_x_label = "budget",
			  .mark_y = c->o->max_kl > 0 ? c->o->max_kl : (double)NAN, .mark_y_label = "limit" };
	strbuf_puts(out, "<section><h2>KL against size</h2>\n<p class=\"dim\">The line joins the Pareto front: variants that no other beats in both. "
			 "Rings are beaten. Bars are confidence intervals; the scale is logarithmic.</p>\n");
	both(&p, out);
	strbuf_puts(out, "</section>\n");
	free(all);
}

static void position_plot(const struct compare *c, struct strbuf *out)
{
	enum { BINS = 16 };
	struct plot_series *series = calloc(c->count, sizeof *series);
	struct plot_point *point = calloc(c->count * BINS, sizeof *point);
	if (!series || !point)
		out->failed = true;
	for (size_t i = 0; i < c->count && !out->failed; i++) {
		struct position_bin bin[BINS];
		struct plot_point *q = point + i * BINS;
		size_t n = measurement_by_position(&c->variants[i].m, bin, BINS);
		for (size_t k = 0; k < n; k++)
			q[k] = (struct plot_point){ .x = (double)c->w.first + (double)(bin[k].from + bin[k].to) / 2, .y = bin[k].kl,
						    .low = (double)NAN, .high = (double)NAN };
		series[i] = (struct plot_series){ .point = q, .count = n, .colour = (unsigned)i, .line = true };
	}
	struct plot p = { .title = "KL by position in the window", .x_label = "position in the window, tokens", .y_label = "KL, nats per token",
			  .log_y = true, .series = series, .count = c->count, .mark_x = (double)NAN, .mark_y = (double)NAN };
	if (!out->failed) {
		strbuf_puts(out, "<section><h2>KL by position</h2>\n<p class=\"dim\">Damage to a KV cache tends to grow along the window; that of "
				 "weights alone tends not to.</p>\n");
		legend(c, out);
		both(&p, out);
		strbuf_puts(out, "</section>\n");
	}
	free(series);
	free(point);
}

static void layer_plot(const struct compare *c, struct strbuf *out)
{
	size_t layers = c->reference.config.layers, shown = 0;
	struct plot_series *series = calloc(c->count, sizeof *series);
	struct plot_point *point = calloc(c->count * layers, sizeof *point);
	if (!series || !point)
		out->failed = true;
	for (size_t i = 0; i < c->count && !out->failed; i++) {
		struct plot_point *q = point + i * layers;
		if (!c->variants[i].layer)
			continue;
		for (size_t l = 0; l < layers; l++)
			q[l] = (struct plot_point){ .x = (double)l, .y = c->variants[i].layer[l], .low = (double)NAN, .high = (double)NAN };
		series[shown++] = (struct plot_series){ .point = q, .count = layers, .colour = (unsigned)i, .line = true, .dots = layers <= 40 };
	}
	struct plot p = { .title = "Error after each layer", .x_label = "layer", .y_label = "relative error", .log_y = true, .whole_x = true,
			  .series = series, .count = shown, .mark_x = (double)NAN, .mark_y = (double)NAN };
	if (!out->failed && shown) {
		strbuf_puts(out, "<section><h2>Error after each layer</h2>\n<p class=\"dim\">How far hidden states are from the original's after a "
				 "layer, as a share of their length. A layer that hurts makes a step.</p>\n");
		legend(c, out);
		both(&p, out);
		strbuf_puts(out, "</section>\n");
	}
	free(series);
	free(point);
}

static void attribution_table(const struct variant *v, struct strbuf *out)
{
	enum { SHOWN = 24 };
	const struct attribution *a = &v->attribution;
	double largest = 0;
	for (size_t i = 0; i < a->count; i++)
		largest = fmax(largest, fabs(a->groups[i].gain));
	strbuf_puts(out, "<h3>");
	html_text(out, v->name);
	strbuf_printf(out, ", KL %.3g</h3>\n<div class=\"scroll\"><table class=\"bars\"><thead><tr><th>%s</th><th></th><th>KL that goes</th>"
		      "<th>share</th></tr></thead><tbody>\n", a->kl, a->by == ATTRIBUTE_LAYERS ? "layer" : a->by == ATTRIBUTE_ROLES ? "role" : "tensor");
	for (size_t i = 0; i < a->count && i < SHOWN; i++) {
		const struct attribute_group *g = &a->groups[i];
		strbuf_puts(out, "<tr><td>");
		html_text(out, g->name);
		strbuf_printf(out, "</td><td><div class=\"bar%s\" style=\"width:%.1f%%\"></div></td><td>%.2e <small>± %.0e</small></td><td>%.1f %%</td></tr>\n",
			      g->gain < 0 ? " minus" : "", largest > 0 ? 100 * fabs(g->gain) / largest : 0, g->gain, g->gain_error,
			      a->kl > 0 ? 100 * g->gain / a->kl : 0);
	}
	strbuf_puts(out, "</tbody></table></div>\n");
}

static void attributions(const struct compare *c, struct strbuf *out)
{
	bool any = false;
	for (size_t i = 0; i < c->count; i++)
		if (c->variants[i].attribution.count) {
			if (!any)
				strbuf_puts(out, "<section><h2>Which weights cause it</h2>\n<p class=\"dim\">The KL that goes when one group of weights is "
						 "swapped back to the original. Groups act together, so shares need not add up to 100 %; a red bar means "
						 "that the original there makes it worse: its error offsets another's.</p>\n");
			any = true;
			attribution_table(&c->variants[i], out);
		}
	if (any)
		strbuf_puts(out, "</section>\n");
}

void compare_html(const struct compare *c, struct strbuf *out)
{
	strbuf_puts(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n"
			 "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n<title>Variants of ");
	html_text(out, c->model);
	strbuf_printf(out, "</title>\n<meta name=\"generator\" content=\"quire %s\"/>\n<style>%s</style></head><body>\n", QUIRE_VERSION, style);
	heading(c, out);
	table(c, out);
	size_plot(c, out);
	position_plot(c, out);
	layer_plot(c, out);
	attributions(c, out);
	strbuf_puts(out, "</body></html>\n");
}
