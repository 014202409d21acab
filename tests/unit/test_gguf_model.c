#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/gguf_model.h"
#include "scratch.h"
#include "sides.h"
#include "tiny_gguf.h"

static struct err e;

static struct checkpoint *open_ok(const char *path)
{
	struct checkpoint *c;
	if (checkpoint_open(path, &c, &e))
		fail_msg("%s", e.message);
	return c;
}

/* Every tensor as stored; vectors as f32, as GGUF wants them. */
static void plan_as_is(struct plan *p, const struct tensor_source *s)
{
	*p = (struct plan){ .count = s->count };
	p->items = calloc(p->count + 1, sizeof *p->items);
	for (size_t i = 0; i < s->count; i++) {
		p->items[i].out = s->tensors[i];
		p->items[i].source = i;
		if (s->tensors[i].ndim < 2)
			p->items[i].out.codec = codec_find("f32");
		assert_int_equal(tensor_measure(&p->items[i].out, &e), 0);
	}
}

/* Streams in pieces of odd sizes, that end inside rows. */
static int stream(struct tensor_sink *k, const struct plan *p, struct tensor_source *s, size_t piece)
{
	int rc = 0;
	for (size_t i = 0; i < p->count && !rc; i++) {
		const struct tensor *t = &p->items[i].out;
		struct tensor_bytes b = { 0 };
		float *f = NULL;
		rc = k->item(k, i, &e);
		if (t->codec != s->tensors[i].codec) {
			assert_int_equal(source_read_f32(s, t->name, &f, NULL, &e), 0);
			b = (struct tensor_bytes){ (const uint8_t *)f, (size_t)t->nbytes, f };
		} else {
			assert_int_equal(s->get(s, i, &b, &e), 0);
		}
		for (size_t at = 0; at < b.size && !rc; at += piece)
			rc = k->bytes(k, b.data + at, b.size - at < piece ? b.size - at : piece, &e);
		tensor_bytes_release(&b);
	}
	return rc;
}

static int convert(const char *from, const char *to, size_t piece)
{
	struct checkpoint *c = open_ok(from);
	struct write_options o = { .gguf_file_type = 32, .recipe = "as is", .tool_version = "1" };
	struct tensor_sink *k = NULL;
	struct config config;
	struct plan p;
	assert_int_equal(checkpoint_config(c, &config, &e), 0);
	plan_as_is(&p, c->source);
	int rc = format_gguf.create(to, &(struct write_request){ c, &config, &p, &o }, &k, &e);
	if (!rc)
		rc = stream(k, &p, c->source, piece);
	if (!rc)
		rc = k->finish(k, &e);
	if (k)
		k->close(k);
	free(p.items);
	config_release(&config);
	checkpoint_close(c);
	return rc;
}

static void same_config(const struct checkpoint *a, const struct checkpoint *b)
{
	struct config x, y;
	if (checkpoint_config(a, &x, &e) || checkpoint_config(b, &y, &e))
		fail_msg("%s", e.message);
	assert_ptr_equal(x.arch, y.arch);
	assert_int_equal(x.vocab, y.vocab);
	assert_int_equal(x.hidden, y.hidden);
	assert_int_equal(x.layers, y.layers);
	assert_int_equal(x.heads, y.heads);
	assert_int_equal(x.kv_heads, y.kv_heads);
	assert_int_equal(x.head_dim, y.head_dim);
	assert_int_equal(x.ffn, y.ffn);
	assert_int_equal(x.context, y.context);
	assert_true(x.norm_eps == y.norm_eps && x.rope.theta == y.rope.theta && x.rope.factor == y.rope.factor);
	assert_int_equal(x.rope.scaling, y.rope.scaling);
	assert_int_equal(x.rope.dims, y.rope.dims);
	assert_int_equal(x.rope.original_context, y.rope.original_context);
	assert_true(x.tied == y.tied && x.qkv_bias == y.qkv_bias && x.o_bias == y.o_bias && x.mlp_bias == y.mlp_bias);
	assert_int_equal(x.bos, y.bos);
	assert_int_equal(x.eos_count, y.eos_count);
	assert_int_equal(x.eos[0], y.eos[0]);
	for (uint32_t i = 0; i < x.layers; i++)
		assert_memory_equal(&x.layer[i], &y.layer[i], sizeof x.layer[i]);
	config_release(&x);
	config_release(&y);
}

