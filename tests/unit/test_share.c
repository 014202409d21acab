/* Layers that read another layer's KV cache: maps, heads assigned, exactness, and a model that is shared and run. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/thread.h"
#include "calib/judge/change_cost.h"
#include "calib/run/loaded.h"
#include "calib/fold/share_parts.h"
#include "calib/run/text.h"
#include "check.h"

static float *noise(size_t n, uint64_t seed)
{
	struct rng r = { seed };
	float *p = malloc(n * sizeof *p);
	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(rng_unit(&r) + rng_unit(&r) + rng_unit(&r) - 1.5);
	return p;
}

/* --- maps --- */

static void maps_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *spec;
		uint32_t layers, want[6];
	} good[] = {
		{ "suffix:1", 5, { 0, 1, 2, 3, 3 } },     { "suffix:3", 5, { 0, 1, 1, 1, 1 } }, { "suffix:4", 5, { 0 } },
		{ "pairs", 5, { 0, 1, 1, 3, 3 } },         { "pairs", 6, { 0, 0, 2, 2, 4, 4 } }, { "0,1,1,3,3", 5, { 0, 1, 1, 3, 3 } },
	};
	static const char *const bad[] = { "", "suffix", "suffix:", "suffix:0", "suffix:5", "suffix:1x", "suffix:-1", "pair", "0,1,1,3",
					   "0,1,1,3,3,3", "0,1,1,3,", "0,,1,3,3", "0,1,1,3,99999999999", "a,b,c,d,e" };
	uint32_t map[6];
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		ok(share_map_parse(good[i].spec, good[i].layers, map, &e));
		assert_memory_equal(map, good[i].want, good[i].layers * sizeof *map);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (share_map_parse(bad[i], 5, map, &e) != ERR_USAGE)
			fail_msg("'%s' is taken as a map", bad[i]);
}

static void maps_that_cannot_be(void **state)
{
	(void)state;
	struct loaded m;
	ok(loaded_open(&m, "examples/demo", &e));
	struct tensor_source *s = m.checkpoint->source;
	const uint32_t good[] = { 0, 0, 2, 2, 2 }, later[] = { 0, 2, 2, 3, 4 }, chain[] = { 0, 0, 1, 3, 4 }, cycle[] = { 1, 0, 2, 3, 4 };
	const uint32_t outside[] = { 0, 1, 2, 3, 9 };
	ok(share_check(&m.config, s, good, &e));
	assert_int_equal(share_check(&m.config, s, later, &e), ERR_USAGE);
	assert_non_null(strstr(e.message, "layer 1 cannot read layer 2: it comes later"));
	assert_int_equal(share_check(&m.config, s, chain, &e), ERR_USAGE);
	assert_non_null(strstr(e.message, "which itself reads layer 0"));
	assert_int_equal(share_check(&m.config, s, cycle, &e), ERR_USAGE);
	assert_int_equal(share_check(&m.config, s, outside, &e), ERR_USAGE);
	m.config.layer[3].window = 16;
	assert_int_equal(share_check(&m.config, s, good, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "layer 3 cannot read layer 2: their windows differ (16 and 0)"));
	m.config.layer[3].window = 0;
	m.config.layer[0].kv_heads = 4;
	assert_int_equal(share_check(&m.config, s, good, &e), ERR_UNSUPPORTED);
	m.config.layer[0].kv_heads = 8;
	m.config.layer[4].kv_source = 2;
	assert_int_equal(share_check(&m.config, s, good, &e), ERR_UNSUPPORTED);
	assert_non_null(strstr(e.message, "start from the original"));
	m.config.layer[4].kv_source = 4;
	loaded_close(&m);
}

/* --- assignment: no permutation is better --- */

static double best_by_trying(const double *gain, uint32_t n, uint32_t row, unsigned used)
{
	double best = row == n ? 0 : -1e9;
	for (uint32_t j = 0; row < n && j < n; j++)
		if (!(used >> j & 1)) {
			double g = gain[row * n + j] + best_by_trying(gain, n, row + 1, used | 1u << j);
			best = g > best ? g : best;
		}
	return best;
}

static void assignment_is_best(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 6; n++)
		for (uint64_t seed = 0; seed < 20; seed++) {
			double gain[36], sum = 0;
			uint32_t to[6], seen = 0;
			struct rng r = { seed * 7 + n };
			for (uint32_t i = 0; i < n * n; i++)
				gain[i] = seed % 3 ? rng_unit(&r) : floor(4 * rng_unit(&r));
			ok(share_assign(gain, n, to, &e));
			for (uint32_t i = 0; i < n; i++) {
				sum += gain[i * n + to[i]];
				seen |= 1u << to[i];
			}
			assert_int_equal(seen, (1u << n) - 1);
			assert_true(fabs(sum - best_by_trying(gain, n, 0, 0)) < 1e-12);
		}
}

