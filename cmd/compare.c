/* quire compare: variants of one model on the same tokens, in one table and on one page. */
#include "cmd/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "calib/judge/gate.h"
#include "calib/run/text.h"
#include "cmd/calibration.h"
#include "cmd/paths.h"
#include "codec/codec.h"
#include "formats/file.h"

static const struct compare_options defaults = { .protocol = "llama", .to = "quire", .kv_type = "f16", .confidence = 0.95, .distill = -1 };

#define FIELD(name) offsetof(struct compare_options, name)
static const struct option_row rows[] = {
	{ "data", 'd', OPT_INPUT, "TEXT", "text to judge on (required)", FIELD(data) },
	{ "schemes", 's', OPT_STRING, "SCHEME,SCHEME,...", "presets or codecs; NAME/METHOD for a method of its own", FIELD(schemes) },
	{ "plan", 0, OPT_INPUT, "FILE", "variants by line: NAME SCHEME [method=M] [kv-cache=C] ...", FIELD(plan) },
	{ "stats", 0, OPT_INPUT, "STATS", "statistics of calibrate, for methods that use them", FIELD(stats) },
	{ "calib", 0, OPT_INPUTS, "TEXT", "text for fold options, and for statistics of changed models", FIELD(calib) },
	{ "method", 0, OPT_STRING, "NAME", "as quantize --method (default: best with statistics, else search)", FIELD(method) },
	{ "distill", 0, OPT_INT, "N", "as quantize --distill (default: up to 12 passes)", FIELD(distill) },
	{ "work", 0, OPT_OUT_FOLDER, "DIR", "keep variants and figures here (default: quire-compare)", FIELD(work) },
	{ "to", 0, OPT_STRING, "quire|gguf", "format of the variants (default: quire)", FIELD(to) },
	{ "ctx", 'c', OPT_INT, "N", "tokens per window (default: 512 or the model's context)", FIELD(ctx) },
	{ "windows", 'n', OPT_INT, "N", "use the first N windows only (default: all)", FIELD(chunks) },
	{ "protocol", 0, OPT_STRING, "llama|full", "which tokens of a window count (default: llama)", FIELD(protocol) },
	{ "confidence", 0, OPT_DOUBLE, "P", "of intervals and differences (default: 0.95)", FIELD(confidence) },
	{ "kv-type", 0, OPT_STRING, "CODEC", "codec of the KV cache in the size per token (default: f16)", FIELD(kv_type) },
	AS_OPTION(FIELD(as), "exact"),
	{ "budget", 0, OPT_SIZE, "SIZE", "name the scheme to take: at most this file size", FIELD(budget) },
	{ "max-kl", 0, OPT_DOUBLE, "NATS", "name the smallest whose KL is surely below this", FIELD(max_kl) },
	{ "fastest", 0, OPT_FLAG, NULL, "name the fastest within the limits instead", FIELD(fastest) },
	{ "attribute", 0, OPT_STRING, "layers|tensors|roles", "measure which weights cause each variant's KL", FIELD(attribute) },
	{ "csv", 0, OPT_OUT_CSV, "FILE", "write the table as CSV", FIELD(csv) },
	{ "html", 0, OPT_OUT_PAGE, "FILE", "write one page with plots", FIELD(html) },
	{ "chunks", 0, OPT_INT, "N", NULL, FIELD(chunks) }, /* an older spelling */
	{ "force", 'f', OPT_FLAG, NULL, "overwrite files that are something else than earlier outputs", FIELD(force) },
};

static int check_target(const char *path, struct err *e)
{
	if (!path)
		return ERR_OK;
	char *dir = path_dirname(path);
	int rc = !dir ? err_nomem(e) : ERR_OK;
	if (!rc && !file_is_dir(dir))
		rc = err_set(e, ERR_IO, "cannot write '%.600s': there is no folder '%.300s'", path, dir);
	else if (!rc && file_is_dir(path))
		rc = err_set(e, ERR_USAGE, "'%.600s' is a folder; give a file", path);
	free(dir);
	return rc;
}

