/* A GGUF file written by hand, for tests of what a reader makes of one. */
#ifndef QUIRE_TESTS_TINY_GGUF_H
#define QUIRE_TESTS_TINY_GGUF_H
#include <stdio.h>
#include <string.h>

#include "formats/file.h"
#include "formats/gguf.h"

/* A model small enough to write by hand: qwen2 or llama shape, byte-level vocabulary of letters and two merges. */
struct tiny {
	const char *arch, *pre, *skip;  /* skip: a tensor to leave out */
	const float *divisors;          /* [4] rope_freqs.weight */
	bool biases, head, factor;      /* factor: of blk.0.attn_q.weight */
	uint32_t heads, kv_heads, split_no, splits;
	void (*extra)(struct gguf_writer *w);
};

static inline void put_count(struct gguf_writer *w, const struct tiny *t, const char *suffix, uint32_t v)
{
	char key[100];
	snprintf(key, sizeof key, "%s.%s", t->arch, suffix);
	gguf_put_u32(w, key, v);
}

static inline void tiny_vocabulary(struct gguf_writer *w, const char *pre)
{
	static const char *const tokens[] = { "a", "b", "c", "\xc4\xa0", "1", "2", "ab", ("\xc4\xa0" "ab"), "<|end|>", "<|im|>", "", "[PAD11]" };
	static const int32_t types[] = { 1, 1, 1, 1, 1, 1, 1, 1, 3, 4, 5, 5 };
	gguf_put_string(w, "tokenizer.ggml.model", "gpt2", 4);
	if (pre)
		gguf_put_string(w, "tokenizer.ggml.pre", pre, strlen(pre));
	gguf_begin_strings(w, "tokenizer.ggml.tokens");
	for (int i = 0; i < 12; i++)
		gguf_array_string(w, tokens[i], strlen(tokens[i]));
	gguf_end_strings(w);
	gguf_put_i32s(w, "tokenizer.ggml.token_type", types, 12);
	gguf_begin_strings(w, "tokenizer.ggml.merges");
	gguf_array_string(w, "a b", 3);
	gguf_array_string(w, "\xc4\xa0 ab", 5);
	gguf_end_strings(w);
	gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 8);
	gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 8);
	gguf_put_u32(w, "tokenizer.ggml.eot_token_id", 9);
	gguf_put_string(w, "tokenizer.chat_template", "{{ x }}", 7);
}

static inline void tiny_metadata(struct gguf_writer *w, const struct tiny *t)
{
	char key[100];
	gguf_put_string(w, "general.architecture", t->arch, strlen(t->arch));
	gguf_put_string(w, "general.name", "tiny", 4);
	gguf_put_u32(w, "general.file_type", 15);
	put_count(w, t, "block_count", 1);
	put_count(w, t, "context_length", 64);
	put_count(w, t, "embedding_length", 16);
	put_count(w, t, "feed_forward_length", 32);
	put_count(w, t, "attention.head_count", t->heads ? t->heads : 2);
	put_count(w, t, "attention.head_count_kv", t->kv_heads ? t->kv_heads : 1);
	snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", t->arch);
	gguf_put_f32(w, key, 1e-5f);
	if (t->extra)
		t->extra(w);
	tiny_vocabulary(w, t->pre);
}

/* Data counts up from 0 in f32, over all tensors. */
static inline void tiny_write(const char *path, const struct tiny *t)
{
	static const struct {
		const char *name;
		uint64_t rows, cols;
		bool bias;
	} rows[] = {
		{ "token_embd.weight", 12, 16, false }, { "output_norm.weight", 0, 16, false }, { "output.weight", 12, 16, false },
		{ "rope_freqs.weight", 0, 4, false }, { "blk.0.attn_norm.weight", 0, 16, false },
		{ "blk.0.attn_q.weight", 16, 16, false }, { "blk.0.attn_k.weight", 8, 16, false },
		{ "blk.0.attn_v.weight", 8, 16, false }, { "blk.0.attn_output.weight", 16, 16, false },
		{ "blk.0.attn_q.bias", 0, 16, true }, { "blk.0.attn_k.bias", 0, 8, true }, { "blk.0.attn_v.bias", 0, 8, true },
		{ "blk.0.ffn_norm.weight", 0, 16, false }, { "blk.0.ffn_gate.weight", 32, 16, false },
		{ "blk.0.ffn_up.weight", 32, 16, false }, { "blk.0.ffn_down.weight", 16, 32, false },
		{ "something.else", 2, 4, false }, { "blk.0.attn_q.scale", 0, 1, false },
	};
	enum { ROWS = sizeof rows / sizeof *rows };
	struct gguf_writer w = { 0 };
	struct strbuf b = { 0 };
	struct err e;
	float value = 0;
	if (t->splits) {
		gguf_put_u16(&w, "split.no", (uint16_t)t->split_no);
		gguf_put_u16(&w, "split.count", (uint16_t)t->splits);
		gguf_put_i32(&w, "split.tensors.count", 12);
	}
	if (!t->split_no)
		tiny_metadata(&w, t);
	for (int pass = 0; pass < 2; pass++) {
		size_t start = b.len;
		for (int i = 0; i < ROWS; i++) {
			bool freqs = !strcmp(rows[i].name, "rope_freqs.weight"), head = !strcmp(rows[i].name, "output.weight");
			bool factor = !strcmp(rows[i].name, "blk.0.attn_q.scale");
			uint64_t dim[2] = { rows[i].rows, rows[i].cols }, at, n = dim[0] ? dim[0] * dim[1] : dim[1];
			if ((freqs && !t->divisors) || (head && !t->head) || (factor && !t->factor) || (rows[i].bias && !t->biases) ||
			    (t->skip && !strcmp(t->skip, rows[i].name)) || (t->splits && (i >= 10) != (t->split_no == 1)))
				continue;
			if (pass == 0) {
				struct tensor one = { .name = rows[i].name, .codec = codec_find("f32"), .ndim = dim[0] ? 2 : 1,
						      .dim = { dim[0] ? dim[0] : dim[1], dim[0] ? dim[1] : 0 } };
				assert_int_equal(gguf_add_tensor(&w, &one, &at, &e), 0);
				continue;
			}
			for (uint64_t k = 0; k < n; k++, value++)
				strbuf_add(&b, freqs ? &t->divisors[k] : &value, sizeof value);
			while ((b.len - start) % GGUF_ALIGNMENT)
				strbuf_putc(&b, 0);
		}
		if (pass == 0)
			assert_int_equal(gguf_header(&w, &b, &e), 0);
	}
	assert_int_equal(file_write(path, b.data, b.len, &e), 0);
	gguf_writer_release(&w);
	strbuf_release(&b);
}
#endif
