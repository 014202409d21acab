/*
 * quire_read.h - reads .quire, a file that holds a language model for a device. One header, C99 or C++, no dependency but
 * zlib where you want what is deflated. The format: docs/formats/quire.md; the bytes of each codec: docs/formats/codecs.md.
 *
 *	#define QUIRE_READ_IMPLEMENTATION      in one file of your program
 *	#define QUIRE_READ_ZLIB                with zlib: side files, and tensors that were packed with --compress; link -lz
 *	#include "quire_read.h"
 *
 *	struct quire_read q;
 *	if (quire_read_open(&q, "model.quire"))
 *		return fprintf(stderr, "%s %s\n", q.culprit, q.error), 1;
 *	const struct quire_read_tensor *t = quire_read_find(&q, "model.norm.weight");
 *	if (t && t->rows == 1 && t->cols == 256 && !quire_read_rows(t, 0, t->rows, norm)) ...
 *	quire_read_close(&q);
 *
 * Nothing in a file is trusted: opening checks every offset, size, count and shape, and the manifest's checksum. The checksums of
 * tensors and files are compared when you ask for it (quire_read_check), which reads the whole file once; do that after a download.
 *
 * Memory: opening takes one block, of about 200 bytes a tensor and the length of the manifest, which closing gives back.
 * Inflating lends four blocks at most, of about 40 KiB each. Both by QUIRE_READ_MALLOC and QUIRE_READ_FREE, which you may define.
 * Tensors and files point into the mapped file; decoding needs about 10 KiB of stack.
 *
 * An open file may be read from any number of threads. Values are those that quire itself computes, to the bit; expressions are such
 * that a compiler which contracts a * b + c changes none. On any byte order, where float is IEEE's.
 *
 * Also: QUIRE_READ_STATIC makes all functions static; QUIRE_READ_NO_FILES leaves quire_read_open out, for machines without files.
 */
#ifndef QUIRE_READ_H
#define QUIRE_READ_H
#include <stddef.h>
#include <stdint.h>

#if defined QUIRE_READ_STATIC && defined __GNUC__
#define QUIRE_READ_API static __attribute__((unused))
#elif defined QUIRE_READ_STATIC
#define QUIRE_READ_API static
#else
#define QUIRE_READ_API extern
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* What functions return; the numbers are the exit codes of quire's commands. */
enum {
	QUIRE_READ_OK = 0,
	QUIRE_READ_USAGE = 2,       /* rows that the tensor does not have */
	QUIRE_READ_DAMAGED = 3,     /* not a .quire file, cut off, or damaged */
	QUIRE_READ_IO = 4,
	QUIRE_READ_UNSUPPORTED = 5, /* of a later version, or deflated and this was compiled without zlib */
	QUIRE_READ_MEMORY = 6,
};
enum { QUIRE_READ_DIMS = 8 };

struct quire_read_tensor {
	const char *name;
	const char *codec;                  /* "q4_k", "int4-g64", "bf16" ... */
	unsigned ndim;                      /* 0: a scalar */
	uint64_t shape[QUIRE_READ_DIMS];
	uint64_t rows, cols;                /* a row is the last dimension; without any element rows is 0 */
	uint64_t row_bytes, bytes;          /* in its codec: rows * row_bytes */
	const uint8_t *stored;              /* the rows, one after the other, 64-byte aligned in the file; deflated if planes */
	uint64_t stored_size;
	unsigned planes;                    /* 2 or 4: stored as byte planes; 0: as it is */
	uint32_t crc32;                     /* of bytes */
	const struct qrd_codec *how;        /* from here on: the reader's own */
	uint32_t group;
	uint8_t bits, zero_point, bias, bf16;
};

/* A file of the model's folder: config.json, tokenizer.json ... */
struct quire_read_file {
	const char *name;
	uint64_t size;
	const uint8_t *stored;              /* deflated */
	uint64_t stored_size;
	uint32_t crc32;                     /* inflated */
};

struct quire_read {
	const struct quire_read_tensor *tensors;   /* in the manifest's order */
	size_t tensor_count;
	const struct quire_read_file *files;
	size_t file_count;
	const char *error;                  /* what was wrong, when opening or checking failed, else NULL */
	char culprit[80];                   /* the tensor or file that it was about, cut to fit; may be empty */
	const uint8_t *bytes, *data;        /* from here on: the reader's own */
	uint64_t size, data_size;
	void *block;
	struct qrd_entry *entries;
	size_t entry_count;
	int owned;
};

/* After a failure there is nothing to close, but closing does no harm. */
#ifndef QUIRE_READ_NO_FILES
QUIRE_READ_API int quire_read_open(struct quire_read *q, const char *path);   /* mapped on POSIX, else read into memory */
#endif
QUIRE_READ_API int quire_read_memory(struct quire_read *q, const void *bytes, size_t size);   /* which must outlive q */
QUIRE_READ_API void quire_read_close(struct quire_read *q);

QUIRE_READ_API const struct quire_read_tensor *quire_read_find(const struct quire_read *q, const char *name);   /* NULL: none */
QUIRE_READ_API const struct quire_read_file *quire_read_find_file(const struct quire_read *q, const char *name);

/*
 * Decodes `count` rows from row `first` on into count * cols floats. Numbers that f32 cannot hold are rounded to nearest.
 * Of a tensor in planes a call may inflate up to 1 MiB before its first row: ask for many rows at a time.
 */
QUIRE_READ_API int quire_read_rows(const struct quire_read_tensor *t, uint64_t first, uint64_t count, float *out);
/* The same rows in their codec, count * row_bytes bytes. Without planes they are also at t->stored + first * row_bytes. */
QUIRE_READ_API int quire_read_bytes(const struct quire_read_tensor *t, uint64_t first, uint64_t count, void *out);
/* Inflates a file into its `size` bytes and compares the checksum. */
QUIRE_READ_API int quire_read_inflate(const struct quire_read_file *f, void *out);

/* Compares the checksum of a tensor; of everything there is (files only with zlib), q->error and q->culprit saying what failed. */
QUIRE_READ_API int quire_read_check_tensor(const struct quire_read_tensor *t);
QUIRE_READ_API int quire_read_check(struct quire_read *q);

#ifdef __cplusplus
}
#endif
#endif /* QUIRE_READ_H */

#ifdef QUIRE_READ_IMPLEMENTATION
#undef QUIRE_READ_IMPLEMENTATION
#include <string.h>

#ifndef QUIRE_READ_MALLOC
#include <stdlib.h>
#define QUIRE_READ_MALLOC(size) malloc(size)
#define QUIRE_READ_FREE(p) free(p)
#endif
#ifdef QUIRE_READ_ZLIB
#include <zlib.h>
#endif
#ifndef QUIRE_READ_NO_FILES
#if defined(__unix__) || defined(__APPLE__)
#define QRD_MMAP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <stdio.h>
#endif
#endif

#define QRD_CHUNK 1048576u           /* bytes that a set of blocks of planes holds */
#define QRD_BATCH 1024u              /* words put together from planes at a time */
enum {
	QRD_HEADER_MAX = 100000000,  /* safetensors' own limit */
	QRD_ALIGN = 64,
	QRD_RATIO = 1032,            /* deflate cannot do more */
	QRD_FILES_MAX = 1 << 29,
	QRD_DEPTH = 32               /* of members that mean nothing here */
};

/* ---- numbers: bytes in, floats out ---- */

static uint32_t qrd_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t qrd_u32(const uint8_t *p) { return qrd_u16(p) | qrd_u16(p + 2) << 16; }
static uint64_t qrd_u64(const uint8_t *p) { return qrd_u32(p) | (uint64_t)qrd_u32(p + 4) << 32; }
static int qrd_s8(unsigned b) { return (int)(b & 127) - (int)(b & 128); }

