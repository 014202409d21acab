/* Model files, one or split over several (memory.h describes the list): the first is opened as the command line would. */
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory m;
	memory_set(&m, data, size);
	if (m.count)
		memory_checkpoint(m.file[0].path);
	memory_clear(&m);
	return 0;
}
