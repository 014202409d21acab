/* quire verify: perplexity of a model, and how far it is from another one, on a text. */
#include <math.h>
#include <string.h>

#include "calib/loaded.h"
#include "calib/measure.h"
#include "calib/text.h"
#include "cmd/command.h"

struct verify_options {
	struct common common;
	const char *data, *against, *protocol, *kv_cache, *kv_cache_v;
	int64_t ctx, chunks;
	bool kv_rotate;
};

static const struct verify_options defaults = { .protocol = "llama" };

static const struct option_row rows[] = {
	{ "data", 'd', OPT_STRING, "TEXT", "text to judge on (required)", offsetof(struct verify_options, data) },
	{ "against", 'a', OPT_STRING, "REF", "reference model: adds KL divergence and agreement", offsetof(struct verify_options, against) },
	{ "ctx", 'c', OPT_INT, "N", "tokens per window (default: 512 or the model's context)", offsetof(struct verify_options, ctx) },
	{ "chunks", 0, OPT_INT, "N", "use the first N windows only (default: all)", offsetof(struct verify_options, chunks) },
	{ "protocol", 0, OPT_STRING, "NAME", "llama (second half of a window counts) or full", offsetof(struct verify_options, protocol) },
	{ "kv-cache", 0, OPT_STRING, "f16|q8_0|q4_0|int8|int4", "codec that MODEL's keys and values are stored in (default: f32)", offsetof(struct verify_options, kv_cache) },
	{ "kv-cache-v", 0, OPT_STRING, "CODEC", "codec of the values, when it differs from the keys'", offsetof(struct verify_options, kv_cache_v) },
	{ "kv-rotate", 0, OPT_FLAG, NULL, "rotate keys and values by a Hadamard matrix per head before coding", offsetof(struct verify_options, kv_rotate) },
};

static int protocol_find(const char *name, enum protocol *out, struct err *e)
{
	for (unsigned i = 0; i < protocol_row_count; i++)
		if (!strcmp(name, protocol_rows[i].name)) {
			*out = protocol_rows[i].protocol;
			return ERR_OK;
		}
	return err_set(e, ERR_USAGE, "unknown protocol '%s'; use llama or full", name);
}

