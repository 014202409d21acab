/*
 * Parts of a run that are put together: of `verify` when a file begins as one, else of `calibrate`, statistics or
 * importance matrices. Checksums would stop every mutation, so those of verify's parts are made here: a file is the
 * header's JSON, a NUL, and for each window a length in two bytes and its figures.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "base/bytes.h"
#include "base/zip.h"
#include "calib/judge/verify_part.h"
#include "calib/stats/stats.h"
#include "tests/fuzz/memory.h"

enum { HEAD = 7 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_u32(struct strbuf *b, uint32_t v)
{
	uint8_t raw[4];
	store_u32(raw, v);
	strbuf_add(b, raw, 4);
}

/* A zlib stream of one stored block: zlib would fill its tables anew for each. n is below 65536. */
static void put_block(struct strbuf *b, const uint8_t *raw, size_t n)
{
	uint8_t head[HEAD] = { 0x78, 0x01, 1, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8) }, tail[4];
	uint32_t sum = (uint32_t)adler32(1, raw, (uInt)n), crc;
	for (int i = 0; i < 4; i++)
		tail[i] = (uint8_t)(sum >> (24 - 8 * i));
	crc = zip_crc32_combine(zip_crc32(0, head, HEAD), zip_crc32(0, raw, n), n);
	crc = zip_crc32_combine(crc, zip_crc32(0, tail, sizeof tail), sizeof tail);
	put_u32(b, (uint32_t)(HEAD + n + sizeof tail));
	put_u32(b, (uint32_t)n);
	put_u32(b, crc);
	strbuf_add(b, head, HEAD);
	strbuf_add(b, raw, n);
	strbuf_add(b, tail, sizeof tail);
}

/* The file that the description stands for, in its place. */
static void make_part(struct memory_file *f)
{
	struct strbuf b = { 0 };
	const uint8_t *nul = memchr(f->data, 0, f->size), *end = f->data + f->size, *at = nul ? nul + 1 : end;
	size_t n = (size_t)((nul ? nul : end) - f->data);
	strbuf_add(&b, "quirepar", 8);
	put_u32(&b, (uint32_t)n);
	put_u32(&b, zip_crc32(0, f->data, n));
	strbuf_add(&b, f->data, n);
	while (end - at >= 2) {
		size_t len = load_u16(at);
		at += 2;
		len = len < (size_t)(end - at) ? len : (size_t)(end - at);
		put_block(&b, at, len);
		at += len;
	}
	if (b.failed)
		abort();
	free(f->data);
	f->data = malloc(b.len);
	if (!f->data)
		abort();
	memcpy(f->data, b.data, b.len);
	f->size = b.len;
	strbuf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char out[64];
	struct memory m;
	const char *paths[MEMORY_FILES];
	struct run_id id;
	struct measurement figures;
	struct err e = { 0 };
	int rc = 0;
	memory_set(&m, data, size);
	bool verify = m.count && m.file[0].size && m.file[0].data[0] == '{';
	for (size_t i = 0; i < m.count; i++) {
		paths[i] = m.file[i].path;
		if (verify)
			make_part(&m.file[i]);
	}
	if (!*out)
		snprintf(out, sizeof out, "/dev/shm/quire-fuzz-%ld", (long)getpid());
	if (verify && !(rc = verify_part_merge(paths, m.count, &id, &figures, &e)))
		measurement_release(&figures);
	else if (!verify && m.count && m.file[0].size > 8 && m.file[0].data[8] == '{')
		rc = stats_merge(paths, m.count, out, &e);
	else if (!verify && m.count)
		rc = imatrix_merge(paths, m.count, out, &e);
	if (rc && !*e.message)
		abort();
	if (!rc && !verify)
		unlink(out);
	memory_clear(&m);
	return 0;
}
