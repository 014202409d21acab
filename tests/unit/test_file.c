#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "base/thread.h"
#include "formats/file.h"
#include "scratch.h"

static struct err e;

#define has(fragment) assert_non_null(strstr(e.message, fragment))

static void expect_content(const char *path, const char *want)
{
	struct strbuf b = { 0 };
	assert_int_equal(file_read(path, &b, 0, &e), ERR_OK);
	assert_string_equal(b.data, want);
	strbuf_release(&b);
}

static void maps(void **state)
{
	(void)state;
	struct mapped m;
	scratch_put(scratch("a"), "hello", 5);
	assert_int_equal(mapped_open(&m, scratch("a"), &e), ERR_OK);
	assert_int_equal(m.size, 5);
	assert_memory_equal(m.data, "hello", 5);
	mapped_drop(&m, m.data, 5);
	mapped_drop(&m, m.data + 2, 500);
	mapped_drop(&m, &m, 5);
	assert_memory_equal(m.data, "hello", 5);
	mapped_close(&m);
	scratch_put(scratch("empty"), "", 0);
	assert_int_equal(mapped_open(&m, scratch("empty"), &e), ERR_OK);
	assert_int_equal(m.size, 0);
	assert_non_null(m.data);
	mapped_close(&m);
}

static long faults_of(const struct mapped *m)
{
	struct rusage before, after;
	volatile uint8_t sum = 0;
	getrusage(RUSAGE_SELF, &before);
	for (size_t i = 0; i < m->size; i += 512)
		sum = (uint8_t)(sum + m->data[i]);
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt - before.ru_minflt;
}

/* A range is let go by the map that holds it, whichever of them that is: its pages come back by a fault. */
static void drops_in_one_of_several(void **state)
{
	enum { MAPS = 5, SIZE = 1 << 16, NOTHING = 2 };
	(void)state;
	struct mapped m[MAPS];
	const struct mapped *sorted[MAPS];
	static uint8_t data[SIZE];
	for (int i = 0; i < MAPS; i++) {
		memset(data, i + 1, sizeof data);
		scratch_put(scratch("several"), data, i == NOTHING ? 0 : sizeof data);
		assert_int_equal(mapped_open(&m[i], scratch("several"), &e), ERR_OK);
		unlink(scratch("several"));
		sorted[i] = &m[i];
	}
	mapped_sort(sorted, MAPS);
	for (int i = 0; i < MAPS; i++) {
		faults_of(&m[i]);
		mapped_drop_in(sorted, MAPS, m[i].data, m[i].size);
		assert_true(i == NOTHING || (faults_of(&m[i]) > 0 && m[i].data[0] == i + 1 && m[i].data[SIZE - 1] == i + 1));
	}
	mapped_drop_in(sorted, MAPS, data, sizeof data);
	mapped_drop_in(sorted, 0, data, sizeof data);
	for (int i = 0; i < MAPS; i++) {
		assert_true(i == NOTHING || mapped_at(m[i].data + 9) == m[i].path);
		const uint8_t *was = m[i].data;
		mapped_close(&m[i]);
		assert_null(mapped_at(was));
	}
}

static void map_and_forget(void *arg, size_t item, int worker)
{
	struct mapped m;
	(void)item, (void)worker;
	if (mapped_open(&m, arg, NULL) || !mapped_at(m.data) || strcmp(mapped_at(m.data), m.path) || m.data[1] != 'e')
		abort();
	mapped_close(&m);
}

static void maps_in_several_threads(void **state)
{
	char path[256];
	(void)state;
	snprintf(path, sizeof path, "%s", scratch("shared"));
	scratch_put(path, "hello", 5);
	thread_set(4);
	thread_for(2000, map_and_forget, path);
	thread_set(thread_default());
}

static void refuses_to_map(void **state)
{
	(void)state;
	struct mapped m;
	assert_int_equal(mapped_open(&m, scratch("none"), &e), ERR_IO);
	has("/none': No such file");
	assert_int_equal(mapped_open(&m, scratch_dir, &e), ERR_IO);
	has("it is a folder");
	assert_int_equal(mkfifo(scratch("fifo"), 0600), 0);
	assert_int_equal(mapped_open(&m, scratch("fifo"), &e), ERR_IO);
	has("not a regular file");
	if (geteuid() != 0) { /* root reads everything */
		scratch_put(scratch("secret"), "x", 1);
		assert_int_equal(chmod(scratch("secret"), 0), 0);
		assert_int_equal(mapped_open(&m, scratch("secret"), &e), ERR_IO);
		has("Permission denied");
	}
}

static void reads_whole_files(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	scratch_put(scratch("a"), "0123456789", 10);
	assert_int_equal(file_read(scratch("a"), &b, 10, &e), ERR_OK);
	assert_string_equal(b.data, "0123456789");
	assert_int_equal(file_read(scratch("a"), &b, 9, &e), ERR_INPUT);
	has("larger than 9 bytes");
	assert_int_equal(file_read(scratch("none"), &b, 0, &e), ERR_IO);
	assert_int_equal(file_read(scratch_dir, &b, 0, &e), ERR_IO);
	has("it is a folder");
	strbuf_release(&b);
}

