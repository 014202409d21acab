#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/sha256.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/gguf.h"
#include "model/stored.h"
#include "check.h"
#include "goldens.h"
#include "scratch.h"

/* Families whose tensors lie otherwise in files than the model sees them; tests/golden/make_model.py and make_families.py. */
static const char *const cases[] = { "gemma3-old", "gpt-neox", "gpt2" };
enum { CASES = sizeof cases / sizeof *cases };

struct job {
	struct checkpoint *c;
	struct config config;
	struct recipe *recipe;
	struct plan plan;
};

static void job_open(struct job *j, const char *path, const char *scheme, const char *rule)
{
	ok(checkpoint_open(path, &j->c, &e));
	ok(checkpoint_config(j->c, &j->config, &e));
	ok(recipe_new(scheme, &j->recipe, &e));
	if (rule)
		ok(recipe_override(j->recipe, rule, &e));
	recipe_vectors(j->recipe, codec_find("f32"));
	ok(plan_make(&j->plan, &(struct plan_request){ .config = &j->config, .source = j->c->source, .recipe = j->recipe }, &e));
}

static void job_close(struct job *j)
{
	plan_release(&j->plan);
	recipe_free(j->recipe);
	config_release(&j->config);
	checkpoint_close(j->c);
}

static int write_plan(struct job *j, const char *format, const char *path)
{
	struct write_options o = { .gguf_file_type = 1, .tool_version = "1" };
	struct tensor_sink *k = NULL;
	int rc = format_find(format)->create(path, &(struct write_request){ j->c, &j->config, &j->plan, &o }, &k, &e);
	if (!rc)
		rc = plan_execute(&j->plan, j->c->source, k, NULL, NULL, &e);
	if (!rc)
		rc = k->finish(k, &e);
	if (k)
		k->close(k);
	return rc;
}

static void convert(const char *from, const char *format, const char *to)
{
	struct job j;
	job_open(&j, from, NULL, NULL);
	ok(write_plan(&j, format, to));
	job_close(&j);
}

static char *golden(const char *name, char path[100])
{
	snprintf(path, 100, "tests/golden/model/%s", name);
	return path;
}

/* A line of converter.txt: name, codec, dimensions, the first bytes of the SHA-256 of what it holds. */
static void put_line(const struct mapped *m, const struct gguf_tensor *t, struct strbuf *line)
{
	struct sha256 h;
	uint8_t digest[32];
	char hex[65];
	sha256_init(&h);
	sha256_add(&h, m->data + t->at, (size_t)t->nbytes);
	sha256_finish(&h, digest);
	sha256_hex(digest, hex);
	strbuf_printf(line, "\n%s %s", t->name, t->codec->name);
	for (uint32_t i = 0; i < t->ndim; i++)
		strbuf_printf(line, " %llu", (unsigned long long)t->dim[i]);
	strbuf_printf(line, " %.16s\n", hex);
}

static size_t lines_of(const char *text)
{
	size_t n = 0;
	for (const char *s = text; (s = strchr(s, '\n')); s++)
		n++;
	return n;
}

/* Tensors of what we write are byte for byte those of llama.cpp's converter: fused, transposed back, in pairs, plus one. */
static void gguf_is_the_converters(void **state)
{
	const struct goldens all = goldens_with("converter.txt");
	(void)state;
	assert_true(all.count >= CASES);
	for (int i = 0; i < all.count; i++) {
		char path[160];
		struct mapped m;
		struct gguf ours;
		struct strbuf want = { 0 };
		snprintf(path, sizeof path, "tests/golden/model/%s/converter.txt", all.name[i]);
		strbuf_putc(&want, '\n');
		ok(file_read(path, &want, 0, &e));
		convert(golden(all.name[i], path), "gguf", scratch("x.gguf"));
		ok(mapped_open(&m, scratch("x.gguf"), &e));
		ok(gguf_parse(&ours, m.data, m.size, &e));
		assert_int_equal(ours.tensor_count, lines_of(want.data) - 1);
		for (size_t k = 0; k < ours.tensor_count; k++) {
			struct strbuf line = { 0 };
			put_line(&m, &ours.tensors[k], &line);
			if (!strstr(want.data, line.data))
				fail_msg("%s: the converter has another %s", all.name[i], line.data);
			strbuf_release(&line);
		}
		strbuf_release(&want);
		gguf_release(&ours);
		mapped_close(&m);
	}
}

static const struct tensor_source *as_stored(const struct checkpoint *c)
{
	return c->stored ? c->stored : c->source;
}

