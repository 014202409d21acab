#include "model/arch.h"

#include <stdio.h>
#include <string.h>

#include "model/family/family.h"

/*
 * Their defaults are what transformers' configuration classes use for an absent key: configs saved by older versions leave
 * such keys out.
 */
#define ROW(name) &family_##name,
const struct arch *const arch_rows[] = { FAMILIES(ROW) };
const unsigned arch_row_count = sizeof arch_rows / sizeof *arch_rows;

const struct arch *arch_find(const char *model_type)
{
	for (unsigned i = 0; i < arch_row_count; i++)
		if (!strcmp(arch_rows[i]->name, model_type))
			return arch_rows[i];
	return NULL;
}

const struct arch *arch_from_gguf(const char *name, bool experts)
{
	for (unsigned i = 0; i < arch_row_count; i++)
		if (arch_rows[i]->gguf && !strcmp(arch_rows[i]->gguf, name) && experts == (arch_rows[i]->mixture != NULL))
			return arch_rows[i];
	return NULL;
}

char *arch_list(char *buf, size_t size)
{
	size_t at = 0;
	buf[0] = '\0';
	for (unsigned i = 0; i < arch_row_count && at < size; i++) {
		int n = snprintf(buf + at, size - at, "%s%s", i ? ", " : "", arch_rows[i]->name);
		at += n > 0 ? (size_t)n : 0;
	}
	return buf;
}
