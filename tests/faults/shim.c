/*
 * Loaded before the C library: one call of one kind fails, or is cut short, or a signal comes with it. Calls count from
 * main on, and not those of OpenMP and OpenBLAS, which have no way to say that they failed.
 *
 *   FAULT_KIND  read write open sync close rename mkdir map memory (NULL: nothing happens)
 *   FAULT_HOW   the error's number; "short" for half of what was asked; "term" for SIGTERM at this call
 *   FAULT_AT    which call, from 1; 0: none. Of calls for memory only the first that comes by a way (these callers, one
 *               above the other) counts: there are tens of thousands, and nearly all are the same loop once more
 *   FAULT_ON    set: all calls from that one on, as of a full disk
 *   FAULT_SHOW  set: prints the callers of the one that fails, for addr2line
 *   FAULT_LOG   a file that gets the number of calls when the program ends
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RANGES = 64, WAYS = 1 << 16, DEPTH = 16 };
static struct { unsigned long from, to; } foreign[RANGES]; /* code whose calls do not count */
static int ranges, started, how_error, is_short, is_term, sticky, tripped;
static char kind[16];
static long at;
static atomic_long calls;
static atomic_ulong ways[WAYS]; /* hashes; 0: free */

static int is_foreign(const char *line)
{
	return strstr(line, "libgomp") || strstr(line, "openblas") || strstr(line, "ld-linux") || strstr(line, "shim.so") ||
	       strstr(line, "gfortran") || strstr(line, "quadmath");
}

static void read_maps(void)
{
	static char text[1 << 18];
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY);
	long n = 0, got;
	while ((got = syscall(SYS_read, fd, text + n, sizeof text - 1 - (size_t)n)) > 0)
		n += got;
	syscall(SYS_close, fd);
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (ranges < RANGES && is_foreign(line) && sscanf(line, "%lx-%lx", &foreign[ranges].from, &foreign[ranges].to) == 2)
			ranges++;
	}
}

static void report(void)
{
	const char *path = getenv("FAULT_LOG");
	char text[32];
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
	if (fd < 0)
		return;
	syscall(SYS_write, fd, text, (size_t)snprintf(text, sizeof text, "%ld\n", atomic_load(&calls)));
	syscall(SYS_close, fd);
}

/* Has no call come this way before? */
static int is_new_way(void)
{
	static _Thread_local int inside; /* the unwinder asks for memory itself */
	void *at[DEPTH];
	unsigned long hash = 1469598103934665603ul;
	if (inside)
		return 0;
	inside = 1;
	int n = backtrace(at, DEPTH);
	inside = 0;
	for (int i = 0; i < n; i++)
		hash = (hash ^ (unsigned long)at[i]) * 1099511628211ul;
	hash |= 1;
	for (unsigned long i = hash >> 20, tries = 0; tries < WAYS; i++, tries++) {
		unsigned long free = 0;
		if (atomic_compare_exchange_strong(&ways[i % WAYS], &free, hash))
			return 1;
		if (free == hash)
			return 0;
	}
	return 0;
}

/* The last of the constructors, since it is loaded first. */
__attribute__((constructor)) static void start(void)
{
	const char *k = getenv("FAULT_KIND"), *how = getenv("FAULT_HOW"), *n = getenv("FAULT_AT");
	if (!k)
		return;
	snprintf(kind, sizeof kind, "%s", k);
	is_short = how && !strcmp(how, "short");
	is_term = how && !strcmp(how, "term");
	how_error = how ? atoi(how) : 0;
	at = n ? atol(n) : 0;
	sticky = getenv("FAULT_ON") && *getenv("FAULT_ON");
	read_maps();
	is_new_way();
	started = 1;
}

__attribute__((destructor)) static void stop(void)
{
	if (started)
		report();
}

/* Is it this call's turn? */
static int hit(const char *name, const void *caller)
{
	if (!started || strcmp(name, kind))
		return 0;
	for (int i = 0; i < ranges; i++)
		if ((unsigned long)caller >= foreign[i].from && (unsigned long)caller < foreign[i].to)
			return 0;
	if (!(sticky && tripped)) {
		if (!strcmp(kind, "memory") && !is_new_way())
			return 0;
		long n = atomic_fetch_add(&calls, 1) + 1;
		if (!at || n != at)
			return 0;
		tripped = 1;
		if (getenv("FAULT_SHOW")) {
			void *frames[DEPTH];
			backtrace_symbols_fd(frames, backtrace(frames, DEPTH), STDERR_FILENO);
		}
	}
	if (is_term) {
		kill(getpid(), SIGTERM);
		return 0;
	}
	errno = how_error;
	return 1;
}
#define HIT(name) hit(name, __builtin_return_address(0))
#define REAL(type, name, args) \
	static type(*real) args; \
	if (!real) \
		*(void **)&real = dlsym(RTLD_NEXT, name)

ssize_t read(int fd, void *p, size_t n)
{
	if (HIT("read")) {
		if (!is_short)
			return -1;
		n = n > 1 ? n / 2 : n;
	}
	return syscall(SYS_read, fd, p, n);
}
ssize_t pread64(int fd, void *p, size_t n, off_t o)
{
	if (HIT("read")) {
		if (!is_short)
			return -1;
		n = n > 1 ? n / 2 : n;
	}
	return syscall(SYS_pread64, fd, p, n, o);
}
ssize_t write(int fd, const void *p, size_t n)
{
	if (HIT("write")) {
		if (!is_short)
			return -1;
		n = n > 1 ? n / 2 : n;
	}
	return syscall(SYS_write, fd, p, n);
}
ssize_t pwrite64(int fd, const void *p, size_t n, off_t o)
{
	if (HIT("write")) {
		if (!is_short)
			return -1;
		n = n > 1 ? n / 2 : n;
	}
	return syscall(SYS_pwrite64, fd, p, n, o);
}
int open64(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	return HIT("open") ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int fsync(int fd) { return HIT("sync") ? -1 : (int)syscall(SYS_fsync, fd); }
int close(int fd)
{
	int failed = HIT("close"), error = errno, rc = (int)syscall(SYS_close, fd);
	if (failed)
		errno = error;
	return failed ? -1 : rc;
}
int rename(const char *a, const char *b) { return HIT("rename") ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0); }
int mkdir(const char *path, mode_t mode) { return HIT("mkdir") ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode); }
int ftruncate64(int fd, off_t n) { return HIT("write") && !is_short && errno != EINTR ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
void *mmap64(void *p, size_t n, int prot, int flags, int fd, off_t o)
{
	return HIT("map") ? MAP_FAILED : (void *)syscall(SYS_mmap, p, n, prot, flags, fd, o);
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { return HIT("memory") ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return HIT("memory") ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return HIT("memory") ? NULL : __libc_realloc(p, n); }
