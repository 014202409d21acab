/* What a GGUF file says of a model: hyper-parameters and vocabulary as keys. The loader is strict about value types. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/gguf_vocab.h"
#include "model/keys.h"

static const char *key_of(const struct config *c, const char *suffix, char buf[160])
{
	snprintf(buf, 160, "%s.%s", c->arch->gguf, suffix);
	return buf;
}

static void put_count(struct gguf_writer *w, const struct config *c, const char *suffix, uint32_t v)
{
	char key[160];
	gguf_put_u32(w, key_of(c, suffix, key), v);
}

static void put_float(struct gguf_writer *w, const struct config *c, const char *suffix, float v)
{
	char key[160];
	gguf_put_f32(w, key_of(c, suffix, key), v);
}

/* One number when all layers agree, else a list. */
static int put_per_layer(struct gguf_writer *w, const struct config *c, const char *suffix, size_t field, struct err *e)
{
	char key[160];
	bool same = true;
	uint32_t *v = calloc((size_t)c->layers + 1, sizeof *v);
	if (!v)
		return err_nomem(e);
	for (uint32_t i = 0; i < c->layers; i++) {
		memcpy(&v[i], (const char *)&c->layer[i] + field, sizeof *v);
		same &= v[i] == v[0];
	}
	if (same)
		gguf_put_u32(w, key_of(c, suffix, key), v[0]);
	else
		gguf_put_u32s(w, key_of(c, suffix, key), v, c->layers);
	free(v);
	return 0;
}

static void put_scaling(struct gguf_writer *w, const struct config *c)
{
	const struct rope *r = &c->rope;
	char key[160];
	if (r->scaling == ROPE_LONGROPE) {
		/* the divisors are tensors */
		put_count(w, c, "rope.scaling.original_context_length", r->original_context);
		put_float(w, c, "rope.scaling.attn_factor", r->attention_factor);
	}
	if (r->scaling != ROPE_LINEAR && r->scaling != ROPE_YARN)
		return;
	const char *type = r->scaling == ROPE_LINEAR ? "linear" : "yarn";
	gguf_put_string(w, key_of(c, "rope.scaling.type", key), type, strlen(type));
	put_float(w, c, "rope.scaling.factor", r->factor);
	if (r->scaling == ROPE_LINEAR)
		return;
	put_count(w, c, "rope.scaling.original_context_length", r->original_context);
	put_float(w, c, "rope.scaling.yarn_beta_fast", r->beta_fast);
	put_float(w, c, "rope.scaling.yarn_beta_slow", r->beta_slow);
	/* ggml's rotation multiplies by the usual factor itself; the key is what remains */
	double usual = r->factor > 1 ? 1 + 0.1 * log(r->factor) : 1;
	if (fabs(r->attention_factor / usual - 1) > 1e-6)
		put_float(w, c, "rope.scaling.attn_factor", (float)(r->attention_factor / usual));
}

static void put_windows(struct gguf_writer *w, const struct config *c)
{
	char key[160];
	uint32_t window = 0, with = 0;
	for (uint32_t i = 0; i < c->layers; i++)
		if (c->layer[i].window) {
			window = c->layer[i].window;
			with++;
		}
	if (!with)
		return;
	put_count(w, c, "attention.sliding_window", window);
	if (with == c->layers && c->arch->window != WINDOW_PERIOD)
		return;
	gguf_put_bools(w, key_of(c, "attention.sliding_window_pattern", key), c->layers);
	for (uint32_t i = 0; i < c->layers; i++)
		gguf_array_bool(w, c->layer[i].window != 0);
}

