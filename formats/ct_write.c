/* Writing pack-quantized: a sink in front of the safetensors writer, and what config.json says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "codec/codec.h"
#include "formats/ct.h"

static const char WEIGHT[] = ".weight";

/* Length of the module's name in front of ".weight"; 0 when it has another name. */
static size_t module_len(const char *name)
{
	size_t n = strlen(name), k = sizeof WEIGHT - 1;
	return n > k && !strcmp(name + n - k, WEIGHT) ? n - k : 0;
}

/* One of the tensors that a quantized matrix becomes. */
struct part {
	const char *suffix, *codec;
	uint64_t rows, cols; /* cols 0: a vector */
};

static int add_part(struct plan *parts, const struct plan_item *item, struct part p, struct err *e)
{
	struct plan_item *x = &parts->items[parts->count++];
	size_t n = module_len(item->out.name), size = n + strlen(p.suffix) + 2;
	char *name = arena_alloc(&parts->arena, size);
	if (!name)
		return err_nomem(e);
	snprintf(name, size, "%.*s.%s", (int)n, item->out.name, p.suffix);
	*x = (struct plan_item){ .out = { .name = name, .codec = codec_find(p.codec), .ndim = p.cols ? 2 : 1, .dim = { p.rows, p.cols } } };
	return tensor_measure(&x->out, e);
}

static int add_item(struct plan *parts, const struct plan_item *item, struct err *e)
{
	struct ct_layout l;
	if (!ct_holds(item->out.codec)) {
		parts->items[parts->count++] = *item;
		return ERR_OK;
	}
	if (!module_len(item->out.name) || item->role == ROLE_EMBED)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: compressed-tensors quantizes linear layers only; leave it in 16 bits",
			       item->out.name);
	int rc = ct_layout_of(&item->out, &l, e);
	if (!rc)
		rc = add_part(parts, item, (struct part){ "weight_packed", "i32", l.rows, l.words }, e);
	if (!rc)
		rc = add_part(parts, item, (struct part){ "weight_scale", item->out.codec->group_scale ? "bf16" : "f16", l.rows, l.groups }, e);
	if (!rc)
		rc = add_part(parts, item, (struct part){ "weight_shape", "i64", 2, 0 }, e);
	if (!rc && l.zero_words)
		rc = add_part(parts, item, (struct part){ "weight_zero_point", "i32", l.zero_words, l.groups }, e);
	return rc;
}

int ct_plan(const struct plan *p, struct plan *parts, struct err *e)
{
	int rc = ERR_OK;
	*parts = (struct plan){ 0 };
	parts->items = arena_array(&parts->arena, 4 * p->count + 1, sizeof *parts->items);
	if (!parts->items)
		return err_nomem(e);
	for (size_t i = 0; i < p->count && !rc; i++)
		rc = add_item(parts, &p->items[i], e);
	for (size_t i = 0; i < parts->count; i++)
		parts->bytes += parts->items[i].out.nbytes;
	if (rc)
		plan_release(parts);
	return rc;
}

/* ---- the sink */

struct ct_sink {
	struct tensor_sink base;  /* first: the sink is cast back to this */
	struct tensor_sink *inner;
	const struct plan *plan;
	size_t next;              /* part that comes next */
	const struct plan_item *item; /* being collected, or NULL: passed on */
	uint8_t *buf;
	size_t have;
};

static int emit(struct ct_sink *k, const void *data, uint64_t size, struct err *e)
{
	int rc = k->inner->item(k->inner, k->next++, e);
	return rc || !size ? rc : k->inner->bytes(k->inner, data, (size_t)size, e);
}

