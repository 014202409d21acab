#include "formats/generation.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "model/config_rope.h"

/* As llama.cpp's converter takes them over. */
static const struct setting {
	const char *name, *key;
	enum gguf_type type;
} settings[] = {
	{ "temperature", "general.sampling.temp", GGUF_F32 },
	{ "top_k", "general.sampling.top_k", GGUF_I32 },
	{ "top_p", "general.sampling.top_p", GGUF_F32 },
	{ "min_p", "general.sampling.min_p", GGUF_F32 },
	{ "repetition_penalty", "general.sampling.penalty_repeat", GGUF_F32 },
	{ "penalty_last_n", "general.sampling.penalty_last_n", GGUF_I32 },
	{ "xtc_probability", "general.sampling.xtc_probability", GGUF_F32 },
	{ "xtc_threshold", "general.sampling.xtc_threshold", GGUF_F32 },
	{ "mirostat", "general.sampling.mirostat", GGUF_I32 },
	{ "mirostat_tau", "general.sampling.mirostat_tau", GGUF_F32 },
	{ "mirostat_eta", "general.sampling.mirostat_eta", GGUF_F32 },
	{ "sequence", "general.sampling.sequence", GGUF_STRING },
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static int add_end(struct end_tokens *t, int64_t id, struct err *e)
{
	for (uint32_t i = 0; i < t->count; i++)
		if (t->id[i] == id)
			return ERR_OK;
	if (t->count == END_TOKENS)
		return err_set(e, ERR_UNSUPPORTED, "generation_config.json: eos_token_id lists more than %d tokens", END_TOKENS);
	t->id[t->count++] = (int32_t)id;
	return ERR_OK;
}

static const char FILE_NAME[] = "generation_config.json";

int checkpoint_ends(const struct checkpoint *c, const struct config *config, struct end_tokens *out, struct err *e)
{
	*out = (struct end_tokens){ 0 };
	int rc = ERR_OK;
	for (uint32_t i = 0; i < config->eos_count && !rc; i++)
		rc = add_end(out, config->eos[i], e);
	struct json *root = NULL;
	if (!rc)
		rc = checkpoint_json(c, FILE_NAME, &root, e);
	const struct json *eos = json_get(root, "eos_token_id");
	bool list = json_kind(eos) == JSON_ARRAY;
	const struct json *first = json_is_null(eos) ? NULL : eos;
	for (const struct json *j = list ? json_first(eos) : first; j && !rc; j = list ? json_next(j) : NULL) {
		int64_t id;
		if (!json_int(j, &id) || id > INT32_MAX)
			rc = err_set(e, ERR_INPUT, "%.600s: generation_config.json: eos_token_id is not a token id", c->path);
		else if (id >= 0)
			rc = add_end(out, id, e);
	}
	json_free(root);
	return rc;
}

int gguf_put_sampling(struct gguf_writer *w, const struct checkpoint *c, struct err *e)
{
	struct json *root;
	int rc = checkpoint_json(c, FILE_NAME, &root, e);
	if (rc || !root)
		return rc;
	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *s = &settings[i];
		const struct json *j = json_get(root, s->name);
		const char *text = json_string(j);
		int64_t whole;
		double v;
		if (s->type == GGUF_STRING && text)
			gguf_put_string(w, s->key, text, strlen(text));
		else if (s->type == GGUF_I32 && json_int(j, &whole) && whole >= INT32_MIN && whole <= INT32_MAX)
			gguf_put_i32(w, s->key, (int32_t)whole);
		else if (s->type == GGUF_F32 && json_number(j, &v))
			gguf_put_f32(w, s->key, (float)v);
	}
	json_free(root);
	return ERR_OK;
}

static bool print_ids(const struct gguf *g, struct json_writer *w)
{
	static const char *const ends[] = { "eos", "eot", "eom" };
	struct end_tokens t = { 0 };
	struct err ignored;
	uint64_t id;
	char key[64];
	bool some = false;
	if (gguf_uint(gguf_find(g, "tokenizer.ggml.bos_token_id"), 0, &id) && (some = true))
		jw_uint(w, "bos_token_id", id);
	for (int i = 0; i < 3; i++) {
		snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ends[i]);
		if (gguf_uint(gguf_find(g, key), 0, &id) && id <= INT32_MAX)
			add_end(&t, (int64_t)id, &ignored);
	}
	if (t.count == 1)
		jw_int(w, "eos_token_id", t.id[0]);
	if (t.count > 1) {
		jw_array(w, "eos_token_id");
		for (uint32_t i = 0; i < t.count; i++)
			jw_int(w, NULL, t.id[i]);
		jw_end_array(w);
	}
	if (gguf_uint(gguf_find(g, "tokenizer.ggml.padding_token_id"), 0, &id) && (some = true))
		jw_uint(w, "pad_token_id", id);
	return some || t.count;
}

static bool print_settings(const struct gguf *g, struct json_writer *w)
{
	bool some = false;
	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *s = &settings[i];
		const struct gguf_kv *kv = gguf_find(g, s->key);
		size_t len;
		const char *text = gguf_string(kv, &len);
		double v;
		if (text ? !utf8_valid(text, len) : !gguf_float(kv, 0, &v))
			continue;
		/* transformers samples only when told so */
		if (!text && !strcmp(s->name, "temperature") && v > 0)
			jw_bool(w, "do_sample", true);
		if (text)
			jw_string_n(w, s->name, text, len);
		else if (s->type == GGUF_I32)
			jw_int(w, s->name, (int64_t)v);
		else
			config_print_float(w, s->name, (float)v);
		some = true;
	}
	return some;
}

void gguf_generation_config(const struct gguf *g, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_object(&w, NULL);
	bool some = print_ids(g, &w);
	some |= print_settings(g, &w);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
	if (!some)
		strbuf_clear(out);
}