/* --- a layer whose keys and values are the owner's, in other clothes, loses nothing --- */

/* of llama-linear, which lends its positions */
enum { HEADS = 4, KV = 2, DIM = 10, HIDDEN = 40, CTX = 16, SEQS = 10 };

struct fitted {
	struct checkpoint *checkpoint;
	struct config config;
	struct model *model;
	struct attention_fit fit;
};

static void fitted_open(struct fitted *f, const struct attention_weights *shape, size_t seqs, enum fit_keys keys)
{
	ok(checkpoint_open("tests/golden/model/llama-linear", &f->checkpoint, &e));
	ok(checkpoint_config(f->checkpoint, &f->config, &e));
	f->config.rope.dims = shape->rope;
	ok(model_open(&f->config, f->checkpoint->source, &f->model, &e));
	const struct attention_fit_layer l = { .model = f->model, .config = &f->config, .layer = 1, .keys = keys };
	ok(attention_fit_init(&f->fit, &l, shape, seqs, CTX, &e));
}

static void fitted_close(struct fitted *f)
{
	attention_fit_release(&f->fit);
	model_close(f->model);
	config_release(&f->config);
	checkpoint_close(f->checkpoint);
}

static void weights_new(struct attention_weights *w, uint32_t rope, uint64_t seed)
{
	struct attention_weights shape = { .heads = HEADS, .kv_heads = KV, .dim = DIM, .hidden = HIDDEN, .cols = HIDDEN, .rope = rope };
	ok(attention_weights_new(w, &shape, KV, &e));
	float *part[] = { w->q, w->k, w->v, w->o };
	for (int i = 0; i < 4; i++) {
		float *x = noise(attention_weights_count(w, i), seed * 4 + (uint64_t)i);
		memcpy(part[i], x, attention_weights_count(w, i) * sizeof *x);
		free(x);
	}
}

/* Own head a's keys are the owner's head !a's, each pair times a complex number, its values another basis of them. */
static void disguise(const struct attention_weights *owner, struct attention_weights *w)
{
	struct rng r = { 77 };
	for (uint32_t a = 0; a < KV; a++) {
		uint32_t b = !a, re, im;
		for (uint32_t l = 0; l < fold_pairs(DIM); l++) {
			fold_pair(DIM, w->rope, l, &re, &im);
			double x = rng_unit(&r) + 0.5, y = rng_unit(&r) - 0.5;
			for (uint32_t c = 0; c < HIDDEN; c++) {
				double p = owner->k[(b * DIM + re) * HIDDEN + c], q = owner->k[(b * DIM + im) * HIDDEN + c];
				w->k[(a * DIM + re) * HIDDEN + c] = (float)(x * p - y * q);
				w->k[(a * DIM + im) * HIDDEN + c] = (float)(x * q + y * p);
			}
		}
		float *basis = noise(DIM * DIM, 5 + a);
		for (uint32_t i = 0; i < DIM; i++)
			for (uint32_t c = 0; c < HIDDEN; c++) {
				double sum = 0;
				for (uint32_t j = 0; j < DIM; j++)
					sum += (basis[i * DIM + j] + (i == j)) * owner->v[(b * DIM + j) * HIDDEN + c];
				w->v[(a * DIM + i) * HIDDEN + c] = (float)sum;
			}
		free(basis);
	}
}

static void disguised_heads_are_found(void **state)
{
	(void)state;
	for (uint32_t rope = 4; rope <= DIM; rope += 6) {
		struct attention_weights owner, own, out;
		uint32_t heads[KV];
		size_t n = SEQS * CTX;
		float *x = noise(n * HIDDEN, 9), *target = calloc(n * HIDDEN, sizeof *target);
		double loss, energy = 0;
		weights_new(&owner, rope, 1);
		weights_new(&own, rope, 2);
		disguise(&owner, &own);
		struct fitted fitted, given;
		fitted_open(&fitted, &own, SEQS, FIT_OWN);
		fitted_open(&given, &own, SEQS, FIT_GIVEN);
		struct attention_fit *f = &fitted.fit;
		struct attention_batch b = { .seqs = SEQS, .x = x, .target = target };
		ok(attention_fit_run(f, &owner, &b, NULL, &loss, &e));
		float *keys = malloc(n * KV * DIM * sizeof *keys), *values = malloc(n * KV * DIM * sizeof *values);
		memcpy(keys, attention_fit_keys(f), n * KV * DIM * sizeof *keys);
		memcpy(values, attention_fit_values(f), n * KV * DIM * sizeof *values);
		ok(attention_fit_run(f, &own, &b, NULL, &energy, &e));
		for (size_t i = 0; i < n * HIDDEN; i++)
			target[i] = attention_fit_errors(f)[i] / 2;
		ok(share_match(f, &own, &(struct share_seen){ x, keys, values, SEQS, 4 }, &out, heads, &e));
		assert_int_equal(heads[0], 1);
		assert_int_equal(heads[1], 0);
		b.keys = keys;
		b.values = values;
		ok(attention_fit_run(&given.fit, &out, &b, NULL, &loss, &e));
		if (!(loss < 1e-6 * energy))
			fail_msg("rope %u: %g of %g lost", rope, loss, energy);
		fitted_close(&fitted);
		fitted_close(&given);
		attention_weights_release(&owner);
		attention_weights_release(&own);
		attention_weights_release(&out);
		free(x);
		free(target);
		free(keys);
		free(values);
	}
}

