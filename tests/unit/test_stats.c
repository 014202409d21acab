#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "base/thread.h"
#include "calib/stats/collect.h"
#include "calib/stats/input_sums.h"
#include "calib/stats/resume_file.h"
#include "codec/codec.h"
#include "model/family/family.h"
#include "scratch.h"

static struct err e;
static const char TINY[] = "tests/golden/stats/tiny.stats";

/* A model of one layer, of which the golden file has two inputs. */
static struct layer_config layer;
static struct config config = { .arch = &family_llama, .layers = 1, .layer = &layer, .head_dim = 1 };

static void reads_what_the_reference_writer_wrote(void **state)
{
	(void)state;
	struct stats *s;
	size_t n;
	double *m;
	struct windows w;
	if (stats_open(TINY, &s, &e))
		fail_msg("%s", e.message);
	const struct stats_info *i = stats_info(s);
	assert_false(i->foreign);
	assert_int_equal(i->collect, COLLECT_FULL);
	assert_int_equal(i->tokens, 8);
	assert_int_equal(i->windows, 2);
	assert_int_equal(i->windows_total, 3);
	s->config = &config;
	assert_int_equal(stats_index(s, &e), ERR_OK);
	const float *v = stats_importance(s, ROLE_V, 0, &n);
	assert_non_null(v);
	assert_int_equal(n, 3);
	assert_int_equal(stats_moment(s, ROLE_K, 0, &m, &n, &e), ERR_OK);
	for (size_t a = 0; a < 3; a++)
		for (size_t b = 0; b < 3; b++) {
			double sum = 0;
			for (size_t t = 0; t < 8; t++)
				sum += ((double)(3 * t + a) / 8 - 1) * ((double)(3 * t + b) / 8 - 1);
			assert_true(fabs(m[3 * a + b] - sum / 8) < 1e-12);
			assert_true(a != b || fabs((double)v[a] - sum / 8) < 1e-6);
		}
	free(m);
	assert_null(stats_importance(s, ROLE_DOWN, 0, &n));
	assert_int_equal(stats_moment(s, ROLE_DOWN, 0, &m, &n, &e), ERR_INPUT);
	assert_int_equal(stats_windows(s, &w, &e), ERR_OK);
	assert_int_equal(w.ctx, 4);
	assert_int_equal(w.tokens[7], 7);
	windows_release(&w);
	stats_close(s);
}

static void refuses_every_truncation(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	struct stats *s;
	assert_int_equal(file_read(TINY, &b, 0, &e), ERR_OK);
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *exact = malloc(n ? n : 1);
		assert_non_null(exact);
		memcpy(exact, b.data, n);
		assert_int_not_equal(stats_parse(exact, n, &s, &e), ERR_OK);
		free(exact);
	}
	strbuf_release(&b);
}

/* The golden file with one piece of its header replaced by another of the same length. */
static const struct hostile {
	const char *from, *to;
	int code;
	const char *fragment;
} hostile[] = {
	{ "quire-statistics", "quire-ztatistics", ERR_INPUT, "not a statistics file" },
	{ "\"format_version\":\"1\"", "\"format_version\":\"9\"", ERR_UNSUPPORTED, "version 9" },
	{ "\"format_version\":\"1\"", "\"format_version\":\"x\"", ERR_INPUT, "not a whole number" },
	{ "\"collect\":\"full\"", "\"collect\":\"fool\"", ERR_UNSUPPORTED, "'fool'" },
	{ "\"ctx\":\"4\"", "\"ctx\":\"5\"", ERR_INPUT, "'tokens' is missing or not I32" },
	{ "\"ctx\":\"4\"", "\"ctx\":\"0\"", ERR_INPUT, "'tokens' is missing or not I32" },
	{ "\"ctx\":\"4\"", "\"cty\":\"4\"", ERR_INPUT, "'ctx' is missing" },
	{ "0101", "010X", ERR_INPUT, "'model' is missing or not a sha256" },
	{ "2323", "23 3", ERR_INPUT, "'tokenizer' is missing or not a sha256" },
	{ "4545", "45g5", ERR_INPUT, "'sources' has an element" },
	{ "\\\"windows\\\": 3", "\\\"windows\\\": 2", ERR_INPUT, "row 1 is out of range" },
	{ "\\\"windows\\\": 3", "\\\"windows\\\":-3", ERR_INPUT, "'sources' has an element" },
	{ "\"windows\":{", "\"windowz\":{", ERR_INPUT, "'windows' is missing" },
	{ "\"tokens\":{", "\"tokenz\":{", ERR_INPUT, "'tokens' is missing" },
	{ "head.abs_max", "head.abs_may", ERR_INPUT, "'head.abs_max' is missing" },
	{ "head.count", "heap.count", ERR_INPUT, "is missing" },
	{ "head.moment", "head.momend", ERR_INPUT, "'head.moment' is missing" },
};

