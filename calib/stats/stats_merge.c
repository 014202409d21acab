/* Adding statistics up, and handing importance to llama.cpp. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "calib/stats/stats_file.h"
#include "formats/imatrix.h"
#include "model/stored.h"

/* Elements added up at once. */
enum { PIECE = 1 << 18 };

struct merge {
	struct stats **file;
	const char *const *path;
	size_t count;
	struct stats_head head;
	struct stats_input *inputs;     /* only n is used; keys are those of the first file */
	size_t input_count;
	struct origin *origin;          /* [windows] */
	struct stats_layout layout;
	struct out_file *out;
	double *sum;                    /* [PIECE] */
	uint8_t *piece;                 /* [PIECE * 8] */
	struct arena arena;
};

/* Where a window of the result is. */
struct origin {
	struct stats_window window;
	size_t file, row;
};

static int same_kind(const struct stats *a, const struct stats *b, struct err *e)
{
	if (a->info.foreign || b->info.foreign)
		return err_set(e, ERR_NOT_COMPARABLE, "statistics of quire and importance matrices of llama.cpp do not add up; write the "
			       "importance matrix of the statistics first (--from)");
	if (strcmp(a->head.model, b->head.model))
		return err_set(e, ERR_NOT_COMPARABLE, "gathered with another model");
	if (strcmp(a->head.tokenizer, b->head.tokenizer))
		return err_set(e, ERR_NOT_COMPARABLE, "gathered with another tokenizer");
	if (a->head.collect != b->head.collect)
		return err_set(e, ERR_NOT_COMPARABLE, "holds '%s', not '%s'", collect_rows[b->head.collect].name,
			       collect_rows[a->head.collect].name);
	if (a->head.ctx != b->head.ctx)
		return err_set(e, ERR_NOT_COMPARABLE, "has windows of %zu tokens, not %zu", b->head.ctx, a->head.ctx);
	if (a->count != b->count)
		return err_set(e, ERR_NOT_COMPARABLE, "has %zu entries, not %zu", b->count, a->count);
	for (size_t i = 0; i < a->count; i++) {
		const struct stats_entry *x = stats_find(b, a->entries[i].key);
		if (!x || x->n != a->entries[i].n)
			return err_set(e, ERR_NOT_COMPARABLE, "'%.200s' is missing or of another size", a->entries[i].key);
	}
	return ERR_OK;
}

static int source_order(const void *a, const void *b)
{
	const struct stats_source *x = a, *y = b;
	int c = strcmp(x->data, y->data);
	if (c)
		return c;
	if (x->seed != y->seed)
		return x->seed < y->seed ? -1 : 1;
	return x->total < y->total ? -1 : x->total > y->total;
}

static int window_order(const void *a, const void *b)
{
	const struct origin *x = a, *y = b;
	if (x->window.source != y->window.source)
		return x->window.source < y->window.source ? -1 : 1;
	return x->window.index < y->window.index ? -1 : x->window.index > y->window.index;
}

/* The sources of all files, each once, in an order that does not depend on that of the files. */
static int merge_sources(struct merge *m, struct err *e)
{
	size_t n = 0, kept = 0;
	for (size_t f = 0; f < m->count; f++)
		n += m->file[f]->head.source_count;
	struct stats_source *s = arena_array(&m->arena, n, sizeof *s);
	if (!s)
		return err_nomem(e);
	n = 0;
	for (size_t f = 0; f < m->count; f++)
		for (size_t i = 0; i < m->file[f]->head.source_count; i++)
			s[n++] = m->file[f]->head.sources[i];
	qsort(s, n, sizeof *s, source_order);
	for (size_t i = 0; i < n; i++)
		if (!i || source_order(&s[i], &s[kept - 1]))
			s[kept++] = s[i];
	m->head.sources = s;
	m->head.source_count = kept;
	return kept <= STATS_MAX_SOURCES ? ERR_OK : err_set(e, ERR_UNSUPPORTED, "more than %d texts in one file", (int)STATS_MAX_SOURCES);
}

