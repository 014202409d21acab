#include "formats/side.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

struct side {
	struct side_file file;     /* data: NULL until it was asked for */
	side_read *read;
	const void *from;
};

struct sides {
	struct side **item;
	size_t count, room;
	struct arena arena;        /* entries and what was read */
};

static struct side *find(const struct checkpoint *c, const char *name)
{
	for (size_t i = 0; c && c->sides && i < c->sides->count; i++)
		if (!strcmp(c->sides->item[i]->file.name, name))
			return c->sides->item[i];
	return NULL;
}

/* NULL: out of memory. */
static struct side *grow(struct checkpoint *c, const char *name)
{
	struct sides *s = c->sides;
	if (!s && !(s = c->sides = calloc(1, sizeof *s)))
		return NULL;
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 16;
		struct side **item = realloc(s->item, room * sizeof *item);
		if (!item)
			return NULL;
		s->item = item;
		s->room = room;
	}
	struct side *x = arena_alloc(&s->arena, sizeof *x);
	if (!x)
		return NULL;
	x->file.name = name;
	return s->item[s->count++] = x;
}

int side_add(struct checkpoint *c, const char *name, side_read *read, const void *from, struct err *e)
{
	struct side *x = grow(c, name);
	if (!x)
		return err_nomem(e);
	x->read = read;
	x->from = from;
	return ERR_OK;
}

int side_put(struct checkpoint *c, const char *name, const char *data, size_t size, struct err *e)
{
	struct side *x = find(c, name);
	if (!x && !(x = grow(c, name)))
		return err_nomem(e);
	x->file.size = size;
	x->file.data = arena_strndup(&c->sides->arena, data ? data : "", size);
	return x->file.data ? ERR_OK : err_nomem(e);
}

void sides_free(struct sides *s)
{
	if (!s)
		return;
	free(s->item);
	arena_release(&s->arena);
	free(s);
}

static int get(struct sides *s, struct side *x, const struct side_file **out, struct err *e)
{
	int rc = x->file.data ? ERR_OK : x->read(x->from, &s->arena, &x->file, e);
	*out = rc ? NULL : &x->file;
	return rc;
}

bool checkpoint_has(const struct checkpoint *c, const char *name)
{
	return find(c, name) != NULL;
}

const char *checkpoint_file_name(const struct checkpoint *c, size_t i)
{
	return c && c->sides && i < c->sides->count ? c->sides->item[i]->file.name : NULL;
}

int checkpoint_file(const struct checkpoint *c, const char *name, const struct side_file **out, struct err *e)
{
	struct side *x = find(c, name);
	*out = NULL;
	return x ? get(c->sides, x, out, e) : ERR_OK;
}

int checkpoint_files(const struct checkpoint *c, struct err *e)
{
	const struct side_file *f;
	int rc = ERR_OK;
	for (size_t i = 0; c->sides && i < c->sides->count && !rc; i++)
		rc = get(c->sides, c->sides->item[i], &f, e);
	return rc;
}

int checkpoint_json(const struct checkpoint *c, const char *name, struct json **out, struct err *e)
{
	const struct side_file *f;
	*out = NULL;
	int rc = checkpoint_file(c, name, &f, e);
	if (rc || !f)
		return rc;
	*out = json_parse(f->data, f->size, e);
	return *out ? ERR_OK : err_prefix(e, "%.600s: %s", c->path, name);
}
