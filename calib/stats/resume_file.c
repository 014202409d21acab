#include "calib/stats/resume_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/zip.h"
#include "formats/file.h"

static const char MAGIC[8] = "quirewrk";

/* magic | job[32] | u64 steps | u32 sums[2] | u32 crc of the bytes before */
enum { AT_JOB = 8, AT_STEPS = 40, AT_SUMS = 48, AT_CRC = AT_SUMS + 4 * RESUME_SUMS, RECORD = AT_CRC + 4 };

static int io_error(const struct resume_file *w, const char *verb, struct err *e)
{
	return err_system(e, "cannot %s '%.600s'", verb, w->path);
}

char *resume_path(const char *out)
{
	static const char suffix[] = ".resume";
	size_t n = strlen(out);
	char *p = malloc(n + sizeof suffix);
	if (p) {
		memcpy(p, out, n);
		memcpy(p + n, suffix, sizeof suffix);
	}
	return p;
}

bool resume_left(const char *path)
{
	static const uint8_t nothing[8];
	uint8_t head[8];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool left = fd >= 0 && pread(fd, head, sizeof head, 0) == sizeof head && memcmp(head, nothing, sizeof head);
	if (fd >= 0)
		close(fd);
	return left;
}

static int put(const struct resume_file *w, uint64_t at, const uint8_t *p, size_t size, struct err *e)
{
	while (size) {
		ssize_t n = pwrite(w->fd, p, size, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return io_error(w, "write", e);
		p += n;
		at += (uint64_t)n;
		size -= (size_t)n;
	}
	return ERR_OK;
}

static int get(const struct resume_file *w, uint64_t at, uint8_t *p, size_t size, struct err *e)
{
	while (size) {
		ssize_t n = pread(w->fd, p, size, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return io_error(w, "read", e);
		if (!n)
			return err_set(e, ERR_INPUT, "%s: the working file is cut short; run again without --resume", w->path);
		p += n;
		at += (uint64_t)n;
		size -= (size_t)n;
	}
	return ERR_OK;
}

/* A file that an interruption left before its first commit has no steps. */
static int load(struct resume_file *w, struct err *e)
{
	uint8_t b[RECORD];
	if (lseek(w->fd, 0, SEEK_END) < RECORD)
		return ERR_OK;
	int rc = get(w, 0, b, sizeof b, e);
	if (rc)
		return rc;
	if (memcmp(b, MAGIC, sizeof MAGIC) || load_u32(b + AT_CRC) != zip_crc32(0, b, AT_CRC))
		return err_set(e, ERR_INPUT, "%s: not a working file, or damaged; run again without --resume", w->path);
	if (memcmp(b + AT_JOB, w->job, sizeof w->job))
		return err_set(e, ERR_NOT_COMPARABLE,
			       "%s: left by a run with another model, text or options; use the same ones, or begin anew with --force", w->path);
	w->steps = load_u64(b + AT_STEPS);
	for (int i = 0; i < RESUME_SUMS; i++)
		w->sums[i] = load_u32(b + AT_SUMS + 4 * i);
	return ERR_OK;
}

int resume_open(struct resume_file *w, const char *out, const uint8_t job[32], bool resume, struct err *e)
{
	*w = (struct resume_file){ .fd = -1, .named = true, .path = resume_path(out) };
	if (!w->path)
		return err_nomem(e);
	memcpy(w->job, job, sizeof w->job);
	/* until something is in it that is worth keeping, an interruption takes it away */
	bool left = resume_left(w->path);
	int rc = ERR_OK;
	if (!left)
		rc = out_scratch_named(w->path, &w->passing, &w->fd, e);
	else if ((w->fd = open(w->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) < 0)
		rc = io_error(w, "write", e);
	if (!rc && lockf(w->fd, F_TLOCK, 0) && (errno == EACCES || errno == EAGAIN))
		rc = err_set(e, ERR_IO, "%s: another process is working on it", w->path);
	bool ours = !rc;
	if (!rc && left && !resume)
		rc = out_scratch_named(w->path, &w->passing, NULL, e);
	if (!rc)
		rc = resume ? load(w, e) : ftruncate(w->fd, 0) ? io_error(w, "write", e) : ERR_OK;
	/* what another run left stays, or works on; a file of ours that holds nothing does not */
	if (rc)
		resume_close(w, ours && !resume_left(w->path));
	return rc;
}

int resume_read(const struct resume_file *w, uint64_t at, void *data, size_t size, struct err *e)
{
	return get(w, RESUME_HEADER + at, data, size, e);
}

int resume_write(const struct resume_file *w, uint64_t at, const void *data, size_t size, struct err *e)
{
	return put(w, RESUME_HEADER + at, data, size, e);
}

int resume_commit(struct resume_file *w, uint64_t steps, const uint32_t sums[RESUME_SUMS], struct err *e)
{
	uint8_t b[RECORD];
	memcpy(b, MAGIC, sizeof MAGIC);
	memcpy(b + AT_JOB, w->job, sizeof w->job);
	store_u64(b + AT_STEPS, steps);
	for (int i = 0; i < RESUME_SUMS; i++)
		store_u32(b + AT_SUMS + 4 * i, sums[i]);
	store_u32(b + AT_CRC, zip_crc32(0, b, AT_CRC));
	int rc = put(w, 0, b, sizeof b, e);
	if (!rc) {
		out_scratch_keep(w->passing);
		w->passing = NULL;
		w->steps = steps;
		memcpy(w->sums, sums, sizeof w->sums);
	}
	return rc;
}

void resume_unname(struct resume_file *w)
{
	w->named = false;
	out_scratch_end(w->passing);
	w->passing = NULL;
}

void resume_close(struct resume_file *w, bool remove)
{
	if (w->fd >= 0 && w->named && remove)
		unlink(w->path);
	out_scratch_keep(w->passing);
	if (w->fd >= 0)
		close(w->fd);
	free(w->path);
	*w = (struct resume_file){ .fd = -1 };
}