static int put_row(struct gguf_writer *w, const struct config *c, const struct config_key *k, struct err *e)
{
	char key[160];
	if (!k->gguf || k->also)
		return 0;
	switch (k->kind) {
	case KEY_ONE_KV:
	case KEY_PER_LAYER: return put_per_layer(w, c, k->gguf, k->layer_field, e);
	case KEY_COUNT:
		/* loaders divide the width by the heads of the first layer when there is no size of a head */
		if (k->field == offsetof(struct config, head_dim) && (uint64_t)c->layer[0].heads * c->head_dim == c->hidden)
			break;
		put_count(w, c, k->gguf, config_key_count(c, k));
		if (k->field == offsetof(struct config, head_dim))
			put_count(w, c, "attention.value_length", c->head_dim);
		break;
	case KEY_NUMBER: put_float(w, c, k->gguf, config_key_value(c, k)); break;
	case KEY_LIMIT:
		if (config_key_value(c, k) > 0 || k->gguf_required)
			put_float(w, c, k->gguf, config_key_value(c, k));
		break;
	case KEY_FLAG: gguf_put_bool(w, key_of(c, k->gguf, key), config_key_flag(c, k)); break;
	default: break;
	}
	return 0;
}

int gguf_put_config(struct gguf_writer *w, const struct config *c, struct err *e)
{
#define F(name) offsetof(struct config, name)
	static const size_t first[] = { F(layers), F(context), F(hidden), F(vocab), F(ffn), F(heads), F(kv_heads), F(head_dim), F(norm_eps) };
#undef F
	int rc = gguf_expressible(c, w->notes, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < sizeof first / sizeof *first; i++)
		if ((rc = put_row(w, c, config_key_of(c->arch, first[i]), e)))
			return rc;
	if (c->arch->turning != TURN_NONE) {
		if (!gguf_beside(c->arch->gguf, "rope.dimension_count"))
			put_count(w, c, "rope.dimension_count", c->rope.dims);
		put_row(w, c, config_key_of(c->arch, offsetof(struct config, rope.theta)), e);
		put_scaling(w, c);
		if (c->rope.temper != 0)
			put_float(w, c, "attention.temperature_scale", c->rope.temper);
	}
	put_windows(w, c);
	if (c->experts) {
		put_count(w, c, "expert_count", c->experts);
		put_count(w, c, "expert_used_count", c->experts_used);
	}
	if (c->experts && c->arch->mixture->width_key)
		put_count(w, c, "expert_feed_forward_length", c->expert_ffn);
	gguf_put_beside(w, c);
	const struct config_key *k;
	for (unsigned i = 0; (k = config_key_at(c->arch, i)); i++)
		if (config_key_own(c->arch, k))
			put_row(w, c, k, e);
	return 0;
}

struct texts {
	struct gguf_writer *w;
	const struct tokenizer *t;
	struct map seen;
	float *scores;
	int32_t *types;
};

/* U+2581 stands for a space in pieces; user-defined tokens are matched in the text itself. */
static void plain_spaces(struct strbuf *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (n - i >= 3 && !memcmp(s + i, "\xe2\x96\x81", 3)) {
			strbuf_putc(b, ' ');
			i += 2;
		} else {
			strbuf_putc(b, s[i]);
		}
}

static int put_token(struct texts *v, int32_t id, struct err *e)
{
	struct strbuf text = { 0 };
	size_t len = 0;
	uint64_t other;
	const char *piece = (size_t)id < tokenizer_size(v->t) ? tokenizer_piece(v->t, id, &len) : NULL;
	enum token_type type = piece ? tokenizer_type(v->t, id) : TOKEN_UNUSED;
	if (!piece)
		strbuf_printf(&text, "[PAD%d]", (int)id);
	else if (!len)
		strbuf_printf(&text, "[EMPTY_%d]", (int)id);
	else if (type == TOKEN_USER && !tokenizer_listed(v->t))
		plain_spaces(&text, piece, len);
	else
		strbuf_add(&text, piece, len);
	v->types[id] = (int32_t)type;
	v->scores[id] = piece ? tokenizer_score(v->t, id) : -10000.0f;
	char *copy = text.failed ? NULL : arena_strndup(&v->w->arena, text.data, text.len);
	int added = copy ? map_add(&v->seen, copy, text.len, (uint64_t)id) : -1;
	if (added == 1)
		gguf_array_string(v->w, copy, text.len);
	strbuf_release(&text);
	if (added < 0)
		return err_nomem(e);
	if (added == 0) {
		map_get(&v->seen, copy, strlen(copy), &other);
		return err_set(e, ERR_UNSUPPORTED, "tokens %d and %d have the same text '%.80s'; GGUF needs distinct ones", (int)other,
			       (int)id, copy);
	}
	return 0;
}

