/*
 * tokenizer.json of a tokenizer.model: scores become the order of merges, the dummy prefix and U+2581 a normalizer.
 * Where two pieces have one score, the order of merges decides what SentencePiece leaves to the place in the text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/tokenizer_parts.h"

#define SPACE "\xe2\x96\x81"

static void write_typed(struct json_writer *w, const char *key, const char *type)
{
	jw_object(w, key);
	jw_string(w, "type", type);
}

static void write_added(struct json_writer *w, const struct tokenizer *t)
{
	jw_array(w, "added_tokens");
	for (size_t i = 0; i < t->added.count; i++) {
		const struct added_token *a = &t->added.at[i];
		jw_object(w, NULL);
		jw_int(w, "id", a->id);
		jw_string(w, "content", a->content);
		jw_bool(w, "single_word", a->single_word);
		jw_bool(w, "lstrip", a->lstrip);
		jw_bool(w, "rstrip", a->rstrip);
		jw_bool(w, "normalized", false);
		jw_bool(w, "special", a->special);
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void write_replace(struct json_writer *w, const char *from, const char *to)
{
	write_typed(w, NULL, "Replace");
	jw_object(w, "pattern");
	jw_string(w, "String", from);
	jw_end_object(w);
	jw_string(w, "content", to);
	jw_end_object(w);
}

static void write_spaces(struct json_writer *w, bool prefix)
{
	static const char *const steps[] = { "ByteFallback", "Fuse" };
	write_typed(w, "normalizer", "Sequence");
	jw_array(w, "normalizers");
	if (prefix) {
		write_typed(w, NULL, "Prepend");
		jw_string(w, "prepend", SPACE);
		jw_end_object(w);
	}
	write_replace(w, " ", SPACE);
	jw_end_array(w);
	jw_end_object(w);
	jw_null(w, "pre_tokenizer");
	write_typed(w, "decoder", "Sequence");
	jw_array(w, "decoders");
	write_replace(w, SPACE, " ");
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		write_typed(w, NULL, steps[i]);
		jw_end_object(w);
	}
	if (prefix) {
		write_typed(w, NULL, "Strip");
		jw_string(w, "content", " ");
		jw_uint(w, "start", 1);
		jw_uint(w, "stop", 0);
		jw_end_object(w);
	}
	jw_end_array(w);
	jw_end_object(w);
}

static void write_part(struct json_writer *w, const char *kind, const char *id, int text)
{
	jw_object(w, NULL);
	jw_object(w, kind);
	jw_string(w, "id", id);
	jw_int(w, "type_id", text);
	jw_end_object(w);
	jw_end_object(w);
}

void tokenizer_write_template(struct json_writer *w, const struct text_end ends[2])
{
	write_typed(w, "post_processor", "TemplateProcessing");
	for (int pair = 0; pair < 2; pair++) {
		jw_array(w, pair ? "pair" : "single");
		for (int i = 0; i <= pair; i++) {
			if (ends[0].text)
				write_part(w, "SpecialToken", ends[0].text, i);
			write_part(w, "Sequence", i ? "B" : "A", i);
			if (ends[1].text)
				write_part(w, "SpecialToken", ends[1].text, i);
		}
		jw_end_array(w);
	}
	jw_object(w, "special_tokens");
	for (int k = 0; k < 2; k++) {
		if (!ends[k].text || (k && ends[0].text && !strcmp(ends[0].text, ends[1].text)))
			continue;
		jw_object(w, ends[k].text);
		jw_string(w, "id", ends[k].text);
		jw_array(w, "ids");
		jw_int(w, NULL, ends[k].id);
		jw_end_array(w);
		jw_array(w, "tokens");
		jw_string(w, NULL, ends[k].text);
		jw_end_array(w);
		jw_end_object(w);
	}
	jw_end_object(w);
	jw_end_object(w);
}

static struct text_end end_of(const struct tokenizer *t, int32_t id)
{
	return (struct text_end){ id >= 0 ? t->pieces[id].text : NULL, id };
}

static void write_post(struct json_writer *w, const struct tokenizer *t)
{
	const struct text_end ends[2] = { end_of(t, t->head_count ? t->head[0] : NO_TOKEN), end_of(t, t->tail_count ? t->tail[0] : NO_TOKEN) };
	if (ends[0].text || ends[1].text)
		tokenizer_write_template(w, ends);
	else
		jw_null(w, "post_processor");
}

/* By rank; where that is one, by piece and then the longer left part, which is how such merges are commonly listed. */
static int by_rank(const void *pa, const void *pb)
{
	const struct pair_slot *a = *(const struct pair_slot *const *)pa, *b = *(const struct pair_slot *const *)pb;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return a->pair < b->pair ? -1 : a->pair > b->pair;
}

