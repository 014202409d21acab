/*
 * SentencePiece BPE models (tokenizer.model): the protobuf of
 * sentencepiece_model.proto, its normalizer and its decoder. Scores become
 * ranks of pairs, so that the merging itself is that of the BPE model.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

#define SPACE      "\xe2\x96\x81" /* U+2581 */
#define SPACE_LEN  3
#define MAX_PIECE  1024           /* bytes; all ways to cut a piece are looked up */

/* ---- protobuf ---- */

struct field {
	uint32_t number;
	uint64_t value;      /* varint or fixed */
	const char *data;    /* length-delimited */
	size_t len;
};

static uint64_t varint(struct cursor *c)
{
	uint64_t v = 0;
	for (int shift = 0; shift < 64; shift += 7) {
		uint8_t b = cursor_u8(c);
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

/* The next field; false at the end or when the bytes are bad. */
static bool next_field(struct cursor *c, struct field *f)
{
	if (c->bad || c->at == c->end)
		return false;
	uint64_t key = varint(c);
	*f = (struct field){ .number = (uint32_t)(key >> 3) };
	switch (key & 7) {
	case 0: f->value = varint(c); break;
	case 1: f->value = cursor_u64(c); break;
	case 2:
		f->value = varint(c);
		f->data = (const char *)cursor_take(c, f->value);
		f->len = f->value;
		break;
	case 5: f->value = cursor_u32(c); break;
	default: c->bad = true;
	}
	return !c->bad;
}

static struct cursor cursor_over(const void *data, size_t len)
{
	const uint8_t *p = data;
	return (struct cursor){ p, p + len, false };
}

struct spm {
	struct charsmap *charsmap;
	bool dummy_prefix, remove_extra, escape, suffix, byte_fallback;
	bool legacy;         /* text after an added token gets the dummy prefix too */
	int64_t model_type, unk;
	const char *bos, *eos;
};

static float as_float(uint64_t bits)
{
	uint32_t b = (uint32_t)bits;
	float f;
	memcpy(&f, &b, sizeof f);
	return f;
}

struct spm_piece {
	const char *text;
	size_t len;
	float score;
	uint64_t type;
};

static bool read_piece(const struct field *f, struct spm_piece *p)
{
	struct cursor c = cursor_over(f->data, f->len);
	struct field g;
	*p = (struct spm_piece){ .text = "", .type = TOKEN_NORMAL };
	while (next_field(&c, &g)) {
		if (g.number == 1 && g.data) {
			p->text = g.data;
			p->len = g.len;
		} else if (g.number == 2) {
			p->score = as_float(g.value);
		} else if (g.number == 3) {
			p->type = g.value;
		}
	}
	return !c.bad;
}

static int read_normalizer(struct spm *s, const struct field *f, struct err *e)
{
	struct cursor c = cursor_over(f->data, f->len);
	struct field g;
	while (next_field(&c, &g)) {
		if (g.number == 2 && g.len && !s->charsmap) {
			int rc = charsmap_open(g.data, g.len, &s->charsmap, e);
			if (rc)
				return rc;
		}
		if (g.number == 3)
			s->dummy_prefix = g.value;
		if (g.number == 4)
			s->remove_extra = g.value;
		if (g.number == 5)
			s->escape = g.value;
	}
	return c.bad ? err_set(e, ERR_INPUT, "tokenizer.model: the normalizer is truncated") : ERR_OK;
}

static int read_trainer(struct tokenizer *t, const struct field *f, struct err *e)
{
	struct spm *s = t->spm;
	struct cursor c = cursor_over(f->data, f->len);
	struct field g;
	while (next_field(&c, &g)) {
		if (g.number == 3)
			s->model_type = (int64_t)g.value;
		if (g.number == 24)
			s->suffix = g.value;
		if (g.number == 35)
			s->byte_fallback = g.value;
		if (g.number == 40)
			s->unk = (int64_t)g.value;
		const char **name = g.number == 46 ? &s->bos : g.number == 47 ? &s->eos : NULL;
		if (name && g.data && !(*name = arena_strndup(&t->arena, g.data, g.len)))
			return err_nomem(e);
	}
	return c.bad ? err_set(e, ERR_INPUT, "tokenizer.model: the trainer's part is truncated") : ERR_OK;
}

static int add_piece(struct tokenizer *t, const struct spm_piece *p, struct err *e)
{
	int32_t id = (int32_t)t->size;
	if (!p->len || p->len > MAX_PIECE || memchr(p->text, 0, p->len) || !utf8_valid(p->text, p->len))
		return err_set(e, ERR_INPUT, "tokenizer.model: piece %d is empty, too long or not UTF-8", id);
	if (!isfinite(p->score) || p->type < TOKEN_NORMAL || p->type > TOKEN_BYTE)
		return err_set(e, ERR_INPUT, "tokenizer.model: piece %d has no valid score and type", id);
	char *text = arena_strndup(&t->arena, p->text, p->len);
	int rc = text ? tokenizer_put(t, id, text, p->len, e) : err_nomem(e);
	if (rc)
		return rc;
	t->pieces[id].score = p->score;
	t->pieces[id].type = (unsigned char)p->type;
	t->pieces[id].special = p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN;
	int fresh = bpe_add(&t->bpe, text, p->len, id);
	if (fresh <= 0)
		return fresh ? err_nomem(e) : err_set(e, ERR_INPUT, "tokenizer.model has \"%.100s\" twice", text);
	if (p->type == TOKEN_UNKNOWN && t->bpe.unk < 0)
		t->bpe.unk = id;
	return ERR_OK;
}

static int read_model(const void *data, size_t len, struct tokenizer *t, struct err *e)
{
	struct cursor c = cursor_over(data, len);
	struct field f;
	struct spm_piece p;
	int rc = ERR_OK;
	while (!rc && next_field(&c, &f)) {
		if (f.number == 1 && f.data)
			rc = read_piece(&f, &p) ? add_piece(t, &p, e) : err_set(e, ERR_INPUT, "tokenizer.model: piece %zu is truncated", t->size);
		else if (f.number == 2 && f.data)
			rc = read_trainer(t, &f, e);
		else if (f.number == 3 && f.data)
			rc = read_normalizer(t->spm, &f, e);
	}
	if (!rc && c.bad)
		rc = err_set(e, ERR_INPUT, "tokenizer.model is truncated or not a SentencePiece model");
	if (!rc && !t->size)
		rc = err_set(e, ERR_INPUT, "tokenizer.model has no pieces");
	return rc;
}

/* ---- from scores to pairs ---- */

static bool merges(const struct tokenizer *t, size_t id)
{
	unsigned char type = t->pieces[id].type;
	return type == TOKEN_NORMAL || type == TOKEN_USER || type == TOKEN_UNUSED;
}

/* Characters that only occur inside pieces merge too: they get ids past the vocabulary. */
static int add_characters(struct tokenizer *t, struct err *e)
{
	size_t size = t->size;
	int rc = ERR_OK;
	for (size_t id = 0; id < size && !rc; id++) {
		struct piece p = t->pieces[id];
		for (size_t i = 0, n; i < p.len && merges(t, id) && !rc; i += n) {
			n = utf8_length(p.text[i]);
			if (n == p.len)
				break;
			size_t next = t->size;
			int fresh = bpe_add(&t->bpe, p.text + i, n, (int32_t)next);
			if (fresh)
				rc = fresh < 0 ? err_nomem(e) : tokenizer_put(t, (int64_t)next, p.text + i, n, e);
		}
	}
	t->bpe.unused_from = (int32_t)size;
	return rc;
}

static bool part_id(const struct tokenizer *t, const char *s, size_t n, uint32_t *id)
{
	uint64_t v;
	if (!map_get(&t->bpe.vocab, s, n, &v))
		return false;
	*id = (uint32_t)v;
	return v >= (uint64_t)t->bpe.unused_from || merges(t, v);
}

struct rated {
	float score;
	int32_t id;
};

static int by_score(const void *a, const void *b)
{
	const struct rated *x = a, *y = b;
	return x->score > y->score ? -1 : x->score < y->score;
}

static int add_pairs(struct tokenizer *t, int32_t id, uint32_t rank, struct err *e)
{
	const struct piece *p = &t->pieces[id];
	for (size_t cut = utf8_length(p->text[0]); cut < p->len; cut += utf8_length(p->text[cut])) {
		uint32_t left, right;
		if (part_id(t, p->text, cut, &left) && part_id(t, p->text + cut, p->len - cut, &right) &&
		    pairs_set(&t->bpe.pairs, left, right, rank, id) < 0)
			return err_nomem(e);
	}
	return ERR_OK;
}

static int make_pairs(struct tokenizer *t, struct err *e)
{
	int rc = add_characters(t, e);
	size_t size = (size_t)t->bpe.unused_from;
	struct rated *order = rc ? NULL : calloc(size, sizeof *order);
	if (!order)
		return rc ? rc : err_nomem(e);
	for (size_t i = 0; i < size; i++)
		order[i] = (struct rated){ t->pieces[i].score, (int32_t)i };
	qsort(order, size, sizeof *order, by_score);
	uint32_t rank = 0;
	for (size_t i = 0; i < size && !rc; i++) {
		rank += i && order[i].score != order[i - 1].score; /* equal scores: the leftmost pair first */
		if (merges(t, (size_t)order[i].id))
			rc = add_pairs(t, order[i].id, rank, e);
	}
	free(order);
	if (!rc)
		rc = bpe_finish(&t->bpe, t->pieces, e);
	t->size = size;
	return rc;
}

static int check_model(const struct tokenizer *t, struct err *e)
{
	const struct spm *s = t->spm;
	if (s->model_type != 2)
		return err_set(e, ERR_UNSUPPORTED, "tokenizer.model: only BPE models are handled, this is %s", s->model_type == 1 ? "unigram" : "of another type");
	if (s->suffix)
		return err_set(e, ERR_UNSUPPORTED, "tokenizer.model: treat_whitespace_as_suffix is not handled");
	if (t->bpe.unk < 0)
		return err_set(e, ERR_INPUT, "tokenizer.model has no unknown piece");
	return ERR_OK;
}

int spm_open(const struct tokenizer_files *f, const struct json *config, struct tokenizer *t, struct err *e)
{
	struct spm *s = t->spm = calloc(1, sizeof *s);
	if (!s)
		return err_nomem(e);
	*s = (struct spm){ .dummy_prefix = true, .remove_extra = true, .escape = true, .model_type = 1, .bos = "<s>", .eos = "</s>" };
	t->kind = TOKENIZER_SPM;
	int rc = read_model(f->model, f->model_len, t, e);
	if (rc)
		return rc;
	/* one piece has the job, whatever types say; a file that lists several as unknown means its unused ids */
	if (s->unk >= 0 && (uint64_t)s->unk < t->size && (t->bpe.unk < 0 || t->pieces[s->unk].special))
		t->bpe.unk = (int32_t)s->unk;
	if ((rc = check_model(t, e)))
		return rc;
	t->bpe.fuse_unk = true;
	t->bpe.byte_fallback = s->byte_fallback;
	s->legacy = part_bool(config, "legacy", false);
	s->dummy_prefix = part_bool(config, "add_prefix_space", s->dummy_prefix);
	if ((rc = added_from_model(t, f, config, e)))
		return rc;
	t->bos = tokenizer_id(t, s->bos, strlen(s->bos));
	t->eos = tokenizer_id(t, s->eos, strlen(s->eos));
	return make_pairs(t, e);
}

int spm_scores(const void *data, size_t len, struct tokenizer *t)
{
	struct cursor c = cursor_over(data, len);
	struct field f;
	struct spm_piece p;
	for (size_t id = 0; next_field(&c, &f);) {
		if (f.number != 1 || !f.data)
			continue;
		if (!read_piece(&f, &p) || id >= t->size)
			break;
		struct piece *mine = &t->pieces[id++];
		if (mine->text && mine->len == p.len && memcmp(mine->text, p.text, p.len) == 0 && isfinite(p.score)) {
			mine->score = p.score;
			if (p.type >= TOKEN_NORMAL && p.type <= TOKEN_BYTE && mine->type == TOKEN_NORMAL)
				mine->type = (unsigned char)p.type;
		}
	}
	return ERR_OK;
}

void spm_close(struct spm *s)
{
	if (!s)
		return;
	charsmap_free(s->charsmap);
	free(s);
}

/* ---- encoding ---- */

/* What the front of the text becomes: by the longest rule, or itself. */
static size_t normal_prefix(const struct spm *s, const char *text, size_t n, const char **to, size_t *to_len)
{
	size_t len = 0;
	if (s->charsmap && (len = charsmap_longest(s->charsmap, text, n, to)) > 0) {
		*to_len = strlen(*to);
		return len;
	}
	*to = text;
	return *to_len = utf8_length(text[0]);
}

static void normalize(const struct spm *s, const char *text, size_t n, bool prefix, struct strbuf *out)
{
	const char *space = s->escape ? SPACE : " ", *to;
	size_t space_len = strlen(space), start = out->len, len, used;
	while (s->remove_extra && n) {
		used = normal_prefix(s, text, n, &to, &len);
		if (len != 1 || to[0] != ' ')
			break;
		text += used;
		n -= used;
	}
	if (!n)
		return;
	if (prefix && s->dummy_prefix)
		strbuf_add(out, space, space_len);
	for (bool after_space = s->remove_extra; n && !out->failed; text += used, n -= used) {
		used = normal_prefix(s, text, n, &to, &len);
		while (after_space && len && to[0] == ' ') {
			to++;
			len--;
		}
		for (size_t i = 0; i < len; i++) {
			if (to[i] == ' ')
				strbuf_add(out, space, space_len);
			else
				strbuf_putc(out, to[i]);
		}
		if (len)
			after_space = s->remove_extra && to[len - 1] == ' ';
	}
	while (s->remove_extra && !out->failed && out->len - start >= space_len && memcmp(out->data + out->len - space_len, space, space_len) == 0)
		out->len -= space_len;
}

/* Replaces characters outside the vocabulary by bytes or the unknown token, of which a run counts once. */
static int put_ids(const struct tokenizer *t, const int32_t *ids, size_t count, struct token_ids *out, struct err *e)
{
	const struct bpe *b = &t->bpe;
	bool unknown = false;
	int rc = ERR_OK;
	for (size_t i = 0; i < count && !rc; i++) {
		int32_t id = ids[i];
		if (id < b->unused_from && id != b->unk) {
			rc = token_ids_add(out, id, e);
			unknown = false;
			continue;
		}
		if (id != b->unk && b->byte_fallback) {
			const struct piece *p = &t->pieces[id];
			bool all = true;
			for (size_t k = 0; k < p->len; k++)
				all &= b->bytes[(unsigned char)p->text[k]] >= 0;
			for (size_t k = 0; k < p->len && all && !rc; k++)
				rc = token_ids_add(out, b->bytes[(unsigned char)p->text[k]], e);
			if (all) {
				unknown = false;
				continue;
			}
		}
		if (!unknown)
			rc = token_ids_add(out, b->unk, e);
		unknown = true;
	}
	return rc;
}

int spm_encode(const struct tokenizer *t, const char *text, size_t n, struct token_ids *out, struct err *e)
{
	struct splits parts = { .text.limit = growth_limit(n) };
	struct token_ids ids = { 0 };
	struct bpe_work *w = bpe_work_new(&t->bpe, e);
	int rc = !w || added_split(&t->added, &t->added.raw, text, (struct split){ 0, n, NO_TOKEN, true }, &parts) < 0 ? err_nomem(e) : ERR_OK;
	for (size_t i = 0; i < parts.count && !rc; i++) {
		struct split *one = &parts.at[i];
		size_t start = parts.text.len;
		if (one->id >= 0)
			continue;
		normalize(t->spm, text + one->start, one->len, one->first || t->spm->legacy, &parts.text);
		one->start = start;
		one->len = parts.text.len - start;
	}
	if (!rc && parts.text.failed)
		rc = parts.text.over ? growth_error("the normalizer", n, e) : err_nomem(e);
	for (size_t i = 0; i < parts.count && !rc; i++) {
		const struct split *one = &parts.at[i];
		size_t from = ids.count;
		if (one->id >= 0)
			rc = token_ids_add(out, one->id, e);
		else if (one->len && !(rc = bpe_word(w, parts.text.data + one->start, one->len, &ids, e)))
			rc = put_ids(t, ids.id + from, ids.count - from, out, e);
	}
	token_ids_release(&ids);
	splits_release(&parts);
	bpe_work_free(w);
	return rc;
}

/* ---- decoding ---- */

static int piece_byte(const struct tokenizer *t, int32_t id)
{
	if (t->pieces[id].type == TOKEN_BYTE)
		for (int b = 0; b < 256; b++)
			if (t->bpe.bytes[b] == id)
				return b;
	return -1;
}

/* Bytes that are no character each become U+FFFD. */
static void flush_bytes(struct strbuf *bytes, struct strbuf *out)
{
	for (size_t i = 0, n; i < bytes->len; i += n) {
		unsigned char c = (unsigned char)bytes->data[i];
		n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		if (n <= bytes->len - i && utf8_valid(bytes->data + i, n)) {
			strbuf_add(out, bytes->data + i, n);
		} else {
			strbuf_utf8(out, UNICODE_REPLACEMENT);
			n = 1;
		}
	}
	strbuf_clear(bytes);
}

static void put_text(const char *s, size_t n, struct strbuf *out)
{
	while (n) {
		if (n >= SPACE_LEN && memcmp(s, SPACE, SPACE_LEN) == 0) {
			strbuf_putc(out, ' ');
			s += SPACE_LEN;
			n -= SPACE_LEN;
		} else {
			strbuf_putc(out, *s++);
			n--;
		}
	}
}

int spm_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct strbuf *out, struct err *e)
{
	const struct spm *s = t->spm;
	struct strbuf bytes = { 0 };
	size_t start = out->len;
	bool space_seen = false;
	for (size_t i = 0; i < n; i++) {
		size_t len;
		const char *text = tokenizer_piece(t, ids[i], &len);
		int byte = text ? piece_byte(t, ids[i]) : -1;
		if (byte >= 0)
			strbuf_putc(&bytes, (char)byte);
		if (!text || byte >= 0)
			continue;
		flush_bytes(&bytes, out);
		bool begin = !space_seen && out->len == start;
		space_seen = false;
		if (t->pieces[ids[i]].type == TOKEN_UNKNOWN) {
			strbuf_puts(out, " \xe2\x81\x87 ");
			continue;
		}
		if (t->pieces[ids[i]].type == TOKEN_CONTROL) {
			if (!skip_special)
				strbuf_add(out, text, len);
			continue;
		}
		if (begin && (s->dummy_prefix || s->remove_extra) && len >= SPACE_LEN && memcmp(text, SPACE, SPACE_LEN) == 0) {
			text += SPACE_LEN;
			len -= SPACE_LEN;
			space_seen = !s->remove_extra;
		}
		put_text(text, len, out);
	}
	flush_bytes(&bytes, out);
	bool failed = bytes.failed || out->failed;
	strbuf_release(&bytes);
	return failed ? err_nomem(e) : ERR_OK;
}

bool spm_space_prefix(const struct tokenizer *t)
{
	return t->spm->dummy_prefix;
}

bool spm_legacy(const struct tokenizer *t)
{
	return t->spm->legacy;
}