static void refuses_hostile_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		const struct hostile *h = &hostile[i];
		struct strbuf b = { 0 };
		struct stats *s;
		size_t n = strlen(h->from), at = 8;
		assert_int_equal(n, strlen(h->to));
		assert_int_equal(file_read(TINY, &b, 0, &e), ERR_OK);
		while (at + n < b.len && memcmp(b.data + at, h->from, n))
			at++;
		if (at + n >= b.len)
			fail_msg("the golden file has no %s", h->from);
		memcpy(b.data + at, h->to, n);
		int rc = stats_parse((const uint8_t *)b.data, b.len, &s, &e);
		if (rc != h->code || !strstr(e.message, h->fragment))
			fail_msg("%s: code %d, '%s'", h->to, rc, rc ? e.message : "");
		strbuf_release(&b);
	}
}

static void refuses_values_that_cannot_be(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	struct stats *s;
	double *m;
	size_t n;
	assert_int_equal(file_read(TINY, &b, 0, &e), ERR_OK);
	assert_int_equal(stats_parse((const uint8_t *)b.data, b.len, &s, &e), ERR_OK);
	const struct stats_entry *head = stats_find(s, "head");
	size_t data = (size_t)(s->file.data - (const uint8_t *)b.data);
	uint8_t *sums = (uint8_t *)b.data + data + head->field[FIELD_SUM_SQUARES]->begin;
	uint8_t *moment = (uint8_t *)b.data + data + head->field[FIELD_MOMENT]->begin;
	stats_close(s);
	uint64_t keep = load_u64(sums);
	store_u64(sums, 0xbff0000000000000ull);
	assert_int_equal(stats_parse((const uint8_t *)b.data, b.len, &s, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "'head.sum_squares': the value of channel 0"));
	store_u64(sums, 0x7ff8000000000000ull);
	assert_int_equal(stats_parse((const uint8_t *)b.data, b.len, &s, &e), ERR_INPUT);
	store_u64(sums, keep);
	store_u64(moment, 0x7ff8000000000000ull);
	assert_int_equal(stats_parse((const uint8_t *)b.data, b.len, &s, &e), ERR_OK);
	s->config = &config;
	assert_int_equal(stats_index(s, &e), ERR_OK);
	assert_int_equal(stats_moment(s, ROLE_HEAD, UINT32_MAX, &m, &n, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "not finite"));
	stats_close(s);
	strbuf_release(&b);
}

