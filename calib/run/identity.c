#include "calib/run/identity.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "model/arch.h"
#include "model/graph.h"

void identity_add(struct sha256 *h, const void *data, size_t n)
{
	uint8_t size[8];
	store_u64(size, n);
	sha256_add(h, size, sizeof size);
	sha256_add(h, data, n);
}

void identity_finish(struct sha256 *h, char out[IDENTITY_SIZE])
{
	uint8_t digest[32];
	sha256_finish(h, digest);
	sha256_hex(digest, out);
}

static void add_u64(struct sha256 *h, uint64_t v)
{
	uint8_t b[8];
	store_u64(b, v);
	sha256_add(h, b, sizeof b);
}

static void add_f32(struct sha256 *h, float v)
{
	uint32_t u;
	memcpy(&u, &v, sizeof u);
	add_u64(h, u);
}

/*
 * What the forward pass reads. The architecture's name is left out: containers merge names (mistral is llama in
 * GGUF); so is rope scaling, which they write in different forms.
 */
static void add_config(struct sha256 *h, const struct config *c)
{
	struct block b;
	block_make(c, 0, &b);
	const uint64_t whole[] = { c->vocab, c->hidden, c->layers, c->head_dim, (uint64_t)c->act, c->tied, c->rope.dims,
				   (uint64_t)c->arch->norm, !block_adds(&b, ROLE_O), b.parts < 2,
				   block_has(&b, 0, OP_HEAD_NORM), block_has(&b, 0, OP_GLU) };
	for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
		add_u64(h, whole[i]);
	add_f32(h, c->norm_eps);
	add_f32(h, c->attn_softcap);
	add_f32(h, c->final_softcap);
	if (c->query_scalar > 0)
		add_f32(h, c->query_scalar);
	const float scales[] = { c->score_scale, c->embed_scale, c->residual_scale, c->logit_scale, c->logit_divisor, c->rope.temper };
	for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
		if (scales[i] != 0 && scales[i] != 1) {
			add_u64(h, i);
			add_f32(h, scales[i]);
		}
	add_f32(h, c->rope.theta);
	const uint64_t mixture[] = { c->experts, c->experts_used, c->expert_ffn, c->experts_sum_to_one };
	for (size_t i = 0; i < sizeof mixture / sizeof *mixture && c->experts; i++)
		add_u64(h, mixture[i]);
	if (c->local_theta > 0)
		add_f32(h, c->local_theta);
	for (uint32_t i = 0; i < c->layers; i++) {
		const struct layer_config *l = &c->layer[i];
		const uint64_t row[] = { l->heads, l->kv_heads, l->window, l->kv_source, l->rope, l->ffn };
		for (size_t k = 0; k < sizeof row / sizeof *row; k++)
			add_u64(h, row[k]);
		if (c->experts)
			add_u64(h, l->mixture);
	}
}

static int add_rows(struct sha256 *h, struct tensor_source *s, const struct tensor *t, struct err *e)
{
	const struct codec *c = t->codec;
	uint64_t rows = tensor_rows(t), cols = tensor_cols(t), step = rows > IDENTITY_ROWS ? rows / IDENTITY_ROWS : 1;
	uint64_t bytes = codec_row_bytes(c, cols);
	struct tensor_bytes b;
	int rc = s->get(s, source_position(s, t), &b, e);
	if (rc)
		return rc;
	if (b.size != t->nbytes) {
		tensor_bytes_release(&b);
		return err_set(e, ERR_INPUT, "tensor %s: its bytes have another size than its shape", t->name);
	}
	float *row = cols <= SIZE_MAX / sizeof *row ? malloc((size_t)(cols ? cols : 1) * sizeof *row) : NULL;
	if (!row)
		rc = err_nomem(e);
	for (uint64_t r = 0; r < rows && !rc; r += step) {
		c->decode(c, b.data + r * bytes, row, (size_t)cols);
		/* -0 and 0 are one value, and containers may turn one into the other */
		for (uint64_t i = 0; i < cols; i++)
			row[i] += 0.0f;
		identity_add(h, row, (size_t)cols * sizeof *row);
	}
	free(row);
	source_drop(s, b.data, b.size);
	tensor_bytes_release(&b);
	return rc;
}

static int add_role(struct sha256 *h, const struct config *c, struct tensor_source *s, enum role r, uint32_t place, struct err *e)
{
	char name[96];
	uint64_t dim[2];
	uint32_t ndim = role_shape(c, r, place, dim);
	if (!ndim || !role_hf_name(c->arch, r, place, name) || (r == ROLE_HEAD && c->tied))
		return ERR_OK;
	const struct tensor *t = source_find(s, name);
	if (!t)
		return ERR_OK;
	add_u64(h, (uint64_t)r);
	for (uint32_t i = 0; i < ndim; i++)
		add_u64(h, dim[i]);
	return add_rows(h, s, t, e);
}

int identity_model(const struct config *c, struct tensor_source *s, char out[IDENTITY_SIZE], struct err *e)
{
	struct sha256 h;
	int rc = ERR_OK;
	sha256_init(&h);
	add_config(&h, c);
	for (int r = 0; r < ROLE_COUNT && !rc; r++) {
		if (!role_rows[r].per_layer)
			rc = add_role(&h, c, s, (enum role)r, UINT32_MAX, e);
		for (uint32_t layer = 0; role_rows[r].per_layer && layer < c->layers && !rc; layer++)
			for (uint32_t i = 0; i < role_places(c, (enum role)r) && !rc; i++)
				rc = add_role(&h, c, s, (enum role)r, role_place((enum role)r, layer, i), e);
	}
	identity_finish(&h, out);
	return rc;
}

void identity_tokenizer(const struct tokenizer *t, char out[IDENTITY_SIZE])
{
	struct sha256 h;
	sha256_init(&h);
	size_t size = tokenizer_size(t);
	add_u64(&h, size);
	add_u64(&h, (uint64_t)(int64_t)tokenizer_bos(t));
	for (size_t i = 0; i < size; i++) {
		size_t len = 0;
		const char *piece = tokenizer_piece(t, (int32_t)i, &len);
		identity_add(&h, piece ? piece : "", piece ? len : 0);
	}
	/* other kinds derive their merges from scores, which containers keep in different forms */
	size_t merges = tokenizer_kind(t) == TOKENIZER_BYTE_BPE ? tokenizer_merges(t) : 0;
	for (size_t i = 0; i < merges; i++) {
		const char *left, *right;
		tokenizer_merge(t, i, &left, &right);
		identity_add(&h, left, strlen(left));
		identity_add(&h, right, strlen(right));
	}
	identity_finish(&h, out);
}
