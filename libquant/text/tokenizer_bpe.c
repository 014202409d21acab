/* The BPE model: merges by rank over a linked list of symbols, with a priority queue for long words. */
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

static uint64_t pair_hash(uint64_t pair)
{
	pair *= 0x9e3779b97f4a7c15ull;
	return pair ^ pair >> 29;
}

static struct pair_slot *pair_slot(const struct pairs *p, uint64_t pair)
{
	size_t i = pair_hash(pair) & (p->cap - 1);
	while (p->slot[i].id >= 0 && p->slot[i].pair != pair)
		i = (i + 1) & (p->cap - 1);
	return &p->slot[i];
}

const struct pair_slot *pairs_get(const struct pairs *p, uint32_t left, uint32_t right)
{
	if (!p->count)
		return NULL;
	const struct pair_slot *s = pair_slot(p, (uint64_t)left << 32 | right);
	return s->id >= 0 ? s : NULL;
}

static int pairs_resize(struct pairs *p, size_t cap)
{
	struct pairs bigger = { .cap = cap, .count = p->count };
	bigger.slot = cap <= SIZE_MAX / sizeof *bigger.slot ? malloc(cap * sizeof *bigger.slot) : NULL;
	if (!bigger.slot)
		return -1;
	for (size_t i = 0; i < cap; i++)
		bigger.slot[i].id = -1;
	for (size_t i = 0; i < p->cap; i++)
		if (p->slot[i].id >= 0)
			*pair_slot(&bigger, p->slot[i].pair) = p->slot[i];
	free(p->slot);
	*p = bigger;
	return 0;
}

int pairs_reserve(struct pairs *p, size_t count)
{
	size_t cap = 32;
	while (cap / 2 <= count)
		cap *= 2;
	return cap > p->cap ? pairs_resize(p, cap) : 0;
}

int pairs_set(struct pairs *p, uint32_t left, uint32_t right, uint32_t rank, int32_t id)
{
	if (p->count * 2 >= p->cap && pairs_resize(p, p->cap ? p->cap * 2 : 32) < 0)
		return -1;
	uint64_t pair = (uint64_t)left << 32 | right;
	struct pair_slot *s = pair_slot(p, pair);
	p->count += s->id < 0;
	*s = (struct pair_slot){ pair, rank, id };
	return 0;
}

static int32_t vocab_id(const struct bpe *b, const char *s, size_t n)
{
	uint64_t id;
	return map_get(&b->vocab, s, n, &id) ? (int32_t)id : NO_TOKEN;
}

static int32_t char_id(const struct bpe *b, const char *s, size_t n)
{
	uint32_t c = utf8_code(s);
	if (c >= 0x10000)
		return vocab_id(b, s, n);
	const int32_t *page = b->chars[c >> 8];
	return page ? page[c & 255] : NO_TOKEN;
}

/* ---- opening ---- */

static int one_merge(struct tokenizer *t, const char *a, size_t a_len, const char *b, struct strbuf *joined, struct err *e)
{
	struct bpe *m = &t->bpe;
	size_t b_len = strlen(b);
	int32_t left = vocab_id(m, a, a_len), right = vocab_id(m, b, b_len);
	if (left < 0 || right < 0)
		return err_set(e, ERR_INPUT, "merge %zu names a token that the vocabulary lacks: \"%.100s\"", m->merge_count, left < 0 ? a : b);
	if (b_len < m->prefix_len)
		return err_set(e, ERR_INPUT, "merge %zu: \"%.100s\" is shorter than the subword prefix", m->merge_count, b);
	strbuf_clear(joined);
	strbuf_add(joined, a, a_len);
	strbuf_add(joined, b + m->prefix_len, b_len - m->prefix_len);
	if (joined->failed)
		return err_nomem(e);
	int32_t id = vocab_id(m, joined->data, joined->len);
	if (id < 0)
		return err_set(e, ERR_INPUT, "merge %zu makes \"%.100s\", which the vocabulary lacks", m->merge_count, joined->data);
	if (pairs_set(&m->pairs, (uint32_t)left, (uint32_t)right, (uint32_t)m->merge_count, id) < 0)
		return err_nomem(e);
	m->merges[m->merge_count++] = (struct merge){ left, right, id };
	return ERR_OK;
}

