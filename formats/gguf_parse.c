#include "formats/gguf.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "tensor/tensor.h"

/* One row per value type; size 0: variable. */
static const struct {
	const char *name;
	uint8_t size;
} value_types[GGUF_TYPE_COUNT] = {
	[GGUF_U8] = { "u8", 1 }, [GGUF_I8] = { "i8", 1 }, [GGUF_U16] = { "u16", 2 }, [GGUF_I16] = { "i16", 2 },
	[GGUF_U32] = { "u32", 4 }, [GGUF_I32] = { "i32", 4 }, [GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 },
	[GGUF_STRING] = { "string", 0 }, [GGUF_ARRAY] = { "array", 0 },
	[GGUF_U64] = { "u64", 8 }, [GGUF_I64] = { "i64", 8 }, [GGUF_F64] = { "f64", 8 },
};

/* Names of all ggml tensor types, so that a refusal can say which one it met; NULL: an id that was removed. */
static const char *const tensor_types[] = {
	"F32", "F16", "Q4_0", "Q4_1", NULL, NULL, "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
	"Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64",
	"F64", "IQ1_M", "BF16", NULL, NULL, NULL, "TQ1_0", "TQ2_0", NULL, NULL, NULL, "MXFP4", "NVFP4", "Q1_0", "Q2_0",
};

/* Names of general.file_type values; NULL: removed. */
static const char *const file_types[] = {
	"F32", "F16", "Q4_0", "Q4_1", NULL, NULL, NULL, "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
	"Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",
	"IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", NULL, NULL, NULL, "TQ1_0", "TQ2_0",
	"MXFP4_MOE", "NVFP4", "Q1_0", "Q2_0",
};

/* The reference reader's limits on strings and arrays; they also keep every product below 2^64. */
static const uint64_t max_string = 1u << 30, max_array = 1u << 30;

/* The smallest possible records: what a count claims must fit in the rest of the file before memory is taken for it. */
enum { MIN_KV = 8 + 1 + 4 + 1, MIN_TENSOR = 8 + 1 + 4 + 4 + 8 };

static uint64_t cursor_left(const struct cursor *c)
{
	return (uint64_t)(c->end - c->at);
}

/* A string as a NUL-terminated copy that is safe to print. */
static const char *take_name(struct gguf *g, struct cursor *c, const char *what, size_t nth, struct err *e)
{
	uint64_t len = cursor_u64(c);
	if (c->bad || len > max_string || len > cursor_left(c)) {
		err_set(e, ERR_INPUT, "the name of %s %zu runs past the end of the file", what, nth);
		return NULL;
	}
	const char *s = (const char *)cursor_take(c, len);
	if (len == 0) {
		err_set(e, ERR_INPUT, "%s %zu has an empty name", what, nth);
		return NULL;
	}
	if (memchr(s, '\0', (size_t)len) || !utf8_valid(s, (size_t)len)) {
		err_set(e, ERR_INPUT, "the name of %s %zu is not text", what, nth);
		return NULL;
	}
	const char *copy = arena_strndup(&g->arena, s, (size_t)len);
	if (!copy)
		err_nomem(e);
	return copy;
}

static int take_array(struct gguf_kv *kv, struct cursor *c, struct err *e)
{
	uint32_t elem = cursor_u32(c);
	kv->count = cursor_u64(c);
	if (c->bad)
		return err_set(e, ERR_INPUT, "key '%s' runs past the end of the file", kv->key);
	if (elem == GGUF_ARRAY)
		return err_set(e, ERR_UNSUPPORTED, "key '%s' is an array of arrays", kv->key);
	if (elem >= GGUF_TYPE_COUNT)
		return err_set(e, ERR_INPUT, "key '%s': array of unknown value type %" PRIu32, kv->key, elem);
	if (kv->count > max_array)
		return err_set(e, ERR_INPUT, "key '%s': an array of %" PRIu64 " elements is too long", kv->key, kv->count);
	kv->elem = (enum gguf_type)elem;
	kv->data = c->at;
	if (elem != GGUF_STRING) {
		cursor_take(c, kv->count * value_types[elem].size);
	} else {
		for (uint64_t i = 0; i < kv->count && !c->bad; i++) {
			uint64_t len = cursor_u64(c);
			if (len > max_string)
				c->bad = true;
			cursor_take(c, len);
		}
	}
	if (c->bad)
		return err_set(e, ERR_INPUT, "key '%s': array of %" PRIu64 " elements runs past the end of the file", kv->key,
			       kv->count);
	kv->size = (uint64_t)(c->at - kv->data);
	return 0;
}

