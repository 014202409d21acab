#ifndef QUIRE_CALIB_JUDGE_ATTRIBUTE_H
#define QUIRE_CALIB_JUDGE_ATTRIBUTE_H
/*
 * Which weights cause the distance between a model and its reference: one group
 * of tensors at a time is swapped back to the reference's, and the KL is
 * measured again on the same tokens.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "calib/run/loaded.h"
#include "calib/judge/measure.h"

enum attribute_by { ATTRIBUTE_LAYERS, ATTRIBUTE_TENSORS, ATTRIBUTE_ROLES };
struct attribute_row {
	enum attribute_by by;
	const char *name, *summary;
};
extern const struct attribute_row attribute_rows[];
extern const unsigned attribute_row_count;
int attribute_find(const char *name, enum attribute_by *out, struct err *e); /* ERR_USAGE lists the names */

enum { ATTRIBUTE_NAME = 64 };
struct attribute_group {
	char name[ATTRIBUTE_NAME];       /* "layer 3", "attn_q", "layers.3.attn_q", "embed" */
	uint32_t layer;                  /* UINT32_MAX: of no layer, or of several */
	uint64_t bytes, reference_bytes; /* of its tensors, in the model and in the reference */
	double kl;                       /* with the group swapped back */
	double gain, gain_error;         /* the model's KL less that, paired; its standard error, clustered by window */
};
struct attribution {
	enum attribute_by by;
	size_t windows, tokens;
	double kl, kl_error;             /* of the model as it is */
	struct attribute_group *groups;  /* owned; largest gain first */
	size_t count;
};

/* What attribute() refuses and can be told before anything runs. */
int attribute_check(const struct loaded *model, const struct loaded *reference, enum attribute_by by, struct err *e);
struct attribute_job {
	const struct loaded *model, *reference;
	const struct windows *windows;
	enum attribute_by by;
	const struct progress *progress; /* in tokens */
};
/*
 * Groups whose tensors are the same in both models are left out. ERR_NOT_COMPARABLE when the models have other shapes
 * (a folded model), or when single tensors are asked for and the norms differ or channels have another order: then scales
 * were moved between tensors, or rows, and one alone put back would break the layer.
 */
int attribute(const struct attribute_job *job, struct attribution *out, struct err *e);
/* A line per group, `most` of them; the same as an object of JSON. */
void attribution_text(const struct attribution *a, size_t most, struct strbuf *out);
void attribution_json(const struct attribution *a, const char *key, struct json_writer *w);
/* Reads that object again: the same figures. False: it is not one, or not by `by`; then out is empty. */
bool attribution_read(const struct json *j, enum attribute_by by, struct attribution *out);
void attribution_release(struct attribution *a);

#endif
