#ifndef QUIRE_FORMATS_GGUF_H
#define QUIRE_FORMATS_GGUF_H
/*
 * The GGUF container (version 3; version 2 has the same layout and is read),
 * after the specification in ggml's docs/gguf.md and the checks of its C reader:
 *
 *	"GGUF" | u32 version | i64 tensors | i64 keys | key-values | tensor infos | padding | data
 *
 * Everything is little-endian. Dimensions are written fastest first; struct
 * gguf_tensor keeps that order, everything above this header has row-major
 * shapes. Used for models and for importance matrices.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/map.h"
#include "base/notes.h"
#include "base/strbuf.h"
#include "codec/codec.h"
#include "formats/file.h"
#include "tensor/tensor.h"

enum gguf_type {
	GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
	GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPE_COUNT,
};

enum { GGUF_MAX_DIMS = 4, GGUF_MAX_NAME = 63, GGUF_ALIGNMENT = 32 };

struct gguf_kv {
	const char *key;           /* NUL-terminated, valid UTF-8 */
	enum gguf_type type, elem; /* elem: of an array, else the same as type */
	uint64_t count;            /* elements of an array, else 1 */
	const uint8_t *data;       /* elements as in the file, unaligned; strings with their lengths */
	uint64_t size;             /* bytes at data */
};

struct gguf_tensor {
	const char *name;
	const struct codec *codec;
	uint32_t ndim;
	uint64_t dim[GGUF_MAX_DIMS]; /* fastest first */
	uint64_t at, nbytes;         /* position in the file */
};

struct gguf {
	uint32_t version, alignment;
	struct gguf_kv *kv;
	size_t kv_count;
	struct gguf_tensor *tensors;
	size_t tensor_count;
	uint64_t data_at;            /* start of the data blob */
	struct map keys;             /* key -> position in kv */
	struct arena arena;
};

/*
 * Parses a container in memory, which must outlive g. ERR_INPUT for anything
 * malformed, ERR_UNSUPPORTED for versions and tensor types quire does not read.
 * Memory taken is at most a small multiple of size. On failure nothing is to be released.
 */
int gguf_parse(struct gguf *g, const void *data, size_t size, struct err *e);
void gguf_release(struct gguf *g);

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);    /* NULL when missing */
/* The accessors take NULL as a missing key and return false (or NULL) for it and for another type. */
bool gguf_uint(const struct gguf_kv *kv, uint64_t i, uint64_t *out);      /* element i (0 for scalars), any integer type, not negative */
bool gguf_float(const struct gguf_kv *kv, uint64_t i, double *out);       /* any number */
bool gguf_bool(const struct gguf_kv *kv, bool *out);
const char *gguf_string(const struct gguf_kv *kv, size_t *len);           /* not NUL-terminated */
/* Walks the strings of an array: start at gguf_strings(kv), ends with false. */
struct cursor gguf_strings(const struct gguf_kv *kv);
bool gguf_next_string(struct cursor *c, const char **s, size_t *len);
/* "Q4_K_M" for a general.file_type; NULL when unknown. */
const char *gguf_file_type_name(uint64_t n);

/*
 * Writing: put the keys, add the tensors, then gguf_header gives the bytes in
 * front of the data blob. Tensor data goes to header length + offset, each
 * tensor padded with zeros to the alignment. Running out of memory shows at gguf_header.
 */
struct gguf_writer {
	struct notes *notes;         /* takes what GGUF does not keep; may be NULL */
	struct strbuf kv, infos;
	uint64_t kv_count, tensor_count;
	uint64_t data_bytes;         /* padded size of the blob so far */
	struct map names;
	struct arena arena;
	/* an array of strings under construction */
	size_t array_at;
	uint64_t array_count;
};

void gguf_put_u16(struct gguf_writer *w, const char *key, uint16_t v);
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_i32(struct gguf_writer *w, const char *key, int32_t v);
void gguf_put_u64(struct gguf_writer *w, const char *key, uint64_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *s, size_t len);
void gguf_put_u32s(struct gguf_writer *w, const char *key, const uint32_t *v, size_t n);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n);
/* Begins an array of n bools, which gguf_array_bool then gives one by one. */
void gguf_put_bools(struct gguf_writer *w, const char *key, size_t n);
void gguf_array_bool(struct gguf_writer *w, bool v);
/* A key as it was read, value and all. */
void gguf_put_raw(struct gguf_writer *w, const struct gguf_kv *kv);
void gguf_begin_strings(struct gguf_writer *w, const char *key);
void gguf_array_string(struct gguf_writer *w, const char *s, size_t len);
void gguf_end_strings(struct gguf_writer *w);
/*
 * Adds a tensor by name, codec and shape; *offset gets its place in the data blob. ERR_UNSUPPORTED for a codec, a
 * name (over 63 bytes) or a shape (over 4 dimensions) that GGUF cannot hold; ERR_INPUT for a name used twice.
 */
int gguf_add_tensor(struct gguf_writer *w, const struct tensor *t, uint64_t *offset, struct err *e);
/* Appends the header, padded to where the data starts. */
int gguf_header(struct gguf_writer *w, struct strbuf *out, struct err *e);
void gguf_writer_release(struct gguf_writer *w);

#endif
