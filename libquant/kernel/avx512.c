/* AVX-512 F, BW, VL, DQ. No fused multiply-add: it would round differently from the other rows. */
#include "kernel/rows.h"

#ifdef __x86_64__
#include "kernel/avx512.h"

const struct kernels kernels_avx512 = KERNEL_ROW("avx512", has_avx512, avx512);
#endif
