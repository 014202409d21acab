#ifndef QUIRE_CALIB_QUANT_SEQUENTIAL_IMPL_H
#define QUIRE_CALIB_QUANT_SEQUENTIAL_IMPL_H
/* What the files behind sequential.h share: two models on their way, and the moments of what they read. */
#include "calib/quant/correction.h"
#include "calib/quant/sequential.h"
#include "calib/run/stream.h"
#include "model/graph.h"

/* One of the two models on its way through the layers, and the input of the role that is watched. */
struct side {
	struct model *model;
	struct stream stream;
	float *input;    /* [batch tokens, widest input]; of experts one behind the other, each token as often as it has experts */
	enum role watch;
	uint32_t *token; /* of each row of input, where experts are watched; else NULL */
	size_t *start, *count; /* [experts]: their rows of input */
	size_t rows;
	const uint32_t *routed;  /* tokens of the expert that is at work */
	const struct arrangement *arrangement; /* of the student's channels, which the teacher has not; or NULL */
	float *scratch;  /* [widest input] */
	bool leads;      /* its stream moves past a half once the input of the projection that ends it was seen */
};

struct driver {
	const struct config *config;
	struct tensor_source *source;   /* of both models */
	struct tensor_source *weights;  /* what is quantized: the same, its channels arranged */
	const struct plan *plan;
	const struct windows *text;
	const struct sequential_options *o;
	struct overlay *out;
	struct side teacher, student;
	float *difference;   /* [batch tokens, max(width, n)] */
	float *product;      /* f32 partial moments */
	size_t batch;        /* windows per batch */
	struct sequential_report *report; /* [plan->count] */
	const struct progress *progress;
	uint64_t done, total;
	size_t held;         /* windows, the last ones */
	bool teacher_ahead;  /* its stream is past the half of the layer that is quantized */
};

int side_init(struct driver *d, struct side *s, struct err *e);
void side_release(struct side *s);

/* Moments of the inputs of a group, as means: of the windows that the codes are fitted to, and of those held out. */
int gather_group(struct driver *d, const struct group *g, uint32_t layer, struct moments *fit, struct moments *held, struct err *e);

struct group_moments {
	struct moments fit, held;
	bool shared;         /* not of its own tokens alone */
	uint32_t expert;     /* whose group it is, where experts have it */
};
/* Some of the experts that have a group, in one pass over the text: sums, mirrored. count is 0 for what has no tokens. */
int gather_experts(struct driver *d, const struct group *g, uint32_t layer, struct group_moments *x, size_t count, struct err *e);

/* Experts, a few at a time (sequential_experts.c); `one` quantizes the matrices of one. */
struct choice;
typedef int group_quantize(struct driver *d, const struct group *g, uint32_t place, struct group_moments *m, struct err *e);
int each_expert(struct driver *d, const struct group *g, uint32_t layer, group_quantize *one, struct err *e);

#endif