/* The default window: llama.cpp's 512, or the whole context of a smaller model. */
static size_t choose_ctx(const struct verify_options *o, const struct config *c)
{
	if (o->ctx)
		return (size_t)o->ctx;
	return c->context && c->context < 512 ? c->context : 512;
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

static void print_json(const struct verify_options *o, const struct summary *s, const char *path, size_t ctx, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_object(&w, NULL);
	jw_string(&w, "model", path);
	jw_string(&w, "data", o->data);
	jw_string(&w, "protocol", o->protocol);
	jw_uint(&w, "ctx", ctx);
	if (o->kv_cache || o->kv_cache_v) {
		jw_string(&w, "kv_cache", o->kv_cache ? o->kv_cache : "f32");
		jw_string(&w, "kv_cache_v", o->kv_cache_v ? o->kv_cache_v : o->kv_cache);
		jw_bool(&w, "kv_rotate", o->kv_rotate);
	}
	jw_uint(&w, "chunks", s->windows);
	jw_uint(&w, "tokens", s->tokens);
	jw_double(&w, "perplexity", s->perplexity);
	jw_double(&w, "perplexity_error", s->perplexity_error);
	if (o->against) {
		jw_string(&w, "against", o->against);
		jw_double(&w, "reference_perplexity", s->reference_perplexity);
		jw_double(&w, "perplexity_ratio", s->perplexity_ratio);
		jw_double(&w, "perplexity_ratio_error", s->perplexity_ratio_error);
		jw_double(&w, "kl_mean", s->kl_mean);
		jw_double(&w, "kl_mean_error", s->kl_mean_error);
		jw_double(&w, "kl_median", s->kl_median);
		jw_double(&w, "kl_p99", s->kl_p99);
		jw_double(&w, "kl_max", s->kl_max);
		jw_double(&w, "top1", s->top1);
		jw_double(&w, "top1_error", s->top1_error);
	}
	jw_end_object(&w);
	strbuf_putc(out, '\n');
}

static void print_text(const struct verify_options *o, const struct summary *s, size_t ctx, struct strbuf *out)
{
	strbuf_printf(out, "perplexity        %.4f +/- %.4f   (%zu tokens, %zu windows of %zu, protocol %s)\n", s->perplexity,
		      s->perplexity_error, s->tokens, s->windows, ctx, o->protocol);
	if (!o->against)
		return;
	strbuf_printf(out, "reference         %.4f\n", s->reference_perplexity);
	strbuf_printf(out, "perplexity ratio  %.5f +/- %.5f\n", s->perplexity_ratio, s->perplexity_ratio_error);
	strbuf_printf(out, "KL mean           %.6f +/- %.6f nats\n", s->kl_mean, s->kl_mean_error);
	strbuf_printf(out, "KL median         %.6f\n", s->kl_median);
	strbuf_printf(out, "KL 99th pct       %.6f\n", s->kl_p99);
	strbuf_printf(out, "KL max            %.6f\n", s->kl_max);
	strbuf_printf(out, "same top token    %.2f %% +/- %.2f %%\n", 100 * s->top1, 100 * s->top1_error);
}

static int judge(const struct verify_options *o, const char *path, struct loaded *model, struct loaded *reference,
		 const struct windows *w, struct err *e)
{
	struct measurement m;
	int rc = measurement_init(&m, w->count, windows_scored(w), reference != NULL, e);
	if (rc)
		return rc;
	struct model *models[2] = { model->model, reference ? reference->model : NULL };
	struct measure_arg arg = { .m = &m, .model = 0, .reference = 1 };
	size_t count = reference ? 2 : 1;
	progress_start(&o->common, "verify", "tokens", (uint64_t)w->count * w->ctx * count);
	rc = evaluate(models, count, w, 0, w->count, measure_visit, &arg, progress_step, NULL, e);
	progress_end();
	struct summary s;
	struct strbuf out = { 0 };
	if (!rc)
		rc = measurement_summary(&m, &s, e);
	if (!rc) {
		if (o->common.json)
			print_json(o, &s, path, w->ctx, &out);
		else
			print_text(o, &s, w->ctx, &out);
		rc = out_print(&out, e);
	}
	strbuf_release(&out);
	measurement_release(&m);
	return rc;
}

static int run(const void *options, const char *const *args, size_t count, struct err *e)
{
	(void)count;
	const struct verify_options *o = options;
	enum protocol protocol = PROTOCOL_LLAMA;
	if (!o->data)
		return err_set(e, ERR_USAGE, "verify needs a text: --data FILE");
	if (o->ctx < 0 || o->chunks < 0)
		return err_set(e, ERR_USAGE, "--ctx and --chunks must not be negative");
	int rc = protocol_find(o->protocol, &protocol, e);
	struct loaded model = { 0 }, reference = { 0 };
	struct token_ids ids = { 0 }, reference_ids = { 0 };
	struct windows w = { 0 };
	if (!rc)
		rc = loaded_open(&model, args[0], e);
	if (!rc && o->against)
		rc = loaded_open(&reference, o->against, e);
	struct kv_codecs kv = { 0 };
	if (!rc && !(rc = kv_codecs_find(o->kv_cache, o->kv_cache_v, o->kv_rotate, model.config.head_dim, &kv, e)))
		model_set_kv(model.model, kv);
	if (!rc)
		rc = text_tokens(model.tokenizer, o->data, &ids, e);
	if (!rc && o->against) {
		rc = text_tokens(reference.tokenizer, o->data, &reference_ids, e);
		if (!rc)
			rc = same_tokens(&ids, &reference_ids, args[0], o->against, e);
	}
	if (!rc) {
		size_t ctx = choose_ctx(o, &model.config);
		if (model.config.context && ctx > model.config.context)
			warn("windows of %zu tokens are longer than the context of %u the model was made for", ctx, model.config.context);
		rc = windows_cut(&w, ids.id, ids.count, protocol, ctx, (size_t)o->chunks, tokenizer_bos(model.tokenizer), e);
	}
	if (!rc)
		rc = judge(o, args[0], &model, o->against ? &reference : NULL, &w, e);
	windows_release(&w);
	token_ids_release(&ids);
	token_ids_release(&reference_ids);
	loaded_close(&reference);
	loaded_close(&model);
	return rc;
}

const struct command verify_command = {
	.name = "verify",
	.summary = "measure a model: perplexity, and KL divergence against a reference",
	.synopsis = "MODEL --data TEXT [--against REF]",
	.description = "Runs the model over a text with quire's own f32 forward pass. With --against, runs the reference over the same "
		       "tokens and reports how far the model is from it.",
	.example = "quire verify demo-q4.quire --against demo --data eval.txt",
	.options = rows,
	.option_count = sizeof rows / sizeof *rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct verify_options),
	.defaults = &defaults,
	.run = run,
};
