/* quire verify: perplexity of a model, how far it is from another one or a baseline, and gates on both. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/baseline.h"
#include "calib/judge/verify_part.h"
#include "calib/judge/report.h"
#include "calib/run/text.h"
#include "cmd/running.h"

struct verify_options {
	struct common common;
	const char *data, *against, *protocol, *baseline, *save_baseline, *undecided, *junit, *shard, *output, *draft_length;
	const char *attribute;
	struct running running;
	int64_t ctx, chunks;
	double limit[GATE_COUNT]; /* NaN: no gate */
	double confidence, draft_cost;
	bool unchanged, merge, github, noise, by_position, copy_test, check_decode, force;
};

static const struct verify_options defaults = {
	.limit = { (double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN },
	.confidence = 0.95, .draft_cost = (double)NAN, .undecided = "fail",
};

#define UNCHANGED_KL 1e-6
#define AT(f) offsetof(struct verify_options, f)
#define LIMIT(metric) (AT(limit) + (metric) * sizeof(double))
static const struct option_row rows[] = {
	{ "data", 'd', OPT_INPUT, "TEXT", "text to judge on (required)", AT(data) },
	{ "against", 'a', OPT_INPUT, "REF", "reference model: adds KL divergence and agreement", AT(against) },
	{ "baseline", 'b', OPT_INPUT, "FILE", "reference kept by --save-baseline; brings ctx, windows, protocol", AT(baseline) },
	{ "save-baseline", 0, OPT_OUT_BASELINE, "FILE", "keep MODEL's distributions, to compare others with later", AT(save_baseline) },
	{ "ctx", 'c', OPT_INT, "N", "tokens per window (default: 512 or the model's context)", AT(ctx) },
	{ "windows", 'n', OPT_INT, "N", "use the first N windows only (default: all)", AT(chunks) },
	{ "protocol", 0, OPT_STRING, "llama|full", "llama: the second half of a window counts (default); full: all", AT(protocol) },
	RUNNING_OPTIONS(AT(running), "exact", "MODEL's keys and values"),
	{ "max-ppl-ratio", 0, OPT_DOUBLE, "R", "gate: perplexity over the reference's, at most", LIMIT(GATE_PPL_RATIO) },
	{ "max-kl", 0, OPT_DOUBLE, "K", "gate: mean KL in nats, at most", LIMIT(GATE_KL) },
	{ "max-kl-p99", 0, OPT_DOUBLE, "K", "gate: 99th percentile of KL, at most", LIMIT(GATE_KL_P99) },
	{ "min-top1", 0, OPT_DOUBLE, "P", "gate: share of equal top tokens (0 to 1), at least", LIMIT(GATE_TOP1) },
	{ "max-ppl", 0, OPT_DOUBLE, "P", "gate: perplexity, at most", LIMIT(GATE_PPL) },
	{ "unchanged", 0, OPT_FLAG, NULL, "gate: the reference's distributions but for rounding; --max-kl 1e-6", AT(unchanged) },
	{ "confidence", 0, OPT_DOUBLE, "C", "of the bounds that gates decide on (default: 0.95)", AT(confidence) },
	{ "undecided", 0, OPT_STRING, "pass|fail", "what a gate does that the data cannot decide (default: fail)", AT(undecided) },
	{ "noise", 0, OPT_FLAG, NULL, "measure what other kernels and batches alone would change", AT(noise) },
	{ "kl-by-position", 0, OPT_FLAG, NULL, "show KL by position in the window", AT(by_position) },
	{ "attribute", 0, OPT_STRING, "layers|tensors|roles", "measure which weights cause the KL, one group at a time", AT(attribute) },
	{ "copy-test", 0, OPT_FLAG, NULL, "measure the loss on random tokens said a second time", AT(copy_test) },
	{ "check-decode", 0, OPT_FLAG, NULL, "check that prefill and token-by-token decoding agree", AT(check_decode) },
	{ "draft-length", 0, OPT_STRING, "A..B", "MODEL drafts A to B tokens for REF: acceptance and speed-up", AT(draft_length) },
	{ "draft-cost", 0, OPT_DOUBLE, "R", "cost of MODEL's step in REF's steps (default: measured here)", AT(draft_cost) },
	{ "junit", 0, OPT_OUT_JUNIT, "FILE", "write the gates as JUnit XML", AT(junit) },
	{ "github", 0, OPT_FLAG, NULL, "print GitHub annotations; add to its step summary", AT(github) },
	{ "shard", 0, OPT_STRING, "I/N", "do part I of N only, I from 1; merge the parts later", AT(shard) },
	{ "output", 'o', OPT_OUT_PART, "PART", "file that --shard writes", AT(output) },
	{ "merge", 0, OPT_FLAG, NULL, "arguments are parts: report as one run", AT(merge) },
	{ "chunks", 0, OPT_INT, "N", NULL, AT(chunks) }, /* an older spelling */
	{ "force", 'f', OPT_FLAG, NULL, "overwrite files that are something else than earlier outputs", AT(force) },
};

/* What a run holds. */
struct run {
	const struct verify_options *o;
	struct verify_options options;   /* what o points to */
	struct loaded model, reference;
	struct token_ids ids;
	struct windows w;
	struct records baseline;
	struct run_id id;
	size_t from, to, shard, shards;
	struct measurement m;
	unsigned draft_from, draft_to;   /* 0: no drafting */
	struct report report;
	struct draft_summary draft;
	struct copy_figures copy;
	struct decode_figures decode;
	struct noise_figures noise;
	enum attribute_by by;            /* with --attribute */
	struct attribution attribution;
};

static int protocol_find(const char *name, enum protocol *out, struct err *e)
{
	for (unsigned i = 0; i < protocol_row_count; i++)
		if (!strcmp(name, protocol_rows[i].name)) {
			*out = protocol_rows[i].protocol;
			return ERR_OK;
		}
	return err_set(e, ERR_USAGE, "unknown protocol '%.40s'; use llama or full", name);
}

static int parse_shard(struct run *r, struct err *e)
{
	unsigned i = 1, n = 1;
	char end;
	const char *text = r->o->shard;
	if (text && (sscanf(text, "%9u/%9u%c", &i, &n, &end) != 2 || !i || i > n))
		return err_set(e, ERR_USAGE, "--shard '%.40s': write I/N with I from 1 to N, for example 2/4", text);
	r->shard = i - 1;
	r->shards = n;
	return ERR_OK;
}

static int parse_draft(struct run *r, struct err *e)
{
	unsigned a, b;
	char end;
	const char *text = r->o->draft_length;
	if (!text)
		return ERR_OK;
	int n = sscanf(text, "%3u..%3u%c", &a, &b, &end);
	if (n == 1 && sscanf(text, "%3u%c", &b, &end) != 1)
		n = 0;
	if ((n != 1 && n != 2) || !a || b < a || b > REPORT_DRAFTS)
		return err_set(e, ERR_USAGE, "--draft-length '%.40s': write N or A..B with 1 <= A <= B <= %d", text, REPORT_DRAFTS);
	r->draft_from = a;
	r->draft_to = b;
	return ERR_OK;
}

static int check_gates(const struct verify_options *o, bool has_reference, struct err *e)
{
	for (int i = 0; i < GATE_COUNT; i++) {
		if (isnan(o->limit[i]))
			continue;
		if (gate_rows[i].reference && !has_reference)
			return err_set(e, ERR_USAGE, "--%s needs a reference; add --against REF or --baseline FILE", gate_rows[i].option);
		if (o->shard)
			return err_set(e, ERR_USAGE, "--%s judges a whole run; give it to verify --merge, not to a part", gate_rows[i].option);
		if (o->limit[i] < 0 || (gate_rows[i].minimum && o->limit[i] > 1))
			return err_set(e, ERR_USAGE, "--%s %g: give %s", gate_rows[i].option, o->limit[i],
				       gate_rows[i].minimum ? "a share from 0 to 1" : "a limit that is not negative");
	}
	if (!(o->confidence >= 0.5 && o->confidence < 1))
		return err_set(e, ERR_USAGE, "--confidence must be at least 0.5 and below 1");
	if (strcmp(o->undecided, "pass") && strcmp(o->undecided, "fail"))
		return err_set(e, ERR_USAGE, "--undecided '%.40s': use pass or fail", o->undecided);
	return ERR_OK;
}

static int check_options(const struct verify_options *o, size_t args, struct err *e)
{
	bool whole = o->noise || o->copy_test || o->check_decode || o->save_baseline || o->attribute;
	enum attribute_by by;
	if (o->merge) {
		if (o->data || o->against || o->baseline || o->shard || o->ctx || o->chunks || o->protocol || whole)
			return err_set(e, ERR_USAGE, "--merge reads parts; text, reference, windows and probes were chosen when they were made");
		return ERR_OK;
	}
	if (args != 1)
		return err_set(e, ERR_USAGE, "verify takes one model; reference models go to --against, parts to --merge");
	if (!o->data)
		return err_set(e, ERR_USAGE, "verify needs a text: --data FILE");
	if (o->ctx < 0 || o->chunks < 0 || o->ctx > 1 << 24)
		return err_set(e, ERR_USAGE, "--ctx and --windows must not be negative (nor --ctx above %d)", 1 << 24);
	if (o->against && o->baseline)
		return err_set(e, ERR_USAGE, "--against and --baseline are both references; give one");
	if (!o->shard != !o->output)
		return err_set(e, ERR_USAGE, o->shard ? "--shard needs a file for the part: -o PART" : "-o goes with --shard");
	if (o->shard && (whole || o->junit || o->github || o->by_position))
		return err_set(e, ERR_USAGE, "a part (--shard) keeps figures only; reports go with --merge, probes and baselines with a whole run");
	if (o->draft_length && !o->against)
		return err_set(e, ERR_USAGE, "--draft-length needs the target model: --against TARGET");
	if (o->attribute && !o->against)
		return err_set(e, ERR_USAGE, "--attribute puts weights of the reference back: --against REF");
	if (o->attribute && attribute_find(o->attribute, &by, e))
		return e->code;
	if (o->by_position && !o->against && !o->baseline)
		return err_set(e, ERR_USAGE, "--kl-by-position needs a reference; add --against REF or --baseline FILE");
	return check_gates(o, o->against || o->baseline, e);
}

/* The default window: llama.cpp's 512, or the whole context of a smaller model. */
static size_t choose_ctx(const struct run *r)
{
	if (r->o->ctx)
		return (size_t)r->o->ctx;
	if (r->o->baseline)
		return r->baseline.id.ctx;
	return r->model.config.context && r->model.config.context < 512 ? r->model.config.context : 512;
}

/* Both tokenizers must cut the text into the same tokens, or a comparison token by token means nothing. */
static int same_tokens(const struct token_ids *a, const struct token_ids *b, const char *path, const char *reference, struct err *e)
{
	size_t n = a->count < b->count ? a->count : b->count, i = 0;
	while (i < n && a->id[i] == b->id[i])
		i++;
	if (i == a->count && i == b->count)
		return ERR_OK;
	return err_set(e, ERR_NOT_COMPARABLE, "%s and %s cut the text into different tokens (first at token %zu); their tokenizers differ",
		       path, reference, i);
}

static bool has_gates(const struct verify_options *o)
{
	for (int i = 0; i < GATE_COUNT; i++)
		if (!isnan(o->limit[i]))
			return true;
	return false;
}

/* The tokens of this text are the same; are the tokenizers? A gate is strict about it. */
static int same_tokenizers(struct run *r, const char *path, struct err *e)
{
	bool same;
	int rc = run_same_tokenizer(r->model.tokenizer, r->reference.tokenizer, &same, e);
	if (rc || same)
		return rc;
	if (has_gates(r->o))
		return err_set(e, ERR_NOT_COMPARABLE, "%s and %s have different tokenizers, though they cut this text into the same tokens",
			       path, r->o->against);
	warn("%s and %s have different tokenizers, though they cut this text into the same tokens", path, r->o->against);
	return ERR_OK;
}

static int load(struct run *r, const char *path, struct err *e)
{
	const struct verify_options *o = r->o;
	struct token_ids other = { 0 };
	int rc = o->baseline ? records_open(&r->baseline, o->baseline, RECORDS_BASELINE, e) : ERR_OK;
	if (!rc)
		rc = loaded_open(&r->model, path, e);
	if (!rc && o->against)
		rc = loaded_open(&r->reference, o->against, e);
	if (!rc)
		warn_notes(&r->model.checkpoint->notes);
	if (!rc && o->against)
		warn_notes(&r->reference.checkpoint->notes);
	if (!rc)
		rc = running_set(&o->running, r->model.model, path, e);
	if (!rc && o->against) /* keys and values are stored otherwise in MODEL alone: they are what is judged */
		rc = running_set(&(struct running){ .as = o->running.as }, r->reference.model, o->against, e);
	if (!rc)
		rc = text_tokens(r->model.tokenizer, o->data, &r->ids, e);
	if (!rc && o->attribute && !(rc = attribute_find(o->attribute, &r->by, e)))
		rc = attribute_check(&r->model, &r->reference, r->by, e);
	if (!rc && o->against) {
		rc = text_tokens(r->reference.tokenizer, o->data, &other, e);
		if (!rc)
			rc = same_tokens(&r->ids, &other, path, o->against, e);
		if (!rc)
			rc = same_tokenizers(r, path, e);
		token_ids_release(&other);
	}
	return rc;
}

static void put_names(struct run *r, const char *path)
{
	const struct verify_options *o = r->o;
	struct run_id *id = &r->id;
	const char *reference = o->against ? o->against : o->baseline ? o->baseline : "";
	snprintf(id->model_name, sizeof id->model_name, "%s", path);
	snprintf(id->data_name, sizeof id->data_name, "%s", o->data);
	snprintf(id->reference_name, sizeof id->reference_name, "%s", reference);
	running_note(&o->running, id);
}

static int match_baseline(struct run *r, struct err *e)
{
	const struct run_id *kept = &r->baseline.id;
	bool older = false;
	int rc = strcmp(kept->tokenizer, r->id.tokenizer) ? run_id_older(kept, r->model.tokenizer, &older, e) : ERR_OK;
	if (rc)
		return rc;
	if (older)
		return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: it is of an older version, which told fewer tokenizers apart; make it again",
			       r->o->baseline);
	return run_id_match(kept, &r->id, r->o->baseline, e);
}

