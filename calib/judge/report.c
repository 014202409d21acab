#include "calib/judge/report.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "kernel/product.h"

bool report_passed(const struct report *r)
{
	if (r->failure || (r->decode && !r->decode->agree))
		return false;
	for (size_t i = 0; i < r->gates; i++)
		if (r->gate[i].verdict == GATE_FAIL || (r->gate[i].verdict == GATE_UNDECIDED && !r->undecided_passes))
			return false;
	return true;
}

/* "mean KL 0.00182, at most 0.00195, limit 0.0019: undecided; about 210 windows would decide" */
static void gate_line(const struct report *r, const struct gate_result *g, struct strbuf *out)
{
	const struct gate_row *row = &gate_rows[g->metric];
	const struct interval *v = &g->interval;
	strbuf_printf(out, "%s %.6g, between %.6g and %.6g, limit %.6g: %s", row->what, v->estimate, v->lower, v->upper, g->limit,
		      gate_verdict_names[g->verdict]);
	if (g->verdict != GATE_UNDECIDED)
		return;
	if (r->summary.windows < 2)
		strbuf_puts(out, "; one window has no error to judge by, use 8 or more");
	else if (g->windows_needed)
		strbuf_printf(out, "; about %zu windows would decide", g->windows_needed);
	else
		strbuf_puts(out, "; the estimate sits on the limit, no number of windows would decide");
}

void report_reason(const struct report *r, struct strbuf *out)
{
	const char *between = "";
	if (r->failure)
		strbuf_puts(out, r->failure);
	for (size_t i = 0; !r->failure && i < r->gates; i++) {
		const struct gate_result *g = &r->gate[i];
		if (g->verdict == GATE_PASS || (g->verdict == GATE_UNDECIDED && r->undecided_passes))
			continue;
		strbuf_printf(out, "%s--%s: ", between, gate_rows[g->metric].option);
		gate_line(r, g, out);
		between = "; ";
	}
	if (!r->failure && r->decode && !r->decode->agree)
		strbuf_printf(out, "%sdecoding token by token and prefill disagree: relative error %.3g of the logits", between,
			      r->decode->relative_error);
}

static const char *reference_word(const struct report *r)
{
	return r->baseline ? "baseline" : "reference";
}

static void text_probes(const struct report *r, struct strbuf *out)
{
	if (r->bins) {
		size_t first = r->id->ctx - 1 - r->id->scored;
		strbuf_puts(out, "KL by position\n");
		for (size_t i = 0; i < r->bins; i++)
			strbuf_printf(out, "  %5zu..%-5zu     %.6f +/- %.6f\n", first + r->bin[i].from, first + r->bin[i].to - 1, r->bin[i].kl,
				      r->bin[i].kl_error);
	}
	if (r->draft) {
		strbuf_printf(out, "acceptance        %.2f %% +/- %.2f %%   (a draft's step costs %.3f of the target's)\n",
			      100 * r->draft->acceptance, 100 * r->draft->acceptance_error, r->draft->cost);
		strbuf_puts(out, "  draft length  tokens per step  formula  speed-up\n");
		for (size_t i = 0; i < r->drafts; i++)
			strbuf_printf(out, "  %12u  %15.3f  %7.3f  %7.3fx%s\n", r->draft_row[i].length, r->draft_row[i].tokens,
				      r->draft_row[i].tokens_iid, r->draft_row[i].speedup, i == r->draft->best ? "  best" : "");
	}
	if (r->copy) {
		strbuf_printf(out, "copy test         %.4f nats on the second copy, %.4f on the first   (%zu windows, %zu tokens twice)\n",
			      r->copy->second, r->copy->first, r->copy->windows, r->copy->length);
		if (*r->id->reference_name && !r->baseline)
			strbuf_printf(out, "  reference       %.4f and %.4f\n", r->copy->reference_second, r->copy->reference_first);
	}
	if (r->decode)
		strbuf_printf(out, "decoding          %s with prefill: logits within %.2g relative, KL up to %.2g   (%zu tokens)\n",
			      r->decode->agree ? "agrees" : "DISAGREES", r->decode->relative_error, r->decode->kl_max, r->decode->tokens);
	if (r->noise)
		strbuf_printf(out, "noise             KL %.3g, ratio %+.3g, same top token %.3f %%   (%s kernels and %s against %s and %s, %zu windows)\n",
			      r->noise->summary.kl_mean, r->noise->summary.perplexity_ratio - 1, 100 * r->noise->summary.top1,
			      r->noise->other_kernels, product_sgemm.name, r->noise->kernels, products()->name, r->noise->windows);
	if (r->attribution)
		attribution_text(r->attribution, 24, out);
}

