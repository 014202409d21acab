/* Reports for machines that run checks: JUnit's XML, GitHub's annotations and step summary. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "calib/judge/report.h"

/* XML 1.0 has no way to say control characters, and a path may hold bytes that are no text. */
static void plain(struct strbuf *out, const char **s)
{
	size_t n = utf8_sequence(*s, strlen(*s));
	if (n > 1 && strncmp(*s, "\xef\xbf\xbe", 3) && strncmp(*s, "\xef\xbf\xbf", 3))
		strbuf_add(out, *s, n);
	else
		strbuf_putc(out, n != 1 ? '?' : (unsigned char)**s < 32 ? ' ' : **s);
	*s += n ? n : 1;
}

static void xml_text(struct strbuf *out, const char *s)
{
	while (*s) {
		const char *name = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '"' ? "&quot;" : NULL;
		if (name) {
			strbuf_puts(out, name);
			s++;
		} else {
			plain(out, &s);
		}
	}
}

/* One check, as JUnit and GitHub see it. */
struct check {
	char name[64], message[600];
	enum gate_verdict verdict;
};

static void gate_check(const struct report *r, const struct gate_result *g, struct check *c)
{
	const struct interval *v = &g->interval;
	c->verdict = g->verdict == GATE_UNDECIDED && r->undecided_passes ? GATE_PASS : g->verdict;
	snprintf(c->name, sizeof c->name, "--%s %g", gate_rows[g->metric].option, g->limit);
	int n = snprintf(c->message, sizeof c->message, "%s: %s %.6g, between %.6g and %.6g at %g %% confidence, limit %.6g",
			 gate_verdict_names[g->verdict], gate_rows[g->metric].what, v->estimate, v->lower, v->upper, 100 * r->confidence,
			 g->limit);
	if (g->verdict == GATE_UNDECIDED && g->windows_needed)
		snprintf(c->message + n, sizeof c->message - (size_t)n, "; about %zu windows would decide", g->windows_needed);
}

enum { MAX_CHECKS = GATE_COUNT + 2 };

static size_t checks_of(const struct report *r, struct check c[MAX_CHECKS])
{
	size_t n = 0;
	c[n].verdict = r->failure ? GATE_FAIL : GATE_PASS;
	snprintf(c[n].name, sizeof c[n].name, "finite logits");
	snprintf(c[n++].message, sizeof c[0].message, "%s", r->failure ? r->failure : "every logit is finite");
	if (r->failure)
		return n;
	for (size_t i = 0; i < r->gates; i++)
		gate_check(r, &r->gate[i], &c[n++]);
	if (r->decode) {
		c[n].verdict = r->decode->agree ? GATE_PASS : GATE_FAIL;
		snprintf(c[n].name, sizeof c[n].name, "decoding agrees with prefill");
		snprintf(c[n++].message, sizeof c[0].message, "logits differ by %.3g of their magnitude", r->decode->relative_error);
	}
	return n;
}

void report_junit(const struct report *r, struct strbuf *out)
{
	struct check c[MAX_CHECKS];
	size_t n = checks_of(r, c), failed = 0;
	for (size_t i = 0; i < n; i++)
		failed += c[i].verdict != GATE_PASS;
	strbuf_puts(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
	strbuf_printf(out, "  <testsuite name=\"quire verify\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"0\">\n", n, failed);
	for (size_t i = 0; i < n; i++) {
		strbuf_puts(out, "    <testcase classname=\"");
		xml_text(out, r->id->model_name);
		strbuf_puts(out, "\" name=\"");
		xml_text(out, c[i].name);
		if (c[i].verdict == GATE_PASS) {
			strbuf_puts(out, "\">\n      <system-out>");
			xml_text(out, c[i].message);
			strbuf_puts(out, "</system-out>\n    </testcase>\n");
			continue;
		}
		strbuf_printf(out, "\">\n      <failure type=\"%s\" message=\"", gate_verdict_names[c[i].verdict]);
		xml_text(out, c[i].message);
		strbuf_puts(out, "\"/>\n    </testcase>\n");
	}
	strbuf_puts(out, "  </testsuite>\n</testsuites>\n");
}

/* Workflow commands end at a newline and know % escapes only. */
static void command_text(struct strbuf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '%' || *s == '\r' || *s == '\n')
			strbuf_printf(out, "%%%02X", (unsigned)*s);
		else
			strbuf_putc(out, *s);
	}
}

void report_annotations(const struct report *r, struct strbuf *out)
{
	struct check c[MAX_CHECKS];
	size_t n = checks_of(r, c);
	for (size_t i = 0; i < n; i++) {
		if (c[i].verdict == GATE_PASS && (!i || i > r->gates))
			continue;
		bool tolerated = i && i <= r->gates && r->gate[i - 1].verdict == GATE_UNDECIDED; /* --undecided pass */
		strbuf_printf(out, "::%s title=quire verify %s::", c[i].verdict != GATE_PASS ? "error" : tolerated ? "warning" : "notice",
			      c[i].name);
		command_text(out, c[i].message);
		strbuf_putc(out, '\n');
	}
}

/* In a table a bar would end the cell, and markup should stay text. */
static void cell(struct strbuf *out, const char *s)
{
	while (*s) {
		if (strchr("|`*_<>[]\\", *s))
			strbuf_putc(out, '\\');
		plain(out, &s);
	}
}

static void markdown_row(const struct report *r, enum gate_metric metric, struct strbuf *out)
{
	const struct gate_result *gate = NULL;
	for (size_t i = 0; i < r->gates; i++)
		if (r->gate[i].metric == metric)
			gate = &r->gate[i];
	strbuf_printf(out, "| %s | %.6g | %.6g .. %.6g |", gate_rows[metric].what, r->bound[metric].estimate, r->bound[metric].lower,
		      r->bound[metric].upper);
	if (gate)
		strbuf_printf(out, " %s %.6g | %s |\n", gate_rows[metric].minimum ? "at least" : "at most", gate->limit,
			      gate_verdict_names[gate->verdict]);
	else
		strbuf_puts(out, " | |\n");
}

void report_markdown(const struct report *r, struct strbuf *out)
{
	strbuf_printf(out, "### quire verify: %s\n\n", report_passed(r) ? "pass" : "fail");
	cell(out, r->id->model_name);
	if (*r->id->reference_name) {
		strbuf_puts(out, " against ");
		cell(out, r->id->reference_name);
	}
	strbuf_puts(out, " on ");
	cell(out, r->id->data_name);
	if (r->failure) {
		strbuf_puts(out, "\n\n");
		cell(out, r->failure);
		strbuf_puts(out, "\n");
		return;
	}
	strbuf_printf(out, ", %zu windows of %zu tokens\n\n| figure | value | bounds at %g %% | limit | verdict |\n|---|---|---|---|---|\n",
		      r->summary.windows, r->id->ctx, 100 * r->confidence);
	for (size_t i = 0; i < GATE_COUNT; i++)
		if (r->bounded[i])
			markdown_row(r, (enum gate_metric)i, out);
	strbuf_putc(out, '\n');
}