/* Windows, and who is who: hashes only where something is kept or compared. */
static int identify(struct run *r, const char *path, struct err *e)
{
	const struct verify_options *o = r->o;
	enum protocol protocol = o->baseline ? r->baseline.id.protocol : PROTOCOL_LLAMA;
	int rc = o->protocol ? protocol_find(o->protocol, &protocol, e) : ERR_OK;
	if (rc)
		return rc;
	size_t ctx = choose_ctx(r), chunks = o->chunks ? (size_t)o->chunks : o->baseline ? r->baseline.id.windows : 0;
	if (r->model.config.context && ctx > r->model.config.context)
		warn("windows of %zu tokens are longer than the context of %u the model was made for", ctx, r->model.config.context);
	const struct window_options cut = { protocol, ctx, chunks, tokenizer_bos(r->model.tokenizer) };
	rc = windows_cut(&r->w, r->ids.id, r->ids.count, &cut, e);
	if (rc)
		return rc;
	r->id = (struct run_id){ .protocol = protocol, .ctx = ctx, .windows = r->w.count, .scored = windows_scored(&r->w) };
	if (o->baseline || o->save_baseline || o->shard)
		rc = run_id_make(&r->id, &r->model, o->against ? &r->reference : NULL, &r->w, protocol, e);
	put_names(r, path);
	if (!rc && o->baseline) {
		rc = match_baseline(r, e);
		memcpy(r->id.reference, r->baseline.id.model, IDENTITY_SIZE);
	}
	verify_part_range(&r->w, r->shard, r->shards, &r->from, &r->to);
	r->id.from = r->from;
	r->id.to = r->to;
	return rc;
}