static float qrd_float(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

/* A small float of e and m bits; the top exponent is infinity or NaN. Numbers below the normal ones are exact as well. */
static float qrd_small(uint32_t sign, uint32_t magnitude, unsigned m, uint32_t bias)
{
	uint32_t bits = magnitude << (23 - m), low = (1u << m) - 1;
	if (magnitude >> m)
		bits += (127 - bias) << 23;
	else {
		float f = (float)(magnitude & low) * qrd_float((128 - bias - m) << 23);
		memcpy(&bits, &f, 4);
	}
	return qrd_float(bits | sign << 31);
}

static float qrd_half(uint32_t h)
{
	if ((h & 0x7c00) == 0x7c00)
		return qrd_float((h & 0x8000) << 16 | 0x7f800000 | (h & 0x3ff) << 13 | (h & 0x3ff ? 0x400000u : 0));
	return qrd_small(h >> 15, h & 0x7fff, 10, 15);
}

static float qrd_f16(const uint8_t *p) { return qrd_half(qrd_u16(p)); }
static float qrd_bf16(const uint8_t *p) { return qrd_float(qrd_u16(p) << 16); }
static float qrd_e5m2(const uint8_t *p) { return qrd_half((uint32_t)*p << 8); }
static float qrd_e4m3(const uint8_t *p)
{
	return (*p & 127) == 127 ? qrd_float((uint32_t)(*p & 128) << 24 | 0x7fc00000) : qrd_small(*p >> 7, *p & 127, 3, 7);
}
static float qrd_f64(const uint8_t *p)
{
	uint64_t u = qrd_u64(p);
	double d;
	memcpy(&d, &u, 8);
	return (float)d;
}
static float qrd_i16(const uint8_t *p) { return (float)((int)(qrd_u16(p) & 0x7fff) - (int)(qrd_u16(p) & 0x8000)); }
static float qrd_i32(const uint8_t *p)
{
	uint32_t u = qrd_u32(p);
	int32_t v;
	memcpy(&v, &u, 4);
	return (float)v;
}
static float qrd_i64(const uint8_t *p)
{
	uint64_t u = qrd_u64(p);
	int64_t v;
	memcpy(&v, &u, 8);
	return (float)v;
}

#define QRD_PLAIN(NAME, BYTES, VALUE) \
	static void qrd_##NAME##_row(const uint8_t *s, float *x, uint64_t n) \
	{ \
		for (; n; n--, s += BYTES, x++) \
			*x = VALUE; \
	}
QRD_PLAIN(f16, 2, qrd_f16(s))
QRD_PLAIN(bf16, 2, qrd_bf16(s))
QRD_PLAIN(f64, 8, qrd_f64(s))
QRD_PLAIN(e4m3, 1, qrd_e4m3(s))
QRD_PLAIN(e5m2, 1, qrd_e5m2(s))
QRD_PLAIN(i8, 1, (float)qrd_s8(*s))
QRD_PLAIN(i16, 2, qrd_i16(s))
QRD_PLAIN(i32, 4, qrd_i32(s))
QRD_PLAIN(i64, 8, qrd_i64(s))
QRD_PLAIN(u8, 1, (float)*s)
QRD_PLAIN(u16, 2, (float)qrd_u16(s))
QRD_PLAIN(u32, 4, (float)qrd_u32(s))
QRD_PLAIN(u64, 8, (float)qrd_u64(s))
QRD_PLAIN(bool, 1, *s ? 1.0f : 0.0f)

/* The bits, untouched: a float that is only passed on may be changed by some machines. */
static void qrd_f32_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n--, s += 4, x++) {
		uint32_t u = qrd_u32(s);
		memcpy(x, &u, 4);
	}
}

/*
 * Blocks of GGUF. Products are exact in f32 (a half has 11 bits, the factors at most 6 and 5), so each value is rounded once,
 * whether the compiler contracts or not.
 */
static const int8_t qrd_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t qrd_fp4[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static unsigned qrd_nibble(const uint8_t *qs, unsigned i) { return i < 16 ? qs[i] & 15u : qs[i - 16] >> 4; }

static void qrd_q8_0_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 32, s += 34)
		for (unsigned i = 0; i < 32; i++)
			*x++ = qrd_f16(s) * (float)qrd_s8(s[2 + i]);
}

/* q4_0, q4_1, q5_0, q5_1: an offset or half the codes' range off, a fifth bit or none. */
static void qrd_legacy(const uint8_t *s, float *x, uint64_t n, int offset, int fifth)
{
	for (; n; n -= 32) {
		float d = qrd_f16(s), m = offset ? qrd_f16(s + 2) : 0;
		uint32_t high = fifth ? qrd_u32(s + 2 + 2 * offset) : 0;
		const uint8_t *qs = s + 2 + 2 * offset + 4 * fifth;
		for (unsigned i = 0; i < 32; i++) {
			int q = (int)(qrd_nibble(qs, i) | (high >> i & 1) << 4);
			*x++ = offset ? d * (float)q + m : d * (float)(q - (fifth ? 16 : 8));
		}
		s = qs + 16;
	}
}
static void qrd_q4_0_row(const uint8_t *s, float *x, uint64_t n) { qrd_legacy(s, x, n, 0, 0); }
static void qrd_q4_1_row(const uint8_t *s, float *x, uint64_t n) { qrd_legacy(s, x, n, 1, 0); }
static void qrd_q5_0_row(const uint8_t *s, float *x, uint64_t n) { qrd_legacy(s, x, n, 0, 1); }
static void qrd_q5_1_row(const uint8_t *s, float *x, uint64_t n) { qrd_legacy(s, x, n, 1, 1); }

static void qrd_iq4_nl_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 32, s += 18)
		for (unsigned i = 0; i < 32; i++)
			*x++ = qrd_f16(s) * (float)qrd_iq4[qrd_nibble(s + 2, i)];
}

static void qrd_mxfp4_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 32, s += 17) {
		float d = qrd_float(*s > 1 ? (*s - 1u) << 23 : 0x200000u << *s);   /* 2^(e - 128) */
		for (unsigned i = 0; i < 32; i++)
			*x++ = d * (float)qrd_fp4[qrd_nibble(s + 1, i)];
	}
}

/* Two bits of element i, as q2_k and q3_k keep them; the bit of a mask of 32 bytes, as q3_k and q5_k do. */
static unsigned qrd_two(const uint8_t *qs, unsigned i) { return qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3u; }
static unsigned qrd_mask(const uint8_t *mask, unsigned i) { return mask[i % 32] >> i / 32 & 1u; }

static void qrd_q2_k_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 84)
		for (unsigned i = 0; i < 256; i++) {
			float scale = qrd_f16(s + 80) * (float)(s[i / 16] & 15), m = qrd_f16(s + 82) * (float)(s[i / 16] >> 4);
			*x++ = scale * (float)qrd_two(s + 16, i) - m;
		}
}

static void qrd_q3_k_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 110)
		for (unsigned i = 0; i < 256; i++) {
			const uint8_t *scales = s + 96;
			unsigned j = i / 16, low = scales[j % 8] >> j / 8 * 4 & 15u, high = scales[8 + j % 4] >> j / 4 * 2 & 3u;
			float scale = qrd_f16(s + 108) * (float)((int)(low | high << 4) - 32);
			*x++ = scale * (float)((int)(qrd_two(s + 32, i) | qrd_mask(s, i) << 2) - 4);
		}
}

/* q4_k and q5_k; qh is NULL in the first. */
static void qrd_k45(const uint8_t *s, const uint8_t *qh, const uint8_t *qs, float *x)
{
	const uint8_t *b = s + 4;
	for (unsigned j = 0, k = 0; j < 8; j++, k = j % 4) {
		unsigned sc = j < 4 ? b[k] & 63u : (b[8 + k] & 15u) | (b[k] >> 6 & 3u) << 4;
		unsigned mn = j < 4 ? b[4 + k] & 63u : (unsigned)b[8 + k] >> 4 | (b[4 + k] >> 6 & 3u) << 4;
		float scale = qrd_f16(s) * (float)sc, m = qrd_f16(s + 2) * (float)mn;
		for (unsigned i = 32 * j; i < 32 * j + 32; i++) {
			unsigned q = qs[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15u;
			*x++ = scale * (float)(q | (qh ? qrd_mask(qh, i) << 4 : 0)) - m;
		}
	}
}
static void qrd_q4_k_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 144, x += 256)
		qrd_k45(s, NULL, s + 16, x);
}
static void qrd_q5_k_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 176, x += 256)
		qrd_k45(s, s + 16, s + 48, x);
}

