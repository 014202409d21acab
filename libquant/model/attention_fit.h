#ifndef QUIRE_MODEL_ATTENTION_FIT_H
#define QUIRE_MODEL_ATTENTION_FIT_H
/*
 * One attention layer as a function of its weights: the squared error of its
 * output against a target over windows of text, and the gradient of that by
 * Q, K, V and O. For refitting a layer, alone, to what another one puts out.
 */
#include "fold/fold_heads.h"

/* What does not change during a fit. */
struct attention_fit {
	struct attention_weights shape;  /* sizes only */
	size_t ctx, window;              /* tokens of a sequence; 0 or the last W keys count */
	float scale, softcap;            /* softcap 0: none */
	const float *cosine, *sine;      /* [ctx, rope / 2]; NULL: no positions */
	const float *q_norm, *k_norm;    /* [dim] with shape.qk_norm; plus one where the architecture adds it */
	float eps;
	struct attention_fit_work *work;
};

struct attention_batch {
	size_t seqs;
	const float *x;          /* [seqs * ctx, cols] input, normed; the last column is 1 with biases */
	const float *target;     /* [seqs * ctx, hidden] output wanted, without W_O's bias; NULL: only attend */
	/* Keys (after RoPE) and values of another layer, [seqs * ctx, kv_heads * dim]; NULL: this layer's own W_K and W_V. */
	const float *keys, *values;
	const float *x_kv;       /* [seqs * ctx, cols] what W_K and W_V read instead of x: another layer's input; NULL: x */
};

/* seqs: the most of a batch. Release with attention_fit_release. */
int attention_fit_init(struct attention_fit *f, size_t seqs, struct err *e);
void attention_fit_release(struct attention_fit *f);

/*
 * *loss gets the sum of squared errors over the batch, grad (may be NULL) its gradient, in weights of the same shape;
 * with given keys and values K and V are left alone. Does not depend on the number of threads.
 */
int attention_fit_run(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
		      struct attention_weights *grad, double *loss, struct err *e);
/* The output alone, [seqs * ctx, hidden] until the next run; the batch has no target. */
int attention_fit_forward(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
			  const float **y, struct err *e);
/*
 * After either with the same w and b: gradients of something whose gradient by the output is dy [seqs * ctx, hidden], by
 * the weights (grad, may be NULL) and by the input (dx [seqs * ctx, cols], may be NULL; with x_kv only what goes through W_Q).
 */
void attention_fit_back(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
			const float *dy, struct attention_weights *grad, float *dx);
/* W_O's input of the last run: [seqs * ctx, heads * dim]. */
const float *attention_fit_heads(const struct attention_fit *f);
/* Twice the output's error of the last run, [seqs * ctx, hidden]. */
const float *attention_fit_errors(const struct attention_fit *f);
/* The queries after RoPE of the last run: [seqs * ctx, heads * dim]. */
const float *attention_fit_queries(const struct attention_fit *f);
/* The keys after RoPE and the values of the last run: [seqs * ctx, kv_heads * dim]. */
const float *attention_fit_keys(const struct attention_fit *f);
const float *attention_fit_values(const struct attention_fit *f);

#endif
