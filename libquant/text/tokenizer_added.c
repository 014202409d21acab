/* Added tokens: which there are, by tokenizer.json or by a tokenizer.model and the files around it. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

#define ADDED_SCORE (-1000.0f) /* what converters to GGUF give added tokens */
#define MOST_GAP    (1 << 16)  /* ids that files around tokenizer.model may leave out before theirs */

static int read_added(struct tokenizer *t, const struct json *j, struct added_token *a, struct err *e)
{
	int rc = part_string(j, "content", &t->arena, &a->content, &a->len, e);
	if (rc || !a->content)
		return rc ? rc : err_set(e, ERR_INPUT, "an added token has no content");
	a->special = part_bool(j, "special", false);
	a->lstrip = part_bool(j, "lstrip", false);
	a->rstrip = part_bool(j, "rstrip", false);
	a->single_word = part_bool(j, "single_word", false);
	a->normalized = part_bool(j, "normalized", true);
	a->normal = a->content;
	a->normal_len = a->len;
	if (!a->normalized || !t->norm.count)
		return ERR_OK;
	struct strbuf s = { 0 };
	bool stripped;
	rc = norm_apply(&t->norm, a->content, a->len, &s, &stripped, e);
	if (!rc) {
		a->normal_len = s.len;
		a->normal = arena_strndup(&t->arena, s.data ? s.data : "", s.len);
		if (!a->normal)
			rc = err_nomem(e);
	}
	strbuf_release(&s);
	return rc;
}

/* A token's id is that of its text in the vocabulary, else the next free one; the file's own "id" is not used. */
static int added_id(struct tokenizer *t, struct map *seen, struct added_token *a, int64_t *next, struct err *e)
{
	uint64_t id;
	if (map_get(seen, a->content, a->len, &id) || map_get(&t->bpe.vocab, a->content, a->len, &id)) {
		a->id = (int32_t)id;
		if (map_set(seen, a->content, a->len, id) < 0)
			return err_nomem(e);
		return ERR_OK;
	}
	int rc = tokenizer_put(t, *next, a->content, a->len, e);
	if (rc)
		return rc;
	a->id = (int32_t)(*next)++;
	return map_set(seen, a->content, a->len, (uint64_t)a->id) < 0 ? err_nomem(e) : ERR_OK;
}

static int add_to_tries(struct tokenizer *t, struct err *e)
{
	/* when an id was given twice the later entry counts */
	struct map last = { 0 };
	struct added *a = &t->added;
	int rc = ERR_OK;
	for (size_t i = 0; i < a->count && !rc; i++)
		if (map_set(&last, (const char *)&a->at[i].id, sizeof a->at[i].id, i) < 0)
			rc = err_nomem(e);
	for (size_t i = 0; i < a->count && !rc; i++) {
		struct added_token *one = &a->at[i];
		uint64_t which = 0;
		map_get(&last, (const char *)&one->id, sizeof one->id, &which);
		if (which != i)
			continue;
		if (trie_add(one->normalized ? &a->normal : &a->raw, one->normal, one->normal_len, (int32_t)i) < 0)
			rc = err_nomem(e);
	}
	map_release(&last);
	return rc;
}

int added_from_json(struct tokenizer *t, const struct json *list, struct err *e)
{
	size_t n = json_count(list);
	struct map seen = { 0 };
	int64_t next = (int64_t)t->bpe.vocab.count;
	int rc = ERR_OK;
	if (!n)
		return ERR_OK;
	t->added.at = arena_array(&t->arena, n, sizeof *t->added.at);
	if (!t->added.at)
		return err_nomem(e);
	for (const struct json *j = json_first(list); j && !rc; j = json_next(j)) {
		struct added_token *a = &t->added.at[t->added.count];
		if ((rc = read_added(t, j, a, e)) || !a->len)
			continue;
		if (!(rc = added_id(t, &seen, a, &next, e))) {
			struct piece *p = &t->pieces[a->id];
			p->special |= a->special;
			if (a->normalized && (a->normal_len != a->len || memcmp(a->normal, a->content, a->len) != 0)) {
				p->shown = a->normal;
				p->shown_len = a->normal_len;
			}
			p->type = p->special ? TOKEN_CONTROL : TOKEN_USER;
			p->score = p->special ? 0 : ADDED_SCORE;
			t->added.count++;
		}
	}
	map_release(&seen);
	return rc ? rc : add_to_tries(t, e);
}

/* ---- around tokenizer.model ---- */

#define SPACE     "\xe2\x96\x81" /* U+2581 stands for a space in pieces; a text is searched for the space itself */
#define SPACE_LEN 3

static char *plain_text(struct arena *a, const char *text, size_t n, size_t *len)
{
	char *out = arena_alloc(a, n + 1);
	*len = 0;
	for (size_t i = 0; out && i < n;)
		if (n - i >= SPACE_LEN && memcmp(text + i, SPACE, SPACE_LEN) == 0) {
			out[(*len)++] = ' ';
			i += SPACE_LEN;
		} else {
			out[(*len)++] = text[i++];
		}
	return out;
}

