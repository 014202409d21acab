#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/thread.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "model/arch.h"
#include "model/model.h"
#include "check.h"
#include "goldens.h"

enum { SEQS = 2, LEN = 40, SHOWN = LEN / 4 };

struct golden {
	struct checkpoint *checkpoint;
	struct config config;
	struct model *model;
	int32_t tokens[SEQS * LEN];
	float *logits; /* of every fourth position */
};

static void read_exactly(const char *name, const char *file, void *out, size_t size)
{
	char path[256];
	struct strbuf b = { 0 };
	snprintf(path, sizeof path, "tests/golden/model/%s/%s", name, file);
	ok(file_read(path, &b, 0, &e));
	assert_int_equal(b.len, size);
	memcpy(out, b.data, size);
	strbuf_release(&b);
}

static void golden_open(struct golden *g, const char *name)
{
	char path[256];
	*g = (struct golden){ 0 };
	snprintf(path, sizeof path, "tests/golden/model/%s", name);
	ok(checkpoint_open(path, &g->checkpoint, &e));
	ok(checkpoint_config(g->checkpoint, &g->config, &e));
}

static void golden_load(struct golden *g, const char *name)
{
	golden_open(g, name);
	size_t n = (size_t)SEQS * SHOWN * g->config.vocab;
	ok(model_open(&g->config, g->checkpoint->source, &g->model, &e));
	g->logits = some(n, sizeof *g->logits);
	read_exactly(name, "tokens.bin", g->tokens, sizeof g->tokens);
	read_exactly(name, "logits.bin", g->logits, n * sizeof *g->logits);
}

static void golden_free(struct golden *g)
{
	free(g->logits);
	model_close(g->model);
	config_release(&g->config);
	checkpoint_close(g->checkpoint);
}

/* Logits [seqs * len, vocab] of a pass without a cache. */
static float *logits_of(struct golden *g, const int32_t *tokens, size_t seqs, size_t len)
{
	const struct config *c = &g->config;
	struct model_run *r = model_run_new(g->model, seqs, len, &e);
	float *hidden = some(seqs * len * c->hidden, sizeof *hidden), *out = some(seqs * len * c->vocab, sizeof *out);
	assert_non_null(r);
	ok(model_forward(r, tokens, &(struct model_batch){ seqs, len, NULL, NULL }, hidden, &e));
	ok(model_logits(r, hidden, seqs * len, out, &e));
	model_run_free(r);
	free(hidden);
	return out;
}

/* Logits of one sequence, handed to a cache in chunks. */
static float *logits_cached(struct golden *g, const int32_t *tokens, size_t len, size_t chunk, struct kv_cache *cache)
{
	const struct config *c = &g->config;
	struct model_run *r = model_run_new(g->model, 1, chunk, &e);
	float *hidden = some(chunk * c->hidden, sizeof *hidden), *out = some(len * c->vocab, sizeof *out);
	assert_non_null(r);
	for (size_t at = 0; at < len; at += chunk) {
		size_t n = len - at < chunk ? len - at : chunk;
		ok(model_forward(r, tokens + at, &(struct model_batch){ 1, n, cache, NULL }, hidden, &e));
		ok(model_logits(r, hidden, n, out + at * c->vocab, &e));
	}
	assert_int_equal(kv_cache_length(cache), len);
	model_run_free(r);
	free(hidden);
	return out;
}

static void close_to(const char *what, const char *name, const float *a, const float *b, size_t n, double limit)
{
	double d = distance(a, b, n);
	if (!(d <= limit))
		fail_msg("%s: %s differs by %g of the largest", name, what, d);
}

static void equals_hugging_face(void **state)
{
	const struct goldens cases = goldens_with("logits.bin");
	(void)state;
	assert_true(cases.count >= 27);
	for (int i = 0; i < cases.count; i++) {
		struct golden g;
		golden_load(&g, cases.name[i]);
		size_t v = g.config.vocab;
		float *all = logits_of(&g, g.tokens, SEQS, LEN);
		for (size_t s = 0; s < SEQS * SHOWN; s++)
			close_to("logits", cases.name[i], all + (4 * s + 3) * v, g.logits + s * v, v, 2e-5);
		free(all);
		golden_free(&g);
	}
}

