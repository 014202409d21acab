#ifndef QUIRE_FORMATS_FILE_H
#define QUIRE_FORMATS_FILE_H
/*
 * Files. Reading maps; writing goes to a temporary sibling that only becomes
 * the target after everything was written, flushed and (by the caller) checked.
 * An interrupted or failed write leaves the old target and no litter: the
 * temporary name is unlinked on error, and by file_cleanup() from a signal handler.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

struct mapped {
	const uint8_t *data;   /* non-NULL even for an empty file */
	size_t size;
	char *path;
	void *base;
};
int mapped_open(struct mapped *m, const char *path, struct err *e);
void mapped_close(struct mapped *m);
/* Tells the kernel that the range can leave memory. */
void mapped_drop(const struct mapped *m, const void *data, size_t size);

/* A whole small file, NUL-terminated; limit guards against nonsense (0: 1 GiB). ERR_IO names path and reason. */
int file_read(const char *path, struct strbuf *out, size_t limit, struct err *e);

struct out_file;
int out_open(const char *path, struct out_file **out, struct err *e);
int out_write(struct out_file *f, const void *data, size_t size, struct err *e);
int out_pad(struct out_file *f, uint64_t align, struct err *e);       /* zero bytes up to a multiple */
int out_pwrite(struct out_file *f, const void *data, size_t size, uint64_t at, struct err *e); /* patch a header */
uint64_t out_offset(const struct out_file *f);
const char *out_temp_path(const struct out_file *f);                  /* flushed by out_flush, for reading back */
int out_flush(struct out_file *f, struct err *e);
int out_commit(struct out_file *f, struct err *e);                    /* fsync, rename, fsync the folder; frees f */
void out_abort(struct out_file *f);                                   /* unlink; frees f; NULL is fine */
void file_cleanup(void);                                              /* async-signal-safe: unlinks every open temporary */

/* Writes a small file atomically. */
int file_write(const char *path, const void *data, size_t size, struct err *e);
bool file_is_dir(const char *path);
char *path_join(const char *dir, const char *name);                   /* malloc'ed */

#endif
