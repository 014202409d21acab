#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

/* Is the output head a byte-for-byte copy of the embedding? */
static int same_bytes(struct tensor_source *s, size_t a, size_t b, bool *same, struct err *e)
{
	struct tensor_bytes x = { 0 }, y = { 0 };
	*same = false;
	if (s->tensors[a].codec != s->tensors[b].codec || s->tensors[a].nbytes != s->tensors[b].nbytes)
		return ERR_OK;
	int rc = s->get(s, a, &x, e);
	if (!rc)
		rc = s->get(s, b, &y, e);
	if (!rc) {
		*same = x.size == y.size && !memcmp(x.data, y.data, x.size);
		source_drop(s, x.data, x.size);
		source_drop(s, y.data, y.size);
	}
	tensor_bytes_release(&x);
	tensor_bytes_release(&y);
	return rc;
}

static size_t find_role(const struct config *c, const struct tensor_source *s, enum role want)
{
	for (size_t i = 0; i < s->count; i++) {
		uint32_t layer;
		if (role_from_hf(c->arch, s->tensors[i].name, &layer) == want)
			return i;
	}
	return SIZE_MAX;
}

/*
 * A tied model needs its head once. Programs disagree on a head that is there and
 * differs (some read it, some do not), so such a checkpoint is refused.
 */
static int tied_head(const struct config *c, struct tensor_source *s, size_t *drop, struct err *e)
{
	*drop = SIZE_MAX;
	if (!c || !c->tied)
		return ERR_OK;
	size_t head = find_role(c, s, ROLE_HEAD), embed = find_role(c, s, ROLE_EMBED);
	if (head == SIZE_MAX || embed == SIZE_MAX)
		return ERR_OK;
	bool same;
	int rc = same_bytes(s, head, embed, &same, e);
	if (rc)
		return rc;
	if (!same)
		return err_set(e, ERR_INPUT, "config.json ties the output head to the embedding, but %s differs from %s; remove the "
			       "tensor or set tie_word_embeddings to false", s->tensors[head].name, s->tensors[embed].name);
	*drop = head;
	return ERR_OK;
}

static int choose(struct plan_item *item, const struct tensor *t, const struct recipe_query *q, const struct recipe *r,
		  const struct method *m, bool allow_requantize, struct err *e)
{
	const struct codec *c = recipe_choose(r, q, &item->why);
	item->out = *t;
	item->role = q->role;
	item->layer = q->layer;
	if (c == t->codec)
		return ERR_OK;
	if (codec_quantizes(t->codec) && codec_quantizes(c) && !allow_requantize)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s is stored as %s already; quantizing it again to %s would add to its error: "
			       "start from the original model", t->name, t->codec->name, c->name);
	if (!t->codec->decode || (!codec_quantizes(c) && !c->encode))
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: cannot turn %s into %s", t->name, t->codec->name, c->name);
	if (codec_quantizes(c) && !m)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: %s needs a quantization method", t->name, c->name);
	item->out.codec = c;
	item->method = codec_quantizes(c) ? m : NULL;
	if (tensor_measure(&item->out, e))
		return err_prefix(e, "tensor %s", t->name);
	return ERR_OK;
}

int plan_make(struct plan *p, const struct config *config, struct tensor_source *s, const struct recipe *r,
	      const struct method *m, bool allow_requantize, struct err *e)
{
	*p = (struct plan){ 0 };
	size_t drop;
	int rc = tied_head(config, s, &drop, e);
	if (rc)
		return rc;
	p->items = arena_array(&p->arena, s->count ? s->count : 1, sizeof *p->items);
	if (!p->items)
		return err_nomem(e);
	for (size_t i = 0; i < s->count && !rc; i++) {
		struct recipe_query q = { .config = config, .tensor = &s->tensors[i], .role = ROLE_UNKNOWN, .layer = UINT32_MAX,
					  .has_importance = m && m->needs_importance };
		if (i == drop)
			continue;
		if (config)
			q.role = role_from_hf(config->arch, s->tensors[i].name, &q.layer);
		struct plan_item *item = &p->items[p->count++];
		*item = (struct plan_item){ .source = i };
		rc = choose(item, &s->tensors[i], &q, r, m, allow_requantize, e);
		p->bytes += item->out.nbytes;
		uint64_t need = plan_item_scratch(item, &s->tensors[i]);
		p->scratch = need > p->scratch ? need : p->scratch;
	}
	if (rc)
		plan_release(p);
	return rc;
}

const struct plan_item *plan_find(const struct plan *p, enum role r, uint32_t layer)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->items[i].role == r && p->items[i].layer == layer)
			return &p->items[i];
	return NULL;
}

void plan_release(struct plan *p)
{
	arena_release(&p->arena);
	*p = (struct plan){ 0 };
}

double plan_bits_per_weight(const struct plan *p)
{
	double elements = 0;
	for (size_t i = 0; i < p->count; i++)
		elements += (double)tensor_elements(&p->items[i].out);
	return elements > 0 ? 8.0 * (double)p->bytes / elements : 0;
}
