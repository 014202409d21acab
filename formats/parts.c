#include "formats/parts.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

/* Rows that can be moved: of a vector every value is one. */
static uint64_t moving_rows(const struct tensor *t)
{
	return t->ndim == 1 ? t->dim[0] : tensor_rows(t);
}

static int shape_wrong(const struct tensor *t, struct err *e)
{
	char shape[160];
	return err_set(e, ERR_INPUT, "tensor '%.200s' of %s cannot be taken apart", t->name, tensor_shape_text(t, shape));
}

int part_expert(const struct stored *s, const struct tensor *t, uint32_t experts, struct tensor *out, struct err *e)
{
	*out = *t;
	if (!s->experts)
		return ERR_OK;
	if (t->ndim != 3 || !experts || t->dim[0] != experts || t->nbytes % experts)
		return shape_wrong(t, e);
	out->ndim = 2;
	out->dim[0] = t->dim[1];
	out->dim[1] = t->dim[2];
	out->nbytes = t->nbytes / experts;
	return ERR_OK;
}

int parts_of(const struct stored *s, const struct tensor *t, const struct config *c, uint32_t layer, struct part out[STORED_PARTS],
	     struct err *e)
{
	const struct layer_config *l = &c->layer[layer];
	uint64_t first[STORED_PARTS + 1] = { 0 };
	unsigned n = stored_count(s);
	bool matrix = t->ndim == 2;
	if (t->ndim < 1 || t->ndim > 2 || !t->nbytes)
		return shape_wrong(t, e);
	uint64_t rows = s->transposed && matrix ? t->dim[1] : moving_rows(t);
	if (!stored_rows(s, rows, l->heads, l->kv_heads, first) || (!s->transposed && t->nbytes % rows))
		return shape_wrong(t, e);
	/* pairs are found within heads */
	if (s->pairs && rows % c->head_dim)
		return shape_wrong(t, e);
	if (s->transposed && matrix && t->codec->kind != CODEC_FLOAT)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%.200s' lies transposed in a folder, as floats only, not as %s (.quire and .gguf can)", t->name, t->codec->name);
	if (s->heads && l->heads != l->kv_heads)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%.200s' holds Q, K and V of each head together in a folder, and cannot have fewer heads of K and V "
			       "there; .quire and .gguf can",
			       t->name);
	uint64_t groups = s->heads || s->groups ? l->kv_heads : 1;
	for (unsigned i = 0; i < n; i++) {
		uint64_t mine = first[i + 1] - first[i];
		out[i] = (struct part){ .count = n, .first = first[i], .rows = mine, .all = rows, .transposed = s->transposed && matrix };
		if (groups > 1)
			out[i].group = (struct part_group){ .rows = mine / groups, .before = first[i] / groups, .all = rows / groups };
		if (s->pairs) {
			out[i].head = c->head_dim;
			out[i].turned = c->rope.dims;
		}
	}
	return ERR_OK;
}

struct tensor part_tensor(const struct part *p, const struct tensor *stored)
{
	struct tensor t = *stored;
	t.nbytes = stored->nbytes / p->all * p->rows;
	t.dim[0] = p->rows;
	if (p->transposed)
		t.dim[1] = stored->dim[0];
	return t;
}

/* The row of the stored tensor that a part's row is. */
static uint64_t stored_row(const struct part *p, uint64_t row)
{
	const struct part_group *g = &p->group;
	uint64_t at = p->head ? row % p->head : 0;
	if (p->head && at < p->turned)
		return row - at + (at < p->turned / 2 ? 2 * at : 2 * (at - p->turned / 2) + 1);
	return g->rows ? row / g->rows * g->all + g->before + row % g->rows : p->first + row;
}

/* Values between a part of [rows, cols] and a stored tensor of [cols, all]. */
static void transpose(const struct part *p, uint8_t *part, uint8_t *stored, size_t cols, size_t size, bool store)
{
	for (uint64_t r = 0; r < p->rows; r++)
		for (size_t c = 0; c < cols; c++) {
			uint8_t *a = part + (r * cols + c) * size, *b = stored + (c * p->all + p->first + r) * size;
			memcpy(store ? b : a, store ? a : b, size);
		}
}

/* Moves the bytes of a part out of a stored tensor, or into it. */
static void move(const struct part *p, const struct tensor *t, uint8_t *part, uint8_t *stored, bool store)
{
	size_t row = (size_t)(t->nbytes / p->rows);
	if (p->transposed) {
		transpose(p, part, stored, (size_t)t->dim[1], row / (size_t)t->dim[1], store);
		return;
	}
	for (uint64_t r = 0; r < p->rows; r++) {
		uint8_t *a = part + r * row, *b = stored + stored_row(p, r) * row;
		memcpy(store ? b : a, store ? a : b, row);
	}
}

