/*
 * What quire reads of a GGUF's metadata, by type, and what a model cannot be without: llama.cpp's loader refuses such
 * files, and a default in place of a key that is there but of another type would be another model.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/gguf_model.h"
#include "model/keys.h"

enum kind { COUNT, COUNTS /* one or one per layer */, NUMBER, FLAG, TEXT, TEXTS, NUMBERS, COUNTS_OR_FLAGS };
static const char *const kind_names[] = {
	"a whole number", "a whole number or an array of them", "a number", "a bool", "a string", "an array of strings",
	"an array of numbers", "a whole number or an array of bools",
};

struct key_row {
	const char *key;
	enum kind kind;
	bool required;      /* of a model of an architecture that is known */
};

/* Behind "{architecture}.", beside those that are rows of keys.h. */
static const struct key_row arch_keys[] = {
	{ "attention.value_length", COUNT, false },
	{ "attention.sliding_window", COUNT, false },
	{ "attention.sliding_window_pattern", COUNTS_OR_FLAGS, false },
	{ "expert_count", COUNT, false },
	{ "expert_used_count", COUNT, false },
	{ "expert_feed_forward_length", COUNT, false },
	{ "rope.dimension_count", COUNT, false },
	{ "rope.scale_linear", NUMBER, false },
	{ "rope.scaling.type", TEXT, false },
	{ "rope.scaling.factor", NUMBER, false },
	{ "rope.scaling.attn_factor", NUMBER, false },
	{ "rope.scaling.original_context_length", COUNT, false },
	{ "rope.scaling.yarn_beta_fast", NUMBER, false },
	{ "rope.scaling.yarn_beta_slow", NUMBER, false },
	{ "rope.scaling.yarn_log_multiplier", NUMBER, false },
	{ "attention.temperature_scale", NUMBER, false },
};
static const enum kind kinds[] = {
	[KEY_COUNT] = COUNT, [KEY_PER_LAYER] = COUNTS, [KEY_NUMBER] = NUMBER, [KEY_LIMIT] = NUMBER, [KEY_FLAG] = FLAG,
	[KEY_ONE_KV] = COUNTS,
};

static const struct key_row keys[] = {
	{ "general.architecture", TEXT, false },
	{ "general.file_type", COUNT, false },
	{ "general.name", TEXT, false },
	{ "split.count", COUNT, false },
	{ "split.no", COUNT, false },
	{ "split.tensors.count", COUNT, false },
	{ "tokenizer.chat_template", TEXT, false },
	{ "tokenizer.ggml.model", TEXT, false },
	{ "tokenizer.ggml.pre", TEXT, false },
	{ "tokenizer.ggml.tokens", TEXTS, false },
	{ "tokenizer.ggml.merges", TEXTS, false },
	{ "tokenizer.ggml.scores", NUMBERS, false },
	{ "tokenizer.ggml.token_type", NUMBERS, false },
	{ "tokenizer.ggml.bos_token_id", COUNT, false },
	{ "tokenizer.ggml.eos_token_id", COUNT, false },
	{ "tokenizer.ggml.eot_token_id", COUNT, false },
	{ "tokenizer.ggml.eom_token_id", COUNT, false },
	{ "tokenizer.ggml.unknown_token_id", COUNT, false },
	{ "tokenizer.ggml.padding_token_id", COUNT, false },
	{ "tokenizer.ggml.add_bos_token", FLAG, false },
	{ "tokenizer.ggml.add_eos_token", FLAG, false },
	{ "tokenizer.ggml.add_space_prefix", FLAG, false },
	{ "tokenizer.ggml.remove_extra_whitespaces", FLAG, false },
};

static bool is_kind(const struct gguf_kv *kv, enum kind kind)
{
	bool list = kv->type == GGUF_ARRAY, real = kv->elem == GGUF_F32 || kv->elem == GGUF_F64;
	bool text = kv->elem == GGUF_STRING, flag = kv->elem == GGUF_BOOL, whole = !real && !text && !flag;
	switch (kind) {
	case COUNT: return !list && whole;
	case COUNTS: return whole;
	case NUMBER: return !list && (whole || real);
	case FLAG: return !list && flag;
	case TEXT: return !list && text;
	case TEXTS: return list && text;
	case NUMBERS: return list && (whole || real);
	case COUNTS_OR_FLAGS: return whole || (list && flag);
	}
	return false;
}