/* --- a model --- */

struct shared {
	struct loaded in;
	struct config to;
	struct windows text;
	struct overlay *out;
	struct share_report *report;
	struct change_cost cost;
};

enum { HELD = 4 };

static void share(struct shared *s, const char *map, enum share_method method, size_t windows, int steps)
{
	*s = (struct shared){ 0 };
	struct token_ids ids = { 0 };
	uint32_t source[16];
	ok(loaded_open(&s->in, "examples/demo", &e));
	ok(checkpoint_config(s->in.checkpoint, &s->to, &e));
	ok(text_tokens(s->in.tokenizer, "examples/demo.calib.txt", &ids, &e));
	ok(windows_cut(&s->text, ids.id, ids.count, &(struct window_options){ PROTOCOL_FULL, 64, windows, -1 }, &e));
	token_ids_release(&ids);
	ok(share_map_parse(map, s->to.layers, source, &e));
	for (uint32_t i = 0; i < s->to.layers; i++)
		s->to.layer[i].kv_source = source[i];
	struct share_options o = { .method = method, .refit = refit_defaults, .residual = 1, .ffn = true };
	o.refit.steps = steps;
	s->out = overlay_new(s->in.checkpoint->source, &e);
	s->report = calloc(s->to.layers, sizeof *s->report);
	assert_true(s->out && s->report);
	struct fold_job job = { s->in.model, s->in.checkpoint->source, &s->to, &s->text, HELD, s->out, NULL };
	struct windows judges = windows_part(&s->text, s->text.count - HELD, s->text.count);
	ok(share_run(&job, &o, s->report, &e));
	ok(change_cost_measure(s->in.model, &(struct change){ &s->to, overlay_source(s->out), NULL }, &judges, &s->cost, &e));
}

static void shared_release(struct shared *s)
{
	share_report_release(s->report, s->to.layers);
	overlay_free(s->out);
	windows_release(&s->text);
	config_release(&s->to);
	loaded_close(&s->in);
}

static void fitting_helps(void **state)
{
	(void)state;
	double reuse = 0;
	for (int i = SHARE_REUSE; i <= SHARE_JOINT; i += SHARE_JOINT) {
		struct shared s;
		share(&s, "suffix:2", (enum share_method)i, 28, 8);
		if (i == SHARE_REUSE)
			reuse = s.cost.kl;
		else if (!(s.cost.kl > 0 && s.cost.kl < 0.7 * reuse))
			fail_msg("%s: KL %g, plain reuse %g", share_method_rows[i].name, s.cost.kl, reuse);
		const struct refit_report *r = &s.report[4].attention;
		assert_true(i == SHARE_REUSE || (r->output <= r->start && r->joint <= r->output));
		if (i == SHARE_JOINT)
			assert_true(s.report[2].joint_after < s.report[2].joint_before);
		shared_release(&s);
	}
}

static size_t cache_bytes(const struct config *c)
{
	struct kv_cache *cache = kv_cache_new(c, 64, &e);
	assert_non_null(cache);
	size_t n = kv_cache_bytes(cache);
	kv_cache_free(cache);
	return n;
}

