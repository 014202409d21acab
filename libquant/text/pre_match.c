/* What GGUF can say of a tokenizer: the name of its pre-tokenizer, and what loaders that go by it do otherwise. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/pre_known.h"
#include "text/tokenizer_parts.h"

/* ---- as written ---- */

static bool is_part(const struct pre_step *s, const struct pre_part *p)
{
	const struct pre_kind *k = &pre_kinds[p->kind];
	if (strcmp(s->row->type, k->type))
		return false;
	switch (p->kind) {
	case PRE_WORDS: case PRE_BYTES: return s->use_regex == k->set && !s->prefix_space;
	case PRE_DIGITS: return s->behavior == SPLIT_ISOLATED;
	case PRE_DIGIT_RUNS: return s->behavior == SPLIT_CONTIGUOUS;
	case PRE_PUNCTUATION: return s->behavior == SPLIT_CONTIGUOUS;
	case PRE_STOPS: return s->behavior == SPLIT_ISOLATED;
	default: break;
	}
	return s->regex_text && !s->invert && !strcmp(s->regex_text, p->pattern) &&
	       s->behavior == (p->kind == PRE_SPLIT_NEXT ? SPLIT_NEXT : SPLIT_ISOLATED);
}

static bool same_parts(const struct pre_steps *steps, const struct pre_part *p)
{
	size_t i = 0;
	for (; i < steps->count && p[i].kind; i++)
		if (!is_part(&steps->at[i], &p[i]))
			return false;
	return i == steps->count && !p[i].kind;
}

/* ---- as done: the same cuts in many short texts of what patterns tell apart ---- */

static const char *const pieces[] = {
	"a", "b", "z", "s", "t", "re", "ve", "m", "ll", "d", "A", "Z", "S", "LL", "'s", "'S", "'re", "'VE", "'", "'", " ", " ", " ", "\n", "\r", "\r\n",
	"\t", "\x0b", "0", "1", "23", "456", "7890", ".", ",", "!", "?", "-", "/", "\\", "(", ")", "[", "|", "`", "$", "+", "<", "=", ">", "^", "~", "_", "#",
	"\"", "<sentinel:12>", "IMGIMGABCZ", "\xc3\xa9", "\xc3\x89", "e\xcc\x81", "\xcc\x81", "\xc7\x85", "\xca\xb0", "\xd0\xb6", "\xe6\xbc\xa2\xe5\xad\x97",
	"\xe3\x81\x82", "\xe3\x82\xa2", "\xe3\x83\xbc", "\xea\xb0\x80", "\xe3\x84\xb1", "\xe3\x84\x85", "\xe0\xb8\x81", "\xe0\xa4\x95\xe0\xa5\x8d", "\xe0\xa4\xbf",
	"\xd9\xa3", "\xe2\x85\xa7", "\xc2\xb2", "\xe0\xa5\xa4", "\xdb\x94", "\xd8\x8c", "\xe3\x80\x82", "\xef\xbc\x8c", "\xe3\x80\x81", "\xe2\x80\xa6", "\xe2\x80\x9c",
	"\xe2\x80\x94", "\xc2\xa0", "\xe3\x80\x80", "\xc2\x85", "\xe2\x80\x8d", "\xf0\x9f\x99\x82", "\xe2\x82\xac", "\x01", "\xef\xbc\xa1", "\xef\xbc\x91",
};

static int make_probes(size_t count, struct splits *out, struct err *e)
{
	static const unsigned char runs[] = { 1, 1, 1, 1, 1, 2, 3, 5, 9 };
	struct rng r = { 1 };
	for (size_t i = 0; i < count; i++) {
		size_t start = out->text.len;
		for (uint64_t n = 1 + rng_below(&r, 9); n; n--) {
			const char *piece = pieces[rng_below(&r, sizeof pieces / sizeof *pieces)];
			for (unsigned k = runs[rng_below(&r, sizeof runs)]; k; k--)
				strbuf_puts(&out->text, piece);
		}
		splits_add(out, (struct split){ start, out->text.len - start, NO_TOKEN, true });
	}
	return out->failed || out->text.failed ? err_nomem(e) : ERR_OK;
}

static bool same_splits(const struct splits *a, const struct splits *b)
{
	bool same = a->count == b->count && a->text.len == b->text.len;
	for (size_t i = 0; i < a->count && same; i++)
		same = a->at[i].start == b->at[i].start && a->at[i].len == b->at[i].len;
	return same && (!a->text.len || !memcmp(a->text.data, b->text.data, a->text.len));
}

static int parse_parts(const struct pre_part *parts, struct arena *a, struct pre_steps *out, struct err *e)
{
	struct strbuf text = { 0 };
	struct json_writer w = { .out = &text };
	struct json *root = NULL;
	pre_known_json(&w, NULL, parts, false);
	int rc = text.failed ? err_nomem(e) : ERR_OK;
	if (!rc && !(root = json_parse(text.data, text.len, e)))
		rc = e->code;
	if (!rc)
		rc = pre_parse(root, a, out, e);
	json_free(root);
	strbuf_release(&text);
	return rc;
}

