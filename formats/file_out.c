#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"

enum {
	BUFFER = 1 << 20,  /* gathers the small pieces of a row loop into few system calls */
	PATH_LIMIT = 4096, /* as Linux's PATH_MAX; paths lie inside the records below */
	TRIES = 100,
};

/*
 * Temporaries that exist now. A signal handler walks this list, so records are
 * never freed and hold their path themselves; one that is done is used again.
 */
enum temp_state { TEMP_FREE, TEMP_CLAIMED, TEMP_MAKING, TEMP_FILE, TEMP_DIR };
struct temp {
	struct temp *next;
	atomic_int state;
	char path[PATH_LIMIT];
};
static _Atomic(struct temp *) temps;
static atomic_bool cleaning; /* the program ends: nothing new may appear */

static struct temp *temp_new(void)
{
	for (struct temp *t = atomic_load(&temps); t; t = t->next) {
		int expected = TEMP_FREE;
		if (atomic_compare_exchange_strong(&t->state, &expected, TEMP_CLAIMED))
			return t;
	}
	struct temp *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	atomic_init(&t->state, TEMP_CLAIMED);
	t->next = atomic_load(&temps);
	while (!atomic_compare_exchange_weak(&temps, &t->next, t))
		;
	return t;
}

static void temp_done(struct temp *t)
{
	if (t)
		atomic_store(&t->state, TEMP_FREE);
}

/*
 * Making a temporary and saying that it exists is one step to a signal handler:
 * signals wait on this thread, and a handler on another one waits for the step.
 */
static void making_begin(struct temp *t, sigset_t *saved)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
	atomic_store(&t->state, TEMP_MAKING);
	if (atomic_load(&cleaning)) {
		atomic_store(&t->state, TEMP_CLAIMED);
		for (;;)
			pause();
	}
}

static void making_end(struct temp *t, enum temp_state state, const sigset_t *saved)
{
	int error = errno;
	atomic_store(&t->state, state);
	pthread_sigmask(SIG_SETMASK, saved, NULL);
	errno = error;
}