static void decoding_agrees_with_prefill(void **state)
{
	static const size_t chunks[] = { 1, 3, LEN };
	const struct goldens cases = goldens_with("logits.bin");
	(void)state;
	assert_true(cases.count >= 27);
	for (int i = 0; i < cases.count; i++) {
		struct golden g;
		golden_load(&g, cases.name[i]);
		float *whole = logits_of(&g, g.tokens, 1, LEN);
		struct kv_cache *cache = kv_cache_new(&g.config, LEN, &e);
		assert_non_null(cache);
		for (int j = 0; j < 3; j++) {
			float *parts = logits_cached(&g, g.tokens, LEN, chunks[j], cache);
			close_to("decoding", cases.name[i], parts, whole, LEN * g.config.vocab, 1e-5);
			free(parts);
			kv_cache_truncate(cache, 0);
		}
		kv_cache_free(cache);
		free(whole);
		golden_free(&g);
	}
}

/* Far longer than the window, so that its buffer moves on several times, within and between chunks. */
static void window_buffer_moves_on(void **state)
{
	enum { LONG = 500 };
	static const size_t chunks[] = { 1, 64, 200, LONG };
	struct golden g;
	golden_load(&g, "mistral-window");
	struct rng rng = { 7 };
	int32_t tokens[LONG];
	(void)state;
	for (int i = 0; i < LONG; i++)
		tokens[i] = (int32_t)rng_below(&rng, g.config.vocab);
	float *whole = logits_of(&g, tokens, 1, LONG);
	struct kv_cache *cache = kv_cache_new(&g.config, LONG, &e);
	assert_non_null(cache);
	size_t full = 2 * (size_t)LONG * g.config.layers * g.config.kv_heads * g.config.head_dim * sizeof(float);
	assert_true(kv_cache_bytes(cache) < full / 4);
	for (int j = 0; j < 4; j++) {
		float *parts = logits_cached(&g, tokens, LONG, chunks[j], cache);
		close_to("windowed decoding", "mistral-window", parts, whole, LONG * g.config.vocab, 1e-5);
		free(parts);
		kv_cache_truncate(cache, 0);
	}
	kv_cache_free(cache);
	free(whole);
	golden_free(&g);
}

/* Longrope turns by how long a text may get: in a cache that has room for more, from the first token on. */
static void room_decides_positions(void **state)
{
	struct golden g, far;
	(void)state;
	golden_load(&g, "phi3-short");
	golden_open(&far, "phi3-short");
	assert_true(g.config.rope.original_context > LEN);
	far.config.rope.divisors = far.config.rope.far;
	ok(model_open(&far.config, far.checkpoint->source, &far.model, &e));
	size_t n = LEN * g.config.vocab;
	float *whole = logits_of(&g, g.tokens, 1, LEN), *want = logits_of(&far, g.tokens, 1, LEN);
	struct kv_cache *cache = kv_cache_new(&g.config, g.config.rope.original_context + 1, &e);
	assert_non_null(cache);
	float *roomy = logits_cached(&g, g.tokens, LEN, 7, cache);
	close_to("decoding with room", "phi3-short", roomy, want, n, 1e-5);
	assert_true(distance(roomy, whole, n) > 1e-2);
	kv_cache_free(cache);
	free(whole);
	free(want);
	free(roomy);
	golden_free(&far);
	golden_free(&g);
}

static void cache_goes_back(void **state)
{
	struct golden g;
	golden_load(&g, "llama-gqa-bias");
	struct kv_cache *cache = kv_cache_new(&g.config, LEN, &e);
	float *whole = logits_of(&g, g.tokens, 1, LEN), *first = logits_cached(&g, g.tokens, LEN, 8, cache);
	struct model_run *r = model_run_new(g.model, 1, LEN, &e);
	float *hidden = some(LEN * g.config.hidden, sizeof *hidden);
	size_t v = g.config.vocab;
	(void)state;
	assert_int_equal(model_forward(r, g.tokens, &(struct model_batch){ 1, 1, cache, NULL }, hidden, &e), ERR_INPUT);
	kv_cache_truncate(cache, 25);
	ok(model_forward(r, g.tokens + 25, &(struct model_batch){ 1, LEN - 25, cache, NULL }, hidden, &e));
	ok(model_logits(r, hidden, LEN - 25, first, &e));
	close_to("after going back", "llama", first, whole + 25 * v, (LEN - 25) * v, 1e-5);
	kv_cache_free(cache);
	model_run_free(r);
	free(hidden);
	free(first);
	free(whole);
	golden_free(&g);
}

