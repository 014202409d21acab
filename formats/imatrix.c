#include "formats/imatrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "codec/codec.h"
#include "formats/gguf.h"

static const char SUMS[] = ".in_sum2", COUNTS[] = ".counts";

/* Names go into messages and files. */
static bool good_name(const char *s, size_t n)
{
	if (!n || !utf8_valid(s, n))
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 32 || s[i] == 127)
			return false;
	return true;
}

static float *copy_values(struct imatrix *m, const uint8_t *data, uint64_t n)
{
	float *p = n <= SIZE_MAX / sizeof *p ? arena_array(&m->arena, (size_t)n, sizeof *p) : NULL;
	for (uint64_t i = 0; p && i < n; i++) {
		uint32_t u = load_u32(data + 4 * i);
		memcpy(&p[i], &u, sizeof u);
	}
	return p;
}

static int check_values(const char *name, const char *what, const float *v, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (!isfinite(v[i]) || v[i] < 0)
			return err_set(e, ERR_INPUT, "entry '%.200s': %s of channel %zu is %s", name, what, i,
				       isnan(v[i]) ? "NaN" : isinf(v[i]) ? "infinite" : "negative");
	return ERR_OK;
}

static int add_entry(struct imatrix *m, struct map *names, const struct imatrix_entry *x, struct err *e)
{
	int rc = check_values(x->name, "the sum", x->sum_squares, x->n * x->mats, e);
	if (!rc)
		rc = check_values(x->name, "the count", x->counts, x->mats, e);
	if (rc)
		return rc;
	int fresh = map_add(names, x->name, strlen(x->name), m->count);
	if (fresh < 0)
		return err_nomem(e);
	if (!fresh)
		return err_set(e, ERR_INPUT, "entry '%.200s' appears twice", x->name);
	m->entries[m->count++] = *x;
	return ERR_OK;
}

static bool ends_with(const char *s, const char *end, size_t *stem)
{
	size_t n = strlen(s), k = strlen(end);
	*stem = n > k ? n - k : 0;
	return n > k && !strcmp(s + n - k, end);
}

/* An importance matrix as GGUF. */
struct gguf_matrix {
	struct gguf g;
	struct map tensors;      /* name -> index */
	const uint8_t *data;     /* the whole file */
};

static const struct gguf_tensor *find_counts(const struct gguf_matrix *g, const char *name, size_t stem)
{
	char key[256];
	uint64_t at;
	if (stem + sizeof COUNTS > sizeof key)
		return NULL;
	memcpy(key, name, stem);
	memcpy(key + stem, COUNTS, sizeof COUNTS);
	return map_get(&g->tensors, key, strlen(key), &at) ? &g->g.tensors[at] : NULL;
}

static int gguf_entry(struct imatrix *m, struct map *names, const struct gguf_matrix *g, const struct gguf_tensor *t, size_t stem,
		      struct err *e)
{
	const struct gguf_tensor *counts = find_counts(g, t->name, stem);
	struct imatrix_entry x = { .n = (size_t)(t->ndim ? t->dim[0] : 0), .mats = (size_t)(t->ndim > 1 ? t->dim[1] : 1) };
	const struct codec *f32 = codec_find("f32");
	if (!counts)
		return err_set(e, ERR_INPUT, "tensor '%.200s' has no counts beside it", t->name);
	if (t->codec != f32 || counts->codec != f32)
		return err_set(e, ERR_INPUT, "tensor '%.200s' and its counts must be f32", t->name);
	if (!x.n || !x.mats || t->ndim > 2 || t->nbytes != 4 * (uint64_t)x.n * x.mats)
		return err_set(e, ERR_INPUT, "tensor '%.200s' must have one or two dimensions", t->name);
	if (counts->nbytes != 4 * (uint64_t)x.mats)
		return err_set(e, ERR_INPUT, "tensor '%.200s' has another number of counts than of matrices", t->name);
	x.name = arena_strndup(&m->arena, t->name, stem);
	x.sum_squares = copy_values(m, g->data + t->at, (uint64_t)x.n * x.mats);
	x.counts = copy_values(m, g->data + counts->at, x.mats);
	if (!x.name || !x.sum_squares || !x.counts)
		return err_nomem(e);
	if (!good_name(x.name, stem))
		return err_set(e, ERR_INPUT, "a tensor's name has control characters");
	return add_entry(m, names, &x, e);
}