static int flush(struct ct_sink *k, struct err *e)
{
	struct ct_layout l;
	uint8_t shape[16];
	int rc = ct_layout_of(&k->item->out, &l, e);
	if (rc)
		return rc;
	uint64_t packed = l.rows * l.words * 4, scales = l.rows * l.groups * 2, zeros = l.zero_words * l.groups * 4;
	uint8_t *p = malloc((size_t)(packed + scales + zeros + 1));
	if (!p)
		return err_nomem(e);
	ct_split(&l, k->buf, p, p + packed, p + packed + scales);
	store_u64(shape, l.rows);
	store_u64(shape + 8, l.cols);
	rc = emit(k, p, packed, e);
	if (!rc)
		rc = emit(k, p + packed, scales, e);
	if (!rc)
		rc = emit(k, shape, sizeof shape, e);
	if (!rc && l.zero_words)
		rc = emit(k, p + packed + scales, zeros, e);
	free(p);
	return rc;
}

static int sink_item(struct tensor_sink *base, size_t index, struct err *e)
{
	struct ct_sink *k = (struct ct_sink *)base;
	const struct plan_item *x = &k->plan->items[index];
	k->item = ct_holds(x->out.codec) ? x : NULL;
	k->have = 0;
	if (!k->item)
		return k->inner->item(k->inner, k->next++, e);
	uint8_t *grown = realloc(k->buf, (size_t)x->out.nbytes + 1);
	if (!grown)
		return err_nomem(e);
	k->buf = grown;
	return x->out.nbytes ? ERR_OK : flush(k, e);
}

static int sink_bytes(struct tensor_sink *base, const void *data, size_t size, struct err *e)
{
	struct ct_sink *k = (struct ct_sink *)base;
	if (!k->item)
		return k->inner->bytes(k->inner, data, size, e);
	if (size > k->item->out.nbytes - k->have)
		return err_set(e, ERR_BUG, "compressed-tensors writer: more bytes than planned");
	memcpy(k->buf + k->have, data, size);
	k->have += size;
	return k->have == k->item->out.nbytes ? flush(k, e) : ERR_OK;
}

static int sink_seal(struct tensor_sink *base, const char **path, struct err *e)
{
	struct ct_sink *k = (struct ct_sink *)base;
	return k->inner->seal(k->inner, path, e);
}

static int sink_finish(struct tensor_sink *base, struct err *e)
{
	struct ct_sink *k = (struct ct_sink *)base;
	return k->inner->finish(k->inner, e);
}

static void sink_close(struct tensor_sink *base)
{
	struct ct_sink *k = (struct ct_sink *)base;
	k->inner->close(k->inner);
	free(k->buf);
	free(k);
}

int ct_sink_new(const struct plan *p, struct tensor_sink *inner, struct tensor_sink **out, struct err *e)
{
	struct ct_sink *k = calloc(1, sizeof *k);
	if (!k)
		return err_nomem(e);
	k->base = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	k->inner = inner;
	k->plan = p;
	*out = &k->base;
	return ERR_OK;
}

/* ---- config.json */

/* Codecs that differ only in the type of their scales are one scheme. */
static bool same_scheme(const struct codec *a, const struct codec *b)
{
	return a->bits == b->bits && a->block == b->block && a->has_offset == b->has_offset;
}

/* Unknown keys are refused by readers, so these are all and no others. */
static void print_weights(struct json_writer *w, const struct codec *c)
{
	jw_object(w, "weights");
	jw_int(w, "num_bits", c->bits);
	jw_string(w, "type", "int");
	jw_bool(w, "symmetric", !c->has_offset);
	jw_string(w, "strategy", c->block ? "group" : "channel");
	if (c->block)
		jw_int(w, "group_size", c->block);
	else
		jw_null(w, "group_size");
	jw_bool(w, "dynamic", false);
	jw_null(w, "actorder");
	jw_null(w, "block_structure");
	jw_string(w, "observer", "minmax");
	jw_object(w, "observer_kwargs");
	jw_end_object(w);
	jw_end_object(w);
}

static void module_name(struct json_writer *w, const struct tensor *t)
{
	jw_string_n(w, NULL, t->name, module_len(t->name));
}