static void sums_are_those_of_plain_loops(void **state)
{
	(void)state;
	enum { N = 300, ROWS = 50 }; /* more than a tile, and no multiple of one */
	float *x = malloc(N * ROWS * sizeof *x), *scratch = malloc(input_sums_scratch() * sizeof *scratch);
	struct rng r = { 5 };
	struct input_sums g;
	assert_true(x && scratch);
	for (size_t i = 0; i < N * ROWS; i++)
		x[i] = (float)rng_normal(&r);
	assert_int_equal(input_sums_init(&g, N, true, &e), ERR_OK);
	assert_int_equal(input_sums_add(&g, x, 20, scratch, &e), ERR_OK);
	assert_int_equal(input_sums_add(&g, x + 20 * N, ROWS - 20, scratch, &e), ERR_OK);
	assert_int_equal(g.count, ROWS);
	for (size_t i = 0; i < N; i++) {
		double most = 0, sum = 0;
		for (size_t t = 0; t < ROWS; t++) {
			sum += fabs((double)x[t * N + i]);
			most = fmax(most, fabs((double)x[t * N + i]));
		}
		assert_true(fabs(g.abs_sum[i] - sum) < 1e-5 * sum && (double)g.abs_max[i] == most);
		for (size_t j = 0; j <= i; j++) {
			double want = 0;
			for (size_t t = 0; t < ROWS; t++)
				want += (double)x[t * N + i] * (double)x[t * N + j];
			assert_true(fabs(g.moment[triangle(i) + j] - want) < 1e-4);
			assert_true(i != j || fabs(g.sum_squares[i] - want) < 1e-5 * want);
		}
	}
	x[7 * N + 3] = NAN;
	assert_int_equal(input_sums_add(&g, x, ROWS, scratch, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "channel 3 is NaN at token 7"));
	x[7 * N + 3] = -INFINITY;
	assert_int_equal(input_sums_add(&g, x, ROWS, scratch, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "channel 3 is infinite at token 7"));
	x[7 * N + 3] = 1e30f;
	assert_int_equal(input_sums_add(&g, x, ROWS, scratch, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "overflow"));
	input_sums_release(&g);
	free(x);
	free(scratch);
}

static struct loaded demo;
static struct token_ids ids;
static const char DATA[] = "6767676767676767676767676767676767676767676767676767676767676767";
static struct collect_options options = { .collect = COLLECT_FULL, .ctx = 32, .samples = 96, .seed = 3, .shards = 1, .tool = "test" };

static int demo_setup(void **state)
{
	struct rng r = { 11 };
	if (scratch_setup(state) || loaded_open(&demo, "examples/demo", &e))
		return -1;
	ids.count = 200 * options.ctx;
	ids.id = malloc(ids.count * sizeof *ids.id);
	for (size_t i = 0; ids.id && i < ids.count; i++)
		ids.id[i] = (int32_t)rng_below(&r, demo.config.vocab);
	return ids.id ? 0 : -1;
}

static int demo_teardown(void **state)
{
	token_ids_release(&ids);
	loaded_close(&demo);
	return scratch_teardown(state);
}

static int collect(const char *out, bool resume, const struct progress *progress)
{
	struct collect_plan p;
	struct collect_options o = options;
	o.resume = resume;
	int rc = collect_plan_make(&p, &demo, &ids, DATA, &o, &e);
	if (rc)
		return rc;
	rc = collect_run(&p, &demo, &o, out, progress, &e);
	collect_plan_release(&p);
	return rc;
}

static bool stop_late(void *arg, uint64_t done, uint64_t total)
{
	const double *part = arg;
	return (double)done < *part * (double)total;
}

static void assert_same_file(const char *a, const char *b)
{
	struct strbuf x = { 0 }, y = { 0 };
	assert_int_equal(file_read(a, &x, 0, &e), ERR_OK);
	assert_int_equal(file_read(b, &y, 0, &e), ERR_OK);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.data, y.data, x.len);
	strbuf_release(&x);
	strbuf_release(&y);
}

static void goes_on_after_an_interruption(void **state)
{
	(void)state;
	const char *whole = scratch("whole"), *parts = scratch("parts"), *left = scratch("parts.resume");
	assert_int_equal(collect(whole, false, NULL), ERR_OK);
	for (double part = .3; part < 1; part += .4) {
		assert_int_equal(collect(parts, part > .5, &(struct progress){ stop_late, &part }), ERR_IO);
		assert_non_null(strstr(e.message, "--resume"));
		assert_true(file_exists(left));
		assert_false(file_exists(parts));
	}
	assert_int_equal(collect(parts, true, NULL), ERR_OK);
	assert_same_file(whole, parts);
	assert_false(file_exists(left));
}

