/* Where things lie in a statistics file, and its header. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/map.h"
#include "calib/stats/stats_file.h"
#include "model/graph.h"

const struct collect_row collect_rows[] = {
	{ COLLECT_IMATRIX, "imatrix", "sums of squares and magnitudes per channel" },
	{ COLLECT_FULL, "full", "these, and second moments of every pair of channels" },
	{ COLLECT_KV, "kv", "of queries, keys and values: what a fold of any heads needs" },
};
const unsigned collect_row_count = sizeof collect_rows / sizeof *collect_rows;

const struct field_row field_rows[FIELDS] = {
	[FIELD_SUM_SQUARES] = { "sum_squares", "F64" },
	[FIELD_ABS_SUM] = { "abs_sum", "F64" },
	[FIELD_ABS_MAX] = { "abs_max", "F32" },
	[FIELD_COUNT] = { "count", "I64" },
	[FIELD_MOMENT] = { "moment", "F32" },
};

bool field_present(enum field f, enum collect collect, enum role r)
{
	return f != FIELD_MOMENT || collect == COLLECT_FULL || (collect == COLLECT_KV && r != ROLE_Q);
}

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
	struct block b;
	if (r >= ROLE_COUNT || !role_rows[r].per_layer)
		return r == ROLE_EMBED && c->tied ? ROLE_HEAD : r;
	/* of the first layer that reads it: one that reads another layer's keys and values has none of its own to lead */
	for (uint32_t i = 0; i < c->layers; i++) {
		block_make(c, i, &b);
		if (block_op(&b, r))
			return block_leader(&b, r);
	}
	return r;
}

char *stats_key(enum role r, uint32_t place, char *buf)
{
	if (role_rows[r].per_expert)
		snprintf(buf, STATS_KEY, "layers.%" PRIu32 ".experts.%" PRIu32 ".%s", place_layer(place), place_expert(place),
			 role_rows[r].name);
	else if (role_rows[r].per_layer)
		snprintf(buf, STATS_KEY, "layers.%" PRIu32 ".%s", place, role_rows[r].name);
	else
		snprintf(buf, STATS_KEY, "%s", role_rows[r].name);
	return buf;
}

char *stats_input_key(const struct stats_input *in, char *buf)
{
	stats_key(in->role, in->layer, buf);
	if (in->output) {
		size_t n = strlen(buf);
		snprintf(buf + n, STATS_KEY - n, ".out");
	}
	return buf;
}

bool stats_input_parse(const char *key, struct stats_input *out)
{
	char again[STATS_KEY];
	size_t n = strlen(key);
	bool per_layer = !strncmp(key, "layers.", 7), output = n > 4 && !strcmp(key + n - 4, ".out");
	if (n >= sizeof again)
		return false;
	snprintf(again, sizeof again, "%.*s", (int)(output ? n - 4 : n), key);
	const char *dot = strrchr(again, '.'), *experts = strstr(again, ".experts.");
	uint32_t place = per_layer ? (uint32_t)strtoul(key + 7, NULL, 10) : UINT32_MAX;
	*out = (struct stats_input){ .role = role_find(dot ? dot + 1 : again), .output = output, .layer = place };
	if (out->role != ROLE_UNKNOWN && role_rows[out->role].per_expert) {
		unsigned long expert = experts ? strtoul(experts + 9, NULL, 10) : NO_EXPERT;
		if (place >= MAX_LAYERS || expert >= MAX_EXPERTS)
			return false;
		out->layer = place_of(place, (uint32_t)expert);
	}
	return out->role != ROLE_UNKNOWN && !strcmp(stats_input_key(out, again), key);
}

/* A layer that reads another one's cache has none of its own to fold. */
static int kv_outputs(const struct config *c, struct stats_input **out, size_t *count, struct err *e)
{
	struct stats_input *p = calloc((size_t)c->layers * 3 + 1, sizeof *p);
	size_t n = 0;
	if (!p)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		if (l->kv_source != i)
			continue;
		p[n++] = (struct stats_input){ ROLE_Q, i, (size_t)l->heads * c->head_dim, true };
		p[n++] = (struct stats_input){ ROLE_K, i, (size_t)l->kv_heads * c->head_dim, true };
		p[n++] = (struct stats_input){ ROLE_V, i, (size_t)l->kv_heads * c->head_dim, true };
	}
	*out = p;
	*count = n;
	return ERR_OK;
}

