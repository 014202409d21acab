/* quire fold: a smaller KV cache, after training. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "calib/fold/fold_layers.h"
#include "calib/fold/refit_down.h"
#include "calib/run/attention_weights.h"
#include "calib/judge/change_cost.h"
#include "calib/run/loaded.h"
#include "calib/run/skips.h"
#include "calib/run/text.h"
#include "cmd/calibration.h"
#include "cmd/fold_budget.h"
#include "cmd/fold_for.h"
#include "cmd/fold_heads.h"
#include "cmd/fold_share.h"
#include "cmd/fold_window.h"
#include "cmd/produce.h"

struct fold_command_options {
	struct common common;
	struct output_choice out;
	struct text_choice text;
	const char *kv_heads, *layers, *method, *group, *share_layers, *share_method, *kv_budget, *kv_cache, *stats, *runtime;
	int64_t steps, window, full_every;
	double max_kl;
	bool with_code;
};

/* 64k tokens of windows of 256 and up: what the closed forms need, and several times what a small layer's refit reads. */
enum { FEW = 4, DEFAULT_SAMPLES = 256, DEFAULT_STEPS = 150 };
static const struct fold_command_options defaults = { .method = "refit", .share_method = "joint", .text = TEXT_NOT_GIVEN,
						      .steps = DEFAULT_STEPS, .full_every = -1 };

#define FIELD(name) offsetof(struct fold_command_options, name)
static const struct option_row rows[] = {
	OUTPUT_PATH(FIELD(out)),
	{ "kv-heads", 'k', OPT_STRING, "N|N,N,...", "KV heads to keep, in every layer or one count per layer", FIELD(kv_heads) },
	{ "layers", 0, OPT_STRING, "FROM-TO", "only these layers, counted from 0", FIELD(layers) },
	{ "method", 0, OPT_STRING, "refit|pca|align|medoid|weighted|mean", "how heads are merged (default: refit)", FIELD(method) },
	{ "group", 0, OPT_STRING, "search|neighbour", "which heads are merged (default: search; mean: neighbour)", FIELD(group) },
	{ "share-layers", 0, OPT_STRING, "suffix:N|pairs|auto|auto:N|0,0,2,...", "layers that read an earlier layer's cache", FIELD(share_layers) },
	{ "share-method", 0, OPT_STRING, "joint|refit|match|reuse", "how readers and owners are fitted (default: joint)", FIELD(share_method) },
	{ "max-kl", 0, OPT_DOUBLE, "NATS", "write nothing of more KL; auto: share layers up to it", FIELD(max_kl) },
	{ "kv-budget", 0, OPT_STRING, "BYTES@TOKENS", "plan heads and shared layers for a cache of this size", FIELD(kv_budget) },
	{ "kv-cache", 0, OPT_STRING, "auto|f16|q8_0|q8_0+q4_0", "what the cache may be stored in (default: f16)", FIELD(kv_cache) },
	{ "sliding-window", 0, OPT_INT, "W", "sliding windows of W tokens on all layers but some", FIELD(window) },
	{ "full-every", 0, OPT_INT, "N", "one layer of N keeps full attention (default: 4)", FIELD(full_every) },
	TEXT_OPTIONS(FIELD(text), 'n', "text to calibrate on; may be repeated (all but mean need one)", "the text", "256"),
	{ "stats", 0, OPT_INPUT, "STATS", "statistics of kind kv; without a text, theirs is used", FIELD(stats) },
	{ "steps", 0, OPT_INT, "N", "refit: steps of gradient descent per layer (default: 150)", FIELD(steps) },
	{ "for", 0, OPT_STRING, "PROGRAM", "as llama.cpp, transformers, vllm or quire loads it", FIELD(runtime) },
	{ "with-code", 0, OPT_FLAG, NULL, "transformers: with a modeling file where it has no class", FIELD(with_code) },
	OUTPUT_OPTIONS(FIELD(out), "hf, gguf, quire or safetensors", "print what would be written, and the cache's size; needs no text"),
	/* older spellings, still taken */
	{ "seed", 's', OPT_INT, "N", NULL, FIELD(text.seed) },
	{ "window", 0, OPT_INT, "W", NULL, FIELD(window) },
};

/* A fold of heads by one method. */
struct attempt {
	struct overlay *out;
	struct fold_report *report;
	struct change_cost cost;             /* on held-out windows, of a refit and what it is compared with */
};