static void does_not_trust_a_damaged_or_foreign_working_file(void **state)
{
	(void)state;
	const char *out = scratch("damaged"), *left = scratch("damaged.resume");
	double part = .5;
	struct strbuf b = { 0 };
	assert_int_equal(collect(out, false, &(struct progress){ stop_late, &part }), ERR_IO);
	assert_int_equal(file_read(left, &b, 0, &e), ERR_OK);
	/* hidden states that are read are one of two copies: damage both */
	struct collect_plan p;
	assert_int_equal(collect_plan_make(&p, &demo, &ids, DATA, &options, &e), ERR_OK);
	for (int k = 0; k < 2; k++)
		b.data[RESUME_HEADER + k * (int)p.hidden_bytes + 5] ^= 1;
	collect_plan_release(&p);
	scratch_put(left, b.data, b.len);
	assert_int_equal(collect(out, true, NULL), ERR_INPUT);
	assert_non_null(strstr(e.message, "damaged"));

	assert_int_equal(collect(out, false, &(struct progress){ stop_late, &part }), ERR_IO);
	options.seed++;
	assert_int_equal(collect(out, true, NULL), ERR_NOT_COMPARABLE);
	options.seed--;
	assert_true(file_exists(left));
	assert_int_equal(collect(out, true, NULL), ERR_OK);
	scratch_put(left, "something else, and not short either, so that it is read..................................", 88);
	assert_int_equal(collect(out, true, NULL), ERR_INPUT);
	strbuf_release(&b);
}

static void check_tells_models_and_tokenizers_apart(void **state)
{
	(void)state;
	const char *out = scratch("checked");
	struct stats *s;
	char hash[IDENTITY_SIZE];
	assert_int_equal(collect(out, false, NULL), ERR_OK);
	assert_int_equal(stats_open(out, &s, &e), ERR_OK);
	assert_int_equal(stats_check(s, &demo.config, demo.checkpoint->source, demo.tokenizer, &e), ERR_OK);
	assert_int_equal(stats_info(s)->tokens, 96 * 32);
	for (uint32_t i = 0; i < demo.config.layers; i++)
		for (int r = 0; r < ROLE_COUNT; r++) {
			uint64_t dim[2];
			size_t n = 0;
			if (!role_rows[r].linear || !role_rows[r].per_layer || role_rows[r].per_expert)
				continue;
			assert_int_equal(role_shape(&demo.config, (enum role)r, i, dim), 2);
			assert_non_null(stats_importance(s, (enum role)r, i, &n));
			assert_int_equal(n, dim[1]);
			assert_true(stats_has_moment(s, (enum role)r, i));
		}
	/* one value of one norm */
	struct overlay *o = overlay_new(demo.checkpoint->source, &e);
	const struct tensor *t;
	float *v;
	assert_non_null(o);
	assert_int_equal(source_read_f32(demo.checkpoint->source, "model.norm.weight", &v, &t, &e), ERR_OK);
	v[1] += 1;
	struct tensor changed = *t;
	changed.codec = codec_find("f32");
	assert_int_equal(tensor_measure(&changed, &e), ERR_OK);
	assert_int_equal(overlay_put(o, &changed, v, &e), ERR_OK);
	assert_int_equal(stats_check(s, &demo.config, overlay_source(o), NULL, &e), ERR_NOT_COMPARABLE);
	assert_non_null(strstr(e.message, "another model"));
	overlay_free(o);
	identity_tokenizer(demo.tokenizer, hash);
	s->head.tokenizer[0] = s->head.tokenizer[0] == 'a' ? 'b' : 'a';
	assert_int_equal(stats_check(s, &demo.config, demo.checkpoint->source, demo.tokenizer, &e), ERR_NOT_COMPARABLE);
	assert_non_null(strstr(e.message, "another tokenizer"));
	stats_close(s);
}

/* A source whose third tensor comes with one byte too few or too many. */
struct wrong_size {
	struct tensor_source source;
	struct tensor_source *base;
	long by;
};

static int get_wrong(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *err)
{
	struct wrong_size *w = (struct wrong_size *)s;
	int rc = w->base->get(w->base, i, out, err);
	if (!rc && i == 2)
		out->size = (size_t)((long)out->size + w->by);
	return rc;
}

