#ifndef QUIRE_CMD_FOLD_SHARE_H
#define QUIRE_CMD_FOLD_SHARE_H
/* The part of `fold` that lets layers read another layer's KV cache. */
#include "base/json.h"
#include "base/strbuf.h"
#include "calib/fold/share.h"
#include "cmd/command.h"

struct sharing {
	const char *spec;        /* --share-layers, or NULL */
	const struct share_method_row *method;
	bool automatic;          /* the map is searched */
	bool halved;             /* and nothing said how far */
	struct share_goal goal;
	uint32_t steps;          /* of the search */
	uint32_t *map;           /* [layers] */
	double *kl;              /* of the steps of a search */
	struct overlay *out;
	struct share_report *report;
};

/* Looks at the options. has_text: there is one; dry_run: a map that is given needs none. ERR_USAGE. */
int sharing_options(struct sharing *s, const char *spec, const char *method, double max_kl, bool has_text, bool dry_run,
		    struct err *e);
/* The map, as far as it is known without a text, checked against the model and put into c. */
int sharing_plan(struct sharing *s, struct config *c, struct tensor_source *source, struct err *e);
/* The map that c has by now; as if it had been asked for. */
int sharing_given(struct sharing *s, const struct config *c, struct err *e);
/*
 * Searches the map if it is to be found, and shares: s->out lies over `source`. c as from sharing_plan. dry_run, or text
 * NULL: only removes what the result will not have.
 */
int sharing_make(struct sharing *s, struct model *teacher, struct tensor_source *source, struct config *c,
		 const struct windows *text, size_t held, const struct refit_options *refit, bool dry_run,
		 const struct common *common, struct err *e);
bool sharing_any(const struct config *c); /* does a layer read another one's cache */
void sharing_text(const struct sharing *s, const struct config *c, bool verbose, struct strbuf *out);
void sharing_json(const struct sharing *s, const struct config *c, struct json_writer *j);
void sharing_release(struct sharing *s, const struct config *c);

#endif
