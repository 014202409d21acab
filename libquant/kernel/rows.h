#ifndef QUIRE_KERNEL_ROWS_H
#define QUIRE_KERNEL_ROWS_H
/*
 * The rows of the kernel table. To add one: a file that defines the vector
 * operations named at the top of template.h, includes it and fills a row with
 * KERNEL_ROW, and a line in kernel.c. A row that is not compiled for its
 * instruction set must not be in the table.
 */
#include "kernel/kernel.h"
#include "kernel/search.h"

extern const struct kernels kernels_scalar;
#ifdef __x86_64__
extern const struct kernels kernels_avx2, kernels_avx512, kernels_avx512vnni;
#endif
#ifdef __aarch64__
extern const struct kernels kernels_neon;
#endif

#endif