static int take_kv(struct gguf *g, struct cursor *c, size_t nth, struct err *e)
{
	struct gguf_kv *kv = &g->kv[nth];
	kv->key = take_name(g, c, "key", nth, e);
	if (!kv->key)
		return e->code;
	int added = map_add(&g->keys, kv->key, strlen(kv->key), nth);
	if (added < 0)
		return err_nomem(e);
	if (added == 0)
		return err_set(e, ERR_INPUT, "key '%s' appears twice", kv->key);
	uint32_t type = cursor_u32(c);
	if (c->bad)
		return err_set(e, ERR_INPUT, "key '%s' runs past the end of the file", kv->key);
	if (type >= GGUF_TYPE_COUNT)
		return err_set(e, ERR_INPUT, "key '%s' has the unknown value type %" PRIu32, kv->key, type);
	kv->type = kv->elem = (enum gguf_type)type;
	kv->count = 1;
	if (type == GGUF_ARRAY)
		return take_array(kv, c, e);
	kv->data = c->at;
	if (type == GGUF_STRING) {
		uint64_t len = cursor_u64(c);
		if (!c->bad && len > max_string)
			return err_set(e, ERR_INPUT, "key '%s': a string of %" PRIu64 " bytes is too long", kv->key, len);
		cursor_take(c, len);
	} else {
		cursor_take(c, value_types[type].size);
	}
	if (c->bad)
		return err_set(e, ERR_INPUT, "key '%s': its value runs past the end of the file", kv->key);
	kv->size = (uint64_t)(c->at - kv->data);
	return 0;
}

static int take_alignment(struct gguf *g, struct err *e)
{
	const struct gguf_kv *kv = gguf_find(g, "general.alignment");
	g->alignment = GGUF_ALIGNMENT;
	if (!kv)
		return 0;
	if (kv->type != GGUF_U32)
		return err_set(e, ERR_INPUT, "general.alignment is %s, not u32", value_types[kv->type].name);
	g->alignment = load_u32(kv->data);
	if (g->alignment == 0 || (g->alignment & (g->alignment - 1)))
		return err_set(e, ERR_INPUT, "general.alignment %" PRIu32 " is not a power of two", g->alignment);
	return 0;
}

static int tensor_type(struct gguf_tensor *t, uint32_t type, struct err *e)
{
	size_t known = sizeof tensor_types / sizeof *tensor_types;
	if (type >= known)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s' has the unknown tensor type %" PRIu32, t->name, type);
	if (!tensor_types[type])
		return err_set(e, ERR_INPUT, "tensor '%s' has the tensor type %" PRIu32 ", which was removed from the format", t->name,
			       type);
	t->codec = codec_from_gguf((int)type);
	if (!t->codec)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s' has the tensor type %" PRIu32 " (%s), which is not supported", t->name,
			       type, tensor_types[type]);
	return 0;
}

/* dim[0] elements a row, the rest rows; products checked against 2^63 as the reference does. */
static int tensor_size(struct gguf_tensor *t, struct err *e)
{
	uint64_t elements = 1, rows = 1;
	for (uint32_t i = 0; i < t->ndim; i++) {
		if (t->dim[i] > INT64_MAX)
			return err_set(e, ERR_INPUT, "tensor '%s': dimension %" PRIu32 " is negative", t->name, i);
		if (mul_overflows(elements, t->dim[i], &elements) || elements > INT64_MAX)
			return err_set(e, ERR_INPUT, "tensor '%s' has too many elements", t->name);
		if (i > 0)
			rows *= t->dim[i]; /* divides an element count that fits, or both are zero */
	}
	if (elements == 0) {
		t->nbytes = 0;
		return 0;
	}
	uint64_t cols = t->ndim ? t->dim[0] : 1, row = codec_row_bytes(t->codec, cols);
	if (row == 0)
		return err_set(e, ERR_INPUT, "tensor '%s': rows of %" PRIu64 " elements cannot be stored as %s (blocks of %" PRIu32 ")",
			       t->name, cols, t->codec->name, t->codec->block);
	if (mul_overflows(row, rows, &t->nbytes) || t->nbytes > INT64_MAX)
		return err_set(e, ERR_INPUT, "tensor '%s' has too many bytes", t->name);
	return 0;
}

