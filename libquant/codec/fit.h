#ifndef QUIRE_CODEC_FIT_H
#define QUIRE_CODEC_FIT_H
/*
 * Scale search for integer groups of any length (those of fixed length without zero
 * points go through kernel/search.h, which is faster): several starting scales, each followed by the best
 * scale for the codes it gives (weighted least squares in closed form), and
 * every error measured with the scale as the format stores it.
 *
 * *p comes in filled with the codec's plain rounding (stored) and goes out
 * replaced only by something with a smaller sum of w (x - value)^2.
 */
#include "codec/codec.h"

/* value = scale * (c + bias), where c + bias is in [-2^(bits-1), 2^(bits-1) - 1]; scales of both signs. */
void fit_symmetric(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p);
/* value = scale * (c - zero), zero a whole number in [0, 2^bits - 1] that the codec's store derives from the offset. */
void fit_zero_point(const struct codec *c, const float *x, const float *w, size_t n, struct block_params *p);

#endif
