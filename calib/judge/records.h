#ifndef QUIRE_CALIB_JUDGE_RECORDS_H
#define QUIRE_CALIB_JUDGE_RECORDS_H
/*
 * What a run of `verify` keeps on disk: the identity of the run and one block of
 * bytes per window. Baselines (calib/baseline.h) and parts of a split run
 * (calib/part.h) are two kinds of it. docs/formats/baseline.md is the specification:
 *
 *	magic[8] | u32 header size | u32 crc of the header | header, JSON
 *	per window: u32 packed size | u32 raw size | u32 crc of the packed bytes | a zlib stream
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "calib/run/evaluate.h"
#include "calib/run/identity.h"
#include "calib/run/loaded.h"
#include "formats/file.h"

enum { RUN_NAME = 512 };

/* What two runs must share to be compared. Hashes are hexadecimal, "" when there is none. */
struct run_id {
	char model[IDENTITY_SIZE], reference[IDENTITY_SIZE], tokenizer[IDENTITY_SIZE];
	char merges[IDENTITY_SIZE];      /* of the tokenizer, "" when its container lists none */
	char tokens[IDENTITY_SIZE];      /* of the tokens of all windows */
	char model_name[RUN_NAME], reference_name[RUN_NAME], data_name[RUN_NAME], tool[64]; /* for people; not compared */
	char kv[24], kv_v[24];           /* codecs of the model's KV cache, "" for f32; compared between parts only */
	bool kv_rotate;
	char as[16];                     /* whose arithmetic, "" for exact; compared between parts only */
	enum protocol protocol;
	size_t ctx, windows, scored, vocab;
	size_t from, to;                 /* the windows held: all but in a part */
	unsigned fields;                 /* parts: which figures are held */
};

/*
 * A hash of what a tokenizer does: its vocabulary, and the tokens that the text of every ordinary piece becomes, at the
 * start of a text and inside one. A missing merge shows there even when no text at hand needs it; the container that the
 * tokenizer came in does not.
 */
int run_tokenizer(const struct tokenizer *t, char out[IDENTITY_SIZE], struct err *e);
/* Of its list of merges, where the container has one: it shows a missing merge that every piece can do without. */
void run_merges(const struct tokenizer *t, char out[IDENTITY_SIZE]);
/* Whether both hashes are equal; one of merges that is missing says nothing. */
int run_same_tokenizer(const struct tokenizer *a, const struct tokenizer *b, bool *same, struct err *e);
/* Fills everything but names and range; reference may be NULL. */
int run_id_make(struct run_id *id, const struct loaded *model, const struct loaded *reference, const struct windows *w,
		enum protocol p, struct err *e);
/* Codecs that the model's cache was run in, if any were chosen. */
void run_id_kv(struct run_id *id, const struct kv_choice *kv);
/*
 * ERR_NOT_COMPARABLE with the first thing that differs, in this order: tokenizer, vocabulary, protocol, context, windows,
 * tokens. Models are not compared: that they may differ is the point. kept: the name of the kept run, for the message.
 */
int run_id_match(const struct run_id *kept, const struct run_id *now, const char *kept_name, struct err *e);

/*
 * Whether the kept run is of a version that knew the tokenizer t by another hash (pieces at the start of a text only, no
 * merges). It says less, so that such a run is not comparable, but not because of the tokenizer.
 */
int run_id_older(const struct run_id *kept, const struct tokenizer *t, bool *older, struct err *e);

enum records_kind { RECORDS_BASELINE, RECORDS_PART };

struct records_writer {
	struct out_file *file;
	size_t blocks;
};
int records_create(struct records_writer *w, const char *path, enum records_kind kind, const struct run_id *id, struct err *e);
/* Blocks come in the order of the windows. */
int records_add(struct records_writer *w, const void *raw, size_t size, struct err *e);
int records_finish(struct records_writer *w, struct err *e);  /* the file appears */
void records_abort(struct records_writer *w);                 /* also after finish, and of a zeroed struct */

struct records_block {
	const uint8_t *data;
	uint32_t packed, raw;
};
struct records {
	struct run_id id;
	struct records_block *block;    /* [id.to - id.from] */
	struct mapped map;
};
/* Every checksum is verified. ERR_INPUT with what is damaged. */
int records_open(struct records *r, const char *path, enum records_kind kind, struct err *e);
/* The same over memory that outlives it. */
int records_parse(struct records *r, const uint8_t *data, size_t size, enum records_kind kind, struct err *e);
void records_close(struct records *r);
/* Block i (from 0) inflated, malloc'ed, [block[i].raw]. */
int records_block(const struct records *r, size_t i, uint8_t **raw, struct err *e);

#endif
