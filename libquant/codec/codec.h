#ifndef QUIRE_CODEC_CODEC_H
#define QUIRE_CODEC_CODEC_H
/*
 * Codecs: how a row of numbers is stored. One row of the registry per storage
 * type; plain floats and integers are codecs too.
 *
 * To add one: write codec/<name>.c with the struct, and add a line to the table
 * in codec/registry.c. Tests, help and documentation walk the table.
 *
 * A quantizing codec knows its grid and its bytes and nothing of how codes are
 * chosen. A row is cut into blocks of `block` elements (the last block of a row
 * may be shorter only if `ragged`); a block has sub-blocks of `sub` elements,
 * each with its own scale and offset:
 *
 *	value(i) = scale[i / sub] * level[code(i)] + offset[i / sub]
 *
 * where level[] is `levels`, or, when that is NULL, level[c] = c + code_bias.
 * So search (algo/), error feedback (algo/) and packing (here) stay apart.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CODEC_MAX_SUBS = 32, CODEC_MAX_BLOCK = 256 };

enum codec_kind {
	CODEC_FLOAT,    /* f32, f16, bf16, f64, f8: one element at a time */
	CODEC_INTEGER,  /* i8 ... u64, bool: carried, never quantized to */
	CODEC_BLOCK,    /* fixed blocks, bit-compatible with GGUF */
	CODEC_GROUP,    /* quire's own int groups; block 0 means the whole row */
};

/*
 * The parameters of one block, as stored: scale and offset are exactly what a
 * decoder computes from the stored fields, so that rounding against them is
 * rounding against the file. The raw fields belong to the codec.
 */
struct block_params {
	float scale[CODEC_MAX_SUBS];
	float offset[CODEC_MAX_SUBS];
	uint16_t d, dmin;                   /* raw half-precision super-scales */
	uint8_t sc[CODEC_MAX_SUBS], mn[CODEC_MAX_SUBS];
};

enum fit_effort {
	FIT_RTN,     /* the format's plain rule (bit-exact to the reference for legacy GGUF types) */
	FIT_SEARCH,  /* minimise sum w (x - value)^2; never worse than FIT_RTN */
};

/* Neighbours whose codes are chosen as one, and the grid under them: x are numbers, w (may be NULL) how much each matters. */
struct code_target {
	float scale, offset;
	const float *x, *w;
};

struct codec {
	const char *name;            /* "q4_k", "int4-g128" */
	const char *summary;         /* one line for help and documentation */
	enum codec_kind kind;
	uint32_t block;              /* elements per block; 1 for plain types, 0 = whole row */
	uint32_t block_bytes;        /* bytes of a full block (0 when block is 0) */
	uint32_t sub;                /* elements per sub-block; 0 = whole block */
	bool ragged;                 /* the last block of a row may be short */
	bool has_offset;             /* offsets are used (asymmetric) */
	int bits;                    /* of one code */
	int code_bias;               /* level of code 0 when levels is NULL */
	const float *levels;         /* 1 << bits entries, ascending for search, or NULL = uniform */
	/*
	 * Codebooks (codec/lattice.h): of the codes of `together` neighbours only some combinations can be stored, and `round`
	 * chooses them; 0: each code is free.
	 */
	uint32_t together;
	const struct lattice *lattice;
	void (*round)(const struct codec *c, const struct code_target *t, uint8_t *codes);
	int gguf_type;               /* ggml type id, or -1 */
	const char *safetensors;     /* dtype name in safetensors, or NULL */
	const char *fallback;        /* codec to use when a row does not divide, or NULL */
	int group_scale;             /* CODEC_GROUP: 0 = f16 scales, 1 = bf16 scales */
	bool group_bias;             /* CODEC_GROUP with an offset: a float like the scale, not a whole zero point */
	int kernel;                  /* CODEC_BLOCK: its enum block_id (kernel/kernel.h) */

	/* n elements of one row from their bytes (a multiple of block, or the row's end). Uses the active kernels. */
	void (*decode)(const struct codec *c, const void *src, float *dst, size_t n);
	/* Optional. y[rows]: dot products of rows that lie one after another with x; the bits of decoding and kernels()->dot. */
	void (*dot)(const struct codec *c, const void *src, const float *x, size_t n, float *y, size_t rows);
	/* Plain rounding of n elements (floats and FIT_RTN). NULL for integers other than identity. */
	void (*encode)(const struct codec *c, const float *src, void *dst, size_t n);

