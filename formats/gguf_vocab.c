/*
 * Vocabularies: GGUF's token arrays to tokenizer.model (SentencePiece) or
 * tokenizer.json (byte-level BPE), and tokenizer_config.json beside them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/gguf_model.h"
#include "model/pre_known.h"

/* A pre-tokenizer without a row gets its own name as type, so that the reader of tokenizer.json refuses it by name. */
static const struct pre_known *find_pre(const struct gguf *g, char name[64])
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

struct token {
	const char *text;
	size_t len;
	float score;
	enum token_type type;
};

struct vocabulary {
	const struct gguf *g;
	struct token *token;
	size_t count;
	int64_t bos, eos, unk, pad;  /* -1: none */
	bool add_bos, add_eos, space_prefix;
};

/* The names that writers give to ids without a token: such an id stays unused. */
static bool is_filler(const struct token *t, size_t id)
{
	char name[40];
	if (!t->len)
		return true;
	int n = snprintf(name, sizeof name, "[PAD%zu]", id);
	if (t->type == TOKEN_UNUSED && t->len == (size_t)n && !memcmp(t->text, name, t->len))
		return true;
	n = snprintf(name, sizeof name, "[EMPTY_%zu]", id);
	return t->len == (size_t)n && !memcmp(t->text, name, t->len);
}

static int64_t special_id(const struct vocabulary *v, const char *key, int64_t absent)
{
	uint64_t id;
	if (!gguf_uint(gguf_find(v->g, key), 0, &id))
		id = (uint64_t)absent;
	return id < v->count ? (int64_t)id : -1; /* ids out of range are ignored, as elsewhere */
}

static int read_tokens(struct vocabulary *v, const struct gguf_kv *kv, struct err *e)
{
	const struct gguf_kv *scores = gguf_find(v->g, "tokenizer.ggml.scores");
	const struct gguf_kv *types = gguf_find(v->g, "tokenizer.ggml.token_type");
	struct cursor c = gguf_strings(kv);
	struct map seen = { 0 };
	int rc = 0;
	if (kv->type != GGUF_ARRAY || kv->elem != GGUF_STRING)
		return err_set(e, ERR_INPUT, "tokenizer.ggml.tokens is not an array of strings");
	if (kv->count > INT32_MAX)
		return err_set(e, ERR_INPUT, "tokenizer.ggml.tokens is too long");
	if ((scores && scores->count < kv->count) || (types && types->count < kv->count))
		return err_set(e, ERR_INPUT, "tokenizer.ggml.%s is shorter than the %" PRIu64 " tokens",
			       scores && scores->count < kv->count ? "scores" : "token_type", kv->count);
	v->token = calloc((size_t)kv->count + 1, sizeof *v->token);
	if (!v->token)
		return err_nomem(e);
	for (; !rc && v->count < kv->count; v->count++) {
		struct token *t = &v->token[v->count];
		uint64_t type = TOKEN_NORMAL;
		double score = 0;
		if (!gguf_next_string(&c, &t->text, &t->len) || !utf8_valid(t->text, t->len)) {
			rc = err_set(e, ERR_INPUT, "tokenizer.ggml.tokens: token %zu is not UTF-8", v->count);
			break;
		}
		if (types && (!gguf_uint(types, v->count, &type) || type > TOKEN_BYTE))
			rc = err_set(e, ERR_INPUT, "tokenizer.ggml.token_type: token %zu has an unknown type", v->count);
		if (!rc && scores && !gguf_float(scores, v->count, &score))
			rc = err_set(e, ERR_INPUT, "tokenizer.ggml.scores is not an array of numbers");
		t->type = type ? (enum token_type)type : TOKEN_NORMAL;
		t->score = (float)score;
		int added = rc ? 1 : map_add(&seen, t->text, t->len, v->count);
		if (added < 0)
			rc = err_nomem(e);
		if (added == 0)
			rc = err_set(e, ERR_INPUT, "tokenizer.ggml.tokens: token %zu has the text of another token", v->count);
	}
	map_release(&seen);
	return rc;
}

static void put_varint(struct strbuf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		strbuf_putc(b, (char)(v | 0x80));
	strbuf_putc(b, (char)v);
}

/* Protocol buffer fields: wire type 0 varint, 2 bytes, 5 a 32-bit float. */
static void put_field(struct strbuf *b, unsigned field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

static void put_bytes(struct strbuf *b, unsigned field, const void *data, size_t len)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, len);
	strbuf_add(b, data, len);
}

static void put_float32(struct strbuf *b, unsigned field, float v)
{
	uint32_t u;
	uint8_t raw[4];
	memcpy(&u, &v, 4);
	store_u32(raw, u);
	put_varint(b, field << 3 | 5);
	strbuf_add(b, raw, 4);
}

