#ifndef QUIRE_CMD_GROUPS_H
#define QUIRE_CMD_GROUPS_H
/* Options that several commands have: each group is one value, declared and checked in one place. */
#include "cmd/command.h"
#include "model/kv_codec.h"

/* How a cache is stored: a struct kv_choice at `at` in the command's options. of: "keys and values". */
#define KV_OPTIONS(at, of) \
	{ "kv-cache", 0, OPT_STRING, "f16|q8_0|q4_0|int8|int4", "codec that " of " are stored in (default: f32)", \
	  (at) + offsetof(struct kv_choice, k) }, \
	{ "kv-cache-v", 0, OPT_STRING, "CODEC", "codec of the values, when it differs from the keys'", (at) + offsetof(struct kv_choice, v) }, \
	{ "kv-rotate", 0, OPT_FLAG, NULL, "rotate keys and values by a Hadamard matrix per head before coding", \
	  (at) + offsetof(struct kv_choice, rotate) }

#endif
