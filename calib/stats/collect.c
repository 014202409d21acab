#include "calib/stats/collect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/zip.h"
#include "calib/stats/input_sums.h"
#include "calib/stats/resume_file.h"
#include "formats/file.h"

/* Bytes moved at once between the working file, memory and the output. */
enum { PIECE = 4 << 20 };
enum { SUM_HIDDEN, SUM_DATA };

struct run {
	const struct collect_plan *p;
	const struct loaded *l;
	struct model_run *run;
	struct resume_file work;
	float *hidden;            /* [batch tokens, width] */
	float *scratch;
	struct input_sums *gather;    /* [inputs]; those of the layers at work are in use */
	uint32_t sums[RESUME_SUMS];
	uint8_t *piece;
	struct err *e;            /* of the tap, which returns nothing */
	int rc;
	size_t batch_first;       /* window that the batch begins with */
	const struct progress *progress;
};

/* Two copies of the hidden states, so that an interrupted layer leaves its input whole; then the output's data. */
static uint64_t hidden_at(const struct run *r, uint64_t step, size_t window)
{
	return (step & 1) * r->p->hidden_bytes + (uint64_t)window * r->p->text.ctx * r->l->config.hidden * sizeof(float);
}

static uint64_t data_at(const struct run *r)
{
	return 2 * r->p->hidden_bytes;
}

static size_t batch_windows(const struct run *r, size_t first)
{
	size_t left = r->p->text.count - first;
	return left < r->p->batch ? left : r->p->batch;
}

/* Where the message of an activation points: the weight that reads it. */
static int name_input(const struct run *r, size_t input, struct err *e)
{
	char name[96];
	const struct stats_input *in = &r->p->inputs[input];
	enum role role = in->role == ROLE_HEAD && r->l->config.tied ? ROLE_EMBED : in->role;
	if (!role_hf_name(r->l->config.arch, role, in->layer, name))
		stats_input_key(in, name);
	size_t last = r->batch_first + batch_windows(r, r->batch_first) - 1;
	if (in->layer == UINT32_MAX)
		return err_prefix(e, "input of %s, windows %zu to %zu", name, r->batch_first, last);
	return err_prefix(e, "layer %u, %s of %s, windows %zu to %zu", role_layer(in->role, in->layer), in->output ? "output" : "input", name, r->batch_first,
			  last);
}

static void gather_at(struct run *r, enum role role, uint32_t place, bool output, const float *x, size_t n)
{
	size_t id = site_id(&r->l->config, role, place), at = id == SIZE_MAX ? 0 : r->p->input_at[2 * id + output];
	if (!at || r->rc)
		return;
	r->rc = input_sums_add(&r->gather[at - 1], x, n, r->scratch, r->e);
	if (r->rc == ERR_INPUT)
		name_input(r, at - 1, r->e);
}

static void tap_input(void *arg, enum role role, uint32_t place, const float *x, size_t n, size_t dim)
{
	(void)dim;
	gather_at(arg, role, place, false, x, n);
}

static void tap_qkv(void *arg, uint32_t layer, const float *q, const float *k, const float *v, size_t n)
{
	if (!k)
		return;
	gather_at(arg, ROLE_Q, layer, true, q, n);
	gather_at(arg, ROLE_K, layer, true, k, n);
	gather_at(arg, ROLE_V, layer, true, v, n);
}

/* The layers from `first` that must run together: the last of them and all between read no KV from outside. */
static uint32_t group_end(const struct config *c, uint32_t first)
{
	uint32_t end = first + 1;
	for (uint32_t i = end; i < c->layers; i++)
		if (c->layer[i].kv_source < end)
			end = i + 1;
	return end;
}

static bool in_group(const struct config *c, const struct stats_input *in, uint32_t first, uint32_t end)
{
	uint32_t layer = role_layer(in->role, in->layer);
	return layer == UINT32_MAX ? end == c->layers : layer >= first && layer < end;
}

static int one_batch(struct run *r, uint32_t first, uint32_t end, uint64_t step, size_t at, struct err *e)
{
	const struct config *c = &r->l->config;
	size_t seqs = batch_windows(r, at), ctx = r->p->text.ctx, tokens = seqs * ctx, bytes = tokens * c->hidden * sizeof(float);
	struct model_tap tap = { .input = tap_input, .qkv = tap_qkv, .arg = r };
	r->batch_first = at;
	int rc = first ? resume_read(&r->work, hidden_at(r, step, at), r->hidden, bytes, e)
		       : model_embed(r->l->model, &(struct token_run){ r->p->text.tokens + at * ctx, tokens, ctx, 0 }, r->hidden, e);
	for (uint32_t i = first; i < end && !rc; i++) {
		rc = model_layer(r->run, i, r->hidden, &(struct model_batch){ seqs, ctx, NULL, &tap }, e);
		rc = rc ? rc : r->rc;
	}
	if (rc)
		return rc;
	if (end == c->layers) {
		model_final_norm(r->l->model, r->hidden, r->hidden, tokens);
		gather_at(r, ROLE_HEAD, UINT32_MAX, false, r->hidden, tokens);
		return r->rc;
	}
	r->sums[SUM_HIDDEN] = zip_crc32(r->sums[SUM_HIDDEN], r->hidden, bytes);
	return resume_write(&r->work, hidden_at(r, step + 1, at), r->hidden, bytes, e);
}

