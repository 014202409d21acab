#ifndef QUIRE_CMD_FOLD_WINDOW_H
#define QUIRE_CMD_FOLD_WINDOW_H
/* The part of `fold` that gives layers a sliding window. */
#include "base/json.h"
#include "calib/run/evaluate.h"

struct windowing {
	uint32_t window, every;  /* window 0: none */
	double *outside;         /* [layers] attention before the window; NULL: not measured */
};

/* What the options say, against the model. ERR_USAGE, ERR_UNSUPPORTED. */
int windowing_options(struct windowing *w, int64_t window, int64_t every, bool has_text, struct err *e);
int windowing_check(const struct windowing *w, const struct config *c, struct err *e);
/*
 * Of every `every` caches in a row the one whose readers look back most keeps full attention; to, with the sources that
 * are known by now, gets the windows: a layer has that of the layer whose cache it reads. text NULL (dry run): the last
 * of each.
 */
int windowing_choose(struct windowing *w, struct model *m, const struct windows *text, struct config *to, struct err *e);
void windowing_text(const struct windowing *w, const struct config *c, struct strbuf *out);
void windowing_json(const struct windowing *w, const struct config *c, struct json_writer *j);

#endif
