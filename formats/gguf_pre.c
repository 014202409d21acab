/* Pre-tokenizers and normalizers: GGUF has a name for the former and nothing for the latter. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "formats/gguf_model.h"
#include "text/pre_known.h"

/* ---- reading ---- */

const struct pre_known *gguf_pre_find(const struct gguf *g, char name[64])
{
	size_t len;
	const char *s = gguf_string(gguf_find(g, "tokenizer.ggml.pre"), &len);
	if (!s || len == 0 || len >= 64 || memchr(s, '\0', len) || !utf8_valid(s, len)) {
		s = "default";
		len = 7;
	}
	memcpy(name, s, len);
	name[len] = '\0';
	return pre_known_find(name);
}

/* A name without a row becomes the type, so that the reader of tokenizer.json refuses it by name. */
static void write_steps(struct json_writer *w, const struct pre_known *row, const char *name, bool prefix_space)
{
	if (row) {
		pre_known_json(w, "pre_tokenizer", row->parts, prefix_space);
		return;
	}
	jw_object(w, "pre_tokenizer");
	jw_string(w, "type", name);
	jw_end_object(w);
}

/* The family's, unless the file says otherwise. */
static int write_normalizer(struct json_writer *w, const struct gguf *g, const struct pre_known *row, struct err *e)
{
	size_t len;
	const char *own = gguf_string(gguf_find(g, GGUF_NORMALIZER), &len);
	if (own) {
		struct strbuf text = { 0 };
		struct json *j = json_parse(own, len, e);
		if (!j)
			return err_prefix(e, GGUF_NORMALIZER);
		json_print(j, &text);
		jw_raw(w, "normalizer", text.data ? text.data : "null");
		w->out->failed |= text.failed;
		strbuf_release(&text);
		json_free(j);
	} else if (row && row->normalizer) {
		jw_object(w, "normalizer");
		jw_string(w, "type", row->normalizer);
		jw_end_object(w);
	} else {
		jw_null(w, "normalizer");
	}
	return 0;
}

int gguf_write_pre(struct json_writer *w, const struct gguf *g, const struct pre_known *row, const char *name, bool prefix_space,
		   struct err *e)
{
	int rc = write_normalizer(w, g, row, e);
	write_steps(w, row, name, prefix_space);
	return rc;
}

/* ---- writing ---- */

/* What the name of a pre-tokenizer does not say. Loaders have no normalizers; a key of quire's own keeps it for quire. */
static void put_normalizer(struct gguf_writer *w, const struct tokenizer *t, const struct pre_known *known)
{
	struct strbuf json = { 0 }, types = { 0 };
	bool some = tokenizer_normalizer(t, &json);
	if (some)
		tokenizer_normalizer_types(t, &types);
	if (some ? !known->normalizer || !types.data || strcmp(types.data, known->normalizer) : known->normalizer != NULL) {
		const char *text = some && json.data ? json.data : "null";
		gguf_put_string(w, GGUF_NORMALIZER, text, strlen(text));
		if (some)
			notes_add(w->notes, "normalizer %s: GGUF has no key for it and llama.cpp does not apply it, so that it tokenizes text "
				  "that is not normalized otherwise (quire reads it back from " GGUF_NORMALIZER ")", types.data ? types.data : "");
	}
	w->kv.failed |= json.failed | types.failed;
	strbuf_release(&json);
	strbuf_release(&types);
}

int gguf_put_pre(struct gguf_writer *w, const struct tokenizer *t, const char *named, struct err *e)
{
	struct pre_match m = { .known = named ? pre_known_find(named) : NULL };
	int rc = m.known ? 0 : tokenizer_pre(t, &m, e);
	if (rc)
		return rc;
	if (tokenizer_has_affixes(t))
		return err_set(e, ERR_UNSUPPORTED, "tokenizer: GGUF has no key for continuing_subword_prefix and end_of_word_suffix");
	if (!named && !m.known)
		return err_set(e, ERR_UNSUPPORTED,
			       "tokenizer: GGUF has no name for this pre-tokenizer, so that llama.cpp would cut text into other tokens; "
			       ".quire and Hugging Face folders keep it as it is");
	const char *name = named ? named : m.known->name;
	gguf_put_string(w, "tokenizer.ggml.pre", name, strlen(name));
	if (m.probed)
		notes_add(w->notes, "the pre-tokenizer is spelled like none that GGUF has a name for, but cuts %d texts that tell them apart as '%s' "
			  "does, and is written as that", PRE_PROBES, name);
	if (m.unreachable)
		notes_add(w->notes, "%zu pieces of the vocabulary, the first '%.40s', are not what merges make of their text; tokenizer.json %s "
			  "words that are pieces whole (ignore_merges), which llama.cpp %s under '%s'", m.unreachable,
			  tokenizer_piece(t, m.unreachable_id, NULL), m.known->ignore_merges ? "does not take" : "takes",
			  m.known->ignore_merges ? "does" : "does not do", name);
	if (m.prefix_space)
		notes_add(w->notes, "add_prefix_space: the tokenizer puts a space in front of text, llama.cpp does not with this vocabulary");
	if (m.known)
		put_normalizer(w, t, m.known);
	return 0;
}
