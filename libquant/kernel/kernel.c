#include "kernel/kernel.h"

#include <stdatomic.h>
#include <string.h>

#include "kernel/rows.h"

/* Slowest first: the best usable row is the last one. */
static const struct kernels *const rows[] = {
	&kernels_scalar,
#ifdef __x86_64__
	&kernels_avx2,
	&kernels_avx512,
	&kernels_avx512vnni,
#endif
#ifdef __aarch64__
	&kernels_neon,
#endif
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Set once at start; every row gives the same bits, so that a race could only cost speed. */
static _Atomic(const struct kernels *) active;

static const struct kernels *best(void)
{
	unsigned i = ROWS - 1;
	while (i && !rows[i]->usable())
		i--;
	return rows[i];
}

const struct kernels *kernels(void)
{
	const struct kernels *k = atomic_load_explicit(&active, memory_order_relaxed);
	if (!k) {
		k = best();
		atomic_store_explicit(&active, k, memory_order_relaxed);
	}
	return k;
}

bool kernels_select(const char *name)
{
	const struct kernels *k = NULL;
	if (!name || strcmp(name, "auto") == 0)
		k = best();
	for (unsigned i = 0; !k && i < ROWS; i++)
		if (strcmp(rows[i]->name, name) == 0 && rows[i]->usable())
			k = rows[i];
	if (k)
		atomic_store_explicit(&active, k, memory_order_relaxed);
	return k != NULL;
}

const struct kernels *kernels_row(unsigned i)
{
	return i < ROWS ? rows[i] : NULL;
}
