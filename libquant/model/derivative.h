#ifndef QUIRE_MODEL_DERIVATIVE_H
#define QUIRE_MODEL_DERIVATIVE_H
/*
 * What an operation does and what its derivative is: a row per kind, on rows of f32. The tape (tape.h) decides what is
 * run, what is kept and where it lies; a new kind of operation trains as soon as it has a row here.
 */
#include "model/graph.h"
#include "model/rope.h"
#include "model/route.h"

/* One operation and the values around it: of one sequence, or of a whole batch where the row says so. */
struct piece {
	const struct op *op;
	const struct config *c;
	uint32_t layer;
	size_t seqs, n;              /* sequences; tokens of each */
	size_t width[3], out_width;
	const float *x[3];
	float *y;
	float *dx[3];                /* gradients by what is read; NULL: not wanted */
	bool fresh[3];               /* nothing is in it yet: written, not added to */
	float *dy;                   /* the gradient by the result; may be destroyed, and may be dx[0] */
	const float *weight, *bias;  /* vectors: of a norm; what a linear adds */
	const float *w;              /* of a linear, [out_width, cols] */
	size_t cols;
	const float *residual;       /* a linear whose result goes to the stream alone: the stream before it */
	struct phases phases;
	struct routing *routing;     /* of the experts that are at work; made by OP_EXPERTS */
	float *scratch;              /* of a batch: `stride` floats per worker */
	size_t stride;
};

enum { READS_Y = 8 };

struct derivative {
	const char *name;            /* of the operation, for messages */
	void (*run)(const struct piece *p);
	void (*back)(const struct piece *p); /* NULL, as run: it has none yet */
	uint8_t reads;               /* bit k: the way back reads x[k]; READS_Y: y */
	bool in_place;               /* y may be x[0] */
	bool lends;                  /* dx[1] may lie where x[1] does */
	bool batch;                  /* runs over a batch, in a loop of its own */
	size_t (*scratch)(const struct piece *p, bool back); /* floats per worker */
};

/* NULL: nothing is known of this kind of operation. */
const struct derivative *derivative_of(enum op_kind k);
/* The gradient by rows [from, from + rows) of a linear's matrix, over all tokens of a batch. */
void derivative_rows(const struct piece *p, size_t from, size_t rows, float *grad);

#endif