/* A space inside a part would read as the gap between the parts; in the byte alphabet it is written U+0120. */
static void put_merge(struct gguf_writer *w, struct strbuf *text, const char *left, const char *right)
{
	strbuf_clear(text);
	for (int side = 0; side < 2; side++) {
		for (const char *s = side ? right : left; *s; s++)
			if (*s == ' ')
				strbuf_puts(text, "\xc4\xa0");
			else
				strbuf_putc(text, *s);
		if (!side)
			strbuf_putc(text, ' ');
	}
	gguf_array_string(w, text->data ? text->data : "", text->len);
	w->kv.failed |= text->failed;
}

static void put_merges(struct gguf_writer *w, const struct tokenizer *t)
{
	struct strbuf text = { 0 };
	const char *left, *right;
	gguf_begin_strings(w, "tokenizer.ggml.merges");
	for (size_t i = 0; i < tokenizer_merges(t); i++) {
		tokenizer_merge(t, i, &left, &right);
		put_merge(w, &text, left, right);
	}
	gguf_end_strings(w);
	strbuf_release(&text);
}

static void put_id(struct gguf_writer *w, const struct config *c, const char *name, int64_t id)
{
	char key[80];
	if (id < 0 || id >= c->vocab)
		return;
	snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
	gguf_put_u32(w, key, (uint32_t)id);
}

int64_t gguf_special(const struct tokenizer *t, const struct json *settings, const struct special_row *row)
{
	const struct json *ids = json_get(settings, "gguf_token_ids"), *j = row->settings ? json_get(settings, row->settings) : NULL;
	int64_t id;
	if (ids)
		return json_int(json_get(ids, row->gguf), &id) && id >= 0 && (uint64_t)id < tokenizer_size(t) ? id : -1;
	const char *s = json_kind(j) == JSON_OBJECT ? json_string(json_get(j, "content")) : json_string(j);
	return s ? tokenizer_id(t, s, strlen(s)) : -1;
}

static void put_ids(struct gguf_writer *w, const struct config *c, const struct tokenizer *t, const struct json *settings)
{
	int64_t id[SPECIAL_COUNT], bos = tokenizer_bos(t), eos = tokenizer_eos(t);
	for (int i = 0; i < SPECIAL_COUNT; i++)
		id[i] = gguf_special(t, settings, &gguf_special_rows[i]);
	if (bos < 0)
		bos = c->has_bos ? c->bos : id[SPECIAL_BOS];
	if (eos < 0 && c->eos_count)
		eos = c->eos[0];
	/* without the keys a byte-level vocabulary gets token 11 for both */
	id[SPECIAL_BOS] = bos < 0 ? eos : bos;
	id[SPECIAL_EOS] = eos < 0 ? bos : eos;
	if (id[SPECIAL_EOT] < 0 && id[SPECIAL_EOM] < 0)
		for (uint32_t i = 0, k = 0; i < c->eos_count && k < 2; i++)
			if (c->eos[i] != eos)
				id[k++ ? SPECIAL_EOM : SPECIAL_EOT] = c->eos[i];
	for (int32_t i = 0; id[SPECIAL_UNK] < 0 && (uint32_t)i < c->vocab && (size_t)i < tokenizer_size(t); i++)
		if (tokenizer_type(t, i) == TOKEN_UNKNOWN)
			id[SPECIAL_UNK] = i;
	for (int i = 0; i < SPECIAL_COUNT; i++)
		put_id(w, c, gguf_special_rows[i].gguf, id[i]);
}

