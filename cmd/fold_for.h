#ifndef QUIRE_CMD_FOLD_FOR_H
#define QUIRE_CMD_FOLD_FOR_H
/* The part of `fold` that writes its result as the program wants it that is to run it. */
#include "cmd/command.h"
#include "formats/checkpoint.h"
#include "model/recast.h"
#include "model/runtime.h"

struct written_for {
	enum runtime runtime;
	bool with_code, given;         /* given: by --for */
	struct runtime_route route;
	struct recast *recast;         /* NULL: written as it is */
};

/* name: --for, or NULL: by what is written. ERR_USAGE when the program reads no such files. */
int written_options(struct written_for *r, const char *name, bool with_code, const struct format *f, struct err *e);
/* Before the work, of a model as it will be: what no program, or no file, can say. n: what the file's readers do otherwise. */
int written_check(struct written_for *r, const struct config *c, const struct format *f, struct notes *n, struct err *e);
/* The result as the program wants it. */
int written_apply(struct written_for *r, const struct config *c, struct tensor_source *source, struct err *e);
void written_notes(const struct written_for *r, struct notes *n);
void written_release(struct written_for *r);

/* What is written: the fold's result where nothing else was asked for. */
static inline const struct config *routed_config(const struct written_for *r, const struct config *c)
{
	return r->recast ? recast_config(r->recast) : c;
}
static inline struct tensor_source *routed_source(const struct written_for *r, struct tensor_source *source)
{
	return r->recast ? recast_source(r->recast) : source;
}

#endif
