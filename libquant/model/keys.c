#include "model/keys.h"

#include <math.h>
#include <string.h>

#include "model/arch.h"
#include "model/config_differ.h"
#include "model/config_experts.h"
#include "model/config_rope.h"

/* Far beyond any model; they keep every product of two sizes within 64 bits and allocations sane. */
enum { MAX_SIZE = 1 << 20, MAX_VOCAB = 1 << 24 };

double key_four_times(const struct config *c, bool null)
{
	(void)null;
	return 4.0 * c->hidden;
}

double key_even_heads(const struct config *c, bool null)
{
	(void)null;
	return c->hidden / c->heads;
}

/* Absent and null differ: an absent key means the class default, null means one KV head per head. */
static double kv_heads(const struct config *c, bool null)
{
	return c->arch->default_kv_heads && !null ? c->arch->default_kv_heads : c->heads;
}

static double head_dim(const struct config *c, bool null)
{
	(void)null;
	return c->arch->default_head_dim ? c->arch->default_head_dim : c->hidden / c->heads;
}

static double context(const struct config *c, bool null)
{
	(void)null;
	return c->arch->default_context;
}

static double eps(const struct config *c, bool null)
{
	(void)null;
	return (double)c->arch->default_eps;
}

static double theta(const struct config *c, bool null)
{
	(void)null;
	return (double)c->arch->default_theta;
}

static double tied(const struct config *c, bool null)
{
	(void)null;
	return c->arch->default_tied;
}

static double activation(const struct config *c, bool null)
{
	(void)null;
	return c->arch->act;
}

#define F(name) .field = offsetof(struct config, name)
#define LAYER(name, of) .kind = KEY_PER_LAYER, F(name), .layer_field = offsetof(struct layer_config, of), .most = MAX_SIZE

/* What a value needs to be known first stands before it. */
static const struct config_key common[] = {
	{ "hidden_size", "embedding_length", KEY_COUNT, F(hidden), .most = MAX_SIZE, .gguf_required = true },
	{ "intermediate_size", "feed_forward_length", LAYER(ffn, ffn), .gguf_required = true },
	{ "num_hidden_layers", "block_count", KEY_COUNT, F(layers), .most = MAX_LAYERS, .gguf_required = true },
	{ "num_attention_heads", "attention.head_count", LAYER(heads, heads), .gguf_required = true },
	{ "num_key_value_heads", "attention.head_count_kv", LAYER(kv_heads, kv_heads), .otherwise = kv_heads },
	{ "head_dim", "attention.key_length", KEY_COUNT, F(head_dim), .most = MAX_SIZE, .otherwise = head_dim },
	{ "vocab_size", "vocab_size", KEY_COUNT, F(vocab), .most = MAX_VOCAB },
	{ "max_position_embeddings", "context_length", KEY_COUNT, F(context), .most = INT32_MAX, .otherwise = context,
	  .gguf_required = true },
	{ "rms_norm_eps", "attention.layer_norm_rms_epsilon", KEY_NUMBER, F(norm_eps), .most = 1, .otherwise = eps,
	  .gguf_required = true },
	{ "hidden_act", NULL, KEY_ACT, F(act), .otherwise = activation },
	{ "rope_theta", "rope.freq_base", KEY_NUMBER, F(rope.theta), .least = 1 + 1e-6, .most = 1e15, .otherwise = theta },
	{ "partial_rotary_factor", NULL, KEY_NUMBER, F(rope.part), .least = 1e-6, .most = 1, .absent = 1 },
	{ "attention_bias", NULL, KEY_FLAG, F(qkv_bias) },
	{ "mlp_bias", NULL, KEY_FLAG, F(mlp_bias) },
	{ "tie_word_embeddings", NULL, KEY_FLAG, F(tied), .otherwise = tied },
	/* config.c: the class, tokens, windows, quire's own keys for what layers share */
	LISTED("architectures"), LISTED("model_type"), LISTED("bos_token_id"), LISTED("eos_token_id"),
	LISTED("sliding_window"), LISTED("use_sliding_window"), LISTED("max_window_layers"), LISTED("layer_types"),
	LISTED("window_per_layer"), LISTED("kv_heads_per_layer"), LISTED("ffn_per_layer"), LISTED("kv_source_layers"),
	LISTED("kv_source_layer"),
	/* config_rope.c */
	LISTED("rope_scaling"), LISTED("rope_parameters"), LISTED("original_max_position_embeddings"), LISTED("rope_divisors"),
};
enum { COMMON = sizeof common / sizeof *common };

