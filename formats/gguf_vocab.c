/*
 * Vocabularies: GGUF's token arrays to tokenizer.model (SentencePiece) or
 * tokenizer.json (byte-level BPE), and tokenizer_config.json beside them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "formats/gguf_vocab.h"
#include "text/pre_known.h"

const struct special_row gguf_special_rows[SPECIAL_COUNT] = {
	[SPECIAL_BOS] = { "bos", "bos_token", 1 },      [SPECIAL_EOS] = { "eos", "eos_token", 2 },
	[SPECIAL_UNK] = { "unknown", "unk_token", 0 },  [SPECIAL_PAD] = { "padding", "pad_token", -1 },
	[SPECIAL_EOT] = { "eot", NULL, -1 },     [SPECIAL_EOM] = { "eom", NULL, -1 },
	{ "seperator", "sep_token", -1 },               { "mask", "mask_token", -1 },
	{ "cls", "cls_token", -1 },                     { "fim_pre", NULL, -1 },
	{ "fim_suf", NULL, -1 },             { "fim_mid", NULL, -1 },
	{ "fim_pad", NULL, -1 },             { "fim_rep", NULL, -1 },
	{ "fim_sep", NULL, -1 },             { "prefix", NULL, -1 },
	{ "suffix", NULL, -1 },
};

static int64_t special_id(const struct vocabulary *v, const struct special_row *row)
{
	char key[64];
	uint64_t id;
	snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", row->gguf);
	if (!gguf_uint(gguf_find(v->g, key), 0, &id))
		id = (uint64_t)(v->spm ? row->spm : -1);
	return id < v->count ? (int64_t)id : -1; /* ids out of range are ignored, as elsewhere */
}

/* An empty text stands for the name that loaders give it. */
static int name_empty(struct vocabulary *v, struct token *t, struct err *e)
{
	char name[40];
	if (t->len)
		return 0;
	t->len = (size_t)snprintf(name, sizeof name, "[EMPTY_%zu]", v->count);
	t->text = arena_strndup(&v->arena, name, t->len);
	return t->text ? 0 : err_nomem(e);
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
	v->scores = scores != NULL;
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
		if (!rc)
			rc = name_empty(v, t, e);
		int added = rc ? 1 : map_add(&seen, t->text, t->len, v->count);
		if (added < 0)
			rc = err_nomem(e);
		if (added == 0)
			rc = err_set(e, ERR_INPUT, "tokenizer.ggml.tokens: token %zu has the text of another token", v->count);
	}
	map_release(&seen);
	return rc;
}

/* Texts that end what is generated: loaders take them for control tokens whatever their type. */
static bool ends_text(const struct token *t)
{
	static const char *const names[] = {
		"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>",
		"<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>",
		("<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"),
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i]) == t->len && !memcmp(names[i], t->text, t->len))
			return true;
	return false;
}

/* What is found in a text before anything else looks at it. */
static bool is_added(const struct token *t)
{
	return t->type == TOKEN_CONTROL || t->type == TOKEN_USER || t->type == TOKEN_UNKNOWN || ends_text(t);
}

/* Loaders go by the model's name, since no key says it: Phi-3's special tokens take the space behind them, but for three. */
static bool takes_space(const struct vocabulary *v, const struct token *t)
{
	static const char *const others[] = { "<unk>", "<s>", "<|endoftext|>" };
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strlen(others[i]) == t->len && !memcmp(others[i], t->text, t->len))
			return false;
	return v->rstrip;
}

static bool is_phi3(const struct gguf *g)
{
	size_t len;
	const char *name = gguf_string(gguf_find(g, "general.name"), &len);
	for (size_t i = 0; name && i + 4 <= len; i++)
		if (!strncasecmp(name + i, "phi3", 4) || (i + 5 <= len && !strncasecmp(name + i, "phi-3", 5)))
			return true;
	return false;
}

