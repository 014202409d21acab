/* AVX-512 with VNNI, which multiplies bytes and adds up at once. */
#include "kernel/rows.h"

#ifdef __x86_64__
#include "kernel/avx512.h"

static bool usable(void)
{
	return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

const struct kernels kernels_avx512vnni = KERNEL_ROW("avx512vnni", usable, avx512);
#endif