/*
 * Keys that change nothing that is computed here, whatever they say; a star stands for any beginning. Everything else is
 * refused, since what a key does that nobody here has read about cannot be known.
 */
static const char *const harmless[] = {
	/* who wrote the file, in what type, with what code, and what class a loader may take */
	"*_version", "*version", "torch_dtype", "dtype", "auto_map", "tokenizer_class", "is_llama_config", "transformers.js_config",
	"attn_implementation", "use_flash_attn", "use_flash_attention", "torchscript", "use_bfloat16", "tf_legacy_loss", "prefix",
	"finetuning_task", "unsloth_fixed", "model_name", "base_model", "license",
	/* weights as they are stored: formats read them, or refuse them by name */
	"quantization_config", "compression_config",
	/* training: how weights began, what was dropped, how a loss was weighed */
	"initializer_range", "initializer_factor", "init_std", "*dropout", "*_pdrop", "*dropout_prob", "gradient_checkpointing", "use_liger",
	"neftune_noise_alpha", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits", "pruned_heads",
	/* products cut into slices, or in another order or type: the same numbers up to rounding */
	"pretraining_tp", "chunk_size_feed_forward", "reorder_and_upcast_attn",
	/* whether and how a program keeps keys and values, and what it returns */
	"use_cache", "cache_implementation", "return_dict", "return_dict_in_generate", "output_attentions", "output_hidden_states",
	"output_scores", "max_sequence_length", "model_max_length", "seq_length",
	/* how text is generated */
	"max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature",
	"top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
	"bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
	"exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "max_new_tokens",
	/* tokens that no layer knows of */
	"pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "decoder_start_token_id",
	/* heads for other tasks, which are no part of a language model */
	"id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "summary_*", "is_decoder",
};

static bool matches(const char *pattern, const char *key)
{
	size_t n = strlen(pattern), k = strlen(key);
	if (*pattern == '*')
		return k >= n - 1 && !strcmp(key + k - (n - 1), pattern + 1);
	if (pattern[n - 1] == '*')
		return !strncmp(key, pattern, n - 1);
	return !strcmp(key, pattern);
}

static bool replaces(const struct config_key *own, const struct config_key *of)
{
	return own->field == of->field && of->field != NO_FIELD && !own->also;
}

const struct config_key *config_key_at(const struct arch *a, unsigned i)
{
	unsigned behind = COMMON;
	for (const struct config_key *k = a->keys; k && k->kind != KEY_END; k++) {
		bool own = true;
		for (unsigned at = 0; at < COMMON; at++) {
			if (!replaces(k, &common[at]))
				continue;
			if (at == i)
				return k;
			own = false;
		}
		if (own && behind++ == i)
			return k;
	}
	return i < COMMON ? &common[i] : NULL;
}

const struct config_key *config_key_of(const struct arch *a, size_t field)
{
	const struct config_key *k = NULL;
	for (unsigned i = 0; (k = config_key_at(a, i)) && (k->field != field || k->also); i++)
		;
	return k;
}

bool config_key_own(const struct arch *a, const struct config_key *k)
{
	for (unsigned i = 0; i < COMMON; i++)
		if (config_key_at(a, i) == k)
			return false;
	return true;
}

bool config_key_reads(const struct arch *a, const char *key)
{
	const struct config_key *k;
	for (unsigned i = 0; (k = config_key_at(a, i)); i++)
		if ((k->json && !strcmp(k->json, key)) || (k->old && !strcmp(k->old, key)))
			return true;
	return config_experts_key(a, key) || config_differ_key(a, key);
}