static void threads_do_not_change_bits(void **state)
{
	const struct goldens cases = goldens_with("logits.bin");
	(void)state;
	for (int i = 0; i < cases.count; i += 3) {
		struct golden g;
		golden_load(&g, cases.name[i]);
		thread_set(1);
		float *one = logits_of(&g, g.tokens, SEQS, LEN);
		thread_set(2);
		float *two = logits_of(&g, g.tokens, SEQS, LEN);
		thread_set(3);
		float *three = logits_of(&g, g.tokens, SEQS, LEN);
		thread_set(0);
		assert_memory_equal(one, two, SEQS * LEN * g.config.vocab * sizeof *one);
		assert_memory_equal(one, three, SEQS * LEN * g.config.vocab * sizeof *one);
		free(one);
		free(two);
		free(three);
		golden_free(&g);
	}
}

static void sequences_do_not_see_each_other(void **state)
{
	struct golden g;
	golden_load(&g, "qwen2-window");
	size_t n = LEN * g.config.vocab;
	float *both = logits_of(&g, g.tokens, 2, LEN), *second = logits_of(&g, g.tokens + LEN, 1, LEN);
	int32_t changed[LEN];
	(void)state;
	close_to("a batch", "qwen2", both + n, second, n, 1e-5);
	/* nor do tokens see later ones */
	memcpy(changed, g.tokens, sizeof changed);
	changed[LEN - 1] = (changed[LEN - 1] + 1) % (int32_t)g.config.vocab;
	float *other = logits_of(&g, changed, 1, LEN);
	close_to("the past", "qwen2", other, both, n - g.config.vocab, 1e-5);
	assert_true(distance(other + n - g.config.vocab, both + n - g.config.vocab, g.config.vocab) > 1e-3);
	free(both);
	free(second);
	free(other);
	golden_free(&g);
}

/* A layer that reads another's KV equals a layer whose projections happen to give the same keys and values. */
static void shared_kv(void **state)
{
	static const char *const files[] = { "mistral-window", "llama-mha" };
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct golden g;
		golden_load(&g, files[i]);
		float *own = logits_of(&g, g.tokens, 2, LEN);
		g.config.layer[1].kv_source = 0;
		float *whole = logits_of(&g, g.tokens, 2, LEN);
		assert_true(distance(whole, own, LEN * g.config.vocab) > 1e-3);
		struct kv_cache *cache = kv_cache_new(&g.config, LEN, &e);
		float *parts = logits_cached(&g, g.tokens, LEN, 1, cache);
		close_to("shared KV", files[i], parts, whole, LEN * g.config.vocab, 1e-5);
		kv_cache_truncate(cache, 0);
		free(parts);
		parts = logits_cached(&g, g.tokens, LEN, 16, cache);
		close_to("shared KV in chunks", files[i], parts, whole, LEN * g.config.vocab, 1e-5);
		assert_int_equal(kv_cache_bytes(cache), 2 * LEN * g.config.kv_heads * g.config.head_dim * sizeof(float));
		kv_cache_free(cache);
		free(parts);
		free(whole);
		free(own);
		golden_free(&g);
	}
}

/* Layers in the wrong order are refused, not computed with stale values. */
static void shared_kv_needs_its_source(void **state)
{
	struct golden g;
	golden_load(&g, "llama-mha");
	struct model_run *r = model_run_new(g.model, 1, LEN, &e);
	struct kv_cache *cache = kv_cache_new(&g.config, LEN, &e);
	float *hidden = some(LEN * g.config.hidden, sizeof *hidden);
	(void)state;
	g.config.layer[1].kv_source = 0;
	assert_int_equal(model_layer(r, 1, hidden, &(struct model_batch){ 1, LEN, NULL, NULL }, &e), ERR_BUG);
	assert_int_equal(model_layer(r, 1, hidden, &(struct model_batch){ 1, LEN + 1, NULL, NULL }, &e), ERR_BUG);
	assert_int_equal(model_layer(r, 9, hidden, &(struct model_batch){ 1, LEN, NULL, NULL }, &e), ERR_BUG);
	kv_cache_free(cache);
	cache = kv_cache_new(&g.config, LEN, &e);
	assert_int_equal(model_layer(r, 1, hidden, &(struct model_batch){ 1, LEN, cache, NULL }, &e), ERR_BUG);
	kv_cache_free(cache);
	model_run_free(r);
	free(hidden);
	golden_free(&g);
}

