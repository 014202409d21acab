/* A whole .quire file: opening, reading every tensor and checking must end in success or an error, and read nothing outside. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[64];
	struct err e = { 0 };
	const struct format *f = format_find("quire");
	if (!*path)
		snprintf(path, sizeof path, "/tmp/quire-fuzz-%ld.quire", (long)getpid());
	FILE *out = fopen(path, "wb");
	if (!out || fwrite(data, 1, size, out) != size || fclose(out))
		abort();
	struct checkpoint c = { .format = f, .path = path };
	int rc = f->open(path, &c, &e);
	unlink(path);
	if (rc && !*e.message)
		abort();
	uint64_t total = 0;
	unsigned sum = 0;
	for (size_t i = 0; !rc && i < c.source->count; i++)
		total += c.source->tensors[i].nbytes;
	for (size_t i = 0; !rc && i < c.source->count && total < 64 << 20; i++) {
		struct tensor_bytes b;
		if (c.source->get(c.source, i, &b, &e))
			continue;
		if (b.size != c.source->tensors[i].nbytes)
			abort();
		for (size_t k = 0; k < b.size; k++)
			sum += b.data[k];
		tensor_bytes_release(&b);
	}
	if (!rc && total < 64 << 20)
		f->check(&c, NULL, NULL, &e);
	f->close(&c);
	arena_release(&c.arena);
	return sum == UINT32_MAX;
}
