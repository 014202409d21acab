#ifndef QUIRE_CMD_RUNNING_H
#define QUIRE_CMD_RUNNING_H
/* The group of options that say how a model is run: whose arithmetic, and what its keys and values are stored in. */
#include "calib/judge/records.h"
#include "cmd/groups.h"
#include "model/model.h"

struct running {
	const char *as;          /* NULL: exact */
	struct kv_choice kv;
};

#define AS_OPTION(at, otherwise) \
	{ "as", 0, OPT_STRING, "exact|llama.cpp", "f32 throughout, or rounded as in llama.cpp (default: " otherwise ")", (at) }
/* A struct running at `at` in the command's options. of: "keys and values". */
#define RUNNING_OPTIONS(at, otherwise, of) \
	AS_OPTION((at) + offsetof(struct running, as), otherwise), KV_OPTIONS((at) + offsetof(struct running, kv), of)

/* Sets a model up accordingly; before a run of it is made. path: whose it is, for messages. */
int running_set(const struct running *r, struct model *m, const char *path, struct err *e);
/* Notes in an identity what was set. */
void running_note(const struct running *r, struct run_id *id);

#endif
