#ifndef QUIRE_BASE_ERR_H
#define QUIRE_BASE_ERR_H
/*
 * Errors. A function that can fail returns an error code (0 is success) and
 * fills a caller-owned struct err with one line that names the file, the
 * tensor and the reason. The code is also the exit status of the command.
 */
enum err_code {
	ERR_OK = 0,
	ERR_GATE = 1,            /* a quality gate failed */
	ERR_USAGE = 2,           /* the command line is wrong */
	ERR_INPUT = 3,           /* a file is malformed or inconsistent */
	ERR_IO = 4,              /* the system refused to read or write */
	ERR_UNSUPPORTED = 5,     /* well-formed, but not something quire handles */
	ERR_NOMEM = 6,           /* out of memory */
	ERR_NOT_COMPARABLE = 7,  /* two results that must not be compared */
	ERR_BUG = 70,            /* a promise inside quire was broken */
};

struct err {
	int code;
	char message[1000];
};

/* Fills *e (NULL is allowed) and returns code, so that callers can `return err_set(...)`. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of an existing message; returns e->code. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

int err_nomem(struct err *e);

/* What the system refused: the words, and after a colon the reason that errno gives. ERR_NOMEM where that is no memory, else ERR_IO. */
int err_system(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One row per code: the name used in JSON and documentation, and its meaning. NULL for unknown codes. */
struct err_row {
	int code;
	const char *name;
	const char *meaning;
};
extern const struct err_row err_rows[];
extern const unsigned err_row_count;

#endif