static int put_texts(struct gguf_writer *w, const struct config *c, const struct tokenizer *t, struct err *e)
{
	bool spm = tokenizer_kind(t) == TOKENIZER_SPM;
	struct texts v = { .w = w, .t = t };
	v.scores = malloc(((size_t)c->vocab + 1) * sizeof *v.scores);
	v.types = malloc(((size_t)c->vocab + 1) * sizeof *v.types);
	int rc = v.scores && v.types ? 0 : err_nomem(e);
	gguf_begin_strings(w, "tokenizer.ggml.tokens");
	for (uint32_t i = 0; i < c->vocab && !rc; i++)
		rc = put_token(&v, (int32_t)i, e);
	gguf_end_strings(w);
	if (!rc && (spm || tokenizer_scored(t)))
		gguf_put_f32s(w, "tokenizer.ggml.scores", v.scores, c->vocab);
	if (!rc)
		gguf_put_i32s(w, "tokenizer.ggml.token_type", v.types, c->vocab);
	if (!rc && !spm)
		put_merges(w, t);
	map_release(&v.seen);
	free(v.scores);
	free(v.types);
	return rc;
}

/*
 * A flag in one file that the other file's post-processor belies; loaders of GGUF go by the flag that is written,
 * or, where none is, by the kind of vocabulary for BOS (always written, then) and by "no" for EOS.
 */
static void put_flag(struct gguf_writer *w, const struct json *settings, const char *flag, bool add, bool always)
{
	char key[80];
	bool said = add;
	if (json_bool(json_get(settings, flag), &said) && said != add)
		notes_add(w->notes,
			  "tokenizer_config.json says %s: %s, the post-processor of tokenizer.json adds %s; written as %s: %s, "
			  "as the tokenizers library encodes (transformers before version 5 and llama.cpp's converter go by the former)",
			  flag, said ? "true" : "false", add ? "one" : "none", flag, add ? "true" : "false");
	snprintf(key, sizeof key, "tokenizer.ggml.%s", flag);
	if (add || always)
		gguf_put_bool(w, key, add);
}

/* GGUF can say one token in front of a text and one behind it. */
static void put_frame(struct gguf_writer *w, const struct tokenizer *t, const struct json *settings)
{
	struct token_frame f;
	tokenizer_frame(t, &f);
	put_flag(w, settings, "add_bos_token", f.heads > 0, true);
	put_flag(w, settings, "add_eos_token", tokenizer_adds_eos(t), false);
	if (f.heads > 1 || f.tails > 1 || (f.tails && f.tail[0] != tokenizer_eos(t)))
		notes_add(w->notes, "the tokenizer puts %zu tokens in front of a text and %zu behind it; GGUF says bos and eos only", f.heads, f.tails);
}

int gguf_put_vocabulary(struct gguf_writer *w, const struct config *c, const struct tokenizer *t, const char *pre,
			const struct side_file *settings, struct err *e)
{
	if (!t) {
		gguf_put_string(w, "tokenizer.ggml.model", "no_vocab", 8);
		return 0;
	}
	bool spm = tokenizer_kind(t) == TOKENIZER_SPM;
	if (tokenizer_size(t) > c->vocab)
		return err_set(e, ERR_INPUT, "the tokenizer has %zu tokens, the embedding %u rows; no token may be without one in GGUF",
			       tokenizer_size(t), c->vocab);
	struct json *root = NULL;
	if (settings && !(root = json_parse(settings->data, settings->size, e)))
		return err_prefix(e, "%s", settings->name);
	const char *model = spm ? "llama" : "gpt2";
	gguf_put_string(w, "tokenizer.ggml.model", model, strlen(model));
	/* for a SentencePiece vocabulary nothing is said that loaders assume and no file says */
	if (spm && pre && strcmp(pre, "default"))
		gguf_put_string(w, "tokenizer.ggml.pre", pre, strlen(pre));
	int rc = spm ? 0 : gguf_put_pre(w, t, pre, e);
	if (!rc)
		rc = put_texts(w, c, t, e);
	put_ids(w, c, t, root);
	put_frame(w, t, root);
	if (tokenizer_space_prefix(t) != spm || json_get(root, "add_prefix_space"))
		gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", tokenizer_space_prefix(t));
	json_free(root);
	return rc;
}