	/* Quantizing codecs only; n <= block is the block's length (the row's length when block is 0). */
	void (*fit)(const struct codec *c, const float *x, const float *w, size_t n, enum fit_effort effort,
		    struct block_params *p);
	void (*pack)(const struct codec *c, const struct block_params *p, const uint8_t *codes, size_t n, void *dst);
	void (*unpack)(const struct codec *c, const void *src, struct block_params *p, uint8_t *codes, size_t n);
	/*
	 * Optional. Rounds free scales and offsets (in p->scale, p->offset) onto what the
	 * format can store and fills the raw fields; NULL: p->scale rounds to the scale type.
	 */
	void (*store)(const struct codec *c, struct block_params *p, size_t n);
	/* Optional fast path: fit(FIT_SEARCH), round and pack a row at once; same bytes as the generic path. */
	void (*encode_search)(const struct codec *c, const float *src, const float *w, void *dst, size_t n);
	/* Optional fast path: fit(FIT_SEARCH) of every block of a row; the same parameters. */
	void (*fit_row)(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p);
};

extern const struct codec *const codec_rows[];
extern const unsigned codec_row_count;

/* Looks a name or an alias up, ignoring case and '-' against '_' ("Q4_K", "BF16", "F8_E4M3"). NULL when unknown. */
const struct codec *codec_find(const char *name);
const struct codec *codec_from_gguf(int type);
const struct codec *codec_from_safetensors(const char *dtype);

/* Bytes of a row of cols elements; 0 when the codec cannot hold such a row (or the size overflows). */
uint64_t codec_row_bytes(const struct codec *c, uint64_t cols);
/* This codec, or the first of its fallbacks that can hold rows of cols elements, at last f16. */
const struct codec *codec_for_row(const struct codec *c, uint64_t cols);
/* Bits per weight of a full block (or of a row of cols elements when block is 0). */
double codec_bits_per_weight(const struct codec *c, uint64_t cols);
static inline bool codec_quantizes(const struct codec *c)
{
	return c->kind == CODEC_BLOCK || c->kind == CODEC_GROUP;
}

/* Elements of the block that starts at element `at` of a row of cols elements. */
static inline size_t codec_block_len(const struct codec *c, uint64_t at, uint64_t cols)
{
	uint64_t b = c->block ? c->block : cols;
	return (size_t)(cols - at < b ? cols - at : b);
}

/* Elements per sub-block, for a block of n. */
static inline size_t codec_sub_len(const struct codec *c, size_t n)
{
	return c->sub ? c->sub : n;
}

/* The code whose value is nearest to x in a sub-block with this scale and offset (scale 0 gives the code nearest 0). */
uint8_t codec_round(const struct codec *c, float scale, float offset, float x);
/* The same for the n elements of one sub-block (any part of it), faster. */
void codec_round_run(const struct codec *c, float scale, float offset, const float *x, size_t n, uint8_t *codes);
/*
 * All codes of a block, or of whole sub-blocks of it: each is the nearest, weighted by w (NULL: alike) where codes hang
 * together. x, w and codes begin with the block.
 */
void codec_round_block(const struct codec *c, const struct block_params *p, const float *x, const float *w, size_t n, uint8_t *codes);
/* The value of a code. */
static inline float codec_value(const struct codec *c, float scale, float offset, uint8_t code)
{
	return scale * (c->levels ? c->levels[code] : (float)((int)code + c->code_bias)) + offset;
}

/* fit(FIT_SEARCH) of every block of a row; p holds one entry per block. */
void codec_fit_row(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p);

/* A row to be encoded: n numbers, how much each matters (all >= 0; NULL: all alike), and how hard to look. */
struct row_job {
	const float *x, *w;
	size_t n;
	enum fit_effort effort;
};
/* Fit, round and pack a row. scratch: CODEC_MAX_BLOCK or, for whole rows, n bytes. */
void codec_encode_row(const struct codec *c, const struct row_job *row, uint8_t *scratch, void *dst);

#endif
