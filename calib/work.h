#ifndef QUIRE_CALIB_WORK_H
#define QUIRE_CALIB_WORK_H
/*
 * A working file beside the output: holds what does not stay in memory, and
 * survives an interruption, so that a later run can go on. Its first page says
 * whose work it is, how far it came, and checksums of the rest.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { WORK_HEADER = 4096, WORK_SUMS = 2 };

struct work {
	int fd;
	bool named;
	char *path;
	uint8_t job[32];          /* sha256 over everything the result depends on */
	uint64_t steps;           /* done */
	uint32_t sums[WORK_SUMS]; /* the caller's checksums of what lies behind the header */
};

/* "OUT.resume"; malloc'ed, NULL when out of memory. */
char *work_path(const char *out);
/* Is there such a file, and is something in it? One that an interruption left before its first commit is as good as none. */
bool work_left(const char *path);
/*
 * Opens or makes the file. With resume, w->steps and w->sums are those of the interrupted run; without it, or when there
 * is none, w->steps is 0. ERR_NOT_COMPARABLE when it is of another job; ERR_IO when another process has it open.
 */
int work_open(struct work *w, const char *out, const uint8_t job[32], bool resume, struct err *e);
/* Offsets count from behind the header. ERR_INPUT for a read past the end (the file is damaged). */
int work_read(const struct work *w, uint64_t at, void *data, size_t size, struct err *e);
int work_write(const struct work *w, uint64_t at, const void *data, size_t size, struct err *e);
/* Says that `steps` are done; what was written before counts from now on. */
int work_commit(struct work *w, uint64_t steps, const uint32_t sums[WORK_SUMS], struct err *e);
/* Takes its name away: the file goes with the process, however that ends. */
void work_unname(struct work *w);
void work_close(struct work *w, bool remove);

#endif
