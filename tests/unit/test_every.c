/*
 * Every family through every method, on the first golden model of each: what is added to one of the two lists is tried with all
 * of the other.
 */
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
#include "calib/fold/budget.h"
#include "calib/fold/fold_layers.h"
#include "calib/fold/share.h"
#include "calib/judge/attribute.h"
#include "calib/judge/change_cost.h"
#include "calib/quant/quantizer.h"
#include "calib/stats/collect.h"
#include "algo/quantize.h"
#include "model/tape.h"
#include "check.h"
#include "goldens.h"
#include "scratch.h"

enum { CTX = 10, WINDOWS = 12, HELD = 4 };

/* A golden model with random text. */
struct subject {
	const char *name;
	struct loaded l;
	struct windows text, judges;
	struct stats *stats;
};

/* The first golden model of this family. */
static void subject_open(struct subject *s, const struct arch *a, const struct goldens *all)
{
	struct checkpoint *demo;
	struct rng rng = { 7 };
	*s = (struct subject){ 0 };
	for (int i = 0; i < all->count && !s->name; i++) {
		char path[300];
		snprintf(path, sizeof path, "tests/golden/model/%s", all->name[i]);
		ok(checkpoint_open(path, &s->l.checkpoint, &e));
		ok(checkpoint_config(s->l.checkpoint, &s->l.config, &e));
		if (s->l.config.arch == a && s->l.config.layers > 1) {
			s->name = all->name[i];
			break;
		}
		config_release(&s->l.config);
		checkpoint_close(s->l.checkpoint);
	}
	if (!s->name)
		fail_msg("%s has no golden model with two layers", a->name);
	ok(model_open(&s->l.config, s->l.checkpoint->source, &s->l.model, &e));
	/* any tokenizer: statistics keep its hash */
	ok(checkpoint_open("examples/demo", &demo, &e));
	ok(checkpoint_tokenizer(demo, &s->l.tokenizer, &e));
	checkpoint_close(demo);
	s->text = (struct windows){ some(WINDOWS * CTX, sizeof(int32_t)), WINDOWS, CTX, 0 };
	for (size_t i = 0; i < WINDOWS * CTX; i++)
		s->text.tokens[i] = (int32_t)rng_below(&rng, s->l.config.vocab);
	s->judges = windows_part(&s->text, WINDOWS - HELD, WINDOWS);
}

static void subject_close(struct subject *s)
{
	stats_close(s->stats);
	windows_release(&s->text);
	loaded_close(&s->l);
}

static void statistics(struct subject *s)
{
	char hash[65] = { 0 };
	struct token_ids ids = { .id = s->text.tokens, .count = WINDOWS * CTX };
	struct collect_options o = { .collect = COLLECT_FULL, .ctx = CTX, .shards = 1, .tool = "test" };
	struct collect_plan p;
	memset(hash, '0', 64);
	ok(collect_plan_make(&p, &s->l, &ids, hash, &o, &e));
	ok(collect_run(&p, &s->l, &o, scratch("stats"), NULL, &e));
	collect_plan_release(&p);
	ok(stats_open(scratch("stats"), &s->stats, &e));
	ok(stats_check(s->stats, &s->l.config, s->l.checkpoint->source, s->l.tokenizer, &e));
}

static double kl_of(const struct subject *s, const struct config *c, struct tensor_source *source)
{
	struct change_cost cost;
	ok(change_cost_measure(s->l.model, &(struct change){ c, source, NULL }, &s->judges, &cost, &e));
	if (!isfinite(cost.kl))
		fail_msg("%s: KL is %g", s->name, cost.kl);
	return cost.kl;
}

/* Writes what a plan makes of a source as a model, and opens that. */
static struct checkpoint *written(const struct subject *s, struct plan *p, struct tensor_source *source, const struct plan_stats *stats,
				  const char *format)
{
	static int number;
	const struct write_options o = { .gguf_file_type = -1, .tool_version = "1" };
	struct tensor_sink *k;
	struct checkpoint *c;
	char name[64];
	snprintf(name, sizeof name, "model-%d", number++);
	ok(format_find(format)->create(scratch(name), &(struct write_request){ s->l.checkpoint, p->config, p, &o }, &k, &e));
	ok(plan_execute(p, source, k, stats, NULL, &e));
	ok(k->finish(k, &e));
	k->close(k);
	ok(checkpoint_open(scratch(name), &c, &e));
	return c;
}

