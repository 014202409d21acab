/* quire inspect: what a checkpoint is. */
#include "cmd/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "model/arch.h"

static const struct inspect_options inspect_defaults = { .ctx = 4096, .kv_type = "f16" };

static const struct option_row inspect_rows[] = {
	{ "tensors", 't', OPT_FLAG, NULL, "list every tensor: codec, shape, bytes, bits per weight", offsetof(struct inspect_options, tensors) },
	{ "stats", 0, OPT_FLAG, NULL, "list minimum, maximum, mean, std, zeros, NaN, Inf of every tensor", offsetof(struct inspect_options, stats) },
	{ "check", 0, OPT_FLAG, NULL, "read everything: checksums match, tensors decode, no NaN or Inf", offsetof(struct inspect_options, check) },
	{ "ctx", 'c', OPT_INT, "N", "context to give the size of the KV cache for (default 4096)", offsetof(struct inspect_options, ctx) },
	{ "kv-type", 0, OPT_STRING, "f16|q8_0|q4_0|f32", "codec of the KV cache (default f16)", offsetof(struct inspect_options, kv_type) },
	{ "stats", 's', OPT_FLAG, NULL, NULL, offsetof(struct inspect_options, stats) }, /* an older spelling */
};

static int count_codecs(struct facts *f, struct err *e)
{
	const struct tensor_source *s = f->ckpt->source;
	f->codec = calloc(codec_row_count, sizeof *f->codec);
	if (!f->codec)
		return err_nomem(e);
	for (size_t i = 0; i < s->count; i++) {
		const struct tensor *t = &s->tensors[i];
		size_t k = 0;
		while (k < f->codecs && f->codec[k].codec != t->codec)
			k++;
		if (k == codec_row_count)
			return err_set(e, ERR_BUG, "%s: tensor %s has a codec outside the table", f->ckpt->path, t->name);
		f->codecs += k == f->codecs;
		f->codec[k].codec = t->codec;
		f->codec[k].tensors++;
		f->codec[k].bytes += t->nbytes;
		f->codec[k].elements += tensor_elements(t);
		f->bytes += t->nbytes;
		f->elements += tensor_elements(t);
	}
	return ERR_OK;
}

/* No finding, but a file that is there and cannot be read, or no memory. */
static bool of_the_system(const struct err *found, bool there, struct err *e)
{
	bool is = found->code == ERR_NOMEM || (found->code == ERR_IO && there);
	if (is)
		*e = *found;
	return is;
}

/* A missing or unknown configuration or tokenizer is a finding, not a failure: bare tensor files can be looked at too. */
static int read_sides(struct facts *f, struct err *e)
{
	struct tokenizer *t = NULL;
	f->has_config = !checkpoint_config(f->ckpt, &f->config, &f->config_err);
	if (!f->has_config && of_the_system(&f->config_err, checkpoint_has(f->ckpt, "config.json"), e))
		return e->code;
	f->parameters = f->has_config ? config_parameters(&f->config) : f->elements;
	if (!checkpoint_tokenizer(f->ckpt, &t, &f->tokenizer_err)) {
		f->has_tokenizer = true;
		f->tokenizer_name = tokenizer_kind(t) == TOKENIZER_SPM ? "SentencePiece BPE" : "byte-level BPE";
		f->tokenizer_size = tokenizer_size(t);
		tokenizer_close(t);
	} else if (of_the_system(&f->tokenizer_err, checkpoint_has_tokenizer(f->ckpt), e)) {
		return e->code;
	}
	return ERR_OK;
}

