#ifndef QUIRE_CMD_FOLD_BUDGET_H
#define QUIRE_CMD_FOLD_BUDGET_H
/* The part of `fold` that spends a KV budget, and knows what the cache is to be stored in. */
#include "base/json.h"
#include "calib/fold/budget.h"
#include "calib/judge/change_cost.h"

enum { BUDGET_CACHES = 16 };

struct budgeting {
	const char *spec;        /* --kv-budget, or NULL */
	const char *codecs;      /* --kv-cache, or NULL */
	uint64_t bytes, tokens;
	bool shares;             /* only layers are to be shared, until the cache fits */
	struct budget_cache cache[BUDGET_CACHES];
	size_t caches;
	struct budget_plan plan;
};

struct budgeting_options {
	const char *spec;        /* BYTES@CTX, or NULL */
	const char *codecs;      /* "auto" or names of codecs with commas between, or NULL */
	bool has_text;
	bool alone, shares;      /* no other option says what to fold; layers are shared as far as it takes */
};
/* ERR_USAGE. */
int budgeting_options(struct budgeting *b, const struct budgeting_options *o, struct err *e);
/*
 * What can be said without a text: codecs that do not divide a head, a budget that cannot be met. windows: which layers get
 * some is not known yet, so that only budget_make can tell the latter.
 */
int budgeting_check(struct budgeting *b, const struct config *c, bool windows, struct err *e);
/* What the result's cache is to be stored in. */
const struct budget_cache *budgeting_cache(const struct budgeting *b);
/* cost: of the result, or NULL. */
void budgeting_text(const struct budgeting *b, const struct change_cost *cost, struct strbuf *out);
void budgeting_json(const struct budgeting *b, struct json_writer *j);

#endif