struct visitors {
	eval_visit *visit[2];
	void *arg[2];
};

static int visit_all(void *arg, const struct eval_slice *s, struct err *e)
{
	const struct visitors *v = arg;
	int rc = ERR_OK;
	for (int i = 0; i < 2 && v->visit[i] && !rc; i++)
		rc = v->visit[i](v->arg[i], s, e);
	return rc;
}

static int evaluate_run(struct run *r, struct err *e)
{
	const struct verify_options *o = r->o;
	struct model *models[2] = { r->model.model, r->reference.model };
	struct records_writer writer = { 0 };
	struct measure_arg measure = { .m = &r->m, .reference = 1, .first_window = r->from };
	struct baseline_measure compare = { .baseline = &r->baseline, .m = &r->m, .first_window = r->from };
	struct baseline_save save = { .writer = &writer };
	struct visitors v = { { o->baseline ? baseline_measure_visit : measure_visit, o->save_baseline ? baseline_save_visit : NULL },
			      { o->baseline ? (void *)&compare : (void *)&measure, &save } };
	size_t count = o->against ? 2 : 1;
	int rc = measurement_init(&r->m, r->to - r->from, windows_scored(&r->w), o->against || o->baseline, e);
	if (!rc && o->baseline)
		rc = measurement_add(&r->m, MEASURE_VARIANCE, e);
	if (!rc && r->draft_from)
		rc = measurement_add(&r->m, MEASURE_ACCEPT, e);
	if (!rc && o->save_baseline) {
		struct run_id kept = r->id;
		kept.reference[0] = kept.reference_name[0] = '\0';
		rc = records_create(&writer, o->save_baseline, RECORDS_BASELINE, &kept, e);
	}
	progress_start(&o->common, "verify", "tokens", (uint64_t)(r->to - r->from) * r->w.ctx * count);
	if (!rc && r->to > r->from)
		rc = evaluate(&(struct evaluation){ .models = models, .count = count, .windows = &r->w, .from = r->from, .to = r->to,
						    .visit = visit_all, .arg = &v, .progress = &terminal }, e);
	progress_end();
	if (!rc && o->save_baseline)
		rc = records_finish(&writer, e);
	records_abort(&writer);
	return rc;
}

