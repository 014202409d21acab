#ifndef QUIRE_CALIB_STATS_RESUME_FILE_H
#define QUIRE_CALIB_STATS_RESUME_FILE_H
/*
 * A working file beside the output: holds what does not stay in memory, and
 * survives an interruption, so that a later run can go on. Its first page says
 * whose work it is, how far it came, and checksums of the rest.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { RESUME_HEADER = 4096, RESUME_SUMS = 2 };

struct out_scratch;
struct resume_file {
	int fd;
	bool named;
	struct out_scratch *passing; /* goes with an interruption, until the first commit */
	char *path;
	uint8_t job[32];          /* sha256 over everything the result depends on */
	uint64_t steps;           /* done */
	uint32_t sums[RESUME_SUMS]; /* the caller's checksums of what lies behind the header */
};

/* "OUT.resume"; malloc'ed, NULL when out of memory. */
char *resume_path(const char *out);
/* Is there such a file, and is something in it? One that an interruption left before its first commit is as good as none. */
bool resume_left(const char *path);
/*
 * Opens or makes the file. With resume, w->steps and w->sums are those of the interrupted run; without it, or when there
 * is none, w->steps is 0. ERR_NOT_COMPARABLE when it is of another job; ERR_IO when another process has it open.
 */
int resume_open(struct resume_file *w, const char *out, const uint8_t job[32], bool resume, struct err *e);
/* Offsets count from behind the header. ERR_INPUT for a read past the end (the file is damaged). */
int resume_read(const struct resume_file *w, uint64_t at, void *data, size_t size, struct err *e);
int resume_write(const struct resume_file *w, uint64_t at, const void *data, size_t size, struct err *e);
/* Says that `steps` are done; what was written before counts from now on. */
int resume_commit(struct resume_file *w, uint64_t steps, const uint32_t sums[RESUME_SUMS], struct err *e);
/* Takes the name of a new file away: it goes with the process, however that ends. */
void resume_unname(struct resume_file *w);
void resume_close(struct resume_file *w, bool remove);

#endif