/* Cuts probes by the steps and by each row's parts; the first row that makes the same cuts in all is taken. */
static int match_probes(const struct pre_steps *steps, struct pre_match *out, struct err *e)
{
	static const size_t counts[] = { 300, PRE_PROBES };  /* few find most that differ */
	struct splits want[2] = { 0 };
	int rc = ERR_OK;
	for (int k = 0; k < 2 && !rc; k++)
		if (!(rc = make_probes(counts[k], &want[k], e)))
			rc = pre_apply(steps, &want[k], e);
	const struct pre_part *last = NULL;
	const struct pre_known *row;
	for (size_t i = 0; (row = pre_known_row(i)) && !rc && !out->known; i++) {
		struct arena arena = { 0 };
		struct pre_steps other = { 0 };
		bool same = row->parts != last;
		last = row->parts;
		if (same)
			rc = parse_parts(row->parts, &arena, &other, e);
		for (int k = 0; k < 2 && same && !rc; k++) {
			struct splits got = { 0 };
			if (!(rc = make_probes(counts[k], &got, e)) && !(rc = pre_apply(&other, &got, e)))
				same = same_splits(&want[k], &got);
			splits_release(&got);
		}
		if (same && !rc)
			out->known = row;
		pre_release(&other);
		arena_release(&arena);
	}
	out->probed = out->known != NULL;
	splits_release(&want[0]);
	splits_release(&want[1]);
	return rc;
}

/* ---- pieces that merges do not make ---- */

static int count_unreachable(const struct tokenizer *t, struct pre_match *out, struct err *e)
{
	struct bpe plain = t->bpe;
	plain.ignore_merges = false;
	struct bpe_work *w = bpe_work_new(&plain, e);
	struct token_ids ids = { 0 };
	int rc = w ? ERR_OK : ERR_NOMEM;
	for (size_t i = 0; i < t->size && !rc; i++) {
		const struct piece *p = &t->pieces[i];
		ids.count = 0;
		if (p->type != TOKEN_NORMAL || !p->len)
			continue;
		rc = bpe_word(w, p->text, p->len, &ids, e);
		if (!rc && (ids.count != 1 || ids.id[0] != (int32_t)i) && !out->unreachable++)
			out->unreachable_id = (int32_t)i;
	}
	bpe_work_free(w);
	token_ids_release(&ids);
	return rc;
}

int tokenizer_pre(const struct tokenizer *t, struct pre_match *out, struct err *e)
{
	struct pre_step first;
	struct pre_steps steps = t->pre;
	const struct pre_known *row;
	int rc = ERR_OK;
	*out = (struct pre_match){ 0 };
	if (t->kind != TOKENIZER_BYTE_BPE || !steps.count)
		return ERR_OK;
	/* a space in front of the text is no matter of cutting, if it comes first */
	struct pre_step *copy = calloc(steps.count, sizeof *copy);
	if (!copy)
		return err_nomem(e);
	memcpy(copy, t->pre.at, steps.count * sizeof *copy);
	first = copy[0];
	out->prefix_space = !strcmp(first.row->type, "ByteLevel") && first.prefix_space;
	copy[0].prefix_space = first.prefix_space && !out->prefix_space;
	steps.at = copy;
	for (size_t i = 0; (row = pre_known_row(i)) && !out->known; i++)
		if (same_parts(&steps, row->parts))
			out->known = row;
	if (!out->known)
		rc = match_probes(&steps, out, e);
	free(copy);
	if (rc || !out->known)
		return rc;
	const struct pre_known *found = out->known;
	bool choice = t->bpe.ignore_merges != found->ignore_merges;
	if (choice)
		rc = count_unreachable(t, out, e);
	for (size_t i = 0; (row = pre_known_row(i)) && out->unreachable && !rc && choice; i++)
		if (row->parts == found->parts && row->ignore_merges == t->bpe.ignore_merges) {
			out->known = row;
			choice = false;
		}
	if (!choice)
		out->unreachable = 0;
	return rc;
}

/* ---- the rest of what tokenizer.json says ---- */

bool tokenizer_normalizer(const struct tokenizer *t, struct strbuf *json)
{
	const struct json *j = t->json ? json_get(t->json, "normalizer") : NULL;
	if (json_is_null(j) || !t->norm.count)
		return false;
	json_print(j, json);
	return true;
}

static void add_types(const struct json *j, struct strbuf *out)
{
	const struct json *parts = json_get(j, "normalizers");
	const char *type = json_string(json_get(j, "type"));
	if (!parts)
		strbuf_printf(out, "%s%.40s", out->len ? ", " : "", type ? type : "?");
	for (parts = json_first(parts); parts; parts = json_next(parts))
		add_types(parts, out);
}

void tokenizer_normalizer_types(const struct tokenizer *t, struct strbuf *out)
{
	add_types(json_get(t->json, "normalizer"), out);
}

void tokenizer_frame(const struct tokenizer *t, struct token_frame *out)
{
	*out = (struct token_frame){ t->head, t->tail, t->head_count, t->tail_count };
}

bool tokenizer_has_affixes(const struct tokenizer *t)
{
	return t->bpe.prefix_len || t->bpe.suffix_len;
}
