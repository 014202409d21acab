/* include/quire_read.h: whatever the file says, nothing beyond its bytes is read, and what opens can be decoded. */
#include <stdlib.h>

#define QUIRE_READ_ZLIB
#define QUIRE_READ_STATIC
#define QUIRE_READ_IMPLEMENTATION
#include "include/quire_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 14 }; /* decoded or inflated at once: what is larger costs time and finds no more */

static unsigned decode(const struct quire_read_tensor *t)
{
	unsigned sum = 0;
	if (t->rows * t->cols > MOST / sizeof(float) || t->bytes > MOST)
		return 0;
	float *x = malloc((size_t)(t->rows * t->cols) * sizeof *x + 1);
	uint8_t *bytes = malloc((size_t)t->bytes + 1);
	if (!x || !bytes)
		abort();
	if (!quire_read_rows(t, 0, t->rows, x))
		for (uint64_t i = 0; i < t->rows * t->cols; i++)
			sum += x[i] > 0;
	/* the later half of the rows comes out the same by itself */
	uint64_t first = t->rows / 2;
	float *y = malloc((size_t)((t->rows - first) * t->cols) * sizeof *y + 1);
	if (!y)
		abort();
	if (!quire_read_rows(t, 0, t->rows, x) && (quire_read_rows(t, first, t->rows - first, y) ||
	    (t->rows && memcmp(x + first * t->cols, y, (size_t)((t->rows - first) * t->cols) * sizeof *y))))
		abort();
	if (!quire_read_bytes(t, 0, t->rows, bytes))
		for (uint64_t i = 0; i < t->bytes; i++)
			sum += bytes[i];
	free(x);
	free(y);
	free(bytes);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct quire_read q;
	unsigned sum = 0;
	if (quire_read_memory(&q, data, size)) {
		if (!q.error)
			abort();
		return 0;
	}
	for (size_t i = 0; i < q.tensor_count; i++) {
		if (quire_read_find(&q, q.tensors[i].name) != &q.tensors[i])
			abort();
		sum += decode(&q.tensors[i]);
	}
	for (size_t i = 0; i < q.file_count; i++) {
		char *text = q.files[i].size <= MOST ? malloc((size_t)q.files[i].size + 1) : NULL;
		if (text && !quire_read_inflate(&q.files[i], text) && q.files[i].size)
			sum += (unsigned char)text[q.files[i].size - 1];
		free(text);
	}
	quire_read_check(&q);
	quire_read_close(&q);
	return sum == UINT32_MAX; /* so that the reads stay */
}
