#include "plan/plan.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "codec/regrid.h"
#include "model/stored.h"

/* ---- codes that stay what they are in another codec */

enum { TRY_ROWS = 64 };

struct trial {
	const struct tensor *from;
	const struct codec *to;
	const uint8_t *bytes;
	atomic_int misses, no_memory;
};

static void try_rows(void *arg, size_t slice, int worker)
{
	struct trial *y = arg;
	uint64_t cols = tensor_cols(y->from), first = slice * TRY_ROWS, row = codec_row_bytes(y->from->codec, cols),
		 end = first + TRY_ROWS < tensor_rows(y->from) ? first + TRY_ROWS : tensor_rows(y->from);
	uint8_t *codes = malloc((size_t)(cols + codec_row_bytes(y->to, cols)));
	(void)worker;
	if (!codes)
		atomic_store(&y->no_memory, 1);
	for (uint64_t r = first; r < end && codes && !atomic_load(&y->misses); r++)
		if (!codec_regrid_row(y->from->codec, y->to, y->bytes + r * row, cols, codes, codes + cols))
			atomic_store(&y->misses, 1);
	free(codes);
}

/* Does every scale of tensor i have its place in the codec? */
static int try_codec(struct tensor_source *s, size_t i, const struct codec *to, bool *fits, struct err *e)
{
	struct trial y = { .from = &s->tensors[i], .to = to };
	struct tensor_bytes b;
	int rc = s->get(s, i, &b, e);
	if (rc)
		return rc;
	y.bytes = b.data;
	atomic_init(&y.misses, 0);
	atomic_init(&y.no_memory, 0);
	thread_for((size_t)((tensor_rows(y.from) + TRY_ROWS - 1) / TRY_ROWS), try_rows, &y);
	source_drop(s, b.data, b.size);
	tensor_bytes_release(&b);
	*fits = !atomic_load(&y.misses);
	return atomic_load(&y.no_memory) ? err_nomem(e) : ERR_OK;
}

/* The smallest codec that the output holds and that has the same grid. *out NULL: none. */
static int same_grid(struct tensor_source *s, size_t i, bool (*holds)(const struct codec *c), const struct codec **out, struct err *e)
{
	const struct tensor *t = &s->tensors[i];
	uint64_t cols = tensor_cols(t);
	int rc = ERR_OK;
	*out = NULL;
	for (int sure = REGRID_ALWAYS; sure > REGRID_NEVER && !*out && !rc; sure--)
		for (unsigned k = 0; k < codec_row_count && !rc; k++) {
			const struct codec *c = codec_rows[k];
			bool fits = true;
			if (codec_regrid(t->codec, c, cols) != (enum regrid)sure || !holds(c) ||
			    (*out && codec_row_bytes(c, cols) >= codec_row_bytes(*out, cols)))
				continue;
			if (sure == REGRID_MAYBE)
				rc = try_codec(s, i, c, &fits, e);
			*out = fits ? c : *out;
		}
	return rc;
}

/* The codec that the recipe wants, or one that holds the codes as they are. */
static int exchange(const struct plan_request *r, size_t i, const struct codec **c, bool *same, struct err *e)
{
	const struct tensor *t = &r->source->tensors[i];
	const struct codec *found = NULL;
	enum regrid sure = REGRID_NEVER;
	int rc = ERR_OK;
	*same = false;
	if (!codec_quantizes(t->codec) || !codec_quantizes(*c) || !tensor_elements(t))
		return ERR_OK;
	if (*c == t->codec && r->holds && !r->holds(*c))
		rc = same_grid(r->source, i, r->holds, &found, e);
	else if (*c != t->codec && (sure = codec_regrid(t->codec, *c, tensor_cols(t))) != REGRID_NEVER)
		found = *c;
	if (!rc && found && sure == REGRID_MAYBE)
		rc = try_codec(r->source, i, found, same, e);
	else
		*same = found != NULL;
	*c = *same ? found : *c;
	return rc;
}

static int choose(struct plan_item *item, const struct tensor *t, const struct recipe_query *q,
		  const struct plan_request *r, struct err *e)
{
	const struct codec *c = recipe_choose(r->recipe, q, &item->why);
	bool same;
	item->refused = recipe_refused(r->recipe, q);
	item->out = *t;
	item->role = q->role;
	item->layer = q->layer;
	if (exchange(r, item->source, &c, &same, e))
		return err_prefix(e, "tensor %s", t->name);
	if (same) {
		item->why = "codes as in the source, in another codec of the same grid";
		item->out.codec = c;
		return tensor_measure(&item->out, e);
	}
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

/*
 * What files of the family hold in one tensor is of one type: the widest that the recipe has for a part. A part that is
 * quantized already stays what it is; writers then say what does not fit.
 */
static int make_alike(struct plan *p, const struct plan_request *r, const struct stored *of, uint32_t layer, struct err *e)
{
	const struct codec *most = NULL;
	unsigned n = stored_count(of);
	struct plan_item *item[STORED_PARTS];
	for (unsigned i = 0; i < n; i++) {
		size_t id = site_id(p->config, of->part[i], layer);
		if (id == SIZE_MAX || !p->at[id])
			return ERR_OK;
		item[i] = &p->items[p->at[id] - 1];
		const struct codec *c = item[i]->out.codec;
		uint64_t cols = tensor_cols(&item[i]->out);
		if (codec_quantizes(r->source->tensors[item[i]->source].codec))
			return ERR_OK;
		most = !most || codec_row_bytes(c, cols) > codec_row_bytes(most, cols) ? c : most;
	}
	for (unsigned i = 0; i < n; i++) {
		if (item[i]->out.codec == most)
			continue;
		item[i]->out.codec = most;
		item[i]->method = codec_quantizes(most) ? r->method : NULL;
		item[i]->why = "stored in one tensor with others: the widest of them";
		if (tensor_measure(&item[i]->out, e))
			return err_prefix(e, "tensor %s", item[i]->out.name);
	}
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
	p->activations = recipe_activations(r->recipe);
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
	}
	for (const struct stored *of = config ? config->arch->stored : NULL; of && (of->hf || of->gguf) && !rc; of++)
		for (uint32_t l = 0; l < config->layers && !rc; l++)
			rc = make_alike(p, r, of, l, e);
	for (size_t i = 0; i < p->count && !rc; i++) {
		const struct plan_item *item = &p->items[i];
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
