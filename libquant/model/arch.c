#include "model/arch.h"

#include <stdio.h>
#include <string.h>

/*
 * Defaults are what transformers' configuration classes use for an absent key:
 * configs saved by older versions leave such keys out.
 */
const struct arch arch_rows[] = {
	{
		.name = "llama", .hf_class = "LlamaForCausalLM", .gguf = "llama", .gguf_permutes_qk = true,
		.norm = NORM_RMS, .act = ACT_SILU, .gated = true,
		.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG, .mlp_bias = BIAS_CONFIG,
		.window = WINDOW_NONE, .default_eps = 1e-6f, .default_theta = 10000,
		.default_context = 2048, .default_bos = 1, .default_eos = 2,
	},
	{
		.name = "mistral", .hf_class = "MistralForCausalLM", .gguf = "llama", .gguf_permutes_qk = true,
		.norm = NORM_RMS, .act = ACT_SILU, .gated = true,
		.window = WINDOW_ALL, .default_window = 4096, .default_kv_heads = 8,
		.default_eps = 1e-6f, .default_theta = 10000,
		.default_context = 131072, .default_bos = 1, .default_eos = 2,
	},
	{
		.name = "qwen2", .hf_class = "Qwen2ForCausalLM", .gguf = "qwen2",
		.norm = NORM_RMS, .act = ACT_SILU, .gated = true,
		.qkv_bias = BIAS_ALWAYS,
		.window = WINDOW_FROM_LAYER, .default_window = 4096, .default_kv_heads = 32,
		.default_eps = 1e-6f, .default_theta = 10000,
		.default_context = 32768, .default_bos = -1, .default_eos = -1,
	},
	{
		.name = "qwen3", .hf_class = "Qwen3ForCausalLM", .gguf = "qwen3",
		.norm = NORM_RMS, .act = ACT_SILU, .gated = true, .qk_norm = true,
		.qkv_bias = BIAS_CONFIG, .o_bias = BIAS_CONFIG,
		.window = WINDOW_FROM_LAYER, .default_window = 4096, .default_kv_heads = 32, .default_head_dim = 128,
		.default_eps = 1e-6f, .default_theta = 10000,
		.default_context = 32768, .default_bos = -1, .default_eos = -1,
	},
};
const unsigned arch_row_count = sizeof arch_rows / sizeof *arch_rows;

const struct arch *arch_find(const char *model_type)
{
	for (unsigned i = 0; i < arch_row_count; i++)
		if (!strcmp(arch_rows[i].name, model_type))
			return &arch_rows[i];
	return NULL;
}

const struct arch *arch_from_gguf(const char *name)
{
	for (unsigned i = 0; i < arch_row_count; i++)
		if (!strcmp(arch_rows[i].gguf, name))
			return &arch_rows[i];
	return NULL;
}

char *arch_list(char *buf, size_t size)
{
	size_t at = 0;
	buf[0] = '\0';
	for (unsigned i = 0; i < arch_row_count && at < size; i++) {
		int n = snprintf(buf + at, size - at, "%s%s", i ? ", " : "", arch_rows[i].name);
		at += n > 0 ? (size_t)n : 0;
	}
	return buf;
}