static void qrd_q6_k_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 210)
		for (unsigned i = 0; i < 256; i++) {
			unsigned h = i / 128, r = i % 128;
			unsigned low = s[64 * h + r % 64] >> r / 64 * 4 & 15u, high = s[128 + 32 * h + r % 32] >> r / 32 * 2 & 3u;
			*x++ = qrd_f16(s + 208) * (float)qrd_s8(s[192 + i / 16]) * (float)((int)(low | high << 4) - 32);
		}
}

static void qrd_iq4_xs_row(const uint8_t *s, float *x, uint64_t n)
{
	for (; n; n -= 256, s += 136)
		for (unsigned j = 0; j < 8; j++) {
			unsigned low = s[4 + j / 2] >> j % 2 * 4 & 15u, high = qrd_u16(s + 2) >> 2 * j & 3u;
			float scale = qrd_f16(s) * (float)((int)(low | high << 4) - 32);
			for (unsigned i = 0; i < 32; i++)
				*x++ = scale * (float)qrd_iq4[qrd_nibble(s + 8 + 16 * j, i)];
		}
}

struct qrd_codec {
	const char *name, *dtype;      /* of safetensors; NULL: U8 rows */
	uint32_t block, bytes;
	void (*row)(const uint8_t *s, float *x, uint64_t n);
};
static const struct qrd_codec qrd_codecs[] = {
	{ "f32", "F32", 1, 4, qrd_f32_row },         { "f16", "F16", 1, 2, qrd_f16_row },
	{ "bf16", "BF16", 1, 2, qrd_bf16_row },      { "f64", "F64", 1, 8, qrd_f64_row },
	{ "f8_e4m3", "F8_E4M3", 1, 1, qrd_e4m3_row }, { "f8_e5m2", "F8_E5M2", 1, 1, qrd_e5m2_row },
	{ "i8", "I8", 1, 1, qrd_i8_row },            { "i16", "I16", 1, 2, qrd_i16_row },
	{ "i32", "I32", 1, 4, qrd_i32_row },         { "i64", "I64", 1, 8, qrd_i64_row },
	{ "u8", "U8", 1, 1, qrd_u8_row },            { "u16", "U16", 1, 2, qrd_u16_row },
	{ "u32", "U32", 1, 4, qrd_u32_row },         { "u64", "U64", 1, 8, qrd_u64_row },
	{ "bool", "BOOL", 1, 1, qrd_bool_row },      { "q8_0", NULL, 32, 34, qrd_q8_0_row },
	{ "q4_0", NULL, 32, 18, qrd_q4_0_row },      { "q4_1", NULL, 32, 20, qrd_q4_1_row },
	{ "q5_0", NULL, 32, 22, qrd_q5_0_row },      { "q5_1", NULL, 32, 24, qrd_q5_1_row },
	{ "q2_k", NULL, 256, 84, qrd_q2_k_row },     { "q3_k", NULL, 256, 110, qrd_q3_k_row },
	{ "q4_k", NULL, 256, 144, qrd_q4_k_row },    { "q5_k", NULL, 256, 176, qrd_q5_k_row },
	{ "q6_k", NULL, 256, 210, qrd_q6_k_row },    { "iq4_nl", NULL, 32, 18, qrd_iq4_nl_row },
	{ "iq4_xs", NULL, 256, 136, qrd_iq4_xs_row }, { "mxfp4", NULL, 32, 17, qrd_mxfp4_row },
};
enum { QRD_CODECS = sizeof qrd_codecs / sizeof *qrd_codecs };
static const struct qrd_codec qrd_groups = { "int", NULL, 0, 0, NULL };

/* Integer groups: "int" bits "-g" elements or "-row", then "-zp" or "-bias", then "-bf16". */
static int qrd_group_name(struct quire_read_tensor *t, const char *p)
{
	static const struct { const char *text; uint32_t group; } spans[] = { { "-g32", 32 }, { "-g64", 64 }, { "-g128", 128 }, { "-row", 0 } };
	if (strncmp(p, "int", 3) || !p[3] || !strchr("234568", p[3]))
		return 0;
	t->bits = (uint8_t)(p[3] - '0');
	p += 4;
	for (unsigned i = 0; i < 4; i++) {
		size_t n = strlen(spans[i].text);
		if (strncmp(p, spans[i].text, n))
			continue;
		t->group = spans[i].group;
		p += n;
		t->zero_point = !strncmp(p, "-zp", 3);
		p += 3 * t->zero_point;
		t->bias = !strncmp(p, "-bias", 5);
		p += 5 * t->bias;
		if (!t->bias && (t->bits == 5 || t->bits == 6))
			return 0;
		t->bf16 = !strcmp(p, "-bf16");
		t->how = &qrd_groups;
		return t->bf16 || !*p;
	}
	return 0;
}

static uint64_t qrd_group_bytes(const struct quire_read_tensor *t, uint64_t n)
{
	return n ? 2u + t->zero_point + 2u * t->bias + (n * t->bits + 7) / 8 : 0;
}

static void qrd_group_row(const struct quire_read_tensor *t, const uint8_t *s, float *x, uint64_t cols)
{
	uint32_t mask = (1u << t->bits) - 1;
	for (uint64_t n; cols; cols -= n) {
		n = t->group && t->group < cols ? t->group : cols;
		float scale = t->bf16 ? qrd_bf16(s) : qrd_f16(s);
		int zero = t->zero_point ? s[2] : 1 << (t->bits - 1);
		const uint8_t *codes = s + 2 + t->zero_point + 2 * t->bias;
		float bias = !t->bias ? 0 : t->bf16 ? qrd_bf16(s + 2) : qrd_f16(s + 2);
		zero = t->bias ? 0 : zero;
		uint32_t held = 0;
		unsigned have = 0;
		for (uint64_t i = 0; i < n; i++, held >>= t->bits, have -= t->bits) {
			if (have < t->bits) {
				held |= (uint32_t)*codes++ << have;
				have += 8;
			}
			*x = scale * (float)((int)(held & mask) - zero);
			*x += t->bias ? bias : -0.0f;
			x++;
		}
		s += qrd_group_bytes(t, n);
	}
}

/* Which codec it is, and its sizes: 0 when all is well, else what is not. */
static int qrd_measure(struct quire_read_tensor *t, const char **why)
{
	uint64_t n = 1;
	t->rows = 1;
	t->cols = t->ndim ? t->shape[t->ndim - 1] : 1;
	for (unsigned i = 0; i < t->ndim; i++) {
		*why = "its shape is too large";
		if (t->shape[i] && n > (UINT64_MAX >> 6) / t->shape[i])
			return QUIRE_READ_DAMAGED;
		n *= t->shape[i];
		t->rows *= i + 1 < t->ndim ? t->shape[i] : 1;
	}
	for (unsigned i = 0; i < QRD_CODECS; i++)
		if (!strcmp(qrd_codecs[i].name, t->codec))
			t->how = &qrd_codecs[i];
	*why = "its codec is not known";
	if (!t->how && !qrd_group_name(t, t->codec))
		return QUIRE_READ_UNSUPPORTED;
	if (!n) {
		t->rows = 0;
		return QUIRE_READ_OK;
	}
	*why = "its rows are not a whole number of blocks";
	if (t->how->block && t->cols % t->how->block)
		return QUIRE_READ_DAMAGED;
	uint64_t group = t->group ? t->group : t->cols;
	t->row_bytes = t->how->block ? t->cols / t->how->block * t->how->bytes
				     : t->cols / group * qrd_group_bytes(t, group) + qrd_group_bytes(t, t->cols % group);
	t->bytes = t->rows * t->row_bytes;   /* at most 8 bytes an element: below 2^62 */
	return QUIRE_READ_OK;
}

