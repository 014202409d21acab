/* quire inspect: what a checkpoint is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "cmd/command.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "model/arch.h"

struct inspect_options {
	struct common common;
	bool tensors, stats, check;
	int64_t ctx;
	const char *kv_type;
};

static const struct inspect_options inspect_defaults = { .ctx = 4096, .kv_type = "f16" };

static const struct option_row inspect_rows[] = {
	{ "tensors", 't', OPT_FLAG, NULL, "list every tensor: codec, shape, bytes, bits per weight", offsetof(struct inspect_options, tensors) },
	{ "stats", 0, OPT_FLAG, NULL, "list minimum, maximum, mean, std, zeros, NaN, Inf of every tensor", offsetof(struct inspect_options, stats) },
	{ "check", 0, OPT_FLAG, NULL, "read everything: checksums match, tensors decode, no NaN or Inf", offsetof(struct inspect_options, check) },
	{ "ctx", 'c', OPT_INT, "N", "context to give the size of the KV cache for (default 4096)", offsetof(struct inspect_options, ctx) },
	{ "kv-type", 0, OPT_STRING, "f16|q8_0|q4_0|f32", "codec of the KV cache (default f16)", offsetof(struct inspect_options, kv_type) },
	{ "stats", 's', OPT_FLAG, NULL, NULL, offsetof(struct inspect_options, stats) }, /* an older spelling */
};

/* --- statistics of tensors --- */

struct tensor_stats {
	uint64_t count, zeros, nans, infs; /* count: finite values */
	double mean, m2;                   /* of the finite ones; m2: sum of squared distances from the mean */
	float min, max;
};

/* Chan, Golub, LeVeque 1979: joins two partial moments. */
static void stats_join(struct tensor_stats *a, const struct tensor_stats *b)
{
	a->zeros += b->zeros;
	a->nans += b->nans;
	a->infs += b->infs;
	if (!b->count)
		return;
	if (!a->count) {
		a->count = b->count;
		a->mean = b->mean;
		a->m2 = b->m2;
		a->min = b->min;
		a->max = b->max;
		return;
	}
	double n = (double)a->count + (double)b->count, d = b->mean - a->mean;
	a->m2 += b->m2 + d * d * ((double)a->count * (double)b->count / n);
	a->mean += d * ((double)b->count / n);
	a->count += b->count;
	a->min = b->min < a->min ? b->min : a->min;
	a->max = b->max > a->max ? b->max : a->max;
}

static void stats_add(struct tensor_stats *s, const float *x, size_t n)
{
	struct tensor_stats p = { .min = INFINITY, .max = -INFINITY };
	double sum = 0;
	for (size_t i = 0; i < n; i++) {
		if (!isfinite(x[i])) {
			p.nans += isnan(x[i]) != 0;
			p.infs += isnan(x[i]) == 0;
			continue;
		}
		p.count++;
		p.zeros += x[i] == 0;
		sum += x[i];
		p.min = x[i] < p.min ? x[i] : p.min;
		p.max = x[i] > p.max ? x[i] : p.max;
	}
	p.mean = p.count ? sum / (double)p.count : 0;
	for (size_t i = 0; i < n; i++)
		if (isfinite(x[i]))
			p.m2 += (x[i] - p.mean) * (x[i] - p.mean);
	stats_join(s, &p);
}

/* Work is cut into groups of rows of about this many elements, whatever the number of threads. */
enum { GROUP_ELEMENTS = 1 << 18, PIECE_ELEMENTS = 1 << 16 };

struct scan {
	const struct tensor *t;
	const uint8_t *data;
	uint64_t row_bytes, rows, group_rows, piece;
	struct tensor_stats *part; /* one per group */
	float *scratch;            /* piece elements per worker */
};

static void scan_group(void *arg, size_t item, int worker)
{
	struct scan *s = arg;
	const struct codec *c = s->t->codec;
	uint64_t cols = tensor_cols(s->t), first = item * s->group_rows;
	uint64_t last = first + s->group_rows < s->rows ? first + s->group_rows : s->rows;
	float *x = s->scratch + (size_t)worker * s->piece;
	for (uint64_t r = first; r < last; r++)
		for (uint64_t at = 0; at < cols; at += s->piece) {
			uint64_t n = cols - at < s->piece ? cols - at : s->piece;
			uint64_t skip = c->block ? at / c->block * c->block_bytes : 0;
			c->decode(c, s->data + r * s->row_bytes + skip, x, (size_t)n);
			stats_add(&s->part[item], x, (size_t)n);
		}
}

