#ifndef QUIRE_CMD_COMMAND_H
#define QUIRE_CMD_COMMAND_H
/*
 * Commands and their options. One row per command in commands.c, one row per
 * option in the command's own table; parser, -h, man pages and shell completion
 * are made from those tables. Only cmd/ prints, exits and reads the environment.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"

enum option_type { OPT_FLAG, OPT_STRING, OPT_INT, OPT_DOUBLE, OPT_SIZE /* 64MiB, 2G */, OPT_LIST /* repeatable */ };

struct string_list {
	const char **item;
	size_t count;
};

struct option_row {
	const char *name;        /* "scheme" for --scheme */
	char letter;             /* 'o', or 0 */
	enum option_type type;
	const char *value;       /* "NAME" in help; NULL for flags */
	const char *help;        /* one line */
	size_t field;            /* offsetof into the command's options struct; by type: bool, const char *, int64_t, double, uint64_t, struct string_list */
};

/* Options every command has: --json -q -v --threads -h; commands leave `json` out of help when they print no results. */
struct common {
	bool json, quiet, verbose, help;
	int64_t threads;
};

struct command {
	const char *name, *summary;
	const char *synopsis;    /* "MODEL -o OUT [--scheme NAME]" */
	const char *description; /* a paragraph for -h and the man page */
	const char *example;     /* one shell line or several */
	const struct option_row *options;
	size_t option_count;
	size_t min_args, max_args; /* positional arguments; SIZE_MAX: any number */
	size_t options_size;     /* sizeof the options struct; its first member is struct common */
	const void *defaults;    /* NULL: all zero */
	int (*run)(const void *options, const char *const *args, size_t count, struct err *e);
};
extern const struct command *const command_rows[];
extern const unsigned command_row_count;

/* Parses argv[1..] of a command into opts; args gets the positional ones. ERR_USAGE says what to do. */
int options_parse(const struct command *c, int argc, char **argv, void *opts, const char **args, size_t *count, struct err *e);
/* As `quire help COMMAND`; man and completion forms for `make install` and the tests. */
void help_print(const struct command *c, struct strbuf *out);
void help_man(const struct command *c, struct strbuf *out);
void help_completion(struct strbuf *out);

/* Progress on stderr when it is a terminal and not quiet: bar, rate, time left. step may be called often. */
void progress_start(const struct common *o, const char *what, const char *unit, uint64_t total);
bool progress_step(void *unused, uint64_t done, uint64_t total); /* a plan_progress */
void progress_end(void);

/* One line on stderr: "quire: warning: ...". */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note(const struct common *o, const char *format, ...) __attribute__((format(printf, 2, 3))); /* silent with -q */
/* "1.23 GiB", "431.0 KiB"; returns buf. */
char *size_text(uint64_t bytes, char buf[32]);
/* Prints a strbuf to stdout and checks for errors (a closed pipe, a full disk). */
int out_print(const struct strbuf *b, struct err *e);

#endif
