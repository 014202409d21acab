#ifndef QUIRE_CALIB_STATS_COLLECT_H
#define QUIRE_CALIB_STATS_COLLECT_H
/*
 * Gathers statistics in one pass of the model over a text, layer by layer: a
 * layer sees all tokens before the next one is touched, hidden states wait in a
 * working file, so that memory holds one layer's weights and sums.
 */
#include "calib/run/loaded.h"
#include "calib/stats/stats_file.h"

struct collect_options {
	enum collect collect;
	size_t ctx, samples;      /* tokens per window; windows to choose, 0: all of the text */
	uint64_t seed;
	size_t shard, shards;     /* this part of so many, from 0; 0, 1 for the whole */
	bool resume;
	const char *work;         /* whose name with ".resume" the working file has; NULL: the output's */
	bool passing;             /* the working file has no name: nothing can resume it, nothing is left of an interrupted run */
	const char *tool;         /* "quire 0.1.0", for the file */
};

/*
 * Windows run in batches whose composition depends on the choice of windows alone, and a shard is every so many'th
 * batch: so every token's activations, and every batch's sums, are the same bits in a shard as in the whole run.
 */
struct collect_plan {
	struct stats_head head;
	struct stats_source source;
	struct windows text;          /* of this shard, in order */
	struct stats_window *windows; /* [text.count] */
	size_t text_windows, text_tokens; /* of the whole text */
	size_t batch, batches;        /* windows per batch; the last one may have fewer */
	struct stats_input *inputs;
	size_t input_count, widest;
	size_t *input_at;             /* [2 * site_count]: which input (even) or output (odd) a site has, 1 + its number; 0: none */
	struct stats_layout layout;
	uint64_t hidden_bytes;        /* hidden states of all tokens */
	uint64_t memory, file_bytes, work_bytes; /* peak, output, working file */
	uint8_t job[32];
};

/* data: hash of the text. ERR_INPUT: the text is shorter than a window; ERR_USAGE: more shards than batches. */
int collect_plan_make(struct collect_plan *p, const struct loaded *l, const struct token_ids *ids, const char *data,
		      const struct collect_options *o, struct err *e);
void collect_plan_release(struct collect_plan *p);

/*
 * Runs it and writes the file. progress counts tokens times layers; when it returns false, or on ERR_IO, the working file
 * stays for --resume. ERR_INPUT names layer and tensor when an activation is not finite.
 */
int collect_run(const struct collect_plan *p, const struct loaded *l, const struct collect_options *o, const char *out,
		const struct progress *progress, struct err *e);

#endif
