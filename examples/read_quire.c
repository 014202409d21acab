/*
 * What a device's program does with a .quire file, by include/quire_read.h alone.
 *
 *	cc -I../include read_quire.c -lz -o read_quire     without zlib: cc -DNO_ZLIB -I../include read_quire.c -o read_quire
 *	./read_quire model.quire                           what is in it
 *	./read_quire model.quire check                     compares every checksum
 *	./read_quire model.quire file config.json          a file of the model's folder
 *	./read_quire model.quire tensor NAME [FIRST ROWS]  the values of a tensor, or of some rows of it
 *	./read_quire model.quire floats                    every tensor as f32, one after the other, in the order of the list
 */
#include <stdio.h>
#include <stdlib.h>

#ifndef NO_ZLIB
#define QUIRE_READ_ZLIB
#endif
#define QUIRE_READ_IMPLEMENTATION
#include "quire_read.h"

/* As many rows as go into a MiB or so: a tensor in planes is inflated a MiB at a time. */
static uint64_t batch(const struct quire_read_tensor *t)
{
	uint64_t n = t->cols ? ((uint64_t)1 << 18) / t->cols : 0;
	return n ? n : 1;
}

static void put_text(const float *x, uint64_t rows, uint64_t cols)
{
	for (uint64_t i = 0; i < rows * cols; i++)
		printf("%.9g%c", (double)x[i], (i + 1) % cols ? ' ' : '\n');
}

/* Little-endian, whatever this machine is; the floats are written over. */
static void put_floats(float *x, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t u;
		uint8_t bytes[4];
		memcpy(&u, &x[i], 4);
		for (int b = 0; b < 4; b++)
			bytes[b] = (uint8_t)(u >> 8 * b);
		memcpy(&x[i], bytes, 4);
	}
	fwrite(x, sizeof *x, (size_t)n, stdout);
}

static int decode(const struct quire_read_tensor *t, uint64_t first, uint64_t rows, int text)
{
	uint64_t step = batch(t);
	float *x = first <= t->rows && rows <= t->rows - first ? (float *)malloc((size_t)(step * t->cols * sizeof *x) + 1) : NULL;
	int rc = x ? QUIRE_READ_OK : QUIRE_READ_USAGE;
	for (uint64_t at = 0, n; at < rows && !rc; at += n) {
		n = rows - at < step ? rows - at : step;
		rc = quire_read_rows(t, first + at, n, x);
		if (!rc && text)
			put_text(x, n, t->cols);
		else if (!rc)
			put_floats(x, n * t->cols);
	}
	free(x);
	if (rc)
		fprintf(stderr, "%s: rows cannot be read (%d)\n", t->name, rc);
	return rc;
}

static int put_file(const struct quire_read_file *f)
{
	char *text = (char *)malloc((size_t)f->size + 1);
	int rc = text ? quire_read_inflate(f, text) : QUIRE_READ_MEMORY;
	if (!rc)
		fwrite(text, 1, (size_t)f->size, stdout);
	else
		fprintf(stderr, "%s: cannot be read (%d)\n", f->name, rc);
	free(text);
	return rc;
}

static int list(const struct quire_read *q)
{
	for (size_t i = 0; i < q->file_count; i++)
		printf("file    %10llu  %s\n", (unsigned long long)q->files[i].size, q->files[i].name);
	for (size_t i = 0; i < q->tensor_count; i++) {
		const struct quire_read_tensor *t = &q->tensors[i];
		printf("tensor  %10llu  %-40s %s [", (unsigned long long)t->bytes, t->name, t->codec);
		for (unsigned d = 0; d < t->ndim; d++)
			printf("%s%llu", d ? ", " : "", (unsigned long long)t->shape[d]);
		printf("]%s\n", t->planes ? " in planes" : "");
	}
	return QUIRE_READ_OK;
}

static int run(struct quire_read *q, int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "list";
	int rc = QUIRE_READ_OK;
	if (!strcmp(what, "list"))
		return list(q);
	if (!strcmp(what, "check")) {
		rc = quire_read_check(q);
		if (rc)
			fprintf(stderr, "%s: %s %s\n", argv[1], q->culprit, q->error);
		return rc;
	}
	if (!strcmp(what, "floats")) {
		for (size_t i = 0; i < q->tensor_count && !rc; i++)
			rc = decode(&q->tensors[i], 0, q->tensors[i].rows, 0);
		return rc;
	}
	if (argc > 3 && !strcmp(what, "file")) {
		const struct quire_read_file *f = quire_read_find_file(q, argv[3]);
		return f ? put_file(f) : QUIRE_READ_USAGE;
	}
	if (argc > 3 && !strcmp(what, "tensor")) {
		const struct quire_read_tensor *t = quire_read_find(q, argv[3]);
		uint64_t first = argc > 5 ? strtoull(argv[4], NULL, 10) : 0;
		return t ? decode(t, first, argc > 5 ? strtoull(argv[5], NULL, 10) : t->rows, 1) : QUIRE_READ_USAGE;
	}
	return QUIRE_READ_USAGE;
}

int main(int argc, char **argv)
{
	struct quire_read q;
	int rc;
	if (argc < 2) {
		fprintf(stderr, "usage: read_quire FILE [check | file NAME | tensor NAME [FIRST ROWS] | floats]\n");
		return QUIRE_READ_USAGE;
	}
	rc = quire_read_open(&q, argv[1]);
	if (rc) {
		fprintf(stderr, "%s: %s %s\n", argv[1], q.culprit, q.error);
		return rc;
	}
	rc = run(&q, argc, argv);
	quire_read_close(&q);
	return fflush(stdout) ? QUIRE_READ_IO : rc;
}
