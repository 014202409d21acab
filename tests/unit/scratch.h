/* For tests that need files: a scratch folder that the teardown removes with all it holds. */
#ifndef QUIRE_TESTS_SCRATCH_H
#define QUIRE_TESTS_SCRATCH_H
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch_dir[64];

static inline void scratch_remove(const char *path)
{
	DIR *d = opendir(path);
	for (struct dirent *x; d && (x = readdir(d));) {
		char below[1024];
		struct stat st;
		if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
			continue;
		snprintf(below, sizeof below, "%.700s/%.300s", path, x->d_name);
		if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode))
			scratch_remove(below);
		else
			unlink(below);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

static inline int scratch_setup(void **state)
{
	(void)state;
	strcpy(scratch_dir, "/tmp/quire-test-XXXXXX");
	return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_teardown(void **state)
{
	(void)state;
	scratch_remove(scratch_dir);
	return 0;
}

/* The path of a name in the scratch folder; eight may be alive at once. */
static inline const char *scratch(const char *name)
{
	static char text[8][256];
	static int at;
	char *p = text[at++ % 8];
	snprintf(p, sizeof text[0], "%s/%s", scratch_dir, name);
	return p;
}

/* Everything in a folder counts, hidden temporaries too. */
static inline int scratch_count(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;
	for (struct dirent *x; d && (x = readdir(d));)
		n += strcmp(x->d_name, ".") && strcmp(x->d_name, "..");
	if (d)
		closedir(d);
	return n;
}

static inline void scratch_put(const char *path, const void *data, size_t size)
{
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, size, f) != size || fclose(f))
		abort();
}

/* Runs what ends a program, as a signal handler does, in a process of its own. True when it came back from there. */
static inline int in_child(void (*fn)(void))
{
	int status;
	pid_t child = fork();
	if (!child) {
		fn();
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
}
#endif
