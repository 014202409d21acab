#ifndef QUIRE_BASE_BUFFERS_H
#define QUIRE_BASE_BUFFERS_H
/* Buffers as a table: they are taken by its rows, and how much memory that is is said by the same rows. */
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct buffer {
	void *at;        /* the pointer that gets it */
	size_t n, size;  /* so many elements of this size */
};
/* Zeroed. What was taken is where the rows say, whether or not all could be: the caller frees it. */
int buffers_take(const struct buffer *b, size_t count, struct err *e);
uint64_t buffers_size(const struct buffer *b, size_t count);

#endif
