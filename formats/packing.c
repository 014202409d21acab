/* Packs matrices of our group codecs as other programs have them: a sink in front of the safetensors writer. */
#include "formats/packing.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "codec/codec.h"

static const char WEIGHT[] = ".weight";

size_t packing_module(const char *name)
{
	size_t n = strlen(name), k = sizeof WEIGHT - 1;
	return n > k && !strcmp(name + n - k, WEIGHT) ? n - k : 0;
}

const struct codes_layout *packing_layout(const struct packing *k, const struct plan *p, const struct codec *c)
{
	const struct codes_layout *found = NULL;
	for (const struct codes_layout *const *l = k->layouts; *l; l++)
		if ((*l)->holds(c) && (!found || (p && p->activations && (*l)->activations)))
			found = *l;
	return found;
}

bool packing_holds(const struct packing *k, const struct codec *c)
{
	return packing_layout(k, NULL, c) != NULL;
}

bool packing_wanted(const struct packing *k, const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (packing_holds(k, p->items[i].out.codec))
			return true;
	return false;
}

bool packing_zeros(const struct packing *k, const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (packing_holds(k, p->items[i].out.codec) && p->items[i].out.codec->has_offset)
			return true;
	return false;
}

/* ---- the plan */

/* Zero points less one, GPTQ's first layout, cannot be 0: only where all are the middle. */
static unsigned less_of(const struct packing *k, const struct plan *p)
{
	return !packing_zeros(k, p);
}

static void codes_of(const struct tensor *t, const struct codes_layout *l, unsigned less, struct codes *x)
{
	const struct codec *c = t->codec;
	uint64_t cols = tensor_cols(t);
	*x = (struct codes){ .layout = l, .rows = tensor_rows(t), .cols = cols, .group = c->block ? c->block : cols, .bits = c->bits,
			     .less = less };
	x->groups = x->group ? (cols + x->group - 1) / x->group : 0;
}

/* x comes in with layout and less. */
static int room(const struct tensor *t, struct codes *x, struct tensor part[CODE_PARTS], struct err *e)
{
	const struct codes_layout *l = x->layout;
	codes_of(t, l, x->less, x);
	memset(part, 0, CODE_PARTS * sizeof *part);
	int rc = tensor_elements(t) ? l->room(t, x, part, e) : err_set(e, ERR_UNSUPPORTED, "tensor %.200s is empty", t->name);
	for (int k = 0; k < CODE_PARTS && !rc; k++)
		if (part[k].codec)
			rc = tensor_measure(&part[k], e);
	return rc;
}

static int add_item(const struct packing *k, const struct plan *p, const struct plan_item *item, struct plan *parts, struct err *e)
{
	const struct codes_layout *l = packing_layout(k, p, item->out.codec);
	size_t n = packing_module(item->out.name);
	struct tensor part[CODE_PARTS];
	struct codes x = { .layout = l };
	if (!l) {
		parts->items[parts->count++] = *item;
		return ERR_OK;
	}
	if (!n || (item->role == ROLE_EMBED && !k->embedding) || (item->role == ROLE_HEAD && !k->head))
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: %s quantizes linear layers only; leave it in 16 bits", item->out.name, k->name);
	int rc = room(&item->out, &x, part, e);
	for (int i = 0; i < CODE_PARTS && !rc; i++) {
		size_t size = n + 32;
		char *name;
		if (!part[i].codec)
			continue;
		if (!(name = arena_alloc(&parts->arena, size)))
			return err_nomem(e);
		snprintf(name, size, "%.*s%s", (int)n, item->out.name, l->part[i]);
		part[i].name = name;
		parts->items[parts->count++] = (struct plan_item){ .out = part[i] };
	}
	return rc;
}

int packing_plan(const struct packing *k, const struct plan *p, struct plan *parts, struct err *e)
{
	int rc = ERR_OK;
	*parts = (struct plan){ 0 };
	parts->items = arena_array(&parts->arena, CODE_PARTS * p->count + 1, sizeof *parts->items);
	if (!parts->items)
		return err_nomem(e);
	for (size_t i = 0; i < p->count && !rc; i++)
		rc = add_item(k, p, &p->items[i], parts, e);
	for (size_t i = 0; i < parts->count; i++)
		parts->bytes += parts->items[i].out.nbytes;
	if (rc)
		plan_release(parts);
	return rc;
}

/* ---- the sink */

struct packer {
	struct tensor_sink base;      /* first: the sink is cast back to this */
	struct tensor_sink *inner;
	const struct packing *kind;
	const struct plan *plan;
	unsigned less;                /* see struct codes */
	size_t next;                  /* part that comes next */
	const struct plan_item *item; /* being collected, or NULL: passed on */
	uint8_t *buf;
	size_t have;
};

/* A matrix on its way into its parts. */
struct pack_job {
	const struct codes *x;
	const struct tensor *t;
	const uint8_t *bytes;
	uint8_t *part[CODE_PARTS];
	atomic_int failed;
};

