#ifndef QUIRE_CODEC_KQUANT_H
#define QUIRE_CODEC_KQUANT_H
/*
 * What the block formats with integer sub-block scales under half-precision
 * super-scales share: fit, store and the fast row encoder, over kernel/search.h.
 * A format gives its grid, how its fields pack, and nothing else.
 */
#include "codec/codec.h"
#include "kernel/search.h"

struct kquant {
	struct search_grid grid;
	enum { KQ_AFFINE, KQ_SCALED, KQ_TABLE } kind;
};

void kquant_fit(const struct kquant *q, const float *x, const float *w, enum fit_effort effort, struct block_params *p);
/* Searches every block of a row, as many at once as there are lanes. */
void kquant_fit_row(const struct kquant *q, const float *x, const float *w, size_t n, struct block_params *p);
/* Scales and offsets from the raw fields, with a decoder's arithmetic. */
void kquant_expand(const struct kquant *q, struct block_params *p);
/* Free scales and offsets onto the fields. */
void kquant_store(const struct kquant *q, struct block_params *p);
void kquant_encode(const struct codec *c, const struct kquant *q, const struct row_job *row, void *dst);

/* The integer scale of a field: sc holds the stored bits. */
static inline int kquant_sc(const struct kquant *q, uint8_t sc)
{
	return q->grid.sc_lo < -64 ? (int8_t)sc : (int)sc + (int)q->grid.sc_lo;
}

static inline uint8_t kquant_sc_bits(const struct kquant *q, float sc)
{
	return q->grid.sc_lo < -64 ? (uint8_t)(int8_t)sc : (uint8_t)(sc - q->grid.sc_lo);
}

/* The 12 bytes of eight 6-bit scales and eight 6-bit offsets (Q4_K, Q5_K). */
void kquant_pack_6bit(const uint8_t sc[8], const uint8_t mn[8], uint8_t out[12]);
void kquant_unpack_6bit(const uint8_t in[12], uint8_t sc[8], uint8_t mn[8]);

/* The levels of IQ4_NL and IQ4_XS. */
extern const float iq4_levels[16];

/* Defines the functions of a codec's row from its struct kquant: NAME_fit, _fit_row, _store, _encode, _encode_search. */
#define KQUANT_METHODS(name, kq) \
	static void name##_fit(const struct codec *c, const float *x, const float *w, size_t n, \
			       enum fit_effort effort, struct block_params *p) \
	{ \
		(void)c, (void)n; \
		kquant_fit(&(kq), x, w, effort, p); \
	} \
	static void name##_fit_row(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p) \
	{ \
		(void)c; \
		kquant_fit_row(&(kq), x, w, n, p); \
	} \
	static void name##_store(const struct codec *c, struct block_params *p, size_t n) \
	{ \
		(void)c, (void)n; \
		kquant_store(&(kq), p); \
	} \
	static void name##_encode(const struct codec *c, const float *src, void *dst, size_t n) \
	{ \
		kquant_encode(c, &(kq), &(struct row_job){ src, NULL, n, FIT_RTN }, dst); \
	} \
	static void name##_encode_search(const struct codec *c, const float *src, const float *w, void *dst, \
					 size_t n) \
	{ \
		kquant_encode(c, &(kq), &(struct row_job){ src, w, n, FIT_SEARCH }, dst); \
	}

#endif