static int gguf_keys(struct imatrix *m, const struct gguf *g, struct err *e)
{
	size_t len;
	uint64_t v;
	const struct gguf_kv *datasets = gguf_find(g, "imatrix.datasets");
	const char *type = gguf_string(gguf_find(g, "general.type"), &len);
	if (!type || len != 7 || memcmp(type, "imatrix", 7))
		return err_set(e, ERR_INPUT, "this GGUF file is not an importance matrix (general.type is not 'imatrix')");
	if (gguf_uint(gguf_find(g, "imatrix.chunk_count"), 0, &v))
		m->chunk_count = (uint32_t)v;
	if (gguf_uint(gguf_find(g, "imatrix.chunk_size"), 0, &v))
		m->chunk_size = (uint32_t)v;
	if (!datasets || datasets->type != GGUF_ARRAY || datasets->elem != GGUF_STRING || datasets->count > datasets->size)
		return ERR_OK;
	m->datasets = arena_array(&m->arena, (size_t)datasets->count + 1, sizeof *m->datasets);
	if (!m->datasets)
		return err_nomem(e);
	struct cursor c = gguf_strings(datasets);
	for (const char *s; m->dataset_count < datasets->count && gguf_next_string(&c, &s, &len);)
		if (!(m->datasets[m->dataset_count++] = arena_strndup(&m->arena, s, len)))
			return err_nomem(e);
	return ERR_OK;
}

static int parse_gguf(struct imatrix *m, struct map *names, const uint8_t *data, size_t size, struct err *e)
{
	struct gguf_matrix f = { .data = data };
	int rc = gguf_parse(&f.g, data, size, e);
	if (rc)
		return rc;
	rc = gguf_keys(m, &f.g, e);
	if (!rc && !(m->entries = arena_array(&m->arena, f.g.tensor_count + 1, sizeof *m->entries)))
		rc = err_nomem(e);
	for (size_t i = 0; i < f.g.tensor_count && !rc; i++)
		if (map_set(&f.tensors, f.g.tensors[i].name, strlen(f.g.tensors[i].name), i))
			rc = err_nomem(e);
	for (size_t i = 0; i < f.g.tensor_count && !rc; i++) {
		const struct gguf_tensor *t = &f.g.tensors[i];
		size_t stem;
		if (ends_with(t->name, SUMS, &stem))
			rc = gguf_entry(m, names, &f, t, stem, e);
		else if (!ends_with(t->name, COUNTS, &stem))
			rc = err_set(e, ERR_INPUT, "tensor '%.200s' does not belong in an importance matrix", t->name);
	}
	map_release(&f.tensors);
	gguf_release(&f.g);
	if (!rc && !m->count)
		rc = err_set(e, ERR_INPUT, "the importance matrix has no entries");
	return rc;
}

static int dat_entry(struct imatrix *m, struct map *names, struct cursor *c, uint32_t number, struct err *e)
{
	int32_t len = (int32_t)cursor_u32(c);
	const uint8_t *name = len > 0 ? cursor_take(c, (uint64_t)len) : NULL;
	if (!name || !good_name((const char *)name, (size_t)len))
		return err_set(e, ERR_INPUT, "entry %u has no valid name (truncated?)", number);
	struct imatrix_entry x = { .mats = 1, .name = arena_strndup(&m->arena, (const char *)name, (size_t)len) };
	int32_t calls = (int32_t)cursor_u32(c), values = (int32_t)cursor_u32(c);
	const uint8_t *data = values > 0 ? cursor_take(c, (uint64_t)values * 4) : NULL;
	if (!x.name)
		return err_nomem(e);
	if (!data)
		return err_set(e, ERR_INPUT, "entry '%.200s': %d values do not fit in the file (truncated?)", x.name, values);
	x.n = (size_t)values;
	x.sum_squares = copy_values(m, data, x.n);
	x.counts = arena_array(&m->arena, 1, sizeof *x.counts);
	if (!x.sum_squares || !x.counts)
		return err_nomem(e);
	x.counts[0] = calls > 0 ? (float)calls : 1;
	return add_entry(m, names, &x, e);
}