static int merge_windows(struct merge *m, struct err *e)
{
	size_t n = 0;
	for (size_t f = 0; f < m->count; f++)
		n += m->file[f]->head.windows;
	m->origin = arena_array(&m->arena, n, sizeof *m->origin);
	if (!m->origin)
		return err_nomem(e);
	for (size_t f = 0; f < m->count; f++) {
		const struct stats *s = m->file[f];
		const uint8_t *w = stats_data(s, s->windows);
		for (size_t i = 0; i < s->head.windows; i++) {
			const struct stats_source *from = &s->head.sources[load_u32(w + 8 * i)];
			const struct stats_source *to = bsearch(from, m->head.sources, m->head.source_count, sizeof *to, source_order);
			m->origin[m->head.windows++] = (struct origin){
				{ (int32_t)(to - m->head.sources), (int32_t)load_u32(w + 8 * i + 4) }, f, i };
		}
	}
	qsort(m->origin, n, sizeof *m->origin, window_order);
	for (size_t i = 1; i < n; i++)
		if (!window_order(&m->origin[i - 1], &m->origin[i]))
			return err_set(e, ERR_INPUT, "%.300s and %.300s hold the same window %d of a text; it would count twice",
				       m->path[m->origin[i - 1].file], m->path[m->origin[i].file], m->origin[i].window.index);
	return ERR_OK;
}

/* The layout wants roles; keys of ours are made of them. */
static int merge_inputs(struct merge *m, struct err *e)
{
	const struct stats *s = m->file[0];
	m->inputs = arena_array(&m->arena, s->count, sizeof *m->inputs);
	if (!m->inputs)
		return err_nomem(e);
	for (size_t i = 0; i < s->count; i++) {
		if (!stats_input_parse(s->entries[i].key, &m->inputs[i]))
			return err_set(e, ERR_INPUT, "%.300s: '%.200s' is not the input of a known layer", m->path[0], s->entries[i].key);
		m->inputs[i].n = s->entries[i].n;
	}
	m->input_count = s->count;
	return ERR_OK;
}

static double element(const uint8_t *p, const struct st_dtype *t, size_t i)
{
	if (t->bits == 64) {
		uint64_t u = load_u64(p + 8 * i);
		double d;
		memcpy(&d, &u, sizeof d);
		return d;
	}
	uint32_t u = load_u32(p + 4 * i);
	float f;
	memcpy(&f, &u, sizeof f);
	return (double)f;
}

static void store_element(uint8_t *p, const struct st_dtype *t, size_t i, double d)
{
	if (t->bits == 64) {
		uint64_t u;
		memcpy(&u, &d, sizeof u);
		store_u64(p + 8 * i, u);
		return;
	}
	float f = (float)d;
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	store_u32(p + 4 * i, u);
}

/* One piece of one field, over all files. */
static void add_piece(struct merge *m, const char *key, enum field f, size_t at, size_t n, const struct st_entry *to)
{
	memset(m->sum, 0, n * sizeof *m->sum);
	for (size_t k = 0; k < m->count; k++) {
		const struct stats *s = m->file[k];
		const struct st_entry *t = stats_find(s, key)->field[f];
		const uint8_t *data = stats_data(s, t) + at * (t->dtype->bits / 8);
		for (size_t i = 0; i < n; i++) {
			double v = element(data, t->dtype, i);
			m->sum[i] = f == FIELD_ABS_MAX ? (v > m->sum[i] ? v : m->sum[i]) : m->sum[i] + v;
		}
		mapped_drop(s->map, data, n * (t->dtype->bits / 8));
	}
	for (size_t i = 0; i < n; i++)
		store_element(m->piece, to->dtype, i, m->sum[i]);
}

