#ifndef QUIRE_MODEL_ARITHMETIC_H
#define QUIRE_MODEL_ARITHMETIC_H
/*
 * Whose arithmetic the forward pass follows: its own, in f32 throughout, or that of a runtime that rounds activations
 * before it multiplies them. docs/numerics.md says what is rounded, and how.
 */
#include "base/err.h"

enum arithmetic { ARITHMETIC_EXACT, ARITHMETIC_LLAMA };

struct arithmetic_row {
	enum arithmetic arithmetic;
	const char *name, *summary;
};
extern const struct arithmetic_row arithmetic_rows[];
extern const unsigned arithmetic_row_count;

/* ERR_USAGE for an unknown name. */
int arithmetic_find(const char *name, enum arithmetic *out, struct err *e);

#endif
