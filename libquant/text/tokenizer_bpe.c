/* Words to ids by the BPE model: merges by rank over a linked list of symbols, with a priority queue for long words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

#define CACHED_MAX 256 /* longest word that is remembered, in bytes */
#define SHORT_MAX  24  /* up to so many symbols the best merge is found by looking at all */

struct symbol {
	int32_t id;
	int32_t prev, next; /* -1: none */
	uint32_t len;       /* bytes of text; 0: merged into the one before */
};

struct candidate {
	uint64_t order; /* rank << 32 | position */
	int32_t id;
};

struct bpe_work {
	const struct bpe *bpe;
	struct map words, segments; /* text -> where its ids are in the output: first << 16 | count */
	struct symbol *symbol;
	size_t symbols, symbol_cap;
	struct candidate *heap;
	size_t heaped, heap_cap;
	struct strbuf scratch;
	bool plain; /* no unknown symbol in the word: symbols lie where their text lies */
};

struct bpe_work *bpe_work_new(const struct bpe *b, struct err *e)
{
	struct bpe_work *w = calloc(1, sizeof *w);
	if (!w)
		err_nomem(e);
	else
		w->bpe = b;
	return w;
}

void bpe_work_free(struct bpe_work *w)
{
	if (!w)
		return;
	map_release(&w->words);
	map_release(&w->segments);
	free(w->symbol);
	free(w->heap);
	strbuf_release(&w->scratch);
	free(w);
}

static int add_symbol(struct bpe_work *w, int32_t id, size_t len)
{
	if (w->symbols == w->symbol_cap) {
		size_t cap = w->symbol_cap ? w->symbol_cap * 2 : 256;
		struct symbol *p = realloc(w->symbol, cap * sizeof *p);
		if (!p)
			return -1;
		w->symbol = p;
		w->symbol_cap = cap;
	}
	w->symbol[w->symbols++] = (struct symbol){ .id = id, .len = (uint32_t)len };
	return 0;
}

static bool has_bytes(const struct bpe *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (b->bytes[(unsigned char)s[i]] < 0)
			return false;
	return true;
}

/* The symbol text of the character at s[at]: with the prefix inside a word, the suffix at its end. */
static int32_t decorated_id(struct bpe_work *w, const char *s, size_t n, size_t at, const char **text, size_t *text_len)
{
	const struct bpe *b = w->bpe;
	size_t len = utf8_length(s[at]);
	bool prefix = at > 0 && b->prefix_len, suffix = at + len == n && b->suffix_len;
	*text = s + at;
	*text_len = len;
	if (!prefix && !suffix)
		return bpe_char_id(b, s + at, len);
	strbuf_clear(&w->scratch);
	if (prefix)
		strbuf_add(&w->scratch, b->prefix, b->prefix_len);
	strbuf_add(&w->scratch, s + at, len);
	if (suffix)
		strbuf_add(&w->scratch, b->suffix, b->suffix_len);
	if (w->scratch.failed)
		return NO_TOKEN;
	*text = w->scratch.data;
	*text_len = w->scratch.len;
	return bpe_token_id(b, *text, *text_len);
}

/*
 * A pending unknown comes before the next known character, but after byte
 * symbols that follow it: the order Hugging Face's implementation has.
 */