static int scan_tensor(struct tensor_source *src, size_t index, struct tensor_stats *out, struct err *e)
{
	const struct tensor *t = &src->tensors[index];
	struct tensor_bytes bytes = { 0 };
	struct scan s = { .t = t, .row_bytes = codec_row_bytes(t->codec, tensor_cols(t)), .rows = tensor_rows(t) };
	uint64_t cols = tensor_cols(t);
	*out = (struct tensor_stats){ .min = 0 };
	if (src->get(src, index, &bytes, e))
		return e->code;
	if (!cols || !s.rows || !t->codec->decode) {
		tensor_bytes_release(&bytes);
		return ERR_OK;
	}
	s.data = bytes.data;
	s.group_rows = cols < GROUP_ELEMENTS ? GROUP_ELEMENTS / cols : 1;
	s.piece = t->codec->block ? PIECE_ELEMENTS / t->codec->block * t->codec->block : cols;
	size_t groups = (size_t)((s.rows + s.group_rows - 1) / s.group_rows);
	s.part = calloc(groups, sizeof *s.part);
	s.scratch = calloc((size_t)thread_count(), (size_t)s.piece * sizeof *s.scratch);
	int rc = s.part && s.scratch ? ERR_OK : err_nomem(e);
	if (!rc) {
		thread_for(groups, scan_group, &s);
		for (size_t i = 0; i < groups; i++)
			stats_join(out, &s.part[i]);
	}
	free(s.part);
	free(s.scratch);
	source_drop(src, bytes.data, bytes.size);
	tensor_bytes_release(&bytes);
	return rc;
}

/* --- what was found --- */

struct codec_count {
	const struct codec *codec;
	uint64_t tensors, bytes, elements;
};