/* Unpacks a row: codes, and scale, zero point or bias of each group to their place. */
static void pack_row(const struct pack_job *j, uint64_t row, uint8_t *codes, uint8_t *zeros)
{
	const struct codes *x = j->x;
	const struct codec *c = j->t->codec;
	const uint8_t *in = j->bytes + row * codec_row_bytes(c, x->cols);
	for (uint64_t g = 0, at = 0; g < x->groups; g++, at += x->group) {
		struct block_params p;
		size_t place = (size_t)codes_scale_at(x, row, g) * (x->layout->fp4 ? 1 : 2);
		c->unpack(c, in, &p, codes + at, (size_t)x->group);
		if (x->layout->fp4)
			j->part[PART_SCALE][place] = (uint8_t)p.d;
		else
			store_u16(j->part[PART_SCALE] + place, p.d);
		if (c->group_bias)
			store_u16(j->part[PART_ZERO] + place, p.dmin);
		zeros[g * CODES_TILE] = c->has_offset ? p.mn[0] : (uint8_t)(1 << (c->bits - 1));
		in += codec_row_bytes(c, x->group);
	}
}

static void pack_tile(void *arg, size_t slice, int worker)
{
	struct pack_job *j = arg;
	const struct codes *x = j->x;
	const struct codes_layout *l = x->layout;
	uint64_t row = (uint64_t)slice * CODES_TILE;
	size_t n = x->rows - row < CODES_TILE ? (size_t)(x->rows - row) : CODES_TILE;
	uint8_t *codes = malloc((size_t)(n * x->cols + CODES_TILE * x->groups)), *zeros = codes ? codes + n * x->cols : NULL;
	(void)worker;
	if (!codes) {
		atomic_store(&j->failed, 1);
		return;
	}
	for (size_t r = 0; r < n; r++)
		pack_row(j, row + r, codes + r * x->cols, zeros + r);
	l->put_codes(x, codes, row, n, j->part[PART_CODES]);
	for (uint64_t g = 0; g < x->groups && l->put_zeros && j->part[PART_ZERO]; g++)
		l->put_zeros(x, zeros + g * CODES_TILE, g, row, n, j->part[PART_ZERO]);
	free(codes);
}

/* What does not depend on the values. */
static void fill(const struct pack_job *j)
{
	const struct codes *x = j->x;
	for (uint64_t c = 0; c < x->cols && j->part[PART_ORDER]; c++)
		store_u32(j->part[PART_ORDER] + 4 * c, (uint32_t)(c / x->group));
	if (j->part[PART_SHAPE]) {
		store_u64(j->part[PART_SHAPE], x->rows);
		store_u64(j->part[PART_SHAPE] + 8, x->cols);
	}
}

static int emit(struct packer *k, const void *data, uint64_t size, struct err *e)
{
	int rc = k->inner->item(k->inner, k->next++, e);
	return rc || !size ? rc : k->inner->bytes(k->inner, data, (size_t)size, e);
}

static int flush(struct packer *k, struct err *e)
{
	const struct tensor *t = &k->item->out;
	struct tensor part[CODE_PARTS];
	struct codes x = { .layout = packing_layout(k->kind, k->plan, t->codec), .less = k->less };
	struct pack_job j = { .x = &x, .t = t, .bytes = k->buf };
	int rc = room(t, &x, part, e);
	atomic_init(&j.failed, 0);
	for (int i = 0; i < CODE_PARTS && !rc; i++)
		if (part[i].codec && !(j.part[i] = calloc(1, (size_t)part[i].nbytes + 1)))
			rc = err_nomem(e);
	if (!rc) {
		fill(&j);
		thread_for((size_t)((x.rows + CODES_TILE - 1) / CODES_TILE), pack_tile, &j);
		rc = atomic_load(&j.failed) ? err_nomem(e) : ERR_OK;
	}
	for (int i = 0; i < CODE_PARTS; i++) {
		if (j.part[i] && !rc)
			rc = emit(k, j.part[i], part[i].nbytes, e);
		free(j.part[i]);
	}
	return rc;
}

static int sink_item(struct tensor_sink *base, size_t index, struct err *e)
{
	struct packer *k = (struct packer *)base;
	const struct plan_item *x = &k->plan->items[index];
	k->item = packing_holds(k->kind, x->out.codec) ? x : NULL;
	k->have = 0;
	if (!k->item)
		return k->inner->item(k->inner, k->next++, e);
	uint8_t *grown = realloc(k->buf, (size_t)x->out.nbytes + 1);
	if (!grown)
		return err_nomem(e);
	k->buf = grown;
	return ERR_OK;
}

static int sink_bytes(struct tensor_sink *base, const void *data, size_t size, struct err *e)
{
	struct packer *k = (struct packer *)base;
	if (!k->item)
		return k->inner->bytes(k->inner, data, size, e);
	if (size > k->item->out.nbytes - k->have)
		return err_set(e, ERR_BUG, "%s writer: more bytes than planned", k->kind->name);
	memcpy(k->buf + k->have, data, size);
	k->have += size;
	return k->have == k->item->out.nbytes ? flush(k, e) : ERR_OK;
}

static int sink_seal(struct tensor_sink *base, const char **path, struct err *e)
{
	struct packer *k = (struct packer *)base;
	return k->inner->seal(k->inner, path, e);
}

static int sink_finish(struct tensor_sink *base, struct err *e)
{
	struct packer *k = (struct packer *)base;
	return k->inner->finish(k->inner, e);
}

static void sink_close(struct tensor_sink *base)
{
	struct packer *k = (struct packer *)base;
	k->inner->close(k->inner);
	free(k->buf);
	free(k);
}

int packing_sink(const struct packing *kind, const struct plan *p, struct tensor_sink *inner, struct tensor_sink **out, struct err *e)
{
	struct packer *k = calloc(1, sizeof *k);
	if (!k)
		return err_nomem(e);
	k->base = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	k->inner = inner;
	k->kind = kind;
	k->plan = p;
	k->less = less_of(kind, p);
	*out = &k->base;
	return ERR_OK;
}