static int parse_dat(struct imatrix *m, struct map *names, const uint8_t *data, size_t size, struct err *e)
{
	enum { SMALLEST_ENTRY = 4 + 1 + 4 + 4 + 4 };
	struct cursor c = { .at = data, .end = data + size };
	int32_t count = (int32_t)cursor_u32(&c);
	if (c.bad || count < 1 || (size_t)count > size / SMALLEST_ENTRY)
		return err_set(e, ERR_INPUT, "neither statistics nor an importance matrix");
	m->entries = arena_array(&m->arena, (size_t)count, sizeof *m->entries);
	if (!m->entries)
		return err_nomem(e);
	for (int32_t i = 0; i < count; i++) {
		int rc = dat_entry(m, names, &c, (uint32_t)i, e);
		if (rc)
			return rc;
	}
	if (c.at == c.end)
		return ERR_OK;
	int32_t chunks = (int32_t)cursor_u32(&c), len = (int32_t)cursor_u32(&c);
	const uint8_t *name = len >= 0 ? cursor_take(&c, (uint64_t)len) : NULL;
	if (!name || chunks < 0 || c.at != c.end)
		return err_set(e, ERR_INPUT, "the bytes after the last entry are not the name of a text");
	m->chunk_count = (uint32_t)chunks;
	m->datasets = arena_array(&m->arena, 1, sizeof *m->datasets);
	if (!m->datasets || !(m->datasets[0] = arena_strndup(&m->arena, (const char *)name, (size_t)len)))
		return err_nomem(e);
	m->dataset_count = 1;
	return ERR_OK;
}

int imatrix_parse(struct imatrix *m, const void *data, size_t size, struct err *e)
{
	struct map names = { 0 };
	*m = (struct imatrix){ 0 };
	bool gguf = size >= 4 && !memcmp(data, "GGUF", 4);
	int rc = (gguf ? parse_gguf : parse_dat)(m, &names, data, size, e);
	map_release(&names);
	if (rc)
		imatrix_release(m);
	return rc;
}

void imatrix_release(struct imatrix *m)
{
	arena_release(&m->arena);
	*m = (struct imatrix){ 0 };
}

