/* What config.json says of weights in codes, for each program that loads them. */
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"
#include "formats/packing.h"

/* ---- what all of them ask of a plan */

static bool same_scheme(const struct codec *a, const struct codec *b)
{
	/* codecs that differ only in the type of their scales are one */
	return a->bits == b->bits && a->block == b->block && a->has_offset == b->has_offset && a->kind == b->kind && a->levels == b->levels;
}

/* The i-th item is packed in a scheme that none before it has. */
static bool first_of(const struct packing *k, const struct plan *p, size_t i)
{
	const struct codec *c = p->items[i].out.codec;
	if (!packing_holds(k, c))
		return false;
	for (size_t j = 0; j < i; j++)
		if (packing_holds(k, p->items[j].out.codec) && same_scheme(c, p->items[j].out.codec))
			return false;
	return true;
}

/* The scheme of most weights: the others are told as exceptions. */
static const struct codec *main_scheme(const struct packing *k, const struct plan *p)
{
	const struct codec *best = NULL;
	uint64_t most = 0;
	for (size_t i = 0; i < p->count; i++) {
		uint64_t n = 0;
		for (size_t j = i; j < p->count && first_of(k, p, i); j++)
			if (packing_holds(k, p->items[j].out.codec) && same_scheme(p->items[i].out.codec, p->items[j].out.codec))
				n += tensor_elements(&p->items[j].out);
		if (n > most) {
			most = n;
			best = p->items[i].out.codec;
		}
	}
	return best;
}

/* A linear module that stays as it is. */
static bool left_alone(const struct packing *k, const struct plan_item *x)
{
	bool linear = x->role < ROLE_COUNT ? role_rows[x->role].linear || x->role == ROLE_HEAD
					   : x->out.ndim == 2 && !strstr(x->out.name, "embed");
	return linear && !packing_holds(k, x->out.codec) && packing_module(x->out.name);
}

static void print_module(struct json_writer *w, const struct tensor *t)
{
	jw_string_n(w, NULL, t->name, packing_module(t->name));
}

/* Modules that are not quantized. A tied head is a module of its own without a tensor. */
static void print_ignored(const struct packing *k, const struct plan *p, struct json_writer *w, const char *key)
{
	bool head = false;
	jw_array(w, key);
	for (size_t i = 0; i < p->count; i++) {
		head |= !strcmp(p->items[i].out.name, "lm_head.weight");
		if (left_alone(k, &p->items[i]))
			print_module(w, &p->items[i].out);
	}
	if (!head)
		jw_string(w, NULL, "lm_head");
	jw_end_array(w);
}

/* Groups that are rows have no length. */
static int64_t group_of(const struct codec *c)
{
	return c->block ? (int64_t)c->block : -1;
}

/* ---- compressed-tensors: a group for each scheme; readers refuse keys that they do not know, so these are all and no others */

static void print_args(struct json_writer *w, const char *key, const struct codec *c, bool activations)
{
	jw_object(w, key);
	jw_int(w, "num_bits", c->bits);
	jw_string(w, "type", c->levels ? "float" : "int");
	jw_bool(w, "symmetric", !c->has_offset);
	jw_string(w, "strategy", activations ? "token" : c->block ? "group" : "channel");
	if (c->block && !activations)
		jw_int(w, "group_size", c->block);
	else
		jw_null(w, "group_size");
	jw_bool(w, "dynamic", activations);
	jw_null(w, "actorder");
	jw_null(w, "block_structure");
	if (activations)
		jw_null(w, "observer");
	else
		jw_string(w, "observer", "minmax");
	jw_object(w, "observer_kwargs");
	jw_end_object(w);
	if (c->levels && !activations) {
		jw_string(w, "scale_dtype", "torch.uint8");
		jw_string(w, "zp_dtype", "torch.uint8");
	}
	jw_end_object(w);
}

/* targets: the modules by name, unless all are alike */
static void print_group(const struct packing *k, const struct plan *p, size_t i, bool alone, struct json_writer *w)
{
	const struct codec *c = p->items[i].out.codec;
	const struct codes_layout *l = packing_layout(k, p, c);
	jw_array(w, "targets");
	if (alone)
		jw_string(w, NULL, "Linear");
	for (size_t j = i; j < p->count && !alone; j++)
		if (packing_holds(k, p->items[j].out.codec) && same_scheme(c, p->items[j].out.codec))
			print_module(w, &p->items[j].out);
	jw_end_array(w);
	print_args(w, "weights", c, false);
	if (l->activations)
		print_args(w, "input_activations", c, true);
	else
		jw_null(w, "input_activations");
	jw_null(w, "output_activations");
	jw_string(w, "format", l->format);
}

