/* What a plan made of matrices whose rows the scheme's blocks do not divide, in one line, and what would suit them. */
#include <stdio.h>
#include <string.h>

#include "cmd/fallback.h"

/* The type of the model's weights: that of its first matrix in floats. */
static bool has_bf16(const struct tensor_source *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->tensors[i].ndim == 2 && s->tensors[i].codec->kind == CODEC_FLOAT)
			return !strcmp(s->tensors[i].codec->name, "bf16");
	return false;
}

void fallback_recipe(struct recipe *r, const struct fallback_source *s)
{
	if (s->format && s->format->vectors)
		recipe_vectors(r, codec_find(s->format->vectors));
	if (s->format && s->format->one_float && s->method)
		recipe_folder(r, &(struct recipe_folder){ s->format->holds, has_bf16(s->tensors) && !s->format->f16_scales, s->format->ends });
}

/* Counts over the matrices that are quantized, or would be if their rows were longer. */
struct fallbacks {
	size_t count, matrices, others; /* others: of another length of row */
	uint64_t cols;
	const struct codec *refused, *got;
	struct strbuf names, results;   /* "q4_k's 256 and q6_k's 256", "q5_0 and q8_0" */
};

static bool seen(const struct plan *p, size_t i, uint64_t cols)
{
	for (size_t k = 0; k < i; k++)
		if (p->items[k].refused == p->items[i].refused && tensor_cols(&p->items[k].out) == cols)
			return true;
	return false;
}

/* The length of row of the first one speaks for all; models have few. */
static void gather(const struct plan *p, struct fallbacks *f)
{
	size_t pairs = 0;
	for (size_t i = 0; i < p->count; i++) {
		const struct plan_item *x = &p->items[i];
		f->matrices += x->refused || x->method;
		if (!x->refused)
			continue;
		if (!f->refused) {
			f->refused = x->refused;
			f->got = x->out.codec;
			f->cols = tensor_cols(&x->out);
		}
		if (tensor_cols(&x->out) != f->cols) {
			f->others++;
			continue;
		}
		f->count++;
		if (pairs < 3 && !seen(p, i, f->cols)) {
			pairs++;
			strbuf_printf(&f->names, "%s%s's %u", f->names.len ? " and " : "", x->refused->name, (unsigned)x->refused->block);
			if (x->out.codec != f->got || !f->results.len)
				strbuf_printf(&f->results, "%s%s", f->results.len ? " and " : "", x->out.codec->name);
		}
	}
}

/* A codec of as many bits that divides the rows and that the format holds, and what the whole model would take with it. */
static const char *better(const struct fallbacks *f, const struct plan *p, const struct fallback_source *s, uint64_t *bytes)
{
	static const char *const names[] = { "iq4_nl", "q4_0", "q5_0", "q8_0", "int2-g64", "int2-g32", "int3-g64", "int3-g32",
					     "int4-g64", "int4-g32", "int8-g64", "int8-g32" };
	const char *found = NULL;
	*bytes = p->bytes;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const struct codec *c = codec_find(names[i]);
		struct recipe *r;
		struct plan q;
		if (!c || c->bits != f->refused->bits || c == f->got || f->cols % c->block || !s->format->holds(c) ||
		    recipe_new(names[i], &r, NULL))
			continue;
		fallback_recipe(r, s);
		const struct plan_request wanted = { s->config, s->tensors, r, s->method, true, NULL };
		if (!plan_make(&q, &wanted, NULL)) {
			if (q.bytes < *bytes) {
				*bytes = q.bytes;
				found = names[i];
			}
			plan_release(&q);
		}
		recipe_free(r);
	}
	return found;
}

void fallback_text(const struct plan *p, const struct fallback_source *s, struct strbuf *out)
{
	struct fallbacks f = { 0 };
	char size[32];
	uint64_t bytes;
	gather(p, &f);
	if (f.count && !f.names.failed && !f.results.failed) {
		const char *other = better(&f, p, s, &bytes);
		strbuf_printf(out, "%zu of %zu matrices have rows of %llu, which %s do not divide: %s", f.count, f.matrices,
			      (unsigned long long)f.cols, f.names.data, f.results.data);
		if (f.others)
			strbuf_printf(out, " (and so with %zu of other rows)", f.others);
		if (other)
			strbuf_printf(out, "; %s would make %s", other, size_text(bytes, size));
	}
	strbuf_release(&f.names);
	strbuf_release(&f.results);
}