static int put_data(struct run *r, const struct st_entry *t, uint64_t offset, const void *data, size_t size, struct err *e)
{
	r->sums[SUM_DATA] = zip_crc32(r->sums[SUM_DATA], data, size);
	return resume_write(&r->work, data_at(r) + t->begin + offset, data, size, e);
}

/* Sums are kept in f64; a finished file stores moments in f32, far below their own noise and half the size. */
static int put_moment(struct run *r, const struct st_entry *t, const double *m, size_t n, struct err *e)
{
	float *piece = (float *)(void *)r->piece;
	int rc = ERR_OK;
	if (r->p->layout.wide)
		return put_data(r, t, 0, m, n * sizeof *m, e);
	for (size_t at = 0, k; at < n && !rc; at += k) {
		k = n - at < PIECE / sizeof *piece ? n - at : PIECE / sizeof *piece;
		for (size_t i = 0; i < k; i++)
			piece[i] = (float)m[at + i];
		rc = put_data(r, t, at * sizeof *piece, piece, k * sizeof *piece, e);
	}
	return rc;
}

static int put_fields(struct run *r, size_t input, struct err *e)
{
	const struct stats_layout *l = &r->p->layout;
	const struct input_sums *g = &r->gather[input];
	const struct st_entry *moment = stats_field(l, input, FIELD_MOMENT);
	int rc = put_data(r, stats_field(l, input, FIELD_SUM_SQUARES), 0, g->sum_squares, g->n * sizeof *g->sum_squares, e);
	if (!rc)
		rc = put_data(r, stats_field(l, input, FIELD_ABS_SUM), 0, g->abs_sum, g->n * sizeof *g->abs_sum, e);
	if (!rc)
		rc = put_data(r, stats_field(l, input, FIELD_ABS_MAX), 0, g->abs_max, g->n * sizeof *g->abs_max, e);
	if (!rc)
		rc = put_data(r, stats_field(l, input, FIELD_COUNT), 0, &g->count, sizeof g->count, e);
	if (!rc && moment)
		rc = put_moment(r, moment, g->moment, triangle(g->n), e);
	return rc;
}

static void drop_layer(const struct run *r, uint32_t layer)
{
	for (int role = 0; role < ROLE_COUNT; role++)
		for (uint32_t i = 0; role_rows[role].per_layer && i < role_places(&r->l->config, (enum role)role); i++) {
			const struct weight *w = model_weight(r->l->model, (enum role)role, role_place((enum role)role, layer, i));
			if (w->bytes.data)
				source_drop(r->l->checkpoint->source, w->bytes.data, w->bytes.size);
		}
}

static int one_group(struct run *r, uint32_t first, uint32_t end, uint64_t step, struct err *e)
{
	const struct config *c = &r->l->config;
	const struct collect_plan *p = r->p;
	uint64_t total = (uint64_t)c->layers * p->text.count * p->text.ctx;
	int rc = ERR_OK;
	r->sums[SUM_HIDDEN] = 0;
	for (size_t i = 0; i < p->input_count && !rc; i++)
		if (in_group(c, &p->inputs[i], first, end))
			rc = input_sums_init(&r->gather[i], p->inputs[i].n, field_present(FIELD_MOMENT, p->head.collect, p->inputs[i].role), e);
	for (size_t at = 0; at < p->text.count && !rc; at += p->batch) {
		rc = one_batch(r, first, end, step, at, e);
		size_t done = at + batch_windows(r, at);
		if (!rc && !progress_tell(r->progress, (uint64_t)p->text.ctx * (first * p->text.count + (uint64_t)(end - first) * done), total))
			rc = err_set(e, ERR_IO, "interrupted");
	}
	for (size_t i = 0; i < p->input_count; i++)
		if (in_group(c, &p->inputs[i], first, end)) {
			rc = rc ? rc : put_fields(r, i, e);
			input_sums_release(&r->gather[i]);
		}
	for (uint32_t i = first; i < end; i++)
		drop_layer(r, i);
	return rc ? rc : resume_commit(&r->work, step + 1, r->sums, e);
}

static int sum_range(struct run *r, uint64_t at, uint64_t size, uint32_t *sum, struct err *e)
{
	int rc = ERR_OK;
	for (uint64_t k; size && !rc; at += k, size -= k) {
		k = size < PIECE ? size : PIECE;
		rc = resume_read(&r->work, at, r->piece, (size_t)k, e);
		if (!rc)
			*sum = zip_crc32(*sum, r->piece, (size_t)k);
	}
	return rc;
}

