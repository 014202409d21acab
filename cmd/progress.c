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

static struct {
	bool on;
	atomic_flag busy;        /* steps may come from several threads; one of them draws */
	const char *what, *unit;
	uint64_t total;
	double start, drawn;
	bool visible;
} bar = { .busy = ATOMIC_FLAG_INIT };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wipe(void)
{
	if (bar.visible)
		fputs("\r\033[K", stderr);
	bar.visible = false;
}

void progress_start(const struct common *o, const char *what, const char *unit, uint64_t total)
{
	const char *term = getenv("TERM");
	progress_end();
	bar.on = !o->quiet && isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
	bar.what = what;
	bar.unit = unit;
	bar.total = total;
	bar.start = bar.drawn = now();
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

static void draw(uint64_t done, uint64_t total, double t)
{
	enum { WIDTH = 24 };
	char cells[WIDTH + 1], rate[32], left[32] = "";
	double part = total ? (double)done / (double)total : 0, passed = t - bar.start;
	size_t full = (size_t)((part > 1 ? 1 : part) * WIDTH);
	memset(cells, '.', WIDTH);
	memset(cells, '#', full);
	cells[WIDTH] = '\0';
	amount_text((double)done / (passed > 1e-9 ? passed : 1e-9), bar.unit, rate);
	if (done && done <= total) {
		unsigned long s = (unsigned long)(passed * ((double)total / (double)done - 1) + 0.5);
		if (s >= 3600)
			snprintf(left, sizeof left, ", %lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
		else
			snprintf(left, sizeof left, ", %lu:%02lu left", s / 60, s % 60);
	}
	fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %s/s%s", bar.what, cells, 100 * part, rate, left);
	fflush(stderr);
	bar.visible = true;
	bar.drawn = t;
}

bool progress_step(void *unused, uint64_t done, uint64_t total)
{
	(void)unused;
	if (bar.on && !atomic_flag_test_and_set(&bar.busy)) {
		double t = now();
		if (t - bar.drawn >= 0.1)
			draw(done, total ? total : bar.total, t);
		atomic_flag_clear(&bar.busy);
	}
	return true;
}

void progress_end(void)
{
	wipe();
	bar.on = false;
}

void warn(const char *format, ...)
{
	char text[1200];
	struct strbuf safe = { 0 };
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	safe_text(&safe, text);
	wipe();
	fprintf(stderr, "quire: warning: %s\n", safe.failed ? "out of memory" : safe.data);
	strbuf_release(&safe);
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
		return err_set(e, ERR_IO, "cannot write to standard output: %s", strerror(errno ? errno : EIO));
	return ERR_OK;
}
