#ifndef QUIRE_CALIB_FOLD_ATTENTION_FIT_H
#define QUIRE_CALIB_FOLD_ATTENTION_FIT_H
/*
 * The attention of a layer as a function of its weights: the squared error of its output against a target over windows of
 * text, and the gradient of that by Q, K, V and O. For refitting a layer, alone, to what another one puts out.
 */
#include "fold/fold_heads.h"
#include "model/tape.h"

/* Where keys and values come from. */
enum fit_keys {
	FIT_OWN,         /* W_K and W_V, from the input that queries have */
	FIT_OF_INPUT,    /* W_K and W_V, from another layer's input */
	FIT_GIVEN,       /* another layer's keys (after RoPE) and values */
};

struct attention_fit {
	struct attention_weights shape;  /* sizes only */
	size_t ctx;
	/* the rest is the fit's own */
	enum fit_keys keys;
	uint32_t layer;
	size_t seqs;
	struct tape *tape;
	struct block block;
	unsigned from, to;
	value x, x_kv, q, kv[2], heads, out;
	const float *key_norm;
	float *y;                        /* [tokens, hidden] output, then twice its error */
	double *loss;                    /* [seqs] */
};

struct attention_batch {
	size_t seqs;
	const float *x;          /* [seqs * ctx, cols] input, normed; the last column is 1 with biases */
	const float *target;     /* [seqs * ctx, hidden] output wanted, without W_O's bias; NULL: only attend */
	const float *keys, *values; /* FIT_GIVEN: [seqs * ctx, kv_heads * dim] */
	const float *x_kv;       /* FIT_OF_INPUT: as x */
};

/* ERR_UNSUPPORTED where the heads of a layer cannot be merged or fitted one by one. */
int attention_fit_possible(const struct config *c, uint32_t layer, struct err *e);

/* What a fit runs on. */
struct attention_fit_layer {
	const struct model *model;   /* lends norms and positions */
	const struct config *config; /* of the weights */
	uint32_t layer;
	enum fit_keys keys;
	uint32_t key_layer;          /* FIT_OF_INPUT: whose norm the keys get */
};

/* For weights of this shape, and batches of up to `seqs` windows of ctx tokens. Release with attention_fit_release, also after errors. */
int attention_fit_init(struct attention_fit *f, const struct attention_fit_layer *l, const struct attention_weights *shape, size_t seqs,
		       size_t ctx, struct err *e);
void attention_fit_release(struct attention_fit *f);

/*
 * *loss gets the sum of squared errors over the batch, grad (may be NULL) its gradient, in weights of the same shape;
 * with given keys and values K and V are left alone. Does not depend on the number of threads.
 */
int attention_fit_run(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
		      struct attention_weights *grad, double *loss, struct err *e);
/* Of the last run: W_O's input, and the queries after RoPE: [seqs * ctx, heads * dim]. */
const float *attention_fit_heads(const struct attention_fit *f);
const float *attention_fit_queries(const struct attention_fit *f);
/* Twice the output's error, [seqs * ctx, hidden]. */
const float *attention_fit_errors(const struct attention_fit *f);
/* The keys after RoPE and the values, [seqs * ctx, kv_heads * dim]; unless they were given. */
const float *attention_fit_keys(const struct attention_fit *f);
const float *attention_fit_values(const struct attention_fit *f);

#endif
