/* Which windows are run, in which batches, and what that takes. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "base/thread.h"
#include "calib/stats/collect.h"
#include "codec/codec.h"

/* Tokens run at once, as in evaluate.c: decoding a weight is then small beside multiplying by it. */
enum { BATCH_TOKENS = 2048 };

static int ascending(const void *a, const void *b)
{
	const size_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* `count` of the text's windows, in order; a shuffle that stops early (Fisher and Yates). */
static size_t *choose(size_t total, size_t count, uint64_t seed)
{
	size_t *p = malloc(total * sizeof *p);
	struct rng r = { seed };
	for (size_t i = 0; p && i < total; i++)
		p[i] = i;
	for (size_t i = 0; p && count < total && i < count; i++) {
		size_t k = i + (size_t)rng_below(&r, total - i), t = p[i];
		p[i] = p[k];
		p[k] = t;
	}
	if (p)
		qsort(p, count, sizeof *p, ascending);
	return p;
}

static int pick_windows(struct collect_plan *p, const struct token_ids *ids, int32_t bos, const struct collect_options *o,
			struct err *e)
{
	struct windows all;
	const struct window_options cut = { .ctx = o->ctx, .bos = bos };
	int rc = windows_cut(&all, ids->id, ids->count, &cut, e);
	if (rc)
		return rc;
	size_t count = o->samples && o->samples < all.count ? o->samples : all.count, kept = 0;
	size_t *chosen = choose(all.count, count, o->seed);
	p->batch = BATCH_TOKENS / o->ctx ? BATCH_TOKENS / o->ctx : 1;
	size_t batches = (count + p->batch - 1) / p->batch;
	p->text = (struct windows){ .ctx = o->ctx, .tokens = malloc(count * o->ctx * sizeof(int32_t)) };
	p->windows = malloc(count * sizeof *p->windows);
	if (!chosen || !p->text.tokens || !p->windows)
		rc = err_nomem(e);
	else if (count > INT32_MAX)
		rc = err_set(e, ERR_UNSUPPORTED, "%zu windows are too many", count);
	else if (o->shards > batches)
		rc = err_set(e, ERR_USAGE, "%zu windows of %zu tokens make %zu batches, fewer than %zu shards; use more windows or fewer shards",
			     count, o->ctx, batches, o->shards);
	for (size_t i = 0; i < count && !rc; i++) {
		if (i / p->batch % o->shards != o->shard)
			continue;
		memcpy(p->text.tokens + kept * o->ctx, all.tokens + chosen[i] * o->ctx, o->ctx * sizeof(int32_t));
		p->windows[kept++] = (struct stats_window){ 0, (int32_t)i };
	}
	p->text.count = kept;
	p->batches = (kept + p->batch - 1) / p->batch;
	p->text_windows = all.count;
	p->source.total = (uint32_t)count;
	p->source.seed = count < all.count ? o->seed : 0;
	free(chosen);
	windows_release(&all);
	return rc;
}

static uint64_t tensor_bytes_of(const struct loaded *l, enum role r, uint32_t layer)
{
	const struct weight *w = model_weight(l->model, r, layer);
	return w && w->tensor && w->bytes.data ? w->tensor->nbytes : 0;
}

/* An upper bound: the largest of each thing, as if they met. */
static uint64_t peak_memory(const struct collect_plan *p, const struct loaded *l)
{
	enum { LIBRARIES = 96 << 20, TILE = 256 };
	const struct config *c = &l->config;
	uint64_t n = (uint64_t)p->batch * p->text.ctx, layer_bytes = 0, sums = 0;
	uint64_t workers = (uint64_t)thread_count();
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *x = &c->layer[i];
		uint64_t bytes = 0, sum = 0;
		for (int r = 0; r < ROLE_COUNT; r++)
			for (uint32_t k = 0; role_rows[r].per_layer && k < role_places(c, (enum role)r); k++)
				bytes += tensor_bytes_of(l, (enum role)r, role_place((enum role)r, i, k));
		for (size_t k = 0; k < p->input_count; k++)
			if (role_layer(p->inputs[k].role, p->inputs[k].layer) == i)
				sum += 20 * (uint64_t)p->inputs[k].n +
				       (field_present(FIELD_MOMENT, p->head.collect, p->inputs[k].role) ? 8 * (uint64_t)triangle(p->inputs[k].n) : 0);
		/* layers that read another's KV run together with it */
		bool shared = x->kv_source != i;
		layer_bytes = shared ? layer_bytes + bytes : bytes > layer_bytes ? bytes : layer_bytes;
		sums = shared ? sums + sum : sum > sums ? sum : sums;
	}
	uint64_t activations = model_run_memory(c, (size_t)n) + 4 * n * 3 * (uint64_t)c->hidden;
	uint64_t text = (uint64_t)p->text_tokens * 24 + (uint64_t)p->text.count * p->text.ctx * 4;
	uint64_t decode = workers * 4 * (128 * (uint64_t)p->widest + TILE * TILE);
	return LIBRARIES + activations + text + decode + layer_bytes + sums + tensor_bytes_of(l, ROLE_EMBED, UINT32_MAX);
}

