/* Splits, spans of patterns, and added tokens. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"
#include "text/unicode.h"

void spans_add(struct spans *s, size_t start, size_t end, bool match)
{
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct span *p = s->failed ? NULL : realloc(s->at, cap * sizeof *p);
		if (!p) {
			s->failed = true;
			return;
		}
		s->at = p;
		s->cap = cap;
	}
	s->at[s->count++] = (struct span){ start, end, match };
}

void splits_add(struct splits *s, struct split one)
{
	if (!one.len && one.id < 0)
		return;
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct split *p = s->failed ? NULL : realloc(s->at, cap * sizeof *p);
		if (!p) {
			s->failed = true;
			return;
		}
		s->at = p;
		s->cap = cap;
	}
	s->at[s->count++] = one;
}

void splits_release(struct splits *s)
{
	free(s->at);
	strbuf_release(&s->text);
	*s = (struct splits){ 0 };
}

size_t growth_limit(size_t len)
{
	return len < SIZE_MAX / 4 / MAX_GROWTH ? len * MAX_GROWTH + 1024 : SIZE_MAX / 2;
}

int growth_error(const char *what, size_t len, struct err *e)
{
	return err_set(e, ERR_INPUT, "%s of the tokenizer makes more than %zu bytes of a text of %zu, which is the limit", what,
		       growth_limit(len), len);
}

static size_t leaves(const struct json *j, const char *list)
{
	size_t n = 1;
	for (j = json_first(json_get(j, list)); j; j = json_next(j))
		n += leaves(j, list);
	return n;
}

int part_steps(const struct json *j, const char *list, size_t *count, struct err *e)
{
	*count = leaves(j, list);
	return *count <= MAX_STEPS ? ERR_OK : err_set(e, ERR_INPUT, "the tokenizer has %zu %s; the limit is %d", *count, list, (int)MAX_STEPS);
}

int part_string(const struct json *j, const char *key, struct arena *a, const char **out, size_t *len, struct err *e)
{
	const struct json *v = json_get(j, key);
	const char *s = json_string(v);
	*out = NULL;
	*len = 0;
	if (json_is_null(v))
		return ERR_OK;
	if (!s)
		return err_set(e, ERR_INPUT, "tokenizer.json: \"%s\" is not a string", key);
	*len = strlen(s);
	*out = arena_strdup(a, s);
	return *out ? ERR_OK : err_nomem(e);
}

bool part_bool(const struct json *j, const char *key, bool missing)
{
	bool b = missing;
	json_bool(json_get(j, key), &b);
	return b;
}

/* ---- patterns ---- */

int pattern_parse(const struct json *j, struct arena *a, struct pattern *p, struct err *e)
{
	const char *text = json_string(json_get(j, "Regex"));
	if (text)
		return regex_compile(text, strlen(text), &p->regex, e);
	int rc = part_string(j, "String", a, &p->text, &p->len, e);
	if (!rc && !p->text)
		rc = err_set(e, ERR_INPUT, "tokenizer.json: a pattern is neither String nor Regex");
	if (!rc && !p->len) /* matches between all characters */
		rc = regex_compile("", 0, &p->regex, e);
	return rc;
}

static void literal_spans(const struct pattern *p, const char *text, size_t len, struct spans *s)
{
	size_t from = 0;
	for (const char *at = text; (size_t)(text + len - at) >= p->len;) {
		const char *hit = memchr(at, p->text[0], (size_t)(text + len - at) - p->len + 1);
		if (!hit)
			break;
		at = hit + 1;
		if (memcmp(hit, p->text, p->len) != 0)
			continue;
		size_t start = (size_t)(hit - text);
		if (start > from)
			spans_add(s, from, start, false);
		from = start + p->len;
		spans_add(s, start, from, true);
		at = text + from;
	}
	if (from < len)
		spans_add(s, from, len, false);
}