static void identity_checks_the_size_of_tensors(void **state)
{
	(void)state;
	char hash[IDENTITY_SIZE], same[IDENTITY_SIZE], want[256];
	struct tensor_source *base = demo.checkpoint->source;
	assert_int_equal(identity_model(&demo.config, base, hash, &e), ERR_OK);
	snprintf(want, sizeof want, "tensor %s: its bytes have another size than its shape", base->tensors[2].name);
	for (long by = -1; by <= 1; by++) {
		struct wrong_size w = { .source = { .tensors = base->tensors, .count = base->count, .get = get_wrong }, .base = base, .by = by };
		assert_int_equal(source_index(&w.source, &e), ERR_OK);
		assert_int_equal(identity_model(&demo.config, &w.source, same, &e), by ? ERR_INPUT : ERR_OK);
		assert_string_equal(by ? e.message : same, by ? want : hash);
		map_release(&w.source.index);
	}
}

/* A moment is E[x x^T] of the very inputs a layer gets, whose diagonal is the importance. */
static void moments_and_importance_agree(void **state)
{
	(void)state;
	const char *out = scratch("agree");
	struct stats *s;
	double *m;
	size_t n, k;
	assert_int_equal(collect(out, false, NULL), ERR_OK);
	assert_int_equal(stats_open(out, &s, &e), ERR_OK);
	assert_int_equal(stats_check(s, &demo.config, demo.checkpoint->source, NULL, &e), ERR_OK);
	assert_int_equal(stats_moment(s, ROLE_DOWN, 1, &m, &n, &e), ERR_OK);
	const float *v = stats_importance(s, ROLE_DOWN, 1, &k);
	assert_int_equal(n, k);
	for (size_t i = 0; i < n; i++)
		assert_true(fabs(m[i * n + i] - (double)v[i]) <= 1e-4 * (double)v[i]);
	free(m);
	stats_close(s);
}

struct seen {
	double *kk, *qq;
	size_t q, kv, n;
};

static void add_outputs(void *arg, uint32_t at, const float *q, const float *k, const float *v, size_t n)
{
	struct seen *s = arg;
	(void)v;
	for (size_t t = 0; at == 2 && t < n; t++, s->n++) {
		for (size_t i = 0; i < s->q; i++)
			s->qq[i] += (double)q[t * s->q + i] * (double)q[t * s->q + i];
		for (size_t i = 0; i < s->kv; i++)
			for (size_t j = 0; j < s->kv; j++)
				s->kk[i * s->kv + j] += (double)k[t * s->kv + i] * (double)k[t * s->kv + j];
	}
}

/* Kind `kv`: moments of what Q, K and V of a layer put out, as the model itself says them. */
static void keeps_keys_and_values(void **state)
{
	(void)state;
	const char *out = scratch("kv"), *part = scratch("kv-part"), *rest = scratch("kv-rest"), *both = scratch("kv-both");
	const struct config *c = &demo.config;
	const struct layer_config *l = &c->layer[2];
	struct collect_options was = options;
	struct stats *s;
	struct windows w;
	struct fold_moments m;
	struct seen seen = { .q = (size_t)l->heads * c->head_dim, .kv = (size_t)l->kv_heads * c->head_dim };
	options.collect = COLLECT_KV;
	assert_int_equal(collect(out, false, NULL), ERR_OK);
	options.shards = 2;
	assert_int_equal(collect(part, false, NULL), ERR_OK);
	options.shard = 1;
	assert_int_equal(collect(rest, false, NULL), ERR_OK);
	options = was;
	assert_int_equal(stats_merge((const char *[]){ rest, part }, 2, both, &e), ERR_OK);
	assert_same_file(out, both);
	assert_int_equal(stats_open(out, &s, &e), ERR_OK);
	assert_int_equal(stats_check(s, c, demo.checkpoint->source, demo.tokenizer, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "statistics of keys and values, for fold"));
	assert_int_equal(stats_check_kv(s, c, demo.checkpoint->source, demo.tokenizer, &e), ERR_OK);
	assert_int_equal(stats_kv(s, c->layers, &m, &e), ERR_INPUT);
	assert_int_equal(stats_kv(s, 2, &m, &e), ERR_OK);
	assert_int_equal(stats_windows(s, &w, &e), ERR_OK);

	seen.kk = calloc(seen.kv * seen.kv, sizeof *seen.kk);
	seen.qq = calloc(seen.q, sizeof *seen.qq);
	float *hidden = malloc(w.ctx * c->hidden * sizeof *hidden);
	struct model_run *run = model_run_new(demo.model, 1, w.ctx, &e);
	struct model_tap tap = { .qkv = add_outputs, .arg = &seen };
	assert_true(seen.kk && seen.qq && hidden && run);
	for (size_t i = 0; i < w.count; i++) {
		assert_int_equal(model_embed(demo.model, &(struct token_run){ w.tokens + i * w.ctx, w.ctx, w.ctx, 0 }, hidden, &e), ERR_OK);
		for (uint32_t k = 0; k < 3; k++)
			assert_int_equal(model_layer(run, k, hidden, &(struct model_batch){ 1, w.ctx, NULL, &tap }, &e), ERR_OK);
	}
	assert_int_equal(seen.n, w.count * w.ctx);
	for (size_t i = 0; i < seen.q; i++)
		assert_true(fabs(m.qq[i] - seen.qq[i] / (double)seen.n) <= 1e-4 * m.qq[i]);
	for (size_t i = 0; i < seen.kv; i++)
		for (size_t j = 0; j < seen.kv; j++) {
			double scale = sqrt(m.kk[i * seen.kv + i] * m.kk[j * seen.kv + j]);
			assert_true(fabs(m.kk[i * seen.kv + j] - seen.kk[i * seen.kv + j] / (double)seen.n) <= 1e-4 * scale);
		}
	model_run_free(run);
	free(hidden);
	free(seen.kk);
	free(seen.qq);
	fold_moments_release(&m);
	windows_release(&w);
	stats_close(s);
}

