#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

static int choose(struct plan_item *item, const struct tensor *t, const struct recipe_query *q,
		  const struct plan_request *r, struct err *e)
{
	const struct codec *c = recipe_choose(r->recipe, q, &item->why);
	item->refused = recipe_refused(r->recipe, q);
	item->out = *t;
	item->role = q->role;
	item->layer = q->layer;
	if (c == t->codec)
		return ERR_OK;
	if (codec_quantizes(t->codec) && codec_quantizes(c) && !r->allow_requantize)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s is stored as %s already; quantizing it again to %s would add to its error: "
			       "start from the original model", t->name, t->codec->name, c->name);
	if (!t->codec->decode || (!codec_quantizes(c) && !c->encode))
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: cannot turn %s into %s", t->name, t->codec->name, c->name);
	if (codec_quantizes(c) && !r->method)
		return err_set(e, ERR_UNSUPPORTED, "tensor %s: %s needs a quantization method", t->name, c->name);
	item->out.codec = c;
	item->method = codec_quantizes(c) ? r->method : NULL;
	if (tensor_measure(&item->out, e))
		return err_prefix(e, "tensor %s", t->name);
	return ERR_OK;
}

int plan_make(struct plan *p, const struct plan_request *r, struct err *e)
{
	const struct config *config = r->config;
	const struct tensor_source *s = r->source;
	*p = (struct plan){ 0 };
	int rc = ERR_OK;
	p->items = arena_array(&p->arena, s->count ? s->count : 1, sizeof *p->items);
	p->config = config;
	p->at = config ? arena_array(&p->arena, site_count(config), sizeof *p->at) : NULL;
	if (!p->items || (config && !p->at)) {
		plan_release(p);
		return err_nomem(e);
	}
	for (size_t i = 0; config && i < site_count(config); i++)
		p->at[i] = 0;
	for (size_t i = 0; i < s->count && !rc; i++) {
		struct recipe_query q = { .config = config, .tensor = &s->tensors[i], .role = ROLE_UNKNOWN, .layer = UINT32_MAX,
					  .has_importance = r->method && r->method->needs_importance };
		if (config)
			q.role = role_from_hf(config->arch, s->tensors[i].name, &q.layer);
		size_t id = config ? site_id(config, q.role, q.layer) : SIZE_MAX;
		if (id != SIZE_MAX && !p->at[id])
			p->at[id] = i + 1;
		struct plan_item *item = &p->items[p->count++];
		*item = (struct plan_item){ .source = i };
		rc = choose(item, &s->tensors[i], &q, r, e);
		p->bytes += item->out.nbytes;
		uint64_t need = plan_item_scratch(item, &s->tensors[i]) + (s->copies ? s->tensors[i].nbytes : 0);
		p->scratch = need > p->scratch ? need : p->scratch;
	}
	if (rc)
		plan_release(p);
	return rc;
}

const struct plan_item *plan_find(const struct plan *p, enum role r, uint32_t place)
{
	size_t id = p->at ? site_id(p->config, r, place) : SIZE_MAX;
	return id == SIZE_MAX || !p->at[id] ? NULL : &p->items[p->at[id] - 1];
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