static uint32_t qrd_crc(uint32_t crc, const uint8_t *p, uint64_t n)
{
#ifdef QUIRE_READ_ZLIB
	for (uInt part; n; n -= part, p += part) {
		part = n < 1u << 30 ? (uInt)n : 1u << 30;
		crc = (uint32_t)crc32(crc, p, part);
	}
	return crc;
#else
	static const uint32_t table[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
					    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
	for (crc = ~crc; n; n--) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
#endif
}

static int qrd_same(uint32_t a, uint32_t b) { return a == b ? QUIRE_READ_OK : QUIRE_READ_DAMAGED; }

/* ---- JSON: no tree, strings are compared and unescaped where they stand ---- */

struct qrd_text { const char *at, *end; };
struct qrd_span { const char *at; size_t n; };   /* of a string, still escaped */

static int qrd_take(struct qrd_text *s, char c)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
	if (s->at == s->end || *s->at != c)
		return 0;
	s->at++;
	return 1;
}

static int qrd_hex(struct qrd_text *s, int digits, uint32_t *out)
{
	for (*out = 0; digits; digits--, s->at++) {
		char c = s->at < s->end ? *s->at : ' ';
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (d < 0)
			return 0;
		*out = *out << 4 | (uint32_t)d;
	}
	return 1;
}

/* The character of \uXXXX, s behind the u, as UTF-8; 0 when it is none. */
static unsigned qrd_unicode(struct qrd_text *s, char out[4])
{
	uint32_t c, low;
	if (!qrd_hex(s, 4, &c) || !c || (c >= 0xdc00 && c < 0xe000))
		return 0;
	if (c >= 0xd800 && c < 0xdc00) {
		if (s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u')
			return 0;
		s->at += 2;
		if (!qrd_hex(s, 4, &low) || low < 0xdc00 || low >= 0xe000)
			return 0;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (unsigned i = n - 1; i; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 63));
	out[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0u) | c);
	return n;
}

/*
 * A string. out gets it without escapes and with a NUL behind it: no more bytes than it has here with its quotes less one, so that
 * it may be written over itself. out may be NULL, and n, its length.
 */
static int qrd_string(struct qrd_text *s, char *out, size_t *n)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	size_t at = 0;
	if (!qrd_take(s, '"'))
		return 0;
	while (s->at < s->end && *s->at != '"') {
		char c[4] = { *s->at++, 0, 0, 0 };
		unsigned len = 1;
		if ((unsigned char)c[0] < 0x20)
			return 0;
		if (c[0] == '\\') {
			const char *simple = s->at < s->end && *s->at ? strchr(from, *s->at) : NULL;
			if (simple)
				c[0] = to[simple - from];
			else if (s->at == s->end || *s->at != 'u')
				return 0;
			s->at++;
			if (!simple && !(len = qrd_unicode(s, c)))
				return 0;
		}
		if (out)
			memcpy(out + at, c, len);
		at += len;
	}
	if (s->at == s->end)
		return 0;
	s->at++;
	if (out)
		out[at] = '\0';
	if (n)
		*n = at;
	return 1;
}

static int qrd_quoted(struct qrd_text *s, struct qrd_span *out)
{
	struct qrd_text first = *s;
	if (!qrd_string(s, NULL, NULL) || !qrd_take(&first, '"'))
		return 0;
	out->at = first.at;
	out->n = (size_t)(s->at - first.at) - 1;
	return 1;
}

static int qrd_is(const struct qrd_span *a, const char *text)
{
	return a->n == strlen(text) && !memcmp(a->at, text, a->n);
}

static int qrd_starts(const struct qrd_span *a, const char *text)
{
	return a->n >= strlen(text) && !memcmp(a->at, text, strlen(text));
}

static int qrd_number(struct qrd_text *s, uint64_t *out)
{
	const char *first;
	qrd_take(s, '\0');   /* spaces */
	for (first = s->at, *out = 0; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
		if (*out > UINT64_MAX / 10 - 1)
			return 0;
		*out = *out * 10 + (uint64_t)(*s->at - '0');
	}
	return s->at > first;
}

/* The key of the next member of an object, or, with key NULL, the next element of a list: 1, 0 at the end, -1 when broken. */
static int qrd_next(struct qrd_text *s, int *first, struct qrd_span *key)
{
	if (qrd_take(s, key ? '}' : ']'))
		return 0;
	if (!*first && !qrd_take(s, ','))
		return -1;
	*first = 0;
	return !key || (qrd_quoted(s, key) && qrd_take(s, ':')) ? 1 : -1;
}

static int qrd_skip(struct qrd_text *s, int depth)
{
	struct qrd_span key;
	struct qrd_text before;
	int first = 1, more, object = 0;
	if (depth == QRD_DEPTH)
		return 0;
	if ((object = qrd_take(s, '{')) || qrd_take(s, '[')) {
		while ((more = qrd_next(s, &first, object ? &key : NULL)) > 0)
			if (!qrd_skip(s, depth + 1))
				return 0;
		return !more;
	}
	before = *s;
	if (s->at < s->end && *s->at == '"')
		return qrd_string(s, NULL, NULL);
	while (s->at < s->end && *s->at && strchr("+-.0123456789Eaeflnrstu", *s->at))   /* numbers, true, false, null */
		s->at++;
	return s->at > before.at;
}

static int qrd_shape(struct qrd_text *s, unsigned *ndim, uint64_t dim[QUIRE_READ_DIMS])
{
	int first = 1, more;
	if (!qrd_take(s, '['))
		return 0;
	for (*ndim = 0; (more = qrd_next(s, &first, NULL)) > 0; ++*ndim)
		if (*ndim == QUIRE_READ_DIMS || !qrd_number(s, &dim[*ndim]))
			return 0;
	return !more;
}

/* ---- the header: entries of a safetensors file ---- */

enum { QRD_TENSOR, QRD_FILE, QRD_PAD };

struct qrd_entry {
	const char *name;            /* a file's without "__file__." */
	uint64_t begin, end;
	const char *shape;           /* the text of its shape */
	const struct qrd_codec *how; /* of its dtype */
	size_t item;                 /* 1 + the tensor's or file's number; 0: the manifest has not named it */
	int kind;
};

/* What a pass over the header counts, and in the second pass where it writes. */
struct qrd_pass {
	size_t count[3], room;       /* entries of each kind; bytes of unescaped strings */
	struct qrd_entry *entries;   /* NULL: only count */
	char *pool, *manifest;
	size_t manifest_size;
	int sums;
	uint32_t crc;
};

static int qrd_fail(struct quire_read *q, int code, const char *name, const char *why)
{
	size_t n = strlen(name);
	n = n < sizeof q->culprit ? n : sizeof q->culprit - 1;
	memcpy(q->culprit, name, n);
	q->culprit[n] = '\0';
	q->error = why;
	return code;
}

/* Takes a string into the pool, or only counts it. */
static char *qrd_keep(struct qrd_pass *p, struct qrd_text *s, size_t *n)
{
	char *out = p->entries ? p->pool + p->room : NULL;
	if (!qrd_string(s, out, n))
		return NULL;
	p->room += *n + 1;
	return out ? out : (char *)p;
}

static int qrd_crc_text(struct qrd_text *s, uint32_t *out)
{
	struct qrd_span digits;
	struct qrd_text text;
	if (!qrd_quoted(s, &digits) || digits.n != 8)
		return 0;
	for (size_t i = 0; i < 8; i++)
		if (digits.at[i] >= 'A' && digits.at[i] <= 'F')   /* they are written in one way */
			return 0;
	text.at = digits.at;
	text.end = digits.at + 8;
	return qrd_hex(&text, 8, out);
}

