/* The calibrated methods: rows, and what each prepares. */
#include "calib/quant/quantizer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "calib/quant/distill.h"
#include "calib/quant/equalize.h"
#include "codec/codec.h"
#include "model/tape.h"

/* Relative to the mean of the moments' diagonal: the value of the GPTQ paper. */
static const double DAMPING = 0.01;
enum { SWEEPS = 4, HELD_OUT = 8, LIBRARIES = 96 << 20, BATCH_TOKENS = 2048, FEEDBACK_ROWS = 32 };

/* ---- importance and error feedback, as the plan asks for them */

static const float *importance(void *arg, const struct plan_item *item)
{
	struct quantizer *q = arg;
	size_t n = 0;
	const float *w = item->role < ROLE_COUNT ? stats_importance(q->stats, item->role, item->layer, &n) : NULL;
	if (!w || n != tensor_cols(&item->out))
		return NULL;
	const float *s = q->awq ? awq_columns(q->awq, item->role, item->layer) : NULL;
	if (!s)
		return w;
	free(q->scaled);
	q->scaled = malloc(n * sizeof *q->scaled);
	for (size_t i = 0; q->scaled && i < n; i++)
		q->scaled[i] = w[i] / (s[i] * s[i]);
	return q->scaled;
}

static int curvature_for(struct quantizer *q, const struct plan_item *item, struct err *e)
{
	enum role leader = stats_leader(q->config, item->role);
	if (q->curvature && q->curvature_role == leader && q->curvature_layer == item->layer)
		return ERR_OK;
	curvature_free(q->curvature);
	q->curvature = NULL;
	double *h = NULL;
	size_t n;
	int rc = stats_moment(q->stats, item->role, item->layer, &h, &n, e);
	if (!rc)
		rc = curvature_new(h, n, q->damping, &q->curvature, e);
	q->curvature_role = leader;
	q->curvature_layer = item->layer;
	free(h);
	return rc;
}

static int feed_back(void *arg, const struct plan_item *item, const struct quantize_job *job, struct err *e)
{
	struct quantizer *q = arg;
	int rc = curvature_for(q, item, e);
	if (rc)
		return rc;
	struct feedback_job f = { .codec = job->codec, .w = job->x, .rows = job->rows, .curvature = q->curvature, .dst = job->dst };
	return feedback_quantize(&f, e);
}

/* ---- preparation */

/* Methods that run the model must not find out by its logits that a weight is not a number. */
static int check_weights(const struct quantizer *q, struct err *e)
{
	for (size_t i = 0; i < q->plan->count; i++) {
		const struct plan_item *item = &q->plan->items[i];
		const struct tensor *meta;
		float *x;
		if (!quantizer_takes(item))
			continue;
		int rc = source_read_f32(q->source, item->out.name, &x, &meta, e);
		if (rc)
			return rc;
		size_t n = (size_t)tensor_elements(meta), cols = (size_t)tensor_cols(meta), at = 0;
		while (at < n && isfinite(x[at]))
			at++;
		bool nan = at < n && isnan(x[at]);
		free(x);
		if (at < n)
			return err_set(e, ERR_INPUT, "tensor %s: the value at row %zu, column %zu is %s", item->out.name, at / cols, at % cols,
				       nan ? "NaN" : "infinite");
	}
	return ERR_OK;
}

/* Codes and scales, once all layers have theirs. */
static int train(struct quantizer *q, const struct quant_job *job, struct err *e)
{
	struct distill_options o = distill_defaults;
	o.passes = q->passes;
	return distill(job, &o, q->overlay, &q->distilled, e);
}

static int prepare_best(struct quantizer *q, const struct progress *progress, struct err *e)
{
	const struct sequential_options o = { .damping = q->damping, .sweeps = SWEEPS, .sequential = true, .input = 1, .residual = 1,
					      .held_out = HELD_OUT };
	struct windows text, fitted;
	int rc = check_weights(q, e);
	if (!rc)
		rc = stats_windows(q->stats, &text, e);
	if (rc)
		return rc;
	fitted = windows_part(&text, 0, q->passes ? distill_fitted(&text) : text.count);
	q->equal = overlay_new(q->source, e);
	q->report = calloc(q->plan->count, sizeof *q->report);
	if (!q->equal)
		rc = ERR_NOMEM;
	else if (!q->report)
		rc = err_nomem(e);
	else if (!q->keep_channels)
		rc = equalize(q->config, q->source, q->equal, &q->skips, e);
	struct quant_job job = { .config = q->config, .source = q->equal ? overlay_source(q->equal) : NULL, .plan = q->plan, .text = &fitted,
				 .more = q->more, .progress = progress, .skips = &q->skips };
	if (!rc && !q->keep_channels)
		rc = arrangement_new(&job, &q->arrangement, e);
	if (!rc) {
		struct tensor_source *reference = quantizer_reference(q);
		q->overlay = overlay_new(reference, e);
		rc = q->overlay ? sequential_quantize(&job, q->arrangement, &o, q->overlay, q->report, e) : ERR_NOMEM;
		job.source = reference;
		job.text = &text;
		if (!rc && q->passes)
			rc = train(q, &job, e);
	}
	windows_release(&text);
	return rc;
}