static int take_tensor(struct gguf *g, struct cursor *c, size_t nth, struct map *names, uint64_t *running, struct err *e)
{
	struct gguf_tensor *t = &g->tensors[nth];
	t->name = take_name(g, c, "tensor", nth, e);
	if (!t->name)
		return e->code;
	if (strlen(t->name) > GGUF_MAX_NAME)
		return err_set(e, ERR_INPUT, "tensor '%.80s': a name may have at most %d bytes", t->name, GGUF_MAX_NAME);
	int added = map_add(names, t->name, strlen(t->name), nth);
	if (added < 0)
		return err_nomem(e);
	if (added == 0)
		return err_set(e, ERR_INPUT, "tensor '%s' appears twice", t->name);
	t->ndim = cursor_u32(c);
	if (!c->bad && t->ndim > GGUF_MAX_DIMS)
		return err_set(e, ERR_INPUT, "tensor '%s' has %" PRIu32 " dimensions; at most %d are allowed", t->name, t->ndim,
			       GGUF_MAX_DIMS);
	for (uint32_t i = 0; i < t->ndim && !c->bad; i++)
		t->dim[i] = cursor_u64(c);
	uint32_t type = cursor_u32(c);
	uint64_t offset = cursor_u64(c);
	if (c->bad)
		return err_set(e, ERR_INPUT, "tensor '%s': its description runs past the end of the file", t->name);
	int rc = tensor_type(t, type, e);
	if (!rc)
		rc = tensor_size(t, e);
	if (rc)
		return rc;
	if (offset != *running)
		return err_set(e, ERR_INPUT, "tensor '%s' claims offset %" PRIu64 "; the tensors before it end at %" PRIu64, t->name,
			       offset, *running);
	t->at = offset;
	/* alignment is below 2^32 and nbytes below 2^63: the rounding cannot wrap, the sum can */
	if (add_overflows(*running, round_up(t->nbytes, g->alignment), running) || *running > INT64_MAX)
		return err_set(e, ERR_INPUT, "tensor '%s': the tensors are too large", t->name);
	return 0;
}

static int take_head(struct cursor *c, uint32_t *version, uint64_t *tensors, uint64_t *keys, struct err *e)
{
	const uint8_t *magic = cursor_take(c, 4);
	if (!magic || memcmp(magic, "GGUF", 4) != 0)
		return err_set(e, ERR_INPUT, "not a GGUF file (it does not start with \"GGUF\")");
	*version = cursor_u32(c);
	if (c->bad)
		return err_set(e, ERR_INPUT, "the file ends inside the GGUF header");
	if (*version == 0)
		return err_set(e, ERR_INPUT, "GGUF version 0 does not exist");
	if ((*version & 0xffff) == 0)
		return err_set(e, ERR_UNSUPPORTED, "a big-endian GGUF file; only little-endian ones are read");
	if (*version == 1 || *version > 3)
		return err_set(e, ERR_UNSUPPORTED, "GGUF version %" PRIu32 "; versions 2 and 3 are read", *version);
	*tensors = cursor_u64(c);
	*keys = cursor_u64(c);
	if (c->bad)
		return err_set(e, ERR_INPUT, "the file ends inside the GGUF header");
	if (*tensors > cursor_left(c) / MIN_TENSOR)
		return err_set(e, ERR_INPUT, "the header claims %" PRId64 " tensors, more than the file can hold", (int64_t)*tensors);
	if (*keys > cursor_left(c) / MIN_KV)
		return err_set(e, ERR_INPUT, "the header claims %" PRId64 " keys, more than the file can hold", (int64_t)*keys);
	return 0;
}

static int take_tensors(struct gguf *g, struct cursor *c, const uint8_t *start, size_t size, struct err *e)
{
	struct map names = { 0 };
	uint64_t running = 0;
	int rc = 0;
	for (size_t i = 0; i < g->tensor_count && !rc; i++)
		rc = take_tensor(g, c, i, &names, &running, e);
	map_release(&names);
	if (rc)
		return rc;
	g->data_at = (uint64_t)(c->at - start);
	uint64_t end_of_data = round_up(g->data_at, g->alignment) + running;
	if (g->tensor_count)
		g->data_at = round_up(g->data_at, g->alignment);
	for (size_t i = 0; i < g->tensor_count; i++) {
		struct gguf_tensor *t = &g->tensors[i];
		uint64_t end;
		/* the padding after the last tensor may be missing, as in the reference's model loader */
		if (add_overflows(t->at, g->data_at, &t->at) || add_overflows(t->at, t->nbytes, &end) || (t->nbytes && end > size))
			return err_set(e, ERR_INPUT,
				       "tensor '%s': its %" PRIu64 " bytes run past the end of the file (truncated?)", t->name,
				       t->nbytes);
	}
	/* what no tensor claims is no padding: the header's count is wrong, or something was added */
	if (size > end_of_data)
		return err_set(e, ERR_INPUT, "%" PRIu64 " bytes follow the last of the %zu tensors that the header counts",
			       (uint64_t)size - end_of_data, g->tensor_count);
	return 0;
}

