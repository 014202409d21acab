#include "calib/run/stream.h"

#include <stdlib.h>
#include <string.h>

#include "model/graph.h"

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
	s->owner = calloc(model_config(model)->layers, sizeof *s->owner);
	if (!s->hidden || !s->work || !s->owner)
		return err_nomem(e);
	return model_embed(model, &(struct token_run){ text->tokens, tokens, text->ctx, 0 }, s->hidden, e);
}

void stream_close(struct stream *s)
{
	model_run_free(s->run);
	free(s->hidden);
	free(s->work);
	for (uint32_t i = 0; s->owner && i < model_config(s->model)->layers; i++)
		free(s->owner[i]);
	free(s->owner);
	free(s->owner_work);
	*s = (struct stream){ 0 };
}

static bool is_read(const struct config *c, uint32_t layer)
{
	for (uint32_t i = layer + 1; i < c->layers; i++)
		if (c->layer[i].kv_source == layer)
			return true;
	return false;
}

/* Before the hidden states move past a layer that others will read: keeps what it was given. */
static int keep_owner(struct stream *s, uint32_t layer, struct err *e)
{
	size_t size = s->text->count * s->text->ctx * s->width * sizeof(float);
	if (s->owner[layer] || !is_read(model_config(s->model), layer))
		return ERR_OK;
	s->owner[layer] = malloc(size);
	if (!s->owner[layer])
		return err_nomem(e);
	memcpy(s->owner[layer], s->hidden, size);
	return ERR_OK;
}

/* Leaves the owner's keys and values of these windows in the run, where the layer that reads them finds them. */
static int prepare_owner(struct stream *s, uint32_t owner, size_t first, size_t count, struct err *e)
{
	size_t row = s->text->ctx * s->width;
	const struct model_tap tap = { .stop = true, .last = ROLE_O };
	if (!s->owner[owner])
		return err_set(e, ERR_BUG, "a layer reads the KV of layer %u, which has not run", owner);
	if (!s->owner_work && !(s->owner_work = malloc(s->batch * row * sizeof(float))))
		return err_nomem(e);
	memcpy(s->owner_work, s->owner[owner] + first * row, count * row * sizeof(float));
	return model_layer(s->run, owner, s->owner_work, &(struct model_batch){ count, s->text->ctx, NULL, &tap }, e);
}

int stream_layer(struct stream *s, uint32_t layer, size_t from, size_t to, const struct stream_visit *v, struct err *e)
{
	size_t row = s->text->ctx * s->width;
	struct block b;
	uint32_t owner = model_config(s->model)->layer[layer].kv_source;
	block_make(model_config(s->model), layer, &b);
	int rc = v->keep ? keep_owner(s, layer, e) : ERR_OK;
	for (size_t first = from; first < to && !rc; first += s->batch) {
		size_t count = to - first < s->batch ? to - first : s->batch;
		bool attends = !v->tap || block_has(&b, v->tap->part, OP_ATTEND);
		if (attends && owner != layer && (rc = prepare_owner(s, owner, first, count, e)))
			break;
		memcpy(s->work, s->hidden + first * row, count * row * sizeof(float));
		s->first = first;
		rc = model_layer(s->run, layer, s->work, &(struct model_batch){ count, s->text->ctx, NULL, v->tap }, e);
		if (!rc && v->done)
			rc = v->done(v->arg, first, count, s->work, e);
		if (!rc && v->keep)
			memcpy(s->hidden + first * row, s->work, count * row * sizeof(float));
	}
	return rc;
}
