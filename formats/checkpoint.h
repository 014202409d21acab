#ifndef QUIRE_FORMATS_CHECKPOINT_H
#define QUIRE_FORMATS_CHECKPOINT_H
/*
 * Checkpoints. N readers and M writers meet here: a checkpoint is a tensor
 * source plus the files that describe the model (config.json, tokenizer.json
 * ...), as in a Hugging Face folder. Readers of other formats make those files
 * from their own metadata; writers of other formats take them apart.
 *
 * To add a format: formats/<name>.c with a struct format, and a line in formats.c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/notes.h"
#include "base/progress.h"
#include "model/config.h"
#include "text/tokenizer.h"
#include "plan/plan.h"
#include "tensor/tensor.h"

/* A side file that was asked for; names as in a Hugging Face folder. */
struct side_file {
	const char *name;        /* "config.json" */
	const char *data;        /* a NUL behind it */
	size_t size;
};
struct sides;                    /* all that there are, read or not: formats/side.h */

/* A fact about the container for `inspect` and manifests, e.g. "recipe" -> "q4_k_m". */
struct fact {
	const char *key, *value;
};

struct format;

struct checkpoint {
	const struct format *format;
	const char *path;
	struct tensor_source *source;
	struct tensor_source *stored; /* as the container lists it, where adopt.c shows it otherwise; NULL: the same */
	struct notes notes;          /* what a user should hear of how it was read */
	struct sides *sides;         /* see checkpoint_file */
	const struct fact *facts;
	size_t fact_count;
	struct arena arena;      /* names, files, facts live here */
	void *private;           /* the reader's own */
};

struct write_options {
	const char *recipe;          /* for manifests */
	const char *tool_version;
	int gguf_file_type;          /* -1: unknown */
	bool same_values;            /* tensors keep codecs and values, so what the source says of them stays true */
	bool code;                   /* Hugging Face: a modeling file beside the weights, for what its class cannot say */
	bool compress;               /* .quire: deflated byte planes for float tensors */
	uint64_t shard_size;         /* Hugging Face: 0 = the default */
	const struct fact *facts;    /* extra manifest entries */
	size_t fact_count;
	struct notes *notes;         /* takes what the format does not keep, one line each; NULL: nobody listens */
};

/* What a sink is asked to write. */
struct write_request {
	const struct checkpoint *src;  /* gives side files */
	const struct config *config;   /* NULL: not known */
	const struct plan *plan;       /* outlives the sink */
	const struct write_options *options; /* NULL: defaults, for folders and GGUF */
};

struct format {
	const char *name;            /* "safetensors", "hf", "gguf", "quire" */
	const char *summary;
	const char *suffix;          /* ".gguf", or NULL for folders */
	const char *loaded_by;       /* other programs than quire that load it, for help */
	/* How sure: 0 no, 1 by name, 2 by content. head holds the first bytes (n may be 0; folders have none). */
	int (*probe)(const char *path, bool is_dir, const uint8_t *head, size_t n);
	int (*open)(const char *path, struct checkpoint *c, struct err *e);   /* fills source, files, facts, private */
	void (*close)(struct checkpoint *c);
	/* Checks the stored checksums of all that has not been read yet (NULL: the format has none); progress as in plan.h. */
	int (*check)(struct checkpoint *c, const struct progress *progress, struct err *e);
	/* Can it hold this codec? */
	bool (*holds)(const struct codec *c);
	/*
	 * Can it, and what loads it, say all of this model? ERR_UNSUPPORTED where not; n takes what other readers will do
	 * otherwise. NULL: it keeps config.json as it is, and needs none.
	 */
	int (*describes)(const struct config *c, struct notes *n, struct err *e);
	const char *vectors;         /* what those who load it want norms and biases in, or NULL */
	bool one_float;              /* those who load it give all floats one type */
	bool f16_scales;             /* ... but scales of codes, which are f16 whatever the model is in */
	bool ends;                   /* ... and embedding and output head, too, may be in codes */
	bool deflates;               /* can write_options.compress */
	bool keeps_origin;           /* has room for hashes of what it was made from */
	/*
	 * Opens a sink. path NULL: only what it would refuse and what goes to the options' notes, nothing is written and *out
	 * stays NULL. NULL: the format is only read.
	 */
	int (*create)(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);
};
extern const struct format *const format_rows[];
extern const unsigned format_row_count;

const struct format *format_find(const char *name);
/* By suffix of a path to be written ("x.gguf"); a path without a known suffix is a Hugging Face folder. */
const struct format *format_for_output(const char *path);

/* Is `path` a file that reading the checkpoint `input` reads: itself, a file of the folder, a shard, or one beside it? */
bool checkpoint_reads(const char *input, const char *path);

/* Opens any checkpoint: file or folder. Every message names the path. */
int checkpoint_open(const char *path, struct checkpoint **out, struct err *e);
void checkpoint_close(struct checkpoint *c);
/*
 * Its side files are read, inflated and checked when they are asked for, and kept until it is closed: so this can fail
 * where opening did not. *out is NULL when there is none; c may be NULL, which has none.
 */
int checkpoint_file(const struct checkpoint *c, const char *name, const struct side_file **out, struct err *e);
bool checkpoint_has(const struct checkpoint *c, const char *name);           /* without reading it */
const char *checkpoint_file_name(const struct checkpoint *c, size_t i);      /* of the i-th, NULL behind the last */
/* Reads one that is JSON; free with json_free. *out is NULL when there is none. */
struct json;
int checkpoint_json(const struct checkpoint *c, const char *name, struct json **out, struct err *e);
/* Can all of them be read? */
int checkpoint_files(const struct checkpoint *c, struct err *e);
/* Parses its config.json / opens its tokenizer; ERR_INPUT when it has none. */
int checkpoint_config(const struct checkpoint *c, struct config *out, struct err *e);
bool checkpoint_has_tokenizer(const struct checkpoint *c);
/* ERR_UNSUPPORTED, with its name, when it has a tokenizer of a kind that no file here can hold. */
int checkpoint_tokenizer_known(const struct checkpoint *c, struct err *e);
int checkpoint_tokenizer(const struct checkpoint *c, struct tokenizer **out, struct err *e);
/*
 * Is it what its configuration says: every tensor there and in its shape, no token beyond the vocabulary? source: the
 * checkpoint's, or what stands for it. ERR_INPUT. A tokenizer that is not read is no matter.
 */
int checkpoint_check(const struct checkpoint *c, const struct config *config, struct tensor_source *source, struct err *e);
/* The part of it that a model opened for running still needs. */
int vocabulary_check(const struct tokenizer *t, const struct config *config, struct err *e);

#endif