/* Every matrix of `path` lies in `other` under the same name with the same bytes, as the file has it or as the model sees it. */
static void same_matrices(const char *path, const char *other, bool stored)
{
	struct checkpoint *a, *b;
	ok(checkpoint_open(path, &a, &e));
	ok(checkpoint_open(other, &b, &e));
	union { const struct tensor_source *in; struct tensor_source *s; } x = { stored ? as_stored(a) : a->source },
		y = { stored ? as_stored(b) : b->source };
	size_t matrices = 0;
	for (size_t i = 0; i < x.s->count; i++) {
		const struct tensor *t = &x.s->tensors[i], *u = source_find(y.s, t->name);
		float *f, *g;
		if (!u)
			fail_msg("%s: no tensor %s", other, t->name);
		assert_int_equal(t->ndim, u->ndim);
		assert_memory_equal(t->dim, u->dim, t->ndim * sizeof *t->dim);
		ok(source_read_f32(x.s, t->name, &f, NULL, &e));
		ok(source_read_f32(y.s, t->name, &g, NULL, &e));
		if (memcmp(f, g, (size_t)tensor_elements(t) * sizeof *f))
			fail_msg("%s: %s has other values", other, t->name);
		matrices += t->ndim == 2;
		free(f);
		free(g);
	}
	assert_true(matrices > 8 && x.s->count == y.s->count);
	checkpoint_close(a);
	checkpoint_close(b);
}

static bool same_list(const float *a, const float *b, size_t n)
{
	return (!a && !b) || (a && b && !memcmp(a, b, n * sizeof *a));
}

/* What turns, and what is seen: the values that no tensor shows. */
static void same_config(const char *path, const char *other)
{
	struct checkpoint *c[2];
	struct config k[2];
	for (int i = 0; i < 2; i++) {
		ok(checkpoint_open(i ? other : path, &c[i], &e));
		ok(checkpoint_config(c[i], &k[i], &e));
	}
	const struct rope *a = &k[0].rope, *b = &k[1].rope;
	bool same = k[0].arch == k[1].arch && k[0].act == k[1].act && k[0].norm_eps == k[1].norm_eps && k[0].local_theta == k[1].local_theta &&
		    a->scaling == b->scaling && a->theta == b->theta && a->dims == b->dims && fabsf(a->attention_factor / b->attention_factor - 1) < 1e-6f &&
		    (a->scaling == ROPE_NONE || a->original_context == b->original_context) && same_list(a->divisors, b->divisors, a->dims / 2) &&
		    same_list(a->far, b->far, a->dims / 2);
	for (uint32_t i = 0; i < k[0].layers && same; i++) {
		const struct layer_config *x = &k[0].layer[i], *y = &k[1].layer[i];
		same = x->window == y->window && x->rope == y->rope && x->local == y->local && x->kv_heads == y->kv_heads && x->mixture == y->mixture;
	}
	if (!same)
		fail_msg("%s: its config is another one in %s", path, other);
	for (int i = 0; i < 2; i++) {
		config_release(&k[i]);
		checkpoint_close(c[i]);
	}
}

/* Through every format and back into a folder, as its class has it. */
static void folders_come_back(void **state)
{
	static const char *const ways[][2] = { { "gguf", "x.gguf" }, { "quire", "x.quire" }, { "hf", "x" } };
	const struct goldens all = goldens_with("converter.txt");
	(void)state;
	for (int i = 0; i < all.count; i++)
		for (int w = 0; w < 3; w++) {
			char path[100], way[200], back[200];
			golden(all.name[i], path);
			snprintf(way, sizeof way, "%s-%d", scratch(ways[w][1]), i);
			snprintf(back, sizeof back, "%s-%d-%d", scratch("back"), i, w);
			convert(path, ways[w][0], way);
			same_matrices(path, way, false);
			same_config(path, way);
			convert(way, "hf", back);
			same_config(path, back);
			same_matrices(path, back, false);
			same_matrices(path, back, true);
		}
}

/* What lies in one tensor is of one type. */
static void parts_have_one_type(void **state)
{
	(void)state;
	for (int i = 1; i < CASES; i++) {
		struct job j;
		char path[100];
		job_open(&j, golden(cases[i], path), "f16", "attn_v=f32");
		const struct plan_item *q = plan_find(&j.plan, ROLE_Q, 1), *v = plan_find(&j.plan, ROLE_V, 1), *o = plan_find(&j.plan, ROLE_O, 1);
		assert_string_equal(q->out.codec->name, "f32");
		assert_string_equal(v->out.codec->name, "f32");
		assert_string_equal(o->out.codec->name, "f16");
		struct plan_item *changed = &j.plan.items[q - j.plan.items];
		changed->out.codec = codec_find("f16");
		ok(tensor_measure(&changed->out, &e));
		assert_int_equal(write_plan(&j, "gguf", scratch("mixed.gguf")), ERR_UNSUPPORTED);
		assert_non_null(strstr(e.message, "in one type"));
		assert_int_equal(write_plan(&j, "hf", scratch("mixed")), ERR_UNSUPPORTED);
		assert_non_null(strstr(e.message, "one tensor"));
		job_close(&j);
	}
}

static void put(const char *path, const void *data, size_t size)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
	fclose(f);
}

