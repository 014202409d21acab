/* quire convert: any reader to any writer. */
#include <string.h>

#include "cmd/consumer.h"
#include "cmd/produce.h"
#include "codec/codec.h"

struct convert_options {
	struct common common;
	struct output_choice out;
	const char *who, *dtype;
};

#define FIELD(name) offsetof(struct convert_options, name)
static const struct option_row convert_rows[] = {
	OUTPUT_PATH(FIELD(out)),
	{ "for", 0, OPT_STRING, "PROGRAM", CONSUMER_WORDS ": the format that it loads", FIELD(who) },
	{ "dtype", 0, OPT_STRING, "keep|f32|f16|bf16", "store weights in this type (default: keep)", FIELD(dtype) },
	OUTPUT_OPTIONS(FIELD(out), "gguf, quire, safetensors, gptq, awq, mlx or hf", "print what would be written, and its size"),
	{ "dry-run", 'n', OPT_FLAG, NULL, NULL, FIELD(out.dry_run) }, /* an older spelling */
};

static int convert_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct convert_options *o = options;
	const char *dtype = o->dtype && strcmp(o->dtype, "keep") ? o->dtype : NULL;
	const struct codec *c = dtype ? codec_find(dtype) : NULL;
	(void)count;
	if (dtype && (!c || c->kind != CODEC_FLOAT))
		return err_set(e, ERR_USAGE, "--dtype takes keep, f32, f16 or bf16, not '%.40s'%s", dtype,
			       c ? "; to quantize use 'quire quantize'" : "");
	struct output_choice out = o->out;
	if (consumer_choose(o->who, out.path, &out.to, NULL, e))
		return e->code;
	struct produce p = { .common = &o->common, .input = args[0], .out = out, .keep = !dtype, .cannot_hold = "--dtype bf16 (or f16, f32) decodes it", .proof = true };
	int rc = recipe_new(dtype, &p.recipe, e);
	if (rc)
		return rc;
	recipe_vectors(p.recipe, c);
	rc = produce(&p, e);
	recipe_free(p.recipe);
	return rc;
}

const struct command convert_command = {
	.name = "convert",
	.summary = "turns a checkpoint into another format",
	.synopsis = "MODEL -o OUT [--to FORMAT] [--dtype TYPE] [--compress] [--dry-run]",
	.description = "Reads a checkpoint of any known format and writes it in another one: a path that ends in .gguf, .quire or "
		       ".safetensors is one file, any other path a Hugging Face folder. Tensors keep their type unless --dtype says "
		       "otherwise, and are copied byte for byte where they do; vectors become f32 in GGUF. Quantized tensors stay as they are "
		       "where the target can hold them. What was written is read back and checked before it gets its name.",
	.example = "quire convert Llama-3.2-1B -o llama.quire --compress",
	.options = convert_rows,
	.option_count = sizeof convert_rows / sizeof *convert_rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct convert_options),
	.run = convert_run,
};