static int qrd_metadata(struct qrd_pass *p, struct qrd_text *s)
{
	struct qrd_span key;
	int first = 1, more, manifests = 0, good = 1;
	if (!qrd_take(s, '{'))
		return 0;
	while (good && (more = qrd_next(s, &first, &key)) > 0) {
		if (qrd_is(&key, "quire.manifest"))
			good = !manifests++ && (p->manifest = qrd_keep(p, s, &p->manifest_size)) != NULL;
		else if (qrd_is(&key, "quire.crc32"))
			good = !p->sums++ && qrd_crc_text(s, &p->crc);
		else
			good = qrd_string(s, NULL, NULL);
	}
	return good && !more && manifests;
}

static int qrd_entry_fields(struct qrd_text *s, struct qrd_entry *e)
{
	struct qrd_span key, dtype = { "", 0 };
	uint64_t dim[QUIRE_READ_DIMS], n = 1;
	unsigned ndim = 0;
	int first = 1, more, have = 0, good = 1;
	if (!qrd_take(s, '{'))
		return 0;
	while (good && (more = qrd_next(s, &first, &key)) > 0) {
		int field = qrd_is(&key, "dtype") ? 1 : qrd_is(&key, "shape") ? 2 : qrd_is(&key, "data_offsets") ? 4 : 0;
		if (field & have)
			return 0;
		have |= field;
		e->shape = field == 2 ? s->at : e->shape;
		good = field == 1   ? qrd_quoted(s, &dtype)
		       : field == 2 ? qrd_shape(s, &ndim, dim)
		       : field == 4 ? qrd_take(s, '[') && qrd_number(s, &e->begin) && qrd_take(s, ',') && qrd_number(s, &e->end) && qrd_take(s, ']')
				    : qrd_skip(s, 0);
	}
	if (!good || more || have != 7 || e->end < e->begin)
		return 0;
	for (unsigned i = 0; i < QRD_CODECS; i++)
		if (qrd_codecs[i].dtype && qrd_is(&dtype, qrd_codecs[i].dtype))
			e->how = &qrd_codecs[i];
	for (unsigned i = 0; i < ndim; i++) {
		if (dim[i] && n > (UINT64_MAX >> 6) / dim[i])
			return 0;
		n *= dim[i];
	}
	return e->how && n * e->how->bytes == e->end - e->begin;
}

static int qrd_header(struct quire_read *q, struct qrd_pass *p, struct qrd_text s)
{
	struct qrd_span key;
	size_t n, len;
	int first = 1, more = -1, metadata = 0;
	if (!qrd_take(&s, '{'))
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its header is damaged");
	for (;;) {
		struct qrd_text before = s;
		if ((more = qrd_next(&s, &first, &key)) <= 0)
			break;
		if (qrd_is(&key, "__metadata__")) {
			if (metadata++ || !qrd_metadata(p, &s))
				return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its metadata is damaged");
			continue;
		}
		struct qrd_entry e;
		memset(&e, 0, sizeof e);
		e.kind = qrd_starts(&key, "__file__.") ? QRD_FILE : qrd_starts(&key, "__pad__.") ? QRD_PAD : QRD_TENSOR;
		qrd_take(&before, ',');
		e.name = qrd_keep(p, &before, &len);
		if (!e.name || (e.kind == QRD_TENSOR && qrd_starts(&key, "__")) || !qrd_entry_fields(&s, &e))
			return qrd_fail(q, QUIRE_READ_DAMAGED, p->entries && e.name ? e.name : "", "an entry of its header is damaged");
		n = p->count[0] + p->count[1] + p->count[2];
		e.name += p->entries && e.kind == QRD_FILE ? 9 : 0;
		if (p->entries)
			p->entries[n] = e;
		p->count[e.kind]++;
	}
	qrd_take(&s, '\0');   /* the spaces behind it */
	if (more < 0 || s.at < s.end || !metadata)
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its header is damaged");
	return QUIRE_READ_OK;
}

static int qrd_order(const struct qrd_entry *a, const struct qrd_entry *b, int by_name)
{
	if (by_name)
		return a->kind != b->kind ? a->kind - b->kind : strcmp(a->name, b->name);
	return a->begin != b->begin ? (a->begin < b->begin ? -1 : 1) : a->end != b->end ? (a->end < b->end ? -1 : 1) : 0;
}

/* A heap, which needs no memory and no luck. */
static void qrd_sift(struct qrd_entry *e, size_t at, size_t n, int by_name)
{
	struct qrd_entry moved = e[at];
	for (size_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && qrd_order(&e[child], &e[child + 1], by_name) < 0)
			child++;
		if (qrd_order(&moved, &e[child], by_name) >= 0)
			break;
		e[at] = e[child];
	}
	e[at] = moved;
}

static void qrd_sort(struct qrd_entry *e, size_t n, int by_name)
{
	for (size_t i = n / 2; i; i--)
		qrd_sift(e, i - 1, n, by_name);
	while (n > 1) {
		struct qrd_entry last = e[--n];
		e[n] = e[0];
		e[0] = last;
		qrd_sift(e, 0, n, by_name);
	}
}

/* Entries fill the data without holes, what is not padding begins at multiples of 64, no name is there twice. */
static int qrd_layout(struct quire_read *q)
{
	struct qrd_entry *e = q->entries;
	uint64_t at = 0;
	qrd_sort(e, q->entry_count, 0);
	for (size_t i = 0; i < q->entry_count; at = e[i++].end)
		if (e[i].begin != at || e[i].end > q->data_size || (e[i].kind != QRD_PAD && at % QRD_ALIGN) ||
		    (e[i].kind == QRD_PAD && e[i].end - at >= QRD_ALIGN) || (e[i].kind != QRD_TENSOR && strcmp(e[i].how->name, "u8")))
			return qrd_fail(q, QUIRE_READ_DAMAGED, e[i].name, "its place in the file is impossible");
	if (at != q->data_size)
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "the file does not end with its last entry (cut off?)");
	qrd_sort(e, q->entry_count, 1);
	for (size_t i = 0; i + 1 < q->entry_count; i++)
		if (!qrd_order(&e[i], &e[i + 1], 1))
			return qrd_fail(q, QUIRE_READ_DAMAGED, e[i].name, "its name is there twice");
	return QUIRE_READ_OK;
}