static int prepare_awq(struct quantizer *q, const struct progress *progress, struct err *e)
{
	int rc = check_weights(q, e);
	return rc ? rc : awq_new(&(struct quant_job){ .config = q->config, .source = q->source, .plan = q->plan, .progress = progress, .skips = &q->skips }, q->stats, &q->awq, e);
}

/* ---- memory */

static uint64_t workers(void)
{
	return (uint64_t)thread_count();
}

/* The curvature with what its factorization takes, and one matrix in error feedback. */
static uint64_t feedback_memory(const struct plan_item *item)
{
	uint64_t n = tensor_cols(&item->out), rows = tensor_rows(&item->out);
	return n * n * (8 + 8 + 8 + 4 + 4) + rows * n * 4 + item->out.nbytes + workers() * FEEDBACK_ROWS * n * (5 * 4 + 2 + 24);
}

static uint64_t memory_gptq(const struct quantizer *q)
{
	uint64_t most = 0;
	for (size_t i = 0; i < q->plan->count; i++) {
		uint64_t m = quantizer_takes(&q->plan->items[i]) ? feedback_memory(&q->plan->items[i]) : 0;
		most = m > most ? m : most;
	}
	return most;
}

static uint64_t memory_best(const struct quantizer *q)
{
	const struct config *c = q->config;
	uint64_t tokens = q->tokens, batch = tokens < BATCH_TOKENS ? tokens : BATCH_TOKENS;
	batch = batch < q->ctx ? q->ctx : batch;
	uint64_t widest = config_widths(c).input, results = 0, weights = 0, arranged = 0, most = 0;
	for (size_t i = 0; i < q->plan->count; i++) {
		const struct plan_item *item = &q->plan->items[i];
		uint64_t n = tensor_cols(&item->out), rows = tensor_rows(&item->out);
		weights += q->source->tensors[item->source].nbytes;
		if (!quantizer_takes(item))
			continue;
		results += item->out.nbytes;
		arranged += q->keep_channels ? 0 : 4 * rows * n;
		/* moments of own, cross and residual, fitted and held out, their solution, the corrected weights, and what feedback takes */
		uint64_t m = feedback_memory(item) + n * n * 40 + c->hidden * n * 16 + rows * n * 32;
		most = m > most ? m : most;
	}
	/* two streams of hidden states; per batch and stream the activations of a layer */
	uint64_t layers = 2 * tokens * c->hidden * 4 + 2 * batch * (4 * c->hidden + 8 * widest) * 4 + widest * widest * 4 + most +
			  sequential_experts_memory(c, batch);
	/* training holds the arranged weights, of which the layers before it take one at a time */
	const struct distill_text text = { tokens, q->more ? q->more->count * q->ctx : 0, q->ctx };
	uint64_t after = q->passes ? distill_memory(c, q->plan, &text) + arranged : 0;
	uint64_t before = q->keep_channels ? 0 : arrangement_memory(c, tokens, q->ctx);
	layers = layers > before ? layers : before;
	return results + weights + (layers > after ? layers : after);
}

static uint64_t memory_awq(const struct quantizer *q)
{
	return awq_memory(q->plan);
}

/* One row per method; help lists them in this order. */
const struct quantizer_row quantizer_rows[] = {
	{ .name = "imatrix", .summary = "search weighted by channel importance" },
	{ .name = "awq", .summary = "strong channels scaled up before rounding, exactly undone in the tensor before",
	  .likes_moments = true, .prepare = prepare_awq, .memory = memory_awq },
	{ .name = "gptq", .summary = "second-order error feedback", .needs_moments = true, .memory = memory_gptq },
	{ .name = "best", .summary = "error feedback with coordinate descent, each layer aimed at what the original puts out",
	  .needs_tokens = true, .prepare = prepare_best, .memory = memory_best },
};
const unsigned quantizer_row_count = sizeof quantizer_rows / sizeof *quantizer_rows;

const struct quantizer_row *quantizer_find(const char *name)
{
	for (unsigned i = 0; i < quantizer_row_count; i++)
		if (!strcmp(quantizer_rows[i].name, name))
			return &quantizer_rows[i];
	return NULL;
}

