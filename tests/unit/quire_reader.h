/* Written from docs/formats/quire.md alone. Trusts the file, and finds things in the JSON by searching for text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
struct mini { unsigned char *file; size_t size; char *header, *manifest; unsigned char *data; };

static int mini_open(struct mini *m, const char *path)
{
	FILE *f = fopen(path, "rb");
	size_t n = 0;
	if (!f || fseek(f, 0, SEEK_END) || !(m->file = malloc((m->size = (size_t)ftell(f)) + 1)) || fseek(f, 0, SEEK_SET) ||
	    fread(m->file, 1, m->size, f) != m->size || fclose(f))
		return -1;
	for (int i = 7; i >= 0; i--)
		n = n << 8 | m->file[i];
	m->data = m->file + 8 + n;
	m->header = memcpy(calloc(n + 1, 1), m->file + 8, n);
	char *p = strstr(m->header, "\"quire.manifest\":\"") + 18, *q = m->manifest = calloc(n + 1, 1);
	for (; *p != '"'; p++)
		*q++ = *p == '\\' ? *++p : *p;   /* names with other escapes are not for this reader */
	return strncmp(m->header, "{\"__metadata__\":{\"quire\":\"1\",", 29) ? -1 : 0;
}

/* The uncompressed bytes of a tensor (malloc'ed), their size and whether the checksum agrees. */
static unsigned char *mini_tensor(const struct mini *m, const char *name, size_t raw, size_t *at, int *good)
{
	char key[300], *info, *entry;
	snprintf(key, sizeof key, "\"%s\":{\"dtype\"", name);
	entry = strstr(strstr(m->header, "]}\"},"), key);   /* behind the metadata */
	size_t begin = strtoull(strstr(entry, "data_offsets\":[") + 15, &entry, 10), end = strtoull(entry + 1, NULL, 10);
	snprintf(key, sizeof key, "{\"name\":\"%s\"", name);
	info = strstr(m->manifest, key);
	unsigned char *src = m->data + begin, *dst = malloc(raw + 1), plane[1 << 20];
	char *planes = strstr(info, "\"planes\":"), *close = strchr(info, '}');
	unsigned w = planes && planes < close ? (unsigned)atoi(planes + 9) : 0;
	size_t chunks = (raw + 1048575) / 1048576, used = 4 * chunks * w;
	*at = (size_t)(src - m->file);
	used = w ? used : raw;
	memcpy(dst, src, w ? 0 : raw);
	for (size_t b = 0; b < chunks * w; b++) {
		size_t start = b / w * 1048576, words = (raw - start < 1048576 ? raw - start : 1048576) / w;
		const unsigned char *x = src + 4 * b;
		uLongf got = sizeof plane, size = x[0] | (uLongf)x[1] << 8 | (uLongf)x[2] << 16 | (uLongf)x[3] << 24;
		if (size == words)
			memcpy(plane, src + used, words);
		else if (uncompress(plane, &got, src + used, size) != Z_OK || got != words)
			return NULL;
		used += size;
		for (size_t i = 0; i < words; i++)
			dst[start + i * w + b % w] = plane[i];
	}
	for (size_t i = 0; w && i + w <= raw; i += w) {   /* undo the rotation */
		unsigned low = dst[i] & 1;
		for (unsigned k = 0; k < w; k++)
			dst[i + k] = (unsigned char)(dst[i + k] >> 1 | (k + 1 < w ? (dst[i + k + 1] & 1u) : low) << 7);
	}
	*good = used == end - begin && crc32(0, dst, (uInt)raw) == strtoul(strstr(info, "crc32\":\"") + 8, NULL, 16);
	return dst;
}
