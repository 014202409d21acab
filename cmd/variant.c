/* What is kept of a variant of `compare`, and what identifies a large file. */
#include <stdlib.h>
#include <string.h>

#include "cmd/compare.h"
#include "formats/file.h"

static void list_release(struct string_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free((void *)(uintptr_t)l->item[i]);
	free(l->item);
}

void variant_release(struct variant *v)
{
	free(v->name);
	free(v->scheme);
	free(v->method);
	free(v->file);
	free(v->recipe);
	free(v->from);
	free(v->kv);
	free(v->kv_v);
	free(v->kv_rotate);
	list_release(&v->tensor);
	list_release(&v->fold);
	free(v->folded);
	free(v->path);
	free(v->stem);
	free(v->kept);
	free(v->layer);
	measurement_release(&v->m);
	attribution_release(&v->attribution);
	if (v->loaded)
		loaded_close(v->loaded);
	free(v->loaded);
	*v = (struct variant){ 0 };
}

int variant_add(struct compare *c, struct variant **out, struct err *e)
{
	struct variant *p = realloc(c->variants, (c->count + 1) * sizeof *p);
	if (!p)
		return err_nomem(e);
	c->variants = p;
	p[c->count] = (struct variant){ 0 };
	*out = &p[c->count++];
	return ERR_OK;
}

int variant_text(char **field, const char *s, size_t n, struct err *e)
{
	free(*field);
	*field = malloc(n + 1);
	if (!*field)
		return err_nomem(e);
	memcpy(*field, s, n);
	(*field)[n] = '\0';
	return ERR_OK;
}

int compare_add_ends(struct sha256 *h, const char *path, struct err *e)
{
	struct mapped m;
	int rc = mapped_open(&m, path, e);
	if (rc)
		return rc;
	size_t end = m.size < 1 << 20 ? m.size : 1 << 20;
	identity_add(h, m.data, end);
	identity_add(h, m.data + (m.size - end), end);
	mapped_close(&m);
	return ERR_OK;
}