struct seen {
	char log[400];
	const struct config *config;
	double q_norm;
};

static void see_input(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	struct seen *s = arg;
	size_t at = strlen(s->log);
	assert_true(isfinite(x[n * dim - 1]));
	snprintf(s->log + at, sizeof s->log - at, "%s.%u[%zu,%zu] ", role_rows[r].name, layer, n, dim);
}

static void see_qkv(void *arg, uint32_t layer, const float *q, const float *k, const float *v, size_t n)
{
	struct seen *s = arg;
	size_t at = strlen(s->log);
	assert_true(isfinite(q[0]) && n == LEN);
	snprintf(s->log + at, sizeof s->log - at, "qkv.%u%s ", layer, k && v ? "" : "-");
}

static void taps_see_every_input(void **state)
{
	struct golden g;
	golden_load(&g, "qwen3");
	struct seen s = { .config = &g.config };
	struct model_tap tap = { .input = see_input, .qkv = see_qkv, .arg = &s };
	struct model_run *r = model_run_new(g.model, 1, LEN, &e);
	float *hidden = some(LEN * g.config.hidden, sizeof *hidden);
	(void)state;
	g.config.layer[1].kv_source = 0;
	ok(model_forward(r, g.tokens, &(struct model_batch){ 1, LEN, NULL, &tap }, hidden, &e));
	assert_string_equal(s.log, "attn_q.0[40,40] qkv.0 attn_o.0[40,64] ffn_gate.0[40,40] ffn_down.0[40,56] "
				   "attn_q.1[40,40] qkv.1- attn_o.1[40,64] ffn_gate.1[40,40] ffn_down.1[40,56] ");
	model_run_free(r);
	free(hidden);
	golden_free(&g);
}

/* Any codec: rows decoded through blocks give what the decoded matrix gives, for one token and for several. */
static void weights_of_any_codec(void **state)
{
	enum { ROWS = 300, COLS = 256, N = 5 };
	static float w[ROWS * COLS], decoded[ROWS * COLS], x[N * COLS], bias[ROWS], y[N * ROWS], want[N * ROWS];
	struct rng rng = { 3 };
	(void)state;
	for (int i = 0; i < ROWS * COLS; i++)
		w[i] = (float)rng_normal(&rng);
	for (int i = 0; i < N * COLS; i++)
		x[i] = (float)rng_normal(&rng);
	for (int i = 0; i < ROWS; i++)
		bias[i] = (float)i;
	for (unsigned k = 0; k < codec_row_count; k++) {
		const struct codec *c = codec_rows[k];
		uint64_t bytes = codec_row_bytes(c, COLS);
		if (c->kind == CODEC_INTEGER || !bytes || !c->decode)
			continue;
		uint8_t *packed = some((size_t)bytes * ROWS + 1, 1), scratch[COLS];
		for (int r = 0; r < ROWS; r++) {
			if (c->kind == CODEC_FLOAT)
				c->encode(c, w + r * COLS, packed + 1 + (size_t)r * bytes, COLS);
			else
				codec_encode_row(c, &(struct row_job){ w + r * COLS, NULL, COLS, FIT_RTN }, scratch, packed + 1 + (size_t)r * bytes);
			c->decode(c, packed + 1 + (size_t)r * bytes, decoded + r * COLS, COLS);
		}
		struct tensor t = { .name = "w", .codec = c, .ndim = 2, .dim = { ROWS, COLS } };
		struct weight weight = { &t, { packed + 1, (size_t)bytes * ROWS, NULL } };
		for (int i = 0; i < N * ROWS; i++) {
			double sum = bias[i % ROWS];
			for (int j = 0; j < COLS; j++)
				sum += (double)x[i / ROWS * COLS + j] * decoded[i % ROWS * COLS + j];
			want[i] = (float)sum;
		}
		ok(weight_apply(&weight, x, N, bias, y, &e));
		close_to("product", c->name, y, want, N * ROWS, 1e-5);
		ok(weight_apply(&weight, x, 1, bias, y, &e));
		close_to("product of one", c->name, y, want, ROWS, 1e-5);
		free(packed);
	}
}

