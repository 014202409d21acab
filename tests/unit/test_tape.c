#include <float.h>
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
#include "formats/checkpoint.h"
#include "model/derivative.h"
#include "model/divergence.h"
#include "model/rope.h"
#include "model/activation.h"
#include "model/tape.h"
#include "check.h"
#include "list_in_double.h"

enum { SEQS = 2, CTX = 12, TOKENS = SEQS * CTX, LAYERS = 8 };

/* A model in training: its matrices as f32, and what its layers leave. */
struct trained {
	struct checkpoint *checkpoint;
	struct config config;
	struct model *model;
	struct tape *tape;
	struct divergence *divergence;
	struct block block[LAYERS];
	value kv[LAYERS][2];
	struct tape_matrix w[LAYERS][ROLE_COUNT];
	float *keys[LAYERS][2], *slopes[LAYERS][2];
	int32_t tokens[TOKENS];
	float *teacher, *d;
	float *in[LAYERS + 1];   /* what goes into each layer, and comes out of the last */
};

static float *noise(size_t n, struct rng *r, double scale)
{
	float *x = some(n, sizeof *x);
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(scale * rng_normal(r));
	return x;
}

/* Of all matrices that it stands for. */
static size_t size_of(const struct block *b, const struct op *op)
{
	return b->value[op->in[0]].width * b->value[op->out].width * (op->role < ROLE_COUNT ? block_site(b, op->role)->count : 1);
}

/* Lists of a family that nobody has, on the weights of another one. */
static void parallel_layer(struct build *b)
{
	value x = op_norm(b, STREAM, ROLE_ATTN_NORM), y = op_norm(b, STREAM, ROLE_FFN_NORM);
	value a = common_attention(b, x, true), f = op_linear(b, op_act(b, op_linear(b, y, ROLE_UP)), ROLE_DOWN);
	op_add(b, a);
	op_add(b, f);
}

/* One norm for both halves, and the stream read as it is. */
static void shared_norm_layer(struct build *b)
{
	value x = op_norm(b, STREAM, ROLE_ATTN_NORM);
	op_add(b, common_attention(b, x, false));
	op_add(b, op_linear(b, op_glu(b, op_linear(b, x, ROLE_GATE), op_linear(b, STREAM, ROLE_UP)), ROLE_DOWN));
}

