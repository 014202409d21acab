/* The checkpoints in tests/golden/model: whoever adds one there adds it to every test that walks them. */
#ifndef QUIRE_TESTS_GOLDENS_H
#define QUIRE_TESTS_GOLDENS_H
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GOLDENS = 128, GOLDEN_NAME = 48 };
struct goldens {
	char name[GOLDENS][GOLDEN_NAME];
	int count;
};

static inline int golden_order(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Those whose folder has such a file, by name. */
static inline struct goldens goldens_with(const char *file)
{
	struct goldens g = { .count = 0 };
	DIR *d = opendir("tests/golden/model");
	for (struct dirent *x; d && (x = readdir(d));) {
		char path[400];
		snprintf(path, sizeof path, "tests/golden/model/%.200s/%s", x->d_name, file);
		if (*x->d_name == '.' || access(path, R_OK))
			continue;
		if (g.count == GOLDENS || strlen(x->d_name) >= GOLDEN_NAME)
			abort();
		strcpy(g.name[g.count++], x->d_name);
	}
	if (d)
		closedir(d);
	qsort(g.name, (size_t)g.count, sizeof *g.name, golden_order);
	return g;
}

#endif
