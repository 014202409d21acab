#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/strbuf.h"
#include "formats/file.h"
#include "model/arch.h"
#include "model/config.h"
#include "check.h"

#define SIZES "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,\"vocab_size\":100,\"num_attention_heads\":8"

/* A config of this type with `more` members; parses it. */
static int parse(struct config *c, const char *type, const char *more)
{
	char text[2000];
	snprintf(text, sizeof text, "{\"model_type\":\"%s\"," SIZES "%s%s}", type, *more ? "," : "", more);
	return config_parse(c, text, strlen(text), &e);
}

static struct config good(const char *type, const char *more)
{
	struct config c;
	if (parse(&c, type, more))
		fail_msg("%s: %s", more, e.message);
	return c;
}

static void refuses(const char *type, const char *more, int code, const char *fragment)
{
	struct config c;
	int rc = parse(&c, type, more);
	if (rc != code || !strstr(e.message, fragment) || !strstr(e.message, "config.json"))
		fail_msg("%s: %d '%s', want %d '%s'", more, rc, rc ? e.message : "", code, fragment);
	assert_null(c.layer);
}

static void refuses_text(const char *text, int code, const char *fragment)
{
	struct config c;
	int rc = config_parse(&c, text, strlen(text), &e);
	if (rc != code || !strstr(e.message, fragment))
		fail_msg("%s: %d '%s'", text, rc, rc ? e.message : "");
}

static void defaults_of_absent_keys(void **state)
{
	(void)state;
	struct config c = good("llama", "");
	assert_int_equal(c.kv_heads, 8);
	assert_int_equal(c.head_dim, 8);
	assert_int_equal(c.context, 2048);
	assert_true(c.norm_eps == 1e-6f && c.rope.theta == 10000 && c.act == ACT_SILU);
	assert_false(c.tied || c.qkv_bias || c.o_bias || c.mlp_bias);
	assert_int_equal(c.bos, 1);
	assert_int_equal(c.eos[0], 2);
	config_release(&c);

	c = good("mistral", "");
	assert_int_equal(c.kv_heads, 8);
	assert_int_equal(c.context, 131072);
	assert_int_equal(c.layer[0].window, 4096);
	assert_int_equal(c.layer[3].window, 4096);
	config_release(&c);
	c = good("mistral", "\"sliding_window\":null,\"num_key_value_heads\":null");
	assert_int_equal(c.layer[0].window, 0);
	assert_int_equal(c.kv_heads, 8);
	config_release(&c);

	c = good("qwen2", "\"num_key_value_heads\":2,\"sliding_window\":16,\"max_window_layers\":0");
	assert_true(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.has_bos && !c.eos_count);
	assert_int_equal(c.layer[3].window, 0); /* use_sliding_window is false */
	config_release(&c);
	refuses("qwen2", "", ERR_INPUT, "multiple of its 32 KV heads");

	c = good("qwen3", "\"num_key_value_heads\":4");
	assert_int_equal(c.head_dim, 128);
	assert_true(role_required(&c, ROLE_Q_NORM, 0) && !c.qkv_bias);
	config_release(&c);
	c = good("qwen3", "\"num_key_value_heads\":4,\"attention_bias\":true,\"head_dim\":null");
	assert_int_equal(c.head_dim, 128);
	assert_true(c.qkv_bias && c.o_bias);
	config_release(&c);
}

