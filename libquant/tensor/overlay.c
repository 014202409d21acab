#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/tensor.h"

/* Where the bytes of a tensor are: in the base at `from`, or here. Removed tensors stay as holes until packed. */
struct entry {
	struct tensor tensor;
	size_t from;
	void *bytes;
	bool removed;
};

struct overlay {
	struct tensor_source source; /* first: get() casts back */
	struct tensor_source *base;
	struct arena names;
	struct entry *entries;
	struct tensor *tensors;      /* what source.tensors shows */
	size_t *shown;               /* position in entries of each shown tensor */
	size_t count, cap;
	struct map where;            /* name -> entries */
};

static int overlay_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct overlay *o = (struct overlay *)s;
	const struct entry *n = &o->entries[o->shown[i]];
	if (!n->bytes)
		return o->base->get(o->base, n->from, out, e);
	*out = (struct tensor_bytes){ .data = n->bytes, .size = (size_t)n->tensor.nbytes };
	return 0;
}

/* Only views of the base may be dropped: memory put here would lose its contents. */
static void overlay_drop(struct tensor_source *s, const void *data, size_t size)
{
	struct overlay *o = (struct overlay *)s;
	uintptr_t at = (uintptr_t)data;
	for (size_t i = 0; i < o->count; i++) {
		uintptr_t own = (uintptr_t)o->entries[i].bytes;
		if (own && at >= own && at - own < o->entries[i].tensor.nbytes)
			return;
	}
	source_drop(o->base, data, size);
}

static int reserve(struct overlay *o, size_t count, struct err *e)
{
	if (count <= o->cap)
		return 0;
	size_t cap = o->cap ? o->cap * 2 : 64;
	if (cap < count)
		cap = count;
	struct entry *entries = realloc(o->entries, cap * sizeof *entries);
	if (entries)
		o->entries = entries;
	struct tensor *tensors = realloc(o->tensors, cap * sizeof *tensors);
	if (tensors)
		o->tensors = tensors;
	size_t *shown = realloc(o->shown, cap * sizeof *shown);
	if (shown)
		o->shown = shown;
	if (!entries || !tensors || !shown)
		return err_nomem(e);
	o->cap = cap;
	return 0;
}

/* Adds an entry whose name is already owned. The index learns the name here, so that showing never allocates. */
static int append(struct overlay *o, const struct entry *n, struct err *e)
{
	size_t len = strlen(n->tensor.name);
	int rc = reserve(o, o->count + 1, e);
	if (rc)
		return rc;
	if (map_set(&o->source.index, n->tensor.name, len, UINT64_MAX) ||
	    map_set(&o->where, n->tensor.name, len, o->count))
		return err_nomem(e);
	o->entries[o->count++] = *n;
	return 0;
}

struct overlay *overlay_new(struct tensor_source *base, struct err *e)
{
	struct overlay *o = calloc(1, sizeof *o);
	if (!o) {
		err_nomem(e);
		return NULL;
	}
	o->base = base;
	o->source.get = overlay_get;
	o->source.drop = overlay_drop;
	o->source.copies = base->copies;
	for (size_t i = 0; i < base->count; i++) {
		struct entry n = { .tensor = base->tensors[i], .from = i };
		if (append(o, &n, e)) {
			overlay_free(o);
			return NULL;
		}
	}
	return o;
}

static struct entry *find(struct overlay *o, const char *name)
{
	uint64_t i;
	return map_get(&o->where, name, strlen(name), &i) ? &o->entries[i] : NULL;
}

int overlay_put(struct overlay *o, const struct tensor *t, void *bytes, struct err *e)
{
	struct entry *old = find(o, t->name);
	struct entry n = { .tensor = *t, .bytes = bytes };
	/* an empty tensor may come without memory; the pointer is also the mark of who holds the bytes */
	if (!n.bytes && !(n.bytes = malloc(1)))
		return err_nomem(e);
	if (old) {
		n.tensor.name = old->tensor.name;
		free(old->bytes);
		*old = n;
		return 0;
	}
	n.tensor.name = arena_strdup(&o->names, t->name);
	int rc = n.tensor.name ? append(o, &n, e) : err_nomem(e);
	if (rc)
		free(n.bytes);
	return rc;
}

int overlay_remove(struct overlay *o, const char *name, struct err *e)
{
	struct entry *n = find(o, name);
	if (!n || n->removed)
		return err_set(e, ERR_INPUT, "tensor %s is missing", name);
	free(n->bytes);
	n->bytes = NULL;
	n->removed = true;
	return 0;
}

struct tensor_source *overlay_source(struct overlay *o)
{
	size_t shown = 0;
	for (size_t i = 0; i < o->count; i++) {
		const struct entry *n = &o->entries[i];
		/* every name is in the index already, so this replaces and cannot fail */
		map_set(&o->source.index, n->tensor.name, strlen(n->tensor.name), n->removed ? UINT64_MAX : shown);
		if (n->removed)
			continue;
		o->tensors[shown] = n->tensor;
		o->shown[shown++] = i;
	}
	o->source.tensors = o->tensors;
	o->source.count = shown;
	return &o->source;
}

void overlay_free(struct overlay *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < o->count; i++)
		free(o->entries[i].bytes);
	map_release(&o->source.index);
	map_release(&o->where);
	arena_release(&o->names);
	free(o->entries);
	free(o->tensors);
	free(o->shown);
	free(o);
}