/* null, no, nothing: says that what the key is for is not there */
static bool says_no(const struct json *j)
{
	double d = 1;
	bool b = true;
	const char *s = json_string(j);
	return json_is_null(j) || (json_bool(j, &b) && !b) || (json_number(j, &d) && d == 0) || (s && !*s) ||
	       ((json_kind(j) == JSON_ARRAY || json_kind(j) == JSON_OBJECT) && !json_count(j));
}

bool config_key_harmless(const char *key)
{
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (matches(harmless[i], key))
			return true;
	return *key == '_';
}

int config_keys_known(const struct arch *a, const struct json *root, struct err *e)
{
	for (const struct json *j = json_first(root); j; j = json_next(j)) {
		const char *key = json_key(j);
		bool known = says_no(j) || config_key_reads(a, key) || config_key_harmless(key);
		if (!known)
			return err_set(e, ERR_UNSUPPORTED, "config.json: %.100s is set, which quire's %s does not read; if it changes nothing "
				       "that the model computes, take it out", key, a->name);
	}
	return ERR_OK;
}

static int out_of_range(const struct config_key *k, double v, struct err *e)
{
	return err_set(e, ERR_INPUT, "config.json: %s %g is out of range", k->json, v);
}

int config_key_number(const struct config_key *k, const struct json *j, float *out, struct err *e)
{
	double v;
	if (!json_number(j, &v))
		return err_set(e, ERR_INPUT, "config.json: %s is not a number", k->json);
	if (!(v >= k->least && v <= k->most))
		return out_of_range(k, v, e);
	*out = (float)v;
	return ERR_OK;
}

static int read_count(const struct config_key *k, const struct json *j, double absent, uint32_t *out, struct err *e)
{
	int64_t v = (int64_t)absent;
	if (json_is_null(j) && !v)
		return err_set(e, ERR_INPUT, "config.json: %s is missing", k->json);
	if (!json_is_null(j) && !json_int(j, &v))
		return err_set(e, ERR_INPUT, "config.json: %s is not a whole number", k->json);
	if (v < 1 || (double)v > k->most)
		return err_set(e, ERR_INPUT, "config.json: %s is %lld, not within 1 to %.0f", k->json, (long long)v, k->most);
	*out = (uint32_t)v;
	return ERR_OK;
}

static int read_flag(const struct config_key *k, const struct json *j, bool absent, bool *out, struct err *e)
{
	*out = absent;
	if (!json_is_null(j) && !json_bool(j, out))
		return err_set(e, ERR_INPUT, "config.json: %s is not true or false", k->json);
	if (k->kind == KEY_ONLY && *out != absent)
		return err_set(e, ERR_UNSUPPORTED, "config.json: %s is %s, which is not implemented", k->json, *out ? "true" : "false");
	return ERR_OK;
}

static int read_one_kv(struct config *c, const struct config_key *k, const struct json *j, bool absent, struct err *e)
{
	bool one;
	int rc = read_flag(k, j, absent, &one, e);
	if (!rc)
		c->kv_heads = one ? 1 : c->heads;
	return rc;
}

/* A little more than the part, so that it gives the count back whatever the size of a head is. */
static int read_dims(struct config *c, const struct config_key *k, const struct json *j, double absent, struct err *e)
{
	uint32_t v;
	if (j && json_is_null(j))
		return err_set(e, ERR_UNSUPPORTED, "config.json: %s null is not supported", k->json);
	int rc = read_count(k, j, absent, &v, e);
	if (!rc && v > c->head_dim)
		return err_set(e, ERR_INPUT, "config.json: %s is %u, more than the %u dimensions of a head", k->json, v, c->head_dim);
	if (!rc)
		c->rope.part = v == c->head_dim ? 1 : ((float)v + 0.01f) / (float)c->head_dim;
	return rc;
}

static int read_act(const struct config_key *k, const struct json *j, enum activation *out, struct err *e)
{
	const char *name = json_string(j);
	if (name && activation_find(name, out))
		return ERR_OK;
	return err_set(e, ERR_UNSUPPORTED, "config.json: %s \"%.100s\" is not supported (supported: silu, gelu, gelu_pytorch_tanh, quick_gelu, relu, relu2)", k->json,
		       name ? name : "?");
}

