#include "base/thread.h"

#include <stdatomic.h>
#include <unistd.h>

#include <pthread.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static int workers; /* 0: not set yet */

int thread_default(void)
{
#ifdef _OPENMP
	/* what OMP_NUM_THREADS says, or all that this process may run on; the same before and after every loop below */
	return omp_get_max_threads();
#else
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : (int)n;
#endif
}

void thread_set(int n)
{
	workers = n < 1 ? thread_default() : n;
}

int thread_count(void)
{
	return workers ? workers : thread_default();
}

struct loop {
	atomic_size_t next;
	size_t count;
	void (*fn)(void *, size_t, int);
	void *arg;
};

static void drain(struct loop *l, int worker)
{
	for (size_t i; (i = atomic_fetch_add(&l->next, 1)) < l->count;)
		l->fn(l->arg, i, worker);
}

/* OpenMP shares its threads with OpenBLAS, so that the two never fight over cores. */
#ifdef _OPENMP
void thread_for(size_t count, void (*fn)(void *, size_t, int), void *arg)
{
	struct loop l = { .count = count, .fn = fn, .arg = arg };
	int n = thread_count();
	if (n <= 1 || count <= 1 || omp_in_parallel()) {
		/* OpenBLAS cuts a product by the threads it may have: none here either, or bits would depend on them */
		int was = omp_get_max_threads();
		omp_set_num_threads(1);
		drain(&l, 0);
		omp_set_num_threads(was);
		return;
	}
#pragma omp parallel num_threads(n)
	drain(&l, omp_get_thread_num());
}
#else
enum { MAX_WORKERS = 256 };
static _Thread_local int inside;

struct worker {
	struct loop *loop;
	int index;
	pthread_t thread;
};

static void *work(void *p)
{
	struct worker *w = p;
	inside = 1;
	drain(w->loop, w->index);
	inside = 0;
	return NULL;
}

void thread_for(size_t count, void (*fn)(void *, size_t, int), void *arg)
{
	struct loop l = { .count = count, .fn = fn, .arg = arg };
	int n = thread_count() < MAX_WORKERS ? thread_count() : MAX_WORKERS;
	struct worker w[MAX_WORKERS];
	int started = 1;
	w[0] = (struct worker){ &l, 0, pthread_self() };
	if (count > 1 && !inside)
		for (; started < n; started++) {
			w[started] = (struct worker){ .loop = &l, .index = started };
			if (pthread_create(&w[started].thread, NULL, work, &w[started]))
				break;
		}
	int was = inside;
	work(&w[0]);
	inside = was;
	for (int i = 1; i < started; i++)
		pthread_join(w[i].thread, NULL);
}
#endif

static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;

void thread_lock(void)
{
	pthread_mutex_lock(&once);
}

void thread_unlock(void)
{
	pthread_mutex_unlock(&once);
}
