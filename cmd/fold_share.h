#ifndef QUIRE_CMD_FOLD_SHARE_H
#define QUIRE_CMD_FOLD_SHARE_H
/* The part of `fold` that lets layers read another layer's KV cache. */
#include "base/json.h"
#include "base/strbuf.h"
#include "calib/fold/share.h"
#include "cmd/command.h"

struct sharing_options {
	const char *spec;        /* --share-layers, or NULL */
	const char *method;
	double max_kl;
	bool has_text, dry_run;  /* dry_run: a map that is given needs no text */
	const struct common *common;
};

struct sharing {
	const char *spec;        /* --share-layers; "planned" when the budget made the map; or NULL */
	const struct common *common;
	bool dry_run;
	const struct share_method_row *method;
	bool automatic;          /* the map is searched */
	bool halved;             /* and nothing said how far */
	struct share_goal goal;
	struct share_steps steps; /* of the search, and the map */
	struct overlay *out;
	struct share_report *report;
};

/* Looks at the options. ERR_USAGE. */
int sharing_options(struct sharing *s, const struct sharing_options *o, struct err *e);
/* The map, as far as it is known without a text, checked against the model and put into c. */
int sharing_plan(struct sharing *s, struct config *c, struct tensor_source *source, struct err *e);
/* The map that c has by now; as if it had been asked for. */
int sharing_given(struct sharing *s, const struct config *c, struct err *e);
/*
 * Searches the map if it is to be found, and shares: s->out lies over the job's source. c, which is the job's `to`: as from
 * sharing_plan. In a dry run, or without a text: only removes what the result will not have.
 */
int sharing_make(struct sharing *s, const struct fold_job *job, struct config *c, const struct refit_options *refit, struct err *e);
bool sharing_any(const struct config *c); /* does a layer read another one's cache */
void sharing_text(const struct sharing *s, const struct config *c, bool verbose, struct strbuf *out);
void sharing_json(const struct sharing *s, const struct config *c, struct json_writer *j);
void sharing_release(struct sharing *s, const struct config *c);

#endif