/* The shared model has no keys and values of readers, runs, and decodes as it prefills, with a cache smaller by the readers. */
static void shared_model_runs(void **state)
{
	(void)state;
	enum { LEN = 20 };
	struct shared s;
	struct model *m;
	share(&s, "0,1,1,3,3", SHARE_MATCH, 12, 0);
	struct tensor_source *source = overlay_source(s.out);
	assert_null(source_find(source, "model.layers.2.self_attn.k_proj.weight"));
	assert_null(source_find(source, "model.layers.4.self_attn.v_proj.weight"));
	assert_non_null(source_find(source, "model.layers.1.self_attn.k_proj.weight"));
	assert_int_equal(cache_bytes(&s.to) * 5, cache_bytes(&s.in.config) * 3);
	assert_true(fabs(config_kv_bytes(&s.to, 4096, 2) * 5 - config_kv_bytes(&s.in.config, 4096, 2) * 3) < 1);
	ok(model_open(&s.to, source, &m, &e));
	struct model_run *r = model_run_new(m, 1, LEN, &e);
	struct kv_cache *cache = kv_cache_new(&s.to, LEN, &e);
	size_t h = s.to.hidden;
	float *whole = calloc(LEN * h, sizeof *whole), *part = calloc(h, sizeof *part);
	ok(model_forward(r, s.text.tokens, &(struct model_batch){ 1, LEN, NULL, NULL }, whole, &e));
	for (size_t t = 0; t < LEN; t++) {
		ok(model_forward(r, s.text.tokens + t, &(struct model_batch){ 1, 1, cache, NULL }, part, &e));
		for (size_t i = 0; i < h; i++)
			assert_true(fabsf(part[i] - whole[t * h + i]) < 2e-3f);
	}
	kv_cache_free(cache);
	model_run_free(r);
	model_close(m);
	free(whole);
	free(part);
	shared_release(&s);
}

static void threads_do_not_change_bits(void **state)
{
	(void)state;
	struct shared s[2];
	for (int i = 0; i < 2; i++) {
		thread_set(i ? 3 : 1);
		share(&s[i], "suffix:1", SHARE_JOINT, 9, 2);
	}
	thread_set(0);
	struct tensor_source *a = overlay_source(s[0].out), *b = overlay_source(s[1].out);
	assert_int_equal(a->count, b->count);
	for (size_t i = 0; i < a->count; i++) {
		struct tensor_bytes x, y;
		ok(a->get(a, i, &x, &e));
		ok(b->get(b, i, &y, &e));
		if (x.size != y.size || memcmp(x.data, y.data, x.size))
			fail_msg("%s depends on the number of threads", a->tensors[i].name);
		tensor_bytes_release(&x);
		tensor_bytes_release(&y);
	}
	shared_release(&s[0]);
	shared_release(&s[1]);
}

/* A search finds a map of as many readers as were asked for, and leaves the configuration as it was. */
static void search_finds_a_map(void **state)
{
	(void)state;
	struct shared s;
	uint32_t map[5] = { 0, 1, 2, 3, 4 };
	double kl[5];
	struct share_steps steps = { map, kl, 0 };
	struct share_goal one = { .readers = 1 }, small = { .bytes = 1, .tokens = 64 }, strict = { .max_kl = 1e-9 };
	share(&s, "suffix:1", SHARE_MATCH, 12, 0);
	struct fold_job job = { .original = s.in.model, .source = s.in.checkpoint->source, .text = &s.text, .held = HELD };
	ok(share_search(&job, &s.to, &one, &steps, &e));
	assert_int_equal(steps.count, 1);
	uint32_t readers = 0;
	for (uint32_t i = 0; i < 5; i++) {
		readers += map[i] != i;
		assert_true(map[map[i]] == map[i] && map[i] <= i);
		assert_int_equal(s.to.layer[i].kv_source, i == 4 ? 3 : i);
	}
	assert_int_equal(readers, 1);
	assert_true(kl[0] > 0);
	/* two of them, by size: from 5 layers to 3 */
	struct share_goal size = { .bytes = (uint64_t)config_kv_bytes(&s.in.config, 64, 2) * 3 / 5, .tokens = 64 };
	ok(share_search(&job, &s.to, &size, &steps, &e));
	assert_int_equal(steps.count, 1);
	struct share_goal limit = { .max_kl = kl[0] * 1.0001 };
	for (uint32_t i = 0; i < 5; i++)
		map[i] = i;
	ok(share_search(&job, &s.to, &limit, &steps, &e));
	assert_true(steps.count > 0 && kl[steps.count - 1] <= limit.max_kl);
	for (uint32_t i = 0; i < 5; i++)
		map[i] = i;
	one.readers = 5;
	assert_int_equal(share_search(&job, &s.to, &one, &steps, &e),
			 ERR_USAGE);
	assert_int_equal(share_search(&job, &s.to, &strict, &steps, &e),
			 ERR_USAGE);
	assert_non_null(strstr(e.message, "is not enough for 1 layer"));
	assert_int_equal(share_search(&job, &s.to, &small, &steps, &e),
			 ERR_USAGE);
	assert_non_null(strstr(e.message, "the smallest is"));
	shared_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_by_name),       cmocka_unit_test(maps_that_cannot_be),
		cmocka_unit_test(assignment_is_best), cmocka_unit_test(disguised_heads_are_found),
		cmocka_unit_test(fitting_helps),
		cmocka_unit_test(shared_model_runs),  cmocka_unit_test(threads_do_not_change_bits),
		cmocka_unit_test(search_finds_a_map),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
