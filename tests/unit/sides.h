/* For tests that look at a checkpoint's side files. Include after cmocka.h. */
#ifndef QUIRE_TESTS_SIDES_H
#define QUIRE_TESTS_SIDES_H
#include "formats/checkpoint.h"

/* One that must be there and be read. */
static inline const struct side_file *side_of(const struct checkpoint *c, const char *name)
{
	struct err error;
	const struct side_file *f;
	if (checkpoint_file(c, name, &f, &error))
		fail_msg("%s", error.message);
	if (!f)
		fail_msg("%s has no %s", c->path, name);
	return f;
}

static inline int side_count(const struct checkpoint *c)
{
	int n = 0;
	while (checkpoint_file_name(c, (size_t)n))
		n++;
	return n;
}
#endif
