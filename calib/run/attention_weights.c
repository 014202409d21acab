#include "calib/run/attention_weights.h"

#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "model/graph.h"

/* Q, K, V and their biases, in the order of struct attention_weights. */
static const enum role matrix[] = { ROLE_Q, ROLE_K, ROLE_V };
static const enum role bias[] = { ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS };

static size_t rows_of(const struct attention_weights *w, int i)
{
	return (size_t)(i ? w->kv_heads : w->heads) * w->dim;
}

static float *part(const struct attention_weights *w, int i)
{
	return i == 0 ? w->q : i == 1 ? w->k : w->v;
}

static int read_rows(const struct config *c, struct tensor_source *s, uint32_t layer, int i, struct attention_weights *w,
		     struct err *e)
{
	char name[96];
	float *values = NULL, *add = NULL;
	const struct tensor *meta;
	int rc = source_read_f32(s, role_hf_name(c->arch, matrix[i], layer, name), &values, &meta, e);
	if (!rc && w->cols > w->hidden)
		rc = source_read_f32(s, role_hf_name(c->arch, bias[i], layer, name), &add, &meta, e);
	for (size_t r = 0; !rc && r < rows_of(w, i); r++) {
		memcpy(part(w, i) + r * w->cols, values + r * w->hidden, w->hidden * sizeof *values);
		if (add)
			part(w, i)[r * w->cols + w->hidden] = add[r];
	}
	free(values);
	free(add);
	return rc;
}

int attention_weights_read(const struct config *c, struct tensor_source *s, uint32_t layer, struct attention_weights *w,
		      struct err *e)
{
	const struct layer_config *l = &c->layer[layer];
	struct block b;
	block_make(c, layer, &b);
	char name[96];
	float *o = NULL;
	const struct tensor *meta;
	struct attention_weights shape = { .heads = l->heads, .kv_heads = l->kv_heads, .dim = c->head_dim, .hidden = c->hidden,
					   .cols = c->hidden + (c->qkv_bias ? 1 : 0), .rope = l->rope ? c->rope.dims : 0,
					   .qk_norm = block_site(&b, ROLE_Q_NORM) != NULL };
	int rc = attention_weights_new(w, &shape, l->kv_heads, e);
	if (rc)
		return rc;
	for (int i = 0; i < 3 && !rc; i++)
		rc = read_rows(c, s, layer, i, w, e);
	if (!rc)
		rc = source_read_f32(s, role_hf_name(c->arch, ROLE_O, layer, name), &o, &meta, e);
	if (!rc)
		memcpy(w->o, o, attention_weights_count(w, 3) * sizeof *o);
	free(o);
	if (rc)
		attention_weights_release(w);
	return rc;
}

int attention_weights_put(const struct weights_sink *k, enum role r, uint32_t layer, const float *values, struct err *e)
{
	char name[96];
	const struct tensor *was = source_find(k->source, role_hf_name(k->config->arch, r, layer, name));
	if (!was)
		return err_set(e, ERR_INPUT, "tensor %s is missing", name);
	struct tensor t = { .name = was->name, .codec = was->codec };
	t.ndim = role_shape(k->config, r, layer, t.dim);
	int rc = tensor_measure(&t, e);
	uint8_t *bytes = rc ? NULL : malloc((size_t)t.nbytes);
	if (!rc && !bytes)
		rc = err_nomem(e);
	uint64_t cols = tensor_cols(&t), step = rc ? 0 : codec_row_bytes(t.codec, cols);
	for (uint64_t i = 0; !rc && i < tensor_rows(&t); i++)
		t.codec->encode(t.codec, values + i * cols, bytes + i * step, (size_t)cols);
	if (!rc && k->model)
		rc = model_replace(k->model, r, layer, &t, bytes, e);
	if (!rc)
		return overlay_put(k->out, &t, bytes, e);
	free(bytes);
	return rc;
}

int attention_weights_write(const struct weights_sink *k, uint32_t layer, const struct attention_weights *w, struct err *e)
{
	size_t most = rows_of(w, 0) > rows_of(w, 1) ? rows_of(w, 0) : rows_of(w, 1);
	float *values = malloc(most * w->hidden * sizeof *values), *add = malloc(most * sizeof *add);
	int rc = values && add ? ERR_OK : err_nomem(e);
	for (int i = 0; i < 3 && !rc; i++) {
		for (size_t r = 0; r < rows_of(w, i); r++) {
			memcpy(values + r * w->hidden, part(w, i) + r * w->cols, w->hidden * sizeof *values);
			add[r] = part(w, i)[r * w->cols + w->cols - 1];
		}
		rc = attention_weights_put(k, matrix[i], layer, values, e);
		if (!rc && w->cols > w->hidden)
			rc = attention_weights_put(k, bias[i], layer, add, e);
	}
	if (!rc)
		rc = attention_weights_put(k, ROLE_O, layer, w->o, e);
	free(values);
	free(add);
	return rc;
}

static int put_zeroes(const struct config *c, struct tensor_source *source, enum role r, uint32_t layer, struct overlay *out,
		      struct err *e)
{
	char name[96];
	const struct tensor *was = source_find(source, role_hf_name(c->arch, r, layer, name));
	if (!was)
		return ERR_OK;
	struct tensor t = { .name = was->name, .codec = was->codec };
	t.ndim = role_shape(c, r, layer, t.dim);
	int rc = tensor_measure(&t, e);
	void *bytes = rc ? NULL : calloc(1, (size_t)t.nbytes);
	if (!rc && !bytes)
		rc = err_nomem(e);
	return rc ? rc : overlay_put(out, &t, bytes, e);
}

int attention_weights_shapes(const struct config *from, const struct config *to, struct tensor_source *source,
			struct overlay **out, struct err *e)
{
	static const enum role changed[] = { ROLE_K, ROLE_V, ROLE_K_BIAS, ROLE_V_BIAS };
	int rc = ERR_OK;
	*out = overlay_new(source, e);
	if (!*out)
		return e->code;
	for (uint32_t i = 0; i < to->layers && !rc; i++)
		for (size_t k = 0; k < sizeof changed / sizeof *changed && !rc; k++)
			if (to->layer[i].kv_heads != from->layer[i].kv_heads)
				rc = put_zeroes(to, source, changed[k], i, *out, e);
	return rc;
}