/* Characters that are no piece of their own cannot be named; pieces made of them stay bytes. */
static int write_merges(struct json_writer *w, const struct tokenizer *t, struct err *e)
{
	const struct pairs *p = &t->bpe.pairs;
	const struct pair_slot **order = malloc((p->count + 1) * sizeof *order);
	struct strbuf text = { 0 };
	size_t n = 0;
	if (!order)
		return err_nomem(e);
	for (size_t i = 0; i < p->cap; i++)
		if (p->slot[i].id >= 0 && (p->slot[i].pair >> 32) < (uint64_t)t->bpe.unused_from &&
		    (uint32_t)p->slot[i].pair < (uint32_t)t->bpe.unused_from)
			order[n++] = &p->slot[i];
	qsort(order, n, sizeof *order, by_rank);
	jw_array(w, "merges");
	for (size_t i = 0; i < n; i++) {
		const struct piece *left = &t->pieces[order[i]->pair >> 32], *right = &t->pieces[(uint32_t)order[i]->pair];
		strbuf_clear(&text);
		if (memchr(left->text, ' ', left->len) || memchr(right->text, ' ', right->len))
			continue;
		strbuf_add(&text, left->text, left->len);
		strbuf_putc(&text, ' ');
		strbuf_add(&text, right->text, right->len);
		jw_string_n(w, NULL, text.data ? text.data : "", text.len);
	}
	jw_end_array(w);
	free(order);
	w->out->failed |= text.failed;
	strbuf_release(&text);
	return ERR_OK;
}

static int write_model(struct json_writer *w, const struct tokenizer *t, struct err *e)
{
	write_typed(w, "model", "BPE");
	jw_null(w, "dropout");
	jw_string(w, "unk_token", t->pieces[t->bpe.unk].text);
	jw_null(w, "continuing_subword_prefix");
	jw_null(w, "end_of_word_suffix");
	jw_bool(w, "fuse_unk", true);
	jw_bool(w, "byte_fallback", t->bpe.byte_fallback);
	jw_bool(w, "ignore_merges", false);
	jw_object(w, "vocab");
	for (size_t i = 0; i < t->size; i++)
		if (t->pieces[i].text)
			jw_uint(w, t->pieces[i].text, i);
	jw_end_object(w);
	int rc = write_merges(w, t, e);
	jw_end_object(w);
	return rc;
}

int tokenizer_write_json(const struct tokenizer *t, struct strbuf *out, struct err *e)
{
	struct json_writer w = { .out = out };
	if (!t->spm)
		return err_set(e, ERR_BUG, "a tokenizer.json is made of a tokenizer.model only");
	jw_object(&w, NULL);
	jw_string(&w, "version", "1.0");
	jw_null(&w, "truncation");
	jw_null(&w, "padding");
	write_added(&w, t);
	write_spaces(&w, spm_space_prefix(t));
	write_post(&w, t);
	int rc = write_model(&w, t, e);
	jw_end_object(&w);
	return rc ? rc : out->failed ? err_nomem(e) : ERR_OK;
}