static void same_tensors(const struct checkpoint *a, const struct checkpoint *b)
{
	size_t checked = 0;
	for (size_t i = 0; i < a->source->count; i++) {
		const struct tensor *t = &a->source->tensors[i], *u = source_find(b->source, t->name);
		struct tensor_bytes x, y;
		float *f, *g;
		if (!u)
			fail_msg("%s is missing", t->name);
		assert_int_equal(t->ndim, u->ndim);
		assert_memory_equal(t->dim, u->dim, t->ndim * sizeof *t->dim);
		if (t->ndim == 2) {
			assert_ptr_equal(t->codec, u->codec);
			assert_int_equal(a->source->get(a->source, i, &x, &e), 0);
			assert_int_equal(b->source->get(b->source, source_position(b->source, u), &y, &e), 0);
			assert_int_equal(x.size, y.size);
			assert_memory_equal(x.data, y.data, x.size);
			tensor_bytes_release(&x);
			tensor_bytes_release(&y);
		} else {
			assert_int_equal(source_read_f32(a->source, t->name, &f, NULL, &e), 0);
			assert_int_equal(source_read_f32(b->source, t->name, &g, NULL, &e), 0);
			assert_memory_equal(f, g, tensor_elements(t) * sizeof *f);
			free(f);
			free(g);
		}
		checked++;
	}
	assert_int_equal(checked, b->source->count);
}

static void same_ids(const struct tokenizer *a, const struct tokenizer *b, const char *text, size_t len)
{
	struct token_ids x = { 0 }, y = { 0 };
	assert_int_equal(tokenizer_encode(a, text, len, true, &x, &e), 0);
	assert_int_equal(tokenizer_encode(b, text, len, true, &y, &e), 0);
	for (size_t i = 0; i < x.count && i < y.count; i++)
		if (x.id[i] != y.id[i])
			fail_msg("token %zu is %d, not %d", i, (int)y.id[i], (int)x.id[i]);
	assert_int_equal(x.count, y.count);
	token_ids_release(&x);
	token_ids_release(&y);
}

static void same_tokenizer(const struct checkpoint *a, const struct checkpoint *b, const char *file)
{
	static const char *const odd[] = { "", " ", "  two  spaces ", "\xc3\xa9t\xc3\xa9 \xe4\xb8\xad\xf0\x9f\x99\x82\n\ttab", "<unk" };
	struct tokenizer *x, *y;
	struct strbuf text = { 0 };
	if (checkpoint_tokenizer(a, &x, &e) || checkpoint_tokenizer(b, &y, &e))
		fail_msg("%s", e.message);
	assert_int_equal(tokenizer_bos(x), tokenizer_bos(y));
	assert_int_equal(tokenizer_eos(x), tokenizer_eos(y));
	assert_int_equal(tokenizer_kind(x), tokenizer_kind(y));
	assert_int_equal(tokenizer_size(x), tokenizer_size(y));
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
		same_ids(x, y, odd[i], strlen(odd[i]));
	if (file) {
		assert_int_equal(file_read(file, &text, 0, &e), 0);
		same_ids(x, y, text.data, text.len < 50000 ? text.len : 50000);
	}
	strbuf_release(&text);
	tokenizer_close(x);
	tokenizer_close(y);
}

static void round_trip(const char *from, const char *text)
{
	const char *to = scratch("model.gguf"), *again = scratch("again.gguf");
	if (convert(from, to, 1001) || convert(to, again, 1 << 20))
		fail_msg("%s", e.message);
	struct checkpoint *a = open_ok(from), *b = open_ok(to), *c = open_ok(again);
	same_config(a, b);
	same_tensors(a, b);
	same_tokenizer(a, b, text);
	same_config(a, c);
	same_tensors(a, c);
	same_tokenizer(a, c, text);
	checkpoint_close(a);
	checkpoint_close(b);
	checkpoint_close(c);
	/* the second generation is the same file */
	struct strbuf x = { 0 }, y = { 0 };
	assert_int_equal(file_read(to, &x, 0, &e) || file_read(again, &y, 0, &e), 0);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.data, y.data, x.len);
	strbuf_release(&x);
	strbuf_release(&y);
}

static void demo_survives(void **state)
{
	(void)state;
	round_trip("examples/demo", "examples/demo.eval.txt");
}

static void shared_models_survive(void **state)
{
	(void)state;
	static const char *const names[] = { "stories260K", "tiny1m", "english" };
	char from[600], text[600];
	const char *shared = getenv("SHARED");
	snprintf(text, sizeof text, "%s/text/tinystories.eval.txt", shared ? shared : "");
	if (!shared || !file_exists(text))
		skip();
	for (int i = 0; i < 3; i++) {
		snprintf(from, sizeof from, "%s/models/%s", shared, names[i]);
		round_trip(from, text);
	}
}

