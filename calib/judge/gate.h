#ifndef QUIRE_CALIB_JUDGE_GATE_H
#define QUIRE_CALIB_JUDGE_GATE_H
/*
 * Gates: limits on the figures of a measurement. A gate decides on a one-sided confidence bound: it passes when the
 * bound farther from good is inside the limit, fails when even the nearer one is outside, and is undecided between.
 * To add a gate: a row in gate.c.
 */
#include "calib/judge/interval.h"
#include "calib/judge/measure.h"

enum gate_metric { GATE_PPL, GATE_PPL_RATIO, GATE_KL, GATE_KL_P99, GATE_TOP1, GATE_COUNT };
enum gate_verdict { GATE_PASS, GATE_FAIL, GATE_UNDECIDED };

struct gate_row {
	const char *name;         /* key in JSON: "kl_mean" */
	const char *option;       /* "max-kl" */
	const char *what;         /* "mean KL" */
	bool minimum;             /* the limit is a lower one */
	bool reference;           /* needs a reference */
	bool logarithm;           /* the figure is exp of the mean of the values */
	double quantile;          /* the figure is this quantile of KL; 0: a mean */
	double (*value)(const struct measurement *m, size_t i); /* of scored token i */
};
extern const struct gate_row gate_rows[GATE_COUNT]; /* by enum gate_metric */
extern const char *const gate_verdict_names[];      /* "pass", "fail", "undecided" */

struct gate_result {
	enum gate_metric metric;
	enum gate_verdict verdict;
	double limit;
	struct interval interval;
	/* Undecided: about how many windows would decide, if the estimate stays; 0: no number would (it sits on the limit). */
	size_t windows_needed;
};

/* The interval of a figure. ERR_NOMEM. */
int gate_interval(const struct measurement *m, enum gate_metric metric, double confidence, struct interval *out, struct err *e);
/* ERR_USAGE when the gate needs a reference and m has none. */
int gate_decide(const struct measurement *m, enum gate_metric metric, double limit, double confidence, struct gate_result *out,
		struct err *e);

#endif