/* User-defined tokens carry real spaces in GGUF and U+2581 in a SentencePiece model. */
static void put_piece_text(struct strbuf *b, const struct token *t, size_t id)
{
	struct strbuf text = { 0 };
	if (!t->len)
		strbuf_printf(&text, "[EMPTY_%zu]", id);
	for (size_t i = 0; i < t->len; i++)
		if (t->type == TOKEN_USER && t->text[i] == ' ')
			strbuf_puts(&text, "\xe2\x96\x81");
		else
			strbuf_putc(&text, t->text[i]);
	put_bytes(b, 1, text.data ? text.data : "", text.len);
	b->failed |= text.failed;
	strbuf_release(&text);
}

static void put_name(struct strbuf *b, unsigned field, const struct vocabulary *v, int64_t id)
{
	if (id >= 0)
		put_bytes(b, field, v->token[id].text, v->token[id].len);
}

/* ModelProto of sentencepiece_model.proto: 1 pieces, 2 trainer_spec, 3 normalizer_spec. */
static int write_sentencepiece(const struct vocabulary *v, struct strbuf *out, struct err *e)
{
	struct strbuf part = { 0 };
	bool strip = false;
	for (size_t i = 0; i < v->count; i++) {
		strbuf_clear(&part);
		put_piece_text(&part, &v->token[i], i);
		put_float32(&part, 2, v->token[i].score);
		/* an unused id must never come out of a text, which is what a control piece is */
		put_field(&part, 3, v->token[i].type == TOKEN_UNUSED || is_filler(&v->token[i], i) ? TOKEN_CONTROL
												 : v->token[i].type);
		put_bytes(out, 1, part.data ? part.data : "", part.len);
	}
	strbuf_clear(&part);
	put_field(&part, 3, 2);            /* model_type: BPE */
	put_field(&part, 4, v->count);     /* vocab_size */
	put_field(&part, 35, 1);           /* byte_fallback */
	put_field(&part, 40, (uint64_t)v->unk);
	put_field(&part, 41, (uint64_t)v->bos);
	put_field(&part, 42, (uint64_t)v->eos);
	put_field(&part, 43, (uint64_t)v->pad);
	put_name(&part, 45, v, v->unk);
	put_name(&part, 46, v, v->bos);
	put_name(&part, 47, v, v->eos);
	put_bytes(out, 2, part.data ? part.data : "", part.len);
	strbuf_clear(&part);
	gguf_bool(gguf_find(v->g, "tokenizer.ggml.remove_extra_whitespaces"), &strip);
	put_bytes(&part, 1, "identity", 8);
	put_field(&part, 3, v->space_prefix);
	put_field(&part, 4, strip);
	put_field(&part, 5, 1);            /* escape_whitespaces */
	put_bytes(out, 3, part.data ? part.data : "", part.len);
	bool failed = part.failed || out->failed;
	strbuf_release(&part);
	return failed ? err_nomem(e) : 0;
}

static bool is_added(const struct token *t)
{
	return t->type == TOKEN_CONTROL || t->type == TOKEN_USER;
}

