/* Adding up importance matrices of llama.cpp: sums of squares and counts per entry, as its own tool does. */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "calib/stats/stats.h"
#include "formats/file.h"
#include "formats/imatrix.h"

enum { MOST = 1 << 16 };

struct total {
	struct imatrix sum;     /* entries are sorted in as they come; all memory is in its arena */
	struct map names;
	size_t room;
	bool calls;             /* the older form: counts are calls, of a size that it does not say */
};

static int add_entry(struct total *t, const struct imatrix_entry *x, struct err *e)
{
	uint64_t at;
	size_t n = x->n * x->mats;
	if (!map_get(&t->names, x->name, strlen(x->name), &at)) {
		if (t->sum.count == t->room)
			return err_set(e, ERR_UNSUPPORTED, "more than %d entries", (int)MOST);
		struct imatrix_entry *to = &t->sum.entries[t->sum.count];
		*to = (struct imatrix_entry){ .name = arena_strdup(&t->sum.arena, x->name), .n = x->n, .mats = x->mats };
		to->sum_squares = arena_array(&t->sum.arena, n, sizeof *to->sum_squares);
		to->counts = arena_array(&t->sum.arena, x->mats, sizeof *to->counts);
		if (!to->name || !to->sum_squares || !to->counts || map_add(&t->names, to->name, strlen(to->name), t->sum.count) < 0)
			return err_nomem(e);
		memset(to->sum_squares, 0, n * sizeof *to->sum_squares);
		memset(to->counts, 0, x->mats * sizeof *to->counts);
		at = t->sum.count++;
	}
	struct imatrix_entry *to = &t->sum.entries[at];
	if (to->n != x->n || to->mats != x->mats)
		return err_set(e, ERR_NOT_COMPARABLE, "'%.200s' has %zu values for %zu matrices, not %zu for %zu", x->name, x->n, x->mats,
			       to->n, to->mats);
	for (size_t i = 0; i < n; i++)
		to->sum_squares[i] += x->sum_squares[i];
	for (size_t i = 0; i < x->mats; i++)
		to->counts[i] += x->counts[i];
	return ERR_OK;
}

static int add_names(struct total *t, const struct imatrix *m, struct err *e)
{
	const char **all = arena_array(&t->sum.arena, t->sum.dataset_count + m->dataset_count + 1, sizeof *all);
	if (!all)
		return err_nomem(e);
	for (size_t i = 0; i < t->sum.dataset_count; i++)
		all[i] = t->sum.datasets[i];
	for (size_t i = 0; i < m->dataset_count; i++)
		if (!(all[t->sum.dataset_count + i] = arena_strdup(&t->sum.arena, m->datasets[i])))
			return err_nomem(e);
	t->sum.datasets = all;
	t->sum.dataset_count += m->dataset_count;
	return ERR_OK;
}

static int add_file(struct total *t, const char *path, bool first, struct err *e)
{
	struct mapped map;
	struct imatrix m;
	int rc = mapped_open(&map, path, e);
	if (rc)
		return rc;
	if (map.size > 8 && map.data[8] == '{' && memcmp(map.data, "GGUF", 4))
		rc = err_set(e, ERR_NOT_COMPARABLE, "statistics of quire and importance matrices of llama.cpp do not add up; write the "
			     "importance matrix of the statistics first (--from)");
	else
		rc = imatrix_parse(&m, map.data, map.size, e);
	if (!rc) {
		bool calls = !m.chunk_size;
		if (first)
			t->calls = calls;
		else if (calls != t->calls)
			rc = err_set(e, ERR_NOT_COMPARABLE, "%s", calls ? "the older form counts chunks of a size it does not say, the others tokens: "
				     "they cannot be weighed" : "counts tokens, the older form before it chunks of a size it does not say: they cannot be weighed");
		t->sum.chunk_count += m.chunk_count;
		t->sum.chunk_size = m.chunk_size > t->sum.chunk_size ? m.chunk_size : t->sum.chunk_size;
		for (size_t i = 0; i < m.count && !rc; i++)
			rc = add_entry(t, &m.entries[i], e);
		if (!rc)
			rc = add_names(t, &m, e);
		imatrix_release(&m);
	}
	mapped_close(&map);
	return rc ? err_prefix(e, "%s", path) : ERR_OK;
}

int imatrix_merge(const char *const *paths, size_t count, const char *out, struct err *e)
{
	struct total t = { .room = MOST };
	struct strbuf text = { 0 };
	size_t n = strlen(out);
	t.sum.entries = arena_array(&t.sum.arena, MOST, sizeof *t.sum.entries);
	int rc = t.sum.entries ? ERR_OK : err_nomem(e);
	for (size_t i = 0; i < count && !rc; i++)
		rc = add_file(&t, paths[i], !i, e);
	/* one call per token, when nothing is known of chunks */
	bool older = n > 4 && !strcmp(out + n - 4, ".dat");
	if (older && !t.sum.chunk_size)
		t.sum.chunk_size = 1;
	if (!rc)
		rc = (older ? imatrix_print_dat : imatrix_print_gguf)(&t.sum, &text, e);
	if (!rc)
		rc = file_write(out, text.data, text.len, e);
	strbuf_release(&text);
	map_release(&t.names);
	imatrix_release(&t.sum);
	return rc;
}