struct variant {
	const char *name, *model;
	void (*layer)(struct build *);
	enum norm_kind norm;
	uint32_t rope_dims;      /* 0: as in the model */
	bool flat, shared;       /* the second layer has no positions; it reads the first one's keys and values */
};
static const struct variant variants[] = {
	{ "llama-mha", "llama-mha", NULL, 0, 0, false, false },
	{ "llama-mha, one layer without positions", "llama-mha", NULL, 0, 0, true, false },
	{ "llama-gqa-bias", "llama-gqa-bias", NULL, 0, 0, false, false },
	{ "llama-gelu", "llama-gelu", NULL, 0, 0, false, false },
	{ "llama-llama3", "llama-llama3", NULL, 0, 0, false, false },
	{ "llama-linear", "llama-linear", NULL, 0, 0, false, false },
	{ "llama-yarn", "llama-yarn", NULL, 0, 0, false, false },
	{ "mistral-window", "mistral-window", NULL, 0, 0, false, false },
	{ "qwen2-bias", "qwen2-bias", NULL, 0, 0, false, false },
	{ "qwen2-window", "qwen2-window", NULL, 0, 0, false, false },
	{ "qwen3", "qwen3", NULL, 0, 0, false, false },
	{ "gemma", "gemma", NULL, 0, 0, false, false },
	{ "gemma2", "gemma2", NULL, 0, 0, false, false },
	{ "gemma3", "gemma3", NULL, 0, 0, false, false },
	{ "gpt-neox", "gpt-neox", NULL, 0, 0, false, false },
	{ "gpt-neox, one half after the other", "gpt-neox-old", NULL, 0, 0, false, false },
	{ "experts whose weights do not add up to one", "qwen3-moe-mixed", NULL, 0, 0, false, false },
	{ "experts whose weights do", "mixtral", NULL, 0, 0, false, false },
	{ "olmo2", "olmo2", NULL, 0, 0, false, false },
	{ "multipliers", "granite", NULL, 0, 0, false, false },
	{ "queries that grow with their position", "ministral3", NULL, 0, 0, false, false },
	{ "alibi", "bloom", NULL, 0, 0, false, false },
	{ "partial rotary", "qwen3", NULL, 0, 8, false, false },
	{ "shared keys and values", "llama-gqa-bias", NULL, 0, 0, false, true },
	{ "shared keys and values, norms of heads, no positions", "qwen3", NULL, 0, 0, true, true },
	{ "parallel halves, no gate, norms with a mean", "qwen3", parallel_layer, NORM_LAYER, 0, false, false },
	{ "one norm for both halves", "gemma", shared_norm_layer, NORM_RMS_PLUS_ONE, 0, false, false },
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void layer_open(struct trained *t, uint32_t layer)
{
	struct block *b = &t->block[layer];
	block_make(&t->config, layer, b);
	assert_true(tape_keys_values(b, &t->config, layer, t->kv[layer]));
	for (unsigned i = 0; i < b->ops; i++) {
		const struct op *op = &b->op[i];
		const struct tensor *meta;
		char name[96];
		if (op->kind != OP_LINEAR)
			continue;
		struct tape_matrix *m = &t->w[layer][op->role];
		uint32_t places = role_places(&t->config, op->role);
		size_t one = size_of(b, op) / places;
		*m = (struct tape_matrix){ some(one * places, sizeof(float)), some(one * places, sizeof(float)), b->value[op->in[0]].width };
		for (uint32_t x = 0; x < places; x++) {
			float *w;
			ok(source_read_f32(t->checkpoint->source, role_hf_name(t->config.arch, op->role, role_place(op->role, layer, x), name), &w,
					   &meta, &e));
			assert_int_equal(tensor_elements(meta), one);
			memcpy(m->w + x * one, w, one * sizeof *w);
			free(w);
		}
	}
	for (int k = 0; k < 2; k++) {
		t->keys[layer][k] = some(TOKENS * b->value[t->kv[layer][k]].width, sizeof(float));
		t->slopes[layer][k] = some(TOKENS * b->value[t->kv[layer][k]].width, sizeof(float));
	}
}

/* And as its teacher the same with other hidden states at the end. */
static void trained_open(struct trained *t, const struct variant *v)
{
	static struct arch arch;
	char path[256];
	struct rng rng = { 1 };
	*t = (struct trained){ 0 };
	snprintf(path, sizeof path, "tests/golden/model/%s", v->model);
	ok(checkpoint_open(path, &t->checkpoint, &e));
	ok(checkpoint_config(t->checkpoint, &t->config, &e));
	struct config *c = &t->config;
	c->layer[1].rope = !v->flat;
	c->layer[1].kv_source = v->shared ? 0 : 1;
	c->rope.dims = v->rope_dims ? v->rope_dims : c->rope.dims;
	ok(model_open(c, t->checkpoint->source, &t->model, &e));
	if (v->layer) {
		arch = *c->arch;
		arch.layer = v->layer;
		arch.norm = v->norm;
		c->arch = &arch;
	}
	assert_true(c->layers <= LAYERS);
	ok(tape_check(c, &e));
	ok(tape_new(t->model, c, SEQS, CTX, &t->tape, &e));
	ok(divergence_new(t->model, TOKENS, &t->divergence, &e));
	for (uint32_t i = 0; i < c->layers; i++)
		layer_open(t, i);
	t->d = some(TOKENS * c->hidden, sizeof(float));
	for (uint32_t i = 0; i <= c->layers; i++)
		t->in[i] = some(TOKENS * c->hidden, sizeof(float));
	for (size_t i = 0; i < TOKENS; i++)
		t->tokens[i] = (int32_t)rng_below(&rng, c->vocab);
	t->teacher = noise(TOKENS * c->hidden, &rng, 1);
}

static void trained_close(struct trained *t)
{
	for (uint32_t i = 0; i < t->config.layers; i++) {
		for (int r = 0; r < ROLE_COUNT; r++) {
			free(t->w[i][r].w);
			free(t->w[i][r].grad);
		}
		for (int k = 0; k < 2; k++) {
			free(t->keys[i][k]);
			free(t->slopes[i][k]);
		}
	}
	for (uint32_t i = 0; i <= t->config.layers; i++)
		free(t->in[i]);
	free(t->teacher);
	free(t->d);
	tape_free(t->tape);
	divergence_free(t->divergence);
	model_close(t->model);
	config_release(&t->config);
	checkpoint_close(t->checkpoint);
}

static struct tape_job job_of(struct trained *t, uint32_t layer, bool back)
{
	struct tape_job j = { .block = &t->block[layer], .to = t->block[layer].ops, .layer = layer, .seqs = SEQS, .matrix = t->w[layer],
			      .in = t->in[layer], .out = back ? NULL : t->in[layer + 1], .d = back ? t->d : NULL, .back = back };
	uint32_t owner = t->config.layer[layer].kv_source;
	bool shared = owner != layer;
	for (uint32_t i = layer + 1; i < t->config.layers; i++)
		shared |= t->config.layer[i].kv_source == layer;
	for (int k = 0; k < 2 && shared; k++)
		j.place[t->kv[layer][k]] = (struct tape_place){ .x = t->keys[owner][k], .d = t->slopes[owner][k] };
	return j;
}

/* Leaves the layers' inputs in t->in and, with a gradient, that by the last hidden states in t->d. */
static double loss(struct trained *t, bool gradient)
{
	double kl;
	ok(model_embed(t->model, &(struct token_run){ t->tokens, TOKENS, TOKENS, 0 }, t->in[0], &e));
	for (uint32_t i = 0; i < t->config.layers; i++) {
		struct tape_job j = job_of(t, i, false);
		ok(tape_forward(t->tape, &j, &e));
	}
	ok(divergence_run(t->divergence, &(struct divergence_batch){ t->teacher, t->in[t->config.layers], TOKENS, gradient ? t->d : NULL, 1 },
			  &kl, &e));
	return kl;
}

static void back(struct trained *t)
{
	for (uint32_t i = 0; i < t->config.layers; i++)
		for (int k = 0; k < 2; k++)
			memset(t->slopes[i][k], 0, TOKENS * t->block[i].value[t->kv[i][k]].width * sizeof(float));
	for (uint32_t i = t->config.layers; i-- > 0;) {
		struct tape_job j = job_of(t, i, true);
		ok(tape_forward(t->tape, &j, &e));
		ok(tape_back(t->tape, &j, &e));
	}
}

/* The same hidden states as the reference forward pass gives. */
static void runs_the_model(void **state)
{
	(void)state;
	for (size_t i = 0; i < VARIANTS && !variants[i].layer; i++) {
		struct trained t;
		trained_open(&t, &variants[i]);
		struct model_run *r = model_run_new(t.model, SEQS, CTX, &e);
		float *hidden = some(TOKENS * t.config.hidden, sizeof *hidden);
		ok(model_forward(r, t.tokens, &(struct model_batch){ SEQS, CTX, NULL, NULL }, hidden, &e));
		loss(&t, false);
		double d = distance(t.in[t.config.layers], hidden, TOKENS * t.config.hidden);
		if (!(d < 1e-5))
			fail_msg("%s: hidden states differ by %g", variants[i].name, d);
		free(hidden);
		model_run_free(r);
		trained_close(&t);
	}
}

/* Scaling and attention factor are in the phases, also of positions further on; what the table holds is not made again. */
static void phases_of_layers(void **state)
{
	struct trained t;
	struct phase_table p = { 0 };
	float inverse[64], cosine[64], sine[64];
	(void)state;
	trained_open(&t, &(struct variant){ "yarn", "llama-yarn", NULL, 0, 0, true, false });
	const struct rope *r = &t.config.rope;
	size_t half = r->dims / 2;
	assert_null(phases_of(&p, 0).cosine);
	float scale = rope_frequencies(r, inverse);
	assert_true(scale > 1.05f);
	for (size_t first = 0; first < 80; first += 40) {
		ok(phase_table_fill(&p, t.model, first, CTX, first + CTX, &e));
		struct phases a = phases_of(&p, 0);
		rope_table(&(struct rope_angles){ inverse, half, scale }, first + CTX - 1, 1, cosine, sine);
		assert_memory_equal(a.cosine + (CTX - 1) * half, cosine, half * sizeof *cosine);
		assert_memory_equal(a.sine + (CTX - 1) * half, sine, half * sizeof *sine);
		assert_null(phases_of(&p, 1).cosine);
		assert_null(phases_of(&p, 1).sine);
		ok(phase_table_fill(&p, t.model, first, CTX - 1, first + CTX, &e));
		assert_ptr_equal(phases_of(&p, 0).cosine, a.cosine);
	}
	assert_int_equal(phase_table_fill(&p, t.model, 0, SIZE_MAX / 8, SIZE_MAX / 8, &e), ERR_NOMEM);
	assert_null(phases_of(&p, 0).cosine);
	phase_table_release(&p);
	trained_close(&t);
}

/* ---- against differences of the list in double */

struct checked {
	const char *what;
	struct in_double d;
	const double *seed;      /* [tokens, width]: the loss is the sum of what comes out, times these */
	size_t out_size;
	value out;
	double most;             /* the largest slope seen */
};

static double sum_out(struct checked *c)
{
	double sum = 0;
	in_double_run(&c->d);
	for (size_t i = 0; i < c->out_size; i++)
		sum += c->d.x[c->out][i] * c->seed[i];
	return sum;
}

/* Elements of x, which the list reads, against the gradient that the tape computed by it. */
static void check_slopes(struct checked *c, const char *of, double *x, const float *grad, size_t n, size_t step)
{
	double most = 0;
	for (size_t i = 0; i < n; i++)
		most = fabs((double)grad[i]) > most ? fabs((double)grad[i]) : most;
	for (size_t i = 0; i < n; i += step) {
		if (x[i] == 0) /* the weight of an expert that was not chosen: it has no slope */
			continue;
		double was = x[i], h = 1e-5, side[2];
		for (int s = 0; s < 2; s++) {
			x[i] = was + (s ? -h : h);
			side[s] = sum_out(c);
		}
		x[i] = was;
		double want = (side[0] - side[1]) / (2 * h);
		if (!(fabs(want - (double)grad[i]) <= 2e-5 * most + 1e-6))
			fail_msg("%s by %s: element %zu is %g, by differences %g (largest %g)", c->what, of, i,
				 (double)grad[i], want, most);
	}
	c->most = most > c->most ? most : c->most;
}

static double *doubles(const float *x, size_t n)
{
	double *y = some(n, sizeof *y);
	for (size_t i = 0; i < n; i++)
		y[i] = (double)x[i];
	return y;
}

/* What a stretch of operations reads: noise, the same in double, and room for the gradients by it. */
struct given {
	float *x[BLOCK_VALUES], *d[BLOCK_VALUES];
};

/* Weights of experts, of which a token has as many as it may have, other ones each. */
static void choose_some(const struct config *c, float *x)
{
	for (size_t t = 0; t < TOKENS; t++)
		for (uint32_t i = 0; i < c->experts; i++)
			if ((t * 5 + i) % c->experts >= c->experts_used)
				x[t * c->experts + i] = 0;
}

static void given_open(struct given *g, struct checked *c, struct tape_job *j, struct rng *rng)
{
	const struct block *b = j->block;
	bool made[BLOCK_VALUES] = { false }, read[BLOCK_VALUES] = { [STREAM] = c->out == STREAM };
	*g = (struct given){ { NULL }, { NULL } };
	for (unsigned i = j->from; i < j->to; i++) {
		for (int k = 0; k < 3; k++)
			if (b->op[i].in[k] != NO_VALUE && !made[b->op[i].in[k]])
				read[b->op[i].in[k]] = true;
		made[b->op[i].out] = true;
	}
	for (unsigned v = 0; v < b->values; v++) {
		size_t n = TOKENS * b->value[v].width;
		if (!read[v])
			continue;
		g->x[v] = noise(n, rng, 0.7);
		if (j->from < b->ops && b->op[j->from].kind == OP_EXPERTS && v == b->op[j->from].in[1])
			choose_some(c->d.c, g->x[v]);
		g->d[v] = some(n, sizeof(float));
		c->d.given[v] = doubles(g->x[v], n);
		if (v != STREAM)
			j->place[v] = (struct tape_place){ .x = g->x[v], .d = g->d[v] };
	}
	j->in = g->x[STREAM];
	j->d = g->d[STREAM];
}

static void given_close(struct given *g)
{
	for (unsigned v = 0; v < BLOCK_VALUES; v++) {
		free(g->x[v]);
		free(g->d[v]);
	}
}

static void check_all(struct checked *c, const struct tape_job *j, const struct given *g, size_t step)
{
	for (unsigned v = 0; v < j->block->values; v++)
		if (g->x[v])
			check_slopes(c, "a value", c->d.given[v], g->d[v], TOKENS * j->block->value[v].width, step);
	for (unsigned i = j->from; i < j->to; i++) {
		const struct op *op = &j->block->op[i];
		if (op->kind == OP_LINEAR)
			check_slopes(c, role_rows[op->role].name, c->d.w[op->role], j->matrix[op->role].grad, size_of(j->block, op), step);
	}
	assert_true(c->most > 0.01);
}

/* Operations [from, to) of a layer, whatever they read given, by all that they read. step: one element of so many. */
static void check_stretch(struct trained *t, uint32_t layer, unsigned from, unsigned to, const char *what, size_t step)
{
	const struct block *b = &t->block[layer];
	struct rng rng = { 100 + from };
	struct tape_job j = { .block = b, .from = from, .to = to, .layer = layer, .seqs = SEQS, .matrix = t->w[layer], .back = true };
	value out = b->op[to - 1].out;
	size_t out_size = TOKENS * b->value[out].width;
	struct phase_table phases = { 0 };
	struct given g;
	ok(phase_table_fill(&phases, t->model, 0, CTX, CTX, &e));
	float *seed = noise(out_size, &rng, 1), *result = some(out_size, sizeof *result);
	double *wide = doubles(seed, out_size);
	struct checked c = { .what = what, .out = out, .out_size = out_size, .seed = wide };
	c.d = (struct in_double){ .m = t->model, .c = &t->config, .b = b, .from = from, .to = to, .layer = layer, .seqs = SEQS, .n = CTX,
				  .phases = phases_of(&phases, layer) };
	in_double_open(&c.d, t->w[layer]);
	given_open(&g, &c, &j, &rng);
	if (out == STREAM) {
		j.out = result;
		memcpy(j.d, seed, out_size * sizeof *seed);
	} else {
		j.place[out] = (struct tape_place){ .x = result, .d = seed };
	}
	ok(tape_forward(t->tape, &j, &e));
	sum_out(&c);
	for (size_t i = 0; i < out_size; i++)
		if (!(fabs((double)result[i] - c.d.x[out][i]) < 1e-4))
			fail_msg("%s: %g, in double %g", what, (double)result[i], c.d.x[out][i]);
	ok(tape_back(t->tape, &j, &e));
	check_all(&c, &j, &g, step);
	given_close(&g);
	free(seed);
	free(wide);
	free(result);
	in_double_close(&c.d);
	phase_table_release(&phases);
}

static void each_operation(void **state)
{
	(void)state;
	for (size_t i = 0; i < VARIANTS; i++) {
		struct trained t;
		trained_open(&t, &variants[i]);
		for (uint32_t layer = 0; layer < 2; layer++)
			for (unsigned k = 0; k < t.block[layer].ops; k++) {
				char what[128];
				snprintf(what, sizeof what, "%s, layer %u, operation %u", variants[i].name, layer, k);
				unsigned end = t.block[layer].op[k].kind == OP_EXPERTS ? block_merge(&t.block[layer], k) + 1 : k + 1;
				check_stretch(&t, layer, k, end, what, 67 * (end - k));
				k = end - 1;
			}
		trained_close(&t);
	}
}

static void whole_layers(void **state)
{
	(void)state;
	for (size_t i = 0; i < VARIANTS; i++) {
		struct trained t;
		trained_open(&t, &variants[i]);
		for (uint32_t layer = 0; layer < 2; layer++)
			check_stretch(&t, layer, 0, t.block[layer].ops, variants[i].name, t.config.experts ? 1999 : 499);
		trained_close(&t);
	}
}

/* ---- a whole model */

/* The slope of the loss along the gradient itself, measured, is the gradient's square. */
static void check_model(struct trained *t, const char *name, const char *what, float *w, const float *grad, size_t n)
{
	float *was = some(n, sizeof *was);
	double square = 0, norm = 0;
	memcpy(was, w, n * sizeof *w);
	for (size_t i = 0; i < n; i++) {
		square += (double)grad[i] * grad[i];
		norm += (double)w[i] * w[i];
	}
	assert_true(square > 0);
	double step = 2e-3 * sqrt(norm / square), side[2];
	for (int s = 0; s < 2; s++) {
		for (size_t i = 0; i < n; i++)
			w[i] = was[i] + (float)((s ? -step : step) * (double)grad[i]);
		side[s] = loss(t, false);
	}
	memcpy(w, was, n * sizeof *w);
	free(was);
	double slope = (side[0] - side[1]) / (2 * step);
	/* sums in f32 err by some of the losses' last digits, which tells where a gradient is small */
	double noise = 4 * FLT_EPSILON * (fabs(side[0]) + fabs(side[1])) / (2 * step);
	if (!(fabs(slope - square) < 0.01 * square + noise))
		fail_msg("%s, %s: the gradient's square is %g, the measured slope %g, its noise %g", name, what, square, slope, noise);
}

static void gradients_are_slopes(void **state)
{
	(void)state;
	for (size_t i = 0; i < VARIANTS; i++) {
		struct trained t;
		trained_open(&t, &variants[i]);
		loss(&t, true);
		back(&t);
		/* a step may send tokens to other experts, where the loss has no slope: those are held against torch */
		for (uint32_t layer = 0; layer < 2 && !t.config.experts; layer++)
			for (unsigned k = 0; k < t.block[layer].ops; k++) {
				const struct op *op = &t.block[layer].op[k];
				const struct tape_matrix *m = &t.w[layer][op->kind == OP_LINEAR ? op->role : ROLE_Q];
				if (op->kind == OP_LINEAR)
					check_model(&t, variants[i].name, role_rows[op->role].name, m->w, m->grad, size_of(&t.block[layer], op));
			}
		trained_close(&t);
	}
}

/* ---- against torch: tests/golden/make_gradient.py */

struct golden {
	const char *model;
	enum role role[8];       /* ended by ROLE_UNKNOWN: the matrices, in their order */
};

static void near_torch(const char *what, double have, double want, double largest)
{
	if (!(fabs(have - want) < 2e-4 * largest))
		fail_msg("%s: %g, torch has %g (largest %g)", what, have, want, largest);
}

static void check_golden(const struct golden *g)
{
	enum { STEP = 61 };
	struct trained t;
	char path[128];
	trained_open(&t, &(struct variant){ g->model, g->model, NULL, 0, 0, false, false });
	size_t size = TOKENS * t.config.hidden, count = TOKENS + size + 1, at = 0;
	for (uint32_t i = 0; i < t.config.layers; i++)
		for (const enum role *r = g->role; *r != ROLE_UNKNOWN; r++)
			count += 1 + (size_of(&t.block[i], block_op(&t.block[i], *r)) + STEP - 1) / STEP;
	double *golden = some(count, sizeof *golden);
	snprintf(path, sizeof path, "tests/golden/gradient/%s.f64", g->model);
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fread(golden, sizeof *golden, count, f), count);
	assert_int_equal(fgetc(f), EOF);
	fclose(f);
	for (size_t i = 0; i < TOKENS; i++)
		t.tokens[i] = (int32_t)golden[at++];
	for (size_t i = 0; i < size; i++)
		t.teacher[i] = (float)golden[at++];
	double kl = loss(&t, true);
	near_torch("KL", kl, golden[at], golden[at]);
	at++;
	back(&t);
	for (uint32_t i = 0; i < t.config.layers; i++)
		for (const enum role *r = g->role; *r != ROLE_UNKNOWN; r++) {
			size_t n = size_of(&t.block[i], block_op(&t.block[i], *r));
			const float *grad = t.w[i][*r].grad;
			double square = 0, want = golden[at++];
			for (size_t x = 0; x < n; x++)
				square += (double)grad[x] * (double)grad[x];
			near_torch(role_rows[*r].name, square, want, want);
			for (size_t x = 0; x < n; x += STEP)
				near_torch(role_rows[*r].name, (double)grad[x], golden[at++], sqrt(want / (double)n) * 10);
		}
	assert_int_equal(at, count);
	free(golden);
	trained_close(&t);
}

