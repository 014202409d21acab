#ifndef QUIRE_MODEL_TAPE_H
#define QUIRE_MODEL_TAPE_H
/*
 * Operations of a layer (graph.h) as functions of their weights: run forward over windows of text, and backward, one
 * derivative an operation (derivative.h). For training a model towards another one's logits, and for refitting the
 * attention of a layer. Only what goes into the operations has to be kept between the two: the way back begins with running
 * them again (checkpointing, Chen et al., arXiv 1604.06174).
 */
#include "model/graph.h"
#include "model/model.h"
#include "model/rope.h"

/* f32, row-major, the caller's: of each linear, by role; experts' one behind the other. Biases and norms are the model's and stay as they are. */
struct tape_matrix {
	float *w, *grad;     /* [rows, cols]; grad NULL: not wanted */
	size_t cols;         /* those of the value it reads, or one more: the last is its bias, and what it reads ends in a one */
};

/* Where a value and its gradient lie outside of the tape, [seqs * ctx, width]. */
struct tape_place {
	float *x;            /* read, if none of the operations makes the value, else written; NULL: in the tape */
	float *d;            /* the gradient is added to this, and used up where the value is made; NULL: in the tape */
	bool kept;           /* x stays in the tape until the next run: tape_value */
};

/* Operations [from, to) of a layer, on a batch; experts from OP_EXPERTS to OP_MERGE. What is between these has no place outside. */
struct tape_job {
	const struct block *block;
	unsigned from, to;
	uint32_t layer;              /* whose positions, window, norms and biases these are */
	const float *key_norm;       /* of the layer whose keys are made; NULL: its own */
	size_t seqs;
	const struct tape_matrix *matrix; /* [ROLE_COUNT] */
	const float *in;             /* the stream before the first operation, and behind the last one; out NULL: not wanted */
	float *out;
	float *d;                    /* the gradient by the stream: behind the last operation, then before the first; NULL: not wanted */
	struct tape_place place[BLOCK_VALUES];
	bool back;                   /* what the way back reads is kept */
};

struct tape;

/*
 * Room for `seqs` sequences of ctx tokens. c: of the weights that will be run; the model lends norms, biases and positions. Both
 * must outlive the tape.
 */
int tape_new(const struct model *m, const struct config *c, size_t seqs, size_t ctx, struct tape **out, struct err *e);
void tape_free(struct tape *t);
/* Takes the memory for whole layers now; it would be taken when it is needed. tape_memory: how many bytes. */
int tape_reserve(struct tape *t, struct err *e);
uint64_t tape_memory(const struct config *c, size_t seqs, size_t ctx);

/* ERR_UNSUPPORTED: an operation has no derivative; the message names it and the layer. */
int tape_check(const struct config *c, struct err *e);

/* Neither depends on the number of threads. */
int tape_forward(struct tape *t, const struct tape_job *j, struct err *e);
/* After tape_forward of the same job, with `back`: gradients of matrices and values, from those that are in j->d and places. */
int tape_back(struct tape *t, const struct tape_job *j, struct err *e);
/* A value of the last run that was to be kept, [seqs * ctx, width]. */
const float *tape_value(const struct tape *t, value v);

/*
 * The keys and values that the block's attention reads. Those of another layer become values of the block which nothing
 * makes: their place is the caller's to name. False: there is no attention.
 */
bool tape_keys_values(struct block *b, const struct config *c, uint32_t layer, value kv[2]);

#endif