/* A fold on its way from options to a written model. */
struct work {
	const struct fold_command_options *o;
	const struct fold_method_row *method;
	struct loaded in;
	struct config to, folded;            /* of the result; of the heads alone, no layers shared */
	bool have_to, changed;               /* changed: heads are merged */
	struct sharing sharing;
	struct windowing windowing;
	struct budgeting budget;
	struct written_for written;
	struct stats *stats;                 /* --stats */
	struct windows text;
	size_t held;
	struct overlay *out;
	struct fold_report *report;
	bool exceeded;                       /* --max-kl */
	bool measured, unfitted;             /* unfitted: the refit was worse than the closed form */
	struct change_cost cost;             /* on the held-out windows */
};

static bool uniform(const struct config *c)
{
	for (uint32_t i = 1; i < c->layers; i++)
		if (c->layer[i].kv_heads != c->layer[0].kv_heads)
			return false;
	return true;
}

/* The configuration of the result. */
static int plan_heads(struct work *w, struct err *e)
{
	const struct config *c = &w->in.config;
	uint32_t *heads = malloc(c->layers * sizeof *heads), most = 0;
	int rc = heads ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; !rc && i < c->layers; i++)
		heads[i] = c->layer[i].kv_heads;
	if (!rc && w->o->kv_heads)
		rc = heads_parse(w->o->kv_heads, c->layers, heads, e);
	if (!rc && w->o->layers)
		rc = heads_keep_others(w->o->layers, c, heads, e);
	if (!rc && w->o->kv_heads)
		rc = fold_check(c, w->in.checkpoint->source, heads, e);
	if (!rc)
		rc = windowing_check(&w->windowing, c, e);
	if (!rc)
		rc = budgeting_check(&w->budget, c, w->windowing.window, e);
	if (!rc)
		rc = checkpoint_config(w->in.checkpoint, &w->to, e);
	if (!rc && (rc = checkpoint_config(w->in.checkpoint, &w->folded, e)))
		config_release(&w->to);
	w->have_to = !rc;
	for (uint32_t i = 0; !rc && i < c->layers; i++) {
		w->to.layer[i].kv_heads = w->folded.layer[i].kv_heads = heads[i];
		w->changed |= heads[i] != c->layer[i].kv_heads;
		most = heads[i] > most ? heads[i] : most;
	}
	if (!rc) {
		w->to.kv_heads = w->folded.kv_heads = most;
		rc = sharing_plan(&w->sharing, &w->to, w->in.checkpoint->source, e);
	}
	free(heads);
	return rc;
}

static bool has_text(const struct fold_command_options *o)
{
	return o->text.data.count || o->stats;
}

static int read_text(struct work *w, struct err *e)
{
	const struct fold_command_options *o = w->o;
	const struct config *c = &w->in.config;
	struct token_ids ids = { 0 };
	char hash[65];
	size_t ctx = calibration_ctx(c, text_ctx(&o->text));
	if (!o->text.data.count && text_ctx(&o->text) && ctx != stats_info(w->stats)->ctx)
		return err_set(e, ERR_USAGE, "--ctx %zu: the windows of %.300s have %zu tokens; give --data for others", ctx, o->stats,
			       stats_info(w->stats)->ctx);
	if (!o->text.data.count)
		return stats_windows(w->stats, &w->text, e);
	if (c->context && ctx > c->context)
		warn("windows of %zu tokens are longer than the context of %u the model was made for", ctx, c->context);
	int rc = texts_tokens(w->in.tokenizer, o->text.data.item, o->text.data.count, &ids, hash, e);
	if (!rc)
		rc = windows_cut(&w->text, ids.id, ids.count,
				 &(struct window_options){ .ctx = ctx, .bos = tokenizer_bos(w->in.tokenizer) }, e);
	token_ids_release(&ids);
	return rc;
}