static struct qrd_entry *qrd_find(const struct quire_read *q, int kind, const char *name)
{
	size_t low = 0, high = q->entry_count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = q->entries[mid].kind != kind ? q->entries[mid].kind - kind : strcmp(q->entries[mid].name, name);
		if (!order)
			return &q->entries[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* ---- the manifest, unescaped over itself ---- */

struct qrd_manifest {
	struct quire_read_tensor *tensors;
	struct quire_read_file *files;
	size_t room[2];              /* for so many tensors and files: as many as there are entries */
	uint64_t files_size;
};

/* A string of the manifest, written over itself; what follows it has not been read yet. */
static char *qrd_own(struct qrd_text *s)
{
	qrd_take(s, '\0');
	char *out = (char *)(uintptr_t)s->at;
	return qrd_string(s, out, NULL) ? out : NULL;
}

enum { QRD_NAME = 1, QRD_CRC = 2, QRD_SIZE = 4, QRD_CODEC = 8, QRD_SHAPE = 16, QRD_PLANES = 32 };

/* A tensor or a file: which members it has, 0 when broken. */
static int qrd_item(struct qrd_text *s, struct quire_read_tensor *t)
{
	static const struct { const char *key; int bit; } keys[] = { { "name", QRD_NAME }, { "crc32", QRD_CRC }, { "size", QRD_SIZE },
								   { "codec", QRD_CODEC }, { "shape", QRD_SHAPE }, { "planes", QRD_PLANES } };
	struct qrd_span key;
	uint64_t planes = 0;
	int first = 1, more, have = 0, good = qrd_take(s, '{');
	while (good && (more = qrd_next(s, &first, &key)) > 0) {
		int bit = 0;
		for (unsigned i = 0; i < 6; i++)
			bit |= qrd_is(&key, keys[i].key) ? keys[i].bit : 0;
		good = !(have & bit);
		have |= bit;
		if (good)
			good = bit == QRD_NAME     ? (t->name = qrd_own(s)) != NULL
			       : bit == QRD_CODEC  ? (t->codec = qrd_own(s)) != NULL
			       : bit == QRD_CRC    ? qrd_crc_text(s, &t->crc32)
			       : bit == QRD_SIZE   ? qrd_number(s, &t->bytes)
			       : bit == QRD_SHAPE  ? qrd_shape(s, &t->ndim, t->shape)
			       : bit == QRD_PLANES ? qrd_number(s, &planes) && (planes == 2 || planes == 4)
						   : qrd_skip(s, 0);
	}
	t->planes = (unsigned)planes;
	return good && !more ? have : 0;
}

static int qrd_add_file(struct quire_read *q, struct qrd_manifest *m, struct quire_read_tensor *t)
{
	struct qrd_entry *e = qrd_find(q, QRD_FILE, t->name);
	if (!e || e->item)
		return qrd_fail(q, QUIRE_READ_DAMAGED, t->name, "the file has no entry in the header, or the manifest names it twice");
	uint64_t stored = e->end - e->begin;
	if (!*t->name || *t->name == '.' || stored > UINT32_MAX || t->bytes > stored * QRD_RATIO || t->bytes > QRD_FILES_MAX - m->files_size)
		return qrd_fail(q, QUIRE_READ_DAMAGED, t->name, "the file's name or size is impossible");
	m->files_size += t->bytes;
	struct quire_read_file *f = &m->files[q->file_count];
	f->name = t->name;
	f->size = t->bytes;
	f->crc32 = t->crc32;
	f->stored = q->data + e->begin;
	f->stored_size = stored;
	e->item = ++q->file_count;
	return QUIRE_READ_OK;
}

/* The index of planes: blocks fill what is stored, none is larger than what it holds, or smaller than deflate can make it. */
static int qrd_index(const struct quire_read_tensor *t)
{
	uint64_t chunks = t->bytes / QRD_CHUNK + (t->bytes % QRD_CHUNK != 0), at = chunks * t->planes * 4;
	if (at > t->stored_size)
		return 0;
	for (uint64_t i = 0; i < chunks * t->planes; i++) {
		uint64_t left = t->bytes - i / t->planes * QRD_CHUNK, words = (left < QRD_CHUNK ? left : QRD_CHUNK) / t->planes;
		uint64_t size = qrd_u32(t->stored + 4 * i);
		if (size > words || size * QRD_RATIO < words)
			return 0;
		at += size;
	}
	return at == t->stored_size;
}

static int qrd_add_tensor(struct quire_read *q, struct qrd_manifest *m, struct quire_read_tensor *t)
{
	const char *why;
	struct qrd_entry *e = qrd_find(q, QRD_TENSOR, t->name);
	if (!e || e->item)
		return qrd_fail(q, QUIRE_READ_DAMAGED, t->name, "the tensor has no entry in the header, or the manifest names it twice");
	t->bytes = 0;
	int rc = qrd_measure(t, &why);
	if (rc)
		return qrd_fail(q, rc, t->name, why);
	uint64_t dim[QUIRE_READ_DIMS], rows = 1;
	unsigned ndim = 0, whole = t->planes ? !strcmp(t->codec, "f32") ? 4 : !strcmp(t->codec, "f16") || !strcmp(t->codec, "bf16") ? 2 : 0 : 0;
	const char *dtype = t->planes || !t->how->dtype ? "U8" : t->how->dtype;
	struct qrd_text s = { e->shape, (const char *)q->data };
	int fits = qrd_shape(&s, &ndim, dim) && !strcmp(e->how->dtype, dtype) && t->planes == whole;
	for (unsigned i = 0; i + 1 < t->ndim; i++)
		rows *= t->shape[i];
	if (t->planes)
		fits &= ndim == 1;
	else if (t->how->dtype)
		fits &= ndim == t->ndim && !memcmp(dim, t->shape, ndim * sizeof *dim) && e->end - e->begin == t->bytes;
	else
		fits &= ndim == 2 && e->end - e->begin == t->bytes && (!t->bytes || (dim[0] == rows && dim[1] == t->row_bytes));
	t->stored = q->data + e->begin;
	t->stored_size = e->end - e->begin;
	if (!fits || (t->planes && !qrd_index(t)))
		return qrd_fail(q, QUIRE_READ_DAMAGED, t->name, "the tensor's codec, shape and bytes do not agree");
	m->tensors[q->tensor_count] = *t;
	e->item = ++q->tensor_count;
	return QUIRE_READ_OK;
}

static int qrd_list(struct quire_read *q, struct qrd_manifest *m, struct qrd_text *s, int kind)
{
	int first = 1, more = -1, rc = QUIRE_READ_OK;
	if (!qrd_take(s, '['))
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its manifest is damaged");
	while (!rc && (more = qrd_next(s, &first, NULL)) > 0) {
		struct quire_read_tensor t;
		memset(&t, 0, sizeof t);
		int have = qrd_item(s, &t);
		int need = kind == QRD_TENSOR ? QRD_NAME | QRD_CRC | QRD_CODEC | QRD_SHAPE : QRD_NAME | QRD_CRC | QRD_SIZE;
		if ((have & need) != need)
			return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its manifest is damaged");
		rc = kind == QRD_TENSOR ? qrd_add_tensor(q, m, &t) : qrd_add_file(q, m, &t);
	}
	return !rc && more ? qrd_fail(q, QUIRE_READ_DAMAGED, "", "its manifest is damaged") : rc;
}

static int qrd_read_manifest(struct quire_read *q, struct qrd_manifest *m, const char *text, size_t size)
{
	struct qrd_text s = { text, text + size };
	struct qrd_span key;
	uint64_t version = 0;
	int first = 1, more = -1, lists = 0, good = qrd_take(&s, '{');
	while (good && (more = qrd_next(&s, &first, &key)) > 0) {
		int list = qrd_is(&key, "tensors") ? 1 : qrd_is(&key, "files") ? 2 : 0;
		int rc = QUIRE_READ_OK;
		good = !(lists & list);
		lists |= list;
		if (good && list)
			rc = qrd_list(q, m, &s, list == 1 ? QRD_TENSOR : QRD_FILE);
		else if (good)
			good = qrd_is(&key, "version") ? qrd_number(&s, &version) : qrd_skip(&s, 0);
		if (rc)
			return rc;
	}
	qrd_take(&s, '\0');
	if (!good || more || s.at < s.end || lists != 3 || version != 1)
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its manifest is damaged");
	for (size_t i = 0; i < q->entry_count; i++)
		if (q->entries[i].kind != QRD_PAD && !q->entries[i].item)
			return qrd_fail(q, QUIRE_READ_DAMAGED, q->entries[i].name, "the manifest does not name it");
	return QUIRE_READ_OK;
}

/* ---- opening ---- */

/* One block: tensors, files, entries, then strings. */
static int qrd_tables(struct quire_read *q, struct qrd_pass *p, struct qrd_manifest *m)
{
	uint64_t tensors = (uint64_t)p->count[QRD_TENSOR] * sizeof *m->tensors, files = (uint64_t)p->count[QRD_FILE] * sizeof *m->files;
	uint64_t entries = ((uint64_t)p->count[0] + p->count[1] + p->count[2]) * sizeof *p->entries, all = tensors + files + entries + p->room;
	q->block = all < SIZE_MAX ? QUIRE_READ_MALLOC((size_t)all + 1) : NULL;
	if (!q->block)
		return qrd_fail(q, QUIRE_READ_MEMORY, "", "out of memory");
	char *at = (char *)q->block;
	m->tensors = (struct quire_read_tensor *)q->block;
	m->files = (struct quire_read_file *)(void *)(at + tensors);
	p->entries = q->entries = (struct qrd_entry *)(void *)(at + tensors + files);
	p->pool = at + tensors + files + entries;
	q->tensors = m->tensors;
	q->files = m->files;
	return QUIRE_READ_OK;
}

static int qrd_parse(struct quire_read *q)
{
	static const char start[] = "{\"__metadata__\":{\"quire\":\"", version[] = "1\",";
	uint64_t n = q->size < 8 ? 0 : qrd_u64(q->bytes);
	struct qrd_manifest m;
	struct qrd_pass p;
	if (n < sizeof start + sizeof version || n > QRD_HEADER_MAX || n > q->size - 8 || memcmp(q->bytes + 8, start, sizeof start - 1))
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "not a .quire file");
	if (memcmp(q->bytes + 8 + sizeof start - 1, version, sizeof version - 1))
		return qrd_fail(q, QUIRE_READ_UNSUPPORTED, "", "its version of the format is not known");
	if ((8 + n) % QRD_ALIGN)
		return qrd_fail(q, QUIRE_READ_DAMAGED, "", "its data does not begin at a multiple of 64");
	q->data = q->bytes + 8 + n;
	q->data_size = q->size - 8 - n;
	struct qrd_text text = { (const char *)q->bytes + 8, (const char *)q->data };
	memset(&p, 0, sizeof p);
	memset(&m, 0, sizeof m);
	int rc = qrd_header(q, &p, text);
	if (!rc)
		rc = qrd_tables(q, &p, &m);
	if (rc)
		return rc;
	q->entry_count = p.count[0] + p.count[1] + p.count[2];
	p.room = p.count[0] = p.count[1] = p.count[2] = 0;
	p.sums = 0;
	rc = qrd_header(q, &p, text);
	if (!rc)
		rc = qrd_layout(q);
	if (!rc && p.sums && qrd_crc(0, (const uint8_t *)p.manifest, p.manifest_size) != p.crc)
		rc = qrd_fail(q, QUIRE_READ_DAMAGED, "", "its manifest has another checksum");
	return rc ? rc : qrd_read_manifest(q, &m, p.manifest, p.manifest_size);
}

QUIRE_READ_API void quire_read_close(struct quire_read *q)
{
	QUIRE_READ_FREE(q->block);
#ifdef QRD_MMAP
	if (q->owned)
		munmap((void *)(uintptr_t)q->bytes, (size_t)q->size);
#elif !defined QUIRE_READ_NO_FILES
	if (q->owned)
		QUIRE_READ_FREE((void *)(uintptr_t)q->bytes);
#endif
	q->block = NULL;
	q->entries = NULL;
	q->bytes = q->data = NULL;
	q->tensors = NULL;
	q->files = NULL;
	q->tensor_count = q->file_count = q->entry_count = 0;
	q->owned = 0;
}

static int qrd_start(struct quire_read *q, const void *bytes, uint64_t size, int owned)
{
	memset(q, 0, sizeof *q);
	q->bytes = (const uint8_t *)bytes;
	q->size = size;
	q->owned = owned;
	int rc = qrd_parse(q);
	if (rc)
		quire_read_close(q);
	return rc;
}

QUIRE_READ_API int quire_read_memory(struct quire_read *q, const void *bytes, size_t size) { return qrd_start(q, bytes, size, 0); }

#ifdef QRD_MMAP
QUIRE_READ_API int quire_read_open(struct quire_read *q, const char *path)
{
	struct stat st;
	void *map = MAP_FAILED;
	int fd = open(path, O_RDONLY);
	memset(q, 0, sizeof *q);
	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= SIZE_MAX / 2)
		map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	return map == MAP_FAILED ? qrd_fail(q, QUIRE_READ_IO, "", "the file cannot be opened and mapped") : qrd_start(q, map, (uint64_t)st.st_size, 1);
}
#elif !defined QUIRE_READ_NO_FILES
QUIRE_READ_API int quire_read_open(struct quire_read *q, const char *path)
{
	FILE *f = fopen(path, "rb");
	long size = f && !fseek(f, 0, SEEK_END) ? ftell(f) : -1;
	void *bytes = size > 0 && !fseek(f, 0, SEEK_SET) ? QUIRE_READ_MALLOC((size_t)size) : NULL;
	size_t got = bytes ? fread(bytes, 1, (size_t)size, f) : 0;
	memset(q, 0, sizeof *q);
	if (f)
		fclose(f);
	if (bytes && got == (size_t)size)
		return qrd_start(q, bytes, got, 1);
	QUIRE_READ_FREE(bytes);
	return qrd_fail(q, QUIRE_READ_IO, "", "the file cannot be opened and read");
}
#endif