static int write_field(struct merge *m, uint64_t base, size_t input, enum field f, struct err *e)
{
	const struct st_entry *to = stats_field(&m->layout, input, f);
	const char *key = m->file[0]->entries[input].key;
	if (!to)
		return ERR_OK;
	if (f == FIELD_COUNT) {
		uint64_t count = 0;
		uint8_t b[8];
		for (size_t k = 0; k < m->count; k++)
			count += stats_find(m->file[k], key)->count;
		store_u64(b, count);
		return out_pwrite(m->out, b, sizeof b, base + to->begin, e);
	}
	size_t width = to->dtype->bits / 8;
	int rc = ERR_OK;
	for (uint64_t at = 0, n; at < to->dim[0] && !rc; at += n) {
		n = to->dim[0] - at < PIECE ? to->dim[0] - at : PIECE;
		add_piece(m, key, f, (size_t)at, (size_t)n, to);
		rc = out_pwrite(m->out, m->piece, (size_t)n * width, base + to->begin + at * width, e);
	}
	return rc;
}

static int write_windows(struct merge *m, uint64_t base, struct err *e)
{
	size_t row = m->head.ctx * 4;
	int rc = ERR_OK;
	for (size_t i = 0; i < m->head.windows && !rc; i++) {
		const struct origin *o = &m->origin[i];
		const struct stats *s = m->file[o->file];
		uint8_t b[8];
		store_u32(b, (uint32_t)o->window.source);
		store_u32(b + 4, (uint32_t)o->window.index);
		rc = out_pwrite(m->out, stats_data(s, s->tokens) + o->row * row, row,
				base + m->layout.entries[m->layout.tokens].begin + i * row, e);
		if (!rc)
			rc = out_pwrite(m->out, b, sizeof b, base + m->layout.entries[m->layout.windows].begin + i * sizeof b, e);
	}
	return rc;
}

static int merge_write(struct merge *m, const char *path, struct err *e)
{
	struct strbuf header = { 0 };
	m->sum = malloc(PIECE * sizeof *m->sum);
	m->piece = malloc(PIECE * sizeof(double));
	int rc = m->sum && m->piece ? stats_layout_make(&m->layout, m->inputs, m->input_count, &m->head, e) : err_nomem(e);
	if (!rc)
		rc = stats_header(&m->layout, &m->head, &header, e);
	if (!rc)
		rc = out_open(path, &m->out, e);
	if (!rc)
		rc = out_write(m->out, header.data, header.len, e);
	for (size_t i = 0; i < m->input_count && !rc; i++)
		for (int f = 0; f < FIELDS && !rc; f++)
			rc = write_field(m, header.len, i, (enum field)f, e);
	if (!rc)
		rc = write_windows(m, header.len, e);
	strbuf_release(&header);
	if (rc)
		out_abort(m->out);
	else
		rc = out_commit(m->out, e);
	stats_layout_release(&m->layout);
	free(m->sum);
	free(m->piece);
	return rc;
}

int stats_merge(const char *const *paths, size_t count, const char *out, struct err *e)
{
	struct merge m = { .path = paths, .file = calloc(count + 1, sizeof(struct stats *)) };
	int rc = m.file ? ERR_OK : err_nomem(e);
	for (; m.count < count && !rc; m.count += !rc) {
		rc = stats_open(paths[m.count], &m.file[m.count], e);
		if (!rc && m.count && !(m.file[0]->info.foreign && m.file[m.count]->info.foreign) && (rc = same_kind(m.file[0], m.file[m.count], e))) {
			stats_close(m.file[m.count]);
			err_prefix(e, "%s", paths[m.count]);
		}
	}
	if (!rc && m.file[0]->info.foreign) {
		rc = imatrix_merge(paths, count, out, e);
		goto out;
	}
	if (!rc) {
		m.head = m.file[0]->head;
		m.head.windows = 0;
		rc = merge_sources(&m, e);
	}
	if (!rc)
		rc = merge_windows(&m, e);
	if (!rc)
		rc = merge_inputs(&m, e);
	if (!rc)
		rc = merge_write(&m, out, e);
out:
	for (size_t i = 0; i < m.count; i++)
		stats_close(m.file[i]);
	free(m.file);
	arena_release(&m.arena);
	return rc;
}

