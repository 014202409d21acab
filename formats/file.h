#ifndef QUIRE_FORMATS_FILE_H
#define QUIRE_FORMATS_FILE_H
/*
 * Files. Reading maps; writing goes to a temporary sibling that only becomes
 * the target after everything was written, flushed and (by the caller) checked.
 * An interrupted or failed write leaves the old target and no litter: the
 * temporary name is unlinked on error, and by file_cleanup() from a signal handler.
 * Programs should ignore SIGXFSZ and SIGPIPE, so that a limit is an error like any other.
 * A map of a file that is cut short, or of a disk that fails, raises SIGBUS: mapped_at() tells a handler whose bytes they were.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

struct mapped {
	const uint8_t *data;   /* non-NULL even for an empty file; any alignment inside */
	size_t size;
	char *path;
	void *base;
	void *record;          /* for mapped_at */
};
int mapped_open(struct mapped *m, const char *path, struct err *e);
void mapped_close(struct mapped *m);
/* Tells the kernel that the range can leave memory; a range outside the map is ignored. */
void mapped_drop(const struct mapped *m, const void *data, size_t size);
/* The same for the one of several maps that holds the range, found by its place: sort them once. */
void mapped_sort(const struct mapped **maps, size_t count);
void mapped_drop_in(const struct mapped *const *sorted, size_t count, const void *data, size_t size);
/* Async-signal-safe: the path of the mapped file that holds this address, NULL when none does. */
const char *mapped_at(const void *address);

/*
 * A whole small file, NUL-terminated; limit guards against nonsense (0: 1 GiB). ERR_IO names path and reason. Pipes and
 * devices are refused, since a model must not make its reader wait; stream_read takes them, for what the user names.
 */
int file_read(const char *path, struct strbuf *out, size_t limit, struct err *e);
/* What that would refuse, for those who list a file now and read it later. */
int file_check(const char *path, size_t limit, struct err *e);
/* All of standard input. again: it can be read once more afterwards, though it be a pipe. */
int file_read_stdin(struct strbuf *out, bool again, struct err *e);
int stream_read(const char *path, struct strbuf *out, size_t limit, struct err *e);

/*
 * The target may be missing or a regular file (through links, too); its permissions are kept.
 * Devices and pipes are refused (ERR_USAGE): a rename would replace them.
 */
struct out_file;
int out_open(const char *path, struct out_file **out, struct err *e);
/* Whether path can be written at all, for those who work long before they write: makes a temporary beside it and takes it back. */
int out_check(const char *path, struct err *e);
int out_write(struct out_file *f, const void *data, size_t size, struct err *e);
int out_pad(struct out_file *f, uint64_t align, struct err *e);       /* zero bytes up to a multiple */
/* Writes at a place without moving the end that out_write appends to; gaps read as zeros. */
int out_pwrite(struct out_file *f, const void *data, size_t size, uint64_t at, struct err *e);
uint64_t out_offset(const struct out_file *f);                        /* where out_write appends */
const char *out_temp_path(const struct out_file *f);                  /* flushed by out_flush, for reading back */
int out_flush(struct out_file *f, struct err *e);
int out_commit(struct out_file *f, struct err *e);                    /* fsync, rename, fsync the folder; frees f, also on error */
int out_whole(struct out_file *f, const void *data, size_t size, struct err *e); /* all of it: writes and commits; frees f, also on error */
void out_abort(struct out_file *f);                                   /* unlink; frees f; NULL is fine */
/*
 * A name for a temporary beside path, which is taken back like one of our own; others may write it by its name. Release
 * with out_scratch_end, which removes the file if there is one.
 */
struct out_scratch;
int out_scratch(const char *path, struct out_scratch **out, struct err *e);
/*
 * The same for a file of this very name, which is opened or made; fd NULL: it is there already. Once it holds something
 * worth keeping, out_scratch_keep lets go of it.
 */
int out_scratch_named(const char *path, struct out_scratch **out, int *fd, struct err *e);
const char *out_scratch_path(const struct out_scratch *s);
void out_scratch_keep(struct out_scratch *s);                         /* frees s, as does the next; NULL is fine */
void out_scratch_end(struct out_scratch *s);
void file_cleanup(void);                                              /* async-signal-safe: unlinks every open temporary */

/*
 * A folder that appears whole or not at all. The target must be missing or an
 * empty folder (ERR_USAGE otherwise). out_commit of a file inside syncs and
 * closes it; it becomes visible with the folder.
 */
struct out_dir;
/* What out_dir_open would refuse, for those who work long before they write. ERR_USAGE. */
int out_dir_check(const char *path, struct err *e);
int out_dir_open(const char *path, struct out_dir **out, struct err *e);
int out_dir_file(struct out_dir *d, const char *name, struct out_file **out, struct err *e);
const char *out_dir_temp_path(const struct out_dir *d);               /* where it is until then, for reading back */
int out_dir_commit(struct out_dir *d, struct err *e);                 /* frees d, also on error */
void out_dir_abort(struct out_dir *d);                                /* NULL is fine; abort or commit its files first */

/* Writes a small file atomically. */
int file_write(const char *path, const void *data, size_t size, struct err *e);
bool file_is_dir(const char *path);
bool file_exists(const char *path);
/* Both exist and are one file or folder (device and inode): an output must not be its own input. */
bool file_same(const char *a, const char *b);
char *path_join(const char *dir, const char *name);                   /* malloc'ed */
char *path_dirname(const char *path);                                 /* malloc'ed; "." when there is no slash */
const char *path_basename(const char *path);                          /* into path */

#endif