/* Six decimals, or three digits of what they would not show. */
static void text_kl(struct strbuf *out, const char *before, double kl, const char *after)
{
	strbuf_puts(out, before);
	strbuf_printf(out, kl > 0 && kl < 1e-4 ? "%.3g" : "%.6f", kl);
	strbuf_puts(out, after);
}

void report_text(const struct report *r, struct strbuf *out)
{
	const struct summary *s = &r->summary;
	const struct run_id *id = r->id;
	strbuf_printf(out, "perplexity        %.4f +/- %.4f   (%zu tokens, %zu windows of %zu, protocol %s)\n", s->perplexity,
		      s->perplexity_error, s->tokens, s->windows, id->ctx, protocol_rows[id->protocol].name);
	if (*id->reference_name) {
		strbuf_printf(out, "%-9s         %.4f\n", reference_word(r), s->reference_perplexity);
		strbuf_printf(out, "perplexity ratio  %.5f +/- %.5f\n", s->perplexity_ratio, s->perplexity_ratio_error);
		text_kl(out, "KL mean           ", s->kl_mean, " +/- ");
		text_kl(out, "", s->kl_mean_error, " nats\n");
		if (r->baseline)
			text_kl(out, "  of which        ", s->kl_sampling_error, " from the baseline's sampling\n");
		text_kl(out, "KL median         ", s->kl_median, "\n");
		text_kl(out, "KL 99th pct       ", s->kl_p99, "\n");
		text_kl(out, "KL max            ", s->kl_max, "\n");
		strbuf_printf(out, "same top token    %.2f %% +/- %.2f %%\n", 100 * s->top1, 100 * s->top1_error);
	}
	text_probes(r, out);
	for (size_t i = 0; i < r->gates; i++) {
		strbuf_printf(out, "gate --%-15s ", gate_rows[r->gate[i].metric].option);
		gate_line(r, &r->gate[i], out);
		strbuf_putc(out, '\n');
	}
	if (r->gates)
		strbuf_printf(out, "verdict           %s   (bounds at %g %% confidence)\n", report_passed(r) ? "pass" : "fail",
			      100 * r->confidence);
}

static void json_figures(const struct report *r, struct json_writer *w)
{
	const struct summary *s = &r->summary;
	jw_uint(w, "chunks", s->windows);
	jw_uint(w, "tokens", s->tokens);
	jw_double(w, "perplexity", s->perplexity);
	jw_double(w, "perplexity_error", s->perplexity_error);
	if (*r->id->reference_name) {
		jw_string(w, r->baseline ? "baseline" : "against", r->id->reference_name);
		jw_double(w, "reference_perplexity", s->reference_perplexity);
		jw_double(w, "perplexity_ratio", s->perplexity_ratio);
		jw_double(w, "perplexity_ratio_error", s->perplexity_ratio_error);
		jw_double(w, "kl_mean", s->kl_mean);
		jw_double(w, "kl_mean_error", s->kl_mean_error);
		if (r->baseline)
			jw_double(w, "kl_sampling_error", s->kl_sampling_error);
		jw_double(w, "kl_median", s->kl_median);
		jw_double(w, "kl_p99", s->kl_p99);
		jw_double(w, "kl_max", s->kl_max);
		jw_double(w, "top1", s->top1);
		jw_double(w, "top1_error", s->top1_error);
	}
	jw_double(w, "confidence", r->confidence);
	jw_object(w, "bounds");
	for (size_t i = 0; i < GATE_COUNT; i++)
		if (r->bounded[i]) {
			jw_object(w, gate_rows[i].name);
			jw_double(w, "lower", r->bound[i].lower);
			jw_double(w, "upper", r->bound[i].upper);
			jw_end_object(w);
		}
	jw_end_object(w);
}

