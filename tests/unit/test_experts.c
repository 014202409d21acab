#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calib/stats/stats.h"
#include "formats/checkpoint.h"
#include "formats/imatrix.h"
#include "model/family/family.h"
#include "model/route.h"
#include "check.h"
#include "scratch.h"

#define BASE "\"vocab_size\":72,\"hidden_size\":32,\"num_hidden_layers\":5,\"num_attention_heads\":4,\"intermediate_size\":96"

static int parse(struct config *c, const char *type, const char *more)
{
	char text[1024];
	snprintf(text, sizeof text, "{\"model_type\":\"%s\"," BASE "%s%s}", type, *more ? "," : "", more);
	return config_parse(c, text, strlen(text), &e);
}

static void defaults_of_the_classes(void **state)
{
	struct config c;
	(void)state;
	ok(parse(&c, "qwen3_moe", ""));
	assert_true(c.experts == 128 && c.experts_used == 8 && c.expert_ffn == 768 && !c.experts_sum_to_one && c.layer[4].mixture);
	assert_int_equal(c.kv_heads, 4);
	assert_int_equal(c.head_dim, 8);
	config_release(&c);
	ok(parse(&c, "mixtral", "\"num_key_value_heads\":2"));
	assert_true(c.experts == 8 && c.experts_used == 2 && c.expert_ffn == 96 && c.experts_sum_to_one && c.layer[0].mixture);
	assert_true(c.layer[0].window == 0 && c.rope.theta == 1e6f);
	config_release(&c);
	ok(parse(&c, "llama", ""));
	assert_true(c.experts == 0 && !c.layer[0].mixture);
	assert_int_equal(site_count(&c), 6 * ROLE_COUNT);
	config_release(&c);
}

