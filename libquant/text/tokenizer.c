#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

const char *const token_type_names[TOKEN_BYTE + 1] = { "undefined", "normal", "unknown", "control", "user_defined", "unused", "byte" };

bool token_looks_special(const char *s, size_t n)
{
	return n > 4 && s[0] == '<' && s[1] == '|' && s[n - 2] == '|' && s[n - 1] == '>';
}

int token_ids_add(struct token_ids *ids, int32_t id, struct err *e)
{
	if (ids->count == ids->cap) {
		size_t cap = ids->cap ? ids->cap * 2 : 256;
		int32_t *p = realloc(ids->id, cap * sizeof *p);
		if (!p)
			return err_nomem(e);
		ids->id = p;
		ids->cap = cap;
	}
	ids->id[ids->count++] = id;
	return ERR_OK;
}

void token_ids_release(struct token_ids *ids)
{
	free(ids->id);
	*ids = (struct token_ids){ 0 };
}

int tokenizer_put(struct tokenizer *t, int64_t id, const char *text, size_t len, struct err *e)
{
	enum { SPARSE = 1 << 20, GAP = 64 }; /* few tokens must not ask for room for many */
	if (id < 0 || id >= TOKENIZER_MAX_ID || (uint64_t)id > SPARSE + t->puts++ * GAP)
		return err_set(e, ERR_INPUT, "token \"%.100s\" has id %lld, which is out of range", text, (long long)id);
	if ((size_t)id >= t->cap) {
		size_t cap = t->cap ? t->cap : 1024;
		while (cap <= (size_t)id)
			cap *= 2;
		struct piece *p = realloc(t->pieces, cap * sizeof *p);
		if (!p)
			return err_nomem(e);
		memset(p + t->cap, 0, (cap - t->cap) * sizeof *p);
		t->pieces = p;
		t->cap = cap;
	}
	if ((size_t)id >= t->size)
		t->size = (size_t)id + 1;
	t->pieces[id].text = text;
	t->pieces[id].len = len;
	t->pieces[id].type = TOKEN_NORMAL;
	return ERR_OK;
}

/* ---- opening ---- */

static void rate_pieces(struct tokenizer *t)
{
	struct bpe *b = &t->bpe;
	t->kind = TOKENIZER_SPM;
	for (size_t i = 0; i < t->pre.count; i++)
		if (strcmp(t->pre.at[i].row->type, "ByteLevel") == 0)
			t->kind = TOKENIZER_BYTE_BPE;
	for (size_t i = 0; i < t->norm.count; i++)
		if (strcmp(t->norm.at[i].row->type, "ByteLevel") == 0)
			t->kind = TOKENIZER_BYTE_BPE;
	for (size_t i = b->merge_count; i-- > 0;)
		t->pieces[b->merges[i].id].score = -(float)i;
	for (int i = 0; i < 256 && b->byte_fallback; i++)
		if (b->bytes[i] >= 0)
			t->pieces[b->bytes[i]].type = TOKEN_BYTE;
	if (b->unk >= 0)
		t->pieces[b->unk].type = TOKEN_UNKNOWN;
}

static int open_json(const struct tokenizer_files *f, struct tokenizer *t, struct err *e)
{
	t->json = json_parse(f->json, f->json_len, e);
	if (!t->json)
		return err_prefix(e, "tokenizer.json");
	int rc;
	if ((rc = norm_parse(json_get(t->json, "normalizer"), &t->arena, &t->norm, e)) ||
	    (rc = pre_parse(json_get(t->json, "pre_tokenizer"), &t->arena, &t->pre, e)) ||
	    (rc = dec_parse(json_get(t->json, "decoder"), &t->arena, &t->dec, e)) ||
	    (rc = bpe_parse(json_get(t->json, "model"), t, e)) ||
	    (rc = added_from_json(t, json_get(t->json, "added_tokens"), e)) ||
	    (rc = post_parse(json_get(t->json, "post_processor"), t, e)))
		return rc;
	rate_pieces(t);
	return f->model ? spm_scores(f->model, f->model_len, t) : ERR_OK;
}

/* What a GGUF file said of tokens and these files cannot: lists of ids by type, scores as (count, score) pairs. */
static void read_listed(struct tokenizer *t, const struct json *config)
{
	const struct json *types = json_get(config, "gguf_token_types"), *scores = json_get(config, "gguf_scores");
	int64_t id, n;
	double score;
	size_t at = 0;
	t->listed = json_kind(types) == JSON_OBJECT;
	for (int type = TOKEN_NORMAL; type <= TOKEN_BYTE; type++)
		for (const struct json *j = json_first(json_get(types, token_type_names[type])); j; j = json_next(j))
			if (json_int(j, &id) && id >= 0 && (size_t)id < t->size && t->pieces[id].type)
				t->pieces[id].type = (unsigned char)type;
	for (const struct json *j = json_first(scores); j && json_next(j); j = json_next(json_next(j))) {
		if (!json_int(j, &n) || !json_number(json_next(j), &score) || n < 0)
			break;
		for (t->scored = true; n-- > 0 && at < t->size;)
			t->pieces[at++].score = (float)score;
	}
}