/* One entry for a tensor of GGUF: of a matrix, or of all experts. */
static int add_weight(struct imatrix *im, const struct stats *s, enum role r, uint32_t layer, struct err *e)
{
	char name[96];
	uint64_t dim[2];
	const struct config *c = s->config;
	uint32_t mats = role_places(c, r);
	if (!role_rows[r].linear || !mats || role_shape(c, r, role_place(r, layer, 0), dim) != 2 || (r == ROLE_HEAD && c->tied) ||
	    !role_required(c, r, role_place(r, layer, 0)))
		return ERR_OK;
	const struct stats_entry *first = stats_site(s, r, role_place(r, layer, 0));
	unsigned part;
	if (!first || !stored_gguf_name(c->arch, r, layer, name, &part) || part)
		return ERR_OK;
	struct imatrix_entry *x = &im->entries[im->count++];
	*x = (struct imatrix_entry){ .name = arena_strdup(&im->arena, name), .n = first->n, .mats = mats };
	x->sum_squares = arena_array(&im->arena, x->n * mats, sizeof *x->sum_squares);
	x->counts = arena_array(&im->arena, mats, sizeof *x->counts);
	if (!x->name || !x->sum_squares || !x->counts)
		return err_nomem(e);
	for (uint32_t k = 0; k < mats; k++) {
		const struct stats_entry *from = stats_site(s, r, role_place(r, layer, k));
		uint64_t tokens = from && from->n == x->n ? from->count : 0;
		x->counts[k] = (float)tokens;
		for (size_t i = 0; i < x->n; i++)
			x->sum_squares[k * x->n + i] = tokens ? (float)((double)stats_own(from)[i] * (double)tokens) : 0;
	}
	return ERR_OK;
}

int stats_write_imatrix(const struct stats *s, const char *path, const char *const *datasets, size_t dataset_count, struct err *e)
{
	if (!s->config)
		return err_set(e, ERR_BUG, "the statistics were not checked against their model");
	const struct config *c = s->config;
	struct imatrix im = { .chunk_count = (uint32_t)s->info.windows, .dataset_count = dataset_count };
	struct strbuf out = { 0 };
	int rc = ERR_OK;
	/* the older form does not know; there, a call counts as one token */
	im.chunk_size = s->info.ctx ? (uint32_t)s->info.ctx : 1;
	im.entries = arena_array(&im.arena, ((size_t)c->layers + 1) * ROLE_COUNT, sizeof *im.entries);
	im.datasets = arena_array(&im.arena, dataset_count + 1, sizeof *im.datasets);
	if (!im.entries || !im.datasets)
		rc = err_nomem(e);
	for (size_t i = 0; i < dataset_count && !rc; i++)
		if (!(im.datasets[i] = arena_strdup(&im.arena, datasets[i])))
			rc = err_nomem(e);
	for (int r = 0; r < ROLE_COUNT && !rc; r++) {
		if (!role_rows[r].per_layer)
			rc = add_weight(&im, s, (enum role)r, UINT32_MAX, e);
		for (uint32_t layer = 0; role_rows[r].per_layer && layer < c->layers && !rc; layer++)
			rc = add_weight(&im, s, (enum role)r, layer, e);
	}
	size_t n = strlen(path);
	if (!rc)
		rc = (n > 4 && !strcmp(path + n - 4, ".dat") ? imatrix_print_dat : imatrix_print_gguf)(&im, &out, e);
	if (!rc)
		rc = file_write(path, out.data, out.len, e);
	strbuf_release(&out);
	imatrix_release(&im);
	return rc;
}