static void which_layers(void **state)
{
	struct config c, again;
	struct strbuf text = { 0 };
	(void)state;
	ok(parse(&c, "qwen3_moe", "\"decoder_sparse_step\":2,\"mlp_only_layers\":[1,9],\"num_local_experts\":6,\"num_experts_per_tok\":3"));
	assert_int_equal(config_mixtures(&c), 1);
	assert_true(c.layer[3].mixture);
	ok(config_print(&c, NULL, 0, &text, &e));
	ok(config_parse(&again, text.data, text.len, &e));
	for (int i = 0; i < 5; i++)
		assert_int_equal(again.layer[i].mixture, c.layer[i].mixture);
	assert_int_equal(again.experts, 6);
	config_release(&again);
	config_release(&c);
	strbuf_release(&text);
	static const char *const bad[] = { "\"num_experts\":4,\"num_experts_per_tok\":5", "\"num_experts\":0", "\"num_experts\":70000",
					   "\"mlp_only_layers\":3", "\"mlp_only_layers\":[-1]", "\"norm_topk_prob\":2",
					   "\"decoder_sparse_step\":0", "\"moe_intermediate_size\":\"x\"" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(parse(&c, "qwen3_moe", bad[i]), ERR_INPUT);
	assert_int_equal(parse(&c, "qwen2", "\"num_experts\":8"), ERR_UNSUPPORTED);
}

/* Every place has a number of its own, and none is too large. */
static void sites(void **state)
{
	struct config c;
	(void)state;
	ok(parse(&c, "qwen3_moe", "\"num_experts\":7,\"num_experts_per_tok\":2"));
	size_t count = site_count(&c), found = 0;
	bool *taken = some(count, sizeof *taken);
	memset(taken, 0, count * sizeof *taken);
	for (int r = 0; r < ROLE_COUNT; r++)
		for (uint32_t l = 0; l < 6; l++)
			for (uint32_t x = 0; x < 8; x++) {
				uint32_t place = role_rows[r].per_expert ? place_of(l, x) : l;
				size_t id = site_id(&c, (enum role)r, place);
				bool there = (l < 5 || !role_rows[r].per_layer) && (x < 7 || !role_rows[r].per_expert);
				assert_int_equal(id != SIZE_MAX, there);
				if (!there || (!role_rows[r].per_expert && x) || (!role_rows[r].per_layer && l))
					continue;
				assert_true(id < count && !taken[id]);
				taken[id] = true;
				found++;
			}
	assert_true(found > 5 * 7 * 3);
	assert_int_equal(site_id(&c, ROLE_EXPERT_UP, 3), SIZE_MAX);
	assert_int_equal(role_count(&c, ROLE_EXPERT_UP, 0), 7);
	assert_int_equal(role_count(&c, ROLE_UP, 0), 0);
	/* 5 layers: two norms, attention with norms of heads, router and 7 experts of 3 matrices; embedding, head, final norm */
	uint64_t attention = 32 * (32 + 2 * 32) + 32 * 32 + 16, expert = 3 * 32 * 768, rest = 2 * 72 * 32 + 32;
	assert_int_equal(config_parameters(&c), rest + 5 * (64 + attention + 7 * 32 + 7 * expert));
	assert_int_equal(config_active_parameters(&c), rest + 5 * (64 + attention + 7 * 32 + 2 * expert));
	free(taken);
	config_release(&c);
}

static void names(void **state)
{
	uint32_t place;
	char name[96];
	(void)state;
	assert_int_equal(role_from_hf(&family_qwen3_moe, "model.layers.3.mlp.experts.12.up_proj.weight", &place), ROLE_EXPERT_UP);
	assert_true(place_layer(place) == 3 && place_expert(place) == 12);
	assert_int_equal(role_from_hf(&family_qwen3_moe, "model.layers.3.mlp.up_proj.weight", &place), ROLE_UP);
	assert_int_equal(place, 3);
	assert_string_equal(role_hf_name(&family_mixtral, ROLE_EXPERT_DOWN, place_of(0, 7), name),
			    "model.layers.0.block_sparse_moe.experts.7.w2.weight");
	assert_string_equal(role_gguf_name(&family_mixtral, ROLE_EXPERT_DOWN, place_of(2, 7), name), "blk.2.ffn_down_exps.weight");
	static const char *const bad[] = { "model.layers.3.mlp.experts.012.up_proj.weight", "model.layers.4096.mlp.experts.1.up_proj.weight",
					   "model.layers.3.mlp.experts.70000.up_proj.weight", "model.layers.3.mlp.experts..up_proj.weight" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(role_from_hf(&family_qwen3_moe, bad[i], &place), ROLE_UNKNOWN);
}

/* The sum over experts lies apart from all that an expert makes; so does what the next expert reads again. */
static void rooms(void **state)
{
	struct config c;
	struct block b;
	struct group g[BLOCK_GROUPS];
	unsigned from = 0;
	(void)state;
	ok(parse(&c, "mixtral", "\"num_key_value_heads\":2"));
	block_make(&c, 0, &b);
	assert_false(b.full);
	while (b.op[from].kind != OP_EXPERTS)
		from++;
	unsigned merge = block_merge(&b, from);
	assert_int_equal(merge, from + 5);
	unsigned kept[] = { b.value[b.op[merge].out].room, b.value[b.op[from].in[0]].room, b.value[b.op[from].in[1]].room };
	for (unsigned i = from; i < merge; i++)
		for (int k = 0; k < 3; k++)
			assert_int_not_equal(b.value[b.op[i].out].room, kept[k]);
	assert_int_equal(block_groups(&b, g), 5);
	assert_true(g[2].role[0] == ROLE_ROUTER && !g[2].experts && g[2].count == 1);
	assert_true(g[3].role[0] == ROLE_EXPERT_GATE && g[3].experts == 8 && g[3].count == 2 && !g[3].ends);
	assert_true(g[4].role[0] == ROLE_EXPERT_DOWN && g[4].experts == 8 && g[4].ends && !g[4].adds);
	assert_int_equal(block_source(&c, &b, ROLE_EXPERT_DOWN).role, ROLE_EXPERT_UP);
	assert_non_null(block_source(&c, &b, ROLE_EXPERT_UP).why);
	config_release(&c);
}

static void weights_of_the_chosen(void **state)
{
	struct config c = { .experts = 4, .experts_used = 2 };
	const float logits[] = { 1, 3, 3, 0, /* equal ones */ 2, 2, 2, 2 };
	float x[8], all = expf(-2) + 2 + expf(-3);
	(void)state;
	memcpy(x, logits, sizeof x);
	route_weights(&c, x, 2);
	assert_true(x[0] == 0 && x[3] == 0 && fabsf(x[1] - 1 / all) < 1e-7f && x[2] == x[1]);
	assert_true(x[4] == 0.25f && x[5] == 0.25f && x[6] == 0 && x[7] == 0);
	c.experts_sum_to_one = true;
	memcpy(x, logits, sizeof x);
	route_weights(&c, x, 2);
	assert_true(x[1] == 0.5f && x[2] == 0.5f && x[4] == 0.5f && x[6] == 0);
}

/* To GGUF, where the experts of a layer are one tensor, and back: the same matrices. */
static void gguf_round_trip(void **state)
{
	static const char *const folders[] = { "tests/golden/model/qwen3-moe", "tests/golden/model/mixtral" };
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct checkpoint *from, *to;
		struct tensor_sink *k;
		struct recipe *r;
		struct plan p;
		struct config c;
		const char *path = scratch("experts.gguf");
		ok(checkpoint_open(folders[i], &from, &e));
		ok(checkpoint_config(from, &c, &e));
		ok(recipe_new(NULL, &r, &e));
		recipe_vectors(r, codec_find("f32"));
		ok(plan_make(&p, &(struct plan_request){ .config = &c, .source = from->source, .recipe = r }, &e));
		ok(format_find("gguf")->create(path, &(struct write_request){ from, &c, &p, NULL }, &k, &e));
		ok(plan_execute(&p, from->source, k, NULL, NULL, &e));
		ok(k->finish(k, &e));
		k->close(k);
		ok(checkpoint_open(path, &to, &e));
		assert_int_equal(to->source->count, from->source->count);
		ok(checkpoint_check(to, &c, to->source, &e));
		for (size_t t = 0; t < from->source->count; t++) {
			const struct tensor *meta;
			float *a, *b;
			ok(source_read_f32(from->source, from->source->tensors[t].name, &a, &meta, &e));
			ok(source_read_f32(to->source, from->source->tensors[t].name, &b, &meta, &e));
			assert_memory_equal(a, b, tensor_elements(meta) * sizeof *a);
			free(a);
			free(b);
		}
		struct config back;
		ok(checkpoint_config(to, &back, &e));
		assert_ptr_equal(back.arch, c.arch);
		assert_true(back.experts == c.experts && back.experts_used == c.experts_used && back.expert_ffn == c.expert_ffn);
		config_release(&back);
		checkpoint_close(to);
		plan_release(&p);
		recipe_free(r);
		config_release(&c);
		checkpoint_close(from);
	}
}

/* llama.cpp's importance matrix: experts side by side in one entry, each with its count. */
static void what_experts_borrow(void **state)
{
	enum { N = 32, EXPERTS = 8 };
	/* means are 1, 3 and 2 more than the channel; expert 2 saw nothing, the others of no account */
	static float sums[EXPERTS * N], counts[EXPERTS] = { 400, 100, 0, 200, 200, 200, 200, 200 };
	static const float more[EXPERTS] = { 1, 3, 0, 2, 2, 2, 2, 2 };
	struct imatrix_entry x = { .name = "blk.1.ffn_down_exps.weight", .n = N, .mats = EXPERTS, .sum_squares = sums, .counts = counts };
	struct imatrix m = { .entries = &x, .count = 1, .chunk_size = 64 };
	struct checkpoint *c;
	struct config config;
	struct stats *s;
	size_t n;
	double all = 0;
	(void)state;
	for (int k = 0; k < EXPERTS; k++)
		for (int i = 0; i < N; i++)
			sums[k * N + i] = counts[k] * (more[k] + (float)i);
	for (int k = 0; k < EXPERTS; k++)
		all += (double)(counts[k] * more[k]) / 1500;
	ok(checkpoint_open("tests/golden/model/qwen3-moe", &c, &e));
	ok(checkpoint_config(c, &config, &e));
	for (int older = 0; older < 2; older++) {
		struct strbuf b = { 0 };
		ok((older ? imatrix_print_dat : imatrix_print_gguf)(&m, &b, &e));
		ok(stats_parse((const uint8_t *)b.data, b.len, &s, &e));
		ok(stats_check(s, &config, c->source, NULL, &e));
		/* the older form has one count for all: nobody is known to lack tokens */
		double want[3] = { 1, older ? 3 : 0.5 * 3 + 0.5 * all, older ? 0 : all };
		for (uint32_t k = 0; k < (older ? 2 : 3); k++) {
			const float *v = stats_importance(s, ROLE_EXPERT_DOWN, place_of(1, k), &n);
			assert_non_null(v);
			assert_int_equal(n, N);
			for (int i = 0; i < N; i++)
				assert_true(fabs((double)v[i] - want[k] - i) < 1e-4);
		}
		assert_true(older || stats_count(s, ROLE_EXPERT_DOWN, place_of(1, 1)) == 100);
		assert_null(stats_importance(s, ROLE_EXPERT_UP, place_of(1, 0), &n));
		assert_null(stats_importance(s, ROLE_EXPERT_DOWN, place_of(0, 0), &n));
		assert_null(stats_importance(s, ROLE_EXPERT_DOWN, 1, &n));
		stats_close(s);
		strbuf_release(&b);
	}
	config_release(&config);
	checkpoint_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_of_the_classes), cmocka_unit_test(which_layers),          cmocka_unit_test(sites),
		cmocka_unit_test(names),                   cmocka_unit_test(rooms),                 cmocka_unit_test(weights_of_the_chosen),
		cmocka_unit_test(gguf_round_trip),         cmocka_unit_test(what_experts_borrow),
	};
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