/* A token given as text or as {"content": text}. */
static int32_t config_token(const struct tokenizer *t, const struct json *config, const char *key)
{
	const struct json *j = json_get(config, key);
	const char *text = json_string(j);
	if (!text)
		text = json_string(json_get(j, "content"));
	return text ? tokenizer_id(t, text, strlen(text)) : -1;
}

static int read_config(const struct json *config, struct tokenizer *t, struct err *e)
{
	static const char *const ends[] = { "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>" };
	const struct json *ids = json_get(config, "gguf_token_ids"); /* by a GGUF file, also of tokens that no text may name */
	int32_t eos = config_token(t, config, "eos_token"), bos = config_token(t, config, "bos_token");
	int64_t id;
	if (json_int(json_get(ids, "bos"), &id) && id >= 0 && (size_t)id < t->size)
		bos = (int32_t)id;
	if (json_int(json_get(ids, "eos"), &id) && id >= 0 && (size_t)id < t->size)
		eos = (int32_t)id;
	if (eos >= 0)
		t->eos = eos;
	for (size_t i = 0; t->eos < 0 && i < sizeof ends / sizeof ends[0]; i++)
		t->eos = tokenizer_id(t, ends[i], strlen(ends[i]));
	if (t->spm) {
		if (bos < 0)
			bos = t->bos;
		t->head = arena_array(&t->arena, 1, sizeof *t->head);
		t->tail = arena_array(&t->arena, 1, sizeof *t->tail);
		if (!t->head || !t->tail)
			return err_nomem(e);
		t->head[0] = bos;
		t->tail[0] = t->eos;
		t->head_count = bos >= 0 && part_bool(config, "add_bos_token", true);
		t->tail_count = t->eos >= 0 && part_bool(config, "add_eos_token", false);
	}
	read_listed(t, config);
	return ERR_OK;
}

int tokenizer_open(const struct tokenizer_files *f, struct tokenizer **out, struct err *e)
{
	*out = NULL;
	struct tokenizer *t = calloc(1, sizeof *t);
	struct json *config = NULL;
	if (!t)
		return err_nomem(e);
	t->bos = t->eos = NO_TOKEN;
	bpe_init(&t->bpe);
	int rc = ERR_OK;
	if (f->config && !(config = json_parse(f->config, f->config_len, e)))
		rc = err_prefix(e, "tokenizer_config.json");
	else if (f->json)
		rc = open_json(f, t, e);
	else if (f->model)
		rc = spm_open(f, config, t, e);
	else
		rc = err_set(e, ERR_INPUT, "there is neither tokenizer.json nor tokenizer.model");
	if (!rc)
		rc = read_config(config, t, e);
	json_free(config);
	if (rc) {
		tokenizer_close(t);
		return rc;
	}
	*out = t;
	return ERR_OK;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	norm_release(&t->norm);
	pre_release(&t->pre);
	dec_release(&t->dec);
	trie_release(&t->added.raw);
	trie_release(&t->added.normal);
	bpe_release(&t->bpe);
	spm_close(t->spm);
	json_free(t->json);
	free(t->pieces);
	arena_release(&t->arena);
	free(t);
}

/* ---- encoding ---- */

/* Cuts out raw added tokens, normalizes the rest, cuts out normalized ones. */
static int extract_and_normalize(const struct tokenizer *t, const char *text, size_t len, struct splits *out, struct err *e)
{
	struct splits raw = { 0 };
	struct strbuf normal = { 0 };
	const struct split all = { 0, len, NO_TOKEN, true };
	int rc = added_split(&t->added, &t->added.raw, text, all, &raw) < 0 ? err_nomem(e) : ERR_OK;
	for (size_t i = 0; i < raw.count && !rc; i++) {
		const struct split *one = &raw.at[i];
		if (one->id >= 0) {
			splits_add(out, *one);
			continue;
		}
		bool stripped;
		strbuf_clear(&normal);
		if ((rc = norm_apply(&t->norm, text + one->start, one->len, &normal, &stripped, e)) || !normal.len)
			continue;
		const struct split now = { out->text.len, normal.len, NO_TOKEN, one->first && !stripped };
		strbuf_add(&out->text, normal.data, normal.len);
		if (added_split(&t->added, &t->added.normal, normal.data, now, out) < 0)
			rc = err_nomem(e);
	}
	strbuf_release(&normal);
	splits_release(&raw);
	return rc || (!out->failed && !out->text.failed) ? rc : err_nomem(e);
}

