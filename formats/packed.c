/* Which layout of quantized weights a checkpoint has, and what is done about it. */
#include "formats/packed.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "codec/codec.h"
#include "formats/codes.h"
#include "formats/side.h"

static const char CT[] = "compressed-tensors";

/*
 * The first row that fits wins, so special cases stand first. Names of tensors: what each method's own writer gives
 * them (transformers' integrations, compressed-tensors, AutoGPTQ, AutoAWQ, mlx-lm, modelopt).
 */
const struct packed_row packed_rows[] = {
	{ "compressed-tensors, sparse", NULL, NULL, ".bitmask", NULL, NULL },
	{ "compressed-tensors, pack-quantized", CT, "pack-quantized", NULL, NULL, ct_attach },
	{ "compressed-tensors, pack-quantized", NULL, NULL, ".weight_packed", "i32", NULL },
	{ "compressed-tensors, FP8", CT, "float-quantized", NULL, NULL, scaled_attach },
	{ "compressed-tensors, int8", CT, "int-quantized", NULL, NULL, ct_attach },
	{ "compressed-tensors, 8 bits", CT, "naive-quantized", NULL, NULL, scaled_attach },
	{ "compressed-tensors, as it was", CT, "dense", NULL, NULL, scaled_attach },
	{ "compressed-tensors, NVFP4", CT, "nvfp4", NULL, NULL, ct_attach },
	{ "modelopt NVFP4", "modelopt", "NVFP4", NULL, NULL, modelopt_attach },
	{ "NVFP4", "nvfp4", NULL, NULL, NULL, NULL },
	{ "compressed-tensors, MXFP4", CT, "mxfp4", NULL, NULL, ct_attach },
	{ "compressed-tensors, mixed", CT, "mixed-precision", NULL, NULL, ct_attach },
	{ "NVFP4", NULL, NULL, ".weight_global_scale", NULL, NULL },
	{ "NVFP4", NULL, NULL, ".weight_scale_2", NULL, NULL },
	{ "MXFP4", "mxfp4", NULL, "_blocks", "u8", NULL },
	{ "compressed-tensors", CT, NULL, ".weight_packed", NULL, NULL },
	{ "modelopt FP8", "modelopt", "FP8", NULL, NULL, scaled_attach },
	{ "modelopt", "modelopt", NULL, NULL, NULL, NULL },
	{ "FP8", "fp8", NULL, "_scale_inv", NULL, scaled_attach },
	{ "FP8", "fbgemm_fp8", NULL, NULL, NULL, scaled_attach },
	{ "bitsandbytes in 4 bits", NULL, NULL, ".weight.absmax", NULL, NULL },
	{ "bitsandbytes", "bitsandbytes", NULL, ".SCB", NULL, bnb_attach },
	{ "bitsandbytes", NULL, NULL, ".quant_state.bitsandbytes__nf4", NULL, NULL },
	{ "bitsandbytes", NULL, NULL, ".quant_state.bitsandbytes__fp4", NULL, NULL },
	{ "GPTQ", "gptq", NULL, NULL, NULL, gptq_attach },
	{ "GPTQ", NULL, NULL, ".g_idx", NULL, NULL },
	{ "AWQ", "awq", "gemm", NULL, NULL, awq_attach },
	{ "AWQ in another layout than gemm", "awq", "", NULL, NULL, NULL },
	{ "AWQ", "awq", NULL, NULL, NULL, awq_attach },
	{ "AutoRound as GPTQ", "auto-round", "auto_round:auto_gptq", NULL, NULL, gptq_attach },
	{ "AutoRound as AWQ", "auto-round", "auto_round:auto_awq", NULL, NULL, awq_attach },
	{ "AutoRound", "auto-round", NULL, NULL, NULL, NULL },
	{ "AutoRound", "intel/auto-round", NULL, NULL, NULL, NULL },
	{ "GPTQ or AWQ", NULL, NULL, ".qweight", NULL, NULL },
	{ "HQQ", "hqq", NULL, ".W_q", NULL, NULL },
	{ "AQLM", "aqlm", NULL, ".codebooks", NULL, NULL },
	{ "EETQ", "eetq", NULL, ".weight_scales", NULL, NULL },
	{ "quanto", "quanto", NULL, "._data", NULL, NULL },
	{ "torchao", "torchao", NULL, "_qdata", NULL, NULL },
	{ "torchao", NULL, NULL, ":qdata", NULL, NULL },
	{ "VPTQ", "vptq", NULL, ".centroids.weight", NULL, NULL },
	{ "SpQR", "spqr", NULL, ".dense_weights", NULL, NULL },
	{ "HIGGS", "higgs", NULL, NULL, NULL, NULL },
	{ "FP-Quant", "fp_quant", NULL, ".qweight", NULL, NULL },
	{ "BitNet", "bitnet", NULL, NULL, NULL, NULL },
	{ "Quark", "quark", NULL, NULL, NULL, NULL },
	{ "MLX", "mlx", "affine", NULL, NULL, mlx_attach },
	{ "MLX MXFP4", "mlx", "mxfp4", NULL, NULL, mlx_attach },
	{ "MLX NVFP4", "mlx", "nvfp4", NULL, NULL, mlx_attach },
	{ "MLX in a mode other than affine", "mlx", "", NULL, NULL, NULL },
	{ "MLX", "mlx", NULL, NULL, NULL, mlx_attach },
	{ "MLX", NULL, NULL, ".weight", "u32", NULL },
	{ "8 bits with scales", NULL, NULL, ".weight_scale", NULL, scaled_attach },
};
const unsigned packed_row_count = sizeof packed_rows / sizeof *packed_rows;