/* A merge whose parts hold spaces themselves: the cut at which both are in the vocabulary. */
static const char *merge_space(const struct bpe *b, const char *text)
{
	enum { MOST = 1000 }; /* bytes of a merge that is looked at again and again */
	const char *first = strchr(text, ' '), *space = first;
	if (!first || !strchr(first + 1, ' ') || strlen(text) > MOST)
		return first;
	for (; space; space = strchr(space + 1, ' '))
		if (vocab_id(b, text, (size_t)(space - text)) >= 0 && vocab_id(b, space + 1, strlen(space + 1)) >= 0)
			return space;
	return NULL;
}

/* "a b", or ["a", "b"] */
static int read_merge(struct tokenizer *t, const struct json *j, struct strbuf *joined, struct err *e)
{
	const char *a = json_string(j), *b;
	if (a) {
		if (strncmp(a, "#version", 8) == 0)
			return ERR_OK;
		const char *space = merge_space(&t->bpe, a);
		if (!space)
			return err_set(e, ERR_INPUT, "merge %zu is not two tokens: \"%.100s\"", t->bpe.merge_count, a);
		return one_merge(t, a, (size_t)(space - a), space + 1, joined, e);
	}
	a = json_string(json_first(j));
	b = json_string(json_next(json_first(j)));
	if (!a || !b || json_count(j) != 2)
		return err_set(e, ERR_INPUT, "merge %zu is not two tokens", t->bpe.merge_count);
	return one_merge(t, a, strlen(a), b, joined, e);
}

static int read_merges(struct tokenizer *t, const struct json *merges, struct err *e)
{
	size_t n = json_count(merges);
	if (json_kind(merges) != JSON_ARRAY)
		return err_set(e, ERR_INPUT, "model.merges is missing");
	t->bpe.merges = arena_array(&t->arena, n ? n : 1, sizeof *t->bpe.merges);
	if (!t->bpe.merges || pairs_reserve(&t->bpe.pairs, n) < 0)
		return err_nomem(e);
	struct strbuf joined = { 0 };
	int rc = ERR_OK;
	for (const struct json *j = json_first(merges); j && !rc; j = json_next(j))
		rc = read_merge(t, j, &joined, e);
	strbuf_release(&joined);
	return rc;
}

static int read_vocab(struct tokenizer *t, const struct json *vocab, struct err *e)
{
	if (json_kind(vocab) != JSON_OBJECT)
		return err_set(e, ERR_INPUT, "model.vocab is missing");
	for (const struct json *j = json_first(vocab); j; j = json_next(j)) {
		const char *text = json_key(j);
		size_t len = strlen(text);
		int64_t id;
		if (!json_int(j, &id))
			return err_set(e, ERR_INPUT, "the id of token \"%.100s\" is not an integer", text);
		int rc = tokenizer_put(t, id, text, len, e);
		if (rc)
			return rc;
		if (bpe_add(&t->bpe, text, len, (int32_t)id) < 0)
			return err_nomem(e);
	}
	return ERR_OK;
}