enum { DECODE_TOKENS = 64, NOISE_WINDOWS = 16, COST_TOKENS = 16 };

static int probes(struct run *r, struct err *e)
{
	const struct verify_options *o = r->o;
	struct model *models[2] = { r->model.model, r->reference.model };
	size_t n = r->w.ctx < DECODE_TOKENS ? r->w.ctx : DECODE_TOKENS;
	int rc = ERR_OK;
	if (o->copy_test) {
		rc = copy_test(models, o->against ? 2 : 1, r->model.tokenizer, r->w.ctx, &r->copy, e);
		r->report.copy = &r->copy;
	}
	if (!rc && o->check_decode) {
		rc = decode_check(r->model.model, r->w.tokens, n, &r->decode, e);
		r->report.decode = &r->decode;
	}
	if (!rc && o->noise) {
		rc = noise_measure(r->model.model, &r->w, NOISE_WINDOWS, &r->noise, e);
		r->report.noise = &r->noise;
	}
	if (!rc && o->attribute) {
		progress_start(&o->common, "attribute", "tokens", 0);
		const struct attribute_job job = { &r->model, &r->reference, &r->w, r->by, &terminal };
		rc = attribute(&job, &r->attribution, e);
		progress_end();
		r->report.attribution = &r->attribution;
	}
	return rc;
}