const struct quantizer_row *quantizer_default(const struct stats *s)
{
	return quantizer_find(stats_info(s)->foreign ? "imatrix" : "best");
}

/* A matrix of second moments has no higher rank than it saw tokens: what it does not know is left to damping. */
static void choose_damping(struct quantizer *q)
{
	uint64_t worst = 0, tokens = 0;
	bool wanted = q->row->needs_moments || q->row->needs_tokens;
	q->damping = DAMPING;
	for (size_t i = 0; i < q->plan->count && wanted; i++) {
		const struct plan_item *item = &q->plan->items[i];
		uint64_t n = tensor_cols(&item->out);
		if (!quantizer_takes(item) || n <= worst || role_rows[item->role].per_expert)
			continue;
		worst = n;
		tokens = stats_count(q->stats, item->role, item->layer);
	}
	if (!tokens || tokens >= worst)
		return;
	double more = 4 * (double)worst / (double)tokens;
	q->damping = DAMPING * (more < 100 ? more : 100);
	notes_add(&q->notes, "%llu tokens are too few for the second moments of %llu channels; damping is raised from %g to %.2g (more "
		      "calibration text is better)", (unsigned long long)tokens, (unsigned long long)worst, DAMPING, q->damping);
}

/* An importance matrix may lack entries: llama.cpp leaves the head out unless asked. Nothing is done silently without one. */
static void note_missing(struct quantizer *q)
{
	const char *first = NULL;
	size_t missing = 0, n;
	for (size_t i = 0; i < q->plan->count; i++) {
		const struct plan_item *item = &q->plan->items[i];
		if (!quantizer_takes(item) || stats_importance(q->stats, item->role, item->layer, &n))
			continue;
		first = first ? first : item->out.name;
		missing++;
	}
	if (missing)
		notes_add(&q->notes, "the importance matrix has no entry for %zu of the matrices, the first %s; they are rounded by the search "
			      "without weights", missing, first);
}

/* Experts that saw too few tokens are filled up; it is said how many. */
static void note_few(struct quantizer *q)
{
	struct expert_report *x = &q->experts;
	bool moments = q->row->needs_moments || q->row->needs_tokens;
	x->least = UINT64_MAX;
	/* the older form of importance matrices does not say how many tokens there were */
	bool counted = !stats_info(q->stats)->foreign || stats_info(q->stats)->ctx;
	for (size_t i = 0; i < q->plan->count && counted; i++) {
		const struct plan_item *item = &q->plan->items[i];
		if (!quantizer_takes(item) || !role_rows[item->role].per_expert)
			continue;
		uint64_t n = stats_count(q->stats, item->role, item->layer);
		moments |= q->row->likes_moments && stats_has_moment(q->stats, item->role, item->layer);
		x->matrices++;
		x->few += n < (moments ? tensor_cols(&item->out) : STATS_FEW);
		x->least = n < x->least ? n : x->least;
	}
	x->least = x->matrices ? x->least : 0;
	if (x->few && moments)
		notes_add(&q->notes, "%zu of %zu matrices of experts saw fewer tokens than they have columns (one of them %llu): what is lacking is "
			  "taken from the mean of the experts of their layer", x->few, x->matrices, (unsigned long long)x->least);
	else if (x->few)
		notes_add(&q->notes, "%zu of %zu matrices of experts saw fewer than %d tokens (one of them %llu): what is lacking is taken from the "
			  "mean of the experts of their layer", x->few, x->matrices, (int)STATS_FEW, (unsigned long long)x->least);
}

static int check_needs(const struct quantizer *q, struct err *e)
{
	const struct stats_info *info = stats_info(q->stats);
	if (q->row->needs_tokens && (info->foreign || !info->windows))
		return err_set(e, ERR_INPUT, "method %s runs the model over the calibration text, which an importance matrix does not hold; "
			       "gather statistics with quire calibrate, or use --method imatrix", q->row->name);
	for (size_t i = 0; i < q->plan->count && q->row->needs_moments; i++) {
		const struct plan_item *item = &q->plan->items[i];
		if (quantizer_takes(item) && !stats_has_moment(q->stats, item->role, item->layer))
			return err_set(e, ERR_INPUT, "method %s needs second moments, and the statistics hold none for %s; gather them with "
				       "quire calibrate --collect full, or use --method imatrix", q->row->name, item->out.name);
	}
	return ERR_OK;
}

/*
 * How many passes of training method best makes. What the model itself stands in the way of is said to all; that the text is
 * too short or a codec has nothing to train, to those who asked.
 */
