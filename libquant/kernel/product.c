#include "kernel/product.h"

#include <stdatomic.h>
#include <string.h>

/* Slowest first: the best usable row is the last one. */
static const struct product_row *const rows[] = {
	&product_split,
	&product_sgemm,
#ifdef __x86_64__
	&product_amx,
#endif
};
enum { ROWS = sizeof rows / sizeof *rows };

static _Atomic(const struct product_row *) active;

static const struct product_row *best(void)
{
	unsigned i = ROWS - 1;
	while (i && !rows[i]->usable())
		i--;
	return rows[i];
}

const struct product_row *products(void)
{
	const struct product_row *p = atomic_load_explicit(&active, memory_order_relaxed);
	if (!p) {
		p = best();
		atomic_store_explicit(&active, p, memory_order_relaxed);
	}
	return p;
}

bool products_select(const char *name)
{
	const struct product_row *p = !name || strcmp(name, "auto") == 0 ? best() : NULL;
	for (unsigned i = 0; !p && i < ROWS; i++)
		if (strcmp(rows[i]->name, name) == 0 && rows[i]->usable())
			p = rows[i];
	if (p)
		atomic_store_explicit(&active, p, memory_order_relaxed);
	return p != NULL;
}

const struct product_row *products_row(unsigned i)
{
	return i < ROWS ? rows[i] : NULL;
}