static int ct_config(const struct packing *k, const struct plan *p, struct json_writer *w, struct err *e)
{
	const char *format = NULL;
	size_t schemes = 0, group = 0;
	char key[32];
	(void)e;
	for (size_t i = 0; i < p->count; i++)
		if (first_of(k, p, i)) {
			const char *f = packing_layout(k, p, p->items[i].out.codec)->format;
			format = !format || !strcmp(f, format) ? f : "mixed-precision";
			schemes++;
		}
	jw_string(w, "quant_method", "compressed-tensors");
	jw_string(w, "format", format);
	jw_string(w, "quantization_status", "compressed");
	jw_object(w, "config_groups");
	for (size_t i = 0; i < p->count; i++) {
		if (!first_of(k, p, i))
			continue;
		snprintf(key, sizeof key, "group_%zu", group++);
		jw_object(w, key);
		print_group(k, p, i, schemes == 1, w);
		jw_end_object(w);
	}
	jw_end_object(w);
	print_ignored(k, p, w, "ignore");
	jw_null(w, "kv_cache_scheme");
	jw_null(w, "global_compression_ratio");
	/* transformers 5 makes room for unpacked zero points when it keeps weights compressed, and cannot load packed ones */
	if (packing_zeros(k, p))
		jw_bool(w, "dequantize", true);
	return ERR_OK;
}

/* ---- GPTQ: one scheme, and exceptions by patterns */

/* "+:^model\.layers\.0\.mlp\.up_proj$": for GPTQModel and vLLM, which look for the first that matches. */
static void pattern(const struct tensor *t, char sign, struct strbuf *out)
{
	strbuf_clear(out);
	strbuf_printf(out, "%c:^", sign);
	for (size_t i = 0, n = packing_module(t->name); i < n; i++) {
		if (t->name[i] == '.')
			strbuf_putc(out, '\\');
		strbuf_putc(out, t->name[i]);
	}
	strbuf_putc(out, '$');
}

static void gptq_exceptions(const struct packing *k, const struct plan *p, const struct codec *most, struct json_writer *w,
			    struct strbuf *key)
{
	jw_object(w, "dynamic");
	for (size_t i = 0; i < p->count; i++) {
		const struct plan_item *x = &p->items[i];
		const struct codec *c = x->out.codec;
		bool packed = packing_holds(k, c), head = x->role == ROLE_HEAD;
		if (packed ? same_scheme(c, most) : head || !left_alone(k, x))
			continue;
		pattern(&x->out, packed ? '+' : '-', key);
		jw_object(w, key->data);
		if (packed) {
			jw_int(w, "bits", c->bits);
			jw_int(w, "group_size", group_of(c));
			jw_bool(w, "sym", !c->has_offset);
		}
		jw_end_object(w);
	}
	jw_end_object(w);
}

static bool has_exceptions(const struct packing *k, const struct plan *p, const struct codec *most)
{
	for (size_t i = 0; i < p->count; i++) {
		const struct plan_item *x = &p->items[i];
		if (packing_holds(k, x->out.codec) ? !same_scheme(x->out.codec, most) : x->role != ROLE_HEAD && left_alone(k, x))
			return true;
	}
	return false;
}

static int gptq_config(const struct packing *k, const struct plan *p, struct json_writer *w, struct err *e)
{
	const struct codec *most = main_scheme(k, p);
	const char *format = packing_zeros(k, p) ? "gptq_v2" : "gptq";
	struct strbuf key = { 0 };
	jw_string(w, "quant_method", "gptq");
	jw_int(w, "bits", most->bits);
	jw_int(w, "group_size", group_of(most));
	jw_bool(w, "desc_act", false);
	jw_bool(w, "sym", !most->has_offset);
	jw_bool(w, "lm_head", false);
	jw_string(w, "checkpoint_format", format);
	jw_string(w, "format", format);
	jw_string(w, "pack_dtype", "int32");
	if (has_exceptions(k, p, most))
		gptq_exceptions(k, p, most, w, &key);
	bool failed = key.failed;
	strbuf_release(&key);
	return failed ? err_nomem(e) : ERR_OK;
}

