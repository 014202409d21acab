/*
 * The working file that `calibrate --resume` goes on with. The first byte says what is made right before it is opened, since
 * the checksum and the job would stop every mutation: 1 magic and job, 2 checksum.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/zip.h"
#include "calib/stats/resume_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 8192, CRC_AT = 48 + 4 * RESUME_SUMS };

static size_t make(const uint8_t *data, size_t size, uint8_t file[ROOM])
{
	size_t n = size - 1 < ROOM ? size - 1 : ROOM;
	memcpy(file, data + 1, n);
	if (data[0] & 1 && n >= 40) {
		memcpy(file, "quirewrk", 8);
		memset(file + 8, 7, 32);
	}
	if (data[0] & 2 && n >= CRC_AT + 4)
		store_u32(file + CRC_AT, zip_crc32(0, file, CRC_AT));
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char out[64], *path;
	uint8_t file[ROOM], job[32], back[600];
	struct resume_file w;
	struct err e = { 0 };
	if (!size)
		return 0;
	if (!path) {
		snprintf(out, sizeof out, "%s/quire-fuzz-%ld", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
		path = resume_path(out);
	}
	size_t n = make(data, size, file);
	FILE *f = path ? fopen(path, "wb") : NULL;
	if (!f || fwrite(file, 1, n, f) != n || fclose(f))
		abort();
	memset(job, 7, sizeof job);
	int rc = resume_open(&w, out, job, true, &e);
	if (rc && !*e.message)
		abort();
	for (uint64_t at = 0; !rc && at < 3 * sizeof back; at += sizeof back)
		if (resume_read(&w, at, back, sizeof back, &e))
			break;
	resume_read(&w, UINT64_MAX - 5000, back, sizeof back, &e);
	if (!rc && (resume_write(&w, 16, back, 16, &e) || resume_commit(&w, w.steps + 1, w.sums, &e)))
		abort();
	resume_close(&w, true);
	return 0;
}
