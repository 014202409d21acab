#ifndef QUIRE_FUZZ_MEMORY_H
#define QUIRE_FUZZ_MEMORY_H
/*
 * Files in memory, for targets that open several: everything under MEMORY_ROOT is looked for here and never on the disk,
 * each file in a block of exactly its size, so that the address sanitizer sees a read past its end. The linker puts
 * these functions in the place of those of formats/file.h (--wrap, in tests/fuzz/run).
 *
 * An input is a list of files: a line of '@' and a name, then the bytes up to the next such line. What comes before the
 * first of them is a file named "0".
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/checkpoint.h"

#define MEMORY_ROOT "/memory"

enum { MEMORY_FILES = 12, MEMORY_NAME = 80 };

struct memory_file {
	char path[MEMORY_NAME + sizeof MEMORY_ROOT + 1];
	uint8_t *data;
	size_t size;
};
struct memory {
	struct memory_file file[MEMORY_FILES];
	size_t count;
};

/* Takes the input apart; until memory_clear its files can be opened. */
void memory_set(struct memory *m, const uint8_t *data, size_t size);
void memory_clear(struct memory *m);

/* Opens a checkpoint and everything in it: config, tokenizer, every tensor's bytes, decoded; checksums, if it has any. */
void memory_checkpoint(const char *path);

#endif
