/* What goes to the terminal besides results: progress, notes, warnings, and checked output. */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/notes.h"
#include "cmd/command.h"
#include "formats/file.h"

static struct {
	enum { NONE, DRAWN, LINES } shown; /* how; lines where there is no terminal */
	bool working;
	atomic_flag busy;        /* steps may come from several threads; one of them draws */
	const char *what, *unit;
	uint64_t total;
	double start, drawn;
	bool visible;
	char kept[1024], advice[1200];
} bar = { .busy = ATOMIC_FLAG_INIT };

/* Seconds: until the first estimate is worth a line, from line to line, and what is not worth one. */
enum { FIRST_LINE = 3, NEXT_LINE = 15, SHORT_WORK = 15 };

double clock_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wipe(void)
{
	if (bar.shown != DRAWN)
		return;
	if (bar.visible)
		fputs("\r\033[K", stderr);
	bar.visible = false;
}

void progress_start(const struct common *o, const char *what, const char *unit, uint64_t total)
{
	const char *term = getenv("TERM");
	progress_end();
	bar.visible = false;
	bar.shown = o->quiet ? NONE : isatty(STDERR_FILENO) && term && strcmp(term, "dumb") ? DRAWN : LINES;
	bar.working = true;
	bar.what = what;
	bar.unit = unit;
	bar.total = total;
	bar.start = bar.drawn = clock_seconds();
}

static void amount_text(double v, const char *unit, char buf[32])
{
	if (!strcmp(unit, "bytes"))
		size_text((uint64_t)v, buf);
	else if (v < 10)
		snprintf(buf, 32, "%.2f %.20s", v, unit);
	else
		snprintf(buf, 32, "%.0f %.20s", v, unit);
}

static void draw(double part, const char *rate, const char *left)
{
	enum { WIDTH = 24 };
	char cells[WIDTH + 1];
	memset(cells, '.', WIDTH);
	memset(cells, '#', (size_t)((part > 1 ? 1 : part) * WIDTH));
	cells[WIDTH] = '\0';
	fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %s/s%s", bar.what, cells, 100 * part, rate, left);
	fflush(stderr);
	bar.visible = true;
}

/* The first line comes early and is the estimate; of short work there is none. */
static bool line_is_due(double passed, double since, double seconds_left)
{
	if (bar.visible)
		return since >= NEXT_LINE;
	return passed >= FIRST_LINE && passed + seconds_left >= SHORT_WORK;
}

static void show(uint64_t done, uint64_t total, double t)
{
	char rate[32], left[32] = "";
	double part = total ? (double)done / (double)total : 0, passed = t - bar.start, seconds = 0;
	amount_text((double)done / (passed > 1e-9 ? passed : 1e-9), bar.unit, rate);
	if (done && done <= total) {
		seconds = passed * ((double)total / (double)done - 1);
		unsigned long s = (unsigned long)(seconds + 0.5);
		if (s >= 3600)
			snprintf(left, sizeof left, ", %lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
		else
			snprintf(left, sizeof left, ", %lu:%02lu left", s / 60, s % 60);
	}
	if (bar.shown == DRAWN) {
		draw(part, rate, left);
	} else if (line_is_due(passed, t - bar.drawn, seconds)) {
		fprintf(stderr, "%s: %.0f%%, %s/s%s\n", bar.what, 100 * part, rate, left);
		bar.visible = true;
	} else {
		return;
	}
	bar.drawn = t;
}

static bool step(void *unused, uint64_t done, uint64_t total)
{
	(void)unused;
	if (bar.shown && !atomic_flag_test_and_set(&bar.busy)) {
		double t = clock_seconds();
		if (t - bar.drawn >= 0.1)
			show(done, total ? total : bar.total, t);
		atomic_flag_clear(&bar.busy);
	}
	return true;
}

const struct progress terminal = { step, NULL };

void progress_end(void)
{
	wipe();
	bar.shown = NONE;
	bar.working = false;
}

void progress_keeps(const char *path, const char *how)
{
	bar.kept[0] = '\0'; /* a signal may come between */
	if (path && strlen(path) < sizeof bar.kept) {
		snprintf(bar.advice, sizeof bar.advice, "%s has what was done; %s", path, how);
		strcpy(bar.kept, path);
	}
}

const char *progress_kept(void)
{
	if (*bar.kept && !access(bar.kept, F_OK))
		return bar.advice;
	return bar.working ? "nothing was kept" : NULL;
}

static void say_warning(bool red, const char *format, va_list ap)
{
	char text[1200];
	struct strbuf safe = { 0 };
	vsnprintf(text, sizeof text, format, ap);
	safe_text(&safe, text);
	wipe();
	fprintf(stderr, "%squire: warning: %s%s\n", red ? "\033[31m" : "", safe.failed ? "out of memory" : safe.data, red ? "\033[0m" : "");
	strbuf_release(&safe);
}

void warn(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say_warning(false, format, ap);
	va_end(ap);
}

void warn_loud(const char *format, ...)
{
	const char *off = getenv("NO_COLOR"), *term = getenv("TERM");
	va_list ap;
	va_start(ap, format);
	say_warning(isatty(STDERR_FILENO) && term && strcmp(term, "dumb") && !(off && *off), format, ap);
	va_end(ap);
}

void warn_notes(const struct notes *n)
{
	for (size_t i = 0; i < n->count; i++)
		warn("%s", n->line[i]);
}

void note(const struct common *o, const char *format, ...)
{
	va_list ap;
	if (o->quiet)
		return;
	wipe();
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

char *size_text(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes / 1024;
	int u = 0;
	if (bytes < 1024) {
		snprintf(buf, 32, "%u B", (unsigned)bytes);
		return buf;
	}
	for (; v >= 1023.95 && u < 5; u++)
		v /= 1024;
	snprintf(buf, 32, u < 2 ? "%.1f %s" : "%.2f %s", v, units[u]);
	return buf;
}

char *count_text(uint64_t n, char buf[32])
{
	static const char units[] = "KMBT";
	double v = (double)n / 1e3;
	int u = 0;
	if (n < 1000) {
		snprintf(buf, 32, "%u", (unsigned)n);
		return buf;
	}
	for (; v >= 999.5 && units[u + 1]; u++)
		v /= 1e3;
	snprintf(buf, 32, v < 9.995 ? "%.2f%c" : v < 99.95 ? "%.1f%c" : "%.0f%c", v, units[u]);
	return buf;
}

void safe_text(struct strbuf *out, const char *text)
{
	for (; *text; text++)
		strbuf_putc(out, (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

int out_print(const struct strbuf *b, struct err *e)
{
	if (b->failed)
		return err_nomem(e);
	errno = 0;
	if ((b->len && fwrite(b->data, 1, b->len, stdout) != b->len) || fflush(stdout) || ferror(stdout))
		return err_system(e, "cannot write to standard output");
	return ERR_OK;
}

int out_write_text(const char *path, const struct strbuf *b, struct err *e)
{
	if (b->failed)
		return err_nomem(e);
	return out_is_stdout(path) ? out_print(b, e) : file_write(path, b->data, b->len, e);
}

bool out_is_stdout(const char *path)
{
	return path && !strcmp(path, "-");
}