int gguf_parse(struct gguf *g, const void *data, size_t size, struct err *e)
{
	struct err local;
	const uint8_t *start = data;
	struct cursor c = { start, start + size, false };
	uint64_t tensors = 0, keys = 0;

	if (!e)
		e = &local;
	*g = (struct gguf){ 0 };
	int rc = take_head(&c, &g->version, &tensors, &keys, e);
	if (rc)
		return rc;
	g->kv = arena_array(&g->arena, (size_t)keys + 1, sizeof *g->kv);
	g->tensors = arena_array(&g->arena, (size_t)tensors + 1, sizeof *g->tensors);
	if (!g->kv || !g->tensors)
		rc = err_nomem(e);
	for (; !rc && g->kv_count < keys; g->kv_count++)
		rc = take_kv(g, &c, g->kv_count, e);
	if (!rc)
		rc = take_alignment(g, e);
	if (!rc) {
		g->tensor_count = (size_t)tensors;
		rc = take_tensors(g, &c, start, size, e);
	}
	if (rc)
		gguf_release(g);
	return rc;
}

void gguf_release(struct gguf *g)
{
	map_release(&g->keys);
	arena_release(&g->arena);
	*g = (struct gguf){ 0 };
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
	uint64_t i;
	return map_get(&g->keys, key, strlen(key), &i) ? &g->kv[i] : NULL;
}

static bool is_signed(enum gguf_type t)
{
	return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

/* Element i as raw bits, sign-extended for signed types; false when it is no integer. */
static bool raw_integer(const struct gguf_kv *kv, uint64_t i, uint64_t *out)
{
	if (!kv || i >= kv->count || kv->elem == GGUF_STRING || kv->elem == GGUF_ARRAY || kv->elem == GGUF_F32 ||
	    kv->elem == GGUF_F64 || kv->elem == GGUF_BOOL)
		return false;
	unsigned size = value_types[kv->elem].size;
	uint64_t v = 0;
	for (unsigned b = 0; b < size; b++)
		v |= (uint64_t)kv->data[i * size + b] << 8 * b;
	if (is_signed(kv->elem) && size < 8 && v >> (8 * size - 1))
		v |= ~0ull << 8 * size;
	*out = v;
	return true;
}

bool gguf_uint(const struct gguf_kv *kv, uint64_t i, uint64_t *out)
{
	uint64_t v;
	if (!raw_integer(kv, i, &v) || (is_signed(kv->elem) && v >> 63))
		return false;
	*out = v;
	return true;
}

bool gguf_float(const struct gguf_kv *kv, uint64_t i, double *out)
{
	uint64_t v;
	if (raw_integer(kv, i, &v)) {
		*out = is_signed(kv->elem) ? (double)(int64_t)v : (double)v;
		return true;
	}
	if (!kv || i >= kv->count)
		return false;
	if (kv->elem == GGUF_F32) {
		uint32_t u = load_u32(kv->data + 4 * i);
		float f;
		memcpy(&f, &u, 4);
		*out = f;
		return true;
	}
	if (kv->elem == GGUF_F64) {
		v = load_u64(kv->data + 8 * i);
		memcpy(out, &v, 8);
		return true;
	}
	return false;
}

bool gguf_bool(const struct gguf_kv *kv, bool *out)
{
	if (!kv || kv->type != GGUF_BOOL)
		return false;
	*out = kv->data[0] != 0;
	return true;
}

const char *gguf_string(const struct gguf_kv *kv, size_t *len)
{
	if (!kv || kv->type != GGUF_STRING)
		return NULL;
	*len = (size_t)load_u64(kv->data);
	return (const char *)kv->data + 8;
}

struct cursor gguf_strings(const struct gguf_kv *kv)
{
	static const uint8_t none[1];
	if (!kv || kv->type != GGUF_ARRAY || kv->elem != GGUF_STRING)
		return (struct cursor){ none, none, false };
	return (struct cursor){ kv->data, kv->data + kv->size, false };
}

bool gguf_next_string(struct cursor *c, const char **s, size_t *len)
{
	if (c->at == c->end)
		return false;
	*len = (size_t)cursor_u64(c);
	*s = (const char *)cursor_take(c, *len);
	return *s != NULL;
}

const char *gguf_file_type_name(uint64_t n)
{
	n &= ~1024ull; /* a flag: the loader guessed */
	return n < sizeof file_types / sizeof *file_types ? file_types[n] : NULL;
}