int part_take(const struct part *p, const struct tensor *t, struct tensor_bytes *bytes, struct err *e)
{
	if (!p->count)
		return ERR_OK;
	uint64_t row = t->nbytes / p->rows;
	if (bytes->size < p->before || (bytes->size - p->before) / row < p->all)
		return err_set(e, ERR_INPUT, "tensor '%.200s' is part of one with too few bytes", t->name);
	bytes->data += p->before;
	if (!p->transposed && !p->group.rows && !p->head) {
		bytes->data += p->first * row;
		bytes->size = (size_t)t->nbytes;
		return ERR_OK;
	}
	uint8_t *taken = malloc((size_t)t->nbytes);
	if (!taken)
		return err_nomem(e);
	union { const uint8_t *in; uint8_t *out; } stored = { bytes->data }; /* only read */
	move(p, t, taken, stored.out, false);
	tensor_bytes_release(bytes);
	*bytes = (struct tensor_bytes){ taken, (size_t)t->nbytes, taken };
	return ERR_OK;
}

/* ---- putting together */

/* Where an item of the plan of parts goes. */
struct goes {
	size_t item;               /* in the plan of the folder */
	struct part part;          /* count 0: by itself */
};

struct together {
	struct tensor_sink base;   /* first: the sink is cast back to this */
	struct tensor_sink *behind;
	const struct plan *parts;
	struct plan plan;
	struct goes *goes;         /* [parts->count] */
	uint8_t **bytes;           /* [plan.count] of tensors that are not complete */
	unsigned *missing;         /* [plan.count] parts that have not come */
	size_t now;                /* the part that is coming */
	uint8_t *part;
	uint64_t done;
};

const struct plan *together_plan(const struct together *t)
{
	return &t->plan;
}

void together_free(struct together *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->bytes && i < t->plan.count; i++)
		free(t->bytes[i]);
	free(t->bytes);
	free(t->missing);
	free(t->goes);
	free(t->part);
	arena_release(&t->plan.arena);
	free(t);
}

/* The tensor that holds these parts: all there, of one type and width. */
static int join(const struct plan *p, const struct config *c, const struct stored *s, uint32_t layer, struct tensor *out, struct err *e)
{
	const struct tensor *first = NULL;
	uint64_t rows = 0;
	char name[96];
	for (unsigned i = 0; i < stored_count(s); i++) {
		const struct plan_item *item = plan_find(p, s->part[i], layer);
		const struct tensor *t = item ? &item->out : NULL;
		first = first ? first : t;
		if (!t)
			return err_set(e, ERR_INPUT, "tensor '%s' is missing", role_hf_name(c->arch, s->part[i], layer, name));
		if (t->codec != first->codec || t->ndim != first->ndim || (t->ndim == 2 && t->dim[1] != first->dim[1]))
			return err_set(e, ERR_UNSUPPORTED, "'%s' and '%s' are one tensor in the files of %s: they cannot be %s and %s", first->name,
				       t->name, c->arch->name, first->codec->name, t->codec->name);
		rows += moving_rows(t);
	}
	*out = *first;
	out->dim[0] = rows;
	if (s->transposed && first->ndim == 2) {
		out->dim[0] = first->dim[1];
		out->dim[1] = rows;
	}
	return tensor_measure(out, e);
}

/*
 * Parts of a layer that the class has no form for, which reads another one's keys and values or has fewer heads of them, are
 * tensors of their own, as in .quire.
 */
static const struct stored *stored_in(const struct plan *p, const struct config *c, const struct plan_item *x)
{
	unsigned part;
	const struct stored *s = x->role == ROLE_UNKNOWN ? NULL : stored_of(c->arch, x->role, false, &part);
	for (unsigned i = 0; s && i < stored_count(s); i++)
		if (!plan_find(p, s->part[i], x->layer) && !role_required(c, s->part[i], x->layer))
			return NULL;
	return s && s->heads && c->layer[x->layer].heads != c->layer[x->layer].kv_heads ? NULL : s;
}