static void expect(const char *path, int code, const char *fragment)
{
	struct checkpoint *c = NULL;
	e.message[0] = '\0';
	int rc = checkpoint_open(path, &c, &e);
	if (rc != code || !strstr(e.message, fragment) || !strstr(e.message, path))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, fragment);
}

static const char *fact(const struct checkpoint *c, const char *key)
{
	for (size_t i = 0; i < c->fact_count; i++)
		if (!strcmp(c->facts[i].key, key))
			return c->facts[i].value;
	return "";
}

static void unpermutes_llama_only(void **state)
{
	(void)state;
	static const char *const archs[] = { "llama", "qwen2" };
	const char *path = scratch("tiny.gguf");
	for (int a = 0; a < 2; a++) {
		float *q, *bias, *k, *v;
		tiny_write(path, &(struct tiny){ .arch = archs[a], .pre = "qwen2", .biases = true });
		struct checkpoint *c = open_ok(path);
		assert_int_equal(source_read_f32(c->source, "model.layers.0.self_attn.q_proj.weight", &q, NULL, &e), 0);
		assert_int_equal(source_read_f32(c->source, "model.layers.0.self_attn.k_proj.weight", &k, NULL, &e), 0);
		assert_int_equal(source_read_f32(c->source, "model.layers.0.self_attn.v_proj.weight", &v, NULL, &e), 0);
		assert_int_equal(source_read_f32(c->source, "model.layers.0.self_attn.q_proj.bias", &bias, NULL, &e), 0);
		/* heads of 8: HF row 1 of head 1 is GGUF row 8 + 2; row 4 + 1 is GGUF row 8 + 3 */
		float base = 12 * 16 + 16 + 16, moved = a == 0;
		assert_true(q[0] == base && q[9 * 16] == base + 16 * (moved ? 10 : 9) && q[13 * 16 + 5] == base + 5 + 16 * (moved ? 11 : 13));
		assert_true(k[16] == base + 256 + 16 * (moved ? 2 : 1) && v[16] == base + 256 + 128 + 16);
		assert_true(bias[9] - bias[0] == (moved ? 10 : 9) && bias[13] - bias[0] == (moved ? 11 : 13));
		free(q);
		free(k);
		free(v);
		free(bias);
		assert_non_null(source_find(c->source, "something.else"));
		assert_string_equal(fact(c, "general.name"), "tiny");
		assert_string_equal(fact(c, "general.file_type"), "15 (Q4_K_M)");
		assert_string_equal(fact(c, "tokenizer.ggml.tokens"), "12 elements");
		checkpoint_close(c);
	}
}

static void encode_is(const struct tokenizer *t, const char *text, size_t n, const int32_t *want)
{
	struct token_ids ids = { 0 };
	assert_int_equal(tokenizer_encode(t, text, strlen(text), true, &ids, &e), 0);
	if (ids.count != n || memcmp(ids.id, want, n * sizeof *want))
		fail_msg("'%s' gives %zu tokens, the first %d", text, ids.count, ids.count ? (int)ids.id[0] : -1);
	token_ids_release(&ids);
}