static int first_symbols(struct bpe_work *w, const char *s, size_t n, struct err *e)
{
	const struct bpe *b = w->bpe;
	size_t unk = 0, len;
	int bad = 0;
	w->symbols = 0;
	w->plain = true;
	for (size_t i = 0; i < n; i += len) {
		const char *text;
		size_t text_len;
		len = utf8_length(s[i]);
		int32_t id = decorated_id(w, s, n, i, &text, &text_len);
		if (id >= 0) {
			if (unk)
				bad |= add_symbol(w, b->unk, unk);
			unk = 0;
			bad |= add_symbol(w, id, len);
		} else if (b->byte_fallback && has_bytes(b, text, text_len)) {
			for (size_t k = 0; k < text_len; k++)
				bad |= add_symbol(w, b->bytes[(unsigned char)text[k]], 1);
		} else {
			w->plain = false;
			if (b->unk_text)
				return err_set(e, ERR_INPUT, "the unknown token \"%.60s\" is not in the vocabulary", b->unk_text);
			if (b->unk < 0)
				continue;
			if (unk && !b->fuse_unk) {
				bad |= add_symbol(w, b->unk, unk);
				unk = 0;
			}
			unk += len;
		}
		if (bad || w->scratch.failed)
			return err_nomem(e);
	}
	if (unk)
		bad |= add_symbol(w, b->unk, unk);
	return bad ? err_nomem(e) : ERR_OK;
}

static void link_symbols(struct symbol *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		s[i].prev = (int32_t)i - 1;
		s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
	}
}

static void join(struct symbol *s, int32_t at, int32_t id)
{
	int32_t right = s[at].next;
	s[at].id = id;
	s[at].len += s[right].len;
	s[right].len = 0;
	s[at].next = s[right].next;
	if (s[at].next >= 0)
		s[s[at].next].prev = at;
}

static void merge_short(const struct bpe *b, struct symbol *s, size_t n)
{
	const struct pair_slot *pair[SHORT_MAX];
	for (size_t i = 0; i + 1 < n; i++)
		pair[i] = pairs_get(&b->pairs, (uint32_t)s[i].id, (uint32_t)s[i + 1].id);
	for (;;) {
		int32_t best = -1;
		for (int32_t i = 0; s[i].next >= 0; i = s[i].next)
			if (pair[i] && (best < 0 || pair[i]->rank < pair[best]->rank))
				best = i;
		if (best < 0)
			return;
		join(s, best, pair[best]->id);
		int32_t next = s[best].next, prev = s[best].prev;
		pair[best] = next >= 0 ? pairs_get(&b->pairs, (uint32_t)s[best].id, (uint32_t)s[next].id) : NULL;
		if (prev >= 0)
			pair[prev] = pairs_get(&b->pairs, (uint32_t)s[prev].id, (uint32_t)s[best].id);
	}
}

static int heap_push(struct bpe_work *w, struct candidate c)
{
	if (w->heaped == w->heap_cap) {
		size_t cap = w->heap_cap ? w->heap_cap * 2 : 1024;
		struct candidate *p = realloc(w->heap, cap * sizeof *p);
		if (!p)
			return -1;
		w->heap = p;
		w->heap_cap = cap;
	}
	size_t i = w->heaped++;
	for (; i > 0 && w->heap[(i - 1) / 4].order > c.order; i = (i - 1) / 4)
		w->heap[i] = w->heap[(i - 1) / 4];
	w->heap[i] = c;
	return 0;
}

static struct candidate heap_pop(struct bpe_work *w)
{
	struct candidate top = w->heap[0], last = w->heap[--w->heaped];
	size_t n = w->heaped, i = 0;
	for (;;) {
		size_t first = i * 4 + 1, least = first;
		if (first >= n)
			break;
		for (size_t k = first + 1; k < n && k < first + 4; k++)
			if (w->heap[k].order < w->heap[least].order)
				least = k;
		if (w->heap[least].order >= last.order)
			break;
		w->heap[i] = w->heap[least];
		i = least;
	}
	w->heap[i] = last;
	return top;
}

static int consider(struct bpe_work *w, const struct symbol *s, int32_t left, int32_t right)
{
	const struct pair_slot *p = pairs_get(&w->bpe->pairs, (uint32_t)s[left].id, (uint32_t)s[right].id);
	return p ? heap_push(w, (struct candidate){ (uint64_t)p->rank << 32 | (uint32_t)left, p->id }) : 0;
}