static bool ends(const char *name, const char *end)
{
	size_t n = strlen(name), k = strlen(end);
	return n >= k && !strcmp(name + n - k, end);
}

static const struct tensor *marked(const struct tensor_source *s, const struct packed_row *row)
{
	for (size_t i = 0; row->mark && i < s->count; i++)
		if (ends(s->tensors[i].name, row->mark) && (!row->codec || !strcmp(row->codec, s->tensors[i].codec->name)))
			return &s->tensors[i];
	return NULL;
}

/* Codes of a layout that has no row: linear weights are never integers otherwise. */
static const struct tensor *codes(const struct tensor_source *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct tensor *t = &s->tensors[i];
		if (t->ndim == 2 && t->codec->kind == CODEC_INTEGER && ends(t->name, ".weight"))
			return t;
	}
	return NULL;
}

/* mlx-lm writes both. */
static const char *const quant_keys[] = { "quantization_config", "quantization" };

static bool is_quant_key(const char *key)
{
	return !strcmp(key, quant_keys[0]) || !strcmp(key, quant_keys[1]);
}

/* Old bitsandbytes and MLX configurations do not name their method. */
static const struct json *find_config(const struct json *root, const char **method)
{
	for (size_t i = 0; i < sizeof quant_keys / sizeof *quant_keys; i++) {
		const struct json *q = json_get(root, quant_keys[i]);
		if (json_kind(q) != JSON_OBJECT)
			continue;
		*method = json_string(json_get(q, "quant_method"));
		if (!*method && (json_get(q, "load_in_8bit") || json_get(q, "load_in_4bit") || json_get(q, "bnb_4bit_quant_type")))
			*method = "bitsandbytes";
		else if (!*method && json_get(q, "group_size") && json_get(q, "bits"))
			*method = "mlx";
		return q;
	}
	return NULL;
}

