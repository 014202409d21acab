#ifndef QUIRE_CMD_INSPECT_H
#define QUIRE_CMD_INSPECT_H
/* What the files of quire inspect share: what was found, and the ways to print it. */
#include "cmd/command.h"
#include "formats/checkpoint.h"

struct inspect_options {
	struct common common;
	bool tensors, stats, check;
	int64_t ctx;
	const char *kv_type;
};

struct tensor_stats {
	uint64_t count, zeros, nans, infs; /* count: finite values */
	double mean, m2;                   /* of the finite ones; m2: sum of squared distances from the mean */
	float min, max;
};

struct codec_count {
	const struct codec *codec;
	uint64_t tensors, bytes, elements;
};

struct facts {
	struct checkpoint *ckpt;
	bool has_config, has_tokenizer;
	struct config config;
	struct err config_err, tokenizer_err;
	const char *tokenizer_name;
	size_t tokenizer_size;
	uint64_t bytes, elements, parameters;
	struct codec_count *codec; /* at most one per codec, in order of appearance */
	size_t codecs;
	const struct codec *kv;
	double kv_element;         /* bytes */
	uint64_t context[2];
	struct tensor_stats *stats; /* one per tensor, or NULL */
	const char *check;          /* how the check ended, or NULL */
};

/* Statistics of one tensor, in pieces that do not depend on the number of threads. */
int inspect_scan(struct tensor_source *src, size_t index, struct tensor_stats *out, struct err *e);
/* Of the finite values. */
double inspect_deviation(const struct tensor_stats *s);
float inspect_largest(const struct tensor_stats *s);
/* Per weight. */
double inspect_bits(const struct tensor *t);

void inspect_text(const struct inspect_options *o, const struct facts *f, struct strbuf *b);
void inspect_json(const struct inspect_options *o, const struct facts *f, struct strbuf *b);

#endif
