#ifndef QUIRE_MODEL_ROUNDED_H
#define QUIRE_MODEL_ROUNDED_H
/*
 * Products of weights with activations rounded as ggml rounds them for the weights' type: to bytes in blocks, which are
 * multiplied in integers, or to half precision.
 */
#include "model/weight.h"

/* What x becomes on its way into a product, and what the products of floats need besides. */
struct rounded_room {
	void *x;
	size_t size;          /* bytes */
	float *scratch;       /* as weight_products' */
	size_t stride;
};

/* Bytes that n tokens take at most for a product with this weight, whatever type is put in its place. */
size_t rounded_size(const struct weight *w, size_t n);
/* As weight_products. A weight of a type that ggml has not is multiplied exactly. */
void rounded_products(const struct product *p, unsigned count, const float *x, size_t n, const struct rounded_room *room);

#endif
