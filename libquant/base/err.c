#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct err_row err_rows[] = {
	{ ERR_OK, "ok", "success" },
	{ ERR_GATE, "gate", "a quality gate failed" },
	{ ERR_USAGE, "usage", "the command line is wrong" },
	{ ERR_INPUT, "input", "a file is malformed or inconsistent" },
	{ ERR_IO, "io", "the system refused to read or write" },
	{ ERR_UNSUPPORTED, "unsupported", "well-formed, but not something quire handles" },
	{ ERR_NOMEM, "nomem", "out of memory" },
	{ ERR_NOT_COMPARABLE, "not-comparable", "results that must not be compared" },
	{ ERR_BUG, "bug", "a promise inside quire was broken; please report it" },
};
const unsigned err_row_count = sizeof err_rows / sizeof *err_rows;

int err_set(struct err *e, int code, const char *format, ...)
{
	if (e) {
		va_list ap;
		va_start(ap, format);
		vsnprintf(e->message, sizeof e->message, format, ap);
		va_end(ap);
		e->code = code;
	}
	return code;
}

int err_prefix(struct err *e, const char *format, ...)
{
	if (!e)
		return ERR_BUG;
	char whole[sizeof e->message];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(whole, sizeof whole, format, ap);
	va_end(ap);
	size_t at = n < 0 ? 0 : (size_t)n < sizeof whole - 3 ? (size_t)n : sizeof whole - 3;
	size_t len = strlen(e->message), room = sizeof whole - at - 3;
	memcpy(whole + at, ": ", 2);
	memcpy(whole + at + 2, e->message, len < room ? len : room);
	whole[at + 2 + (len < room ? len : room)] = '\0';
	memcpy(e->message, whole, sizeof whole);
	return e->code;
}

int err_nomem(struct err *e)
{
	return err_set(e, ERR_NOMEM, "out of memory");
}

int err_system(struct err *e, const char *format, ...)
{
	int number = errno ? errno : EIO, code = number == ENOMEM ? ERR_NOMEM : ERR_IO;
	char text[sizeof e->message];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return err_set(e, code, "%s: %s", text, strerror(number));
}