int pattern_spans(const struct pattern *p, struct pattern_use *use, const char *text, size_t len, struct spans *s, struct err *e)
{
	s->count = 0;
	if (!len) {
		spans_add(s, 0, 0, false);
		return s->failed ? err_nomem(e) : ERR_OK;
	}
	if (!p->regex) {
		literal_spans(p, text, len, s);
		return s->failed ? err_nomem(e) : ERR_OK;
	}
	int rc, found;
	if (!use->started && (rc = regex_start(&use->search, p->regex, e)))
		return rc;
	use->started = true;
	if ((rc = regex_text(&use->search, text, len, e)))
		return rc;
	size_t start, end, from = 0;
	while ((found = regex_next(&use->search, &start, &end, e)) > 0) {
		if (start != from)
			spans_add(s, from, start, false);
		spans_add(s, start, end, true);
		from = end;
	}
	if (from != len)
		spans_add(s, from, len, false);
	return found < 0 ? -found : s->failed ? err_nomem(e) : ERR_OK;
}

void pattern_use_release(struct pattern_use *use)
{
	if (use->started)
		regex_stop(&use->search);
	use->started = false;
}

/* ---- added tokens ---- */

static uint32_t trie_new(struct trie *t, unsigned char byte, uint32_t sibling)
{
	if (t->count == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 64;
		struct trie_node *p = realloc(t->node, cap * sizeof *p);
		if (!p)
			return 0;
		t->node = p;
		t->cap = cap;
		if (!t->count)
			t->node[t->count++] = (struct trie_node){ .token = -1 }; /* 0 means none */
	}
	t->node[t->count] = (struct trie_node){ .sibling = sibling, .token = -1, .byte = byte };
	return (uint32_t)t->count++;
}

static uint32_t trie_child(const struct trie *t, uint32_t at, unsigned char byte)
{
	for (at = t->node[at].child; at && t->node[at].byte != byte;)
		at = t->node[at].sibling;
	return at;
}

int trie_add(struct trie *t, const char *s, size_t n, int32_t value)
{
	if (!n)
		return 0;
	unsigned char first = (unsigned char)s[0];
	if (!t->root[first] && !(t->root[first] = trie_new(t, first, 0)))
		return -1;
	uint32_t at = t->root[first];
	for (size_t i = 1; i < n; i++) {
		uint32_t next = trie_child(t, at, (unsigned char)s[i]);
		if (!next) {
			if (!(next = trie_new(t, (unsigned char)s[i], t->node[at].child)))
				return -1;
			t->node[at].child = next;
		}
		at = next;
	}
	t->any = true;
	t->node[at].token = value;
	return 0;
}

void trie_release(struct trie *t)
{
	free(t->node);
	*t = (struct trie){ 0 };
}

int32_t trie_longest(const struct trie *t, const char *s, size_t n, size_t *len)
{
	int32_t found = -1;
	uint32_t at = n ? t->root[(unsigned char)s[0]] : 0;
	for (size_t i = 1; at; i++) {
		if (t->node[at].token >= 0) {
			found = t->node[at].token;
			*len = i;
		}
		at = i < n ? trie_child(t, at, (unsigned char)s[i]) : 0;
	}
	return found;
}

static bool single_word(const char *text, size_t len, size_t start, size_t stop)
{
	return (start == 0 || !unicode_is_word(utf8_code(text + utf8_back(text, start)))) &&
	       (stop == len || !unicode_is_word(utf8_code(text + stop)));
}

int added_split(const struct added *a, const struct trie *t, const char *text, struct split one, struct splits *out)
{
	size_t len = one.len, from = 0, n = 0;
	for (size_t at = 0; t->any && at < len; at += n) {
		int32_t hit = t->root[(unsigned char)text[at]] ? trie_longest(t, text + at, len - at, &n) : -1;
		if (hit < 0) {
			n = 1;
			continue;
		}
		const struct added_token *token = &a->at[hit];
		size_t start = at, stop = at + n;
		if (token->single_word && !single_word(text, len, start, stop))
			continue;
		if (token->lstrip) {
			size_t back;
			while (start > 0 && unicode_is_space(utf8_code(text + (back = utf8_back(text, start)))))
				start = back;
			if (start < from)
				start = from;
		}
		if (token->rstrip)
			while (stop < len && unicode_is_space(utf8_code(text + stop)))
				stop += utf8_length(text[stop]);
		if (from < start)
			splits_add(out, (struct split){ one.start + from, start - from, NO_TOKEN, one.first && from == 0 });
		splits_add(out, (struct split){ one.start + start, stop - start, token->id, false });
		from = stop;
	}
	if (from < len)
		splits_add(out, (struct split){ one.start + from, len - from, NO_TOKEN, one.first && from == 0 });
	return out->failed ? -1 : 0;
}
