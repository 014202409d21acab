#ifndef QUIRE_CALIB_JUDGE_REPORT_H
#define QUIRE_CALIB_JUDGE_REPORT_H
/* The result of `verify` as text, JSON (docs/verify.md), JUnit and for GitHub Actions. Parts that are NULL are left out. */
#include "base/strbuf.h"
#include "calib/judge/attribute.h"
#include "calib/judge/gate.h"
#include "calib/judge/probe.h"
#include "calib/judge/records.h"

/* "quire-verify/1": the number rises when a key changes its meaning or goes; new keys may come at any time. */
#define REPORT_SCHEMA "quire-verify/1"

enum { REPORT_BINS = 16, REPORT_DRAFTS = 64 };

struct report {
	const struct run_id *id;
	bool baseline;                     /* the reference is a baseline file */
	const char *failure;               /* measuring ended with this (NaN logits); nothing but id is valid then */
	struct summary summary;
	double confidence;
	struct interval bound[GATE_COUNT]; /* of every figure there is */
	bool bounded[GATE_COUNT];
	struct gate_result gate[GATE_COUNT];
	size_t gates;
	bool undecided_passes;
	struct position_bin bin[REPORT_BINS];
	size_t bins;
	const struct draft_summary *draft;
	struct draft_row draft_row[REPORT_DRAFTS];
	size_t drafts;
	const struct copy_figures *copy;
	const struct decode_figures *decode;
	const struct noise_figures *noise;
	const struct attribution *attribution;
};

/* Did everything that was asked for hold? Undecided gates count as undecided_passes says. */
bool report_passed(const struct report *r);
/* One line of what did not hold, "" when all did. */
void report_reason(const struct report *r, struct strbuf *out);

void report_text(const struct report *r, struct strbuf *out);
void report_json(const struct report *r, struct strbuf *out);
void report_junit(const struct report *r, struct strbuf *out);
void report_annotations(const struct report *r, struct strbuf *out); /* GitHub workflow commands */
void report_markdown(const struct report *r, struct strbuf *out);    /* GitHub step summary */

#endif