/* What the result depends on, for --resume. */
static void hash_job(struct collect_plan *p, const struct collect_options *o)
{
	struct sha256 h;
	uint64_t numbers[] = { STATS_VERSION, (uint64_t)o->collect, o->ctx, p->source.total, p->source.seed, o->shard, o->shards,
			       p->layout.bytes };
	sha256_init(&h);
	identity_add(&h, p->head.model, sizeof p->head.model);
	identity_add(&h, p->head.tokenizer, sizeof p->head.tokenizer);
	identity_add(&h, p->source.data, sizeof p->source.data);
	identity_add(&h, o->tool, strlen(o->tool));
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		uint8_t b[8];
		store_u64(b, numbers[i]);
		identity_add(&h, b, sizeof b);
	}
	sha256_finish(&h, p->job);
}

int collect_plan_make(struct collect_plan *p, const struct loaded *l, const struct token_ids *ids, const char *data,
		      const struct collect_options *o, struct err *e)
{
	*p = (struct collect_plan){ .text_tokens = ids->count };
	p->head = (struct stats_head){ .tool = o->tool, .collect = o->collect, .ctx = o->ctx, .sources = &p->source, .source_count = 1 };
	memcpy(p->source.data, data, sizeof p->source.data);
	int rc = pick_windows(p, ids, tokenizer_bos(l->tokenizer), o, e);
	for (size_t i = 0; i < p->text.count * p->text.ctx && !rc; i++)
		if (p->text.tokens[i] < 0 || (uint32_t)p->text.tokens[i] >= l->config.vocab)
			rc = err_set(e, ERR_NOT_COMPARABLE, "token id %d is outside the model's vocabulary of %u; is this its tokenizer?",
				     p->text.tokens[i], l->config.vocab);
	p->head.windows = p->text.count;
	if (!rc)
		rc = identity_model(&l->config, l->checkpoint->source, p->head.model, e);
	if (!rc)
		rc = stats_inputs(&l->config, o->collect, &p->inputs, &p->input_count, e);
	if (!rc) {
		identity_tokenizer(l->tokenizer, p->head.tokenizer);
		rc = stats_layout_make(&p->layout, p->inputs, p->input_count, &p->head, e);
	}
	if (rc) {
		collect_plan_release(p);
		return rc;
	}
	p->input_at = calloc(2 * site_count(&l->config), sizeof *p->input_at);
	if (!p->input_at) {
		collect_plan_release(p);
		return err_nomem(e);
	}
	for (size_t i = 0; i < p->input_count; i++)
		p->input_at[2 * site_id(&l->config, p->inputs[i].role, p->inputs[i].layer) + p->inputs[i].output] = i + 1;
	for (size_t i = 0; i < p->input_count; i++)
		p->widest = p->inputs[i].n > p->widest ? p->inputs[i].n : p->widest;
	p->hidden_bytes = (uint64_t)p->text.count * p->text.ctx * l->config.hidden * sizeof(float);
	p->memory = peak_memory(p, l);
	p->file_bytes = p->layout.bytes + (uint64_t)p->layout.count * 110 + 1024;
	p->work_bytes = 2 * p->hidden_bytes + p->layout.bytes;
	hash_job(p, o);
	return ERR_OK;
}

void collect_plan_release(struct collect_plan *p)
{
	windows_release(&p->text);
	stats_layout_release(&p->layout);
	free(p->windows);
	free(p->inputs);
	free(p->input_at);
	*p = (struct collect_plan){ 0 };
}