static int choose_text(struct work *w, struct err *e)
{
	const struct fold_command_options *o = w->o;
	int rc = read_text(w, e);
	if (rc)
		return rc;
	size_t ctx = w->text.ctx;
	struct rng r = { text_seed(&o->text) };
	for (size_t i = w->text.count; i > 1; i--) {
		int32_t *a = w->text.tokens + (i - 1) * ctx, *b = w->text.tokens + (size_t)rng_below(&r, i) * ctx;
		for (size_t k = 0; a != b && k < ctx; k++) {
			int32_t t = a[k];
			a[k] = b[k];
			b[k] = t;
		}
	}
	size_t most = text_windows(&o->text, DEFAULT_SAMPLES);
	if (most && w->text.count > most)
		w->text.count = most;
	/* an eighth; of few windows a quarter, for one or two say little */
	w->held = w->text.count / 8 < FEW ? (w->text.count / 4 < FEW ? w->text.count / 4 : FEW) : w->text.count / 8;
	if (w->text.count < 8)
		return err_set(e, ERR_INPUT, "the text makes %zu windows of %zu tokens; a fold needs at least 8 (some are kept for judging)",
			       w->text.count, ctx);
	return ERR_OK;
}

static struct fold_job fold_job(const struct work *w, struct tensor_source *source, const struct config *to)
{
	return (struct fold_job){ .original = w->in.model, .source = source, .to = to, .text = w->text.count ? &w->text : NULL,
				  .held = w->held, .progress = &terminal };
}

/* On the windows that nothing was fitted to. */
static int cost_of(const struct work *w, const struct change *changed, struct change_cost *out, struct err *e)
{
	struct windows judges = windows_part(&w->text, w->text.count - w->held, w->text.count);
	return change_cost_measure(w->in.model, changed, &judges, out, e);
}

static int fold_by(struct work *w, enum fold_method method, const struct refit_options *refit, struct attempt *a, struct err *e)
{
	const struct fold_command_options *o = w->o;
	bool search = o->group ? !strcmp(o->group, "search") : w->method->moments;
	/* of a refit nothing is to come from the windows that judge it, unless the text is another one */
	bool stats = w->stats && (o->text.data.count || w->method->method != FOLD_REFIT);
	struct fold_options f = { .method = method, .search = search, .stats = stats ? w->stats : NULL, .refit = *refit, .residual = 1, .ffn = true };
	*a = (struct attempt){ .out = overlay_new(w->in.checkpoint->source, e), .report = calloc(w->to.layers, sizeof *a->report) };
	if (!a->out || !a->report)
		return a->out ? err_nomem(e) : e->code;
	progress_start(&o->common, "fold", "steps", 0);
	struct fold_job job = fold_job(w, w->in.checkpoint->source, &w->folded);
	job.out = a->out;
	int rc = fold_run(&job, &f, a->report, e);
	progress_end();
	if (!rc && w->method->method == FOLD_REFIT)
		rc = cost_of(w, &(struct change){ &w->folded, overlay_source(a->out), NULL }, &a->cost, e);
	return rc;
}

static void attempt_release(struct attempt *a, size_t layers)
{
	overlay_free(a->out);
	if (a->report)
		fold_report_release(a->report, layers);
	*a = (struct attempt){ 0 };
}

/* Layer by layer a refit keeps only what helps on held-out windows; with little text their sum may still not. */
static int fold(struct work *w, const struct refit_options *refit, struct err *e)
{
	struct attempt a = { 0 }, plain = { 0 };
	int rc = fold_by(w, w->method->method, refit, &a, e);
	if (!rc && w->method->method == FOLD_REFIT)
		rc = fold_by(w, FOLD_PCA, refit, &plain, e);
	if (!rc && plain.out && plain.cost.kl < a.cost.kl) {
		struct attempt t = a;
		a = plain;
		plain = t;
		w->unfitted = true;
		warn("refit: KL %.4g on held-out windows, %.4g in closed form, which is kept; use more text", plain.cost.kl, a.cost.kl);
	}
	attempt_release(&plain, w->to.layers);
	w->out = a.out;
	w->report = a.report;
	return rc;
}

/* What the written model is made of. */
static struct tensor_source *result(const struct work *w)
{
	return overlay_source(w->sharing.out ? w->sharing.out : w->out);
}

/* Nats of KL beyond which nobody calls it the same model. */
#define MUCH_KL 0.5

/* Loss of the result over the original's on the windows that nothing was fitted to. */
static int measure(struct work *w, struct err *e)
{
	const struct budget_cache *cache = budgeting_cache(&w->budget);
	int rc = cost_of(w, &(struct change){ routed_config(&w->written, &w->to), routed_source(&w->written, result(w)), cache ? &cache->codecs : NULL }, &w->cost, e);
	w->measured = !rc;
	if (!rc && w->cost.kl > MUCH_KL)
		warn_loud("KL %.2f: what comes out is another model; fold less, or train what is written", w->cost.kl);
	/* auto has heeded it, in closed form, before the fit */
	w->exceeded = !rc && w->o->max_kl > 0 && !w->sharing.automatic && w->cost.kl > w->o->max_kl;
	if (w->exceeded)
		return err_set(e, ERR_GATE, "KL %.4f on %zu held-out windows is more than --max-kl %g; nothing is written", w->cost.kl, w->held,
			       w->o->max_kl);
	return rc;
}