static int check_key(const struct gguf_kv *kv, const char *name, const struct key_row *row, struct err *e)
{
	if (kv && !is_kind(kv, row->kind))
		return err_set(e, ERR_INPUT, "key '%s' is not %s", name, kind_names[row->kind]);
	return kv || !row->required ? ERR_OK : err_set(e, ERR_INPUT, "key '%s' is missing", name);
}

/* Lists of one entry per token, and a matrix with one row for each. */
static int check_vocabulary(const struct gguf_model *m, struct err *e)
{
	static const char *const lists[] = { "tokenizer.ggml.scores", "tokenizer.ggml.token_type" };
	const struct gguf_kv *tokens = gguf_find(m->meta, "tokenizer.ggml.tokens"), *model = gguf_find(m->meta, "tokenizer.ggml.model");
	const struct gguf_tensor *embed = gguf_model_tensor(m, "token_embd.weight", NULL);
	if (!tokens && !model)
		return ERR_OK;
	size_t len = 0;
	const char *kind = gguf_string(model, &len);
	/* "none", "no_vocab"; a kind that is not read is refused by its name where the tokenizer is opened */
	if (!tokens && !(len == 4 && !memcmp(kind, "gpt2", 4)) && !(len == 5 && !memcmp(kind, "llama", 5)))
		return ERR_OK;
	if (!tokens || !model)
		return err_set(e, ERR_INPUT, "key 'tokenizer.ggml.%s' is missing", tokens ? "model" : "tokens");
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		const struct gguf_kv *kv = gguf_find(m->meta, lists[i]);
		if (kv && kv->count != tokens->count)
			return err_set(e, ERR_INPUT, "key '%s' has %" PRIu64 " entries for %" PRIu64 " tokens", lists[i], kv->count, tokens->count);
	}
	if (embed && embed->ndim == 2 && embed->dim[1] != tokens->count)
		return err_set(e, ERR_INPUT, "tensor 'token_embd.weight' has %" PRIu64 " rows for %" PRIu64 " tokens", embed->dim[1],
			       tokens->count);
	return ERR_OK;
}

bool gguf_key_of_config(const struct arch *a, const char *suffix)
{
	const struct config_key *k;
	bool found = !strncmp(suffix, "rope.scaling.", 13) || gguf_beside(a->gguf, suffix);
	for (unsigned i = 0; (k = config_key_at(a, i)) && !found; i++)
		found = k->gguf && !strcmp(k->gguf, suffix);
	for (size_t i = 0; i < sizeof arch_keys / sizeof *arch_keys && !found; i++)
		found = !strcmp(arch_keys[i].key, suffix);
	return found;
}

static int check_arch_key(const struct gguf_model *m, const struct key_row *row, struct err *e)
{
	char name[160];
	snprintf(name, sizeof name, "%s.%s", m->arch_name, row->key);
	return check_key(gguf_model_key(m, row->key), name, row, e);
}

static int check_arch_keys(const struct gguf_model *m, struct err *e)
{
	const struct config_key *k;
	int rc = ERR_OK;
	for (unsigned i = 0; !rc && (k = config_key_at(m->arch, i)); i++)
		if (k->gguf)
			rc = check_arch_key(m, &(struct key_row){ k->gguf, kinds[k->kind], k->gguf_required }, e);
	for (size_t i = 0; i < sizeof arch_keys / sizeof *arch_keys && !rc; i++)
		rc = check_arch_key(m, &arch_keys[i], e);
	return rc;
}

int gguf_check_keys(const struct gguf_model *m, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < sizeof keys / sizeof *keys && !rc; i++)
		rc = check_key(gguf_find(m->meta, keys[i].key), keys[i].key, &keys[i], e);
	/* a vocabulary alone is no model */
	if (!rc && m->arch && m->part[0].g.tensor_count)
		rc = check_arch_keys(m, e);
	return rc ? rc : check_vocabulary(m, e);
}
