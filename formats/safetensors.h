#ifndef QUIRE_FORMATS_SAFETENSORS_H
#define QUIRE_FORMATS_SAFETENSORS_H
/*
 * One safetensors file: u64 header length N, JSON header of N bytes, byte
 * buffer. Specification: the format section of github.com/huggingface/safetensors.
 * Every rule is enforced, and beyond the reference reader: no name twice, the
 * header begins with '{', tensor names hold no control characters.
 *
 * Shared by the Hugging Face reader and writer and by .quire, which is a
 * safetensors file whose metadata says more.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/strbuf.h"
#include "formats/checkpoint.h"
#include "tensor/tensor.h"

enum { ST_HEADER_MAX = 100000000 };   /* the format's own limit */

/* In the ascending order that the canonical writer sorts by. */
struct st_dtype {
	const char *name;
	unsigned bits;
};
extern const struct st_dtype st_dtypes[];
extern const unsigned st_dtype_count;
const struct st_dtype *st_dtype_find(const char *name);

struct st_entry {
	const char *name;
	const struct st_dtype *dtype;
	uint32_t ndim;
	uint64_t dim[TENSOR_MAX_DIMS];
	uint64_t begin, end;             /* in the byte buffer */
};

struct st_file {
	struct st_entry *entries;        /* in buffer order */
	size_t count;
	struct fact *meta;               /* __metadata__, in file order */
	size_t meta_count;
	const uint8_t *data;             /* the byte buffer, inside what was parsed; any alignment */
	uint64_t data_size;
	struct arena arena;              /* names and metadata */
};

/*
 * Parses a whole file in memory, which must outlive *f. Messages name tensor
 * and reason; callers put the file in front (err_prefix). ERR_INPUT for broken
 * rules; ERR_UNSUPPORTED for unknown dtypes and more than TENSOR_MAX_DIMS dimensions.
 */
int st_parse(struct st_file *f, const uint8_t *bytes, size_t size, struct err *e);
void st_release(struct st_file *f);
const char *st_meta(const struct st_file *f, const char *key);   /* NULL when missing */

/* Turns an entry into a tensor; ERR_UNSUPPORTED when no codec stands for its dtype. The name is borrowed. */
int st_tensor(const struct st_entry *entry, struct tensor *out, struct err *e);

/* What a header lists. */
struct st_listing {
	const struct st_entry *entries;
	size_t count;
	const struct fact *meta;
	size_t meta_count;
};
/*
 * Appends the length and the header of entries in buffer order, padded so
 * that the byte buffer begins at a multiple of align (8 is the custom).
 * Metadata keys are written in the order given.
 */
int st_header(struct strbuf *out, const struct st_listing *l, uint64_t align, struct err *e);
/* Sorts as the reference writer does (dtype descending, then name) and fills begin and end from 0. ERR_UNSUPPORTED on overflow. */
int st_layout(struct st_entry *entries, size_t count, struct err *e);

#endif