static int add_pieces(struct tokenizer *t, bool listed, struct err *e)
{
	for (size_t id = 0; id < t->size; id++) {
		const struct piece *p = &t->pieces[id];
		if (p->type != TOKEN_CONTROL && p->type != TOKEN_USER && p->type != TOKEN_UNKNOWN)
			continue;
		struct added_token *a = &t->added.at[t->added.count++];
		*a = (struct added_token){ .content = p->text, .len = p->len, .id = (int32_t)id, .special = p->special };
		/* what a GGUF file listed is searched for as it stands */
		if (p->type == TOKEN_USER && !listed && !(a->content = plain_text(&t->arena, p->text, p->len, &a->len)))
			return err_nomem(e);
		a->normal = a->content;
		a->normal_len = a->len;
	}
	return ERR_OK;
}

/* One token of a file: gives its id a text where there was none or another, and is searched for from now on. */
static int add_one(struct tokenizer *t, int64_t id, struct added_token *a, struct err *e)
{
	if (id < 0 || id > (int64_t)t->size + MOST_GAP)
		return err_set(e, ERR_INPUT, "added token \"%.100s\" has id %lld, which is out of range", a->content, (long long)id);
	const char *old = tokenizer_piece(t, (int32_t)id, NULL);
	bool same = old && !strcmp(old, a->content);
	if (!a->len)
		return ERR_OK;
	if (!same) {
		int rc = tokenizer_put(t, id, a->content, a->len, e);
		if (rc)
			return rc;
		t->pieces[id].score = ADDED_SCORE;
	}
	struct piece *p = &t->pieces[id];
	p->special |= a->special;
	if (p->type == TOKEN_NORMAL)
		p->type = a->special ? TOKEN_CONTROL : TOKEN_USER;
	a->id = (int32_t)id;
	a->normal = a->content;
	a->normal_len = a->len;
	t->added.at[t->added.count++] = *a;
	return ERR_OK;
}

/* Is it the BOS, EOS, padding ... of tokenizer_config.json? Those are special whatever else is said. */
static bool is_named(const struct json *config, const char *content)
{
	static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token" };
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const struct json *j = json_get(config, keys[i]);
		const char *s = json_string(j) ? json_string(j) : json_string(json_get(j, "content"));
		if (s && !strcmp(s, content))
			return true;
	}
	return false;
}

static int add_decoder(struct tokenizer *t, const struct json *config, struct err *e)
{
	int rc = ERR_OK;
	for (const struct json *j = json_first(json_get(config, "added_tokens_decoder")); j && !rc; j = json_next(j)) {
		struct added_token a = { 0 };
		char *end;
		long long id = strtoll(json_key(j), &end, 10);
		if (*end || end == json_key(j))
			return err_set(e, ERR_INPUT, "added_tokens_decoder: \"%.60s\" is not an id", json_key(j));
		if ((rc = read_added(t, j, &a, e)))
			break;
		a.normalized = false; /* searched for in the text, before its spaces become U+2581 */
		a.special |= is_named(config, a.content);
		rc = add_one(t, id, &a, e);
	}
	return rc;
}

static int add_list(struct tokenizer *t, const struct json *list, const struct json *config, struct err *e)
{
	int rc = ERR_OK;
	for (const struct json *j = json_first(list); j && !rc; j = json_next(j)) {
		struct added_token a = { .len = strlen(json_key(j)) };
		int64_t id;
		if (!json_int(j, &id))
			return err_set(e, ERR_INPUT, "added_tokens.json: the id of \"%.100s\" is not an integer", json_key(j));
		if (!(a.content = arena_strdup(&t->arena, json_key(j))))
			return err_nomem(e);
		a.special = is_named(config, a.content);
		rc = add_one(t, id, &a, e);
	}
	return rc;
}

int added_from_model(struct tokenizer *t, const struct tokenizer_files *f, const struct json *config, struct err *e)
{
	struct json *list = NULL;
	if (f->added && !(list = json_parse(f->added, f->added_len, e)))
		return err_prefix(e, "added_tokens.json");
	size_t n = t->size + json_count(json_get(config, "added_tokens_decoder")) + json_count(list);
	t->added.at = arena_array(&t->arena, n + 1, sizeof *t->added.at);
	int rc = t->added.at ? add_pieces(t, json_get(config, "gguf_token_types") != NULL, e) : err_nomem(e);
	/* the older file counts only without the newer key, as in transformers */
	if (!rc)
		rc = json_get(config, "added_tokens_decoder") ? add_decoder(t, config, e) : add_list(t, list, config, e);
	json_free(list);
	return rc ? rc : add_to_tries(t, e);
}
