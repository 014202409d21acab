/* quire inspect: what was found, as JSON. */
#include "cmd/inspect.h"

#include "codec/codec.h"
#include "model/arch.h"

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
		jw_double(w, "bits_per_weight", inspect_bits(t));
		if (stats) {
			const struct tensor_stats *x = &f->stats[i];
			jw_double(w, "min", (double)x->min);
			jw_double(w, "max", (double)x->max);
			jw_double(w, "mean", x->mean);
			jw_double(w, "std", inspect_deviation(x));
			jw_double(w, "absmax", (double)inspect_largest(x));
			jw_uint(w, "zeros", x->zeros);
			jw_uint(w, "nan", x->nans);
			jw_uint(w, "inf", x->infs);
		}
		jw_end_object(w);
	}
	jw_end_array(w);
}

void inspect_json(const struct inspect_options *o, const struct facts *f, struct strbuf *b)
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