/* Items in the order in which they become complete. */
static int lay_out(struct together *t, const struct config *c, struct err *e)
{
	const struct plan *p = t->parts;
	char name[96];
	int rc = ERR_OK;
	for (size_t i = 0; i < p->count && !rc; i++) {
		const struct plan_item *x = &p->items[i];
		const struct stored *s = stored_in(p, c, x);
		bool last = s != NULL;
		for (unsigned k = 0; last && k < stored_count(s); k++) {
			const struct plan_item *other = plan_find(p, s->part[k], x->layer);
			last = !other || (size_t)(other - p->items) <= i;
		}
		if (s && !last)
			continue;
		struct plan_item *out = &t->plan.items[t->plan.count];
		*out = *x;
		if (s && !(rc = join(p, c, s, x->layer, &out->out, e)) &&
		    !(out->out.name = arena_strdup(&t->plan.arena, stored_name(s, false, x->layer, name))))
			rc = err_nomem(e);
		struct part parts[STORED_PARTS];
		if (s && !rc)
			rc = parts_of(s, &out->out, c, x->layer, parts, e);
		for (unsigned k = 0; s && k < stored_count(s) && !rc; k++)
			t->goes[plan_find(p, s->part[k], x->layer) - p->items] = (struct goes){ t->plan.count, parts[k] };
		if (!s)
			t->goes[i] = (struct goes){ .item = t->plan.count };
		t->missing[t->plan.count] = s ? stored_count(s) : 0;
		t->plan.bytes += out->out.nbytes;
		t->plan.count++;
	}
	return rc;
}

int together_new(const struct plan *parts, const struct config *config, struct together **out, struct err *e)
{
	unsigned part;
	bool any = false;
	*out = NULL;
	for (size_t i = 0; config && i < parts->count && !any; i++)
		any = parts->items[i].role != ROLE_UNKNOWN && stored_of(config->arch, parts->items[i].role, false, &part);
	if (!any)
		return ERR_OK;
	struct together *t = calloc(1, sizeof *t);
	if (!t)
		return err_nomem(e);
	t->parts = parts;
	t->now = SIZE_MAX;
	t->plan.items = arena_array(&t->plan.arena, parts->count, sizeof *t->plan.items);
	t->goes = calloc(parts->count, sizeof *t->goes);
	t->bytes = calloc(parts->count, sizeof *t->bytes);
	t->missing = calloc(parts->count, sizeof *t->missing);
	int rc = t->plan.items && t->goes && t->bytes && t->missing ? lay_out(t, config, e) : err_nomem(e);
	if (rc)
		together_free(t);
	else
		*out = t;
	return rc;
}

static int sink_item(struct tensor_sink *k, size_t index, struct err *e)
{
	struct together *t = (struct together *)k;
	const struct goes *g = &t->goes[index];
	t->now = index;
	t->done = 0;
	free(t->part);
	t->part = NULL;
	if (!g->part.count)
		return t->behind->item(t->behind, g->item, e);
	if (!t->bytes[g->item])
		t->bytes[g->item] = malloc((size_t)t->plan.items[g->item].out.nbytes);
	t->part = malloc((size_t)t->parts->items[index].out.nbytes);
	return t->bytes[g->item] && t->part ? ERR_OK : err_nomem(e);
}

/* The last byte of a part has come; the last part's is that of the tensor. */
static int complete(struct together *t, const struct goes *g, struct err *e)
{
	const struct tensor *whole = &t->plan.items[g->item].out;
	move(&g->part, &t->parts->items[t->now].out, t->part, t->bytes[g->item], true);
	if (--t->missing[g->item])
		return ERR_OK;
	int rc = t->behind->item(t->behind, g->item, e);
	if (!rc)
		rc = t->behind->bytes(t->behind, t->bytes[g->item], (size_t)whole->nbytes, e);
	free(t->bytes[g->item]);
	t->bytes[g->item] = NULL;
	return rc;
}

static int sink_bytes(struct tensor_sink *k, const void *data, size_t size, struct err *e)
{
	struct together *t = (struct together *)k;
	if (t->now >= t->parts->count)
		return err_set(e, ERR_BUG, "bytes of no tensor");
	const struct goes *g = &t->goes[t->now];
	if (!g->part.count)
		return t->behind->bytes(t->behind, data, size, e);
	uint64_t all = t->parts->items[t->now].out.nbytes;
	if (size > all - t->done)
		return err_set(e, ERR_BUG, "tensor '%s': more bytes than planned", t->parts->items[t->now].out.name);
	memcpy(t->part + t->done, data, size);
	t->done += size;
	return size && t->done == all ? complete(t, g, e) : ERR_OK;
}

static int sink_seal(struct tensor_sink *k, const char **path, struct err *e)
{
	struct together *t = (struct together *)k;
	return t->behind->seal(t->behind, path, e);
}

static int sink_finish(struct tensor_sink *k, struct err *e)
{
	struct together *t = (struct together *)k;
	return t->behind->finish(t->behind, e);
}

static void sink_close(struct tensor_sink *k)
{
	struct together *t = (struct together *)k;
	t->behind->close(t->behind);
	together_free(t);
}

struct tensor_sink *together_sink(struct together *t, struct tensor_sink *behind)
{
	t->base = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	t->behind = behind;
	return &t->base;
}
