/* A folder in compressed-tensors form: config.json, a zero byte, the safetensors file. Every tensor of what opens is joined and decoded. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/codec.h"
#include "formats/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64], config[96], weights[96];

static void put(const char *path, const uint8_t *data, size_t size)
{
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, size, f) != size || fclose(f))
		abort();
}

static void prepare(void)
{
	snprintf(folder, sizeof folder, "/tmp/quire-fuzz-ct-%ld", (long)getpid());
	snprintf(config, sizeof config, "%s/config.json", folder);
	snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
}

static unsigned read_all(const struct tensor_source *source)
{
	unsigned sum = 0;
	uint64_t total = 0;
	struct err e;
	for (size_t i = 0; i < source->count; i++)
		total += source->tensors[i].nbytes;
	for (size_t i = 0; i < source->count && total < 16 << 20; i++) {
		const struct tensor *t = &source->tensors[i];
		struct tensor_bytes b;
		if (source->get((struct tensor_source *)(uintptr_t)source, i, &b, &e))
			continue;
		if (b.size != t->nbytes)
			abort();
		for (size_t k = 0; k < b.size; k++)
			sum += b.data[k];
		float *row = t->codec->kind == CODEC_FLOAT || !tensor_cols(t) ? NULL : calloc((size_t)tensor_cols(t), sizeof *row);
		for (uint64_t r = 0; row && r < tensor_rows(t); r++)
			t->codec->decode(t->codec, b.data + r * codec_row_bytes(t->codec, tensor_cols(t)), row, (size_t)tensor_cols(t));
		free(row);
		tensor_bytes_release(&b);
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = memchr(data, 0, size);
	struct err e = { 0 };
	unsigned sum = 0;
	if (!zero)
		return 0;
	if (!*folder)
		prepare();
	if (mkdir(folder, 0700))
		abort();
	put(config, data, (size_t)(zero - data));
	put(weights, zero + 1, size - (size_t)(zero + 1 - data));
	struct checkpoint *c = NULL;
	int rc = checkpoint_open(folder, &c, &e);
	unlink(config);
	unlink(weights);
	rmdir(folder);
	if (rc && !*e.message)
		abort();
	if (!rc)
		sum = read_all(c->source);
	checkpoint_close(c);
	return sum == UINT32_MAX; /* so that the reads stay */
}