static void heads_text(const struct config *c, struct strbuf *out)
{
	if (uniform(c)) {
		strbuf_printf(out, "%u", c->layer[0].kv_heads);
		return;
	}
	for (uint32_t i = 0; i < c->layers; i++)
		strbuf_printf(out, "%s%u", i ? "," : "", c->layer[i].kv_heads);
}

/* Were closed forms judged on what they were made from? */
static bool in_sample(const struct work *w)
{
	return w->stats && !w->o->text.data.count && w->changed && w->method->method != FOLD_REFIT;
}

static void say_text(const struct work *w, struct strbuf *out)
{
	static const uint64_t length[] = { 1, 4096, 32768 };
	const struct config *from = &w->in.config, *to = &w->to;
	const struct budget_cache *cache = budgeting_cache(&w->budget);
	char a[32], b[32];
	for (uint32_t i = 0; w->report && w->o->common.verbose && i < to->layers; i++) {
		const struct fold_report *r = &w->report[i];
		strbuf_printf(out, "layer %-3u ", i);
		if (!r->order) {
			strbuf_printf(out, "%u KV heads, as it was\n", r->kv_heads);
			continue;
		}
		strbuf_printf(out, "%u -> %u", from->layer[i].kv_heads, r->kv_heads);
		for (uint32_t k = 0, g = from->layer[i].kv_heads / r->kv_heads; k < from->layer[i].kv_heads; k++)
			strbuf_printf(out, "%s%u", k % g ? "+" : " ", r->order[k]);
		if (!isnan(r->attention.start))
			strbuf_printf(out, "  attention error %.3g -> %.3g (W_O) -> %.3g (all)", r->attention.start, r->attention.output,
				      r->attention.joint);
		if (!isnan(r->ffn_before))
			strbuf_printf(out, "  layer %.3g -> %.3g (W_down)", r->ffn_before, r->ffn_after);
		strbuf_putc(out, '\n');
	}
	budgeting_text(&w->budget, w->measured ? &w->cost : NULL, out);
	windowing_text(&w->windowing, to, out);
	sharing_text(&w->sharing, to, w->o->common.verbose, out);
	strbuf_puts(out, "KV heads          ");
	heads_text(from, out);
	strbuf_puts(out, " -> ");
	heads_text(to, out);
	strbuf_putc(out, '\n');
	for (size_t i = 0; i < sizeof length / sizeof *length; i++)
		strbuf_printf(out, "KV cache, %-6s  %s -> %s (%s%s)\n", i == 0 ? "token" : i == 1 ? "4k" : "32k",
			      size_text((uint64_t)config_kv_bytes(from, length[i], 2), a),
			      size_text((uint64_t)config_kv_bytes(to, length[i], cache ? cache->element : 2), b),
			      cache && cache->element != 2 ? "f16 -> " : "", cache ? cache->name : "f16");
	if (w->measured)
		strbuf_printf(out, "excess loss       %.4f +/- %.4f nats a token, KL %.4f (measured on %zu %s windows)\n", w->cost.excess,
			      w->cost.excess_error, w->cost.kl, w->held, in_sample(w) ? "of the statistics'" : "held-out");
	strbuf_printf(out, "loaded by         %s\n", w->written.route.loaded_by);
}

static void say_heads(const struct config *c, const char *key, struct json_writer *j)
{
	jw_array(j, key);
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(j, NULL, c->layer[i].kv_heads);
	jw_end_array(j);
}