QUIRE_READ_API const struct quire_read_tensor *quire_read_find(const struct quire_read *q, const char *name)
{
	const struct qrd_entry *e = qrd_find(q, QRD_TENSOR, name);
	return e ? &q->tensors[e->item - 1] : NULL;
}

QUIRE_READ_API const struct quire_read_file *quire_read_find_file(const struct quire_read *q, const char *name)
{
	const struct qrd_entry *e = qrd_find(q, QRD_FILE, name);
	return e ? &q->files[e->item - 1] : NULL;
}

/* ---- inflating ---- */

struct qrd_stream {
#ifdef QUIRE_READ_ZLIB
	z_stream z;
#endif
	const uint8_t *raw;          /* NULL: deflated */
	int started;
};

#ifdef QUIRE_READ_ZLIB
static void *qrd_lend(void *none, unsigned items, unsigned size)
{
	(void)none;
	return QUIRE_READ_MALLOC((size_t)items * size);
}

static void qrd_return(void *none, void *p)
{
	(void)none;
	QUIRE_READ_FREE(p);
}
#endif

static int qrd_inflate_start(struct qrd_stream *s, const uint8_t *from, uint64_t size)
{
#ifdef QUIRE_READ_ZLIB
	memset(&s->z, 0, sizeof s->z);
	s->z.zalloc = qrd_lend;
	s->z.zfree = qrd_return;
	s->z.next_in = (Bytef *)(uintptr_t)from;
	s->z.avail_in = (uInt)size;
	s->started = inflateInit(&s->z) == Z_OK;
	return s->started ? QUIRE_READ_OK : QUIRE_READ_MEMORY;
#else
	(void)s, (void)from, (void)size;
	return QUIRE_READ_UNSUPPORTED;
#endif
}

/* Exactly the next n bytes; with last set the stream must end there, and be whole. */
static int qrd_inflate(struct qrd_stream *s, uint8_t *out, uint64_t n, int last)
{
#ifdef QUIRE_READ_ZLIB
	uint8_t spare;
	int rc = Z_OK;
	s->z.next_out = out;
	for (s->z.avail_out = (uInt)n; s->z.avail_out && rc == Z_OK;)
		rc = inflate(&s->z, Z_NO_FLUSH);
	if (rc == Z_MEM_ERROR)
		return QUIRE_READ_MEMORY;
	if (s->z.avail_out || (rc != Z_OK && rc != Z_STREAM_END))
		return QUIRE_READ_DAMAGED;
	s->z.next_out = &spare;
	s->z.avail_out = 1;
	if (last && rc != Z_STREAM_END)
		rc = inflate(&s->z, Z_FINISH);
	return last && (rc != Z_STREAM_END || !s->z.avail_out || s->z.avail_in) ? QUIRE_READ_DAMAGED : QUIRE_READ_OK;
#else
	(void)s, (void)out, (void)n, (void)last;
	return QUIRE_READ_UNSUPPORTED;
#endif
}

static void qrd_inflate_end(struct qrd_stream *s)
{
#ifdef QUIRE_READ_ZLIB
	if (s->started)
		inflateEnd(&s->z);
#endif
	s->started = 0;
}

QUIRE_READ_API int quire_read_inflate(const struct quire_read_file *f, void *out)
{
	struct qrd_stream s;
	memset(&s, 0, sizeof s);
	int rc = qrd_inflate_start(&s, f->stored, f->stored_size);
	if (!rc)
		rc = qrd_inflate(&s, (uint8_t *)out, f->size, 1);
	qrd_inflate_end(&s);
	return rc ? rc : qrd_same(qrd_crc(0, (const uint8_t *)out, f->size), f->crc32);
}

/* ---- rows ---- */

/* Where bytes of a tensor go: to floats, to bytes, or into a checksum. */
struct qrd_sink {
	float *x;
	uint8_t *bytes;
	uint32_t crc;
};

