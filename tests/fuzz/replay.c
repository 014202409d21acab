/* Runs a fuzz target over files instead of a fuzzer: for compilers without libFuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t size = 0, n;
	static uint8_t piece[65536];
	if (!f)
		return perror(path), 1;
	while ((n = fread(piece, 1, sizeof piece, f)) > 0) {
		uint8_t *more = realloc(data, size + n);
		if (!more)
			abort();
		data = more;
		for (size_t i = 0; i < n; i++)
			data[size + i] = piece[i];
		size += n;
	}
	fclose(f);
	/* a copy of exactly this size, so that the address sanitizer sees a read past its end */
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]))
			return 1;
	printf("replayed %d\n", argc - 1);
	return 0;
}