static void reads_byte_level_vocabularies(void **state)
{
	(void)state;
	static const struct {
		const char *pre;
		bool bos;
	} pres[] = {
		{ "llama-bpe", true }, { "qwen2", false }, { "gpt-2", false }, { "smollm", false }, { "tekken", true },
		{ "gpt-4o", false }, { "dbrx", false }, { NULL, false },
	};
	const char *path = scratch("bpe.gguf"), *again = scratch("bpe2.gguf");
	for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
		struct tokenizer *t;
		struct config config;
		tiny_write(path, &(struct tiny){ .arch = "llama", .pre = pres[i].pre, .skip = "something.else" });
		for (int pass = 0; pass < 2; pass++) {
			struct checkpoint *c = open_ok(pass ? again : path);
			if (checkpoint_tokenizer(c, &t, &e) || checkpoint_config(c, &config, &e))
				fail_msg("%s", e.message);
			int bos = pres[i].bos;
			encode_is(t, "ab ab", 2 + (size_t)bos, (const int32_t[]){ 8, 6, 7 } + !bos);
			encode_is(t, "12<|end|>c<|im|>b", 6 + (size_t)bos, (const int32_t[]){ 8, 4, 5, 8, 2, 9, 1 } + !bos);
			assert_int_equal(tokenizer_size(t), 12); /* unused ids are tokens as well */
			assert_int_equal(tokenizer_id(t, "[PAD11]", 7), 11);
			assert_int_equal(tokenizer_type(t, 11), TOKEN_UNUSED);
			assert_int_equal(tokenizer_bos(t), bos ? 8 : -1);
			assert_int_equal(config.eos_count, 2);
			assert_int_equal(config.eos[1], 9);
			assert_int_equal(config.vocab, 12);
			assert_non_null(strstr(side_of(c, "tokenizer_config.json")->data, "\"{{ x }}\""));
			tokenizer_close(t);
			config_release(&config);
			checkpoint_close(c);
			/* a second generation keeps the name of the pre-tokenizer; without one there is none to keep */
			if (!pass && !pres[i].pre)
				break;
			if (!pass && convert(path, again, 100))
				fail_msg("%s", e.message);
		}
	}
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "from-the-future" });
	struct checkpoint *c = open_ok(path);
	struct tokenizer *t;
	assert_int_equal(checkpoint_tokenizer(c, &t, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "from-the-future"));
	checkpoint_close(c);
	/* a kind that is not handled is named, not taken for none */
	struct gguf_writer w = { 0 };
	struct strbuf b = { 0 };
	gguf_put_string(&w, "general.architecture", "llama", 5);
	gguf_put_string(&w, "tokenizer.ggml.model", "bert", 4);
	assert_int_equal(gguf_header(&w, &b, &e), 0);
	FILE *f = fopen(path, "wb");
	assert_true(f && fwrite(b.data, 1, b.len, f) == b.len);
	fclose(f);
	gguf_writer_release(&w);
	strbuf_release(&b);
	c = open_ok(path);
	assert_int_equal(checkpoint_tokenizer(c, &t, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "'bert' (WordPiece)"));
	checkpoint_close(c);
}

static void yarn(struct gguf_writer *w)
{
	gguf_put_string(w, "qwen2.rope.scaling.type", "yarn", 4);
	gguf_put_f32(w, "qwen2.rope.scaling.factor", 4);
	gguf_put_u32(w, "qwen2.rope.scaling.original_context_length", 16);
	gguf_put_f32(w, "qwen2.rope.freq_base", 1e6f);
}

static void linear(struct gguf_writer *w)
{
	gguf_put_string(w, "llama.rope.scaling.type", "linear", 6);
	gguf_put_f32(w, "llama.rope.scaling.factor", 2);
	gguf_put_u32(w, "llama.attention.sliding_window", 24);
}

static void theta(struct gguf_writer *w)
{
	gguf_put_f32(w, "llama.rope.freq_base", 500000);
}

static void theta50(struct gguf_writer *w)
{
	gguf_put_f32(w, "llama.rope.freq_base", 50);
}

static void keeps_positions(void **state)
{
	(void)state;
	/* two in between, so that all parameters follow from them; and divisors that nothing explains */
	struct rope r = { .theta = 500000, .dims = 8, .scaling = ROPE_LLAMA3, .factor = 8, .low_freq = 1, .high_freq = 4,
			  .original_context = 8192 };
	struct rope odd = { .theta = 50, .dims = 8, .scaling = ROPE_LLAMA3, .factor = 4, .low_freq = 1, .high_freq = 12,
			    .original_context = 100 };
	float divisors[4], other[4], strange[4] = { 1, 3, 2, 5 };
	const char *path = scratch("rope.gguf"), *again = scratch("rope2.gguf");
	gguf_rope_divisors(&r, divisors);
	gguf_rope_divisors(&odd, other);
	assert_true(divisors[0] == 1 && divisors[3] == 8);
	assert_true(other[0] == 1 && other[1] > 1 && other[2] < 4 && other[3] == 4);
	const struct tiny cases[] = {
		{ .arch = "llama", .divisors = divisors, .extra = theta }, { .arch = "llama", .divisors = strange },
		{ .arch = "qwen2", .extra = yarn, .biases = true }, { .arch = "llama", .extra = linear },
		{ .arch = "llama", .divisors = other, .extra = theta50 },
	};
	for (int i = 0; i < 5; i++) {
		struct tiny t = cases[i];
		t.pre = "qwen2";
		t.skip = "something.else";
		tiny_write(path, &t);
		if (convert(path, again, 64))
			fail_msg("%s", e.message);
		for (int pass = 0; pass < 2; pass++) {
			struct checkpoint *c = open_ok(pass ? again : path);
			struct config config;
			if (checkpoint_config(c, &config, &e))
				fail_msg("%s", e.message);
			const struct rope *x = &config.rope;
			assert_null(source_find(c->source, "rope_freqs.weight"));
			assert_true(i != 0 || (x->scaling == ROPE_LLAMA3 && x->factor == 8 && x->high_freq == 4 &&
					       x->original_context == 8192));
			assert_true(i != 1 || (x->scaling == ROPE_NONE && x->divisors && x->divisors[2] == 2));
			assert_true(i != 2 || (x->scaling == ROPE_YARN && x->factor == 4 && x->original_context == 16 &&
					       x->attention_factor > 1.13f));
			assert_true(i != 3 || (x->scaling == ROPE_LINEAR && x->factor == 2 && config.layer[0].window == 24));
			assert_true(i != 4 || (x->scaling == ROPE_LLAMA3 && x->factor == 4 && x->high_freq == 12 &&
					       x->original_context == 100));
			assert_string_equal(config.arch->name, i == 2 ? "qwen2" : i == 3 ? "mistral" : "llama");
			config_release(&config);
			checkpoint_close(c);
		}
	}
}