static int read_stats(const struct inspect_options *o, struct facts *f, struct err *e)
{
	struct tensor_source *s = f->ckpt->source;
	uint64_t done = 0;
	f->stats = calloc(s->count ? s->count : 1, sizeof *f->stats);
	if (!f->stats)
		return err_nomem(e);
	progress_start(&o->common, "reading", "bytes", f->bytes);
	int rc = ERR_OK;
	for (size_t i = 0; i < s->count && !rc; i++) {
		if (inspect_scan(s, i, &f->stats[i], e))
			rc = err_prefix(e, "%.600s", f->ckpt->path);
		done += s->tensors[i].nbytes;
		progress_tell(&terminal, done, f->bytes);
	}
	progress_end();
	return rc;
}

static int check(const struct inspect_options *o, struct facts *f, struct err *e)
{
	struct checkpoint *c = f->ckpt;
	if (c->format->check) {
		progress_start(&o->common, "checking", "bytes", f->bytes);
		int rc = c->format->check(c, &terminal, e);
		progress_end();
		if (rc)
			return rc;
	}
	int bad = f->has_config ? checkpoint_check(c, &f->config, c->source, e) : ERR_OK;
	if (bad)
		return bad;
	for (size_t i = 0; i < c->source->count; i++)
		if (f->stats[i].nans || f->stats[i].infs)
			return err_set(e, ERR_INPUT, "%s: tensor %s holds %llu NaN and %llu infinite values", c->path,
				       c->source->tensors[i].name, (unsigned long long)f->stats[i].nans,
				       (unsigned long long)f->stats[i].infs);
	f->check = c->format->check ? "checksums match, every tensor decodes, all values are finite" :
				      "every tensor decodes, all values are finite (this format has no checksums)";
	return ERR_OK;
}

static int report(const struct inspect_options *o, struct facts *f, struct err *e)
{
	struct strbuf out = { 0 };
	int rc = count_codecs(f, e);
	if (!rc && (o->stats || o->check))
		rc = read_stats(o, f, e);
	if (!rc)
		rc = read_sides(f, e);
	if (!rc && o->check)
		rc = check(o, f, e);
	if (!rc) {
		if (o->common.json)
			inspect_json(o, f, &out);
		else
			inspect_text(o, f, &out);
		rc = out_print(&out, e);
	}
	strbuf_release(&out);
	if (f->has_config)
		config_release(&f->config);
	free(f->codec);
	free(f->stats);
	return rc;
}

static int inspect_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct inspect_options *o = options;
	struct facts f = { .context = { (uint64_t)o->ctx, 32768 } };
	(void)count;
	if (o->ctx < 1)
		return err_set(e, ERR_USAGE, "--ctx needs a number of tokens above 0");
	f.kv = codec_find(o->kv_type);
	if (!f.kv || !codec_bits_per_weight(f.kv, 32))
		return err_set(e, ERR_USAGE, "--kv-type: unknown codec '%.40s'; for example f16, q8_0, q4_0", o->kv_type);
	f.kv_element = codec_bits_per_weight(f.kv, 32) / 8;
	if (checkpoint_open(args[0], &f.ckpt, e))
		return e->code;
	int rc = report(o, &f, e);
	checkpoint_close(f.ckpt);
	return rc;
}

const struct command inspect_command = {
	.name = "inspect",
	.summary = "tells what a checkpoint is: architecture, tensors, sizes, KV cache",
	.synopsis = "MODEL [--tensors] [--stats] [--check] [--ctx N] [--kv-type CODEC]",
	.description = "Tells format, architecture, parameters, tokenizer, codecs with their bits per weight, and what the KV "
		       "cache costs per token and for a context. MODEL is a Hugging Face folder, a .safetensors, .gguf or .quire "
		       "file. With --check a damaged file ends with exit code 3.",
	.example = "quire inspect examples/demo --tensors\nquire inspect model.gguf --ctx 8192 --kv-type q8_0 --json",
	.options = inspect_rows,
	.option_count = sizeof inspect_rows / sizeof *inspect_rows,
	.min_args = 1,
	.max_args = 1,
	.options_size = sizeof(struct inspect_options),
	.defaults = &inspect_defaults,
	.run = inspect_run,
};