/* What rows can say beyond the shipped ones, each against the same model said another way. */
static void norms_that_add_one(void **state)
{
	struct golden g;
	golden_load(&g, "llama-mha");
	float *plain = logits_of(&g, g.tokens, 1, LEN);
	struct arch gemma_like = *g.config.arch;
	struct overlay *o = overlay_new(g.checkpoint->source, &e);
	(void)state;
	gemma_like.norm = NORM_RMS_PLUS_ONE;
	gemma_like.scale_embedding = true;
	for (size_t i = 0; i < g.checkpoint->source->count; i++) {
		const struct tensor *t = &g.checkpoint->source->tensors[i], *meta;
		bool norm = t->ndim == 1, embed = !strcmp(t->name, "model.embed_tokens.weight");
		float *v;
		if (!norm && !embed)
			continue;
		ok(source_read_f32(g.checkpoint->source, t->name, &v, &meta, &e));
		for (size_t j = 0; j < tensor_elements(t); j++)
			v[j] = norm ? v[j] - 1 : v[j] / sqrtf((float)g.config.hidden);
		struct tensor f32 = *t;
		f32.codec = codec_find("f32");
		ok(tensor_measure(&f32, &e));
		ok(overlay_put(o, &f32, v, &e));
	}
	model_close(g.model);
	g.config.arch = &gemma_like;
	ok(model_open(&g.config, overlay_source(o), &g.model, &e));
	float *other = logits_of(&g, g.tokens, 1, LEN);
	close_to("1 + w and scaled embedding", "llama", other, plain, LEN * g.config.vocab, 1e-5);
	free(plain);
	free(other);
	model_close(g.model);
	g.model = NULL;
	overlay_free(o);
	golden_free(&g);
}

static void soft_caps(void **state)
{
	struct golden g;
	golden_load(&g, "qwen2-window");
	size_t n = LEN * g.config.vocab;
	float *plain = logits_of(&g, g.tokens, 1, LEN);
	(void)state;
	g.config.attn_softcap = 1e4f; /* so high that it hardly bends */
	float *loose = logits_of(&g, g.tokens, 1, LEN);
	close_to("a loose cap", "qwen2", loose, plain, n, 1e-4);
	g.config.attn_softcap = 0.5f;
	float *tight = logits_of(&g, g.tokens, 1, LEN);
	assert_true(distance(tight, plain, n) > 1e-3);
	g.config.attn_softcap = 0;
	g.config.final_softcap = 3;
	float *capped = logits_of(&g, g.tokens, 1, LEN);
	for (size_t i = 0; i < n; i++)
		assert_float_equal(capped[i], 3 * tanhf(plain[i] / 3), 1e-5f);
	free(plain);
	free(loose);
	free(tight);
	free(capped);
	golden_free(&g);
}

/* Bytes that the source takes back after each product must not be missed, nor replaced ones be dropped. */
static size_t drops;
static void count_drop(struct tensor_source *s, const void *data, size_t size)
{
	(void)s;
	drops += data && size;
}

static void streaming_tells_the_source(void **state)
{
	struct golden g;
	golden_load(&g, "llama-tied");
	struct tensor_source *s = g.checkpoint->source;
	void (*was)(struct tensor_source *, const void *, size_t) = s->drop;
	(void)state;
	s->drop = count_drop;
	drops = 0;
	free(logits_of(&g, g.tokens, 1, 4));
	assert_int_equal(drops, 0);
	model_set_streaming(g.model, true);
	free(logits_of(&g, g.tokens, 1, 4));
	assert_int_equal(drops, 2 * 7 + 1);
	const struct weight *w = model_weight(g.model, ROLE_O, 0);
	ok(model_replace(g.model, ROLE_O, 0, w->tensor, w->bytes.data, &e));
	assert_int_equal(model_replace(g.model, ROLE_O, 2, w->tensor, w->bytes.data, &e), ERR_BUG);
	drops = 0;
	free(logits_of(&g, g.tokens, 1, 4));
	assert_int_equal(drops, 2 * 7);
	s->drop = was;
	golden_free(&g);
}

