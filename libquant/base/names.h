#ifndef QUIRE_BASE_NAMES_H
#define QUIRE_BASE_NAMES_H
/* Names that people type: how near one is to another, for "did you mean". */

/* How unlike two names are: insertions, deletions, changes and swaps of neighbours; more than limit is limit + 1. */
unsigned name_distance(const char *a, const char *b, unsigned limit);

#endif