static void windows_of_layers(void **state)
{
	(void)state;
	struct config c = good("qwen2", "\"num_key_value_heads\":2,\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":2");
	assert_true(!c.layer[0].window && !c.layer[1].window && c.layer[2].window == 16 && c.layer[3].window == 16);
	config_release(&c);
	c = good("qwen3", "\"num_key_value_heads\":2,\"sliding_window\":16,\"use_sliding_window\":true,\"layer_types\":"
			  "[\"sliding_attention\",\"full_attention\",\"sliding_attention\",\"full_attention\"]");
	assert_true(c.layer[0].window == 16 && !c.layer[1].window && c.layer[2].window == 16 && !c.layer[3].window);
	assert_true(config_kv_bytes(&c, 100, 2) == 2 * 2 * (100 + 100 + 16 + 16) * 2 * 128);
	config_release(&c);
	/* transformers' LlamaConfig has neither key, MistralConfig no layer_types: full attention, and the window everywhere */
	c = good("llama", "\"sliding_window\":16,\"layer_types\":[\"sliding_attention\",\"full_attention\"]");
	assert_true(!c.layer[0].window && !c.layer[1].window);
	config_release(&c);
	c = good("mistral", "\"sliding_window\":16,\"layer_types\":"
			    "[\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]");
	assert_true(c.layer[0].window == 16 && c.layer[1].window == 16);
	config_release(&c);
	c = good("llama", "\"window_per_layer\":[0,8,0,9]");
	assert_true(!c.layer[0].window && c.layer[1].window == 8 && !c.layer[2].window && c.layer[3].window == 9);
	config_release(&c);
	refuses("llama", "\"window_per_layer\":[0,8]", ERR_INPUT, "list of 4");
	refuses("llama", "\"window_per_layer\":[0,8,-1,0]", ERR_INPUT, "window_per_layer[2]");
	refuses("qwen2", "\"num_key_value_heads\":2,\"layer_types\":[\"full_attention\"]", ERR_INPUT, "list of 4");
	refuses("qwen2", "\"num_key_value_heads\":2,\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"linear_attention\"]",
		ERR_UNSUPPORTED, "linear_attention");
	refuses("qwen2", "\"num_key_value_heads\":2,\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
		ERR_INPUT, "without a sliding_window");
	refuses("mistral", "\"sliding_window\":0", ERR_INPUT, "sliding_window is 0");
	refuses("mistral", "\"sliding_window\":-5", ERR_INPUT, "sliding_window is -5");
}

/* Numbers that only one family has; others refuse them. */
static void layers_without_positions(void **state)
{
	(void)state;
	struct config c = good("smollm3", "\"no_rope_layer_interval\":2,\"sliding_window\":16,\"use_sliding_window\":true");
	assert_true(c.layer[0].rope && !c.layer[1].rope && c.layer[2].rope && !c.layer[3].rope);
	assert_true(!c.layer[0].window && c.layer[1].window == 16);
	config_release(&c);
	/* a list may be longer than the model, as in its class */
	c = good("smollm3", "\"no_rope_layers\":[0,1,1,0,1]");
	assert_true(!c.layer[0].rope && c.layer[1].rope && c.layer[2].rope && !c.layer[3].rope && !c.layer[3].window);
	config_release(&c);
	refuses("smollm3", "\"no_rope_layers\":[0,1,1]", ERR_INPUT, "no_rope_layers");
	refuses("smollm3", "\"no_rope_layers\":[0,1,2,1]", ERR_INPUT, "no_rope_layers[2]");
	refuses("smollm3", "\"no_rope_layer_interval\":0", ERR_INPUT, "no_rope_layer_interval");
	refuses("llama", "\"no_rope_layers\":[0,1,1,0]", ERR_UNSUPPORTED, "no_rope_layers");
}

/* What a variant needs and is not here is refused by its key. */
static void variants_of_families(void **state)
{
	(void)state;
	refuses_text("{\"model_type\":\"falcon\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"new_decoder_architecture\":true,\"num_kv_heads\":2}", ERR_UNSUPPORTED, "new_decoder_architecture");
	refuses_text("{\"model_type\":\"falcon\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"alibi\":true}", ERR_UNSUPPORTED, "alibi");
	refuses_text("{\"model_type\":\"falcon\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"parallel_attn\":false}", ERR_UNSUPPORTED, "parallel_attn");
	refuses("cohere", "\"use_qk_norm\":true", ERR_UNSUPPORTED, "use_qk_norm");
	refuses("stablelm", "\"num_key_value_heads\":8,\"qk_layernorm\":true", ERR_UNSUPPORTED, "qk_layernorm");
	refuses_text("{\"model_type\":\"opt\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"do_layer_norm_before\":false}", ERR_UNSUPPORTED, "do_layer_norm_before");
	refuses_text("{\"model_type\":\"opt\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"word_embed_proj_dim\":32}", ERR_UNSUPPORTED, "word_embed_proj_dim");
	refuses_text("{\"model_type\":\"opt\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"_remove_final_layer_norm\":true}", ERR_UNSUPPORTED, "_remove_final_layer_norm");
	refuses_text("{\"model_type\":\"bloom\",\"vocab_size\":64,\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"apply_residual_connection_post_layernorm\":true}", ERR_UNSUPPORTED, "apply_residual_connection_post_layernorm");
	refuses_text("{\"model_type\":\"gpt_bigcode\",\"vocab_size\":64,\"n_embd\":64,\"n_head\":4,\"scale_attn_weights\":false}", ERR_UNSUPPORTED, "scale_attn_weights");
	refuses_text("{\"model_type\":\"gptj\",\"vocab_size\":64,\"n_embd\":64,\"n_head\":4,\"rotary_dim\":null}", ERR_UNSUPPORTED, "rotary_dim");
	refuses_text("{\"model_type\":\"gptj\",\"vocab_size\":64,\"n_embd\":64,\"n_head\":4,\"rotary_dim\":32}", ERR_INPUT, "rotary_dim");
	refuses("granite", "\"residual_multiplier\":0", ERR_INPUT, "residual_multiplier");
	refuses("ministral3", "\"rope_parameters\":{\"rope_type\":\"default\"}", ERR_INPUT, "llama_4_scaling_beta");
	refuses("llama", "\"rope_parameters\":{\"rope_type\":\"default\",\"llama_4_scaling_beta\":0.1}", ERR_UNSUPPORTED, "llama_4_scaling_beta");
}

static void own_numbers(void **state)
{
	struct config c = good("gemma2", "\"num_key_value_heads\":2,\"query_pre_attn_scalar\":64,\"final_logit_softcapping\":null");
	(void)state;
	assert_true(c.query_scalar == 64 && c.attn_softcap == 50 && c.final_softcap == 0);
	assert_true(config_score_scale(&c) == 0.125f);
	assert_true(c.layer[0].window == 4096 && !c.layer[1].window && c.layer[2].window == 4096);
	config_release(&c);
	refuses("gemma", "\"query_pre_attn_scalar\":64", ERR_UNSUPPORTED, "query_pre_attn_scalar");
	refuses("gemma2", "\"query_pre_attn_scalar\":-1", ERR_INPUT, "out of range");
	refuses("gemma2", "\"attn_logit_softcapping\":\"high\"", ERR_INPUT, "not a number");
	refuses("gemma", "\"use_bidirectional_attention\":true", ERR_UNSUPPORTED, "use_bidirectional_attention");
	/* two rotary bases: transformers' Gemma3TextConfig, layers with a window turn with the local one, and unscaled */
	c = good("gemma3_text", "\"sliding_window_pattern\":3,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}");
	assert_true(c.rope.theta == 1e6f && c.local_theta == 10000 && c.rope.factor == 8 && c.query_scalar == 256);
	assert_true(c.layer[0].local && c.layer[1].local && !c.layer[2].local && c.layer[3].local && c.layer[3].window == 4096 && !c.layer[2].window);
	config_release(&c);
	c = good("gemma3_text", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":7e5},"
				"\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":300}}");
	assert_true(c.rope.theta == 7e5f && c.local_theta == 300 && c.layer[3].local);
	config_release(&c);
	refuses("gemma3_text", "\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"yarn\"}}", ERR_UNSUPPORTED, "yarn");
	refuses("gemma3_text", "\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":\"x\"}}", ERR_INPUT, "not a number");
	refuses("gemma3_text", "\"rope_local_base_freq\":0", ERR_INPUT, "rope_local_base_freq 0");
	refuses("gemma3_text", "\"sliding_window_pattern\":-1", ERR_INPUT, "sliding_window_pattern");
	refuses("gemma3_text", "\"attn_logit_softcapping\":50", ERR_UNSUPPORTED, "attn_logit_softcapping");
	/* its class reads the exact form's name as the tanh form's */
	c = good("gemma", "\"num_key_value_heads\":2,\"hidden_act\":\"gelu\"");
	assert_int_equal(c.act, ACT_GELU_TANH);
	config_release(&c);
}

