/* Where things lie in a statistics file, and its header. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "calib/stats_file.h"

const struct collect_row collect_rows[] = {
	{ COLLECT_IMATRIX, "imatrix", "sums of squares and magnitudes per channel" },
	{ COLLECT_FULL, "full", "these, and second moments of every pair of channels" },
};
const unsigned collect_row_count = sizeof collect_rows / sizeof *collect_rows;

const struct field_row field_rows[FIELDS] = {
	[FIELD_SUM_SQUARES] = { "sum_squares", "F64", false },
	[FIELD_ABS_SUM] = { "abs_sum", "F64", false },
	[FIELD_ABS_MAX] = { "abs_max", "F32", false },
	[FIELD_COUNT] = { "count", "I64", false },
	[FIELD_MOMENT] = { "moment", "F32", true },
};

bool field_elements(enum field f, uint64_t n, uint64_t *out)
{
	uint64_t more;
	*out = f == FIELD_COUNT ? 1 : n;
	if (f != FIELD_MOMENT)
		return true;
	if (add_overflows(n, 1, &more) || mul_overflows(n, more, out))
		return false;
	*out /= 2;
	return true;
}

enum role stats_leader(const struct config *c, enum role r)
{
	if (r == ROLE_K || r == ROLE_V)
		return ROLE_Q;
	if (r == ROLE_UP && c->arch->gated)
		return ROLE_GATE;
	return r == ROLE_EMBED && c->tied ? ROLE_HEAD : r;
}

char *stats_key(enum role r, uint32_t layer, char *buf)
{
	if (role_rows[r].per_layer)
		snprintf(buf, STATS_KEY, "layers.%" PRIu32 ".%s", layer, role_rows[r].name);
	else
		snprintf(buf, STATS_KEY, "%s", role_rows[r].name);
	return buf;
}

int stats_inputs(const struct config *c, struct stats_input **out, size_t *count, struct err *e)
{
	const enum role mid = c->arch->gated ? ROLE_GATE : ROLE_UP, roles[] = { ROLE_Q, ROLE_O, mid, ROLE_DOWN };
	enum { PER_LAYER = sizeof roles / sizeof *roles };
	struct stats_input *p = calloc((size_t)c->layers * PER_LAYER + 1, sizeof *p);
	if (!p)
		return err_nomem(e);
	size_t n = 0;
	uint64_t dim[2];
	for (uint32_t layer = 0; layer < c->layers; layer++)
		for (size_t i = 0; i < PER_LAYER; i++)
			if (role_shape(c, roles[i], layer, dim) == 2)
				p[n++] = (struct stats_input){ roles[i], layer, (size_t)dim[1] };
	p[n++] = (struct stats_input){ ROLE_HEAD, UINT32_MAX, c->hidden };
	*out = p;
	*count = n;
	return ERR_OK;
}

bool stats_complete(const struct stats_head *h)
{
	uint64_t total = 0;
	for (size_t i = 0; i < h->source_count; i++)
		total += h->sources[i].total;
	return total == h->windows;
}

static int put(struct stats_layout *l, const char *name, const char *dtype, uint32_t ndim, uint64_t a, uint64_t b, struct err *e)
{
	char *copy = arena_strdup(&l->arena, name);
	if (!copy)
		return err_nomem(e);
	l->entries[l->count++] = (struct st_entry){ .name = copy, .dtype = st_dtype_find(dtype), .ndim = ndim, .dim = { a, b } };
	return ERR_OK;
}

static size_t position(const struct stats_layout *l, const char *name)
{
	for (size_t i = 0; i < l->count; i++)
		if (!strcmp(l->entries[i].name, name))
			return i;
	return SIZE_MAX;
}

static char *field_name(const struct stats_input *in, enum field f, char *buf)
{
	char key[STATS_KEY];
	snprintf(buf, 2 * STATS_KEY, "%s.%s", stats_key(in->role, in->layer, key), field_rows[f].suffix);
	return buf;
}

int stats_layout_make(struct stats_layout *l, const struct stats_input *inputs, size_t count, const struct stats_head *h,
		      struct err *e)
{
	char name[2 * STATS_KEY];
	uint64_t elements;
	*l = (struct stats_layout){ .wide = !stats_complete(h) };
	l->entries = calloc(count * FIELDS + 2, sizeof *l->entries);
	l->place = malloc((count * FIELDS + 1) * sizeof *l->place);
	int rc = l->entries && l->place ? ERR_OK : err_nomem(e);
	if (!rc)
		rc = put(l, "tokens", "I32", 2, h->windows, h->ctx, e);
	if (!rc)
		rc = put(l, "windows", "I32", 2, h->windows, 2, e);
	for (size_t i = 0; i < count; i++)
		for (int f = 0; f < FIELDS && !rc; f++) {
			if (field_rows[f].full_only && h->collect != COLLECT_FULL)
				continue;
			if (!field_elements((enum field)f, inputs[i].n, &elements))
				rc = err_set(e, ERR_UNSUPPORTED, "%s is too large", field_name(&inputs[i], (enum field)f, name));
			else
				rc = put(l, field_name(&inputs[i], (enum field)f, name),
					 f == FIELD_MOMENT && l->wide ? "F64" : field_rows[f].dtype, 1, elements, 0, e);
		}
	if (!rc)
		rc = st_layout(l->entries, l->count, e);
	if (rc) {
		stats_layout_release(l);
		return rc;
	}
	l->tokens = position(l, "tokens");
	l->windows = position(l, "windows");
	for (size_t i = 0; i < count; i++)
		for (int f = 0; f < FIELDS; f++)
			l->place[i * FIELDS + (size_t)f] = position(l, field_name(&inputs[i], (enum field)f, name));
	l->bytes = l->entries[l->count - 1].end;
	return ERR_OK;
}

void stats_layout_release(struct stats_layout *l)
{
	free(l->entries);
	free(l->place);
	arena_release(&l->arena);
	*l = (struct stats_layout){ 0 };
}

int stats_header(const struct stats_layout *l, const struct stats_head *h, struct strbuf *out, struct err *e)
{
	struct strbuf sources = { 0 };
	struct json_writer w = { .out = &sources };
	char version[16], ctx[24], tokens[24];
	jw_array(&w, NULL);
	for (size_t i = 0; i < h->source_count; i++) {
		jw_object(&w, NULL);
		jw_string(&w, "data", h->sources[i].data);
		jw_uint(&w, "seed", h->sources[i].seed);
		jw_uint(&w, "windows", h->sources[i].total);
		jw_end_object(&w);
	}
	jw_end_array(&w);
	snprintf(version, sizeof version, "%d", STATS_VERSION);
	snprintf(ctx, sizeof ctx, "%zu", h->ctx);
	snprintf(tokens, sizeof tokens, "%zu", h->windows * h->ctx);
	const struct fact meta[] = {
		{ "format", STATS_FORMAT },      { "format_version", version }, { "tool", h->tool },
		{ "collect", collect_rows[h->collect].name },
		{ "model", h->model },           { "tokenizer", h->tokenizer },
		{ "ctx", ctx },                  { "tokens", tokens },          { "sources", sources.data },
	};
	int rc = sources.failed ? err_nomem(e)
				: st_header(out, l->entries, l->count, meta, sizeof meta / sizeof *meta, STATS_ALIGN, e);
	strbuf_release(&sources);
	return rc;
}
