#ifndef QUIRE_CALIB_STATS_STATS_H
#define QUIRE_CALIB_STATS_STATS_H
/*
 * Statistics files: what `calibrate` gathers and methods use. A statistics file
 * is a safetensors file (docs/formats/stats.md) that names the model, the
 * tokenizer and the text it came from; llama.cpp's importance matrices are
 * opened as well and hold importance only.
 *
 * An entry stands for one distinct input of linear layers: Q, K and V share
 * theirs, GATE and UP theirs. Of kind `kv` it stands for what Q, K or V put out.
 * All values are sums over tokens, so that files merge.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calib/run/evaluate.h"
#include "fold/fold_heads.h"
#include "text/tokenizer.h"
#include "tensor/tensor.h"

/* What is gathered. To add one: a row here, and what it adds in stats_layout.c and collect.c. */
enum collect { COLLECT_IMATRIX, COLLECT_FULL, COLLECT_KV };
struct collect_row {
	enum collect collect;
	const char *name, *summary;
};
extern const struct collect_row collect_rows[];
extern const unsigned collect_row_count;

struct stats;

struct stats_info {
	bool foreign;              /* an importance matrix of llama.cpp: no identities, windows or moments */
	enum collect collect;
	const char *model, *tokenizer, *tool; /* sha256 in hexadecimal; "" when foreign */
	uint64_t tokens;           /* summed over; of an importance matrix the largest count */
	size_t windows, ctx;
	size_t windows_total;      /* more than windows: a shard, or a merge that lacks some */
	size_t entries;
};

/* Messages begin with the path. ERR_INPUT for a malformed file. */
int stats_open(const char *path, struct stats **out, struct err *e);
/* The same over memory, which must outlive it; messages name tensor and reason. */
int stats_parse(const uint8_t *data, size_t size, struct stats **out, struct err *e);
void stats_close(struct stats *s); /* NULL is fine */
const struct stats_info *stats_info(const struct stats *s);

/*
 * Are these statistics of this model? ERR_NOT_COMPARABLE with the reason when the weights or the tokenizer are others
 * (t NULL: not compared); ERR_INPUT when entries are missing or of another size, or the file is of kind `kv`. Must succeed
 * before the queries below; config must outlive s.
 */
int stats_check(struct stats *s, const struct config *c, struct tensor_source *source, const struct tokenizer *t,
		struct err *e);
/* The same for files of kind `kv`, before stats_kv; ERR_INPUT for all others. */
int stats_check_kv(struct stats *s, const struct config *c, struct tensor_source *source, const struct tokenizer *t,
		   struct err *e);
/*
 * Second moments of a layer's queries, keys and values, for any grouping of its heads. Release with fold_moments_release.
 * ERR_INPUT when a layer has none of its own, or a value is not finite.
 */
int stats_kv(const struct stats *s, uint32_t layer, struct fold_moments *out, struct err *e);

/*
 * Mean squares per input channel, [*n], owned by s; NULL when there are none for this role. Thread-safe.
 *
 * An expert may have seen too few tokens. A mean square over T tokens is known to sqrt(2 / T), that is a tenth at
 * STATS_FEW; second moments of n channels have no more than rank T. What is lacking of STATS_FEW tokens here, and of n in
 * stats_moment, is taken from the mean over all tokens of the layer's experts.
 */
enum { STATS_FEW = 200 };
const float *stats_importance(const struct stats *s, enum role r, uint32_t place, size_t *n);
/* Tokens that its sums are over, its own; 0 when missing. */
uint64_t stats_count(const struct stats *s, enum role r, uint32_t place);
/* Largest and mean magnitude per input channel, malloc'ed [*n]; false when missing. */
bool stats_magnitudes(const struct stats *s, enum role r, uint32_t place, float **largest, float **mean, size_t *n);
bool stats_has_moment(const struct stats *s, enum role r, uint32_t place);
/*
 * E[x x^T] as a full symmetric matrix [*n, *n], malloc'ed; only this one is brought into memory. ERR_INPUT when the
 * file has none (the message says how to make one) or it holds a value that is not finite.
 */
int stats_moment(struct stats *s, enum role r, uint32_t place, double **out, size_t *n, struct err *e);
/* The tokens that were run, for methods that run the model again; every position counts. Release with windows_release. */
int stats_windows(const struct stats *s, struct windows *w, struct err *e);

/* Adds up files of the same model, tokenizer and kind. ERR_NOT_COMPARABLE, or ERR_INPUT when two hold the same window. */
int stats_merge(const char *const *paths, size_t count, const char *out, struct err *e);
/*
 * The same for importance matrices of llama.cpp: sums and counts of each entry. ERR_NOT_COMPARABLE when sizes differ, or when
 * some count tokens and others, of the older form, chunks. out: GGUF, or the older form when its name ends in .dat.
 */
int imatrix_merge(const char *const *paths, size_t count, const char *out, struct err *e);
/* Writes the importance of a checked s as llama.cpp's importance matrix. datasets: names of the texts. */
int stats_write_imatrix(const struct stats *s, const char *path, const char *const *datasets, size_t dataset_count,
			struct err *e);

/*
 * The distinct inputs of a model's linear layers, in the order a pass meets them, the head's last; of kind `kv` queries,
 * keys and values (before RoPE, biases and norms applied) of every layer that has its own. malloc'ed.
 */
struct stats_input {
	enum role role;            /* the first of those that share it */
	uint32_t layer;            /* its place; UINT32_MAX for the head */
	size_t n;
	bool output;               /* what the role puts out */
};
int stats_inputs(const struct config *c, enum collect collect, struct stats_input **out, size_t *count, struct err *e);
/* The role whose entry serves role r: Q for K and V, GATE for UP; the head for a tied embedding. */
enum role stats_leader(const struct config *c, enum role r);
enum { STATS_KEY = 64 };
/* "layers.3.attn_q", "layers.3.experts.17.ffn_gate_exps" or "head"; buf has STATS_KEY bytes. */
char *stats_key(enum role r, uint32_t place, char *buf);
/* The same of any entry: "layers.3.attn_k.out" for an output; and back, but for n. */
char *stats_input_key(const struct stats_input *in, char *buf);
bool stats_input_parse(const char *key, struct stats_input *out);

#endif
