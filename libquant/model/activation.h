#ifndef QUIRE_MODEL_ACTIVATION_H
#define QUIRE_MODEL_ACTIVATION_H
/* Activations and their slopes. */
#include <stddef.h>

#include "model/config.h"

/* y[n] = act(g), times `up` unless that is NULL. y may be g. */
void activation_run(enum activation act, const float *g, const float *up, float *y, size_t n);
/* y[n] = act(g), and its derivative there. */
void activation_slope(enum activation act, const float *g, float *y, float *slope, size_t n);

#endif
