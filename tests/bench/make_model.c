/*
 * Writes a model of random weights in a named shape, for benchmarks: make_model [--dtype f16] [--layers N] SHAPE OUT [TOKENIZER-FROM].
 * Everything goes through the library's own writers, streamed. Without arguments it lists the shapes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "formats/side.h"
#include "plan/plan.h"

static const struct shape {
	const char *name;
	unsigned hidden, layers, heads, kv_heads, ffn, vocab, context;
} shapes[] = {
	{ "tiny", 256, 2, 8, 4, 512, 1024, 512 },
	{ "100m", 768, 12, 12, 4, 2048, 16000, 2048 },
	{ "1b", 2048, 22, 32, 4, 5632, 32000, 2048 },
};

struct synthetic {
	struct tensor_source source;
	struct tensor *tensors;
	char (*names)[96];
};

struct fill {
	uint64_t seed;
	const struct codec *codec;
	uint8_t *dst;
	uint64_t cols, row_bytes;
	bool ones;
};

/* Sum of four uniforms: close enough to a bell, and cheap. The variance is 1/3. */
static float bell(struct rng *r)
{
	uint64_t u = rng_u64(r);
	return ((float)(u & 0xffff) + (float)(u >> 16 & 0xffff) + (float)(u >> 32 & 0xffff) + (float)(u >> 48)) * 0x1p-16f - 2.0f;
}

static void fill_row(void *arg, size_t row, int worker)
{
	const struct fill *f = arg;
	struct rng r = { f->seed * 0x9e3779b97f4a7c15ull + row * 0xd6e8feb86659fd93ull };
	float x[512];
	(void)worker;
	for (uint64_t at = 0; at < f->cols; at += 512) {
		size_t n = f->cols - at < 512 ? (size_t)(f->cols - at) : 512;
		for (size_t i = 0; i < n; i++)
			x[i] = f->ones ? 1.0f : 0.035f * bell(&r);
		f->codec->encode(f->codec, x, f->dst + row * f->row_bytes + at * f->codec->block_bytes, n);
	}
}

static int synthetic_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct tensor *t = &s->tensors[i];
	*out = (struct tensor_bytes){ .size = t->nbytes, .owned = malloc(t->nbytes) };
	if (!out->owned)
		return err_nomem(e);
	out->data = out->owned;
	struct fill f = { i + 1, t->codec, out->owned, tensor_cols(t), codec_row_bytes(t->codec, tensor_cols(t)), t->ndim == 1 };
	thread_for(tensor_rows(t), fill_row, &f);
	return ERR_OK;
}

static int make_source(struct synthetic *s, const struct config *c, const struct codec *codec, struct err *e)
{
	size_t most = (size_t)(c->layers + 1) * ROLE_COUNT;
	s->tensors = calloc(most, sizeof *s->tensors);
	s->names = calloc(most, sizeof *s->names);
	if (!s->tensors || !s->names)
		return err_nomem(e);
	for (uint32_t layer = 0; layer <= c->layers; layer++)
		for (unsigned r = 0; r < ROLE_COUNT; r++) {
			struct tensor *t = &s->tensors[s->source.count];
			uint32_t l = layer == c->layers ? UINT32_MAX : layer;
			if (role_rows[r].per_layer != (l != UINT32_MAX) || !role_required(c, (enum role)r, l))
				continue;
			t->name = role_hf_name(c->arch, (enum role)r, l, s->names[s->source.count]);
			t->ndim = role_shape(c, (enum role)r, l, t->dim);
			t->codec = codec;
			if (!t->name || tensor_measure(t, e))
				return ERR_BUG;
			s->source.count++;
		}
	s->source.tensors = s->tensors;
	s->source.get = synthetic_get;
	return source_index(&s->source, e);
}