/* ---- quantization */

/* Which weights make the difference: all of it is somewhere. */
static void attributed(const struct subject *s, const struct checkpoint *made)
{
	struct loaded l = s->l;
	struct attribution a;
	l.checkpoint = (struct checkpoint *)(uintptr_t)made;
	ok(model_open(&s->l.config, made->source, &l.model, &e));
	for (unsigned i = 0; i < attribute_row_count; i++) {
		const struct attribute_job job = { &l, &s->l, &s->judges, attribute_rows[i].by, NULL };
		ok(attribute(&job, &a, &e));
		assert_true(a.count > (attribute_rows[i].by == ATTRIBUTE_LAYERS ? 1 : 4) && a.kl > 0 && isfinite(a.groups[0].gain));
		attribution_release(&a);
	}
	model_close(l.model);
}

/* Figures of a method that needs statistics; row NULL: one that does not. */
static double quantized(struct subject *s, const struct quantizer_row *row, int passes, const char *method)
{
	struct recipe *r;
	struct plan p;
	struct quantizer *q = NULL;
	ok(recipe_new("int3-g32", &r, &e));
	recipe_vectors(r, codec_find("f32"));
	ok(plan_make(&p, &(struct plan_request){ .config = &s->l.config, .source = s->l.checkpoint->source, .recipe = r,
						  .method = method_find(method) }, &e));
	const struct quant_job job = { .config = &s->l.config, .source = s->l.checkpoint->source, .plan = &p, .text = &s->text };
	if (row) {
		ok(quantizer_new(row, &job, s->stats, &(struct quantizer_options){ .passes = passes }, &q, &e));
		ok(quantizer_prepare(q, NULL, &e));
		assert_true(!passes || tape_check(&s->l.config, &e) || quantizer_trained(q));
	}
	struct checkpoint *c = written(s, &p, q ? quantizer_source(q) : s->l.checkpoint->source, q ? quantizer_stats(q) : NULL, "quire");
	for (size_t i = 0; i < p.count; i++)
		if (p.items[i].role < ROLE_COUNT && role_rows[p.items[i].role].linear && p.items[i].role != ROLE_HEAD)
			assert_string_equal(p.items[i].out.codec->name, "int3-g32");
	double kl = kl_of(s, &s->l.config, c->source);
	if (row && !strcmp(row->name, "imatrix"))
		attributed(s, c);
	checkpoint_close(c);
	quantizer_free(q);
	plan_release(&p);
	recipe_free(r);
	return kl;
}

static void quantize_all(struct subject *s)
{
	double rtn = quantized(s, NULL, 0, "rtn"), kl = 0;
	quantized(s, NULL, 0, "search");
	for (unsigned i = 0; i < quantizer_row_count; i++)
		kl = quantized(s, &quantizer_rows[i], quantizer_rows[i].needs_tokens ? 1 : 0, "imatrix");
	if (!(kl < rtn))
		fail_msg("%s: the last method has KL %g, rounding has %g", s->name, kl, rtn);
}

/* ---- folds */

/* A folder of the result is the result. */
static void fold_is_written(const struct subject *s, const struct config *to, struct tensor_source *source, double kl)
{
	struct recipe *r;
	struct plan p;
	struct config back;
	ok(recipe_new(NULL, &r, &e));
	ok(plan_make(&p, &(struct plan_request){ .config = to, .source = source, .recipe = r }, &e));
	struct checkpoint *c = written(s, &p, source, NULL, "hf");
	ok(checkpoint_config(c, &back, &e));
	ok(checkpoint_check(c, &back, c->source, &e));
	if (fabs(kl_of(s, &back, c->source) - kl) > 1e-9)
		fail_msg("%s: what was written is not what was folded", s->name);
	config_release(&back);
	checkpoint_close(c);
	plan_release(&p);
	recipe_free(r);
}

static struct fold_job job_of(struct subject *s, const struct config *to)
{
	return (struct fold_job){ .original = s->l.model, .source = s->l.checkpoint->source, .to = to, .text = &s->text, .held = HELD,
				  .out = overlay_new(s->l.checkpoint->source, &e) };
}

static struct refit_options few_steps(void)
{
	struct refit_options o = refit_defaults;
	o.steps = 1;
	return o;
}