/* What an interrupted run left must be what it wrote: a machine that went down may have lost some of it. */
static int check_left(struct run *r, uint32_t layers, struct err *e)
{
	const struct config *c = &r->l->config;
	uint32_t sums[RESUME_SUMS] = { 0 };
	int rc = ERR_OK;
	if (layers < c->layers)
		rc = sum_range(r, hidden_at(r, r->work.steps, 0), r->p->hidden_bytes, &sums[SUM_HIDDEN], e);
	for (size_t i = 0; i < r->p->input_count && !rc; i++) {
		static const enum field order[] = { FIELD_SUM_SQUARES, FIELD_ABS_SUM, FIELD_ABS_MAX, FIELD_COUNT, FIELD_MOMENT };
		const struct stats_input *in = &r->p->inputs[i];
		if (in->layer == UINT32_MAX ? layers < c->layers : role_layer(in->role, in->layer) >= layers)
			continue;
		for (size_t f = 0; f < FIELDS && !rc; f++) {
			const struct st_entry *t = stats_field(&r->p->layout, i, order[f]);
			if (t)
				rc = sum_range(r, data_at(r) + t->begin, t->end - t->begin, &sums[SUM_DATA], e);
		}
	}
	if (!rc && memcmp(sums, r->work.sums, sizeof sums))
		return err_set(e, ERR_INPUT, "%s: the working file is damaged; run again without --resume", r->work.path);
	memcpy(r->sums, sums, sizeof sums);
	return rc;
}

static int all_groups(struct run *r, struct err *e)
{
	const struct config *c = &r->l->config;
	uint64_t done = r->work.steps, step = 0;
	uint32_t first = 0;
	for (; first < c->layers && step < done; step++)
		first = group_end(c, first);
	int rc = done ? check_left(r, first, e) : ERR_OK;
	for (uint32_t end; first < c->layers && !rc; first = end, step++) {
		end = group_end(c, first);
		rc = one_group(r, first, end, step, e);
	}
	return rc;
}

static int write_out(struct run *r, const char *path, struct err *e)
{
	const struct collect_plan *p = r->p;
	const struct stats_layout *l = &p->layout;
	struct strbuf header = { 0 };
	struct out_file *f = NULL;
	int rc = resume_write(&r->work, data_at(r) + l->entries[l->tokens].begin, p->text.tokens,
			    p->text.count * p->text.ctx * sizeof *p->text.tokens, e);
	if (!rc)
		rc = resume_write(&r->work, data_at(r) + l->entries[l->windows].begin, p->windows, p->text.count * sizeof *p->windows, e);
	if (!rc)
		rc = stats_header(l, &p->head, &header, e);
	if (!rc)
		rc = out_open(path, &f, e);
	if (!rc)
		rc = out_write(f, header.data, header.len, e);
	for (uint64_t at = 0, k; at < l->bytes && !rc; at += k) {
		k = l->bytes - at < PIECE ? l->bytes - at : PIECE;
		rc = resume_read(&r->work, data_at(r) + at, r->piece, (size_t)k, e);
		if (!rc)
			rc = out_write(f, r->piece, (size_t)k, e);
	}
	strbuf_release(&header);
	if (rc)
		out_abort(f);
	else
		rc = out_commit(f, e);
	return rc;
}

static int run_init(struct run *r, struct err *e)
{
	const struct collect_plan *p = r->p;
	r->run = model_run_new(r->l->model, p->batch, p->text.ctx, e);
	r->hidden = malloc(p->batch * p->text.ctx * r->l->config.hidden * sizeof *r->hidden);
	r->scratch = malloc(input_sums_scratch() * sizeof *r->scratch);
	r->gather = calloc(p->input_count, sizeof *r->gather);
	r->piece = malloc(PIECE);
	if (!r->run)
		return e->code;
	return r->hidden && r->scratch && r->gather && r->piece ? ERR_OK : err_nomem(e);
}

int collect_run(const struct collect_plan *p, const struct loaded *l, const struct collect_options *o, const char *out,
		const struct progress *progress, struct err *e)
{
	struct run r = { .p = p, .l = l, .e = e, .progress = progress };
	int rc = resume_open(&r.work, o->work ? o->work : out, p->job, o->resume, e);
	if (rc)
		return rc;
	if (o->passing)
		resume_unname(&r.work);
	rc = run_init(&r, e);
	if (!rc)
		rc = all_groups(&r, e);
	if (!rc)
		rc = write_out(&r, out, e);
	/* what the system refused may be granted later; other errors would only come again */
	bool keep = rc == ERR_IO && r.work.steps && !o->passing;
	if (keep) {
		size_t n = strlen(e->message);
		snprintf(e->message + n, sizeof e->message - n, "; %.200s keeps what was done, for --resume", r.work.path);
	}
	resume_close(&r.work, !keep);
	model_run_free(r.run);
	free(r.hidden);
	free(r.scratch);
	free(r.gather);
	free(r.piece);
	return rc;
}
