/* quire inspect: what was found, as text. */
#include "cmd/inspect.h"

#include <string.h>

#include "codec/codec.h"
#include "model/arch.h"

static void line(struct strbuf *b, const char *label)
{
	strbuf_printf(b, "%-14s", label);
}

/* A finding stands behind its label, under the line that names the file. */
static const char *finding(const struct facts *f, const struct err *why, const char *label)
{
	const char *text = why->message, *skip[] = { f->ckpt->path, label };
	for (size_t i = 0; i < sizeof skip / sizeof *skip; i++) {
		size_t n = strlen(skip[i]);
		if (!strncmp(text, skip[i], n) && !strncmp(text + n, ": ", 2))
			text += n + 2;
	}
	return text;
}

static void config_lines(const struct facts *f, struct strbuf *b)
{
	const struct config *c = &f->config;
	char n[32];
	line(b, "architecture");
	if (!f->has_config) {
		safe_text(b, checkpoint_has(f->ckpt, "config.json") ? finding(f, &f->config_err, "architecture") : "unknown (no config.json)");
		strbuf_putc(b, '\n');
	} else {
		strbuf_printf(b, "%s, %u layers, hidden %u, feed-forward %u, vocabulary %u%s\n", c->arch->name, c->layers, c->hidden,
			      c->ffn, c->vocab, c->tied ? " (tied)" : "");
		line(b, "attention");
		strbuf_printf(b, "%u heads, %u KV heads of %u, context %u\n", c->heads, c->kv_heads, c->head_dim, c->context);
		if (c->experts) {
			line(b, "experts");
			strbuf_printf(b, "%u of width %u, %u for each token, in %u of %u layers\n", c->experts, c->expert_ffn, c->experts_used,
				      config_mixtures(c), c->layers);
		}
	}
	line(b, "parameters");
	strbuf_printf(b, "%s (%llu)", count_text(f->parameters, n), (unsigned long long)f->parameters);
	if (f->has_config && f->config.experts)
		strbuf_printf(b, ", %s of them for each token", count_text(config_active_parameters(&f->config), n));
	strbuf_puts(b, "\n");
	line(b, "tokenizer");
	if (f->has_tokenizer)
		strbuf_printf(b, "%s, %zu pieces\n", f->tokenizer_name, f->tokenizer_size);
	else if (checkpoint_has_tokenizer(f->ckpt)) {
		safe_text(b, finding(f, &f->tokenizer_err, "tokenizer"));
		strbuf_putc(b, '\n');
	} else
		strbuf_puts(b, "none\n");
}

static void codec_lines(const struct facts *f, struct strbuf *b)
{
	char size[32];
	line(b, "tensors");
	strbuf_printf(b, "%zu, %s, %.3f bits per weight\n", f->ckpt->source->count, size_text(f->bytes, size),
		      f->elements ? 8.0 * (double)f->bytes / (double)f->elements : 0.0);
	for (size_t i = 0; i < f->codecs; i++) {
		const struct codec_count *c = &f->codec[i];
		line(b, i ? "" : "codecs");
		strbuf_printf(b, "%-10s %5llu tensors  %10s  %5.1f %%\n", c->codec->name, (unsigned long long)c->tensors,
			      size_text(c->bytes, size), f->bytes ? 100.0 * (double)c->bytes / (double)f->bytes : 0.0);
	}
}

/* Runs of layers that share a window and do or do not own a cache, when the layers differ. */
static void layer_map(const struct config *c, struct strbuf *b)
{
	bool plain = true;
	for (uint32_t l = 0; l < c->layers; l++)
		plain = plain && !c->layer[l].window && c->layer[l].kv_source == l && c->layer[l].kv_heads == c->kv_heads;
	for (uint32_t l = 0, last; !plain && l < c->layers; l = last + 1) {
		const struct layer_config *x = &c->layer[l];
		for (last = l; last + 1 < c->layers; last++) {
			const struct layer_config *y = &c->layer[last + 1];
			bool own = x->kv_source == l;
			if (y->window != x->window || y->kv_heads != x->kv_heads || (y->kv_source == last + 1) != own ||
			    (!own && y->kv_source != x->kv_source))
				break;
		}
		line(b, l ? "" : "KV map");
		strbuf_printf(b, "layers %u-%u: ", l, last);
		if (x->kv_source == l)
			strbuf_printf(b, "%u KV heads", x->kv_heads);
		else
			strbuf_printf(b, "read the cache of layer %u", x->kv_source);
		if (x->window)
			strbuf_printf(b, ", window %u", x->window);
		strbuf_putc(b, '\n');
	}
}

