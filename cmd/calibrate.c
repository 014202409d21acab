/* quire calibrate: runs a model over text and keeps what quantization methods want to know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/stats/collect.h"
#include "calib/run/text.h"
#include "calib/stats/resume_file.h"
#include "cmd/calibration.h"
#include "cmd/groups.h"
#include "formats/file.h"

struct calibrate_options {
	struct common common;
	struct text_choice text;
	const char *output, *collect, *shard, *to, *from;
	int64_t tokens;
	bool merge, resume, dry_run, force;
};

static const struct calibrate_options defaults = { .text = TEXT_NOT_GIVEN, .tokens = OPT_NOT_GIVEN };

#define AT(f) offsetof(struct calibrate_options, f)
static const struct option_row rows[] = {
	{ "output", 'o', OPT_OUT_STATS, "STATS", "file to write (required)", AT(output) },
	{ "collect", 0, OPT_STRING, "imatrix|full|kv", "full adds second moments; kv: of keys and values, for fold (default: imatrix)", AT(collect) },
	TEXT_OPTIONS(AT(text), 'n', "text, JSON lines (*.jsonl), or either gzip'ed; may be repeated", "the text", "128"),
	{ "tokens", 0, OPT_INT, "N", "as many windows as have so many tokens", AT(tokens) },
	{ "shard", 0, OPT_STRING, "I/N", "do part I of N only, I from 1; merge the parts later", AT(shard) },
	{ "merge", 0, OPT_FLAG, NULL, "arguments are statistics or importance matrices: add them up", AT(merge) },
	{ "resume", 0, OPT_FLAG, NULL, "go on where an interrupted run with this output stopped", AT(resume) },
	{ "from", 0, OPT_INPUT, "STATS", "run nothing: write the importance matrix of these statistics", AT(from) },
	{ "to", 0, OPT_STRING, "quire|imatrix", "imatrix: llama.cpp's form (default: by suffix .gguf or .dat)", AT(to) },
	{ "force", 'f', OPT_FLAG, NULL, "overwrite what is no statistics; forget an interrupted run", AT(force) },
	{ "dry-run", 0, OPT_FLAG, NULL, "say what it would take: tokens, memory, disk", AT(dry_run) },
	{ "seed", 's', OPT_INT, "N", NULL, AT(text.seed) }, /* an older spelling, still taken */
};

/* Does the command line choose what to run, and where from? */
static bool has_choices(const struct calibrate_options *o)
{
	return o->collect || o->shard || o->resume || o->dry_run || o->tokens != OPT_NOT_GIVEN || text_chosen(&o->text);
}

static int parse_shard(const char *text, struct collect_options *c, struct err *e)
{
	unsigned i, n;
	char end;
	c->shards = 1;
	if (!text)
		return ERR_OK;
	if (sscanf(text, "%9u/%9u%c", &i, &n, &end) != 2 || !i || i > n)
		return err_set(e, ERR_USAGE, "--shard '%.40s': write I/N with I from 1 to N, for example 2/4", text);
	c->shard = i - 1;
	c->shards = n;
	return ERR_OK;
}

static bool has_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), k = strlen(suffix);
	return n > k && !strcmp(path + n - k, suffix);
}

/* Does the output take llama.cpp's form? */
static int choose_form(const struct calibrate_options *o, bool *foreign, struct err *e)
{
	*foreign = has_suffix(o->output, ".gguf") || has_suffix(o->output, ".dat") || (o->from && !o->to);
	if (!o->to)
		return ERR_OK;
	if (strcmp(o->to, "imatrix") && strcmp(o->to, "quire"))
		return err_set(e, ERR_USAGE, "unknown form '%.40s'; use quire or imatrix", o->to);
	*foreign = !strcmp(o->to, "imatrix");
	return ERR_OK;
}