/* A folder's tensors with another config. */
static int open_with(const char *name, const char *from, const char *to, const char *dir)
{
	struct strbuf text = { 0 }, tensors = { 0 };
	char path[300];
	mkdir(scratch(dir), 0700);
	snprintf(path, sizeof path, "tests/golden/model/%s/config.json", name);
	ok(file_read(path, &text, 0, &e));
	snprintf(path, sizeof path, "tests/golden/model/%s/model.safetensors", name);
	ok(file_read(path, &tensors, 0, &e));
	char *at = strstr(text.data, from);
	assert_non_null(at);
	size_t head = (size_t)(at - text.data);
	struct strbuf changed = { 0 };
	strbuf_add(&changed, text.data, head);
	strbuf_puts(&changed, to);
	strbuf_puts(&changed, at + strlen(from));
	snprintf(path, sizeof path, "%s/config.json", scratch(dir));
	put(path, changed.data, changed.len);
	snprintf(path, sizeof path, "%s/model.safetensors", scratch(dir));
	put(path, tensors.data, tensors.len);
	struct checkpoint *c;
	struct config config;
	int rc = checkpoint_open(scratch(dir), &c, &e);
	if (!rc && !(rc = checkpoint_config(c, &config, &e))) {
		rc = checkpoint_check(c, &config, c->source, &e);
		config_release(&config);
	}
	if (c)
		checkpoint_close(c);
	strbuf_release(&text);
	strbuf_release(&tensors);
	strbuf_release(&changed);
	return rc;
}

static void what_does_not_fit(void **state)
{
	(void)state;
	ok(open_with("gpt-neox", "\"attention_bias\"", "\"attention_bias\"", "plain"));
	assert_int_equal(open_with("gpt-neox", "\"attention_bias\"", "\"num_key_value_heads\": 2, \"attention_bias\"", "kv"), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "fewer heads"));
	ok(open_with("mixtral-fused", "\"num_local_experts\": 4", "\"num_local_experts\": 4", "fused"));
	assert_int_equal(open_with("mixtral-fused", "\"num_local_experts\": 4", "\"num_local_experts\": 5", "five"), ERR_INPUT);
	assert_non_null(strstr(e.message, "cannot be taken apart"));
	assert_int_equal(open_with("mixtral-fused", "\"intermediate_size\": 48", "\"intermediate_size\": 44", "slim"), ERR_INPUT);
	assert_int_equal(open_with("gpt2", "\"n_embd\": 40", "\"n_embd\": 36", "narrow"), ERR_INPUT);
	assert_int_equal(open_with("gpt2", "\"n_head\": 4", "\"num_key_value_heads\": 2, \"n_head\": 4", "kv2"), ERR_INPUT);
	assert_non_null(strstr(e.message, "wrong shapes"));
	assert_int_equal(open_with("gpt2", "\"n_head\": 4", "\"n_head\": 4, \"num_key_value_heads\": 1", "kv1"), ERR_INPUT);
	assert_int_equal(open_with("cohere", "\"hidden_size\": 32", "\"head_dim\": 12, \"hidden_size\": 32", "pairs"), ERR_INPUT);
	assert_non_null(strstr(e.message, "cannot be taken apart"));
	assert_int_equal(open_with("gpt2", "\"n_positions\": 64", "\"n_positions\": 65", "long"), ERR_INPUT);
	assert_int_equal(open_with("gpt2", "\"scale_attn_weights\": true", "\"scale_attn_weights\": false", "scale"), ERR_UNSUPPORTED);
}

/* llama-quantize judges attn_qkv as it does attn_v (llama-quant.cpp, category_is_attn_v). */
static void types_of_one_tensor(void **state)
{
	static const char text[] = "{\"model_type\":\"gpt2\",\"vocab_size\":64,\"n_embd\":256,\"n_layer\":8,\"n_head\":4}";
	/* the first and last eighth and every third between */
	static const struct { uint32_t layer; const char *codec; } want[] = { { 0, "q6_k" }, { 1, "q4_k" }, { 2, "q4_k" }, { 3, "q6_k" }, { 7, "q6_k" } };
	static const enum role roles[] = { ROLE_Q, ROLE_K, ROLE_V };
	struct config c;
	struct recipe *r;
	char name[96];
	unsigned part;
	(void)state;
	ok(config_parse(&c, text, sizeof text - 1, &e));
	ok(recipe_new("Q4_K_M", &r, &e));
	for (size_t i = 0; i < sizeof want / sizeof *want; i++)
		for (int k = 0; k < 3; k++) {
			struct tensor t = { .name = role_hf_name(c.arch, roles[k], want[i].layer, name), .codec = codec_find("f16"), .ndim = 2, .dim = { 256, 256 } };
			struct recipe_query q = { .config = &c, .tensor = &t, .role = roles[k], .layer = want[i].layer };
			assert_string_equal(recipe_choose(r, &q, NULL)->name, want[i].codec);
		}
	assert_string_equal(stored_gguf_name(c.arch, ROLE_K, 5, name, &part), "blk.5.attn_qkv.weight");
	assert_int_equal(part, 1);
	assert_string_equal(stored_gguf_name(c.arch, ROLE_O, 5, name, &part), "blk.5.attn_output.weight");
	assert_int_equal(part, 0);
	recipe_free(r);
	config_release(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(gguf_is_the_converters, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(folders_come_back, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(parts_have_one_type, scratch_setup, scratch_teardown),
		cmocka_unit_test(types_of_one_tensor),
		cmocka_unit_test_setup_teardown(what_does_not_fit, scratch_setup, scratch_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
