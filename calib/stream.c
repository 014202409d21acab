#include "calib/stream.h"

#include <stdlib.h>
#include <string.h>

/* Tokens run at once, as in evaluate.c. */
enum { BATCH_TOKENS = 2048 };

int stream_open(struct stream *s, struct model *model, const struct windows *text, struct err *e)
{
	size_t tokens = text->count * text->ctx, width = model_config(model)->hidden;
	*s = (struct stream){ .model = model, .text = text, .width = width };
	s->batch = BATCH_TOKENS / text->ctx ? BATCH_TOKENS / text->ctx : 1;
	s->run = model_run_new(model, s->batch, text->ctx, e);
	if (!s->run)
		return e->code;
	s->hidden = malloc(tokens * width * sizeof(float));
	s->work = malloc(s->batch * text->ctx * width * sizeof(float));
	if (!s->hidden || !s->work)
		return err_nomem(e);
	return model_embed(model, text->tokens, tokens, s->hidden, e);
}

void stream_close(struct stream *s)
{
	model_run_free(s->run);
	free(s->hidden);
	free(s->work);
	*s = (struct stream){ 0 };
}

int stream_layer(struct stream *s, uint32_t layer, size_t from, size_t to, bool keep, const struct stream_visit *v,
		 struct err *e)
{
	size_t row = s->text->ctx * s->width;
	int rc = ERR_OK;
	for (size_t first = from; first < to && !rc; first += s->batch) {
		size_t count = to - first < s->batch ? to - first : s->batch;
		memcpy(s->work, s->hidden + first * row, count * row * sizeof(float));
		if (v && v->at)
			v->at(v->arg, first, count);
		rc = model_layer(s->run, layer, s->work, count, s->text->ctx, NULL, v ? v->tap : NULL, e);
		if (!rc && v && v->done)
			rc = v->done(v->arg, first, count, s->work, e);
		if (!rc && keep)
			memcpy(s->hidden + first * row, s->work, count * row * sizeof(float));
	}
	return rc;
}
