#include "cmd/calibration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/quant/more_text.h"
#include "calib/stats/collect.h"
#include "calib/run/text.h"
#include "formats/file.h"

enum { DEFAULT_CTX = 512 };

size_t calibration_ctx(const struct config *c, size_t asked)
{
	return asked ? asked : c->context && c->context < DEFAULT_CTX ? c->context : DEFAULT_CTX;
}

int method_unknown(const char *name, struct err *e)
{
	struct strbuf known = { 0 };
	for (unsigned i = 0; i < method_row_count; i++)
		if (!method_rows[i].needs_importance)
			strbuf_printf(&known, "%s, ", method_rows[i].name);
	for (unsigned i = 0; i < quantizer_row_count; i++)
		strbuf_printf(&known, "%s%s", i ? ", " : "", quantizer_rows[i].name);
	err_set(e, ERR_USAGE, "unknown method '%.40s'; --method takes one of: %s", name, known.data ? known.data : "");
	strbuf_release(&known);
	return ERR_USAGE;
}

static int gather(struct calibrated *c, const struct produce *p, const struct collect_options *o, const struct loaded *l,
		  const struct collect_plan *plan, struct err *e)
{
	struct out_scratch *file;
	int rc = out_scratch(p->out.path, &file, e);
	if (rc)
		return rc;
	progress_start(p->common, "calibrate", "tokens", (uint64_t)plan->text.count * plan->text.ctx * l->config.layers);
	rc = collect_run(plan, l, o, out_scratch_path(file), &terminal, e);
	progress_end();
	if (!rc)
		rc = stats_open(out_scratch_path(file), &c->stats, e);
	/* the map keeps it alive for as long as it is needed */
	out_scratch_end(file);
	return rc;
}

/* The same collection as `calibrate`, into a file beside the output that is gone at once. */
static int from_texts(struct calibrated *c, const struct produce *p, struct err *e)
{
	const struct calibration *k = p->calibration;
	struct loaded l = { 0 };
	struct token_ids ids = { 0 };
	struct collect_plan plan = { 0 };
	char hash[IDENTITY_SIZE];
	int rc = loaded_open(&l, p->input, e);
	struct collect_options o = { .samples = k->samples, .seed = k->seed, .shards = 1, .passing = true, .tool = "quire " QUIRE_VERSION };
	o.collect = c->row->needs_moments || c->row->likes_moments || p->report ? COLLECT_FULL : COLLECT_IMATRIX;
	if (!rc)
		o.ctx = calibration_ctx(&l.config, k->ctx);
	if (!rc)
		rc = texts_tokens(l.tokenizer, k->texts, k->text_count, &ids, hash, e);
	if (!rc && !ids.count)
		rc = err_set(e, ERR_INPUT, "%s: the text is empty", k->texts[0]);
	if (!rc && (rc = collect_plan_make(&plan, &l, &ids, hash, &o, e)) == ERR_INPUT)
		err_prefix(e, "%s", k->text_count == 1 ? k->texts[0] : p->input);
	token_ids_release(&ids);
	if (!rc) {
		c->tokens = (uint64_t)plan.text.count * plan.text.ctx;
		c->ctx = plan.text.ctx;
		c->gathering = plan.memory;
		note(p->common, "calibrates on %llu tokens: %zu windows of %zu", (unsigned long long)c->tokens, plan.text.count, plan.text.ctx);
		if (!p->out.dry_run)
			rc = gather(c, p, &o, &l, &plan, e);
	}
	collect_plan_release(&plan);
	loaded_close(&l);
	return rc;
}