static void print_groups(struct json_writer *w, const struct plan *p, size_t schemes)
{
	char key[32];
	size_t group = 0;
	jw_object(w, "config_groups");
	for (size_t i = 0; i < p->count; i++) {
		const struct codec *c = p->items[i].out.codec;
		bool first = ct_holds(c);
		for (size_t k = 0; k < i && first; k++)
			first = !(ct_holds(p->items[k].out.codec) && same_scheme(c, p->items[k].out.codec));
		if (!first)
			continue;
		snprintf(key, sizeof key, "group_%zu", group++);
		jw_object(w, key);
		jw_array(w, "targets");
		if (schemes == 1)
			jw_string(w, NULL, "Linear");
		for (size_t k = i; k < p->count && schemes > 1; k++)
			if (ct_holds(p->items[k].out.codec) && same_scheme(c, p->items[k].out.codec))
				module_name(w, &p->items[k].out);
		jw_end_array(w);
		print_weights(w, c);
		jw_null(w, "input_activations");
		jw_null(w, "output_activations");
		jw_string(w, "format", "pack-quantized");
		jw_end_object(w);
	}
	jw_end_object(w);
}

static size_t count_schemes(const struct plan *p)
{
	size_t count = 0;
	for (size_t i = 0; i < p->count; i++) {
		bool first = ct_holds(p->items[i].out.codec);
		for (size_t k = 0; k < i && first; k++)
			first = !(ct_holds(p->items[k].out.codec) && same_scheme(p->items[i].out.codec, p->items[k].out.codec));
		count += first;
	}
	return count;
}

static bool has_zero_points(const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (ct_holds(p->items[i].out.codec) && p->items[i].out.codec->has_offset)
			return true;
	return false;
}

/* Linear modules that stay as they are. A tied head is a module of its own without a tensor. */
static void print_ignore(struct json_writer *w, const struct plan *p)
{
	bool head = false;
	jw_array(w, "ignore");
	for (size_t i = 0; i < p->count; i++) {
		const struct plan_item *x = &p->items[i];
		bool linear = x->role < ROLE_COUNT ? role_rows[x->role].linear || x->role == ROLE_HEAD
						   : x->out.ndim == 2 && !strstr(x->out.name, "embed");
		head |= !strcmp(x->out.name, "lm_head.weight");
		if (linear && !ct_holds(x->out.codec) && module_len(x->out.name))
			module_name(w, &x->out);
	}
	if (!head)
		jw_string(w, NULL, "lm_head");
	jw_end_array(w);
}

int ct_config_add(const struct plan *p, const struct config *config, struct strbuf *text, struct err *e)
{
	struct strbuf out = { 0 };
	struct json_writer w = { .out = &out, .indent = 2, .depth = 1 };
	size_t end = text->len;
	(void)config;
	while (end && text->data[end - 1] != '}')
		end--;
	if (!end)
		return err_set(e, ERR_INPUT, "config.json is not an object");
	end--;
	while (end && strchr(" \t\r\n", text->data[end - 1]))
		end--;
	strbuf_add(&out, text->data, end);
	w.comma = end && text->data[end - 1] != '{';
	jw_object(&w, "quantization_config");
	jw_string(&w, "quant_method", "compressed-tensors");
	jw_string(&w, "format", "pack-quantized");
	jw_string(&w, "quantization_status", "compressed");
	print_groups(&w, p, count_schemes(p));
	print_ignore(&w, p);
	jw_null(&w, "kv_cache_scheme");
	jw_null(&w, "global_compression_ratio");
	/* transformers 5 makes room for unpacked zero points when it keeps weights compressed, and cannot load packed ones */
	if (has_zero_points(p))
		jw_bool(&w, "dequantize", true);
	jw_end_object(&w);
	strbuf_puts(&out, "\n}\n");
	bool failed = out.failed;
	strbuf_release(text);
	*text = out;
	return failed ? err_nomem(e) : ERR_OK;
}
