#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int io_error(struct err *e, const char *verb, const char *path)
{
	return err_system(e, "cannot %s '%.600s'", verb, path);
}

bool file_is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

bool file_same(const char *a, const char *b)
{
	struct stat x, y;
	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

char *path_join(const char *dir, const char *name)
{
	size_t n = strlen(dir), m = strlen(name);
	bool slash = n && dir[n - 1] != '/';
	char *p = malloc(n + slash + m + 1);
	if (!p)
		return NULL;
	memcpy(p, dir, n);
	if (slash)
		p[n] = '/';
	memcpy(p + n + slash, name, m + 1);
	return p;
}

const char *path_basename(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

char *path_dirname(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* What is mapped now, for a signal handler: records are never freed, and used again. */
struct map_record {
	struct map_record *next, *spare;
	_Atomic(const char *) path; /* NULL: holds no map */
	atomic_uintptr_t from, to;
};
static _Atomic(struct map_record *) records;
static struct map_record *spares;
static atomic_flag spares_busy = ATOMIC_FLAG_INIT; /* for the few instructions that take one out or put one back */

static void spares_lock(void)
{
	while (atomic_flag_test_and_set(&spares_busy))
		;
}

static struct map_record *spare_take(void)
{
	spares_lock();
	struct map_record *r = spares;
	if (r)
		spares = r->spare;
	atomic_flag_clear(&spares_busy);
	return r;
}

static void spare_put(struct map_record *r)
{
	spares_lock();
	r->spare = spares;
	spares = r;
	atomic_flag_clear(&spares_busy);
}

static bool map_note(struct mapped *m)
{
	struct map_record *r = spare_take();
	if (!r) {
		if (!(r = calloc(1, sizeof *r)))
			return false;
		r->next = atomic_load(&records);
		while (!atomic_compare_exchange_weak(&records, &r->next, r))
			;
	}
	m->record = r;
	atomic_store(&r->from, (uintptr_t)m->base);
	atomic_store(&r->to, (uintptr_t)m->base + m->size);
	atomic_store(&r->path, m->path);
	return true;
}

static void map_forget(const struct mapped *m)
{
	struct map_record *r = m->record;
	if (!r)
		return;
	atomic_store(&r->path, NULL);
	spare_put(r);
}

const char *mapped_at(const void *address)
{
	uintptr_t at = (uintptr_t)address;
	for (struct map_record *r = atomic_load(&records); r; r = r->next) {
		const char *path = atomic_load(&r->path);
		if (path && at >= atomic_load(&r->from) && at < atomic_load(&r->to))
			return path;
	}
	return NULL;
}

/* ERR_IO unless it is what it should be; for a pipe nobody writes to, opening must not wait. */
static int open_regular(const char *path, struct stat *st, int *fd, struct err *e)
{
	int rc = ERR_OK;
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || fstat(*fd, st) < 0)
		rc = io_error(e, "open", path);
	else if (!S_ISREG(st->st_mode))
		rc = err_set(e, ERR_IO, "cannot open '%.600s': %s", path,
			     S_ISDIR(st->st_mode) ? "it is a folder" : "it is not a regular file");
	if (rc && *fd >= 0)
		close(*fd);
	return rc;
}

int mapped_open(struct mapped *m, const char *path, struct err *e)
{
	static const uint8_t nothing[1];
	*m = (struct mapped){ .data = nothing };
	struct stat st;
	int fd, rc = open_regular(path, &st, &fd, e);
	if (rc)
		return rc;
	if ((uint64_t)st.st_size > SIZE_MAX)
		rc = err_set(e, ERR_IO, "cannot map '%.600s': larger than the address space", path);
	m->path = rc ? NULL : strdup(path);
	if (!rc && !m->path)
		rc = err_nomem(e);
	if (!rc && st.st_size > 0) {
		m->base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (m->base == MAP_FAILED) {
			rc = io_error(e, "map", path);
			m->base = NULL;
		} else {
			m->data = m->base;
			m->size = (size_t)st.st_size;
			rc = map_note(m) ? ERR_OK : err_nomem(e);
		}
	}
	close(fd);
	if (rc)
		mapped_close(m);
	return rc;
}

void mapped_close(struct mapped *m)
{
	if (m->base) {
		map_forget(m);
		munmap(m->base, m->size);
	}
	free(m->path);
	*m = (struct mapped){ 0 };
}

void mapped_drop(const struct mapped *m, const void *data, size_t size)
{
	uintptr_t at = (uintptr_t)data, base = (uintptr_t)m->base, page = (uintptr_t)sysconf(_SC_PAGESIZE);
	if (!base || at < base || size > m->size || at - base > m->size - size)
		return;
	/* both ends round down, so that consecutive ranges leave no page behind; a page still in use is only read again */
	uintptr_t from = at / page * page, to = (at + size) / page * page;
	if (at + size == base + m->size)
		to = at + size;
	if (to > from)
		madvise((char *)m->base + (from - base), to - from, MADV_DONTNEED);
}

static int by_base(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)(*(const struct mapped *const *)a)->base, y = (uintptr_t)(*(const struct mapped *const *)b)->base;
	return x < y ? -1 : x > y;
}

void mapped_sort(const struct mapped **maps, size_t count)
{
	qsort(maps, count, sizeof *maps, by_base);
}

void mapped_drop_in(const struct mapped *const *sorted, size_t count, const void *data, size_t size)
{
	size_t low = 0;
	/* the last that does not begin behind it */
	for (size_t high = count; low + 1 < high;) {
		size_t mid = low + (high - low) / 2;
		if ((uintptr_t)sorted[mid]->base <= (uintptr_t)data)
			low = mid;
		else
			high = mid;
	}
	if (count)
		mapped_drop(sorted[low], data, size);
}

static int too_large(const char *path, size_t limit, struct err *e)
{
	return err_set(e, ERR_INPUT, "'%.600s' is larger than %zu bytes, the limit for such a file", path, limit);
}

static int read_all(int fd, const char *path, struct strbuf *out, size_t limit, struct err *e)
{
	char *buf = malloc(65536);
	int rc = buf ? ERR_OK : err_nomem(e);
	size_t start = out->len;
	while (!rc) {
		ssize_t n = read(fd, buf, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = io_error(e, "read", path);
		else if (out->len - start > limit - (size_t)n)
			rc = too_large(path, limit, e);
		else
			strbuf_add(out, buf, (size_t)n);
		if (!rc && out->failed)
			rc = err_nomem(e);
		if (n <= 0)
			break;
	}
	free(buf);
	return rc;
}

enum { READ_LIMIT = 1 << 30 };

int file_read(const char *path, struct strbuf *out, size_t limit, struct err *e)
{
	struct stat st;
	int fd, rc = open_regular(path, &st, &fd, e);
	if (rc)
		return rc;
	rc = read_all(fd, path, out, limit ? limit : READ_LIMIT, e);
	close(fd);
	return rc;
}

int file_check(const char *path, size_t limit, struct err *e)
{
	struct stat st;
	int fd, rc = open_regular(path, &st, &fd, e);
	if (rc)
		return rc;
	close(fd);
	return (uint64_t)st.st_size > limit ? too_large(path, limit, e) : ERR_OK;
}

int stream_read(const char *path, struct strbuf *out, size_t limit, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return io_error(e, "open", path);
	int rc = read_all(fd, path, out, limit ? limit : READ_LIMIT, e);
	close(fd);
	return rc;
}

/* Puts a file without a name in the place of a pipe. */
static int keep_stdin(const struct strbuf *text, size_t start, struct err *e)
{
	FILE *f = tmpfile();
	size_t n = text->len - start;
	int rc = ERR_OK;
	if (!f || (n && fwrite(text->data + start, 1, n, f) != n) || fflush(f) || fseek(f, 0, SEEK_SET) ||
	    dup2(fileno(f), STDIN_FILENO) < 0)
		rc = err_system(e, "cannot keep standard input, to read it again");
	if (f)
		fclose(f);
	return rc;
}

int file_read_stdin(struct strbuf *out, bool again, struct err *e)
{
	off_t at = again ? lseek(STDIN_FILENO, 0, SEEK_CUR) : 0;
	size_t start = out->len;
	int rc = read_all(STDIN_FILENO, "standard input", out, READ_LIMIT, e);
	if (rc || !again)
		return rc;
	if (at < 0)
		return keep_stdin(out, start, e);
	return lseek(STDIN_FILENO, at, SEEK_SET) < 0 ? io_error(e, "read", "standard input") : ERR_OK;
}

int out_whole(struct out_file *f, const void *data, size_t size, struct err *e)
{
	int rc = out_write(f, data, size, e);
	if (!rc)
		return out_commit(f, e);
	out_abort(f);
	return rc;
}

int file_write(const char *path, const void *data, size_t size, struct err *e)
{
	struct out_file *f;
	int rc = out_open(path, &f, e);
	return rc ? rc : out_whole(f, data, size, e);
}
