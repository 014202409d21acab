#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/zip.h"
#include "formats/quire.h"

unsigned planes_of(const struct codec *c)
{
	static const struct { const char *codec; unsigned planes; } rows[] = { { "f32", 4 }, { "f16", 2 }, { "bf16", 2 } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!strcmp(rows[i].codec, c->name))
			return rows[i].planes;
	return 0;
}

size_t planes_bound(unsigned planes, size_t raw)
{
	return planes * zip_bound(raw / planes);
}

static void split(unsigned planes, const uint8_t *src, size_t words, uint8_t *dst)
{
	if (planes == 2) {
		for (size_t i = 0; i < words; i++) {
			unsigned w = load_u16(src + 2 * i);
			w = w << 1 | w >> 15;
			dst[i] = (uint8_t)w;
			dst[words + i] = (uint8_t)(w >> 8);
		}
		return;
	}
	for (size_t i = 0; i < words; i++) {
		uint32_t w = load_u32(src + 4 * i);
		w = w << 1 | w >> 31;
		for (unsigned p = 0; p < 4; p++)
			dst[p * words + i] = (uint8_t)(w >> 8 * p);
	}
}

static void join(unsigned planes, const uint8_t *src, size_t words, uint8_t *dst)
{
	if (planes == 2) {
		for (size_t i = 0; i < words; i++) {
			unsigned w = src[i] | (unsigned)src[words + i] << 8;
			store_u16(dst + 2 * i, (uint16_t)(w >> 1 | w << 15));
		}
		return;
	}
	for (size_t i = 0; i < words; i++) {
		uint32_t w = 0;
		for (unsigned p = 0; p < 4; p++)
			w |= (uint32_t)src[p * words + i] << 8 * p;
		store_u32(dst + 4 * i, w >> 1 | w << 31);
	}
}

size_t planes_pack(unsigned planes, const uint8_t *src, size_t raw, uint8_t *dst, uint32_t sizes[QUIRE_MAX_PLANES])
{
	size_t words = raw / planes, at = 0;
	uint8_t *plane = malloc(raw ? raw : 1);
	if (!plane)
		return 0;
	split(planes, src, words, plane);
	for (unsigned p = 0; p < planes; p++) {
		size_t n = zip_bound(words);
		if (zip_deflate(plane + p * words, words, ZIP_BYTES, dst + at, &n, NULL) || n >= words) {
			/* mantissas are noise: stored, told apart by the size */
			memcpy(dst + at, plane + p * words, words);
			n = words;
		}
		sizes[p] = (uint32_t)n;
		at += n;
	}
	free(plane);
	return at;
}

int planes_unpack(unsigned planes, const uint8_t *src, const uint32_t sizes[QUIRE_MAX_PLANES], uint8_t *dst, size_t raw,
		  struct err *e)
{
	size_t words = raw / planes;
	int rc = ERR_OK;
	uint8_t *plane = malloc(raw ? raw : 1);
	if (!plane)
		return err_nomem(e);
	for (unsigned p = 0; p < planes && !rc; p++) {
		if (sizes[p] == words)
			memcpy(plane + p * words, src, words);
		else
			rc = zip_inflate(src, sizes[p], plane + p * words, words, e);
		src += sizes[p];
	}
	if (!rc)
		join(planes, plane, words, dst);
	free(plane);
	return rc;
}