static int choose(const struct calibrate_options *o, const struct config *config, struct collect_options *c, struct err *e)
{
	int rc = parse_shard(o->shard, c, e);
	const char *kind = o->collect ? o->collect : "imatrix";
	unsigned k = 0;
	while (k < collect_row_count && strcmp(collect_rows[k].name, kind))
		k++;
	if (!rc && k == collect_row_count)
		rc = err_set(e, ERR_USAGE, "unknown kind '%.40s'; use imatrix, full or kv", kind);
	if (!rc)
		rc = text_check(&o->text, e);
	if (!rc && o->tokens < 0 && o->tokens != OPT_NOT_GIVEN)
		rc = err_set(e, ERR_USAGE, "--tokens must not be negative");
	if (!rc && o->tokens >= 0 && o->text.windows >= 0)
		rc = err_set(e, ERR_USAGE, "give --windows or --tokens, not both");
	if (rc)
		return rc;
	c->collect = collect_rows[k].collect;
	c->seed = text_seed(&o->text);
	c->resume = o->resume;
	c->work = o->output;
	c->tool = "quire " QUIRE_VERSION;
	c->ctx = calibration_ctx(config, text_ctx(&o->text));
	c->samples = text_windows(&o->text, CALIBRATION_SAMPLES);
	if (o->tokens > 0)
		c->samples = (size_t)o->tokens / c->ctx ? (size_t)o->tokens / c->ctx : 1;
	if (config->context && c->ctx > config->context)
		warn("windows of %zu tokens are longer than the context of %u the model was made for", c->ctx, config->context);
	return ERR_OK;
}

static int report(const struct calibrate_options *o, const struct collect_plan *p, struct err *e)
{
	struct strbuf out = { 0 };
	char memory[32], file[32], work[32];
	size_t tokens = p->text.count * p->text.ctx;
	if (o->common.json) {
		struct json_writer w = { .out = &out, .indent = 2 };
		jw_document(&w, "quire-calibrate/1");
		jw_string(&w, "output", o->output);
		jw_string(&w, "collect", collect_rows[p->head.collect].name);
		jw_uint(&w, "tokens", tokens);
		jw_uint(&w, "windows", p->text.count);
		jw_uint(&w, "windows_total", p->source.total);
		jw_uint(&w, "ctx", p->text.ctx);
		jw_uint(&w, "text_tokens", p->text_tokens);
		jw_string(&w, "model", p->head.model);
		jw_string(&w, "tokenizer", p->head.tokenizer);
		jw_string(&w, "data", p->source.data);
		jw_uint(&w, "peak_memory", p->memory);
		jw_uint(&w, "file_bytes", p->file_bytes);
		jw_uint(&w, "work_bytes", p->work_bytes);
		jw_bool(&w, "dry_run", o->dry_run);
		jw_end_object(&w);
		strbuf_putc(&out, '\n');
	} else if (o->dry_run) {
		strbuf_printf(&out, "tokens        %zu (%zu windows of %zu; the text has %zu tokens)\n", tokens, p->text.count, p->text.ctx,
			      p->text_tokens);
		strbuf_printf(&out, "peak memory   %s\nstatistics    %s\nworking file  %s\n", size_text(p->memory, memory),
			      size_text(p->file_bytes, file), size_text(p->work_bytes, work));
	} else {
		strbuf_printf(&out, "%s: %s over %zu tokens (%zu windows of %zu", o->output, collect_rows[p->head.collect].name, tokens,
			      p->text.count, p->text.ctx);
		if (p->source.total > p->text.count)
			strbuf_printf(&out, ", a part of %u windows", p->source.total);
		strbuf_printf(&out, "; the text has %zu tokens)\n", p->text_tokens);
	}
	int rc = out_print(&out, e);
	strbuf_release(&out);
	return rc;
}

/* A matrix of second moments cannot have a higher rank than it saw tokens. */
static void warn_rank(const struct collect_plan *p)
{
	size_t tokens = (size_t)p->source.total * p->text.ctx;
	if (p->head.collect != COLLECT_IMATRIX && tokens < p->widest)
		warn("%zu tokens cannot fill the second moments of %zu channels; use more text", tokens, p->widest);
}

/* By way of our own form, so that both come from the same sums. */
static int write_imatrix(const struct loaded *l, const char *stats_path, const char *out, const char *const *texts, size_t count,
			 struct err *e)
{
	struct stats *s;
	int rc = stats_open(stats_path, &s, e);
	if (rc)
		return rc;
	rc = stats_check(s, &l->config, l->checkpoint->source, l->tokenizer, e);
	if (rc)
		err_prefix(e, "%s", stats_path);
	else
		rc = stats_write_imatrix(s, out, texts, count, e);
	stats_close(s);
	return rc;
}

