#ifndef QUIRE_CMD_FOLD_BUDGET_H
#define QUIRE_CMD_FOLD_BUDGET_H
/* The part of `fold` that spends a KV budget. */
#include "base/json.h"
#include "calib/budget.h"

struct budgeting {
	const char *spec;        /* --kv-budget, or NULL */
	uint64_t bytes, tokens;
	bool shares;             /* only layers are to be shared, until the cache fits */
	struct budget_plan plan;
};

/* BYTES@CTX. ERR_USAGE. */
int budgeting_options(struct budgeting *b, const char *spec, bool has_text, bool alone, bool shares, struct err *e);
/* What can be said without a text: a budget that cannot be met. */
int budgeting_check(const struct budgeting *b, const struct config *c, struct err *e);
void budgeting_text(const struct budgeting *b, struct strbuf *out);
void budgeting_json(const struct budgeting *b, struct json_writer *j);

#endif