int bpe_parse(const struct json *model, struct tokenizer *t, struct err *e)
{
	struct bpe *b = &t->bpe;
	const char *type = json_string(json_get(model, "type")), *unk;
	double dropout;
	size_t unk_len;
	int rc;
	if (!type && json_kind(json_get(model, "merges")) != JSON_ARRAY)
		return err_set(e, ERR_INPUT, "the tokenizer has no model");
	if (type && strcmp(type, "BPE") != 0)
		return err_set(e, ERR_UNSUPPORTED, "tokenizer model %.60s is not handled", type);
	if (json_number(json_get(model, "dropout"), &dropout) && !(dropout >= 0 && dropout <= 1))
		return err_set(e, ERR_INPUT, "dropout is not between 0 and 1");
	if ((rc = part_string(model, "continuing_subword_prefix", &t->arena, &b->prefix, &b->prefix_len, e)) ||
	    (rc = part_string(model, "end_of_word_suffix", &t->arena, &b->suffix, &b->suffix_len, e)) ||
	    (rc = part_string(model, "unk_token", &t->arena, &unk, &unk_len, e)))
		return rc;
	if (b->prefix_len > MAX_AFFIX || b->suffix_len > MAX_AFFIX)
		return err_set(e, ERR_INPUT, "a subword prefix or suffix of more than %d bytes", (int)MAX_AFFIX);
	b->fuse_unk = part_bool(model, "fuse_unk", false);
	b->byte_fallback = part_bool(model, "byte_fallback", false);
	b->ignore_merges = part_bool(model, "ignore_merges", false);
	if ((rc = read_vocab(t, json_get(model, "vocab"), e)) || (rc = read_merges(t, json_get(model, "merges"), e)))
		return rc;
	if (unk && (b->unk = vocab_id(b, unk, unk_len)) < 0)
		b->unk_text = unk;
	return bpe_finish(b, t->pieces, e);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that <0xNN> at s stands for, or -1. */
static int byte_text(const char *s)
{
	int high = hex(s[3]), low = hex(s[4]);
	return memcmp(s, "<0x", 3) == 0 && s[5] == '>' && high >= 0 && low >= 0 ? high << 4 | low : -1;
}

int bpe_add(struct bpe *b, const char *s, size_t n, int32_t id)
{
	int fresh = map_add(&b->vocab, s, n, (uint64_t)id);
	if (fresh <= 0 || !n)
		return fresh;
	int byte = n == 6 ? byte_text(s) : -1;
	if (byte >= 0)
		b->bytes[byte] = id;
	uint32_t c = n == utf8_length(s[0]) ? utf8_code(s) : UINT32_MAX;
	if (c >= 0x10000)
		return fresh;
	int32_t **page = &b->chars[c >> 8];
	if (!*page) {
		*page = malloc(256 * sizeof **page);
		if (!*page)
			return -1;
		memset(*page, 0xff, 256 * sizeof **page);
	}
	(*page)[c & 255] = id;
	return fresh;
}

void bpe_init(struct bpe *b)
{
	b->unk = NO_TOKEN;
	memset(b->bytes, 0xff, sizeof b->bytes);
}

#define EDGES 3

static bool outer_is(const char *s, size_t n, bool last, const char *part, size_t len)
{
	return n >= len && memcmp(last ? s + n - len : s, part, len) == 0;
}

/*
 * The first symbols a token may end (last) or begin with: its outer character,
 * a byte, the unknown token. More than needed does no harm.
 */
static int edge_symbols(const struct bpe *b, const struct piece *pieces, int32_t self, bool last, int32_t out[EDGES])
{
	const char *s = pieces[self].text;
	size_t n = pieces[self].len;
	int count = 0;
	if (!n)
		return count;
	size_t at = last ? utf8_back(s, n) : 0;
	int32_t c = char_id(b, s + at, last ? n - at : utf8_length(s[0]));
	if (c >= 0)
		out[count++] = c;
	int byte = n >= 6 ? byte_text(last ? s + n - 6 : s) : -1;
	if (byte >= 0 && b->bytes[byte] >= 0)
		out[count++] = b->bytes[byte];
	if (b->unk >= 0 && outer_is(s, n, last, pieces[b->unk].text, pieces[b->unk].len))
		out[count++] = b->unk;
	return count;
}

static int find_joins(struct bpe *b, const struct piece *pieces, struct err *e)
{
	for (size_t i = 0; i < b->pairs.cap; i++) {
		const struct pair_slot *p = &b->pairs.slot[i];
		if (p->id < 0)
			continue;
		int32_t l[EDGES], r[EDGES];
		int ln = edge_symbols(b, pieces, (int32_t)(p->pair >> 32), true, l);
		int rn = edge_symbols(b, pieces, (int32_t)(uint32_t)p->pair, false, r);
		for (int x = 0; x < ln; x++)
			for (int y = 0; y < rn; y++)
				if (pairs_set(&b->joins, (uint32_t)l[x], (uint32_t)r[y], 0, 0) < 0)
					return err_nomem(e);
	}
	return ERR_OK;
}

int bpe_finish(struct bpe *b, const struct piece *pieces, struct err *e)
{
	b->whole = b->prefix_len || b->suffix_len;
	return b->whole ? ERR_OK : find_joins(b, pieces, e);
}

void bpe_release(struct bpe *b)
{
	map_release(&b->vocab);
	free(b->pairs.slot);
	free(b->joins.slot);
	for (int i = 0; i < 256; i++)
		if (b->chars[i]) /* nearly none is: to free nothing 256 times is most of a small file's time under a sanitizer */
			free(b->chars[i]);
}

/* ---- encoding ---- */

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
		return char_id(b, s + at, len);
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
	return vocab_id(b, *text, *text_len);
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
	int32_t whole = w->bpe->ignore_merges ? vocab_id(w->bpe, s, n) : NO_TOKEN;
	if (whole >= 0)
		rc = token_ids_add(out, whole, e);
	else if (!(rc = first_symbols(w, s, n, e)))
		rc = merge_segments(w, s, out, e);
	if (!rc)
		remember(&w->words, s, n, out, first);
	return rc;
}