static int draft_cost(struct run *r, double *cost, struct err *e)
{
	double draft = 1, target = 1;
	size_t n = r->w.ctx < COST_TOKENS ? r->w.ctx : COST_TOKENS;
	*cost = r->o->draft_cost;
	if (!isnan(*cost))
		return *cost >= 0 ? ERR_OK : err_set(e, ERR_USAGE, "--draft-cost must not be negative");
	if (!r->model.model)
		return err_set(e, ERR_USAGE, "with --merge no model is there to be timed; give --draft-cost");
	int rc = decode_seconds(r->model.model, r->w.tokens, n, &draft, e);
	if (!rc)
		rc = decode_seconds(r->reference.model, r->w.tokens, n, &target, e);
	*cost = draft / target;
	return rc;
}

/* Everything that follows from the measurement. */
static int judge(struct run *r, struct err *e)
{
	const struct verify_options *o = r->o;
	struct report *p = &r->report;
	int rc = measurement_summary(&r->m, &p->summary, e);
	for (int i = 0; i < GATE_COUNT && !rc; i++) {
		if (gate_rows[i].reference && !r->m.has_reference)
			continue;
		rc = gate_interval(&r->m, (enum gate_metric)i, o->confidence, &p->bound[i], e);
		p->bounded[i] = true;
		if (!rc && !isnan(o->limit[i]))
			rc = gate_decide(&r->m, (enum gate_metric)i, o->limit[i], o->confidence, &p->gate[p->gates++], e);
	}
	if (!rc && o->by_position)
		p->bins = measurement_by_position(&r->m, p->bin, REPORT_BINS);
	if (!rc && r->draft_from) {
		double cost;
		if (!r->m.accept)
			return err_set(e, ERR_USAGE, "the parts hold no acceptances; make them with --draft-length");
		if (r->draft_to > r->m.scored)
			return err_set(e, ERR_USAGE, "--draft-length %u is longer than the %zu scored tokens of a window", r->draft_to, r->m.scored);
		rc = draft_cost(r, &cost, e);
		if (rc)
			return rc;
		p->drafts = r->draft_to - r->draft_from + 1;
		draft_summarise(&r->m, r->draft_from, (unsigned)p->drafts, cost, &r->draft, p->draft_row);
		p->draft = &r->draft;
	}
	return rc;
}