static uint32_t same_as(const struct config *c, const struct config_key *k)
{
	return k->layer_field ? *(const uint32_t *)(const void *)((const char *)c + k->layer_field) : 0;
}

static int read_same(const struct config *c, const struct config_key *k, const struct json *j, struct err *e)
{
	int64_t v = (int64_t)k->absent;
	if (!json_is_null(j) && !json_int(j, &v))
		return err_set(e, ERR_INPUT, "config.json: %s is not a whole number", k->json);
	if (v == same_as(c, k))
		return ERR_OK;
	return err_set(e, ERR_UNSUPPORTED, "config.json: %s is %lld; only %u is implemented", k->json, (long long)v, same_as(c, k));
}

static int read_row(struct config *c, const struct config_key *k, const struct json *root, struct err *e)
{
	const struct json *j = k->json ? json_get(root, k->json) : NULL;
	if (!j && k->old)
		j = json_get(root, k->old);
	double absent = k->otherwise ? k->otherwise(c, j != NULL) : k->absent;
	void *out = k->field == NO_FIELD ? NULL : (char *)c + k->field;
	bool ignored;
	if (k->also && json_is_null(j))
		return ERR_OK;
	switch (k->kind) {
	case KEY_COUNT:
	case KEY_PER_LAYER: return read_count(k, j, absent, out, e);
	case KEY_NUMBER:
	case KEY_LIMIT:
		*(float *)out = k->kind == KEY_LIMIT && j ? 0 : (float)absent;
		return json_is_null(j) ? ERR_OK : config_key_number(k, j, out, e);
	case KEY_DIMS: return read_dims(c, k, j, absent, e);
	case KEY_ONE_KV: return read_one_kv(c, k, j, absent != 0, e);
	case KEY_ONLY: return read_flag(k, j, absent != 0, &ignored, e);
	case KEY_FLAG: return read_flag(k, j, absent != 0, out, e);
	case KEY_ACT:
		*(enum activation *)out = (enum activation)absent;
		return json_is_null(j) ? ERR_OK : read_act(k, j, out, e);
	case KEY_SAME: return read_same(c, k, j, e);
	case KEY_END:
	case KEY_LISTED: break;
	}
	return ERR_OK;
}

int config_keys_read(struct config *c, const struct json *root, struct err *e)
{
	const struct config_key *k;
	int rc = ERR_OK;
	for (unsigned i = 0; !rc && (k = config_key_at(c->arch, i)); i++)
		rc = read_row(c, k, root, e);
	return rc;
}

void config_key_print_value(const struct config_key *k, float v, struct json_writer *w)
{
	if (k->whole && v == floorf(v) && v < 1e9f)
		jw_uint(w, k->json, (uint64_t)v);
	else
		config_print_float(w, k->json, v);
}

void config_key_print(const struct config *c, const struct config_key *k, struct json_writer *w)
{
	if (!k->json || k->also)
		return;
	switch (k->kind) {
	case KEY_COUNT:
	case KEY_PER_LAYER: jw_uint(w, k->json, config_key_count(c, k)); break;
	case KEY_ONE_KV: jw_bool(w, k->json, config_key_count(c, k) == 1); break;
	case KEY_LIMIT:
		if (config_key_value(c, k) > 0)
			config_key_print_value(k, config_key_value(c, k), w);
		else
			jw_null(w, k->json);
		break;
	case KEY_NUMBER: config_print_float(w, k->json, config_key_value(c, k)); break;
	case KEY_FLAG: jw_bool(w, k->json, config_key_flag(c, k)); break;
	case KEY_DIMS: jw_uint(w, k->json, c->rope.dims); break;
	case KEY_ACT: jw_string(w, k->json, activation_name(c->act)); break;
	case KEY_SAME: jw_uint(w, k->json, same_as(c, k)); break;
	case KEY_ONLY:
	case KEY_END:
	case KEY_LISTED: break;
	}
}