static void say(void *arg, struct strbuf *text, struct json_writer *j)
{
	const struct work *w = arg;
	if (text) {
		say_text(w, text);
		return;
	}
	jw_string(j, "method", w->unfitted ? fold_method_rows[FOLD_PCA].name : w->method->name);
	say_heads(&w->in.config, "kv_heads_before", j);
	say_heads(&w->to, "kv_heads", j);
	budgeting_json(&w->budget, j);
	windowing_json(&w->windowing, &w->to, j);
	sharing_json(&w->sharing, &w->to, j);
	jw_uint(j, "kv_bytes_4k_before", (uint64_t)config_kv_bytes(&w->in.config, 4096, 2));
	jw_uint(j, "kv_bytes_4k", (uint64_t)config_kv_bytes(&w->to, 4096, 2));
	jw_uint(j, "kv_bytes_32k_before", (uint64_t)config_kv_bytes(&w->in.config, 32768, 2));
	jw_uint(j, "kv_bytes_32k", (uint64_t)config_kv_bytes(&w->to, 32768, 2));
	if (w->measured) {
		jw_double(j, "excess_loss", w->cost.excess);
		jw_double(j, "excess_loss_error", w->cost.excess_error);
		jw_double(j, "kl", w->cost.kl);
		jw_uint(j, "held_windows", w->held);
		jw_bool(j, "in_sample", in_sample(w));
	}
	jw_bool(j, "uniform", uniform(&w->to));
	jw_string(j, "loaded_by", w->written.route.loaded_by);
	jw_string(j, "architecture", routed_config(&w->written, &w->to)->arch->name);
}

static int check_options(struct work *w, const struct produce *p, struct err *e)
{
	const struct fold_command_options *o = w->o;
	if (!o->kv_heads && !o->share_layers && !o->window && !o->kv_budget && !o->runtime)
		return err_set(e, ERR_USAGE, "say how many KV heads to keep: --kv-heads N, which layers share a cache: "
			       "--share-layers MAP, a sliding window: --sliding-window W, or a size: --kv-budget BYTES@TOKENS; or what it is for: "
			       "--for PROGRAM");
	if (!o->kv_heads && o->layers)
		return err_set(e, ERR_USAGE, "--layers is for --kv-heads");
	if (text_check(&o->text, e))
		return e->code;
	if (o->steps < 0 || o->steps > 1000000)
		return err_set(e, ERR_USAGE, "--steps takes 0 to 1000000");
	if (o->group && strcmp(o->group, "search") && strcmp(o->group, "neighbour"))
		return err_set(e, ERR_USAGE, "unknown grouping '%.40s'; use search or neighbour", o->group);
	int rc = fold_method_find(o->method, &w->method, e);
	if (!rc)
		rc = sharing_options(&w->sharing, &(struct sharing_options){ o->share_layers, o->share_method, o->max_kl, has_text(o), o->out.dry_run,
									     &o->common }, e);
	if (!rc)
		rc = windowing_options(&w->windowing, o->window, o->full_every, has_text(o) || o->out.dry_run, e);
	if (!rc)
		rc = budgeting_options(&w->budget, &(struct budgeting_options){ o->kv_budget, o->kv_cache, has_text(o),
										!o->kv_heads && !o->share_layers,
										w->sharing.automatic }, e);
	if (!rc && w->budget.shares) {
		w->sharing.goal.bytes = w->budget.bytes;
		w->sharing.goal.tokens = w->budget.tokens;
	}
	const struct format *format = NULL;
	if (!rc && !(rc = produce_format(p->out.path, p->out.to, &format, e)))
		rc = written_options(&w->written, o->runtime, o->with_code, format, e);
	return rc ? rc : produce_check(p, e);
}

static int choose_windows(struct work *w, struct err *e)
{
	struct windows fit = w->text;
	fit.count -= w->held;
	int rc = windowing_choose(&w->windowing, w->in.model, w->text.count ? &fit : NULL, &w->to, e);
	for (uint32_t i = 0; i < w->to.layers && !rc; i++)
		w->folded.layer[i].window = w->to.layer[i].window;
	return rc;
}

