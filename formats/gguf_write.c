#include "formats/gguf.h"

#include <inttypes.h>
#include <string.h>

static void put_u32(struct strbuf *b, uint32_t v)
{
	uint8_t raw[4];
	store_u32(raw, v);
	strbuf_add(b, raw, sizeof raw);
}

static void put_u64(struct strbuf *b, uint64_t v)
{
	uint8_t raw[8];
	store_u64(raw, v);
	strbuf_add(b, raw, sizeof raw);
}

static void put_text(struct strbuf *b, const char *s, size_t len)
{
	put_u64(b, len);
	strbuf_add(b, s, len);
}

static uint32_t float_bits(float v)
{
	uint32_t u;
	memcpy(&u, &v, 4);
	return u;
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_type type)
{
	put_text(&w->kv, key, strlen(key));
	put_u32(&w->kv, type);
	w->kv_count++;
}

void gguf_put_u16(struct gguf_writer *w, const char *key, uint16_t v)
{
	uint8_t raw[2];
	store_u16(raw, v);
	put_key(w, key, GGUF_U16);
	strbuf_add(&w->kv, raw, sizeof raw);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
	put_key(w, key, GGUF_U32);
	put_u32(&w->kv, v);
}

void gguf_put_i32(struct gguf_writer *w, const char *key, int32_t v)
{
	put_key(w, key, GGUF_I32);
	put_u32(&w->kv, (uint32_t)v);
}

void gguf_put_u64(struct gguf_writer *w, const char *key, uint64_t v)
{
	put_key(w, key, GGUF_U64);
	put_u64(&w->kv, v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
	put_key(w, key, GGUF_F32);
	put_u32(&w->kv, float_bits(v));
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
	put_key(w, key, GGUF_BOOL);
	strbuf_putc(&w->kv, v);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *s, size_t len)
{
	put_key(w, key, GGUF_STRING);
	put_text(&w->kv, s, len);
}

static void put_array(struct gguf_writer *w, const char *key, enum gguf_type elem, uint64_t n)
{
	put_key(w, key, GGUF_ARRAY);
	put_u32(&w->kv, elem);
	put_u64(&w->kv, n);
}

void gguf_put_u32s(struct gguf_writer *w, const char *key, const uint32_t *v, size_t n)
{
	put_array(w, key, GGUF_U32, n);
	for (size_t i = 0; i < n; i++)
		put_u32(&w->kv, v[i]);
}

void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
	put_array(w, key, GGUF_I32, n);
	for (size_t i = 0; i < n; i++)
		put_u32(&w->kv, (uint32_t)v[i]);
}

void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n)
{
	put_array(w, key, GGUF_F32, n);
	for (size_t i = 0; i < n; i++)
		put_u32(&w->kv, float_bits(v[i]));
}

void gguf_put_bools(struct gguf_writer *w, const char *key, size_t n)
{
	put_array(w, key, GGUF_BOOL, n);
}

void gguf_array_bool(struct gguf_writer *w, bool v)
{
	strbuf_putc(&w->kv, v);
}

void gguf_begin_strings(struct gguf_writer *w, const char *key)
{
	put_array(w, key, GGUF_STRING, 0);
	w->array_at = w->kv.len - 8;
	w->array_count = 0;
}

void gguf_array_string(struct gguf_writer *w, const char *s, size_t len)
{
	put_text(&w->kv, s, len);
	w->array_count++;
}

void gguf_end_strings(struct gguf_writer *w)
{
	if (!w->kv.failed)
		store_u64(w->kv.data + w->array_at, w->array_count);
}

void gguf_put_raw(struct gguf_writer *w, const struct gguf_kv *kv)
{
	if (kv->type == GGUF_ARRAY)
		put_array(w, kv->key, kv->elem, kv->count);
	else
		put_key(w, kv->key, kv->type);
	strbuf_add(&w->kv, kv->data, (size_t)kv->size);
}

static int writable(const struct tensor *t, struct err *e)
{
	const char *name = t->name;
	const struct codec *c = t->codec;
	if (strlen(name) > GGUF_MAX_NAME)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s': GGUF names have at most %d bytes", name, GGUF_MAX_NAME);
	if (c->gguf_type < 0)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s': GGUF cannot hold the type %s", name, c->name);
	if (t->ndim > GGUF_MAX_DIMS)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s': GGUF tensors have at most %d dimensions", name, GGUF_MAX_DIMS);
	return 0;
}

int gguf_add_tensor(struct gguf_writer *w, const struct tensor *t, uint64_t *offset, struct err *e)
{
	const char *name = t->name;
	const struct codec *c = t->codec;
	uint32_t ndim = t->ndim;
	const uint64_t *dim = t->dim;
	int rc = writable(t, e);
	if (rc)
		return rc;
	const char *key = arena_strdup(&w->arena, name);
	int added = key ? map_add(&w->names, key, strlen(key), w->tensor_count) : -1;
	if (added < 0)
		return err_nomem(e);
	if (added == 0)
		return err_set(e, ERR_INPUT, "tensor '%s' appears twice", name);
	uint64_t bytes = codec_row_bytes(c, ndim ? dim[ndim - 1] : 1);
	if (bytes == 0)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s': rows of %" PRIu64 " elements cannot be stored as %s", name,
			       ndim ? dim[ndim - 1] : 1, c->name);
	put_text(&w->infos, name, strlen(name));
	put_u32(&w->infos, ndim);
	for (uint32_t i = ndim; i-- > 0;) {
		put_u64(&w->infos, dim[i]);
		if (i + 1 < ndim && mul_overflows(bytes, dim[i], &bytes))
			return err_set(e, ERR_UNSUPPORTED, "tensor '%s' is too large", name);
	}
	put_u32(&w->infos, (uint32_t)c->gguf_type);
	put_u64(&w->infos, w->data_bytes);
	*offset = w->data_bytes;
	if (bytes > INT64_MAX - GGUF_ALIGNMENT || add_overflows(w->data_bytes, round_up(bytes, GGUF_ALIGNMENT), &w->data_bytes))
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s' is too large", name);
	w->tensor_count++;
	return 0;
}

int gguf_header(struct gguf_writer *w, struct strbuf *out, struct err *e)
{
	size_t start = out->len;
	strbuf_add(out, "GGUF", 4);
	put_u32(out, 3);
	put_u64(out, w->tensor_count);
	put_u64(out, w->kv_count);
	strbuf_add(out, w->kv.data, w->kv.len);
	strbuf_add(out, w->infos.data, w->infos.len);
	while (!out->failed && w->tensor_count && (out->len - start) % GGUF_ALIGNMENT)
		strbuf_putc(out, 0);
	if (out->failed || w->kv.failed || w->infos.failed)
		return err_nomem(e);
	return 0;
}

void gguf_writer_release(struct gguf_writer *w)
{
	strbuf_release(&w->kv);
	strbuf_release(&w->infos);
	map_release(&w->names);
	arena_release(&w->arena);
	*w = (struct gguf_writer){ 0 };
}