static void opening_refuses(struct golden *g, struct tensor_source *s, const char *a, const char *b)
{
	struct model *m;
	int rc = model_open(&g->config, s, &m, &e);
	if (rc != ERR_INPUT || m || !strstr(e.message, a) || !strstr(e.message, b))
		fail_msg("%d: %s", rc, e.message);
}

static void incomplete_checkpoints(void **state)
{
	struct golden g;
	golden_open(&g, "llama-mha");
	struct overlay *o = overlay_new(g.checkpoint->source, &e);
	const struct codec *f32 = codec_find("f32");
	struct tensor t = { .name = "model.layers.0.mlp.experts.0.weight", .codec = f32, .ndim = 1, .dim = { 1 }, .nbytes = 4 };
	(void)state;
	ok(overlay_remove(o, "model.layers.1.self_attn.k_proj.weight", &e));
	ok(overlay_remove(o, "lm_head.weight", &e));
	opening_refuses(&g, overlay_source(o), "2 missing", "model.layers.1.self_attn.k_proj.weight");
	ok(overlay_put(o, &t, some(4, 1), &e));
	t.name = "model.norm.weight";
	ok(overlay_put(o, &t, some(4, 1), &e));
	opening_refuses(&g, overlay_source(o), "1 unknown tensors: model.layers.0.mlp.experts.0.weight",
			"model.norm.weight is [1], not [40]");
	overlay_free(o);
	g.config.qkv_bias = true;
	opening_refuses(&g, g.checkpoint->source, "model.layers.0.self_attn.q_proj.bias", "missing");
	golden_free(&g);
}

static void saved_rotary_tables_are_ignored(void **state)
{
	struct golden g;
	golden_open(&g, "llama-tied");
	struct overlay *o = overlay_new(g.checkpoint->source, &e);
	struct tensor t = { .name = "model.layers.0.self_attn.rotary_emb.inv_freq", .codec = codec_find("f32"), .ndim = 1,
			    .dim = { 1 }, .nbytes = 4 };
	struct model *m;
	(void)state;
	ok(overlay_put(o, &t, some(4, 1), &e));
	ok(model_open(&g.config, overlay_source(o), &m, &e));
	assert_null(model_weight(m, ROLE_HEAD, 0)->bytes.data);
	assert_non_null(model_weight(m, ROLE_EMBED, 0)->bytes.data);
	assert_non_null(model_vector(m, ROLE_ATTN_NORM, 1));
	assert_null(model_vector(m, ROLE_ATTN_NORM, 2));
	model_close(m);
	overlay_free(o);
	golden_free(&g);
}

static void tokens_outside_the_vocabulary(void **state)
{
	static const int32_t bad[] = { -1, 72, INT32_MAX };
	struct golden g;
	golden_load(&g, "llama-mha");
	float hidden[40];
	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(model_embed(g.model, &(struct token_run){ &bad[i], 1, 1, 0 }, hidden, &e), ERR_INPUT);
	golden_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_hugging_face),
		cmocka_unit_test(decoding_agrees_with_prefill),
		cmocka_unit_test(window_buffer_moves_on),
		cmocka_unit_test(room_decides_positions),
		cmocka_unit_test(cache_goes_back),
		cmocka_unit_test(threads_do_not_change_bits),
		cmocka_unit_test(sequences_do_not_see_each_other),
		cmocka_unit_test(shared_kv),
		cmocka_unit_test(shared_kv_needs_its_source),
		cmocka_unit_test(taps_see_every_input),
		cmocka_unit_test(weights_of_any_codec),
		cmocka_unit_test(norms_that_add_one),
		cmocka_unit_test(soft_caps),
		cmocka_unit_test(streaming_tells_the_source),
		cmocka_unit_test(incomplete_checkpoints),
		cmocka_unit_test(saved_rotary_tables_are_ignored),
		cmocka_unit_test(tokens_outside_the_vocabulary),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
