/* quire quantize: fewer bits by a recipe. */
#include <string.h>

#include "cmd/produce.h"
#include "formats/file.h"

struct quantize_options {
	struct common common;
	const char *output, *to, *scheme, *method, *recipe;
	struct string_list tensor;
	bool compress, dry_run, force, requantize, no_source_hash;
};

#define FIELD(name) offsetof(struct quantize_options, name)
static const struct option_row quantize_rows[] = {
	{ "output", 'o', OPT_STRING, "PATH", "where to write; the suffix says the format", FIELD(output) },
	{ "scheme", 's', OPT_STRING, "NAME", "preset (Q4_K_M, Q8_0, ...) or codec (q4_k, int4-g128, ...)", FIELD(scheme) },
	{ "method", 0, OPT_STRING, "search|rtn", "how codes are chosen (default: search)", FIELD(method) },
	{ "recipe", 0, OPT_STRING, "FILE", "lines PATTERN = CODEC, on top of the scheme", FIELD(recipe) },
	{ "tensor", 't', OPT_LIST, "PATTERN=CODEC", "codec for tensors or roles by name; repeatable, the last wins", FIELD(tensor) },
	{ "to", 0, OPT_STRING, "gguf|quire|hf|safetensors", "the format, whatever the suffix", FIELD(to) },
	{ "compress", 0, OPT_FLAG, NULL, ".quire: store remaining floats as deflated byte planes", FIELD(compress) },
	{ "dry-run", 'n', OPT_FLAG, NULL, "print every tensor's codec and size, and write nothing", FIELD(dry_run) },
	{ "force", 'f', OPT_FLAG, NULL, "overwrite an existing file", FIELD(force) },
	{ "requantize", 0, OPT_FLAG, NULL, "accept tensors that are quantized already", FIELD(requantize) },
	{ "no-source-hash", 0, OPT_FLAG, NULL, ".quire: leave the sha256 of the source files out", FIELD(no_source_hash) },
};

static int find_method(const char *name, const struct method **out, struct err *e)
{
	*out = method_find(name);
	if (*out)
		return ERR_OK;
	struct strbuf known = { 0 };
	for (unsigned i = 0; i < method_row_count; i++)
		strbuf_printf(&known, "%s%s", i ? ", " : "", method_rows[i].name);
	err_set(e, ERR_USAGE, "unknown method '%.40s'; --method takes one of: %s", name, known.data ? known.data : "");
	strbuf_release(&known);
	return ERR_USAGE;
}

static int read_recipe(struct recipe *r, const struct quantize_options *o, struct err *e)
{
	int rc = ERR_OK;
	if (o->recipe) {
		struct strbuf text = { 0 };
		rc = file_read(o->recipe, &text, 1 << 20, e);
		if (!rc && recipe_read(r, text.data ? text.data : "", text.len, e))
			rc = err_prefix(e, "%.600s", o->recipe);
		strbuf_release(&text);
	}
	for (size_t i = 0; i < o->tensor.count && !rc; i++)
		rc = recipe_override(r, o->tensor.item[i], e);
	return rc;
}

static int quantize_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct quantize_options *o = options;
	(void)count;
	if (!o->scheme && !o->recipe && !o->tensor.count)
		return err_set(e, ERR_USAGE, "say what to quantize to: --scheme NAME, --recipe FILE or --tensor PATTERN=CODEC");
	struct produce p = { .common = &o->common, .input = args[0], .output = o->output, .to = o->to, .allow_requantize = o->requantize,
			     .dry_run = o->dry_run, .compress = o->compress, .force = o->force, .no_source_hash = o->no_source_hash,
			     .cannot_hold = "write a .gguf or .quire file" };
	int rc = find_method(o->method ? o->method : "search", &p.method, e);
	if (!rc && (p.method->needs_importance || p.method->needs_hessian))
		rc = err_set(e, ERR_USAGE, "method %s needs statistics of the model", p.method->name);
	if (!rc)
		rc = recipe_new(o->scheme, &p.recipe, e);
	if (!rc)
		rc = read_recipe(p.recipe, o, e);
	if (!rc)
		rc = produce(&p, e);
	recipe_free(p.recipe);
	return rc;
}

const struct command quantize_command = {
	.name = "quantize",
	.summary = "stores weights in fewer bits",
	.synopsis = "MODEL -o OUT --scheme NAME [--method NAME] [--tensor PATTERN=CODEC]... [--dry-run]",
	.description = "Quantizes the matrices of a checkpoint. A scheme is a preset named after llama.cpp's (Q4_K_M, Q4_K_S, Q5_K_M, Q6_K, "
		       "Q8_0, Q4_0 ...), which mixes types as that program does, or a codec (q4_k, int4-g128, int8-g64 ...; pure-q4_0 where "
		       "the name is also a preset), which all linear layers get while embedding and head get 8 bits. Patterns match tensor "
		       "names (*.down_proj.weight) or roles (attn_v, ffn_down, embed, head). Norms and biases are never quantized. "
		       "Values that are NaN or infinite are refused.",
	.example = "quire quantize Llama-3.2-1B -o llama.gguf --scheme Q4_K_M --tensor attn_v=q8_0",
	.options = quantize_rows,
	.option_count = sizeof quantize_rows / sizeof *quantize_rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct quantize_options),
	.run = quantize_run,
};
