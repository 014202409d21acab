/* quire quantize: fewer bits by a recipe. */
#include <string.h>

#include "cmd/calibration.h"
#include "cmd/consumer.h"
#include "cmd/produce.h"
#include "cmd/quantize_report.h"
#include "formats/file.h"

struct quantize_options {
	struct common common;
	struct output_choice out;
	struct text_choice text;
	const char *scheme, *who, *method, *recipe, *stats, *report;
	struct string_list tensor, train_text;
	int64_t distill;
	bool keep_channels, requantize, no_proof;
};
static const struct quantize_options defaults = { .text = TEXT_NOT_GIVEN, .distill = -1 };

#define FIELD(name) offsetof(struct quantize_options, name)
static const struct option_row quantize_rows[] = {
	OUTPUT_PATH(FIELD(out)),
	{ "scheme", 's', OPT_STRING, "SCHEME", "preset (Q4_K_M, ...) or codec (int4-g128, ...): quire help schemes", FIELD(scheme) },
	{ "method", 'm', OPT_STRING, "rtn|search|imatrix|awq|gptq|best", "default: best with statistics, else search",
	  FIELD(method) },
	{ "stats", 0, OPT_INPUT, "STATS", "statistics of calibrate, or an importance matrix of llama.cpp", FIELD(stats) },
	TEXT_OPTIONS(FIELD(text), 0, "calibrate on this text first, instead of --stats; repeatable", "--data", "128"),
	{ "distill", 0, OPT_INT, "N", "best: training passes; 0: none (default: 12, fewer if slow)", FIELD(distill) },
	{ "train-text", 0, OPT_INPUTS, "TEXT", "best: train on this text besides; repeatable", FIELD(train_text) },
	{ "keep-channels", 0, OPT_FLAG, NULL, "best: channels stay in their order and scale (for adapters)", FIELD(keep_channels) },
	{ "recipe", 0, OPT_INPUT, "FILE", "lines PATTERN = CODEC, on top of the scheme", FIELD(recipe) },
	{ "tensor", 't', OPT_LIST, "PATTERN=CODEC", "codec for tensors or roles by name; repeatable, the last wins", FIELD(tensor) },
	{ "report", 0, OPT_OUT_REPORT, "FILE", "write errors per tensor, worst first: .json or .html", FIELD(report) },
	{ "for", 0, OPT_STRING, "PROGRAM", CONSUMER_WORDS ": its format and scheme", FIELD(who) },
	{ "no-proof", 0, OPT_FLAG, NULL, "do not read the result back to compare it", FIELD(no_proof) },
	{ "requantize", 0, OPT_FLAG, NULL, "accept tensors that are quantized already", FIELD(requantize) },
	OUTPUT_OPTIONS(FIELD(out), "gguf, quire, safetensors, gptq, awq, mlx or hf", "print every tensor's codec and size, and write nothing"),
	{ "dry-run", 'n', OPT_FLAG, NULL, NULL, FIELD(out.dry_run) }, /* an older spelling */
};

/* A plain method, or a calibrated one with its statistics. */
static int find_method(const struct quantize_options *o, struct produce *p, struct calibration *c, struct err *e)
{
	bool have = o->stats || o->text.data.count;
	const char *name = o->method ? o->method : have ? NULL : "search";
	const struct quantizer_row *row = name ? quantizer_find(name) : NULL;
	p->method = method_find(row || !name ? "imatrix" : name);
	if (!p->method)
		return method_unknown(name, e);
	if (o->stats && o->text.data.count)
		return err_set(e, ERR_USAGE, "give --stats or --data, not both");
	if (name && !row && have)
		return err_set(e, ERR_USAGE, "method %s uses no statistics; leave --stats and --data out", name);
	if (row && !have)
		return err_set(e, ERR_USAGE, "method %s needs statistics of the model: --stats FILE (see quire calibrate) or --data TEXT", name);
	if (!o->text.data.count && text_chosen(&o->text))
		return err_set(e, ERR_USAGE, "--windows, --ctx and --seed choose from --data, and there is none");
	if (text_check(&o->text, e))
		return e->code;
	if (o->distill < -1 || o->distill > MOST_PASSES)
		return err_set(e, ERR_USAGE, "--distill takes 0 to %d passes", MOST_PASSES);
	const char *only = o->keep_channels ? "--keep-channels" : o->train_text.count ? "--train-text" : o->distill > 0 ? "--distill" : NULL;
	if (only && (!have || (row && !row->needs_tokens)))
		return err_set(e, ERR_USAGE, "%s goes with method best and statistics", only);
	if (o->train_text.count && !o->distill)
		return err_set(e, ERR_USAGE, "--train-text has nothing to do with --distill 0");
	int passes = o->distill < 0 && o->train_text.count ? (int)distill_defaults.passes : (int)o->distill;
	*c = (struct calibration){ .row = row, .stats = o->stats, .texts = o->text.data.item, .text_count = o->text.data.count,
				   .samples = text_windows(&o->text, CALIBRATION_SAMPLES), .ctx = text_ctx(&o->text), .seed = text_seed(&o->text),
				   .more = o->train_text.item, .more_count = o->train_text.count,
				   .options = { .passes = passes, .keep_channels = o->keep_channels } };
	p->calibration = have ? c : NULL;
	return ERR_OK;
}

static int quantize_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct quantize_options *o = options;
	(void)count;
	struct output_choice out = o->out;
	const char *scheme = o->scheme;
	if (consumer_choose(o->who, out.path, &out.to, o->recipe || o->tensor.count ? NULL : &scheme, e))
		return e->code;
	if (!scheme && !o->recipe && !o->tensor.count)
		return err_set(e, ERR_USAGE, "say what to quantize to: --scheme SCHEME, --for PROGRAM, --recipe FILE or --tensor PATTERN=CODEC");
	struct produce p = { .common = &o->common, .input = args[0], .out = out, .recipe_file = o->recipe,
			     .allow_requantize = o->requantize, .proof = !o->no_proof, .report = o->report };
	struct calibration calibration;
	int rc = find_method(o, &p, &calibration, e);
	if (!rc && o->report)
		rc = quantize_report_check(o->report, e);
	if (!rc)
		rc = recipe_new(scheme, &p.recipe, e);
	if (!rc)
		rc = produce_recipe(p.recipe, o->recipe, &o->tensor, e);
	if (!rc)
		rc = produce(&p, e);
	recipe_free(p.recipe);
	return rc;
}

const struct command quantize_command = {
	.name = "quantize",
	.summary = "stores weights in fewer bits",
	.synopsis = "MODEL -o OUT --scheme SCHEME [--stats STATS] [--method NAME] [--dry-run]",
	.description = "Quantizes the matrices of a checkpoint. A scheme is a preset named after llama.cpp's (Q4_K_M, Q6_K, Q8_0 ...), which "
		       "mixes types, or a codec (q4_k, int4-g128 ...) for all linear layers, "
		       "embedding and head in 8 bits. Patterns match tensor names (*.down_proj.weight) or roles (attn_v). With "
		       "statistics, codes are chosen for what the layers put out on real text: imatrix weights channels, awq scales them, "
		       "gptq feeds errors forward, best does so layer after layer.",
	.example = "quire quantize Llama-3.2-1B -o llama.gguf --scheme Q4_K_M --tensor attn_v=q8_0\n"
		   "quire quantize Llama-3.2-1B -o llama.gguf --scheme Q4_K_M --stats llama.stats",
	.options = quantize_rows,
	.option_count = sizeof quantize_rows / sizeof *quantize_rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct quantize_options),
	.defaults = &defaults,
	.run = quantize_run,
};
