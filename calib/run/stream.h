#ifndef QUIRE_CALIB_RUN_STREAM_H
#define QUIRE_CALIB_RUN_STREAM_H
/*
 * Hidden states of all tokens of a text on their way through a model, one layer
 * after the other, so that a layer can be changed before its output moves on.
 * Where layers read another layer's KV, that layer's input is kept and its keys
 * and values are worked out again for every batch.
 */
#include "calib/run/evaluate.h"

struct stream {
	struct model *model;
	const struct windows *text;
	struct model_run *run;
	size_t width, batch;     /* hidden size; windows per batch */
	float *hidden;           /* [tokens, width] before the current layer */
	float *work;             /* [batch tokens, width] */
	size_t first;            /* window that the batch which runs begins with */
	float **owner;           /* [layers] input of a layer whose KV later layers read, once the stream is past it */
	float *owner_work;       /* [batch tokens, width], or NULL */
};

/* Embeds the text. The model and the text must outlive the stream. */
int stream_open(struct stream *s, struct model *model, const struct windows *text, struct err *e);
void stream_close(struct stream *s); /* also of a zero-initialised struct */

/*
 * Runs a layer over windows [from, to). What the tap sees begins with window s->first; after each batch
 * done(arg, first, count, output) sees the layer's output [count * ctx, width] (may be NULL).
 */
struct stream_visit {
	int (*done)(void *arg, size_t first, size_t count, const float *output, struct err *e);
	const struct model_tap *tap;
	void *arg;
	bool keep;           /* the output becomes the hidden states of these windows */
};
int stream_layer(struct stream *s, uint32_t layer, size_t from, size_t to, const struct stream_visit *v, struct err *e);

#endif
