#include "base/zip.h"

#include <limits.h>
#include <zlib.h>

#include "base/thread.h"

/* A piece of a checksum that a worker takes: large against the cost of combining (microseconds). */
enum { CRC_PIECE = 1 << 20, CRC_BATCH = 64 };

struct crc_job {
	const uint8_t *data;
	size_t size;
	uint32_t crc[CRC_BATCH];
};

static uint32_t crc_serial(uint32_t crc, const uint8_t *p, size_t n)
{
	uLong c = crc;
	for (; n > CRC_PIECE; p += CRC_PIECE, n -= CRC_PIECE)
		c = crc32(c, p, CRC_PIECE);
	return (uint32_t)crc32(c, p, (uInt)n);
}

static void crc_piece(void *arg, size_t item, int worker)
{
	struct crc_job *j = arg;
	(void)worker;
	size_t at = item * CRC_PIECE, n = j->size - at < CRC_PIECE ? j->size - at : CRC_PIECE;
	j->crc[item] = crc_serial(0, j->data + at, n);
}

uint32_t zip_crc32(uint32_t crc, const void *data, size_t size)
{
	const uint8_t *p = data;
	if (size < 2 * CRC_PIECE || thread_count() == 1)
		return crc_serial(crc, p, size);
	while (size) {
		struct crc_job j = { .data = p, .size = size < (size_t)CRC_BATCH * CRC_PIECE ? size : (size_t)CRC_BATCH * CRC_PIECE };
		size_t pieces = (j.size + CRC_PIECE - 1) / CRC_PIECE;
		thread_for(pieces, crc_piece, &j);
		for (size_t i = 0; i < pieces; i++)
			crc = zip_crc32_combine(crc, j.crc[i], i + 1 < pieces ? CRC_PIECE : j.size - i * CRC_PIECE);
		p += j.size;
		size -= j.size;
	}
	return crc;
}

uint32_t zip_crc32_combine(uint32_t a, uint32_t b, uint64_t size_b)
{
	return (uint32_t)crc32_combine(a, b, (z_off_t)size_b);
}

size_t zip_bound(size_t n)
{
	return (size_t)compressBound((uLong)n) + 64;
}

int zip_deflate(const void *src, size_t n, enum zip_kind kind, void *dst, size_t *dst_size, struct err *e)
{
	if (n > UINT_MAX || *dst_size > UINT_MAX)
		return err_set(e, ERR_UNSUPPORTED, "cannot deflate %zu bytes at once", n);
	z_stream z = { 0 };
	int level = kind == ZIP_TEXT ? 6 : 4, strategy = kind == ZIP_TEXT ? Z_DEFAULT_STRATEGY : Z_RLE;
	if (deflateInit2(&z, level, Z_DEFLATED, 15, kind == ZIP_TEXT ? 8 : 9, strategy) != Z_OK)
		return err_nomem(e);
	z.next_in = (Bytef *)(uintptr_t)src;
	z.avail_in = (uInt)n;
	z.next_out = dst;
	z.avail_out = (uInt)*dst_size;
	int rc = deflate(&z, Z_FINISH);
	*dst_size = z.total_out;
	deflateEnd(&z);
	return rc == Z_STREAM_END ? ERR_OK : err_set(e, ERR_BUG, "deflated data needs more than its bound");
}

int zip_inflate(const void *src, size_t n, void *dst, size_t size, struct err *e)
{
	static uint8_t none;
	if (n > UINT_MAX || size > UINT_MAX)
		return err_set(e, ERR_UNSUPPORTED, "cannot inflate %zu bytes at once", size);
	z_stream z = { .next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)n };
	if (inflateInit(&z) != Z_OK)
		return err_nomem(e);
	z.next_out = size ? dst : &none;
	z.avail_out = (uInt)size;
	int rc = inflate(&z, Z_FINISH);
	size_t got = z.total_out, left = z.avail_in;
	inflateEnd(&z);
	if (rc == Z_MEM_ERROR)
		return err_nomem(e);
	if (rc == Z_STREAM_END && got == size && !left)
		return ERR_OK;
	if (rc == Z_STREAM_END)
		return err_set(e, ERR_INPUT, "deflated data holds %zu bytes and %zu after them, %zu expected", got, left, size);
	if (rc == Z_BUF_ERROR && got == size)
		return err_set(e, ERR_INPUT, "deflated data is longer than the %zu bytes expected, or cut off", size);
	return err_set(e, ERR_INPUT, "deflated data is damaged or cut off after %zu of %zu bytes", got, size);
}

static int gunzip_member(z_stream *z, struct strbuf *out, size_t start, size_t limit, struct err *e)
{
	uint8_t buf[1 << 14];
	int rc = Z_OK;
	while (rc != Z_STREAM_END) {
		z->next_out = buf;
		z->avail_out = sizeof buf;
		rc = inflate(z, Z_NO_FLUSH);
		if (rc == Z_MEM_ERROR)
			return err_nomem(e);
		if (rc != Z_OK && rc != Z_STREAM_END)
			return err_set(e, ERR_INPUT, "gzip data is damaged or cut off after %zu bytes", out->len - start);
		size_t got = sizeof buf - z->avail_out;
		if (got > limit - (out->len - start))
			return err_set(e, ERR_INPUT, "gzip data inflates to more than %zu bytes", limit);
		strbuf_add(out, buf, got);
		if (out->failed)
			return err_nomem(e);
	}
	return ERR_OK;
}

int zip_gunzip(const void *src, size_t n, struct strbuf *out, size_t limit, struct err *e)
{
	if (n > UINT_MAX)
		return err_set(e, ERR_UNSUPPORTED, "gzip data of %zu bytes", n);
	z_stream z = { .next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)n };
	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return err_nomem(e);
	size_t start = out->len;
	int rc = gunzip_member(&z, out, start, limit, e);
	while (!rc && z.avail_in) {
		if (inflateReset(&z) != Z_OK)
			rc = err_nomem(e);
		else
			rc = gunzip_member(&z, out, start, limit, e);
	}
	inflateEnd(&z);
	return rc;
}