int stats_inputs(const struct config *c, enum collect collect, struct stats_input **out, size_t *count, struct err *e)
{
	if (collect == COLLECT_KV)
		return kv_outputs(c, out, count, e);
	struct group group[BLOCK_GROUPS];
	struct block b;
	size_t n = 1, at = 0;
	for (uint32_t layer = 0; layer < c->layers; layer++) {
		block_make(c, layer, &b);
		unsigned groups = block_groups(&b, group);
		for (unsigned i = 0; i < groups; i++)
			n += group_places(&group[i]);
	}
	struct stats_input *p = calloc(n, sizeof *p);
	if (!p)
		return err_nomem(e);
	for (uint32_t layer = 0; layer < c->layers; layer++) {
		block_make(c, layer, &b);
		unsigned groups = block_groups(&b, group);
		for (unsigned i = 0; i < groups; i++)
			for (uint32_t k = 0; k < group_places(&group[i]); k++)
				p[at++] = (struct stats_input){ group[i].role[0], group_place(&group[i], layer, k),
								block_width(&b, group[i].role[0]), false };
	}
	p[at++] = (struct stats_input){ ROLE_HEAD, UINT32_MAX, c->hidden, false };
	*out = p;
	*count = at;
	return ERR_OK;
}

bool stats_complete(const struct stats_head *h)
{
	uint64_t total = 0;
	for (size_t i = 0; i < h->source_count; i++)
		total += h->sources[i].total;
	return total == h->windows;
}

/* b 0: a vector. */
static int put(struct stats_layout *l, const char *name, const char *dtype, uint64_t a, uint64_t b, struct err *e)
{
	char *copy = arena_strdup(&l->arena, name);
	if (!copy)
		return err_nomem(e);
	l->entries[l->count++] = (struct st_entry){ .name = copy, .dtype = st_dtype_find(dtype), .ndim = b ? 2 : 1, .dim = { a, b } };
	return ERR_OK;
}

static char *field_name(const struct stats_input *in, enum field f, char *buf)
{
	char key[STATS_KEY];
	snprintf(buf, 2 * STATS_KEY, "%s.%s", stats_input_key(in, key), field_rows[f].suffix);
	return buf;
}

static size_t position(const struct map *names, const char *name)
{
	uint64_t at;
	return map_get(names, name, strlen(name), &at) ? (size_t)at : SIZE_MAX;
}

static int find_places(struct stats_layout *l, const struct stats_input *inputs, size_t count, struct err *e)
{
	struct map names = { 0 };
	char name[2 * STATS_KEY];
	int rc = ERR_OK;
	for (size_t i = 0; i < l->count && !rc; i++)
		if (map_add(&names, l->entries[i].name, strlen(l->entries[i].name), i) < 0)
			rc = err_nomem(e);
	l->tokens = position(&names, "tokens");
	l->windows = position(&names, "windows");
	for (size_t i = 0; i < count && !rc; i++)
		for (int f = 0; f < FIELDS; f++)
			l->place[i * FIELDS + (size_t)f] = position(&names, field_name(&inputs[i], (enum field)f, name));
	map_release(&names);
	return rc;
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
		rc = put(l, "tokens", "I32", h->windows, h->ctx, e);
	if (!rc)
		rc = put(l, "windows", "I32", h->windows, 2, e);
	for (size_t i = 0; i < count; i++)
		for (int f = 0; f < FIELDS && !rc; f++) {
			if (!field_present((enum field)f, h->collect, inputs[i].role))
				continue;
			if (!field_elements((enum field)f, inputs[i].n, &elements))
				rc = err_set(e, ERR_UNSUPPORTED, "%s is too large", field_name(&inputs[i], (enum field)f, name));
			else
				rc = put(l, field_name(&inputs[i], (enum field)f, name),
					 f == FIELD_MOMENT && l->wide ? "F64" : field_rows[f].dtype, elements, 0, e);
		}
	if (!rc)
		rc = st_layout(l->entries, l->count, e);
	if (!rc)
		rc = find_places(l, inputs, count, e);
	if (rc) {
		stats_layout_release(l);
		return rc;
	}
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
				: st_header(out, &(struct st_listing){ l->entries, l->count, meta, sizeof meta / sizeof *meta }, STATS_ALIGN, e);
	strbuf_release(&sources);
	return rc;
}
