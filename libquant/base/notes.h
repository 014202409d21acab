#ifndef QUIRE_BASE_NOTES_H
#define QUIRE_BASE_NOTES_H
/*
 * What a user should hear of work that did not fail: what a format does not keep, what was guessed. Libraries add
 * lines, commands print them as warnings. Zero-initialise before use.
 */
#include <stdbool.h>
#include <stddef.h>

struct notes {
	char **line;
	size_t count;
	bool failed;     /* out of memory: lines are missing */
};

/* Adds one line, unless it is there already. n may be NULL: nobody listens. */
void notes_add(struct notes *n, const char *format, ...) __attribute__((format(printf, 2, 3)));
void notes_release(struct notes *n);

#endif