/* What an interrupted run left is hours of work: it is gone on with, or thrown away on purpose. */
static int check_left(const struct calibrate_options *o, struct err *e)
{
	char *left = resume_path(o->output);
	int rc = left ? ERR_OK : err_nomem(e);
	if (!rc && !o->resume && !o->force && resume_left(left))
		rc = err_set(e, ERR_USAGE, "an interrupted run left '%.600s': --resume goes on with it, --force starts anew without it", left);
	else if (!rc && o->resume && !resume_left(left))
		note(&o->common, "there is no %s to go on with; starting at the beginning", left);
	free(left);
	return rc;
}

/* A run over a text: what is to be gathered, of which model. */
struct gathering {
	const struct calibrate_options *o;
	struct loaded l;
	struct collect_plan p;
	struct collect_options c;
	bool foreign;             /* into an importance matrix, not a file of our own */
	const char *const *texts;
	size_t count;
};

static int gather(const struct gathering *g, struct err *e)
{
	const struct calibrate_options *o = g->o;
	struct out_scratch *temp = NULL;
	/* what cannot be written should be known before hours of work, not after */
	int rc = out_check(o->output, e);
	if (!rc)
		rc = check_left(o, e);
	if (!rc && g->foreign)
		rc = out_scratch(o->output, &temp, e);
	if (rc)
		return rc;
	char *left = g->foreign ? NULL : resume_path(o->output);
	progress_keeps(left, "the same command with --resume goes on");
	free(left);
	progress_start(&o->common, "calibrate", "tokens", (uint64_t)g->p.text.count * g->p.text.ctx * g->l.config.layers);
	rc = collect_run(&g->p, &g->l, &g->c, g->foreign ? out_scratch_path(temp) : o->output, &terminal, e);
	progress_end();
	progress_keeps(NULL, NULL);
	if (g->foreign && !rc)
		rc = write_imatrix(&g->l, out_scratch_path(temp), o->output, g->texts, g->count, e);
	out_scratch_end(temp);
	return rc;
}

/* An importance matrix from statistics (or from one in the other form). */
static int convert(const struct calibrate_options *o, const char *model, const char *const *texts, size_t count, struct err *e)
{
	struct loaded l;
	bool foreign;
	int rc = choose_form(o, &foreign, e);
	if (!rc && (!foreign || has_choices(o)))
		rc = err_set(e, ERR_USAGE, "--from writes an importance matrix and takes --data (names of texts), --output and --to only");
	if (rc || (rc = loaded_open(&l, model, e)))
		return rc;
	rc = write_imatrix(&l, o->from, o->output, texts, count, e);
	loaded_close(&l);
	return rc;
}

static int calibrate(const struct calibrate_options *o, const char *model, const char *const *texts, size_t count, struct err *e)
{
	struct gathering g = { .o = o, .texts = texts, .count = count };
	struct token_ids ids = { 0 };
	char hash[IDENTITY_SIZE];
	int rc = choose_form(o, &g.foreign, e);
	if (!rc)
		rc = loaded_open(&g.l, model, e);
	if (!rc)
		warn_notes(&g.l.checkpoint->notes);
	if (!rc)
		rc = choose(o, &g.l.config, &g.c, e);
	if (!rc && g.foreign && g.c.collect == COLLECT_KV)
		rc = err_set(e, ERR_USAGE, "an importance matrix has no place for keys and values; --collect imatrix or full");
	if (!rc && g.foreign && g.c.shards > 1)
		rc = err_set(e, ERR_USAGE, "parts of a run must be statistics files; merge them, then use --from");
	if (!rc)
		rc = texts_tokens(g.l.tokenizer, texts, count, &ids, hash, e);
	if (!rc && !ids.count)
		rc = err_set(e, ERR_INPUT, "%s: the text is empty", texts[0]);
	if (!rc && (rc = collect_plan_make(&g.p, &g.l, &ids, hash, &g.c, e)) == ERR_INPUT)
		err_prefix(e, "%s", count == 1 ? texts[0] : model);
	token_ids_release(&ids);
	if (!rc && g.c.samples && g.p.text_windows < g.c.samples && (o->text.windows > 0 || o->tokens > 0))
		note(&o->common, "the text has %zu windows, fewer than the %zu asked for; all are used", g.p.text_windows, g.c.samples);
	if (!rc)
		warn_rank(&g.p);
	if (!rc && !o->dry_run)
		rc = gather(&g, e);
	if (!rc)
		rc = report(o, &g.p, e);
	collect_plan_release(&g.p);
	loaded_close(&g.l);
	return rc;
}

