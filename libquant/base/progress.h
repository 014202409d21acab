#ifndef QUIRE_BASE_PROGRESS_H
#define QUIRE_BASE_PROGRESS_H
/* How far long work is, told to whoever watches; the watcher may cancel it. NULL: nobody does. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	bool (*step)(void *arg, uint64_t done, uint64_t total); /* in units that the work states; false: cancel. total 0: not known */
	void *arg;
};
static inline bool progress_tell(const struct progress *p, uint64_t done, uint64_t total)
{
	return !p || p->step(p->arg, done, total);
}

#endif