static int step_summary(const struct report *p, const struct verify_options *o, struct err *e)
{
	const char *path = getenv("GITHUB_STEP_SUMMARY");
	struct strbuf text = { 0 };
	if (!path || !*path) {
		note(&o->common, "GITHUB_STEP_SUMMARY is not set: no step summary");
		return ERR_OK;
	}
	report_markdown(p, &text);
	FILE *f = text.failed ? NULL : fopen(path, "a");
	int rc = ERR_OK;
	if (!f || fwrite(text.data, 1, text.len, f) != text.len)
		rc = err_system(e, "cannot write '%.300s'", path);
	if (f && fclose(f) && !rc)
		rc = err_system(e, "cannot write '%.300s'", path);
	strbuf_release(&text);
	return rc;
}

/* Logits that are not finite: a verdict where one was asked for, else a model that cannot be measured. */
static enum err_code failure_code(const struct verify_options *o)
{
	return has_gates(o) || o->github || o->junit ? ERR_GATE : ERR_INPUT;
}

/* Prints and writes the report; then the verdict is the command's own. */
static int publish(struct run *r, struct err *e)
{
	const struct verify_options *o = r->o;
	const struct report *p = &r->report;
	struct strbuf out = { 0 }, notes = { 0 };
	int rc = ERR_OK;
	if ((o->github || o->junit) && !has_gates(o))
		warn("no gate was given: only logits that are not finite can fail");
	else if (o->baseline && !has_gates(o))
		note(&o->common, "no gate was given; with --unchanged or a limit such as --max-kl the exit code says whether it passed");
	bool document = o->common.json || out_is_stdout(o->junit);
	if (o->common.json)
		report_json(p, &out);
	else if (!p->failure && !document)
		report_text(p, &out);
	if (o->github) {
		/* the runner reads both streams; JSON and XML should stay that */
		report_annotations(p, document ? &notes : &out);
		rc = step_summary(p, o, e);
	}
	if (!rc && (out.len || out.failed))
		rc = out_print(&out, e);
	if (!rc && notes.failed)
		rc = err_nomem(e);
	if (!rc && notes.len)
		fputs(notes.data, stderr);
	strbuf_clear(&out);
	if (!rc && o->junit) {
		report_junit(p, &out);
		rc = out_write_text(o->junit, &out, e);
	}
	strbuf_clear(&out);
	if (!rc && !report_passed(p)) {
		report_reason(p, &out);
		rc = err_set(e, p->failure ? failure_code(o) : ERR_GATE, "%s", out.data ? out.data : "failed");
	}
	strbuf_release(&out);
	strbuf_release(&notes);
	return rc;
}