static int make(struct work *w, struct err *e)
{
	const struct fold_command_options *o = w->o;
	struct refit_options refit = refit_defaults;
	int rc = ERR_OK;
	refit.steps = (int)o->steps;
	refit.seed = text_seed(&o->text) + 1;
	if (!w->changed || o->out.dry_run)
		rc = attention_weights_shapes(&w->in.config, &w->folded, w->in.checkpoint->source, &w->out, e);
	else if (!has_text(o) && (w->method->moments || (o->group && !strcmp(o->group, "search"))))
		rc = err_set(e, ERR_USAGE, "%s %s needs a text to calibrate on: --data TEXT (or --stats STATS)", w->method->moments ? "method" : "--group",
			     w->method->moments ? w->method->name : "search");
	if (!rc && !w->text.count && has_text(o) && (!o->out.dry_run || w->sharing.automatic) && (w->changed || w->sharing.spec || w->windowing.window))
		rc = choose_text(w, e);
	/* a budget is planned for the windows, which are chosen by then */
	if (!rc && w->windowing.window && !w->budget.plan.cache)
		rc = choose_windows(w, e);
	if (!rc && w->changed && !o->out.dry_run)
		rc = fold(w, &refit, e);
	if (!rc && w->sharing.spec) {
		struct fold_job job = fold_job(w, overlay_source(w->out), &w->to);
		rc = sharing_make(&w->sharing, &job, &w->to, &refit, e);
	}
	if (!rc)
		rc = written_apply(&w->written, &w->to, result(w), e);
	if (!rc && w->held && !o->out.dry_run)
		rc = measure(w, e);
	return rc;
}

/* Windows that a plan is measured on: enough for closed forms, and to tell steps apart. */
enum { PLAN_FIT = 32, PLAN_JUDGE = 16 };

/* The head counts and the map that a budget is spent on. */
static int plan_budget(struct work *w, struct err *e)
{
	int rc = choose_text(w, e);
	if (!rc && w->windowing.window)
		rc = choose_windows(w, e);
	if (rc)
		return rc;
	struct windows few = w->text;
	size_t train = w->text.count - w->held, judge = w->held < PLAN_JUDGE ? w->held : PLAN_JUDGE, fit = train < PLAN_FIT ? train : PLAN_FIT;
	few.tokens += (train - fit) * w->text.ctx;
	few.count = fit + judge;
	progress_start(&w->o->common, "plan", "measurements", 0);
	struct budget_request r = { .job = { .original = w->in.model, .source = w->in.checkpoint->source, .text = &few, .held = judge,
					     .progress = &terminal },
				    .stats = w->stats, .cache = w->budget.cache, .caches = w->budget.caches, .bytes = w->budget.bytes,
				    .tokens = w->budget.tokens };
	rc = budget_make(&r, &w->to, &w->budget.plan, e);
	progress_end();
	for (uint32_t i = 0; i < w->to.layers && !rc; i++) {
		w->folded.layer[i].kv_heads = w->to.layer[i].kv_heads;
		w->changed |= w->to.layer[i].kv_heads != w->in.config.layer[i].kv_heads;
	}
	w->folded.kv_heads = w->to.kv_heads;
	return rc ? rc : sharing_given(&w->sharing, &w->to, e);
}

/*
 * What the output, or the program it is for, cannot say is said before the work, in which it is found which layers change: as
 * far as they are not known, some of them. A window that is not heeded is no fold.
 */
static int check_format(struct work *w, const struct produce *p, struct err *e)
{
	struct layer_config *layer = w->to.layer;
	uint32_t last = w->to.layers - 1;
	const struct format *f;
	struct notes before = { 0 }, after = { 0 };
	int rc = produce_format(p->out.path, p->out.to, &f, e);
	if (rc)
		return rc;
	struct layer_config *known = malloc(w->to.layers * sizeof *known);
	if (!known)
		return err_nomem(e);
	memcpy(known, layer, w->to.layers * sizeof *known);
	for (uint32_t i = 0; i <= last && w->windowing.window && !w->budget.plan.cache; i++)
		layer[i].window = (i + 1) % w->windowing.every ? w->windowing.window : 0;
	for (uint32_t i = 0; i <= last; i++)
		layer[i].window = layer[layer[i].kv_source].window;
	if (w->sharing.automatic)
		layer[last].kv_source = 0;
	rc = written_check(&w->written, &w->to, f, &after, e);
	memcpy(layer, known, w->to.layers * sizeof *known);
	free(known);
	bool asked = !rc && w->windowing.window && !w->written.route.as && f && f->describes;
	if (asked && !f->describes(&w->in.config, &before, e) && after.count > before.count)
		rc = err_set(e, ERR_UNSUPPORTED, "%.400s; write a Hugging Face folder or .quire file", after.line[0]);
	notes_release(&before);
	notes_release(&after);
	return rc;
}

static int open_stats(struct work *w, struct err *e)
{
	int rc = stats_open(w->o->stats, &w->stats, e);
	if (!rc && (rc = stats_check_kv(w->stats, &w->in.config, w->in.checkpoint->source, w->in.tokenizer, e)))
		err_prefix(e, "%.600s", w->o->stats);
	return rc;
}