static void write_added(struct json_writer *w, const struct vocabulary *v)
{
	jw_array(w, "added_tokens");
	for (size_t i = 0; i < v->count; i++) {
		if (!is_added(&v->token[i]))
			continue;
		jw_object(w, NULL);
		jw_uint(w, "id", i);
		jw_string_n(w, "content", v->token[i].text, v->token[i].len);
		jw_bool(w, "single_word", false);
		jw_bool(w, "lstrip", false);
		jw_bool(w, "rstrip", takes_space(v, &v->token[i]));
		jw_bool(w, "normalized", false);
		jw_bool(w, "special", v->token[i].type != TOKEN_USER);
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

static void write_post(struct json_writer *w, const struct vocabulary *v)
{
	static const enum special special[2] = { SPECIAL_BOS, SPECIAL_EOS };
	struct text_end ends[2] = { { NULL, -1 }, { NULL, -1 } };
	char *name[2] = { NULL, NULL };
	for (int k = 0; k < 2; k++) {
		int64_t id = v->id[special[k]];
		if (!(k ? v->add_eos : v->add_bos) || id < 0)
			continue;
		name[k] = strndup(v->token[id].text, v->token[id].len);
		w->out->failed |= !name[k];
		ends[k] = (struct text_end){ name[k], id };
	}
	if (name[0] || name[1])
		tokenizer_write_template(w, ends);
	else
		write_byte_level(w, "post_processor", true);
	free(name[0]);
	free(name[1]);
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
		/* all of them: `tokenizers` numbers an added token that is not among these anew, after the others */
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
	int rc = gguf_write_pre(&w, v->g, row, pre, v->space_prefix, e);
	if (rc)
		return rc;
	write_post(&w, v);
	write_byte_level(&w, "decoder", true);
	rc = write_model(&w, v, row, e);
	jw_end_object(&w);
	return rc ? rc : out->failed ? err_nomem(e) : 0;
}

static void write_token(struct json_writer *w, const char *key, const struct vocabulary *v, int64_t id)
{
	if (id >= 0)
		jw_string_n(w, key, v->token[id].text, v->token[id].len);
}

/* The type that readers of the other files would take a token for. */
static enum token_type apparent_type(const struct vocabulary *v, size_t i)
{
	const struct token *t = &v->token[i];
	if (v->spm && (int64_t)i == v->id[SPECIAL_UNK])
		return TOKEN_UNKNOWN;
	if (is_added(t))
		return t->type == TOKEN_USER && !token_looks_special(t->text, t->len) ? TOKEN_USER : TOKEN_CONTROL;
	return v->spm && t->len == 6 && !memcmp(t->text, "<0x", 3) ? TOKEN_BYTE : TOKEN_NORMAL;
}

/* What the other files cannot say of a vocabulary, so that GGUF can be written again as it was. */
static void write_listed(struct json_writer *w, const struct vocabulary *v)
{
	size_t n = 1;
	jw_object(w, "gguf_token_ids");
	for (int i = 0; i < SPECIAL_COUNT; i++)
		if (v->id[i] >= 0)
			jw_int(w, gguf_special_rows[i].gguf, v->id[i]);
	jw_end_object(w);
	jw_object(w, "gguf_token_types");
	for (int type = TOKEN_NORMAL; type <= TOKEN_BYTE; type++) {
		bool any = false;
		for (size_t i = 0; i < v->count; i++) {
			if ((int)v->token[i].type != type || (int)apparent_type(v, i) == type)
				continue;
			if (!any)
				jw_array(w, token_type_names[type]);
			any = true;
			jw_uint(w, NULL, i);
		}
		if (any)
			jw_end_array(w);
	}
	jw_end_object(w);
	if (v->spm || !v->scores)
		return;
	jw_array(w, "gguf_scores"); /* how many, and their score, again and again */
	for (size_t i = 0; i < v->count; i += n) {
		for (n = 1; i + n < v->count && v->token[i + n].score == v->token[i].score;)
			n++;
		jw_uint(w, NULL, n);
		jw_double(w, NULL, (double)v->token[i].score);
	}
	jw_end_array(w);
}

static int write_settings(const struct vocabulary *v, struct strbuf *out, struct err *e)
{
	bool spm = v->spm;
	struct json_writer w = { .out = out, .indent = 2 };
	char id[24];
	jw_object(&w, NULL);
	jw_string(&w, "tokenizer_class", "PreTrainedTokenizerFast");
	jw_bool(&w, "add_bos_token", v->add_bos);
	jw_bool(&w, "add_eos_token", v->add_eos);
	if (spm) {
		jw_bool(&w, "add_prefix_space", v->space_prefix);
		jw_bool(&w, "legacy", true); /* a space in front of all text, not only the first */
	}
	jw_bool(&w, "clean_up_tokenization_spaces", false);
	/* transformers searches texts for whatever is named here */
	for (int i = 0; i < SPECIAL_COUNT; i++)
		if (gguf_special_rows[i].settings && v->id[i] >= 0 && is_added(&v->token[v->id[i]]))
			write_token(&w, gguf_special_rows[i].settings, v, v->id[i]);
	jw_object(&w, "added_tokens_decoder");
	for (size_t i = 0; i < v->count; i++) {
		const struct token *t = &v->token[i];
		if (!is_added(t))
			continue;
		snprintf(id, sizeof id, "%zu", i);
		jw_object(&w, id);
		jw_string_n(&w, "content", t->text, t->len);
		jw_bool(&w, "lstrip", false);
		jw_bool(&w, "normalized", false);
		jw_bool(&w, "rstrip", takes_space(v, t));
		jw_bool(&w, "single_word", false);
		jw_bool(&w, "special", t->type != TOKEN_USER);
		jw_end_object(&w);
	}
	jw_end_object(&w);
	write_listed(&w, v);
	gguf_chat_templates(v->g, &w);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	return out->failed ? err_nomem(e) : 0;
}

static void read_settings(struct vocabulary *v, bool add_bos)
{
	const struct gguf *g = v->g;
	v->add_bos = add_bos;
	v->space_prefix = v->spm;
	v->rstrip = is_phi3(g);
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_bos_token"), &v->add_bos);
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_eos_token"), &v->add_eos);
	gguf_bool(gguf_find(g, "tokenizer.ggml.add_space_prefix"), &v->space_prefix);
	for (int i = 0; i < SPECIAL_COUNT; i++)
		v->id[i] = special_id(v, &gguf_special_rows[i]);
}

int gguf_vocabulary(const struct gguf_model *m, struct strbuf *model, struct strbuf *json, struct strbuf *config, struct err *e)
{
	size_t len;
	char pre[64];
	const char *kind = gguf_string(gguf_find(m->meta, "tokenizer.ggml.model"), &len);
	const struct gguf_kv *tokens = gguf_find(m->meta, "tokenizer.ggml.tokens");
	bool spm = kind && len == 5 && !memcmp(kind, "llama", 5), bpe = kind && len == 4 && !memcmp(kind, "gpt2", 4);
	struct vocabulary v = { .g = m->meta, .spm = spm };
	/* other tokenizers (bert, t5, rwkv ...) leave the model without tokenizer files; the facts say what it has */
	if ((!spm && !bpe) || !tokens)
		return 0;
	const struct pre_known *row = gguf_pre_find(m->meta, pre);
	int rc = read_tokens(&v, tokens, e);
	if (!rc) {
		read_settings(&v, spm || (row && row->add_bos));
		rc = spm ? gguf_vocab_spm(&v, model, e) : write_byte_bpe(&v, row, pre, json, e);
	}
	if (!rc)
		rc = write_settings(&v, config, e);
	free(v.token);
	arena_release(&v.arena);
	return rc;
}
