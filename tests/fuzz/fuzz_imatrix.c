/* Importance matrices: what is accepted is written in both forms and read back equal. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct imatrix *m)
{
	struct imatrix again;
	struct strbuf out = { 0 };
	struct err e;
	if (!imatrix_print_gguf(m, &out, &e)) {
		if (imatrix_parse(&again, out.data, out.len, &e) || again.count != m->count)
			abort();
		imatrix_release(&again);
	}
	strbuf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e;
	struct imatrix m;
	if (imatrix_parse(&m, data, size, &e))
		return 0;
	for (size_t i = 0; i < m.count; i++)
		for (size_t k = 0; k < m.entries[i].n * m.entries[i].mats; k++)
			if (!(m.entries[i].sum_squares[k] >= 0))
				abort();
	round_trip(&m);
	imatrix_release(&m);
	return 0;
}