/* What the fits that were asked for left out. */
static void note_left(const struct work *w, struct notes *n)
{
	struct skips s = { 0 };
	for (uint32_t i = 0; w->report && w->method->method == FOLD_REFIT && !w->unfitted && i < w->to.layers; i++)
		if (w->report[i].kv_heads != w->in.config.layer[i].kv_heads)
			skips_see(&s, "refit", "ffn_down", refit_down_obstacle(&w->to, i));
	for (uint32_t i = 0; w->sharing.report && w->sharing.method->method >= SHARE_MATCH && i < w->to.layers; i++)
		if (w->to.layer[i].kv_source != i)
			skips_see(&s, "sharing", "ffn_down of layers that read another one's cache", refit_down_obstacle(&w->to, i));
	skips_tell(&s, n);
	skips_release(&s);
}

static int run(const void *options, const char *const *args, size_t count, struct err *e)
{
	struct notes left = { 0 };
	const struct fold_command_options *o = options;
	struct work w = { .o = o };
	struct produce p = { .common = &o->common, .input = args[0], .out = o->out, .keep = true, .say = say, .say_arg = &w, .proof = true };
	struct timespec t0, t1;
	(void)count;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	int rc = check_options(&w, &p, e);
	if (!rc)
		rc = loaded_open(&w.in, args[0], e);
	if (!rc && o->stats)
		rc = open_stats(&w, e);
	if (!rc && (rc = plan_heads(&w, e)))
		err_prefix(e, "%.600s", args[0]);
	if (!rc && o->kv_budget && !w.budget.shares)
		rc = plan_budget(&w, e);
	if (!rc)
		rc = check_format(&w, &p, e);
	if (!rc && !w.changed && !sharing_any(&w.to) && !w.sharing.automatic && !o->window && !o->runtime)
		note(&o->common, "the model has these KV heads already; it is written as it is");
	if (!rc)
		rc = make(&w, e);
	if (!rc)
		rc = recipe_new(NULL, &p.recipe, e);
	if (!rc) {
		note_left(&w, &left);
		written_notes(&w.written, &left);
		p.notes = &left;
		p.source = routed_source(&w.written, result(&w));
		p.config = routed_config(&w.written, &w.to);
		p.code = w.written.route.code;
		clock_gettime(CLOCK_MONOTONIC, &t1);
		p.seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
		rc = produce(&p, e);
	}
	recipe_free(p.recipe);
	notes_release(&left);
	if (w.report)
		fold_report_release(w.report, w.to.layers);
	if (w.have_to)
		sharing_release(&w.sharing, &w.to);
	written_release(&w.written);
	free(w.windowing.outside);
	budget_plan_release(&w.budget.plan);
	overlay_free(w.out);
	windows_release(&w.text);
	stats_close(w.stats);
	if (w.have_to) {
		config_release(&w.to);
		config_release(&w.folded);
	}
	loaded_close(&w.in);
	/* logits that are no numbers: the model is bad, not the fold */
	return rc == ERR_GATE && !w.exceeded ? (e->code = ERR_INPUT) : rc;
}

const struct command fold_command = {
	.name = "fold",
	.summary = "makes the KV cache smaller: merges KV heads, shares caches between layers",
	.synopsis = "MODEL -o OUT [--kv-heads N] [--share-layers MAP] --data TEXT",
	.description = "Merges the KV heads of each layer into fewer (multi-head to grouped-query to multi-query). Methods from simplest to "
		       "best: mean, weighted, medoid, align, pca (the closed-form optimum), refit (pca, then every layer fitted to what the "
		       "original puts out; an eighth of the text is kept apart, where it must help). --share-layers: later layers read "
		       "earlier ones' keys and values: the last N, every second, N found by measured KL, or a map. --kv-budget measures every "
		       "such step alone and takes those of least KL per byte. Fold before quantizing.",
	.example = "quire fold Llama-2-7b -o llama-gqa8 --kv-heads 8 --data calib.txt\n"
		   "quire fold Llama-3.2-1B -o llama-small --kv-budget 64MiB@8192 --data calib.txt",
	.options = rows,
	.option_count = sizeof rows / sizeof *rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct fold_command_options),
	.defaults = &defaults,
	.judges = true,
	.run = run,
};