static const struct packed_row *by_config(const struct json *q, const char *method)
{
	/* a group's own format before that of all */
	static const char *const keys[] = { "format", "quant_algo", "packing_format", "mode", "version" };
	const char *format = json_string(json_get(json_first(json_get(q, "config_groups")), "format"));
	for (size_t i = 0; i < sizeof keys / sizeof *keys && !format; i++)
		format = json_string(json_get(q, keys[i]));
	for (unsigned i = 0; i < packed_row_count; i++) {
		const struct packed_row *r = &packed_rows[i];
		if (r->method && !strcmp(r->method, method) &&
		    (!r->format || (format && !strncasecmp(r->format, format, strlen(r->format)))))
			return r;
	}
	return NULL;
}

/* What config.json says of the weights' storage is true of the file alone. */
static int strip_config(struct checkpoint *c, const struct json *root, struct err *e)
{
	struct strbuf text = { 0 }, value = { 0 };
	struct json_writer w = { .out = &text, .indent = 2 };
	jw_object(&w, NULL);
	for (const struct json *j = json_first(root); j; j = json_next(j)) {
		if (is_quant_key(json_key(j)))
			continue;
		strbuf_clear(&value);
		json_print(j, &value);
		jw_raw(&w, json_key(j), value.data ? value.data : "null");
	}
	jw_end_object(&w);
	strbuf_putc(&text, '\n');
	int rc = text.failed || value.failed ? err_nomem(e) : side_put(c, "config.json", text.data, text.len, e);
	strbuf_release(&text);
	strbuf_release(&value);
	return rc;
}

/* For `inspect`: how the weights are stored. */
static int add_fact(struct checkpoint *c, const char *name, struct err *e)
{
	struct fact *f = arena_array(&c->arena, c->fact_count + 1, sizeof *f);
	if (!f)
		return err_nomem(e);
	if (c->fact_count)
		memcpy(f, c->facts, c->fact_count * sizeof *f);
	f[c->fact_count] = (struct fact){ "quantized by others", name };
	c->facts = f;
	c->fact_count++;
	return ERR_OK;
}

/* Marks of what is not read; after a reader took its own tensors away, what is left has none. */
static int check_marks(const struct tensor_source *s, const struct packed_row **readable, struct err *e)
{
	*readable = NULL;
	for (unsigned i = 0; i < packed_row_count; i++) {
		const struct tensor *t = marked(s, &packed_rows[i]);
		if (t && !packed_rows[i].attach)
			return codes_refuse(e, packed_rows[i].name, "tensor", t->name);
		if (t && !*readable)
			*readable = &packed_rows[i];
	}
	return ERR_OK;
}

static int attach(struct checkpoint *c, const struct json *root, struct err *e)
{
	const char *method = NULL;
	const struct json *q = find_config(root, &method);
	const struct packed_row *row = q && method ? by_config(q, method) : NULL, *more = NULL;
	int rc = ERR_OK;
	if (method && (!row || !row->attach))
		return codes_refuse(e, row ? row->name : method, "config.json's", json_key(q));
	if (!row || row->attach == scaled_attach)
		rc = check_marks(c->source, &more, e);
	if (!row)
		row = more;
	if (!rc && row)
		rc = row->attach(c, q, e);
	if (!rc && row)
		rc = check_marks(c->source, &more, e);
	const struct tensor *left = rc ? NULL : codes(c->source);
	if (left)
		rc = codes_refuse(e, "integer codes of a layout it does not name", "tensor", left->name);
	if (!rc && row)
		rc = add_fact(c, row->name, e);
	return rc || !q ? rc : strip_config(c, root, e);
}

int packed_attach(struct checkpoint *c, struct err *e)
{
	const struct side_file *f;
	struct err ignored = { 0 };
	int rc = checkpoint_file(c, "config.json", &f, e);
	if (rc)
		return rc;
	/* most are not quantized, and a config.json that is no JSON is reported by those who need it */
	struct json *root = f && strstr(f->data, "\"quantization") ? json_parse(f->data, f->size, &ignored) : NULL;
	rc = !root && ignored.code == ERR_NOMEM ? err_nomem(e) : attach(c, root, e);
	json_free(root);
	return rc ? err_prefix(e, "%.600s", c->path) : ERR_OK;
}
