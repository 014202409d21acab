#include "cmd/fold_for.h"

#include <string.h>

int written_options(struct written_for *r, const char *name, bool with_code, const struct format *f, struct err *e)
{
	r->with_code = with_code;
	r->given = name != NULL;
	r->runtime = f && !strcmp(f->name, "gguf") ? RUNTIME_LLAMA_CPP : RUNTIME_QUIRE;
	int rc = name ? runtime_find(name, &r->runtime, e) : ERR_OK;
	const struct runtime_row *row = &runtime_rows[r->runtime];
	if (rc)
		return rc;
	if (f && row->format && strcmp(row->format, f->name))
		return err_set(e, ERR_USAGE, "--for %s: it reads %s, and the output is %s; %s", row->name, row->format, f->name,
			       !strcmp(row->format, "gguf") ? "name it OUT.gguf" : "name a folder");
	if (with_code && r->runtime != RUNTIME_TRANSFORMERS)
		return err_set(e, ERR_USAGE, "--with-code is for --for transformers");
	return ERR_OK;
}

int written_check(struct written_for *r, const struct config *c, const struct format *f, struct notes *n, struct err *e)
{
	int rc = runtime_route(c, r->runtime, r->with_code, &r->route, e);
	if (rc || r->route.as || !f || !f->describes)
		return rc;
	return f->describes(c, n, e);
}

int written_apply(struct written_for *r, const struct config *c, struct tensor_source *source, struct err *e)
{
	int rc = runtime_route(c, r->runtime, r->with_code, &r->route, e);
	if (rc || !r->route.as)
		return rc;
	const struct recast_request want = { .config = c, .source = source, .as = r->route.as, .gguf = r->runtime == RUNTIME_LLAMA_CPP };
	return recast_new(&want, &r->recast, e);
}

void written_notes(const struct written_for *r, struct notes *n)
{
	if (r->recast && recast_approximates(r->recast))
		notes_add(n, "llama.cpp's %s has no silu: it is written as gelu(0.5875 x) / 0.5875, which is measured with the rest and costs about "
			  "0.01 nats by itself; --for transformers keeps silu", r->route.as->gguf);
}

void written_release(struct written_for *r)
{
	recast_free(r->recast);
}