static void rope_types(void **state)
{
	(void)state;
	struct config c = good("llama", "\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32,\"low_freq_factor\":1,"
					"\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}");
	assert_true(c.rope.theta == 5e5f && c.rope.scaling == ROPE_LLAMA3 && c.rope.factor == 32 && c.rope.original_context == 8192);
	config_release(&c);
	c = good("llama", "\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.5,\"rope_theta\":1e6}");
	assert_true(c.rope.theta == 1e6f && c.rope.scaling == ROPE_LINEAR && c.rope.factor == 2.5f);
	config_release(&c);
	c = good("llama", "\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":500}");
	assert_true(c.rope.theta == 500 && c.rope.scaling == ROPE_NONE);
	config_release(&c);
	c = good("llama", "\"max_position_embeddings\":4096,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":null,"
			  "\"original_max_position_embeddings\":1024}");
	assert_true(c.rope.scaling == ROPE_YARN && c.rope.factor == 4 && c.rope.beta_fast == 32 && c.rope.truncate);
	assert_float_equal(c.rope.attention_factor, 1.138629f, 1e-6);
	config_release(&c);
	c = good("llama", "\"rope_divisors\":[1,2,3,4.5]");
	assert_true(c.rope.divisors[3] == 4.5f);
	config_release(&c);
	refuses("llama", "\"rope_divisors\":[1,2,3]", ERR_INPUT, "list of 4");
	/* yarn is what the first phi3 called longrope; of the two contexts the class reads its own, whose default is 4096 */
	c = good("phi3", "\"max_position_embeddings\":131072,\"rope_scaling\":{\"type\":\"yarn\",\"short_factor\":[1,1,1,1],"
			 "\"long_factor\":[2,2,2,2],\"original_max_position_embeddings\":77}");
	assert_true(c.rope.scaling == ROPE_LONGROPE && c.rope.original_context == 4096 && c.rope.far[3] == 2);
	assert_true(fabsf(c.rope.attention_factor - 1.1902381f) < 1e-6f); /* the root of 1 + ln 32 / ln 4096 */
	config_release(&c);
	refuses("phi3", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", ERR_UNSUPPORTED, "supported: default, longrope");
	refuses("phi3", "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1],\"long_factor\":[1,1,1,1]}", ERR_INPUT, "short_factor");
	refuses("phi3", "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1]}", ERR_INPUT, "long_factor");
	refuses("llama", "\"rope_divisors\":[1,2,3,0]", ERR_INPUT, "rope_divisors[3]");
	refuses("llama", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", ERR_UNSUPPORTED, "default, linear, llama3, yarn");
	refuses("llama", "\"rope_scaling\":{\"type\":7}", ERR_UNSUPPORTED, "rope type");
	refuses("llama", "\"rope_scaling\":\"linear\"", ERR_INPUT, "not an object");
	refuses("llama", "\"rope_scaling\":{\"type\":\"linear\"}", ERR_INPUT, "factor is missing");
	refuses("llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", ERR_INPUT, "factor 0");
	refuses("llama", "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}", ERR_INPUT,
		"high_freq_factor");
	refuses("llama", "\"rope_theta\":0", ERR_INPUT, "rope_theta 0");
	refuses("llama", "\"rope_theta\":\"x\"", ERR_INPUT, "not a number");
	refuses("llama", "\"partial_rotary_factor\":0.5", ERR_UNSUPPORTED, "partial_rotary_factor");
	refuses("llama", "\"head_dim\":7", ERR_INPUT, "pairs");
}

static void special_tokens(void **state)
{
	(void)state;
	struct config c = good("llama", "\"bos_token_id\":null,\"eos_token_id\":[5,6,7]");
	assert_true(!c.has_bos && c.eos_count == 3 && c.eos[2] == 7);
	config_release(&c);
	c = good("llama", "\"bos_token_id\":-1,\"eos_token_id\":null");
	assert_true(!c.has_bos && !c.eos_count);
	config_release(&c);
	refuses("llama", "\"eos_token_id\":[1,2,3,4,5,6,7,8,9]", ERR_UNSUPPORTED, "eos_token_id");
	refuses("llama", "\"eos_token_id\":\"</s>\"", ERR_INPUT, "eos_token_id");
	refuses("llama", "\"bos_token_id\":1.5", ERR_INPUT, "bos_token_id");
}

static void shared_kv_caches(void **state)
{
	(void)state;
	struct config c = good("llama", "\"kv_heads_per_layer\":[8,4,4,2],\"kv_source_layers\":[0,1,1,3]");
	assert_true(c.layer[2].kv_source == 1 && c.layer[3].kv_heads == 2);
	assert_true(config_kv_bytes(&c, 10, 2) == 2 * 10 * (8 + 4 + 2) * 8 * 2);
	assert_false(role_required(&c, ROLE_K, 2));
	assert_true(role_required(&c, ROLE_K, 3) && role_required(&c, ROLE_Q, 2));
	config_release(&c);
	refuses("llama", "\"kv_source_layers\":[1,1,2,3]", ERR_INPUT, "kv_source_layers[0]");
	refuses("llama", "\"kv_source_layers\":[0,0,1,3]", ERR_INPUT, "no KV cache of its own");
	refuses("llama", "\"kv_source_layers\":[0,1,-1,3]", ERR_INPUT, "kv_source_layers[2]");
	refuses("llama", "\"kv_source_layer\":[0,1,2]", ERR_INPUT, "kv_source_layer is not a list of 4");
	refuses("llama", "\"kv_heads_per_layer\":[8,4,4,4],\"kv_source_layers\":[0,0,2,3]", ERR_INPUT, "differ in KV heads");
	refuses("llama", "\"window_per_layer\":[0,8,0,0],\"kv_source_layers\":[0,0,2,3]", ERR_INPUT, "differ in window");
	refuses("llama", "\"kv_heads_per_layer\":[8,3,4,4]", ERR_INPUT, "layer 1 has 8 heads");
	refuses("llama", "\"kv_heads_per_layer\":[8,0,4,4]", ERR_INPUT, "kv_heads_per_layer[1]");
}

static void hostile_texts(void **state)
{
	(void)state;
	refuses_text("", ERR_INPUT, "JSON");
	refuses_text("[]", ERR_INPUT, "not a JSON object");
	refuses_text("{}", ERR_INPUT, "model_type is missing");
	refuses_text("{\"model_type\":\"mamba\"}", ERR_UNSUPPORTED, "llama, mistral, qwen2, qwen3");
	refuses_text("{\"model_type\":3}", ERR_INPUT, "model_type");
	refuses_text("{\"architectures\":[\"MambaForCausalLM\"]}", ERR_UNSUPPORTED, "MambaForCausalLM");
	refuses_text("{\"model_type\":\"llama\",\"model_type\":\"qwen2\"}", ERR_INPUT, "twice");
	refuses_text("{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":10}", ERR_INPUT, "hidden_size is missing");
	static const char *const sizes[] = { "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads" };
	static const char *const values[] = { "0", "-1", "1.5", "\"8\"", "[8]", "true", "1e30", "4294967297" };
	for (int i = 0; i < 5; i++)
		for (int j = 0; j < 8; j++) {
			char text[800];
			int at = snprintf(text, sizeof text, "{\"model_type\":\"llama\"");
			for (int k = 0; k < 5; k++)
				at += snprintf(text + at, sizeof text - (size_t)at, ",\"%s\":%s", sizes[k], k == i ? values[j] : "8");
			snprintf(text + at, sizeof text - (size_t)at, "}");
			refuses_text(text, ERR_INPUT, sizes[i]);
		}
	refuses("llama", "\"num_key_value_heads\":3", ERR_INPUT, "multiple of its 3");
	refuses("llama", "\"num_key_value_heads\":16", ERR_INPUT, "multiple of its 16");
	refuses("llama", "\"head_dim\":1048576", ERR_INPUT, "too large");
	refuses("llama", "\"rms_norm_eps\":-1", ERR_INPUT, "rms_norm_eps");
	refuses("llama", "\"rms_norm_eps\":\"x\"", ERR_INPUT, "rms_norm_eps");
	refuses("llama", "\"hidden_act\":\"relu6\"", ERR_UNSUPPORTED, "silu, gelu");
	refuses("llama", "\"hidden_act\":[]", ERR_UNSUPPORTED, "hidden_act");
	refuses("llama", "\"tie_word_embeddings\":1", ERR_INPUT, "tie_word_embeddings");
	refuses("mistral", "\"attention_bias\":true", ERR_UNSUPPORTED, "attention_bias");
	refuses("llama", "\"num_local_experts\":8", ERR_UNSUPPORTED, "num_local_experts");
	refuses("llama", "\"final_logit_softcapping\":30.0", ERR_UNSUPPORTED, "final_logit_softcapping");
	struct config c = good("llama", "\"num_local_experts\":0,\"final_logit_softcapping\":null,\"alibi\":false");
	config_release(&c);
}

/* What nobody here has read about may be anything; what is known to leave the numbers alone is not looked at. */
static void unknown_keys(void **state)
{
	static const char *const odd[] = {
		"\"n_embd\":64", "\"rotary_pct\":0.5", "\"use_parallel_residual\":true", "\"logit_scale\":0.0625", "\"norm_type\":\"layer\"",
		"\"layers\":[1]", "\"ffn\":{\"act\":\"relu\"}", "\"vision_config\":{\"depth\":2}", "\"hidden_activation\":\"relu\"",
	};
	static const char *const harmless[] = {
		"\"torch_dtype\":\"bfloat16\"", "\"transformers_version\":\"4.40.1\"", "\"_name_or_path\":\"x\"", "\"use_cache\":true",
		"\"initializer_range\":0.02", "\"attention_dropout\":0.1", "\"resid_pdrop\":0.1", "\"pad_token_id\":3", "\"pretraining_tp\":1",
		"\"id2label\":{\"0\":\"a\"}", "\"top_k\":50", "\"is_llama_config\":true", "\"rope_interleaved\":false", "\"mystery\":null",
		"\"mystery\":0", "\"mystery\":[]", "\"mystery\":{}", "\"mystery\":\"\"", "\"max_window_layers\":3",
	};
	(void)state;
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		char name[40];
		snprintf(name, sizeof name, "%.*s", (int)strcspn(odd[i] + 1, "\""), odd[i] + 1);
		refuses("llama", odd[i], ERR_UNSUPPORTED, name);
	}
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
		struct config c = good("llama", harmless[i]);
		config_release(&c);
	}
	refuses("llama", "\"rope_scaling\":{\"type\":\"default\",\"mrope_section\":[1,1,2]}", ERR_UNSUPPORTED, "mrope_section");
	struct config c = good("gemma2", "\"num_key_value_heads\":2,\"hidden_act\":\"gelu\",\"cache_implementation\":\"hybrid\"");
	assert_int_equal(c.act, ACT_GELU_TANH);
	config_release(&c);
}