static void gradients_are_those_of_torch(void **state)
{
	static const struct golden goldens[] = {
		{ "gemma2", { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN, ROLE_UNKNOWN } },
		{ "qwen3-moe", { ROLE_Q, ROLE_V, ROLE_O, ROLE_ROUTER, ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN, ROLE_UNKNOWN } },
	};
	(void)state;
	for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
		check_golden(&goldens[i]);
}

static void threads_do_not_change_bits(void **state)
{
	static const struct { struct variant v; enum role role; } models[] = {
		{ { "gemma2", "gemma2", NULL, 0, 0, false, true }, ROLE_K },
		{ { "experts", "qwen3-moe", NULL, 0, 0, false, false }, ROLE_EXPERT_UP },
	};
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		float *was = NULL;
		for (int threads = 1; threads <= 3; threads += 2) {
			struct trained t;
			thread_set(threads);
			trained_open(&t, &models[i].v);
			const struct block *b = &t.block[0];
			size_t size = TOKENS * t.config.hidden, n = size_of(b, block_op(b, models[i].role));
			was = was ? was : some(size + n, sizeof *was);
			loss(&t, true);
			back(&t);
			if (threads == 1) {
				memcpy(was, t.d, size * sizeof *was);
				memcpy(was + size, t.w[0][models[i].role].grad, n * sizeof *was);
			}
			assert_memory_equal(was, t.d, size * sizeof *was);
			assert_memory_equal(was + size, t.w[0][models[i].role].grad, n * sizeof *was);
			trained_close(&t);
		}
		free(was);
	}
	thread_set(0);
}