/* gemma's norms multiply by one more than their weight, which GGUF holds as the sum; read, written and read again. */
static void norms_plus_one(void **state)
{
	(void)state;
	const char *path = scratch("plus.gguf"), *again = scratch("plus-again.gguf");
	const struct tiny t = { .arch = "gemma", .pre = "qwen2", .skip = "something.else" };
	tiny_write(path, &t);
	if (convert(path, again, 64))
		fail_msg("%s", e.message);
	for (int pass = 0; pass < 2; pass++) {
		struct checkpoint *c = open_ok(pass ? again : path);
		const struct tensor *meta;
		float *w;
		if (source_read_f32(c->source, "model.norm.weight", &w, &meta, &e))
			fail_msg("%s", e.message);
		/* values count up over the file: 12 * 16 of the embedding come before */
		assert_true(w[0] == 191 && w[15] == 206);
		free(w);
		checkpoint_close(c);
	}
}

static void reads_split_files(void **state)
{
	(void)state;
	const char *first = scratch("s-00001-of-00002.gguf"), *second = scratch("s-00002-of-00002.gguf"), *lost = scratch("lost.gguf");
	struct tiny t = { .arch = "llama", .pre = "qwen2", .splits = 2, .biases = true };
	tiny_write(first, &t);
	tiny_write(lost, &t);
	struct checkpoint *c;
	assert_int_equal(checkpoint_open(first, &c, &e), ERR_IO);
	assert_non_null(strstr(e.message, "00002-of-00002"));
	expect(lost, ERR_INPUT, "not named like NAME-00001-of-00002.gguf");
	t.split_no = 1;
	tiny_write(second, &t);
	expect(second, ERR_INPUT, "split.tensors.count is 12, the files hold 15 tensors");
	t.biases = false;
	tiny_write(second, &t);
	t.split_no = 0;
	tiny_write(first, &t);
	for (int i = 0; i < 2; i++) {
		c = open_ok(i ? second : first);
		assert_int_equal(c->source->count, 12);
		assert_string_equal(fact(c, "shards"), "2");
		assert_non_null(source_find(c->source, "model.layers.0.mlp.down_proj.weight"));
		assert_non_null(source_find(c->source, "model.embed_tokens.weight"));
		assert_true(checkpoint_has(c, "config.json"));
		checkpoint_close(c);
	}
	tiny_write(second, &t); /* says that it is number 0 */
	assert_int_equal(checkpoint_open(first, &c, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "00002-of-00002.gguf: split.no is not 1"));
}

static void refuses(const char *from, int code, const char *fragment)
{
	const char *to = scratch("refused.gguf");
	int before = scratch_count(scratch_dir);
	e.message[0] = '\0';
	int rc = convert(from, to, 100);
	if (rc != code || !strstr(e.message, fragment))
		fail_msg("code %d, '%s'; want %d, '%s'", rc, e.message, code, fragment);
	if (!rc)
		unlink(to);
	assert_int_equal(scratch_count(scratch_dir), before);
}

