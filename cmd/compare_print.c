/* What `compare` prints: the table, JSON, CSV, and the choice in words. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cmd/compare.h"

void compare_alike(const struct compare *c, size_t v, struct strbuf *out)
{
	size_t start = out->len;
	for (size_t i = 0; i < c->count; i++)
		if (i != v && !c->pairs[compare_pair_index(i, v, c->count)].significant)
			strbuf_printf(out, "%s%zu", out->len > start ? ", " : "", i + 1);
}

static void say_limits(const struct compare *c, struct strbuf *out)
{
	const struct compare_options *o = c->o;
	char size[32];
	if (o->budget)
		strbuf_printf(out, " of at most %s", size_text(o->budget, size));
	if (o->max_kl > 0)
		strbuf_printf(out, "%s a KL below %g at %g %% confidence", o->budget ? " and" : " with", o->max_kl, 100 * o->confidence);
}

static void say_none(const struct compare *c, struct strbuf *out)
{
	const struct choice *r = &c->choice;
	const struct variant *small = &c->variants[r->smallest], *near = &c->variants[r->nearest];
	char a[32];
	strbuf_puts(out, "no variant");
	say_limits(c, out);
	if (r->size_excess > 0)
		strbuf_printf(out, "; the smallest, %s, is %s (%.1f %%) over the budget", small->name, size_text((uint64_t)r->size_excess, a),
			      100 * r->size_excess / (double)c->o->budget);
	if (isnan(r->kl_excess))
		strbuf_puts(out, "; one window gives no confidence bound: use more text or more --windows");
	else if (r->kl_excess > 0)
		strbuf_printf(out, "; the nearest, %s, has a KL of %.3g with the bound at %.3g, %.3g above the limit", near->name, near->s.kl_mean,
			      r->kl_excess + c->o->max_kl, r->kl_excess);
	if (r->size_excess == 0 && r->kl_excess == 0)
		strbuf_printf(out, "; each limit can be met alone: %s has a KL of %.3g, %s is %s", small->name, small->s.kl_mean, near->name,
			      size_text(near->bytes, a));
}

void compare_verdict(const struct compare *c, struct strbuf *out)
{
	const struct compare_options *o = c->o;
	if (!c->asked)
		return;
	if (c->choice.index < 0) {
		say_none(c, out);
		return;
	}
	strbuf_printf(out, "take %s: the ", c->variants[c->choice.index].name);
	if (o->fastest)
		strbuf_puts(out, "fastest");
	else
		strbuf_puts(out, o->max_kl > 0 ? "smallest" : "nearest to the original");
	say_limits(c, out);
}

static double rate(const struct compare *c, const struct variant *v)
{
	return v->run_seconds > 0 ? (double)(c->w.count * c->w.ctx) / v->run_seconds : 0;
}

static void pad(struct strbuf *out, const char *s, int width)
{
	size_t start = out->len;
	safe_text(out, s);
	strbuf_printf(out, "%*s", (int)(out->len - start) < width ? width - (int)(out->len - start) : 0, "");
}

static void table_row(const struct compare *c, size_t i, int width, struct strbuf *out)
{
	const struct variant *v = &c->variants[i];
	char size[32], kv[32], ratio[40], kl[64];
	snprintf(ratio, sizeof ratio, "%.4f +/- %.4f", v->ratio.estimate, (v->ratio.upper - v->ratio.lower) / 2);
	snprintf(kl, sizeof kl, "%.3g [%.3g, %.3g]", v->kl.estimate, v->kl.lower, v->kl.upper);
	strbuf_printf(out, "%2zu%c ", i + 1, v->front ? '*' : ' ');
	pad(out, v->name, width);
	strbuf_printf(out, "  %10s  %6.3f  %9s  %19s  %28s  %7.2f %%  %7.0f  ", size_text(v->bytes, size), v->bits,
		      size_text((uint64_t)(v->kv_bytes + 0.5), kv), ratio, kl, 100 * v->s.top1, rate(c, v));
	compare_alike(c, i, out);
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
	strbuf_putc(out, '\n');
}

static void notes(const struct compare *c, struct strbuf *out)
{
	strbuf_printf(out, "%zu tokens in %zu windows of %zu, protocol %s; %g %% intervals take a window as one observation\n",
		      c->w.count * windows_scored(&c->w), c->w.count, c->w.ctx, c->o->protocol, 100 * c->o->confidence);
	strbuf_puts(out, "* no other is both smaller and nearer; alike: its KL cannot be told from theirs (paired by token, Holm over all pairs)\n");
	if (c->w.count < 2)
		strbuf_puts(out, "one window gives no intervals: use more text or more --windows\n");
}

void compare_table(const struct compare *c, struct strbuf *out)
{
	char size[32], kv[32];
	int width = 8;
	for (size_t i = 0; i < c->count; i++)
		if ((int)strlen(c->variants[i].name) > width)
			width = (int)strlen(c->variants[i].name);
	strbuf_printf(out, " #  %-*s  %10s  %6s  %9s  %19s  %28s  %9s  %7s  %s\n", width, "variant", "size", "bits/w", "KV/token",
		      "perplexity ratio", "KL, nats per token", "same top", "tok/s", "alike");
	strbuf_printf(out, "    %-*s  %10s  %6.3f  %9s  perplexity %.4f\n", width, "original", size_text(c->bytes, size), c->bits,
		      size_text((uint64_t)(c->kv_bytes + 0.5), kv), c->variants[0].s.reference_perplexity);
	for (size_t i = 0; i < c->count; i++)
		table_row(c, i, width, out);
	notes(c, out);
	for (size_t i = 0; i < c->count; i++)
		if (c->variants[i].attribution.groups) {
			strbuf_putc(out, '\n');
			safe_text(out, c->variants[i].name);
			strbuf_puts(out, ": ");
			attribution_text(&c->variants[i].attribution, 12, out);
		}
	if (c->asked && c->choice.index >= 0) {
		compare_verdict(c, out);
		strbuf_putc(out, '\n');
	}
}

static void json_interval(struct json_writer *w, const char *key, const struct interval *v)
{
	jw_object(w, key);
	jw_double(w, "estimate", v->estimate);
	jw_double(w, "error", v->error);
	jw_double(w, "lower", v->lower);
	jw_double(w, "upper", v->upper);
	jw_end_object(w);
}

/* Positions in the window, as verify's. */
static void json_positions(const struct compare *c, const struct variant *v, struct json_writer *w)
{
	enum { BINS = 16 };
	size_t first = c->w.ctx - 1 - v->m.scored;
	struct position_bin bin[BINS];
	size_t n = measurement_by_position(&v->m, bin, BINS);
	jw_array(w, "kl_by_position");
	for (size_t i = 0; i < n; i++) {
		jw_object(w, NULL);
		jw_uint(w, "from", first + bin[i].from);
		jw_uint(w, "to", first + bin[i].to - 1);
		jw_double(w, "kl_mean", bin[i].kl);
		jw_double(w, "kl_mean_error", bin[i].kl_error);
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void json_variant(const struct compare *c, const struct variant *v, struct json_writer *w)
{
	jw_object(w, NULL);
	jw_string(w, "name", v->name);
	if (v->scheme)
		jw_string(w, "scheme", v->scheme);
	jw_string(w, "path", v->path);
	jw_uint(w, "file_bytes", v->bytes);
	jw_double(w, "bits_per_weight", v->bits);
	jw_double(w, "kv_bytes_per_token", v->kv_bytes);
	jw_double(w, "perplexity", v->s.perplexity);
	json_interval(w, "perplexity_ratio", &v->ratio);
	json_interval(w, "kl_mean", &v->kl);
	jw_double(w, "kl_median", v->s.kl_median);
	jw_double(w, "kl_p99", v->s.kl_p99);
	jw_double(w, "kl_max", v->s.kl_max);
	json_interval(w, "top1", &v->top1);
	jw_double(w, "tokens_per_second", rate(c, v));
	jw_double(w, "make_seconds", v->make_seconds);
	jw_bool(w, "made", v->made);
	jw_bool(w, "measured", v->measured);
	jw_bool(w, "pareto", v->front);
	json_positions(c, v, w);
	if (v->layer) {
		jw_array(w, "layer_error");
		for (size_t i = 0; i < c->reference.config.layers; i++)
			jw_double(w, NULL, v->layer[i]);
		jw_end_array(w);
	}
	if (v->attribution.groups)
		attribution_json(&v->attribution, "attribution", w);
	jw_end_object(w);
}

static void json_pairs(const struct compare *c, struct json_writer *w)
{
	jw_array(w, "differences");
	for (size_t i = 0; i < c->pair_count; i++) {
		const struct compare_pair *p = &c->pairs[i];
		jw_object(w, NULL);
		jw_string(w, "a", c->variants[p->a].name);
		jw_string(w, "b", c->variants[p->b].name);
		jw_double(w, "kl_difference", p->difference);
		jw_double(w, "error", p->error);
		jw_double(w, "p", p->p);
		jw_double(w, "p_holm", p->p_holm);
		jw_bool(w, "significant", p->significant);
		jw_end_object(w);
	}
	jw_end_array(w);
}

void compare_json(const struct compare *c, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	struct strbuf verdict = { 0 };
	jw_document(&w, "quire-compare/1");
	jw_string(&w, "model", c->model);
	jw_string(&w, "data", c->o->data);
	if (c->o->stats)
		jw_string(&w, "stats", c->o->stats);
	jw_string(&w, "protocol", c->o->protocol);
	jw_uint(&w, "ctx", c->w.ctx);
	jw_string(&w, "as", c->o->as ? c->o->as : "exact");
	jw_uint(&w, "chunks", c->w.count);
	jw_uint(&w, "tokens", c->w.count * windows_scored(&c->w));
	jw_double(&w, "confidence", c->o->confidence);
	jw_double(&w, "run_seconds", c->seconds);
	jw_object(&w, "original");
	jw_uint(&w, "file_bytes", c->bytes);
	jw_double(&w, "bits_per_weight", c->bits);
	jw_double(&w, "kv_bytes_per_token", c->kv_bytes);
	jw_double(&w, "perplexity", c->variants[0].s.reference_perplexity);
	jw_end_object(&w);
	jw_array(&w, "variants");
	for (size_t i = 0; i < c->count; i++)
		json_variant(c, &c->variants[i], &w);
	jw_end_array(&w);
	json_pairs(c, &w);
	if (c->asked) {
		compare_verdict(c, &verdict);
		jw_string(&w, "take", c->choice.index < 0 ? NULL : c->variants[c->choice.index].name);
		jw_string(&w, "verdict", verdict.data);
	}
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	strbuf_release(&verdict);
}

static void csv_text(struct strbuf *out, const char *s)
{
	if (!s || !strpbrk(s, ",\"\r\n")) {
		strbuf_puts(out, s ? s : "");
		return;
	}
	strbuf_putc(out, '"');
	for (; *s; s++) {
		if (*s == '"')
			strbuf_putc(out, '"');
		strbuf_putc(out, *s);
	}
	strbuf_putc(out, '"');
}

static void csv_number(struct strbuf *out, double v)
{
	if (isfinite(v))
		strbuf_printf(out, ",%.9g", v);
	else
		strbuf_putc(out, ',');
}

void compare_csv(const struct compare *c, struct strbuf *out)
{
	strbuf_puts(out, "name,scheme,method,path,file_bytes,bits_per_weight,kv_bytes_per_token,perplexity,perplexity_ratio,"
			 "perplexity_ratio_lower,perplexity_ratio_upper,kl_mean,kl_mean_lower,kl_mean_upper,kl_p99,kl_max,top1,top1_lower,"
			 "top1_upper,tokens_per_second,make_seconds,pareto,take\n");
	for (size_t i = 0; i < c->count; i++) {
		const struct variant *v = &c->variants[i];
		const char *texts[4] = { v->name, v->scheme, v->method ? v->method : v->file ? NULL : c->o->method, v->path };
		const double numbers[] = { v->bits, v->kv_bytes, v->s.perplexity, v->ratio.estimate, v->ratio.lower, v->ratio.upper,
					   v->kl.estimate, v->kl.lower, v->kl.upper, v->s.kl_p99, v->s.kl_max, v->top1.estimate,
					   v->top1.lower, v->top1.upper, rate(c, v), v->make_seconds };
		for (int k = 0; k < 4; k++) {
			if (k)
				strbuf_putc(out, ',');
			csv_text(out, texts[k]);
		}
		strbuf_printf(out, ",%llu", (unsigned long long)v->bytes);
		for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
			csv_number(out, numbers[k]);
		strbuf_printf(out, ",%d,%d\n", v->front, c->asked && c->choice.index == (long)i);
	}
}