static int merge_long(struct bpe_work *w, struct symbol *s, size_t n)
{
	w->heaped = 0;
	for (size_t i = 0; i + 1 < n; i++)
		if (consider(w, s, (int32_t)i, (int32_t)i + 1) < 0)
			return -1;
	while (w->heaped) {
		struct candidate c = heap_pop(w);
		int32_t at = (int32_t)(uint32_t)c.order;
		if (!s[at].len || s[at].next < 0)
			continue;
		/* a merge nearby may have replaced the pair since it was queued */
		const struct pair_slot *p = pairs_get(&w->bpe->pairs, (uint32_t)s[at].id, (uint32_t)s[s[at].next].id);
		if (!p || p->id != c.id)
			continue;
		join(s, at, c.id);
		if ((s[at].prev >= 0 && consider(w, s, s[at].prev, at) < 0) || (s[at].next >= 0 && consider(w, s, at, s[at].next) < 0))
			return -1;
	}
	return 0;
}

static int ids_append(struct token_ids *out, size_t first, size_t count, struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		int rc = token_ids_add(out, out->id[first + i], e);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

static int recall(const struct map *m, const char *s, size_t n, struct token_ids *out, bool *found, struct err *e)
{
	uint64_t where;
	*found = n <= CACHED_MAX && map_get(m, s, n, &where);
	return *found ? ids_append(out, where >> 16, where & 0xffff, e) : ERR_OK;
}

static void remember(struct map *m, const char *s, size_t n, const struct token_ids *out, size_t first)
{
	/* not remembering, for want of memory, only costs time */
	if (n <= CACHED_MAX && out->count - first < 0x10000)
		(void)map_add(m, s, n, (uint64_t)first << 16 | (out->count - first));
}

static int merge_segment(struct bpe_work *w, struct symbol *s, size_t n, struct token_ids *out, struct err *e)
{
	link_symbols(s, n);
	if (n <= SHORT_MAX)
		merge_short(w->bpe, s, n);
	else if (merge_long(w, s, n) < 0)
		return err_nomem(e);
	int rc = ERR_OK;
	for (int32_t i = 0; i >= 0 && !rc; i = s[i].next)
		rc = token_ids_add(out, s[i].id, e);
	return rc;
}

/* No merge reaches across the ends of a segment, so that each can be merged alone, and once. */
static int merge_segments(struct bpe_work *w, const char *text, struct token_ids *out, struct err *e)
{
	const struct bpe *b = w->bpe;
	size_t from = 0, at = 0;
	int rc = ERR_OK;
	while (from < w->symbols && !rc) {
		size_t to = from, len = 0, first = out->count;
		do
			len += w->symbol[to++].len;
		while (to < w->symbols &&
		       (b->whole || pairs_get(&b->joins, (uint32_t)w->symbol[to - 1].id, (uint32_t)w->symbol[to].id)));
		bool found = false, keep = w->plain && !b->whole && to - from > 1;
		if (keep)
			rc = recall(&w->segments, text + at, len, out, &found, e);
		if (!rc && !found)
			rc = merge_segment(w, w->symbol + from, to - from, out, e);
		if (!rc && !found && keep)
			remember(&w->segments, text + at, len, out, first);
		from = to;
		at += len;
	}
	return rc;
}

int bpe_word(struct bpe_work *w, const char *s, size_t n, struct token_ids *out, struct err *e)
{
	if (n > INT32_MAX)
		return err_set(e, ERR_UNSUPPORTED, "a word of more than 2 GiB");
	bool found = false;
	size_t first = out->count;
	int rc = recall(&w->words, s, n, out, &found, e);
	if (rc || found || !n)
		return rc;
	int32_t whole = w->bpe->ignore_merges ? bpe_token_id(w->bpe, s, n) : NO_TOKEN;
	if (whole >= 0)
		rc = token_ids_add(out, whole, e);
	else if (!(rc = first_symbols(w, s, n, e)))
		rc = merge_segments(w, s, out, e);
	if (!rc)
		remember(&w->words, s, n, out, first);
	return rc;
}
