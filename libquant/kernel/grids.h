#ifndef QUIRE_KERNEL_GRIDS_H
#define QUIRE_KERNEL_GRIDS_H
/*
 * The codebooks of ggml's iq types, a fact of the format (docs/formats/grids.md). An entry is the numbers of its eight
 * levels, two bits each, or of its four, three bits each; the first element's bits are the lowest. Entries ascend.
 */
#include <stdint.h>

extern const uint16_t iq2_xxs_grid[256], iq2_xs_grid[512], iq2_s_grid[1024], iq3_xxs_grid[256], iq3_s_grid[512], iq1_s_grid[2048];

#endif
