#ifndef QUIRE_MODEL_WEIGHT_H
#define QUIRE_MODEL_WEIGHT_H
/* Products with weights that are decoded on the fly; see weight_apply in model.h. */
#include "model/model.h"

/* One of several products that share their input. */
struct product {
	const struct weight *w;
	const float *bias;   /* [rows] or NULL */
	float *y;            /* [n, rows] */
};

/* Floats of scratch per worker for a product of n tokens. */
size_t weight_scratch(const struct weight *w, size_t n);
enum { PRODUCTS = 4 };
/* y = x W^T + bias for up to that many products at once; scratch holds `stride` floats per worker. */
void weight_products(const struct product *p, unsigned count, const float *x, size_t n, float *scratch, size_t stride);
/* Decodes one row. */
void weight_row(const struct weight *w, uint64_t row, float *out);

#endif