static int write_model(const struct shape *shape, unsigned layers, const struct codec *codec, const char *out, const struct checkpoint *from, struct err *e)
{
	char text[800];
	int n = snprintf(text, sizeof text,
			 "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n  \"hidden_size\": %u,\n"
			 "  \"intermediate_size\": %u,\n  \"num_hidden_layers\": %u,\n  \"num_attention_heads\": %u,\n"
			 "  \"num_key_value_heads\": %u,\n  \"vocab_size\": %u,\n  \"max_position_embeddings\": %u,\n"
			 "  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0,\n  \"hidden_act\": \"silu\",\n  \"bos_token_id\": 1,\n"
			 "  \"eos_token_id\": 2,\n  \"tie_word_embeddings\": false,\n  \"torch_dtype\": \"%s\"\n}\n",
			 shape->hidden, shape->ffn, layers, shape->heads, shape->kv_heads, shape->vocab, shape->context,
			 !strcmp(codec->name, "f16") ? "float16" : !strcmp(codec->name, "bf16") ? "bfloat16" : "float32");
	struct checkpoint src = { .path = "random" };
	int rc = side_put(&src, "config.json", text, (size_t)n, e);
	const struct side_file *file;
	const char *name;
	for (size_t i = 0; !rc && (name = checkpoint_file_name(from, i)); i++)
		if (!strncmp(name, "tokenizer", 9) && !(rc = checkpoint_file(from, name, &file, e)))
			rc = side_put(&src, name, file->data, file->size, e);
	struct config config = { 0 };
	struct synthetic s = { 0 };
	struct recipe *recipe = NULL;
	struct plan plan = { 0 };
	struct write_options o = { .recipe = "random", .tool_version = "make_model", .gguf_file_type = -1 };
	struct tensor_sink *sink = NULL;
	const struct format *f = format_for_output(out);
	if (!rc)
		rc = config_parse(&config, text, (size_t)n, e);
	if (!rc)
		rc = make_source(&s, &config, codec, e);
	if (!rc)
		rc = recipe_new(NULL, &recipe, e);
	if (!rc)
		rc = plan_make(&plan, &(struct plan_request){ .config = &config, .source = &s.source, .recipe = recipe }, e);
	src.source = &s.source;
	if (!rc)
		rc = f->create(out, &(struct write_request){ &src, &config, &plan, &o }, &sink, e);
	if (!rc)
		rc = plan_execute(&plan, &s.source, sink, NULL, NULL, e);
	if (!rc)
		rc = sink->finish(sink, e);
	if (sink)
		sink->close(sink);
	plan_release(&plan);
	recipe_free(recipe);
	config_release(&config);
	map_release(&s.source.index);
	free(s.tensors);
	free(s.names);
	sides_free(src.sides);
	return rc;
}

int main(int argc, char **argv)
{
	const char *dtype = "f16";
	unsigned layers = 0;
	for (; argc > 2 && argv[1][0] == '-'; argv += 2, argc -= 2)
		if (!strcmp(argv[1], "--dtype"))
			dtype = argv[2];
		else if (!strcmp(argv[1], "--layers"))
			layers = (unsigned)strtoul(argv[2], NULL, 10);
	const struct shape *shape = NULL;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		if (argc > 1 && !strcmp(argv[1], shapes[i].name))
			shape = &shapes[i];
		else if (argc == 1)
			printf("shape %s\n", shapes[i].name);
	}
	if (argc == 1)
		return 0;
	const struct codec *codec = codec_find(dtype);
	struct err e = { 0 };
	struct checkpoint *from = NULL;
	if (!shape || argc < 3 || !codec || codec->kind != CODEC_FLOAT) {
		fprintf(stderr, "usage: make_model [--dtype f16] [--layers N] SHAPE OUT [TOKENIZER-FROM]\n");
		return 2;
	}
	int rc = argc > 3 ? checkpoint_open(argv[3], &from, &e) : ERR_OK;
	if (!rc)
		rc = write_model(shape, layers ? layers : shape->layers, codec, argv[2], from, &e);
	checkpoint_close(from);
	if (rc)
		fprintf(stderr, "make_model: %s\n", e.message);
	return rc;
}
