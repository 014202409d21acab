#ifndef QUIRE_CALIB_ROTATION_H
#define QUIRE_CALIB_ROTATION_H
/* The phases that RoPE gives the positions of a window, for those who attend outside the forward pass. */
#include "model/model.h"

struct rotation {
	float *cosine, *sine;    /* [ctx, rope dims / 2] */
};
int rotation_init(struct rotation *r, const struct model *m, size_t ctx, struct err *e);
void rotation_release(struct rotation *r);

#endif