static void choose_passes(struct quantizer *q, int passes)
{
	uint64_t windows = q->ctx ? q->tokens / q->ctx : 0;
	struct err why = { 0 }, shape = { 0 };
	int refused = !q->row->needs_tokens ? err_set(&why, ERR_UNSUPPORTED, "the method runs no model")
					    : distill_check(q->config, q->plan, windows, &why);
	q->passes = refused ? 0 : passes < 0 ? distill_passes(q->config, q->plan, q->tokens) : (unsigned)passes;
	if (refused && (passes > 0 || (passes < 0 && q->row->needs_tokens && tape_check(q->config, &shape))))
		notes_add(&q->notes, "the codes are not trained: %s", why.message);
}

int quantizer_new(const struct quantizer_row *row, const struct quant_job *job, struct stats *stats, const struct quantizer_options *o,
		  struct quantizer **out, struct err *e)
{
	struct plan *plan = job->plan;
	struct quantizer *q = calloc(1, sizeof *q);
	if (!q)
		return err_nomem(e);
	*q = (struct quantizer){ .row = row, .config = job->config, .source = job->source, .plan = plan, .stats = stats,
				 .keep_channels = o->keep_channels, .more = o->more };
	q->tokens = (uint64_t)stats_info(stats)->windows * stats_info(stats)->ctx;
	q->ctx = stats_info(stats)->ctx;
	q->provider = (struct plan_stats){ .importance = importance, .arg = q };
	int rc = check_needs(q, e);
	if (rc) {
		quantizer_free(q);
		return rc;
	}
	choose_damping(q);
	note_missing(q);
	note_few(q);
	choose_passes(q, o->passes);
	if (row->needs_moments) {
		q->provider.quantize = feed_back;
		for (size_t i = 0; i < plan->count; i++)
			if (quantizer_takes(&plan->items[i]))
				plan->items[i].method = method_find("gptq");
	}
	*out = q;
	return q->notes.failed ? err_nomem(e) : ERR_OK;
}

uint64_t quantizer_memory(const struct quantizer *q)
{
	return LIBRARIES + q->plan->scratch + (q->row->memory ? q->row->memory(q) : 0);
}

uint64_t quantizer_estimate(const struct quantizer_row *row, const struct quant_job *job, uint64_t tokens, uint64_t ctx,
			    const struct quantizer_options *o)
{
	struct quantizer q = { .row = row, .config = job->config, .source = job->source, .plan = job->plan, .tokens = tokens, .ctx = ctx,
			       .keep_channels = o->keep_channels, .more = o->more };
	choose_passes(&q, o->passes);
	notes_release(&q.notes);
	return quantizer_memory(&q);
}

const struct notes *quantizer_notes(const struct quantizer *q)
{
	return &q->notes;
}

int quantizer_prepare(struct quantizer *q, const struct progress *progress, struct err *e)
{
	int rc = q->row->prepare ? q->row->prepare(q, progress, e) : ERR_OK;
	skips_tell(&q->skips, &q->notes);
	return !rc && q->notes.failed ? err_nomem(e) : rc;
}

struct tensor_source *quantizer_source(struct quantizer *q)
{
	if (q->awq)
		return awq_source(q->awq);
	return q->overlay ? overlay_source(q->overlay) : q->source;
}

struct tensor_source *quantizer_reference(struct quantizer *q)
{
	return q->arrangement ? arrangement_source(q->arrangement) : q->equal ? overlay_source(q->equal) : q->source;
}

const struct plan_stats *quantizer_stats(struct quantizer *q)
{
	return &q->provider;
}

const struct sequential_report *quantizer_measured(const struct quantizer *q, size_t item)
{
	return q->report && q->report[item].choice ? &q->report[item] : NULL;
}

const struct expert_report *quantizer_experts(const struct quantizer *q)
{
	return &q->experts;
}

const struct distill_report *quantizer_trained(const struct quantizer *q)
{
	return q->passes ? &q->distilled : NULL;
}

void quantizer_undo(const struct quantizer *q, const struct plan_item *item, float *x, size_t rows, size_t cols)
{
	const float *c = q->awq ? awq_columns(q->awq, item->role, item->layer) : NULL;
	const float *r = q->awq ? awq_rows(q->awq, item->role, item->layer) : NULL;
	for (size_t i = 0; i < rows && (c || r); i++)
		for (size_t k = 0; k < cols; k++)
			x[i * cols + k] *= (r ? r[i] : 1) / (c ? c[k] : 1);
}

void quantizer_free(struct quantizer *q)
{
	if (!q)
		return;
	overlay_free(q->overlay);
	arrangement_free(q->arrangement);
	overlay_free(q->equal);
	awq_free(q->awq);
	curvature_free(q->curvature);
	notes_release(&q->notes);
	skips_release(&q->skips);
	free(q->scaled);
	free(q->report);
	free(q);
}