/* In windows like the statistics', without what is in those: some of them judge the training. */
static int cut_more(struct calibrated *c, const struct calibration *k, const struct tokenizer *t, struct err *e)
{
	struct token_ids ids = { 0 };
	struct windows text = { 0 };
	char hash[IDENTITY_SIZE];
	const struct window_options cut = { .ctx = c->stats ? stats_info(c->stats)->ctx : c->ctx, .bos = tokenizer_bos(t) };
	int rc = texts_tokens(t, k->more, k->more_count, &ids, hash, e);
	if (!rc && (rc = windows_cut(&c->more, ids.id, ids.count, &cut, e)))
		err_prefix(e, "%.400s", k->more[0]);
	if (!rc && c->stats)
		rc = stats_windows(c->stats, &text, e);
	if (!rc && c->stats)
		rc = more_text_keep(&text, SIZE_MAX, &c->more, e);
	if (!rc && !c->more.count)
		rc = err_set(e, ERR_INPUT, "%.400s: the statistics have all of it already; give --train-text other text", k->more[0]);
	windows_release(&text);
	token_ids_release(&ids);
	return rc;
}

static int open_more(struct calibrated *c, const struct produce *p, struct checkpoint *in, struct err *e)
{
	struct tokenizer *t = NULL;
	if (!p->calibration->more_count)
		return ERR_OK;
	int rc = checkpoint_tokenizer(in, &t, e);
	if (rc)
		return err_prefix(e, "--train-text");
	rc = cut_more(c, p->calibration, t, e);
	tokenizer_close(t);
	if (!rc)
		note(p->common, "trains on %zu windows of %zu tokens besides", c->more.count, c->more.ctx);
	return rc;
}

int calibrated_open(struct calibrated *c, const struct produce *p, const struct config *config, struct checkpoint *in, struct err *e)
{
	const struct calibration *k = p->calibration;
	struct tokenizer *t = NULL;
	struct err ignored;
	if (!config)
		return err_set(e, ERR_UNSUPPORTED, "%.600s: statistics can only be used with an architecture that quire knows", p->input);
	c->row = k->row ? k->row : quantizer_find("best");
	int rc = k->stats ? stats_open(k->stats, &c->stats, e) : from_texts(c, p, e);
	if (rc || !c->stats)
		return rc ? rc : open_more(c, p, in, e);
	/* weights without a tokenizer are compared all the same */
	if (checkpoint_tokenizer(in, &t, &ignored)) {
		if (ignored.code == ERR_NOMEM)
			return err_nomem(e);
		t = NULL;
	}
	rc = stats_check(c->stats, config, in->source, t, e);
	tokenizer_close(t);
	if (rc)
		return err_prefix(e, "%.400s", k->stats ? k->stats : k->texts[0]);
	if (!k->row)
		c->row = quantizer_default(c->stats);
	return open_more(c, p, in, e);
}

int calibrated_plan(struct calibrated *c, const struct produce *p, const struct config *config, struct checkpoint *in,
		    struct plan *plan, struct err *e)
{
	const struct quant_job job = { .config = config, .source = in->source, .plan = plan };
	struct quantizer_options options = p->calibration->options;
	options.more = c->more.count ? &c->more : NULL;
	if (!c->stats) {
		c->memory = quantizer_estimate(c->row, &job, c->tokens, c->ctx, &options);
		c->memory = c->gathering > c->memory ? c->gathering : c->memory;
		return ERR_OK;
	}
	int rc = quantizer_new(c->row, &job, c->stats, &options, &c->q, e);
	if (rc)
		return p->calibration->stats ? err_prefix(e, "%.400s", p->calibration->stats) : rc;
	c->memory = quantizer_memory(c->q);
	c->memory = c->gathering > c->memory ? c->gathering : c->memory;
	return ERR_OK;
}

int calibrated_prepare(struct calibrated *c, const struct produce *p, struct err *e)
{
	progress_start(p->common, c->row->name, "steps", 0);
	int rc = quantizer_prepare(c->q, &terminal, e);
	progress_end();
	return rc ? err_prefix(e, "%.400s", p->input) : ERR_OK;
}

void calibrated_close(struct calibrated *c)
{
	quantizer_free(c->q);
	windows_release(&c->more);
	stats_close(c->stats);
	*c = (struct calibrated){ 0 };
}