static void names_the_layer_whose_activations_are_not_finite(void **state)
{
	(void)state;
	struct overlay *o = overlay_new(demo.checkpoint->source, &e);
	struct loaded bad = demo;
	struct checkpoint c = *demo.checkpoint;
	struct collect_plan p;
	const struct tensor *t;
	float *v;
	assert_non_null(o);
	assert_int_equal(source_read_f32(demo.checkpoint->source, "model.layers.2.mlp.up_proj.weight", &v, &t, &e), ERR_OK);
	v[10] = NAN;
	struct tensor changed = *t;
	changed.codec = codec_find("f32");
	assert_int_equal(tensor_measure(&changed, &e), ERR_OK);
	assert_int_equal(overlay_put(o, &changed, v, &e), ERR_OK);
	c.source = overlay_source(o);
	bad.checkpoint = &c;
	assert_int_equal(model_open(&demo.config, c.source, &bad.model, &e), ERR_OK);
	assert_int_equal(collect_plan_make(&p, &bad, &ids, DATA, &options, &e), ERR_OK);
	assert_int_equal(collect_run(&p, &bad, &options, scratch("nan"), NULL, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "layer 2, input of model.layers.2.mlp.down_proj.weight"));
	assert_false(file_exists(scratch("nan")));
	assert_false(file_exists(scratch("nan.resume")));
	collect_plan_release(&p);
	model_close(bad.model);
	overlay_free(o);
}

int main(void)
{
	const struct CMUnitTest files[] = {
		cmocka_unit_test(reads_what_the_reference_writer_wrote),
		cmocka_unit_test(refuses_every_truncation),
		cmocka_unit_test(refuses_hostile_headers),
		cmocka_unit_test(refuses_values_that_cannot_be),
		cmocka_unit_test(sums_are_those_of_plain_loops),
	}, runs[] = {
		cmocka_unit_test(goes_on_after_an_interruption),
		cmocka_unit_test(does_not_trust_a_damaged_or_foreign_working_file),
		cmocka_unit_test(check_tells_models_and_tokenizers_apart),
		cmocka_unit_test(identity_checks_the_size_of_tensors),
		cmocka_unit_test(moments_and_importance_agree),
		cmocka_unit_test(keeps_keys_and_values),
		cmocka_unit_test(names_the_layer_whose_activations_are_not_finite),
	};
	int failed = cmocka_run_group_tests(files, NULL, NULL);
	return failed + cmocka_run_group_tests(runs, demo_setup, demo_teardown);
}