static int check_options(struct compare *c, struct err *e)
{
	const struct compare_options *o = c->o;
	enum attribute_by by;
	if (!o->data)
		return err_set(e, ERR_USAGE, "compare needs a text: --data FILE");
	if (o->distill < -1 || o->distill > MOST_PASSES)
		return err_set(e, ERR_USAGE, "--distill takes 0 to %d passes", MOST_PASSES);
	if (o->ctx < 0 || o->chunks < 0)
		return err_set(e, ERR_USAGE, "--ctx and --windows must not be negative");
	if (!(o->confidence >= 0.5 && o->confidence < 1))
		return err_set(e, ERR_USAGE, "--confidence needs a number from 0.5 to below 1");
	if (o->max_kl < 0)
		return err_set(e, ERR_USAGE, "--max-kl must not be negative");
	if (strcmp(o->to, "quire") && strcmp(o->to, "gguf"))
		return err_set(e, ERR_USAGE, "--to takes quire or gguf, not '%.40s'", o->to);
	const struct codec *kv = codec_find(o->kv_type);
	if (!kv)
		return err_set(e, ERR_USAGE, "unknown codec '%.40s' for --kv-type", o->kv_type);
	c->kv_element = (double)codec_row_bytes(kv, 1024) / 1024;
	c->asked = o->budget || o->max_kl > 0 || o->fastest;
	if (o->attribute && attribute_find(o->attribute, &by, e))
		return e->code;
	for (unsigned i = 0; i < protocol_row_count; i++)
		if (!strcmp(o->protocol, protocol_rows[i].name)) {
			c->protocol = protocol_rows[i].protocol;
			int rc = check_target(o->csv, e);
			return rc ? rc : check_target(o->html, e);
		}
	return err_set(e, ERR_USAGE, "unknown protocol '%.40s'; use llama or full", o->protocol);
}

static int cut(struct compare *c, struct err *e)
{
	struct token_ids ids = { 0 };
	const struct config *config = &c->reference.config;
	size_t ctx = c->o->ctx ? (size_t)c->o->ctx : config->context && config->context < 512 ? config->context : 512;
	const struct window_options cut = { c->protocol, ctx, (size_t)c->o->chunks, tokenizer_bos(c->reference.tokenizer) };
	int rc = text_tokens(c->reference.tokenizer, c->o->data, &ids, e);
	if (!rc && config->context && ctx > config->context)
		warn("windows of %zu tokens are longer than the context of %u the model was made for", ctx, config->context);
	if (!rc)
		rc = windows_cut(&c->w, ids.id, ids.count, &cut, e);
	token_ids_release(&ids);
	return rc;
}

/* Models that come from elsewhere must have the same tokenizer, or token by token means nothing. */
static int same_tokenizer(const struct compare *c, const struct variant *v, struct err *e)
{
	struct token_ids x = { 0 }, y = { 0 };
	bool same;
	int rc = run_same_tokenizer(c->reference.tokenizer, v->loaded->tokenizer, &same, e);
	if (rc || same)
		return rc;
	/* another file may say the same in other words; the text decides */
	rc = text_tokens(c->reference.tokenizer, c->o->data, &x, e);
	if (!rc)
		rc = text_tokens(v->loaded->tokenizer, c->o->data, &y, e);
	if (!rc && (x.count != y.count || memcmp(x.id, y.id, x.count * sizeof *x.id)))
		rc = err_set(e, ERR_NOT_COMPARABLE, "%.400s and %.400s cut the text into different tokens; their tokenizers differ", v->path,
			     c->model);
	else if (!rc)
		warn("%s and %s have different tokenizers, though they cut this text into the same tokens", v->path, c->model);
	token_ids_release(&x);
	token_ids_release(&y);
	return rc;
}

/* evaluate() runs the models in turn: the time between two steps is the second one's. */
struct timing {
	double last, *seconds;
	size_t count, next;
	struct compare_arg arg;
};

static bool timed_step(void *arg, uint64_t done, uint64_t total)
{
	struct timing *t = arg;
	double at = clock_seconds();
	t->seconds[t->next] += at - t->last;
	t->next = (t->next + 1) % t->count;
	t->last = at;
	return progress_tell(&terminal, done, total);
}

static int timed_visit(void *arg, const struct eval_slice *s, struct err *e)
{
	struct timing *t = arg;
	int rc = compare_visit(&t->arg, s, e);
	t->last = clock_seconds();
	return rc;
}