static void json_gates(const struct report *r, struct json_writer *w)
{
	jw_array(w, "gates");
	for (size_t i = 0; i < r->gates; i++) {
		const struct gate_result *g = &r->gate[i];
		jw_object(w, NULL);
		jw_string(w, "gate", gate_rows[g->metric].option);
		jw_string(w, "figure", gate_rows[g->metric].name);
		jw_double(w, "limit", g->limit);
		jw_double(w, "estimate", g->interval.estimate);
		jw_double(w, "lower", g->interval.lower);
		jw_double(w, "upper", g->interval.upper);
		jw_string(w, "verdict", gate_verdict_names[g->verdict]);
		if (g->verdict == GATE_UNDECIDED && g->windows_needed)
			jw_uint(w, "chunks_needed", g->windows_needed);
		else if (g->verdict == GATE_UNDECIDED)
			jw_null(w, "chunks_needed");
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void json_draft(const struct report *r, struct json_writer *w)
{
	jw_object(w, "draft");
	jw_double(w, "acceptance", r->draft->acceptance);
	jw_double(w, "acceptance_error", r->draft->acceptance_error);
	jw_double(w, "cost", r->draft->cost);
	jw_uint(w, "best_length", r->draft_row[r->draft->best].length);
	jw_array(w, "lengths");
	for (size_t i = 0; i < r->drafts; i++) {
		jw_object(w, NULL);
		jw_uint(w, "length", r->draft_row[i].length);
		jw_double(w, "tokens_per_step", r->draft_row[i].tokens);
		jw_double(w, "tokens_per_step_formula", r->draft_row[i].tokens_iid);
		jw_double(w, "speedup", r->draft_row[i].speedup);
		jw_end_object(w);
	}
	jw_end_array(w);
	jw_end_object(w);
}

static void json_probes(const struct report *r, struct json_writer *w)
{
	if (r->bins) {
		size_t first = r->id->ctx - 1 - r->id->scored;
		jw_array(w, "kl_by_position");
		for (size_t i = 0; i < r->bins; i++) {
			jw_object(w, NULL);
			jw_uint(w, "from", first + r->bin[i].from);
			jw_uint(w, "to", first + r->bin[i].to - 1);
			jw_double(w, "kl_mean", r->bin[i].kl);
			jw_double(w, "kl_mean_error", r->bin[i].kl_error);
			jw_end_object(w);
		}
		jw_end_array(w);
	}
	if (r->draft)
		json_draft(r, w);
	if (r->copy) {
		jw_object(w, "copy_test");
		jw_uint(w, "chunks", r->copy->windows);
		jw_uint(w, "length", r->copy->length);
		jw_double(w, "loss_first", r->copy->first);
		jw_double(w, "loss_second", r->copy->second);
		if (*r->id->reference_name && !r->baseline) {
			jw_double(w, "reference_loss_first", r->copy->reference_first);
			jw_double(w, "reference_loss_second", r->copy->reference_second);
		}
		jw_end_object(w);
	}
	if (r->decode) {
		jw_object(w, "decode");
		jw_uint(w, "tokens", r->decode->tokens);
		jw_double(w, "relative_error", r->decode->relative_error);
		jw_double(w, "kl_max", r->decode->kl_max);
		jw_bool(w, "agree", r->decode->agree);
		jw_end_object(w);
	}
	if (r->noise) {
		jw_object(w, "noise");
		jw_string(w, "kernels", r->noise->kernels);
		jw_string(w, "other_kernels", r->noise->other_kernels);
		jw_string(w, "products", products()->name);
		jw_string(w, "other_products", product_sgemm.name);
		jw_uint(w, "chunks", r->noise->windows);
		jw_double(w, "perplexity_ratio", r->noise->summary.perplexity_ratio);
		jw_double(w, "kl_mean", r->noise->summary.kl_mean);
		jw_double(w, "kl_max", r->noise->summary.kl_max);
		jw_double(w, "top1", r->noise->summary.top1);
		jw_end_object(w);
	}
	if (r->attribution)
		attribution_json(r->attribution, "attribution", w);
}

void report_json(const struct report *r, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_document(&w, REPORT_SCHEMA);
	jw_string(&w, "model", r->id->model_name);
	jw_string(&w, "data", r->id->data_name);
	jw_string(&w, "protocol", protocol_rows[r->id->protocol].name);
	jw_uint(&w, "ctx", r->id->ctx);
	if (*r->id->as)
		jw_string(&w, "as", r->id->as);
	if (*r->id->kv) {
		jw_string(&w, "kv_cache", r->id->kv);
		jw_string(&w, "kv_cache_v", r->id->kv_v);
		jw_bool(&w, "kv_rotate", r->id->kv_rotate);
	}
	if (r->failure) {
		jw_string(&w, "failure", r->failure);
	} else {
		json_figures(r, &w);
		json_probes(r, &w);
		json_gates(r, &w);
	}
	jw_string(&w, "verdict", report_passed(r) ? "pass" : "fail");
	jw_end_object(&w);
	strbuf_putc(out, '\n');
}