static void merge_heads(struct subject *s)
{
	struct config to;
	uint32_t heads[64];
	ok(checkpoint_config(s->l.checkpoint, &to, &e));
	assert_true(to.layers <= 64);
	for (uint32_t i = 0; i < to.layers; i++)
		heads[i] = to.layer[i].kv_heads = to.layer[i].kv_heads > 1 ? to.layer[i].kv_heads / 2 : 1;
	to.kv_heads = heads[0];
	int refused = fold_check(&s->l.config, s->l.checkpoint->source, heads, &e);
	if (refused != ERR_UNSUPPORTED)
		ok(refused);
	for (unsigned i = 0; i < fold_method_row_count && !refused; i++) {
		const struct fold_options o = { .method = fold_method_rows[i].method, .search = fold_method_rows[i].moments,
						.refit = few_steps(), .residual = 1, .ffn = true };
		struct fold_report *r = some(to.layers, sizeof *r);
		struct fold_job job = job_of(s, &to);
		ok(fold_run(&job, &o, r, &e));
		double kl = kl_of(s, &to, overlay_source(job.out));
		if (fold_method_rows[i].method == FOLD_REFIT)
			fold_is_written(s, &to, overlay_source(job.out), kl);
		fold_report_release(r, to.layers);
		overlay_free(job.out);
	}
	config_release(&to);
}

/* The first layer that may read the cache of one before it. */
static bool find_map(const struct subject *s, uint32_t *map)
{
	const struct config *c = &s->l.config;
	for (uint32_t i = 1; i < c->layers; i++)
		for (uint32_t k = 0; k < i; k++) {
			for (uint32_t x = 0; x < c->layers; x++)
				map[x] = x == i ? k : x;
			if (!share_check(c, s->l.checkpoint->source, map, &e))
				return true;
		}
	return false;
}

static void share_layers(struct subject *s)
{
	struct config to;
	uint32_t map[64];
	if (!find_map(s, map))
		return;
	ok(checkpoint_config(s->l.checkpoint, &to, &e));
	for (uint32_t i = 0; i < to.layers; i++)
		to.layer[i].kv_source = map[i];
	for (unsigned i = 0; i < share_method_row_count; i++) {
		const struct share_options o = { .method = share_method_rows[i].method, .refit = few_steps(), .residual = 1, .ffn = true };
		struct share_report *r = some(to.layers, sizeof *r);
		struct fold_job job = job_of(s, &to);
		ok(share_run(&job, &o, r, &e));
		double kl = kl_of(s, &to, overlay_source(job.out));
		if (share_method_rows[i].method == SHARE_JOINT)
			fold_is_written(s, &to, overlay_source(job.out), kl);
		share_report_release(r, to.layers);
		overlay_free(job.out);
	}
	config_release(&to);
}

static void spend_budget(struct subject *s)
{
	struct config to;
	struct budget_cache cache;
	struct budget_plan plan;
	ok(checkpoint_config(s->l.checkpoint, &to, &e));
	ok(budget_cache_find("f16", to.head_dim, &cache, &e));
	struct budget_request r = { .job = job_of(s, NULL), .cache = &cache, .caches = 1, .tokens = CTX };
	overlay_free(r.job.out);
	r.bytes = budget_smallest(&to, &cache, 1, CTX);
	int rc = budget_make(&r, &to, &plan, &e);
	if (rc != ERR_UNSUPPORTED) {
		ok(rc);
		assert_true(plan.after <= r.bytes && isfinite(plan.together));
		budget_plan_release(&plan);
	}
	config_release(&to);
}

/* Not families that people start from: what folded models are written as for other programs. */
static bool only_written(const struct arch *a)
{
	static const char *const names[] = { "nemotron-nas", "step3p5", "gemma4_text" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(a->name, names[i]))
			return true;
	return false;
}

static void every_family(void **state)
{
	struct goldens all = goldens_with("logits.bin");
	(void)state;
	thread_set(1); /* there is too little for two */
	for (unsigned i = 0; i < arch_row_count; i++) {
		struct subject s;
		if (only_written(arch_rows[i]))
			continue;
		subject_open(&s, arch_rows[i], &all);
		statistics(&s);
		quantize_all(&s);
		merge_heads(&s);
		share_layers(&s);
		spend_budget(&s);
		subject_close(&s);
	}
	thread_set(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(every_family, scratch_setup, scratch_teardown) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
