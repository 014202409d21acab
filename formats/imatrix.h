#ifndef QUIRE_FORMATS_IMATRIX_H
#define QUIRE_FORMATS_IMATRIX_H
/*
 * llama.cpp's importance matrices, in the GGUF form (general.type = imatrix;
 * llama.cpp #9400) and the older .dat:
 *
 *	i32 entries | entries x { i32 length | name | i32 calls | i32 values | f32[values] }
 *	optional: i32 chunks | i32 length | name of the text
 *
 * An entry belongs to one weight tensor, under its GGUF name with ".weight".
 */
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/strbuf.h"

struct imatrix_entry {
	const char *name;          /* "blk.0.ffn_down.weight" */
	size_t n, mats;            /* input channels; experts, else 1 */
	/*
	 * [mats, n] sums of squares and [mats] how many tokens they are over. The older form keeps only means:
	 * its sums are as if each call had been one token.
	 */
	float *sum_squares, *counts;
};

struct imatrix {
	struct imatrix_entry *entries;
	size_t count;
	uint32_t chunk_count, chunk_size; /* 0: not known */
	const char **datasets;
	size_t dataset_count;
	struct arena arena;
};

/*
 * Either form, told apart by GGUF's magic. ERR_INPUT for anything malformed, an entry named twice, and values that are
 * negative or not finite. Nothing in m points into data. On failure nothing is to be released.
 */
int imatrix_parse(struct imatrix *m, const void *data, size_t size, struct err *e);
void imatrix_release(struct imatrix *m);

/* Appends the file. Entries are written sorted by name. ERR_UNSUPPORTED for names too long for GGUF. */
int imatrix_print_gguf(const struct imatrix *m, struct strbuf *out, struct err *e);
/* The older form holds one name of a text, the first. chunk_size must be known (ERR_BUG). */
int imatrix_print_dat(const struct imatrix *m, struct strbuf *out, struct err *e);

#endif