/* ---- AWQ: one group for all */

static int awq_config(const struct packing *k, const struct plan *p, struct json_writer *w, struct err *e)
{
	const struct codec *most = main_scheme(k, p);
	for (size_t i = 0; i < p->count; i++) {
		const struct codec *c = p->items[i].out.codec;
		if (packing_holds(k, c) && !same_scheme(c, most))
			return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: AWQ says one length of groups for all matrices, and this is %s where most are %s",
				       p->items[i].out.name, c->name, most->name);
	}
	jw_string(w, "quant_method", "awq");
	jw_int(w, "bits", most->bits);
	jw_int(w, "group_size", group_of(most));
	jw_bool(w, "zero_point", true);
	jw_string(w, "version", "gemm");
	print_ignored(k, p, w, "modules_to_not_convert");
	return ERR_OK;
}

/* ---- MLX: what has scales is quantized; other widths than those of most stand under the module's name */

static int mlx_config(const struct packing *k, const struct plan *p, struct json_writer *w, struct err *e)
{
	const struct codec *most = main_scheme(k, p);
	jw_int(w, "group_size", group_of(most));
	jw_int(w, "bits", most->bits);
	jw_string(w, "mode", most->levels ? "mxfp4" : "affine");
	for (size_t i = 0; i < p->count; i++) {
		const struct tensor *t = &p->items[i].out;
		char module[512];
		if (!packing_holds(k, t->codec) || same_scheme(t->codec, most))
			continue;
		if (snprintf(module, sizeof module, "%.*s", (int)packing_module(t->name), t->name) >= (int)sizeof module)
			return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: its name is too long", t->name);
		jw_object(w, module);
		jw_int(w, "group_size", group_of(t->codec));
		jw_int(w, "bits", t->codec->bits);
		jw_string(w, "mode", t->codec->levels ? "mxfp4" : "affine");
		jw_end_object(w);
	}
	return ERR_OK;
}

/* ---- into the text of a config.json */

int packing_config(const struct packing *k, const struct plan *p, struct strbuf *text, struct strbuf *object, struct err *e)
{
	struct strbuf out = { 0 };
	struct json_writer w = { .out = &out, .indent = 2, .depth = 1 }, alone = { .out = object, .indent = 2 };
	size_t end = text->len;
	while (end && text->data[end - 1] != '}')
		end--;
	if (!end)
		return err_set(e, ERR_INPUT, "config.json is not an object");
	end--;
	while (end && strchr(" \t\r\n", text->data[end - 1]))
		end--;
	strbuf_add(&out, text->data, end);
	w.comma = end && text->data[end - 1] != '{';
	int rc = ERR_OK;
	for (const char *const *key = k->keys; *key && !rc; key++) {
		jw_object(&w, *key);
		rc = k->config(k, p, &w, e);
		jw_end_object(&w);
	}
	strbuf_puts(&out, "\n}\n");
	if (!rc && object) {
		jw_object(&alone, NULL);
		rc = k->config(k, p, &alone, e);
		jw_end_object(&alone);
		strbuf_putc(object, '\n');
	}
	bool failed = out.failed || (object && object->failed);
	strbuf_release(text);
	*text = out;
	return rc ? rc : failed ? err_nomem(e) : ERR_OK;
}

static const char *const usual[] = { "quantization_config", NULL }, *const mlx_keys[] = { "quantization", "quantization_config", NULL };
static const struct codes_layout *const ct[] = { &codes_ct_packed, &codes_ct_int8, &codes_ct_fp4, NULL }, *const gptq[] = { &codes_gptq, NULL },
	*const awq[] = { &codes_awq, NULL }, *const mlx[] = { &codes_mlx, &codes_mlx_fp4, NULL };

const struct packing packing_ct = { "compressed-tensors", ct, "pt", usual, NULL, false, false, ct_config };
const struct packing packing_gptq = { "GPTQ", gptq, "pt", usual, "quantize_config.json", false, false, gptq_config };
const struct packing packing_awq = { "AWQ", awq, "pt", usual, NULL, false, false, awq_config };
const struct packing packing_mlx = { "MLX", mlx, "mlx", mlx_keys, NULL, true, true, mlx_config };