static void commits(void **state)
{
	(void)state;
	struct out_file *f;
	scratch_put(scratch("t"), "old", 3);
	assert_int_equal(chmod(scratch("t"), 0640), 0);
	assert_int_equal(out_open(scratch("t"), &f, &e), ERR_OK);
	assert_int_equal(out_write(f, "....5", 5, &e), ERR_OK);
	assert_int_equal(out_pad(f, 4, &e), ERR_OK);
	assert_int_equal(out_offset(f), 8);
	assert_int_equal(out_pad(f, 4, &e), ERR_OK);
	assert_int_equal(out_write(f, "end", 3, &e), ERR_OK);
	assert_int_equal(out_pwrite(f, "HEAD", 4, 0, &e), ERR_OK);
	assert_int_equal(out_write(f, "!", 1, &e), ERR_OK);
	assert_int_equal(out_flush(f, &e), ERR_OK);
	expect_content(scratch("t"), "old");
	struct strbuf b = { 0 };
	assert_int_equal(file_read(out_temp_path(f), &b, 0, &e), ERR_OK);
	assert_int_equal(b.len, 12);
	assert_memory_equal(b.data, "HEAD5\0\0\0end!", 12);
	strbuf_clear(&b);
	assert_int_equal(out_commit(f, &e), ERR_OK);
	assert_int_equal(file_read(scratch("t"), &b, 0, &e), ERR_OK);
	assert_memory_equal(b.data, "HEAD5\0\0\0end!", 12);
	strbuf_release(&b);
	struct stat st;
	assert_int_equal(stat(scratch("t"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(scratch_count(scratch_dir), 1);
}

static void large_writes(void **state)
{
	(void)state;
	enum { SIZE = 3 << 20 };
	uint8_t *data = malloc(SIZE);
	assert_non_null(data);
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	struct out_file *f;
	assert_int_equal(out_open(scratch("big"), &f, &e), ERR_OK);
	/* second half first, in odd pieces */
	for (size_t at = SIZE / 2; at < SIZE; at += 77777)
		assert_int_equal(out_pwrite(f, data + at, at + 77777 < SIZE ? 77777 : SIZE - at, at, &e), ERR_OK);
	assert_int_equal(out_write(f, data, SIZE / 2, &e), ERR_OK);
	assert_int_equal(out_commit(f, &e), ERR_OK);
	struct mapped m;
	assert_int_equal(mapped_open(&m, scratch("big"), &e), ERR_OK);
	assert_int_equal(m.size, SIZE);
	assert_memory_equal(m.data, data, SIZE);
	mapped_drop(&m, m.data + 5000, SIZE - 5000);
	assert_memory_equal(m.data, data, SIZE);
	mapped_close(&m);
	free(data);
}

static void aborts(void **state)
{
	(void)state;
	struct out_file *f;
	scratch_put(scratch("t"), "old", 3);
	assert_int_equal(out_open(scratch("t"), &f, &e), ERR_OK);
	assert_int_equal(out_write(f, "new", 3, &e), ERR_OK);
	assert_int_equal(scratch_count(scratch_dir), 2);
	out_abort(f);
	out_abort(NULL);
	assert_int_equal(scratch_count(scratch_dir), 1);
	expect_content(scratch("t"), "old");
}

static void refuses_targets(void **state)
{
	(void)state;
	struct out_file *f;
	assert_int_equal(out_open(scratch_dir, &f, &e), ERR_USAGE);
	has("names a folder");
	assert_int_equal(out_open(scratch("x/"), &f, &e), ERR_USAGE);
	assert_int_equal(out_open("", &f, &e), ERR_USAGE);
	assert_int_equal(out_open("/dev/null", &f, &e), ERR_USAGE);
	has("not a regular file");
	assert_int_equal(out_open(scratch("none/x"), &f, &e), ERR_IO);
	has("/none/x': No such file");
	assert_int_equal(scratch_count(scratch_dir), 0);
}

static void writes_through_links(void **state)
{
	(void)state;
	scratch_put(scratch("real"), "old", 3);
	assert_int_equal(symlink(scratch("real"), scratch("link")), 0);
	assert_int_equal(file_write(scratch("link"), "new", 3, &e), ERR_OK);
	expect_content(scratch("real"), "new");
	struct stat st;
	assert_int_equal(lstat(scratch("link"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
}

/* A limit on file size stands in for a full disk: the write fails in the same place. */
static void full_disk(void **state)
{
	(void)state;
	struct rlimit old, small = { 0 };
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 1 << 20;
	signal(SIGXFSZ, SIG_IGN);
	uint8_t *data = calloc(1, 4 << 20);
	assert_non_null(data);
	scratch_put(scratch("t"), "old", 3);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int rc = file_write(scratch("t"), data, 4 << 20, &e);
	int rc_dir;
	struct err dir_error = { 0 };
	struct out_dir *d;
	struct out_file *f = NULL;
	rc_dir = out_dir_open(scratch("folder"), &d, &dir_error);
	if (!rc_dir)
		rc_dir = out_dir_file(d, "big", &f, &dir_error);
	if (!rc_dir)
		rc_dir = out_write(f, data, 4 << 20, &dir_error);
	out_abort(f);
	out_dir_abort(d);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	free(data);
	assert_int_equal(rc, ERR_IO);
	has("cannot write");
	has("/t': File too large");
	assert_int_equal(rc_dir, ERR_IO);
	assert_non_null(strstr(dir_error.message, "/folder/big': File too large"));
	assert_int_equal(scratch_count(scratch_dir), 1);
	expect_content(scratch("t"), "old");
}

static void folders(void **state)
{
	(void)state;
	struct out_dir *d;
	struct out_file *f;
	assert_int_equal(out_dir_open(scratch("folder///"), &d, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "a", &f, &e), ERR_OK);
	assert_int_equal(out_write(f, "aa", 2, &e), ERR_OK);
	assert_int_equal(out_commit(f, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "a", &f, &e), ERR_IO); /* a name twice */
	assert_false(file_exists(scratch("folder")));
	assert_int_equal(out_dir_commit(d, &e), ERR_OK);
	expect_content(scratch("folder/a"), "aa");
	assert_int_equal(scratch_count(scratch_dir), 1);
	assert_int_equal(scratch_count(scratch("folder")), 1);

	assert_int_equal(out_dir_open(scratch("folder"), &d, &e), ERR_USAGE);
	has("exists and is not empty");
	assert_int_equal(out_dir_open(scratch("folder/a"), &d, &e), ERR_USAGE);
	has("a file of that name exists");
	assert_int_equal(out_dir_open(scratch("none/folder"), &d, &e), ERR_IO);
	assert_int_equal(mkdir(scratch("empty"), 0755), 0);
	assert_int_equal(out_dir_open(scratch("empty"), &d, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "b", &f, &e), ERR_OK);
	assert_int_equal(out_commit(f, &e), ERR_OK);
	assert_int_equal(out_dir_commit(d, &e), ERR_OK);
	assert_int_equal(scratch_count(scratch("empty")), 1);
	assert_int_equal(scratch_count(scratch_dir), 2);
}

static void folder_filled_meanwhile(void **state)
{
	(void)state;
	struct out_dir *d;
	struct out_file *f;
	assert_int_equal(out_dir_open(scratch("folder"), &d, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "a", &f, &e), ERR_OK);
	assert_int_equal(out_commit(f, &e), ERR_OK);
	assert_int_equal(mkdir(scratch("folder"), 0755), 0);
	scratch_put(scratch("folder/theirs"), "x", 1);
	assert_int_equal(out_dir_commit(d, &e), ERR_IO);
	assert_int_equal(scratch_count(scratch_dir), 1);
	expect_content(scratch("folder/theirs"), "x");
}

/* What a signal handler does: nothing stays behind, what was committed does. */
static void cleanup(void **state)
{
	(void)state;
	struct out_file *f, *g, *done;
	struct out_dir *d;
	assert_int_equal(out_open(scratch("done"), &done, &e), ERR_OK);
	assert_int_equal(out_commit(done, &e), ERR_OK);
	assert_int_equal(out_open(scratch("t"), &f, &e), ERR_OK);
	assert_int_equal(out_dir_open(scratch("folder"), &d, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "closed", &g, &e), ERR_OK);
	assert_int_equal(out_commit(g, &e), ERR_OK);
	assert_int_equal(out_dir_file(d, "open", &g, &e), ERR_OK);
	assert_int_equal(scratch_count(scratch_dir), 3);
	assert_true(in_child(file_cleanup));
	assert_int_equal(scratch_count(scratch_dir), 1);
	assert_true(file_exists(scratch("done")));
	out_abort(f);
	out_abort(g);
	out_dir_abort(d);
	assert_true(in_child(file_cleanup));
	assert_true(file_exists(scratch("done")));
}

static void names(void **state)
{
	(void)state;
	char *p = path_join("a", "b");
	assert_string_equal(p, "a/b");
	free(p);
	p = path_join("a/", "b");
	assert_string_equal(p, "a/b");
	free(p);
	p = path_dirname("/x");
	assert_string_equal(p, "/");
	free(p);
	p = path_dirname("x");
	assert_string_equal(p, ".");
	free(p);
	p = path_dirname("a/b/c");
	assert_string_equal(p, "a/b");
	free(p);
	assert_string_equal(path_basename("a/b"), "b");
	scratch_put(scratch("a"), "", 0);
	scratch_put(scratch("b"), "", 0);
	assert_int_equal(link(scratch("a"), scratch("c")), 0);
	assert_true(file_same(scratch("a"), scratch("c")));
	assert_false(file_same(scratch("a"), scratch("b")));
	assert_false(file_same(scratch("a"), scratch("none")));
	assert_false(file_same(scratch("none"), scratch("none")));
}

#define row(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(maps), row(drops_in_one_of_several), row(maps_in_several_threads), row(refuses_to_map), row(reads_whole_files), row(commits), row(large_writes), row(aborts),
		row(refuses_targets), row(writes_through_links), row(full_disk), row(folders), row(folder_filled_meanwhile),
		row(cleanup), row(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