/* n words of a tensor in planes, put together. */
static void qrd_put(struct qrd_sink *k, const struct quire_read_tensor *t, const uint8_t *words, uint64_t n)
{
	if (k->x) {
		t->how->row(words, k->x, n);
		k->x += n;
	} else if (k->bytes) {
		memcpy(k->bytes, words, (size_t)(n * t->planes));
		k->bytes += n * t->planes;
	} else
		k->crc = qrd_crc(k->crc, words, n * t->planes);
}

/* Byte p of n words, as the planes have them; then every word is rotated back by a bit. */
static void qrd_join(const uint8_t *const plane[4], unsigned w, uint64_t n, uint8_t *out)
{
	for (uint64_t i = 0; i < n; i++, out += w) {
		uint32_t word = 0;
		for (unsigned p = 0; p < w; p++)
			word |= (uint32_t)plane[p][i] << 8 * p;
		word = word >> 1 | (word & 1) << (8 * w - 1);
		for (unsigned p = 0; p < w; p++)
			out[p] = (uint8_t)(word >> 8 * p);
	}
}

/* Words `from` to `to` of a chunk of `words`, whose blocks begin at `at`. */
static int qrd_words(const struct quire_read_tensor *t, struct qrd_stream stream[4], uint64_t words, uint64_t from, uint64_t to,
		     struct qrd_sink *k)
{
	uint8_t part[4][QRD_BATCH], joined[4 * QRD_BATCH];
	const uint8_t *plane[4] = { NULL, NULL, NULL, NULL };
	for (uint64_t i = 0, n; i < to; i += n) {
		n = i < from ? from - i : to - i;
		n = n < QRD_BATCH ? n : QRD_BATCH;
		for (unsigned p = 0; p < t->planes; p++) {
			int rc;
			if (!stream[p].raw && (rc = qrd_inflate(&stream[p], part[p], n, i + n == words)) != QUIRE_READ_OK)
				return rc;
			plane[p] = stream[p].raw ? stream[p].raw + i : part[p];
		}
		if (i < from)
			continue;
		qrd_join(plane, t->planes, n, joined);
		qrd_put(k, t, joined, n);
	}
	return QUIRE_READ_OK;
}

/* `size` bytes of a tensor in planes from byte `from` on, both whole words. */
static int qrd_planes(const struct quire_read_tensor *t, uint64_t from, uint64_t size, struct qrd_sink *k)
{
	uint64_t chunks = t->bytes / QRD_CHUNK + (t->bytes % QRD_CHUNK != 0), at = chunks * t->planes * 4;
	int rc = QUIRE_READ_OK;
	for (uint64_t c = 0, begin = 0; c < chunks && begin < from + size && !rc; c++, begin += QRD_CHUNK) {
		uint64_t n = t->bytes - begin < QRD_CHUNK ? t->bytes - begin : QRD_CHUNK, words = n / t->planes;
		int wanted = begin + n > from;
		struct qrd_stream stream[4];
		memset(stream, 0, sizeof stream);
		for (unsigned p = 0; p < t->planes && !rc; p++) {
			uint64_t block = qrd_u32(t->stored + 4 * (c * t->planes + p));
			if (block > t->stored_size - at)   /* a file that changed since it was opened */
				rc = QUIRE_READ_DAMAGED;
			else if (block == words)
				stream[p].raw = t->stored + at;
			else if (wanted)
				rc = qrd_inflate_start(&stream[p], t->stored + at, block);
			at += block;
		}
		uint64_t first = from > begin ? (from - begin) / t->planes : 0, last = from + size - begin < n ? (from + size - begin) / t->planes : words;
		if (wanted && !rc)
			rc = qrd_words(t, stream, words, first, last, k);
		for (unsigned p = 0; p < t->planes; p++)
			qrd_inflate_end(&stream[p]);
	}
	return rc;
}

static int qrd_inside(const struct quire_read_tensor *t, uint64_t first, uint64_t count)
{
	return first <= t->rows && count <= t->rows - first;
}

QUIRE_READ_API int quire_read_rows(const struct quire_read_tensor *t, uint64_t first, uint64_t count, float *out)
{
	struct qrd_sink k = { out, NULL, 0 };
	if (!qrd_inside(t, first, count) || (count && count > SIZE_MAX / sizeof *out / t->cols))
		return QUIRE_READ_USAGE;
	if (t->planes)
		return qrd_planes(t, first * t->row_bytes, count * t->row_bytes, &k);
	for (uint64_t r = first; r < first + count; r++, out += t->cols) {
		const uint8_t *row = t->stored + r * t->row_bytes;
		if (t->how->row)
			t->how->row(row, out, t->cols);
		else
			qrd_group_row(t, row, out, t->cols);
	}
	return QUIRE_READ_OK;
}

QUIRE_READ_API int quire_read_bytes(const struct quire_read_tensor *t, uint64_t first, uint64_t count, void *out)
{
	struct qrd_sink k = { NULL, (uint8_t *)out, 0 };
	if (!qrd_inside(t, first, count) || (count && count > SIZE_MAX / t->row_bytes))
		return QUIRE_READ_USAGE;
	if (t->planes)
		return qrd_planes(t, first * t->row_bytes, count * t->row_bytes, &k);
	if (count)
		memcpy(out, t->stored + first * t->row_bytes, (size_t)(count * t->row_bytes));
	return QUIRE_READ_OK;
}

/* ---- checksums ---- */

QUIRE_READ_API int quire_read_check_tensor(const struct quire_read_tensor *t)
{
	struct qrd_sink k = { NULL, NULL, 0 };
	int rc = QUIRE_READ_OK;
	if (t->planes)
		rc = qrd_planes(t, 0, t->bytes, &k);
	else
		k.crc = qrd_crc(0, t->stored, t->bytes);
	return rc ? rc : qrd_same(k.crc, t->crc32);
}

#ifdef QUIRE_READ_ZLIB
static int qrd_check_file(const struct quire_read_file *f)
{
	uint8_t part[QRD_BATCH];
	struct qrd_stream s;
	uint32_t crc = 0;
	memset(&s, 0, sizeof s);
	int rc = qrd_inflate_start(&s, f->stored, f->stored_size);
	for (uint64_t at = 0, n, last = 0; !rc && !last; at += n) {
		n = f->size - at < QRD_BATCH ? f->size - at : QRD_BATCH;
		last = at + n == f->size;
		rc = qrd_inflate(&s, part, n, (int)last);
		crc = rc ? 0 : qrd_crc(crc, part, n);
	}
	qrd_inflate_end(&s);
	return rc ? rc : qrd_same(crc, f->crc32);
}
#endif

static const char *qrd_why(int rc)
{
	return rc == QUIRE_READ_MEMORY ? "out of memory" : rc == QUIRE_READ_UNSUPPORTED ? "it is deflated; compile with QUIRE_READ_ZLIB"
							 : "its bytes are damaged: they have another checksum";
}

QUIRE_READ_API int quire_read_check(struct quire_read *q)
{
	int rc = QUIRE_READ_OK;
	q->error = NULL;
	q->culprit[0] = '\0';
	for (size_t i = 0; i < q->tensor_count && !rc; i++)
		if ((rc = quire_read_check_tensor(&q->tensors[i])) != QUIRE_READ_OK)
			qrd_fail(q, rc, q->tensors[i].name, qrd_why(rc));
#ifdef QUIRE_READ_ZLIB
	for (size_t i = 0; i < q->file_count && !rc; i++)
		if ((rc = qrd_check_file(&q->files[i])) != QUIRE_READ_OK)
			qrd_fail(q, rc, q->files[i].name, qrd_why(rc));
#endif
	for (size_t i = 0; i < q->entry_count && !rc; i++)
		for (uint64_t at = q->entries[i].begin; q->entries[i].kind == QRD_PAD && at < q->entries[i].end && !rc; at++)
			if (q->data[at])
				rc = qrd_fail(q, QUIRE_READ_DAMAGED, q->entries[i].name, "the padding is not zero");
	return rc;
}
#endif /* QUIRE_READ_IMPLEMENTATION */