static bool same(const struct config *a, const struct config *b)
{
	bool ok = a->arch == b->arch && a->query_scalar == b->query_scalar && a->attn_softcap == b->attn_softcap &&
		  a->final_softcap == b->final_softcap && a->vocab == b->vocab && a->hidden == b->hidden && a->layers == b->layers &&
		  a->head_dim == b->head_dim && a->context == b->context && a->norm_eps == b->norm_eps && a->act == b->act &&
		  a->tied == b->tied && a->qkv_bias == b->qkv_bias && a->o_bias == b->o_bias && a->mlp_bias == b->mlp_bias &&
		  a->bos == b->bos && a->eos_count == b->eos_count && !memcmp(a->eos, b->eos, sizeof a->eos) &&
		  a->rope.theta == b->rope.theta && a->local_theta == b->local_theta && a->rope.dims == b->rope.dims && a->rope.scaling == b->rope.scaling &&
		  a->rope.factor == b->rope.factor && a->rope.low_freq == b->rope.low_freq && a->rope.high_freq == b->rope.high_freq &&
		  a->rope.original_context == b->rope.original_context && a->rope.attention_factor == b->rope.attention_factor &&
		  a->rope.beta_fast == b->rope.beta_fast && !a->rope.divisors == !b->rope.divisors && !a->rope.far == !b->rope.far;
	for (uint32_t i = 0; ok && i < a->layers; i++) {
		const struct layer_config *x = &a->layer[i], *y = &b->layer[i];
		ok = x->heads == y->heads && x->kv_heads == y->kv_heads && x->window == y->window && x->kv_source == y->kv_source &&
		     x->ffn == y->ffn && x->rope == y->rope && x->local == y->local;
	}
	for (uint32_t i = 0; ok && a->rope.divisors && i < a->rope.dims / 2; i++)
		ok = a->rope.divisors[i] == b->rope.divisors[i] && (!a->rope.far || a->rope.far[i] == b->rope.far[i]);
	return ok;
}

