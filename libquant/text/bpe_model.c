/* A BPE model as it is read: the vocabulary, what merges with what, and where a word may be cut. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

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

static int one_merge(struct tokenizer *t, const char *a, size_t a_len, const char *b, struct strbuf *joined, struct err *e)
{
	struct bpe *m = &t->bpe;
	size_t b_len = strlen(b);
	int32_t left = bpe_token_id(m, a, a_len), right = bpe_token_id(m, b, b_len);
	if (left < 0 || right < 0)
		return err_set(e, ERR_INPUT, "merge %zu names a token that the vocabulary lacks: \"%.100s\"", m->merge_count, left < 0 ? a : b);
	if (b_len < m->prefix_len)
		return err_set(e, ERR_INPUT, "merge %zu: \"%.100s\" is shorter than the subword prefix", m->merge_count, b);
	strbuf_clear(joined);
	strbuf_add(joined, a, a_len);
	strbuf_add(joined, b + m->prefix_len, b_len - m->prefix_len);
	if (joined->failed)
		return err_nomem(e);
	int32_t id = bpe_token_id(m, joined->data, joined->len);
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
		if (bpe_token_id(b, text, (size_t)(space - text)) >= 0 && bpe_token_id(b, space + 1, strlen(space + 1)) >= 0)
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
	if (unk && (b->unk = bpe_token_id(b, unk, unk_len)) < 0)
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
	int32_t c = bpe_char_id(b, s + at, last ? n - at : utf8_length(s[0]));
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