static int by_name(const void *a, const void *b)
{
	const struct imatrix_entry *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

static const struct imatrix_entry **sorted(const struct imatrix *m, struct err *e)
{
	const struct imatrix_entry **p = malloc((m->count + 1) * sizeof *p);
	if (!p) {
		err_nomem(e);
		return NULL;
	}
	for (size_t i = 0; i < m->count; i++)
		p[i] = &m->entries[i];
	qsort(p, m->count, sizeof *p, by_name);
	return p;
}

static int add_tensor(struct gguf_writer *w, const struct imatrix_entry *x, const char *suffix, uint64_t cols, uint64_t *at,
		      struct err *e)
{
	char name[256];
	size_t n = strlen(x->name), k = strlen(suffix);
	if (n + k > GGUF_MAX_NAME)
		return err_set(e, ERR_UNSUPPORTED, "entry '%.200s': the name is too long for GGUF", x->name);
	memcpy(name, x->name, n);
	memcpy(name + n, suffix, k + 1);
	const struct tensor t = { .name = name, .codec = codec_find("f32"), .ndim = 2, .dim = { x->mats, cols } };
	return gguf_add_tensor(w, &t, at, e);
}

static void put_floats(struct strbuf *out, size_t start, uint64_t at, const float *v, size_t n)
{
	while (out->len - start < at && !out->failed)
		strbuf_putc(out, 0);
	for (size_t i = 0; i < n; i++) {
		uint8_t b[4];
		uint32_t u;
		memcpy(&u, &v[i], sizeof u);
		store_u32(b, u);
		strbuf_add(out, b, sizeof b);
	}
}

int imatrix_print_gguf(const struct imatrix *m, struct strbuf *out, struct err *e)
{
	struct gguf_writer w = { 0 };
	const struct imatrix_entry **order = sorted(m, e);
	uint64_t *at = malloc((m->count + 1) * 2 * sizeof *at);
	int rc = !order ? e->code : at ? ERR_OK : err_nomem(e);
	gguf_put_string(&w, "general.type", "imatrix", 7);
	gguf_begin_strings(&w, "imatrix.datasets");
	for (size_t i = 0; i < m->dataset_count; i++)
		gguf_array_string(&w, m->datasets[i], strlen(m->datasets[i]));
	gguf_end_strings(&w);
	gguf_put_u32(&w, "imatrix.chunk_count", m->chunk_count);
	gguf_put_u32(&w, "imatrix.chunk_size", m->chunk_size);
	for (size_t i = 0; i < m->count && !rc; i++) {
		rc = add_tensor(&w, order[i], SUMS, order[i]->n, &at[2 * i], e);
		if (!rc)
			rc = add_tensor(&w, order[i], COUNTS, 1, &at[2 * i + 1], e);
	}
	if (!rc)
		rc = gguf_header(&w, out, e);
	size_t start = out->len;
	for (size_t i = 0; i < m->count && !rc; i++) {
		put_floats(out, start, at[2 * i], order[i]->sum_squares, order[i]->n * order[i]->mats);
		put_floats(out, start, at[2 * i + 1], order[i]->counts, order[i]->mats);
	}
	if (!rc)
		put_floats(out, start, w.data_bytes, NULL, 0);
	if (!rc && out->failed)
		rc = err_nomem(e);
	gguf_writer_release(&w);
	free(order);
	free(at);
	return rc;
}

static void put_i32(struct strbuf *out, uint64_t v)
{
	uint8_t b[4];
	store_u32(b, (uint32_t)v);
	strbuf_add(out, b, sizeof b);
}

static void put_dat_entry(struct strbuf *out, const struct imatrix_entry *x, uint32_t calls)
{
	put_i32(out, strlen(x->name));
	strbuf_puts(out, x->name);
	put_i32(out, calls);
	put_i32(out, x->n * x->mats);
	for (size_t k = 0; k < x->mats; k++)
		for (size_t i = 0; i < x->n; i++) {
			/* a count of 0 has no mean; 1 everywhere is what readers use then */
			float mean = x->counts[k] > 0 ? x->sum_squares[k * x->n + i] / x->counts[k] : 1;
			mean *= (float)calls;
			put_floats(out, out->len, 0, &mean, 1);
		}
}

int imatrix_print_dat(const struct imatrix *m, struct strbuf *out, struct err *e)
{
	const struct imatrix_entry **order = sorted(m, e);
	if (!order)
		return e->code;
	put_i32(out, m->count);
	for (size_t i = 0; i < m->count && m->chunk_size; i++) {
		float most = 0;
		for (size_t k = 0; k < order[i]->mats; k++)
			most = order[i]->counts[k] > most ? order[i]->counts[k] : most;
		put_dat_entry(out, order[i], (uint32_t)ceilf(most / (float)m->chunk_size));
	}
	const char *text = m->dataset_count ? m->datasets[0] : "";
	put_i32(out, m->chunk_count);
	put_i32(out, strlen(text));
	strbuf_puts(out, text);
	free(order);
	if (!m->chunk_size)
		return err_set(e, ERR_BUG, "the older form needs the size of a chunk");
	return out->failed ? err_nomem(e) : ERR_OK;
}
