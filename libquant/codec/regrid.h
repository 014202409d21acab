#ifndef QUIRE_CODEC_REGRID_H
#define QUIRE_CODEC_REGRID_H
/*
 * From one codec to another without rounding, where both have the same grid: as many levels, evenly spaced, under scales and
 * offsets that both store (int4-g64 and q4_0, q4_1 and int4-g32-bias ...). Codes stay what they are.
 */
#include "codec/codec.h"

enum regrid {
	REGRID_NEVER,
	REGRID_MAYBE,   /* if scales in one kind of 16 bits are numbers of the other, too: by the values */
	REGRID_ALWAYS,
};
/* Can rows of cols elements go from one to the other? */
enum regrid codec_regrid(const struct codec *from, const struct codec *to, uint64_t cols);
/* One row; codes: room for cols. false: a scale or an offset would be rounded. */
bool codec_regrid_row(const struct codec *from, const struct codec *to, const uint8_t *src, uint64_t cols, uint8_t *codes, uint8_t *dst);

#endif