/* What the error after each layer is measured on: it needs far fewer tokens than KL, and must stay cheap beside it. */
enum { LAYER_TOKENS = 1024, LAYER_SHARE = 32 };

static int layer_errors(struct compare *c, struct variant *v, struct err *e)
{
	const struct config *a = &v->loaded->config, *b = &c->reference.config;
	size_t windows = LAYER_TOKENS / c->w.ctx < c->w.count / LAYER_SHARE ? LAYER_TOKENS / c->w.ctx : c->w.count / LAYER_SHARE;
	if (a->layers != b->layers || a->hidden != b->hidden)
		return ERR_OK;
	v->layer = calloc(b->layers, sizeof *v->layer);
	if (!v->layer)
		return err_nomem(e);
	return compare_layers(v->loaded, &c->reference, &c->w, windows ? windows : 1, v->layer, e);
}

/* All variants that have no figures yet, beside the reference. */
static int measure(struct compare *c, struct err *e)
{
	struct model **models = calloc(c->count + 1, sizeof *models);
	struct measurement **list = calloc(c->count + 1, sizeof *list);
	struct variant **todo = calloc(c->count + 1, sizeof *todo);
	double *seconds = calloc(c->count + 1, sizeof *seconds), start = clock_seconds();
	size_t n = 0;
	int rc = models && list && todo && seconds ? ERR_OK : err_nomem(e);
	for (size_t i = 0; i < c->count && !rc; i++) {
		struct variant *v = &c->variants[i];
		bool is_kept = false;
		rc = v->file ? same_tokenizer(c, v, e) : ERR_OK;
		if (!rc)
			rc = compare_kept(c, v, &is_kept, e);
		if (!rc && is_kept)
			compare_goes_on(c);
		if (rc || is_kept)
			continue;
		rc = measurement_init(&v->m, c->w.count, windows_scored(&c->w), true, e);
		todo[n] = v;
		list[n] = &v->m;
		models[++n] = v->loaded->model;
	}
	if (!rc && n) {
		struct timing t = { .seconds = seconds, .count = n + 1, .arg = { list, n, 0 } };
		models[0] = c->reference.model;
		progress_start(&c->o->common, "compare", "tokens", (uint64_t)c->w.count * c->w.ctx * (n + 1));
		t.last = clock_seconds();
		rc = evaluate(&(struct evaluation){ .models = models, .count = n + 1, .windows = &c->w, .to = c->w.count, .visit = timed_visit,
						    .arg = &t, .progress = &(struct progress){ timed_step, &t } }, e);
		progress_end();
	}
	for (size_t i = 0; i < n && !rc; i++) {
		todo[i]->run_seconds = seconds[i + 1];
		todo[i]->measured = true;
		rc = layer_errors(c, todo[i], e);
		if (!rc)
			rc = compare_keep(c, todo[i], e);
		if (!rc)
			compare_goes_on(c);
	}
	c->seconds = clock_seconds() - start;
	free(models);
	free(list);
	free(todo);
	free(seconds);
	return rc;
}

static int attribute_one(struct compare *c, struct variant *v, enum attribute_by by, struct err *e)
{
	progress_start(&c->o->common, "attribute", "tokens", 0);
	const struct attribute_job job = { v->loaded, &c->reference, &c->w, by, &terminal };
	int rc = attribute(&job, &v->attribution, e);
	progress_end();
	if (rc == ERR_NOT_COMPARABLE) { /* a folded model, say: the others are attributed all the same */
		warn("variant '%.80s' is not attributed: %s", v->name, e->message);
		return ERR_OK;
	}
	return rc ? rc : compare_keep_attribution(v, e);
}

static int attribute_all(struct compare *c, struct err *e)
{
	enum attribute_by by;
	int rc = c->o->attribute ? attribute_find(c->o->attribute, &by, e) : ERR_OK;
	for (size_t i = 0; i < c->count && !rc && c->o->attribute; i++) {
		struct variant *v = &c->variants[i];
		if (compare_kept_attribution(c, v, by))
			continue;
		note(&c->o->common, "attributing %s (%zu of %zu)", v->name, i + 1, c->count);
		rc = attribute_one(c, v, by, e);
		if (rc)
			err_prefix(e, "variant '%.80s'", v->name);
	}
	return rc;
}

