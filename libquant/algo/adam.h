#ifndef QUIRE_ALGO_ADAM_H
#define QUIRE_ALGO_ADAM_H
/*
 * Gradient descent with Adam (Kingma and Ba, arXiv 1412.6980) on several matrices at once. A matrix's step is a
 * fraction of its root mean square, rising over a tenth of the steps and falling along a cosine.
 */
#include <stddef.h>

#include "base/err.h"

struct adam_matrix {
	float *w, *grad;         /* the caller's */
	size_t n;
	float *first, *second;
	double scale;
};

struct adam {
	struct adam_matrix *matrix;
	size_t count, room;
	int step, steps;
	double rate;
};

/* Room for `room` matrices. */
int adam_init(struct adam *a, size_t room, int steps, double rate, struct err *e);
void adam_release(struct adam *a);
/* w moves against grad, both of n floats. */
int adam_add(struct adam *a, float *w, float *grad, size_t n, struct err *e);
/* One step with what the gradients are now; does not depend on the number of threads. */
void adam_step(struct adam *a);

#endif
