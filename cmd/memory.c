/*
 * OpenBLAS asks for its buffers again and again, for ever, when there is no room for them: first before main, one for each
 * core, then at a product, one for each thread that multiplies. Where a limit on memory is set (ulimit -v), it is asked
 * first whether they fit, and what is used later is taken at the start.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/thread.h"
#include "cmd/command.h"
#include "kernel/blas.h"

#define BUFFER ((size_t)128 << 20) /* of OpenBLAS on 64-bit machines; only addresses, hardly any memory */
#define SLACK ((size_t)16 << 20)
enum { SIDE = 256 };               /* of a product that needs a buffer */

static bool is_limited(void)
{
	struct rlimit space, data;
	return (!getrlimit(RLIMIT_AS, &space) && space.rlim_cur != RLIM_INFINITY) ||
	       (!getrlimit(RLIMIT_DATA, &data) && data.rlim_cur != RLIM_INFINITY);
}

static bool fits(size_t buffers)
{
	size_t size = buffers * BUFFER + SLACK;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return false;
	munmap(p, size);
	return true;
}

/* Runs before the constructors of libraries: nothing of theirs, nor the environment by getenv, is there yet. */
static void before_libraries(int argc, char **argv, char **env)
{
	static const char names[][24] = { "OPENBLAS_NUM_THREADS=", "OMP_NUM_THREADS=" };
	static const char text[] = "quire: out of memory: the limit (ulimit -v) leaves no room for the buffers of OpenBLAS, 128 MiB a "
				   "core; raise it, or set OPENBLAS_NUM_THREADS=1\n";
	long cores = sysconf(_SC_NPROCESSORS_ONLN), n = cores < 1 ? 1 : cores;
	(void)argc;
	(void)argv;
	if (!is_limited())
		return;
	for (size_t i = sizeof names / sizeof *names; i--;)
		for (char **p = env; *p; p++)
			if (!strncmp(*p, names[i], strlen(names[i]))) {
				int asked = atoi(*p + strlen(names[i]));
				n = asked > 0 && asked < cores ? asked : n;
			}
	if (fits((size_t)n))
		return;
	(void)!write(STDERR_FILENO, text, sizeof text - 1);
	_exit(ERR_NOMEM);
}
__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = before_libraries;

/* Zeros times zeros, to a place of its own. */
static void multiply(void *arg, size_t i, int worker)
{
	float *m = arg;
	(void)worker;
	blas_gemm(false, false, SIDE, SIDE, SIDE, 1, m, SIDE, m, SIDE, 0, m + (i + 1) * SIDE * SIDE, SIDE);
}

int memory_reserve(struct err *e)
{
	int n = thread_count(), cores = thread_default();
	if (!is_limited()) {
		blas_set_threads(n);
		return ERR_OK;
	}
	/* the first of each core are there */
	while (n && !fits((size_t)(n > cores ? 2 * n - cores : n)))
		n--;
	float *m = n ? calloc((size_t)(n + 1) * SIDE * SIDE, sizeof *m) : NULL;
	if (!m)
		return err_set(e, ERR_NOMEM, "out of memory: the limit (ulimit -v) leaves no room for the buffers of OpenBLAS, 128 MiB a thread");
	thread_set(n);
	blas_set_threads(n);
	thread_for((size_t)n, multiply, m);
	free(m);
	return ERR_OK;
}
