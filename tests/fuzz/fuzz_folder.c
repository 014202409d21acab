/* A Hugging Face folder: config, index, shards, tokenizer and settings, in the list of files that memory.h describes. */
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory m;
	memory_set(&m, data, size);
	memory_checkpoint(MEMORY_ROOT);
	memory_clear(&m);
	return 0;
}
