#ifndef QUIRE_CMD_GROUPS_H
#define QUIRE_CMD_GROUPS_H
/*
 * Options that several commands have: each group is one value in the command's options, at `at`, declared by its rows here and
 * checked in groups.c.
 */
#include "cmd/command.h"
#include "model/kv_codec.h"

/* How a cache is stored. of: "keys and values". */
#define KV_OPTIONS(at, of) \
	{ "kv-cache", 0, OPT_STRING, "f16|q8_0|q4_0|int8|int4", "codec that " of " are stored in (default: f32)", \
	  (at) + offsetof(struct kv_choice, k) }, \
	{ "kv-cache-v", 0, OPT_STRING, "CODEC", "codec of the values, when it differs from the keys'", (at) + offsetof(struct kv_choice, v) }, \
	{ "kv-rotate", 0, OPT_FLAG, NULL, "rotate keys and values by a Hadamard matrix per head before coding", \
	  (at) + offsetof(struct kv_choice, rotate) }

/* Which windows of a text are run. */
struct text_choice {
	struct string_list data;
	int64_t windows, ctx, seed; /* OPT_NOT_GIVEN */
};
#define TEXT_NOT_GIVEN { .windows = OPT_NOT_GIVEN, .ctx = OPT_NOT_GIVEN, .seed = OPT_NOT_GIVEN }
#define TEXT_AT(at, field) ((at) + offsetof(struct text_choice, field))
#define TEXT_OPTIONS(at, letter, what, from, most) \
	{ "data", 'd', OPT_INPUTS, "TEXT", what, TEXT_AT(at, data) }, \
	{ "windows", letter, OPT_INT, "N", "windows chosen from " from "; 0: all of it (default: " most ")", TEXT_AT(at, windows) }, \
	{ "ctx", 'c', OPT_INT, "N", "tokens per window (default: 512 or the model's context)", TEXT_AT(at, ctx) }, \
	{ "seed", 0, OPT_INT, "N", "which windows are chosen, and their order (default: 0)", TEXT_AT(at, seed) }, \
	{ "samples", 0, OPT_INT, "N", NULL, TEXT_AT(at, windows) } /* an older spelling, still taken */
enum { TEXT_CTX_MAX = 1 << 24 }; /* a window fits in memory many times */
bool text_chosen(const struct text_choice *t); /* anything but the text itself */
int text_check(const struct text_choice *t, struct err *e);
size_t text_windows(const struct text_choice *t, size_t otherwise);
size_t text_ctx(const struct text_choice *t);  /* 0: not given */
uint64_t text_seed(const struct text_choice *t);

/* Where a model goes, and as what. */
struct output_choice {
	const char *path;        /* NULL: only with dry_run */
	const char *to;          /* format name, or NULL: by suffix */
	uint64_t shard_size;
	bool compress, dry_run, force, no_source_hash;
};
#define OUTPUT_AT(at, field) ((at) + offsetof(struct output_choice, field))
#define OUTPUT_PATH(at) { "output", 'o', OPT_OUTPUT, "PATH", "where to write; the suffix says the format", OUTPUT_AT(at, path) }
#define OUTPUT_OPTIONS(at, formats, dry) \
	{ "to", 0, OPT_STRING, "FORMAT", formats ", whatever the suffix", OUTPUT_AT(at, to) }, \
	{ "shard-size", 0, OPT_SIZE, "SIZE", "Hugging Face: start a new file after this many bytes", OUTPUT_AT(at, shard_size) }, \
	{ "compress", 0, OPT_FLAG, NULL, ".quire: store floats as deflated byte planes, losslessly", OUTPUT_AT(at, compress) }, \
	{ "dry-run", 0, OPT_FLAG, NULL, dry, OUTPUT_AT(at, dry_run) }, \
	{ "force", 'f', OPT_FLAG, NULL, "overwrite an existing file", OUTPUT_AT(at, force) }, \
	{ "no-source-hash", 0, OPT_FLAG, NULL, ".quire: leave the sha256 of the source files out", OUTPUT_AT(at, no_source_hash) }

#endif