/* Every kind of operation that a family has. */
static void all_have_a_derivative(void **state)
{
	(void)state;
	for (int k = OP_NORM; k <= OP_MERGE; k++) {
		const struct derivative *d = derivative_of((enum op_kind)k);
		assert_true(d && d->run && d->back);
	}
	assert_null(derivative_of((enum op_kind)99));
}

/* Experts are run from where they begin to where they end. */
static void experts_are_not_cut(void **state)
{
	struct trained t;
	(void)state;
	trained_open(&t, &(struct variant){ "mixtral", "mixtral", NULL, 0, 0, false, false });
	unsigned from = 0;
	while (t.block[0].op[from].kind != OP_EXPERTS)
		from++;
	struct tape_job j = job_of(&t, 0, false);
	for (int i = 0; i < 2; i++) {
		j.from = i ? from + 1 : 0;
		j.to = i ? t.block[0].ops : from + 2;
		assert_int_equal(tape_forward(t.tape, &j, &e), ERR_BUG);
	}
	trained_close(&t);
}

/* What an activation gives, and its slope, are those of the same in double. */
static void slopes_of_activations(void **state)
{
	enum { N = 41 };
	float x[N], y[N], slope[N];
	(void)state;
	for (int i = 0; i < N; i++)
		x[i] = 0.3f * (float)i - 6.05f;
	for (int act = ACT_SILU; act <= ACT_RELU2; act++) {
		activation_slope((enum activation)act, x, y, slope, N);
		for (int i = 0; i < N; i++) {
			const double at = (double)x[i], d = 1e-4, up = act_in_double((enum activation)act, at + d), down = act_in_double((enum activation)act, at - d);
			if (fabs((double)y[i] - act_in_double((enum activation)act, at)) > 1e-5 || fabs((double)slope[i] - (up - down) / (2 * d)) > 1e-4)
				fail_msg("activation %d at %g: %g, slope %g", act, at, (double)y[i], (double)slope[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slopes_of_activations),
		cmocka_unit_test(runs_the_model),
		cmocka_unit_test(phases_of_layers),
		cmocka_unit_test(each_operation),
		cmocka_unit_test(whole_layers),
		cmocka_unit_test(gradients_are_slopes),
		cmocka_unit_test(gradients_are_those_of_torch),
		cmocka_unit_test(threads_do_not_change_bits),
		cmocka_unit_test(all_have_a_derivative),
		cmocka_unit_test(experts_are_not_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