static void write_added(struct json_writer *w, const struct vocabulary *v)
{
	jw_array(w, "added_tokens");
	for (size_t i = 0; i < v->count; i++) {
		if (!is_added(&v->token[i]) || is_filler(&v->token[i], i))
			continue;
		jw_object(w, NULL);
		jw_uint(w, "id", i);
		jw_string_n(w, "content", v->token[i].text, v->token[i].len);
		jw_bool(w, "single_word", false);
		jw_bool(w, "lstrip", false);
		jw_bool(w, "rstrip", false);
		jw_bool(w, "normalized", false);
		jw_bool(w, "special", v->token[i].type == TOKEN_CONTROL);
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void write_byte_level(struct json_writer *w, const char *key, bool use_regex)
{
	jw_object(w, key);
	jw_string(w, "type", "ByteLevel");
	jw_bool(w, "add_prefix_space", false);
	jw_bool(w, "trim_offsets", true);
	jw_bool(w, "use_regex", use_regex);
	jw_end_object(w);
}

static void write_pre(struct json_writer *w, const struct pre_known *row, const char *name)
{
	if (!row || (!row->patterns[0] && !row->digits)) {
		if (row)
			write_byte_level(w, "pre_tokenizer", true);
		else {
			jw_object(w, "pre_tokenizer");
			jw_string(w, "type", name);
			jw_end_object(w);
		}
		return;
	}
	jw_object(w, "pre_tokenizer");
	jw_string(w, "type", "Sequence");
	jw_array(w, "pretokenizers");
	if (row->digits) {
		jw_object(w, NULL);
		jw_string(w, "type", "Digits");
		jw_bool(w, "individual_digits", true);
		jw_end_object(w);
	}
	for (int i = 0; i < 3 && row->patterns[i]; i++) {
		jw_object(w, NULL);
		jw_string(w, "type", "Split");
		jw_object(w, "pattern");
		jw_string(w, "Regex", row->patterns[i]);
		jw_end_object(w);
		jw_string(w, "behavior", "Isolated");
		jw_bool(w, "invert", false);
		jw_end_object(w);
	}
	write_byte_level(w, NULL, row->patterns[0] == NULL);
	jw_end_array(w);
	jw_end_object(w);
}

static void write_post(struct json_writer *w, const struct vocabulary *v)
{
	if (!v->add_bos || v->bos < 0) {
		write_byte_level(w, "post_processor", true);
		return;
	}
	const struct token *t = &v->token[v->bos];
	char *bos = strndup(t->text, t->len);
	jw_object(w, "post_processor");
	jw_string(w, "type", "TemplateProcessing");
	for (int pair = 0; pair < 2; pair++) {
		jw_array(w, pair ? "pair" : "single");
		for (int i = 0; i <= pair; i++) {
			jw_object(w, NULL);
			jw_object(w, "SpecialToken");
			jw_string(w, "id", bos);
			jw_uint(w, "type_id", (uint64_t)i);
			jw_end_object(w);
			jw_end_object(w);
			jw_object(w, NULL);
			jw_object(w, "Sequence");
			jw_string(w, "id", i ? "B" : "A");
			jw_uint(w, "type_id", (uint64_t)i);
			jw_end_object(w);
			jw_end_object(w);
		}
		jw_end_array(w);
	}
	jw_object(w, "special_tokens");
	jw_object(w, bos ? bos : "");
	jw_string(w, "id", bos);
	jw_array(w, "ids");
	jw_uint(w, NULL, (uint64_t)v->bos);
	jw_end_array(w);
	jw_array(w, "tokens");
	jw_string(w, NULL, bos);
	jw_end_array(w);
	jw_end_object(w);
	jw_end_object(w);
	jw_end_object(w);
	w->out->failed |= !bos;
	free(bos);
}

static int write_model(struct json_writer *w, const struct vocabulary *v, const struct pre_known *row, struct err *e)
{
	const struct gguf_kv *merges = gguf_find(v->g, "tokenizer.ggml.merges");
	struct cursor c = gguf_strings(merges);
	struct strbuf key = { 0 };
	const char *s;
	size_t len;
	if (!merges)
		return err_set(e, ERR_INPUT, "tokenizer.ggml.merges is missing");
	jw_object(w, "model");
	jw_string(w, "type", "BPE");
	jw_null(w, "dropout");
	jw_null(w, "unk_token");
	jw_null(w, "continuing_subword_prefix");
	jw_null(w, "end_of_word_suffix");
	jw_bool(w, "fuse_unk", false);
	jw_bool(w, "byte_fallback", false);
	jw_bool(w, "ignore_merges", row && row->ignore_merges);
	jw_object(w, "vocab");
	for (size_t i = 0; i < v->count; i++) {
		if (is_added(&v->token[i]) || is_filler(&v->token[i], i))
			continue;
		strbuf_clear(&key);
		strbuf_add(&key, v->token[i].text, v->token[i].len);
		jw_uint(w, key.data ? key.data : "", i);
	}
	jw_end_object(w);
	jw_array(w, "merges");
	for (uint64_t i = 0; gguf_next_string(&c, &s, &len); i++) {
		if (!utf8_valid(s, len)) {
			strbuf_release(&key);
			return err_set(e, ERR_INPUT, "tokenizer.ggml.merges: merge %" PRIu64 " is not UTF-8", i);
		}
		jw_string_n(w, NULL, s, len);
	}
	jw_end_array(w);
	jw_end_object(w);
	bool failed = key.failed;
	strbuf_release(&key);
	return failed ? err_nomem(e) : 0;
}

static int write_byte_bpe(const struct vocabulary *v, const struct pre_known *row, const char *pre, struct strbuf *out,
			  struct err *e)
{
	struct json_writer w = { .out = out };
	for (size_t i = 0; i < v->count; i++)
		if (memchr(v->token[i].text, '\0', v->token[i].len))
			return err_set(e, ERR_INPUT, "tokenizer.ggml.tokens: token %zu is not text", i);
	jw_object(&w, NULL);
	jw_string(&w, "version", "1.0");
	jw_null(&w, "truncation");
	jw_null(&w, "padding");
	write_added(&w, v);
	if (row && row->normalizer) {
		jw_object(&w, "normalizer");
		jw_string(&w, "type", row->normalizer);
		jw_end_object(&w);
	} else {
		jw_null(&w, "normalizer");
	}
	write_pre(&w, row, pre);
	write_post(&w, v);
	write_byte_level(&w, "decoder", true);
	int rc = write_model(&w, v, row, e);
	jw_end_object(&w);
	return rc ? rc : out->failed ? err_nomem(e) : 0;
}

static void write_token(struct json_writer *w, const char *key, const struct vocabulary *v, int64_t id)
{
	if (id >= 0)
		jw_string_n(w, key, v->token[id].text, v->token[id].len);
}

static int write_settings(const struct vocabulary *v, bool spm, struct strbuf *out, struct err *e)
{
	struct json_writer w = { .out = out, .indent = 2 };
	size_t len;
	char id[24];
	jw_object(&w, NULL);
	jw_string(&w, "tokenizer_class", spm ? "LlamaTokenizer" : "PreTrainedTokenizerFast");
	jw_bool(&w, "add_bos_token", v->add_bos);
	jw_bool(&w, "add_eos_token", v->add_eos);
	if (spm) {
		jw_bool(&w, "add_prefix_space", v->space_prefix);
		jw_bool(&w, "legacy", false);
	}
	jw_bool(&w, "clean_up_tokenization_spaces", false);
	write_token(&w, "bos_token", v, v->bos);
	write_token(&w, "eos_token", v, v->eos);
	write_token(&w, "unk_token", v, v->unk);
	write_token(&w, "pad_token", v, v->pad);
	jw_object(&w, "added_tokens_decoder");
	for (size_t i = 0; i < v->count; i++) {
		const struct token *t = &v->token[i];
		if ((!is_added(t) && t->type != TOKEN_UNKNOWN) || is_filler(t, i))
			continue;
		snprintf(id, sizeof id, "%zu", i);
		jw_object(&w, id);
		jw_string_n(&w, "content", t->text, t->len);
		jw_bool(&w, "lstrip", false);
		jw_bool(&w, "normalized", false);
		jw_bool(&w, "rstrip", false);
		jw_bool(&w, "single_word", false);
		jw_bool(&w, "special", t->type != TOKEN_USER);
		jw_end_object(&w);
	}
	jw_end_object(&w);
	const char *chat = gguf_string(gguf_find(v->g, "tokenizer.chat_template"), &len);
	if (chat && utf8_valid(chat, len))
		jw_string_n(&w, "chat_template", chat, len);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	return out->failed ? err_nomem(e) : 0;
}

static void read_settings(struct vocabulary *v, bool spm, bool add_bos)
{
	const struct gguf *g = v->g;
	v->add_bos = add_bos;
	v->space_prefix = spm;
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_bos_token"), &v->add_bos);
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_eos_token"), &v->add_eos);
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_space_prefix"), &v->space_prefix);
	v->bos = special_id(v, "tokenizer.ggml.bos_token_id", spm ? 1 : -1);
	v->eos = special_id(v, "tokenizer.ggml.eos_token_id", spm ? 2 : -1);
	v->unk = special_id(v, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1);
	v->pad = special_id(v, "tokenizer.ggml.padding_token_id", -1);
}

int gguf_vocabulary(const struct gguf_model *m, struct strbuf *model, struct strbuf *json, struct strbuf *config, struct err *e)
{
	size_t len;
	char pre[64];
	const char *kind = gguf_string(gguf_find(m->meta, "tokenizer.ggml.model"), &len);
	const struct gguf_kv *tokens = gguf_find(m->meta, "tokenizer.ggml.tokens");
	struct vocabulary v = { .g = m->meta };
	bool spm = kind && len == 5 && !memcmp(kind, "llama", 5), bpe = kind && len == 4 && !memcmp(kind, "gpt2", 4);
	/* other tokenizers (bert, t5, rwkv ...) leave the model without tokenizer files; the facts say what it has */
	if ((!spm && !bpe) || !tokens)
		return 0;
	const struct pre_known *row = find_pre(m->meta, pre);
	int rc = read_tokens(&v, tokens, e);
	if (!rc) {
		while (v.count && is_filler(&v.token[v.count - 1], v.count - 1))
			v.count--;
		read_settings(&v, spm, spm || (row && row->add_bos));
		rc = spm ? write_sentencepiece(&v, model, e) : write_byte_bpe(&v, row, pre, json, e);
	}
	if (!rc)
		rc = write_settings(&v, spm, config, e);
	free(v.token);
	return rc;
}