static int encode_valid(const struct tokenizer *t, const char *text, size_t len, struct token_ids *out, struct err *e)
{
	if (t->spm)
		return spm_encode(t, text, len, out, e);
	struct splits s = { 0 };
	struct bpe_work *w = bpe_work_new(&t->bpe, e);
	int rc = w ? extract_and_normalize(t, text, len, &s, e) : ERR_NOMEM;
	if (!rc)
		rc = pre_apply(&t->pre, &s, e);
	for (size_t i = 0; i < s.count && !rc; i++) {
		const struct split *one = &s.at[i];
		rc = one->id >= 0 ? token_ids_add(out, one->id, e) : bpe_word(w, s.text.data + one->start, one->len, out, e);
	}
	bpe_work_free(w);
	splits_release(&s);
	return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, struct token_ids *out, struct err *e)
{
	struct strbuf clean = { 0 };
	int rc = ERR_OK;
	if (!utf8_valid(text, len)) {
		unicode_sanitize(text, len, &clean);
		if (clean.failed)
			return err_nomem(e);
		text = clean.data;
		len = clean.len;
	}
	for (size_t i = 0; special && i < t->head_count && !rc; i++)
		rc = token_ids_add(out, t->head[i], e);
	if (!rc && len)
		rc = encode_valid(t, text, len, out, e);
	for (size_t i = 0; special && i < t->tail_count && !rc; i++)
		rc = token_ids_add(out, t->tail[i], e);
	strbuf_release(&clean);
	return rc;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct strbuf *out, struct err *e)
{
	if (t->spm)
		return spm_decode(t, ids, n, skip_special, out, e);
	struct pieces p = { 0 };
	for (size_t i = 0; i < n; i++) {
		size_t len;
		const char *text = tokenizer_piece(t, ids[i], &len);
		if (!text)
			continue;
		/* Hugging Face looks for the text it shows among the special tokens, so that a normalized one stays */
		const struct piece *shown = &t->pieces[ids[i]];
		if (skip_special && shown->special && !shown->shown)
			continue;
		if (shown->shown) {
			text = shown->shown;
			len = shown->shown_len;
		}
		strbuf_add(&p.text, text, len);
		pieces_close(&p);
	}
	int rc = p.failed || p.text.failed ? err_nomem(e) : dec_apply(&t->dec, &p, out, e);
	pieces_release(&p);
	return rc || !out->failed ? rc : err_nomem(e);
}

/* ---- what a vocabulary holds ---- */

size_t tokenizer_size(const struct tokenizer *t)
{
	return t->size;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
	const struct piece *p = id >= 0 && (size_t)id < t->size ? &t->pieces[id] : NULL;
	if (len)
		*len = p ? p->len : 0;
	return p ? p->text : NULL;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *piece, size_t len)
{
	uint64_t id;
	for (size_t i = 0; i < t->added.count; i++)
		if (t->added.at[i].len == len && memcmp(t->added.at[i].content, piece, len) == 0)
			return t->added.at[i].id;
	return map_get(&t->bpe.vocab, piece, len, &id) && id < t->size ? (int32_t)id : -1;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
	return t->head_count ? t->head[0] : -1;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
	return t->eos;
}

enum tokenizer_kind tokenizer_kind(const struct tokenizer *t)
{
	return t->kind;
}

enum token_type tokenizer_type(const struct tokenizer *t, int32_t id)
{
	const struct piece *p = id >= 0 && (size_t)id < t->size ? &t->pieces[id] : NULL;
	if (!p || !p->type)
		return TOKEN_UNUSED;
	return p->type == TOKEN_USER && !t->listed && token_looks_special(p->text, p->len) ? TOKEN_CONTROL : (enum token_type)p->type;
}

bool tokenizer_listed(const struct tokenizer *t)
{
	return t->listed;
}

bool tokenizer_scored(const struct tokenizer *t)
{
	return t->scored;
}

bool tokenizer_adds_eos(const struct tokenizer *t)
{
	return t->tail_count && t->eos >= 0 && t->tail[t->tail_count - 1] == t->eos;
}

float tokenizer_score(const struct tokenizer *t, int32_t id)
{
	return id >= 0 && (size_t)id < t->size ? t->pieces[id].score : 0;
}

size_t tokenizer_merges(const struct tokenizer *t)
{
	return t->bpe.merge_count;
}

void tokenizer_merge(const struct tokenizer *t, size_t i, const char **left, const char **right)
{
	const struct merge *m = &t->bpe.merges[i];
	*left = t->pieces[m->left].text;
	*right = t->pieces[m->right].text;
}

bool tokenizer_space_prefix(const struct tokenizer *t)
{
	if (t->spm)
		return spm_space_prefix(t);
	for (size_t i = 0; i < t->norm.count; i++)
		if (strcmp(t->norm.at[i].row->type, "Prepend") == 0)
			return true;
	for (size_t i = 0; i < t->pre.count; i++)
		if (t->pre.at[i].prepend || t->pre.at[i].prefix_space)
			return true;
	return false;
}

bool tokenizer_space_always(const struct tokenizer *t)
{
	if (t->spm)
		return spm_space_prefix(t) && spm_legacy(t);
	for (size_t i = 0; i < t->norm.count; i++)
		if (strcmp(t->norm.at[i].row->type, "Prepend") == 0)
			return true;
	for (size_t i = 0; i < t->pre.count; i++)
		if (t->pre.at[i].prepend == 2 || t->pre.at[i].prefix_space)
			return true;
	return false;
}