static int by_size(const void *a, const void *b)
{
	const struct variant *x = a, *y = b;
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Bytes per element of the cache, keys and values together. */
static double kv_element(const struct compare *c, const struct variant *v)
{
	struct kv_codecs kv = model_kv(v->loaded->model);
	size_t dim = v->loaded->config.head_dim;
	const struct kv_choice chosen = variant_kv(v);
	if (!kv_chosen(&chosen))
		return c->kv_element;
	return (double)(kv_codec_bytes(&kv.k, dim) + kv_codec_bytes(&kv.v, dim)) / (2 * (double)dim);
}

/* Of a cache that is full: windows keep less than every token. */
static double kv_per_token(const struct config *c, double element)
{
	uint64_t context = c->context ? c->context : 1;
	return config_kv_bytes(c, context, element) / (double)context;
}

static int figures(struct compare *c, struct variant *v, struct err *e)
{
	double one_sided = 1 - (1 - c->o->confidence) / 2;
	v->kv_bytes = kv_per_token(&v->loaded->config, kv_element(c, v));
	compare_size(v->loaded, v->path, &v->bytes, &v->bits);
	int rc = measurement_summary(&v->m, &v->s, e);
	if (!rc)
		rc = gate_interval(&v->m, GATE_KL, one_sided, &v->kl, e);
	if (!rc)
		rc = gate_interval(&v->m, GATE_PPL_RATIO, one_sided, &v->ratio, e);
	if (!rc)
		rc = gate_interval(&v->m, GATE_TOP1, one_sided, &v->top1, e);
	if (!rc && v->kl.lower < 0)
		v->kl.lower = 0; /* a divergence is never below, a share never above; the interval of a mean does not know that */
	if (!rc && v->top1.upper > 1)
		v->top1.upper = 1;
	return rc;
}

static int judge(struct compare *c, struct err *e)
{
	struct candidate *k = calloc(c->count, sizeof *k);
	const struct measurement **m = calloc(c->count, sizeof *m);
	bool *front = calloc(c->count, sizeof *front);
	int rc = k && m && front ? ERR_OK : err_nomem(e);
	for (size_t i = 0; i < c->count && !rc; i++)
		rc = figures(c, &c->variants[i], e);
	if (!rc)
		qsort(c->variants, c->count, sizeof *c->variants, by_size);
	for (size_t i = 0; i < c->count && !rc; i++) {
		const struct variant *v = &c->variants[i];
		struct interval bound;
		rc = gate_interval(&v->m, GATE_KL, c->o->confidence, &bound, e);
		k[i] = (struct candidate){ (double)v->bytes, v->s.kl_mean, bound.upper, v->run_seconds };
		m[i] = &v->m;
	}
	if (!rc)
		rc = compare_pairs(m, c->count, 1 - c->o->confidence, &c->pairs, &c->pair_count, e);
	if (!rc) {
		pareto_front(k, c->count, front);
		for (size_t i = 0; i < c->count; i++)
			c->variants[i].front = front[i];
		c->choice = choose(k, c->count, &(struct choice_limits){ (double)c->o->budget, c->o->max_kl, c->o->fastest });
	}
	free(k);
	free(m);
	free(front);
	return rc;
}

static int write_text(const char *path, void (*print)(const struct compare *, struct strbuf *), const struct compare *c, struct err *e)
{
	if (!path)
		return ERR_OK;
	struct strbuf out = { 0 };
	print(c, &out);
	int rc = out_write_text(path, &out, e);
	strbuf_release(&out);
	return rc;
}

static int report(struct compare *c, struct err *e)
{
	struct strbuf out = { 0 }, verdict = { 0 };
	int rc = write_text(c->o->csv, compare_csv, c, e);
	if (!rc)
		rc = write_text(c->o->html, compare_html, c, e);
	compare_verdict(c, &verdict);
	if (c->o->common.json)
		compare_json(c, &out);
	else if (!out_is_stdout(c->o->csv) && !out_is_stdout(c->o->html))
		compare_table(c, &out);
	if (!rc)
		rc = verdict.failed ? err_nomem(e) : out_print(&out, e);
	if (!rc && c->asked && c->choice.index < 0)
		rc = err_set(e, ERR_GATE, "%.900s", verdict.data);
	strbuf_release(&out);
	strbuf_release(&verdict);
	return rc;
}

/* Beside the page or table; else here. */
static char *work_folder(const struct compare_options *o)
{
	const char *output = o->html ? o->html : o->csv;
	if (o->work || !output) {
		return strdup(o->work ? o->work : "quire-compare");
	}
	char *dir = path_dirname(output), *work = dir ? path_join(dir, "quire-compare") : NULL;
	free(dir);
	return work;
}

static int make_work_folder(const char *path, struct err *e)
{
	if (file_is_dir(path) || !mkdir(path, 0777))
		return ERR_OK;
	return err_system(e, "cannot make the work folder '%.600s'", path);
}

/* What the plan names is read as what the command line names. */
static int check_inputs(const struct compare_options *o, const struct variant *v, struct err *e)
{
	int rc = paths_input(&compare_command, o, v->file, e);
	if (!rc)
		rc = paths_input(&compare_command, o, v->from, e);
	return rc ? rc : paths_input(&compare_command, o, v->recipe, e);
}

static int run(const void *options, const char *const *args, size_t count, struct err *e)
{
	struct compare c = { .o = options, .model = args[0] };
	char *work = NULL;
	int rc = check_options(&c, e);
	if (!rc)
		rc = loaded_open(&c.reference, args[0], e);
	if (!rc)
		rc = running_set(&(struct running){ .as = c.o->as }, c.reference.model, args[0], e);
	if (!rc)
		warn_notes(&c.reference.checkpoint->notes);
	if (!rc)
		rc = compare_stats(&c, e);
	if (!rc)
		rc = compare_variants(&c, args + 1, count - 1, e);
	for (size_t i = 0; i < c.count && !rc; i++)
		rc = check_inputs(c.o, &c.variants[i], e);
	if (!rc)
		rc = identity_model(&c.reference.config, c.reference.checkpoint->source, c.identity, e);
	if (!rc)
		rc = cut(&c, e);
	if (!rc && !(c.work = work = work_folder(c.o)))
		rc = err_nomem(e);
	if (!rc)
		rc = compare_keys(&c, e);
	if (!rc)
		rc = make_work_folder(work, e);
	if (!rc)
		rc = compare_make(&c, e);
	if (!rc)
		rc = measure(&c, e);
	if (!rc)
		rc = attribute_all(&c, e);
	if (!rc) {
		compare_size(&c.reference, c.model, &c.bytes, &c.bits);
		c.kv_bytes = kv_per_token(&c.reference.config, c.kv_element);
		rc = judge(&c, e);
	}
	/* what is not finite fails a limit; where none was asked for, it is a model that cannot be measured */
	if (rc == ERR_GATE && !c.asked)
		rc = e->code = ERR_INPUT;
	if (!rc)
		rc = report(&c, e);
	for (size_t i = 0; i < c.count; i++)
		variant_release(&c.variants[i]);
	free(c.variants);
	free(c.pairs);
	windows_release(&c.w);
	loaded_close(&c.reference);
	progress_keeps(NULL, NULL);
	free(work);
	return rc;
}

const struct command compare_command = {
	.name = "compare",
	.summary = "makes variants of a model and compares them on one page",
	.synopsis = "MODEL --data TEXT --schemes A,B,C [--html FILE] [--budget SIZE] [--max-kl NATS]",
	.description = "Quantizes a model by several schemes, runs all of them and the original over the same tokens, and prints one table: "
		       "size, perplexity ratio and KL with confidence intervals, and which differences are more than chance. Further "
		       "models on the command line are compared as they are. Variants and figures stay in the work folder and are not "
		       "made again. With a limit it names the variant to take, and exits 1 when there is none.",
	.example = "quire compare Llama-3.2-1B -d eval.txt -s Q8_0,Q6_K,Q4_K_M --html page.html --max-kl 0.02",
	.options = rows,
	.option_count = sizeof rows / sizeof *rows,
	.min_args = 1,
	.max_args = SIZE_MAX,
	.options_size = sizeof(struct compare_options),
	.defaults = &defaults,
	.run = run,
	.judges = true,
};
