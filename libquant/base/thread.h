#ifndef QUIRE_BASE_THREAD_H
#define QUIRE_BASE_THREAD_H
/*
 * Parallel loops. Work is cut into `count` items by the caller; which worker
 * runs an item never changes the item's result, so that results do not depend
 * on the number of threads.
 */
#include <stddef.h>

/* What OMP_NUM_THREADS says, or the number of cores that the process may use. */
int thread_default(void);
/* Sets the number of workers for later loops (n < 1: thread_default()). Call it before starting work. */
void thread_set(int n);
int thread_count(void);

/*
 * Calls fn(arg, item, worker) for every item in [0, count), worker in
 * [0, thread_count()). Returns when all are done. A loop inside a loop runs
 * serially on its worker, with worker 0.
 */
void thread_for(size_t count, void (*fn)(void *arg, size_t item, int worker), void *arg);

/* Around what is made once for the whole process, when it is first needed. Not nested. */
void thread_lock(void);
void thread_unlock(void);

#endif
