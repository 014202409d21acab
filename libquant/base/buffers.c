#include "base/buffers.h"

#include <stdlib.h>
#include <string.h>

int buffers_take(const struct buffer *b, size_t count, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < count; i++) {
		void *p = rc ? NULL : calloc(b[i].n ? b[i].n : 1, b[i].size);
		memcpy(b[i].at, &p, sizeof p); /* a pointer of whatever type */
		if (!p && !rc)
			rc = err_nomem(e);
	}
	return rc;
}

uint64_t buffers_size(const struct buffer *b, size_t count)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += (uint64_t)b[i].n * b[i].size;
	return sum;
}