/* What is printed reads back the same, from the old text and from nothing. */
static void printing_round_trips(void **state)
{
	static const char *const texts[][2] = {
		{ "llama", "" },
		{ "llama", "\"tie_word_embeddings\":true,\"hidden_act\":\"gelu\",\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":12" },
		{ "llama", "\"rope_theta\":123456.7,\"rms_norm_eps\":3.3e-5,\"bos_token_id\":null,\"eos_token_id\":[3,4]" },
		{ "llama", "\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":8,\"low_freq_factor\":1,"
			   "\"high_freq_factor\":4,\"original_max_position_embeddings\":512}" },
		{ "llama", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":8,\"original_max_position_embeddings\":512,\"beta_fast\":16}" },
		{ "llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":1.7}" },
		{ "llama", "\"rope_divisors\":[1,1.1,3.3,8]" },
		{ "llama", "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1.5,2],\"long_factor\":[1,2,4,8],\"factor\":4}" },
		{ "phi3", "\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1.5,2],\"long_factor\":[1,4,8]},\"partial_rotary_factor\":0.75,"
			  "\"original_max_position_embeddings\":512,\"max_position_embeddings\":2048" },
		{ "llama", "\"kv_heads_per_layer\":[8,4,4,2],\"kv_source_layers\":[0,1,1,3]" },
		{ "llama", "\"window_per_layer\":[0,8,0,0]" },
		{ "mistral", "" },
		{ "mistral", "\"sliding_window\":null,\"num_key_value_heads\":2" },
		{ "mistral", "\"sliding_window\":8" },
		{ "mistral", "\"window_per_layer\":[0,8,0,0]" },
		{ "qwen2", "\"num_key_value_heads\":2" },
		{ "qwen2", "\"num_key_value_heads\":2,\"use_sliding_window\":true,\"max_window_layers\":3,\"sliding_window\":9" },
		{ "qwen3", "\"num_key_value_heads\":2,\"head_dim\":16,\"attention_bias\":true" },
		{ "gemma2", "\"num_key_value_heads\":2,\"query_pre_attn_scalar\":24,\"attn_logit_softcapping\":null,\"sliding_window\":9" },
		{ "gemma3_text", "\"num_key_value_heads\":2,\"sliding_window_pattern\":2,\"rope_local_base_freq\":20000" },
		{ "gemma3_text", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":4,\"rope_theta\":7e5},"
				 "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":300}}" },
		{ "phi", "\"partial_rotary_factor\":0.25,\"num_key_value_heads\":2" },
		{ "olmoe", "\"num_experts\":6,\"num_experts_per_tok\":2,\"norm_topk_prob\":true" },
		{ "olmo3", "\"rope_theta\":7000,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":512}" },
		{ "gemma2", "\"num_key_value_heads\":2,\"sliding_window\":null,\"hidden_activation\":\"gelu\"" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		for (int base = 0; base < 2; base++) {
			char old[2000];
			struct strbuf out = { 0 };
			struct config a = good(texts[i][0], texts[i][1]), b;
			snprintf(old, sizeof old, "{\"model_type\":\"x\",\"head_dim\":3,\"rope_parameters\":{},\"_own\":[1,{\"a\":null}]}");
			assert_int_equal(config_print(&a, base ? old : NULL, strlen(old), &out, &e), 0);
			if (config_parse(&b, out.data, out.len, &e))
				fail_msg("%s: %s", out.data, e.message);
			if (!same(&a, &b))
				fail_msg("%s reads back otherwise", out.data);
			assert_int_equal(strstr(out.data, "\"_own\": [1,{\"a\":null}]") != NULL, base);
			config_release(&a);
			config_release(&b);
			strbuf_release(&out);
		}
}

static void no_key_for_it(void **state)
{
	struct strbuf out = { 0 };
	struct config c = good("llama", "");
	(void)state;
	c.layer[2].heads = 4;
	assert_int_equal(config_print(&c, NULL, 0, &out, &e), ERR_UNSUPPORTED);
	config_release(&c);
	c = good("mistral", "");
	c.layer[2].window = 5;
	assert_int_equal(config_print(&c, NULL, 0, &out, &e), ERR_UNSUPPORTED);
	config_release(&c);
	strbuf_release(&out);
}

static void names_round_trip(void **state)
{
	(void)state;
	for (unsigned i = 0; i < arch_row_count; i++) {
		const struct arch *a = arch_rows[i];
		char none[96];
		assert_ptr_equal(arch_find(a->name), a);
		/* as the bias of a matrix that has none */
		assert_null(role_hf_name(a, ROLE_UNKNOWN, 0, none));
		assert_null(role_gguf_name(a, ROLE_UNKNOWN, 0, none));
		for (int r = 0; r < ROLE_COUNT; r++) {
			char name[96];
			uint32_t want = role_rows[r].per_layer ? 37 : UINT32_MAX, layer = 0, place = 37;
			if (role_rows[r].per_expert)
				place = place_of(37, 300);
			assert_int_equal(role_rows[r].role, r);
			assert_int_equal(role_find(role_rows[r].name), r);
			if (role_hf_name(a, (enum role)r, place, name)) {
				assert_int_equal(role_from_hf(a, name, &layer), r);
				assert_int_equal(layer, role_rows[r].per_expert ? place : want);
			}
			if (role_gguf_name(a, (enum role)r, place, name)) {
				assert_int_equal(role_from_gguf(a, name, &layer), r);
				assert_int_equal(layer, want);
			}
		}
	}
	assert_string_equal(arch_from_gguf("llama", false)->name, "llama");
	assert_string_equal(arch_from_gguf("llama", true)->name, "mixtral");
	assert_null(arch_from_gguf("rwkv", false));
}

static void names_that_only_look_right(void **state)
{
	static const char *const bad[] = {
		"", "model", "model.layers..mlp.up_proj.weight", "model.layers.00.mlp.up_proj.weight",
		"model.layers.+1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weightx", "model.layers.4294967295.mlp.up_proj.weight",
		"model.layers.99999999999999999999.mlp.up_proj.weight", "model.layers.1", "xmodel.norm.weight", "model.norm.weight ",
		"lm_head.bias",
	};
	uint32_t layer;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(role_from_hf(arch_find("llama"), bad[i], &layer), ROLE_UNKNOWN);
		assert_int_equal(layer, UINT32_MAX);
	}
	assert_true(tensor_name_ignored("model.layers.3.self_attn.rotary_emb.inv_freq"));
	assert_false(tensor_name_ignored("model.layers.3.self_attn.rotary_emb.inv_freq2"));
}

static void shapes_and_counts(void **state)
{
	uint64_t dim[2];
	struct config c = good("llama", "\"num_key_value_heads\":2,\"head_dim\":12");
	(void)state;
	assert_int_equal(role_shape(&c, ROLE_Q, 0, dim), 2);
	assert_true(dim[0] == 96 && dim[1] == 64);
	assert_int_equal(role_shape(&c, ROLE_V, 3, dim), 2);
	assert_true(dim[0] == 24 && dim[1] == 64);
	assert_int_equal(role_shape(&c, ROLE_V, 4, dim), 0);
	assert_int_equal(role_shape(&c, ROLE_V_BIAS, 0, dim), 0);
	assert_int_equal(role_shape(&c, ROLE_Q_NORM, 0, dim), 0);
	assert_int_equal(config_parameters(&c), 2 * 100 * 64 + 64 + 4 * (2 * 64 + 96 * 64 * 2 + 24 * 64 * 2 + 3 * 64 * 96));
	config_release(&c);
}

/* Of published models; how many parameters transformers makes of each: tests/golden/make_config.py. */
static void published_configs(void **state)
{
	struct strbuf list = { 0 };
	unsigned long long want;
	char name[80];
	int n = 0, used, at = 0;
	(void)state;
	ok(file_read("tests/golden/config/parameters.txt", &list, 0, &e));
	for (; sscanf(list.data + at, "%79s %llu\n%n", name, &want, &used) == 2; at += used, n++) {
		struct strbuf text = { 0 };
		struct config c;
		char path[160];
		snprintf(path, sizeof path, "tests/golden/config/%s.json", name);
		ok(file_read(path, &text, 0, &e));
		if (config_parse(&c, text.data, text.len, &e))
			fail_msg("%s: %s", name, e.message);
		if (config_parameters(&c) != want)
			fail_msg("%s has %llu parameters, not %llu", name, want, (unsigned long long)config_parameters(&c));
		config_release(&c);
		strbuf_release(&text);
	}
	assert_true(n >= 2);
	strbuf_release(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_of_absent_keys),
		cmocka_unit_test(windows_of_layers),
		cmocka_unit_test(layers_without_positions),
		cmocka_unit_test(variants_of_families),
		cmocka_unit_test(own_numbers),
		cmocka_unit_test(rope_types),
		cmocka_unit_test(special_tokens),
		cmocka_unit_test(shared_kv_caches),
		cmocka_unit_test(hostile_texts),
		cmocka_unit_test(unknown_keys),
		cmocka_unit_test(printing_round_trips),
		cmocka_unit_test(no_key_for_it),
		cmocka_unit_test(names_round_trip),
		cmocka_unit_test(names_that_only_look_right),
		cmocka_unit_test(shapes_and_counts),
		cmocka_unit_test(published_configs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