static int open_new(struct temp *t)
{
	sigset_t saved;
	making_begin(t, &saved);
	int fd = open(t->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	making_end(t, fd < 0 ? TEMP_CLAIMED : TEMP_FILE, &saved);
	return fd;
}

static int mkdir_new(struct temp *t)
{
	sigset_t saved;
	making_begin(t, &saved);
	int rc = mkdir(t->path, 0777);
	making_end(t, rc < 0 ? TEMP_CLAIMED : TEMP_DIR, &saved);
	return rc;
}

void file_cleanup(void)
{
	int saved = errno;
	atomic_store(&cleaning, true);
	for (struct temp *t = atomic_load(&temps); t; t = t->next) {
		while (atomic_load(&t->state) == TEMP_MAKING)
			;
		if (atomic_load(&t->state) == TEMP_FILE)
			unlink(t->path);
	}
	/* twice: one folder may lie in another */
	for (int i = 0; i < 2; i++)
		for (struct temp *t = atomic_load(&temps); t; t = t->next)
			if (atomic_load(&t->state) == TEMP_DIR)
				rmdir(t->path);
	errno = saved;
}

struct out_file {
	struct temp *temp;
	char *target;            /* the name in messages; what is renamed to unless in_dir */
	bool in_dir;
	int fd;
	uint64_t end;            /* where out_write appends */
	uint64_t buf_at;         /* file position of buf[0] */
	size_t buf_len;
	uint8_t *buf;
};

struct out_dir {
	struct temp *temp;
	char *target;
	struct temp **files;
	size_t count, cap;
};

static int write_error(struct err *e, const char *path)
{
	return err_system(e, "cannot write '%.600s'", path);
}

/* ".NAME.tmp-PID-N" beside the target: the same file system, hidden, and telling whose it is. */
static bool temp_name(struct temp *t, const char *target)
{
	static atomic_uint counter;
	size_t dir = (size_t)(path_basename(target) - target);
	int n = snprintf(t->path, sizeof t->path, "%.*s.%.200s.tmp-%ld-%u", (int)dir, target, target + dir, (long)getpid(),
			 atomic_fetch_add(&counter, 1));
	return n > 0 && (size_t)n < sizeof t->path;
}

/* Claims a record and makes the file (or, with fd NULL, folder) of that name. */
static int temp_make(struct temp **out, const char *target, int *fd, struct err *e)
{
	struct temp *t = temp_new();
	if (!t)
		return err_nomem(e);
	for (int i = 0; i < TRIES; i++) {
		if (!temp_name(t, target)) {
			errno = ENAMETOOLONG;
			break;
		}
		int rc = fd ? open_new(t) : mkdir_new(t);
		if (rc >= 0) {
			if (fd)
				*fd = rc;
			*out = t;
			return ERR_OK;
		}
		if (errno != EEXIST)
			break;
	}
	temp_done(t);
	return write_error(e, target);
}

struct out_scratch {
	struct temp *temp;
};

int out_scratch(const char *path, struct out_scratch **out, struct err *e)
{
	struct out_scratch *s = calloc(1, sizeof *s);
	int fd, rc = s ? temp_make(&s->temp, path, &fd, e) : err_nomem(e);
	if (rc) {
		free(s);
	} else { /* nothing is left of it even by SIGKILL until somebody writes there; the record cleans up after the others */
		close(fd);
		unlink(s->temp->path);
	}
	*out = rc ? NULL : s;
	return rc;
}

int out_scratch_named(const char *path, struct out_scratch **out, int *fd, struct err *e)
{
	struct out_scratch *s = calloc(1, sizeof *s);
	sigset_t saved;
	*out = NULL;
	if (!s || !(s->temp = temp_new())) {
		free(s);
		return err_nomem(e);
	}
	int n = snprintf(s->temp->path, sizeof s->temp->path, "%s", path);
	bool fits = n >= 0 && (size_t)n < sizeof s->temp->path;
	errno = ENAMETOOLONG;
	making_begin(s->temp, &saved);
	if (fits && fd)
		*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	bool there = fits && (!fd || *fd >= 0);
	making_end(s->temp, there ? TEMP_FILE : TEMP_CLAIMED, &saved);
	if (!there) {
		out_scratch_keep(s);
		return write_error(e, path);
	}
	*out = s;
	return ERR_OK;
}

const char *out_scratch_path(const struct out_scratch *s)
{
	return s->temp->path;
}

void out_scratch_keep(struct out_scratch *s)
{
	if (s)
		temp_done(s->temp);
	free(s);
}

void out_scratch_end(struct out_scratch *s)
{
	if (s)
		unlink(s->temp->path);
	out_scratch_keep(s);
}

static struct out_file *file_new(const char *target, struct err *e)
{
	struct out_file *f = calloc(1, sizeof *f);
	if (f) {
		f->fd = -1;
		f->target = strdup(target);
		f->buf = malloc(BUFFER);
		if (f->target && f->buf)
			return f;
	}
	out_abort(f);
	err_nomem(e);
	return NULL;
}

/* Follows links so that the file a link points to is replaced, not the link. */
static char *resolve(const char *path)
{
	struct stat st;
	char *real = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
	return real ? real : strdup(path);
}

int out_open(const char *path, struct out_file **out, struct err *e)
{
	char *target = resolve(path);
	struct out_file *f = target ? file_new(target, e) : NULL;
	free(target);
	if (!f)
		return err_nomem(e);
	struct stat st;
	bool exists = stat(f->target, &st) == 0;
	int rc;
	if (!strcmp(path, "-"))
		rc = err_set(e, ERR_USAGE, "cannot write to standard output, only to files; './-' is a file named '-'");
	else if (!*path || path[strlen(path) - 1] == '/' || (exists && S_ISDIR(st.st_mode)))
		rc = err_set(e, ERR_USAGE, "cannot write '%.600s': it names a folder, not a file", path);
	else if (exists && !S_ISREG(st.st_mode))
		rc = err_set(e, ERR_USAGE, "cannot write '%.600s': it is not a regular file", path);
	else
		rc = temp_make(&f->temp, f->target, &f->fd, e);
	if (!rc && exists)
		(void)!fchmod(f->fd, st.st_mode & 0777);
	if (rc)
		out_abort(f);
	else
		*out = f;
	return rc;
}

int out_check(const char *path, struct err *e)
{
	struct out_file *f;
	int rc = out_open(path, &f, e);
	if (!rc)
		out_abort(f);
	return rc;
}

int out_flush(struct out_file *f, struct err *e)
{
	for (size_t done = 0; done < f->buf_len;) {
		ssize_t n = pwrite(f->fd, f->buf + done, f->buf_len - done, (off_t)(f->buf_at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? write_error(e, f->target) : err_set(e, ERR_IO, "cannot write '%.600s'", f->target);
		done += (size_t)n;
	}
	f->buf_at += f->buf_len;
	f->buf_len = 0;
	return ERR_OK;
}

int out_pwrite(struct out_file *f, const void *data, size_t size, uint64_t at, struct err *e)
{
	if (at > INT64_MAX || size > INT64_MAX - at)
		return err_set(e, ERR_IO, "cannot write '%.600s': larger than a file can be", f->target);
	if (at != f->buf_at + f->buf_len) {
		int rc = out_flush(f, e);
		if (rc)
			return rc;
		f->buf_at = at;
	}
	const uint8_t *p = data;
	while (size) {
		size_t n = BUFFER - f->buf_len < size ? BUFFER - f->buf_len : size;
		memcpy(f->buf + f->buf_len, p, n);
		f->buf_len += n;
		p += n;
		size -= n;
		int rc = f->buf_len == BUFFER ? out_flush(f, e) : ERR_OK;
		if (rc)
			return rc;
	}
	return ERR_OK;
}

int out_write(struct out_file *f, const void *data, size_t size, struct err *e)
{
	int rc = out_pwrite(f, data, size, f->end, e);
	if (!rc)
		f->end += size;
	return rc;
}

int out_pad(struct out_file *f, uint64_t align, struct err *e)
{
	static const uint8_t zeros[256];
	int rc = ERR_OK;
	for (uint64_t left = (align - f->end % align) % align; left && !rc;) {
		size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
		rc = out_write(f, zeros, n, e);
		left -= n;
	}
	return rc;
}

uint64_t out_offset(const struct out_file *f)
{
	return f->end;
}

const char *out_temp_path(const struct out_file *f)
{
	return f->temp->path;
}

static void file_free(struct out_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->buf);
	free(f->target);
	free(f);
}

void out_abort(struct out_file *f)
{
	if (!f)
		return;
	if (f->temp) {
		unlink(f->temp->path);
		if (!f->in_dir)
			temp_done(f->temp);
	}
	file_free(f);
}

/* Makes a rename last over a power cut; file systems that cannot are no error. */
static void sync_parent(const char *path)
{
	char *dir = path_dirname(path);
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	free(dir);
}

int out_commit(struct out_file *f, struct err *e)
{
	int rc = out_flush(f, e);
	if (!rc && fsync(f->fd) < 0)
		rc = write_error(e, f->target);
	int fd = f->fd;
	f->fd = -1;
	if (close(fd) < 0 && !rc)
		rc = write_error(e, f->target);
	if (!rc && !f->in_dir && rename(f->temp->path, f->target) < 0)
		rc = write_error(e, f->target);
	if (rc) {
		out_abort(f);
		return rc;
	}
	if (!f->in_dir) {
		temp_done(f->temp);
		sync_parent(f->target);
	}
	file_free(f);
	return ERR_OK;
}

static bool dir_has_entries(const char *path)
{
	DIR *d = opendir(path);
	bool found = false;
	for (struct dirent *x; d && !found && (x = readdir(d));)
		found = strcmp(x->d_name, ".") && strcmp(x->d_name, "..");
	if (d)
		closedir(d);
	return found;
}

int out_dir_check(const char *path, struct err *e)
{
	if (!strcmp(path, "-"))
		return err_set(e, ERR_USAGE, "cannot write a folder to standard output; './-' is a folder named '-', --to names other formats");
	if (file_exists(path) && !file_is_dir(path))
		return err_set(e, ERR_USAGE, "cannot write the folder '%.600s': a file of that name exists", path);
	if (dir_has_entries(path))
		return err_set(e, ERR_USAGE, "cannot write the folder '%.600s': it exists and is not empty", path);
	return ERR_OK;
}

int out_dir_open(const char *path, struct out_dir **out, struct err *e)
{
	struct out_dir *d = calloc(1, sizeof *d);
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	if (!d || !(d->target = strndup(path, n))) {
		free(d);
		return err_nomem(e);
	}
	int rc = out_dir_check(d->target, e);
	if (!rc)
		rc = temp_make(&d->temp, d->target, NULL, e);
	if (rc)
		out_dir_abort(d);
	else
		*out = d;
	return rc;
}

const char *out_dir_temp_path(const struct out_dir *d)
{
	return d->temp->path;
}

/* One more record for the folder's list of files. */
static struct temp *dir_record(struct out_dir *d)
{
	if (d->count == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 16;
		struct temp **files = realloc(d->files, cap * sizeof *files);
		if (!files)
			return NULL;
		d->files = files;
		d->cap = cap;
	}
	struct temp *t = temp_new();
	if (t)
		d->files[d->count++] = t;
	return t;
}

static bool inside(struct temp *t, const struct out_dir *d, const char *name, size_t len)
{
	int n = snprintf(t->path, sizeof t->path, "%s/%.*s", d->temp->path, (int)len, name);
	errno = ENAMETOOLONG;
	return n > 0 && (size_t)n < sizeof t->path;
}

/* The folder below that name lies in, made at its first file. */
static int dir_below(struct out_dir *d, const char *name, struct err *e)
{
	const char *slash = strchr(name, '/');
	struct temp *t = slash ? dir_record(d) : NULL;
	if (!slash)
		return ERR_OK;
	if (!t)
		return err_nomem(e);
	if (inside(t, d, name, (size_t)(slash - name)) && (mkdir_new(t) == 0 || errno == EEXIST)) {
		if (atomic_load(&t->state) == TEMP_DIR)
			return ERR_OK;
		d->count--;
		temp_done(t);
		return ERR_OK;
	}
	d->count--;
	temp_done(t);
	return write_error(e, d->target);
}

int out_dir_file(struct out_dir *d, const char *name, struct out_file **out, struct err *e)
{
	int rc = dir_below(d, name, e);
	if (rc)
		return rc;
	char *shown = path_join(d->target, name);
	struct out_file *f = shown ? file_new(shown, e) : NULL;
	free(shown);
	struct temp *t = f ? dir_record(d) : NULL;
	if (!t) {
		out_abort(f);
		return err_nomem(e);
	}
	if (inside(t, d, name, strlen(name)))
		f->fd = open_new(t);
	if (f->fd < 0) {
		rc = write_error(e, f->target);
		d->count--;
		temp_done(t);
		out_abort(f);
		return rc;
	}
	f->temp = t;
	f->in_dir = true;
	*out = f;
	return ERR_OK;
}

static void dir_free(struct out_dir *d)
{
	for (size_t i = 0; i < d->count; i++)
		temp_done(d->files[i]);
	temp_done(d->temp);
	free(d->files);
	free(d->target);
	free(d);
}

void out_dir_abort(struct out_dir *d)
{
	if (!d)
		return;
	/* folders below before what lies in them, so backwards */
	for (size_t i = d->count; i-- > 0;)
		(void)(unlink(d->files[i]->path) && rmdir(d->files[i]->path));
	if (d->temp)
		rmdir(d->temp->path);
	dir_free(d);
}

int out_dir_commit(struct out_dir *d, struct err *e)
{
	int fd = open(d->temp->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	/* takes the place of an empty folder, and fails on one that was filled meanwhile */
	if (rename(d->temp->path, d->target) < 0) {
		int rc = write_error(e, d->target);
		out_dir_abort(d);
		return rc;
	}
	sync_parent(d->target);
	dir_free(d);
	return ERR_OK;
}
