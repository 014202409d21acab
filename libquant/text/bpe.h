#ifndef QUIRE_TEXT_BPE_H
#define QUIRE_TEXT_BPE_H
/* Byte pair encoding, private to the tokenizer: the model (bpe_model.c), and words to ids (tokenizer_bpe.c). */
#include "base/json.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define NO_TOKEN (-1)

struct pair_slot {
	uint64_t pair; /* left << 32 | right */
	uint32_t rank;
	int32_t id;    /* -1: empty */
};
struct pairs {
	struct pair_slot *slot;
	size_t count, cap;
};
/* Makes room for so many. */
int pairs_reserve(struct pairs *p, size_t count);
int pairs_set(struct pairs *p, uint32_t left, uint32_t right, uint32_t rank, int32_t id);

static inline uint64_t pair_hash(uint64_t pair)
{
	pair *= 0x9e3779b97f4a7c15ull;
	return pair ^ pair >> 29;
}

static inline struct pair_slot *pair_slot(const struct pairs *p, uint64_t pair)
{
	size_t i = pair_hash(pair) & (p->cap - 1);
	while (p->slot[i].id >= 0 && p->slot[i].pair != pair)
		i = (i + 1) & (p->cap - 1);
	return &p->slot[i];
}

static inline const struct pair_slot *pairs_get(const struct pairs *p, uint32_t left, uint32_t right)
{
	if (!p->count)
		return NULL;
	const struct pair_slot *s = pair_slot(p, (uint64_t)left << 32 | right);
	return s->id >= 0 ? s : NULL;
}

struct merge {
	int32_t left, right, id;
};

struct bpe {
	struct map vocab;        /* text -> id */
	struct pairs pairs;      /* what merges, into what */
	struct pairs joins;      /* first symbols that a merge may bring together: what is not here separates segments */
	struct merge *merges;
	size_t merge_count;
	int32_t *chars[256];     /* ids of single characters below U+10000, by the high byte; NULL: none of those 256 */
	int32_t bytes[256];      /* id of <0xNN> */
	int32_t unk;             /* or NO_TOKEN */
	const char *unk_text;    /* an unk_token that the vocabulary lacks */
	const char *prefix, *suffix;
	size_t prefix_len, suffix_len;
	bool fuse_unk, byte_fallback, ignore_merges;
	int32_t unused_from;     /* ids from here on are no tokens (tokenizer.model) */
	bool whole;              /* words must not be cut into segments */
};

static inline int32_t bpe_token_id(const struct bpe *b, const char *s, size_t n)
{
	uint64_t id;
	return map_get(&b->vocab, s, n, &id) ? (int32_t)id : NO_TOKEN;
}

/* Of one character. */
static inline int32_t bpe_char_id(const struct bpe *b, const char *s, size_t n)
{
	uint32_t c = utf8_code(s);
	if (c >= 0x10000)
		return bpe_token_id(b, s, n);
	const int32_t *page = b->chars[c >> 8];
	return page ? page[c & 255] : NO_TOKEN;
}

struct piece {
	const char *text;
	size_t len;
	float score;
	const char *shown; /* what decoding starts from when that is not the text: the normalized form of an added token */
	size_t shown_len;
	unsigned char type; /* enum token_type; 0: no such id */
	bool special;
};

struct bpe_work; /* scratch and cache of one encoding */
struct bpe_work *bpe_work_new(const struct bpe *b, struct err *e);
void bpe_work_free(struct bpe_work *w);
/* Appends the ids of one word. The text must stay until the work is freed. */
int bpe_word(struct bpe_work *w, const char *s, size_t n, struct token_ids *out, struct err *e);
void bpe_init(struct bpe *b);
int bpe_parse(const struct json *model, struct tokenizer *t, struct err *e);
/* Adds a text to vocab, and to chars or bytes where it belongs there; as map_add. */
int bpe_add(struct bpe *b, const char *s, size_t n, int32_t id);
/* Fills joins from vocab and pairs. */
int bpe_finish(struct bpe *b, const struct piece *pieces, struct err *e);
void bpe_release(struct bpe *b);

#endif