static void kv_lines(const struct facts *f, struct strbuf *b)
{
	char size[32];
	if (!f->has_config)
		return;
	line(b, "KV cache");
	strbuf_printf(b, "%s: %s per token", f->kv->name, size_text((uint64_t)(config_kv_bytes(&f->config, 1, f->kv_element) + 0.5), size));
	for (int i = 0; i < 2; i++)
		if (!i || f->context[1] != f->context[0])
			strbuf_printf(b, ", %s at %llu",
				      size_text((uint64_t)(config_kv_bytes(&f->config, f->context[i], f->kv_element) + 0.5), size),
				      (unsigned long long)f->context[i]);
	strbuf_putc(b, '\n');
	layer_map(&f->config, b);
}

static void fact_lines(const struct facts *f, struct strbuf *b)
{
	for (size_t i = 0; i < f->ckpt->fact_count; i++) {
		struct strbuf text = { 0 };
		safe_text(&text, f->ckpt->facts[i].key);
		strbuf_puts(&text, " = ");
		safe_text(&text, f->ckpt->facts[i].value);
		line(b, i ? "" : "metadata");
		strbuf_printf(b, "%.*s%s\n", 100, text.data ? text.data : "", text.len > 100 ? " ..." : "");
		b->failed |= text.failed;
		strbuf_release(&text);
	}
}

static int name_width(const struct tensor_source *s)
{
	size_t w = 4;
	for (size_t i = 0; i < s->count; i++) {
		size_t n = strlen(s->tensors[i].name);
		w = n > w ? n : w;
	}
	return w < 64 ? (int)w : 64;
}

static void padded_name(const struct tensor *t, int width, struct strbuf *b)
{
	size_t start = b->len;
	safe_text(b, t->name);
	strbuf_printf(b, "%*s", b->len - start < (size_t)width ? width - (int)(b->len - start) : 0, "");
}

static void tensor_table(const struct facts *f, struct strbuf *b)
{
	const struct tensor_source *s = f->ckpt->source;
	int w = name_width(s);
	char shape[160];
	strbuf_printf(b, "\n%-*s  %-10s  %-20s  %12s  %6s\n", w, "name", "codec", "shape", "bytes", "bits");
	for (size_t i = 0; i < s->count; i++) {
		const struct tensor *t = &s->tensors[i];
		padded_name(t, w, b);
		strbuf_printf(b, "  %-10s  %-20s  %12llu  %6.3f\n", t->codec->name, tensor_shape_text(t, shape),
			      (unsigned long long)t->nbytes, inspect_bits(t));
	}
}

static void stats_table(const struct facts *f, struct strbuf *b)
{
	const struct tensor_source *s = f->ckpt->source;
	int w = name_width(s);
	strbuf_printf(b, "\n%-*s  %-10s  %10s %10s %10s %10s %10s %9s %7s %7s\n", w, "name", "codec", "min", "max", "mean", "std",
		      "absmax", "zeros", "NaN", "Inf");
	for (size_t i = 0; i < s->count; i++) {
		const struct tensor_stats *x = &f->stats[i];
		padded_name(&s->tensors[i], w, b);
		strbuf_printf(b, "  %-10s  %10.4g %10.4g %10.3g %10.4g %10.4g %9llu %7llu %7llu\n", s->tensors[i].codec->name,
			      (double)x->min, (double)x->max, x->mean, inspect_deviation(x), (double)inspect_largest(x), (unsigned long long)x->zeros,
			      (unsigned long long)x->nans, (unsigned long long)x->infs);
	}
}

void inspect_text(const struct inspect_options *o, const struct facts *f, struct strbuf *b)
{
	line(b, "file");
	safe_text(b, f->ckpt->path);
	strbuf_putc(b, '\n');
	line(b, "format");
	strbuf_printf(b, "%s: %s\n", f->ckpt->format->name, f->ckpt->format->summary);
	config_lines(f, b);
	codec_lines(f, b);
	kv_lines(f, b);
	fact_lines(f, b);
	if (f->check) {
		line(b, "check");
		strbuf_printf(b, "%s\n", f->check);
	}
	if (o->tensors)
		tensor_table(f, b);
	if (o->stats)
		stats_table(f, b);
}