static void refuses_what_gguf_cannot_hold(void **state)
{
	(void)state;
	const char *path = scratch("tiny.gguf");
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "qwen2", .skip = "blk.0.ffn_up.weight" });
	refuses(path, ERR_INPUT, "model.layers.0.mlp.up_proj.weight' is missing");
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "default", .skip = "something.else" });
	refuses(path, 0, "");
	/* without a name for its pre-tokenizer, as files before 2024: its keys are carried over as they are */
	tiny_write(path, &(struct tiny){ .arch = "llama", .skip = "something.else" });
	refuses(path, 0, "");
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "qwen2", .skip = "something.else" });
	struct checkpoint *c = open_ok(path);
	struct config config;
	struct tensor_sink *k;
	struct plan p;
	assert_int_equal(checkpoint_config(c, &config, &e), 0);
	plan_as_is(&p, c->source);
	int before = scratch_count(scratch_dir);
	const char *to = scratch("x.gguf");
	/* without a configuration */
	assert_int_equal(format_gguf.create(to, &(struct write_request){ c, NULL, &p, NULL }, &k, &e), ERR_UNSUPPORTED);
	/* a vector in half precision */
	for (size_t i = 0; i < p.count; i++)
		if (p.items[i].out.ndim == 1) {
			p.items[i].out.codec = codec_find("f16");
			tensor_measure(&p.items[i].out, &e);
		}
	assert_int_equal(format_gguf.create(to, &(struct write_request){ c, &config, &p, NULL }, &k, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "needs vectors as f32"));
	free(p.items);
	/* a codec of another family */
	plan_as_is(&p, c->source);
	p.items[0].out.codec = codec_find("f8_e4m3");
	tensor_measure(&p.items[0].out, &e);
	assert_false(format_gguf.holds(p.items[0].out.codec));
	assert_int_equal(format_gguf.create(to, &(struct write_request){ c, &config, &p, NULL }, &k, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "cannot hold the type"));
	free(p.items);
	/* a shared cache */
	plan_as_is(&p, c->source);
	config.layer[0].kv_source = 3;
	assert_int_equal(format_gguf.create(to, &(struct write_request){ c, &config, &p, NULL }, &k, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "reads the KV cache of layer 3"));
	config.layer[0].kv_source = 0;
	/* a stream that ends early leaves nothing behind */
	assert_int_equal(format_gguf.create(to, &(struct write_request){ c, &config, &p, NULL }, &k, &e), 0);
	assert_int_equal(k->item(k, 0, &e), 0);
	assert_int_equal(k->bytes(k, "1234", 4, &e), 0);
	assert_int_equal(k->finish(k, &e), ERR_BUG);
	k->close(k);
	assert_int_equal(scratch_count(scratch_dir), before);
	free(p.items);
	config_release(&config);
	checkpoint_close(c);
}

static void refuses_broken_models(void **state)
{
	(void)state;
	const char *path = scratch("broken.gguf");
	struct checkpoint *c;
	struct config config;
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "qwen2", .heads = 3 });
	expect(path, ERR_INPUT, "rows are not 3 heads");
	tiny_write(path, &(struct tiny){ .arch = "llama", .pre = "qwen2", .factor = true });
	expect(path, ERR_UNSUPPORTED, "'blk.0.attn_q.scale' is a factor of the weights beside it");
	tiny_write(path, &(struct tiny){ .arch = "unheard-of", .pre = "qwen2" });
	c = open_ok(path);
	assert_non_null(source_find(c->source, "blk.0.attn_q.weight"));
	assert_int_equal(checkpoint_config(c, &config, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "unheard-of"));
	checkpoint_close(c);
	scratch_put(path, "GGUF\3\0\0\0", 8);
	expect(path, ERR_INPUT, "ends inside the GGUF header");
	scratch_put(path, "not one", 7);
	expect(path, ERR_INPUT, "not a GGUF file");
}

static void makes_the_same_bytes_again(void **state)
{
	(void)state;
	/* whatever the size of the pieces */
	const char *a = scratch("a.gguf"), *b = scratch("b.gguf");
	struct strbuf x = { 0 }, y = { 0 };
	assert_int_equal(convert("examples/demo", a, 7919), 0);
	assert_int_equal(convert("examples/demo", b, 1 << 22), 0);
	assert_int_equal(file_read(a, &x, 0, &e) || file_read(b, &y, 0, &e), 0);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.data, y.data, x.len);
	strbuf_release(&x);
	strbuf_release(&y);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(demo_survives, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(shared_models_survive, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(unpermutes_llama_only, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(reads_byte_level_vocabularies, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(keeps_positions, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(norms_plus_one, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(reads_split_files, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses_what_gguf_cannot_hold, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(refuses_broken_models, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(makes_the_same_bytes_again, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