static int merge(const struct calibrate_options *o, const char *const *args, size_t count, struct err *e)
{
	struct stats *s;
	struct strbuf out = { 0 };
	if (o->text.data.count || o->from || o->to || has_choices(o))
		return err_set(e, ERR_USAGE, "--merge takes statistics files and --output only");
	int rc = stats_merge(args, count, o->output, e);
	if (!rc)
		rc = stats_open(o->output, &s, e);
	if (rc)
		return rc;
	const struct stats_info *i = stats_info(s);
	if (o->common.json) {
		struct json_writer w = { .out = &out, .indent = 2 };
		jw_document(&w, "quire-calibrate/1");
		jw_string(&w, "output", o->output);
		jw_string(&w, "collect", collect_rows[i->collect].name);
		jw_uint(&w, "tokens", i->tokens);
		jw_uint(&w, "windows", i->windows);
		jw_uint(&w, "windows_total", i->windows_total);
		jw_uint(&w, "ctx", i->ctx);
		jw_string(&w, "model", i->model);
		jw_string(&w, "tokenizer", i->tokenizer);
		jw_end_object(&w);
		strbuf_putc(&out, '\n');
	} else if (i->foreign) {
		strbuf_printf(&out, "%s: importance matrix of %zu entries over %zu chunks\n", o->output, i->entries, i->windows);
	} else {
		strbuf_printf(&out, "%s: %s over %llu tokens (%zu of %zu windows of %zu)\n", o->output, collect_rows[i->collect].name,
			      (unsigned long long)i->tokens, i->windows, i->windows_total, i->ctx);
	}
	stats_close(s);
	rc = out_print(&out, e);
	strbuf_release(&out);
	return rc;
}

static int run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct calibrate_options *o = options;
	size_t n = 0;
	if (!o->output)
		return err_set(e, ERR_USAGE, "calibrate needs a file to write: -o STATS");
	if (o->merge)
		return merge(o, args, count, e);
	/* texts after the model count as well, so that --data *.txt does what it looks like */
	const char **texts = calloc(o->text.data.count + count, sizeof *texts);
	if (!texts)
		return err_nomem(e);
	for (size_t i = 0; i < o->text.data.count; i++)
		texts[n++] = o->text.data.item[i];
	for (size_t i = 1; i < count; i++)
		texts[n++] = args[i];
	int rc;
	if (o->from)
		rc = convert(o, args[0], texts, n, e);
	else
		rc = n ? calibrate(o, args[0], texts, n, e) : err_set(e, ERR_USAGE, "calibrate needs a text: --data FILE");
	free(texts);
	return rc;
}

const struct command calibrate_command = {
	.name = "calibrate",
	.summary = "gathers the statistics that quantization methods use",
	.synopsis = "MODEL --data TEXT... -o STATS | --merge STATS... -o STATS",
	.description = "Runs MODEL over text, layer by layer, and writes what its linear layers get: mean squares per channel (an "
		       "importance matrix), with --collect full second moments, with --collect kv those of queries, keys and "
		       "values, from which fold takes any grouping of heads. Files name the model they belong to.",
	.example = "quire calibrate examples/demo --data examples/demo.calib.txt --collect full -o demo.stats\n"
		   "quire quantize examples/demo -o demo-q4.gguf --scheme q4_k --stats demo.stats",
	.options = rows,
	.option_count = sizeof rows / sizeof *rows,
	.min_args = 1,
	.max_args = SIZE_MAX,
	.options_size = sizeof(struct calibrate_options),
	.defaults = &defaults,
	.run = run,
};