struct facts {
	struct checkpoint *ckpt;
	bool has_config, has_tokenizer;
	struct config config;
	struct err config_err, tokenizer_err;
	const char *tokenizer_name;
	size_t tokenizer_size;
	uint64_t bytes, elements, parameters;
	struct codec_count *codec; /* at most one per codec, in order of appearance */
	size_t codecs;
	const struct codec *kv;
	double kv_element;         /* bytes */
	uint64_t context[2];
	struct tensor_stats *stats; /* one per tensor, or NULL */
	const char *check;          /* how the check ended, or NULL */
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

/* A missing or unknown configuration or tokenizer is a finding, not a failure: bare tensor files can be looked at too. */
static int read_sides(struct facts *f, struct err *e)
{
	struct tokenizer *t = NULL;
	f->has_config = !checkpoint_config(f->ckpt, &f->config, &f->config_err);
	if (!f->has_config && f->config_err.code == ERR_NOMEM)
		return err_nomem(e);
	f->parameters = f->has_config ? config_parameters(&f->config) : f->elements;
	if (!checkpoint_tokenizer(f->ckpt, &t, &f->tokenizer_err)) {
		f->has_tokenizer = true;
		f->tokenizer_name = tokenizer_kind(t) == TOKENIZER_SPM ? "SentencePiece BPE" : "byte-level BPE";
		f->tokenizer_size = tokenizer_size(t);
		tokenizer_close(t);
	} else if (f->tokenizer_err.code == ERR_NOMEM) {
		return err_nomem(e);
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
		if (scan_tensor(s, i, &f->stats[i], e))
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

/* --- text --- */

static void line(struct strbuf *b, const char *label)
{
	strbuf_printf(b, "%-14s", label);
}

static void config_lines(const struct facts *f, struct strbuf *b)
{
	const struct config *c = &f->config;
	char n[32];
	line(b, "architecture");
	if (!f->has_config) {
		safe_text(b, checkpoint_has(f->ckpt, "config.json") ? f->config_err.message : "unknown (no config.json)");
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
		safe_text(b, f->tokenizer_err.message);
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

static double tensor_bits(const struct tensor *t)
{
	uint64_t n = tensor_elements(t);
	return n ? 8.0 * (double)t->nbytes / (double)n : 0.0;
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
			      (unsigned long long)t->nbytes, tensor_bits(t));
	}
}

static double deviation(const struct tensor_stats *s)
{
	return s->count ? sqrt(s->m2 / (double)s->count) : 0;
}

static float largest(const struct tensor_stats *s)
{
	return fabsf(s->min) > fabsf(s->max) ? fabsf(s->min) : fabsf(s->max);
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
			      (double)x->min, (double)x->max, x->mean, deviation(x), (double)largest(x), (unsigned long long)x->zeros,
			      (unsigned long long)x->nans, (unsigned long long)x->infs);
	}
}

static void text_report(const struct inspect_options *o, const struct facts *f, struct strbuf *b)
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

/* --- JSON --- */

static void json_config(const struct facts *f, struct json_writer *w)
{
	const struct config *c = &f->config;
	jw_string(w, "architecture", f->has_config ? c->arch->name : NULL);
	jw_uint(w, "parameters", f->parameters);
	if (f->has_config) {
		jw_uint(w, "layers", c->layers);
		jw_uint(w, "hidden", c->hidden);
		jw_uint(w, "ffn", c->ffn);
		jw_uint(w, "vocab", c->vocab);
		jw_uint(w, "heads", c->heads);
		jw_uint(w, "kv_heads", c->kv_heads);
		jw_uint(w, "head_dim", c->head_dim);
		jw_uint(w, "context", c->context);
		jw_bool(w, "tied", c->tied);
		if (c->experts) {
			jw_object(w, "experts");
			jw_uint(w, "count", c->experts);
			jw_uint(w, "used", c->experts_used);
			jw_uint(w, "ffn", c->expert_ffn);
			jw_uint(w, "layers", config_mixtures(c));
			jw_uint(w, "active_parameters", config_active_parameters(c));
			jw_end_object(w);
		}
		jw_object(w, "kv_cache");
		jw_string(w, "codec", f->kv->name);
		jw_double(w, "bytes_per_token", config_kv_bytes(c, 1, f->kv_element));
		jw_array(w, "contexts");
		for (int i = 0; i < 2; i++) {
			jw_object(w, NULL);
			jw_uint(w, "tokens", f->context[i]);
			jw_double(w, "bytes", config_kv_bytes(c, f->context[i], f->kv_element));
			jw_end_object(w);
		}
		jw_end_array(w);
		jw_array(w, "layer_map");
		for (uint32_t l = 0; l < c->layers; l++) {
			jw_object(w, NULL);
			jw_uint(w, "kv_heads", c->layer[l].kv_heads);
			jw_uint(w, "window", c->layer[l].window);
			jw_uint(w, "kv_source", c->layer[l].kv_source);
			jw_end_object(w);
		}
		jw_end_array(w);
		jw_end_object(w);
	}
	if (f->has_tokenizer) {
		jw_object(w, "tokenizer");
		jw_string(w, "kind", f->tokenizer_name);
		jw_uint(w, "size", f->tokenizer_size);
		jw_end_object(w);
	} else
		jw_null(w, "tokenizer");
}

static void json_codecs(const struct facts *f, struct json_writer *w)
{
	jw_uint(w, "tensor_count", f->ckpt->source->count);
	jw_uint(w, "bytes", f->bytes);
	jw_double(w, "bits_per_weight", f->elements ? 8.0 * (double)f->bytes / (double)f->elements : 0.0);
	jw_array(w, "codecs");
	for (size_t i = 0; i < f->codecs; i++) {
		jw_object(w, NULL);
		jw_string(w, "codec", f->codec[i].codec->name);
		jw_uint(w, "tensors", f->codec[i].tensors);
		jw_uint(w, "bytes", f->codec[i].bytes);
		jw_uint(w, "elements", f->codec[i].elements);
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void json_tensors(const struct facts *f, bool stats, struct json_writer *w)
{
	const struct tensor_source *s = f->ckpt->source;
	jw_array(w, "tensors");
	for (size_t i = 0; i < s->count; i++) {
		const struct tensor *t = &s->tensors[i];
		jw_object(w, NULL);
		jw_string(w, "name", t->name);
		jw_string(w, "codec", t->codec->name);
		jw_array(w, "shape");
		for (uint32_t d = 0; d < t->ndim; d++)
			jw_uint(w, NULL, t->dim[d]);
		jw_end_array(w);
		jw_uint(w, "bytes", t->nbytes);
		jw_double(w, "bits_per_weight", tensor_bits(t));
		if (stats) {
			const struct tensor_stats *x = &f->stats[i];
			jw_double(w, "min", (double)x->min);
			jw_double(w, "max", (double)x->max);
			jw_double(w, "mean", x->mean);
			jw_double(w, "std", deviation(x));
			jw_double(w, "absmax", (double)largest(x));
			jw_uint(w, "zeros", x->zeros);
			jw_uint(w, "nan", x->nans);
			jw_uint(w, "inf", x->infs);
		}
		jw_end_object(w);
	}
	jw_end_array(w);
}

static void json_report(const struct inspect_options *o, const struct facts *f, struct strbuf *b)
{
	struct json_writer w = { .out = b, .indent = 2 };
	jw_document(&w, "quire-inspect/1");
	jw_string(&w, "path", f->ckpt->path);
	jw_string(&w, "format", f->ckpt->format->name);
	json_config(f, &w);
	json_codecs(f, &w);
	jw_object(&w, "facts");
	for (size_t i = 0; i < f->ckpt->fact_count; i++)
		jw_string(&w, f->ckpt->facts[i].key, f->ckpt->facts[i].value);
	jw_end_object(&w);
	if (f->check) {
		jw_object(&w, "check");
		jw_bool(&w, "ok", true);
		jw_bool(&w, "checksums", f->ckpt->format->check != NULL);
		jw_end_object(&w);
	}
	if (o->tensors || o->stats)
		json_tensors(f, o->stats, &w);
	jw_end_object(&w);
	strbuf_putc(b, '\n');
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
			json_report(o, f, &out);
		else
			text_report(o, f, &out);
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
