#include "algo/rows.h"

#include <string.h>

/* One line per method; help and documentation list them in this order. */
const struct method method_rows[] = {
	{
		.name = "rtn", .summary = "round to nearest on each format's plain grid",
		.by_rows = true, .run = rtn_run,
	},
	{
		.name = "search", .summary = "choose each block's grid to minimise the (importance-weighted) squared error",
		.by_rows = true, .run = search_run,
	},
	{
		.name = "imatrix", .summary = "search weighted by how strongly each input channel is used",
		.needs_importance = true, .by_rows = true, .run = search_run,
	},
	{
		.name = "gptq", .summary = "error feedback: later columns take over what rounding the earlier ones lost",
		.needs_importance = true, .needs_hessian = true, .run = gptq_run,
	},
};
const unsigned method_row_count = sizeof(method_rows) / sizeof(*method_rows);

const struct method *method_find(const char *name)
{
	for (unsigned i = 0; i < method_row_count; i++)
		if (strcmp(method_rows[i].name, name) == 0)
			return &method_rows[i];
	return NULL;
}