static int run_merge(struct run *r, const char *const *args, size_t count, struct err *e)
{
	int rc = verify_part_merge(args, count, &r->id, &r->m, e);
	if (!rc)
		rc = check_gates(r->o, r->m.has_reference, e);
	if (!rc && r->o->by_position && !r->m.has_reference)
		rc = err_set(e, ERR_USAGE, "--kl-by-position needs parts that were made with a reference");
	r->report.baseline = r->m.kl_variance != NULL;
	return rc ? rc : judge(r, e);
}

static int run_model(struct run *r, const char *path, struct err *e)
{
	int rc = load(r, path, e);
	if (!rc)
		rc = identify(r, path, e);
	r->report.baseline = r->o->baseline != NULL;
	if (!rc)
		rc = evaluate_run(r, e);
	if (!rc && r->o->shard) {
		rc = verify_part_write(r->o->output, &r->id, &r->m, e);
		if (!rc && r->from == r->to)
			note(&r->o->common, "%s: part %s is empty, for the text's %zu windows run in batches of %zu; fewer parts would do", r->o->output,
			     r->o->shard, r->w.count, evaluate_batch(&r->w));
		else if (!rc)
			note(&r->o->common, "windows %zu to %zu of %zu are in %s", r->from + 1, r->to, r->w.count, r->o->output);
		return rc;
	}
	if (!rc)
		rc = judge(r, e);
	return rc ? rc : probes(r, e);
}

static int run(const void *options, const char *const *args, size_t count, struct err *e)
{
	struct run *r = calloc(1, sizeof *r);
	if (!r)
		return err_nomem(e);
	r->options = *(const struct verify_options *)options;
	r->o = &r->options;
	/* a baseline's log-probabilities are rounded to 1/2048 nat, 3e-8 nats of KL at most; other kernels make 1e-12 */
	if (r->o->unchanged && !(r->o->limit[GATE_KL] <= UNCHANGED_KL))
		r->options.limit[GATE_KL] = UNCHANGED_KL;
	r->report.id = &r->id;
	r->report.confidence = r->o->confidence;
	r->report.undecided_passes = !strcmp(r->o->undecided, "pass");
	int rc = check_options(r->o, count, e);
	if (!rc)
		rc = parse_shard(r, e);
	if (!rc)
		rc = parse_draft(r, e);
	if (!rc)
		rc = r->o->merge ? run_merge(r, args, count, e) : run_model(r, args[0], e);
	char failure[sizeof e->message];
	if (rc == ERR_GATE) { /* logits that are not finite: a verdict like any other, so that CI sees it */
		snprintf(failure, sizeof failure, "%s", e->message);
		r->report.failure = failure;
		rc = ERR_OK;
	}
	if (!rc && !r->o->shard)
		rc = publish(r, e);
	else if (!rc && r->report.failure)
		rc = err_set(e, failure_code(r->o), "%s", failure);
	measurement_release(&r->m);
	attribution_release(&r->attribution);
	windows_release(&r->w);
	token_ids_release(&r->ids);
	records_close(&r->baseline);
	loaded_close(&r->reference);
	loaded_close(&r->model);
	free(r);
	return rc;
}

const struct command verify_command = {
	.name = "verify",
	.summary = "measure a model: perplexity, and KL divergence against a reference",
	.synopsis = "MODEL --data TEXT [--against REF | --baseline FILE] | --merge PART...",
	.description = "Runs the model over a text with quire's own f32 forward pass, and a reference over the same tokens. Gates "
		       "(--max-..., --min-top1) decide on confidence bounds: exit 0 when all pass, 1 when one fails or stays undecided, 7 "
		       "when the two cannot be compared.",
	.example = "quire verify demo --data eval.txt --save-baseline demo.base\n"
		   "quire verify demo-q4.quire --data eval.txt --baseline demo.base --max-kl 0.01 --min-top1 0.95",
	.options = rows,
	.option_count = sizeof rows / sizeof *rows,
	.min_args = 1,
	.max_args = SIZE_MAX,
	.options_size = sizeof(struct verify_options),
	.defaults = &defaults,
	.run = run,
	.judges = true,
};
