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
#include "base/names.h"
#include "base/progress.h"
#include "base/strbuf.h"

enum option_type {
	OPT_FLAG, OPT_STRING, OPT_INT, OPT_DOUBLE, OPT_SIZE /* 64MiB, 2G */, OPT_LIST /* repeatable */,
	OPT_INPUT, OPT_INPUTS /* repeatable */, /* names of files or folders that are read */
	OPT_OUTPUT, OPT_OUT_FOLDER,             /* ... and written; an earlier output of these kinds gives way without --force: */
	OPT_OUT_STATS, OPT_OUT_BASELINE, OPT_OUT_PART, OPT_OUT_JUNIT, OPT_OUT_REPORT, OPT_OUT_CSV, OPT_OUT_PAGE,
};

struct string_list {
	const char **item;
	size_t count;
};

struct option_row {
	const char *name;        /* "scheme" for --scheme */
	char letter;             /* 'o', or 0 */
	enum option_type type;
	const char *value;       /* "NAME" in help, or "a|b|c" (offered by completion); NULL for flags */
	const char *help;        /* one line of up to 70 columns; NULL hides the option */
	size_t field;            /* offsetof into the command's options struct; by type: bool, int64_t, double, uint64_t, struct string_list, else const char * */
};

/* The default of a whole number where leaving it out is not the same as giving the default; always negative. */
#define OPT_NOT_GIVEN INT64_MIN

/* Options every command has: --json -q -v --threads -h. The parser applies none of them; main.c sets the threads. */
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
	size_t file_args;        /* so many of them name files that are read, the rest is text; 0: all */
	size_t options_size;     /* sizeof the options struct; its first member is struct common */
	const void *defaults;    /* NULL: all zero */
	int (*run)(const void *options, const char *const *args, size_t count, struct err *e);
	bool no_json;            /* prints no results: has no --json */
	bool judges;             /* has gates, so that numbers that are not finite can be a verdict; elsewhere they are bad input */
};
/* One per cmd/<name>.c. To add a command: its file, a line here, and a row in commands.c. */
extern const struct command inspect_command, convert_command, quantize_command, verify_command;
extern const struct command generate_command, tokenize_command, calibrate_command, compare_command, fold_command, doctor_command, help_command;

extern const struct command *const command_rows[];
extern const unsigned command_row_count;
const struct command *command_find(const char *name);  /* NULL when unknown */
const char *command_nearest(const char *name);         /* for "did you mean"; NULL when nothing is near */

extern const struct option_row common_rows[];
extern const unsigned common_row_count;
/* The row'th option of a command, its own before the common ones, hidden ones left out; NULL past the end. */
const struct option_row *option_visible(const struct command *c, size_t row);

/*
 * Parses argv[1..] of a command into opts (c->options_size bytes); args (whose items have room for argc) gets the positional ones.
 * ERR_USAGE says what to do. With -h the rest is not checked. Release with options_release.
 */
int options_parse(const struct command *c, int argc, char **argv, void *opts, struct string_list *args, struct err *e);
void options_release(const struct command *c, void *opts);
/* "64MiB", "2G" (powers of 1024), "5GB" (of 1000), "5e9". */
bool size_parse(const char *text, uint64_t *out);

/* As `quire help COMMAND` (c NULL: the list of commands); man and completion forms for `make install` and the tests. */
void help_print(const struct command *c, struct strbuf *out);
void help_man(const struct command *c, struct strbuf *out);
void help_completion(struct strbuf *out);

/* What `quire help` explains that is no command. */
struct help_topic {
	const char *name;
	void (*print)(struct strbuf *out);
};
extern const struct help_topic help_topics[];
extern const unsigned help_topic_count;

/* `quire help schemes`; and names for the completion, with spaces between. */
enum scheme_words { WORDS_SCHEMES, WORDS_CODECS, WORDS_ROLES /* "attn_v=" */ };
void schemes_print(struct strbuf *out);
void schemes_words(enum scheme_words what, struct strbuf *out);

/*
 * Progress on stderr when not quiet: a bar with rate and time left on a terminal; elsewhere the same as a line, after some
 * seconds and every quarter of a minute, for work that takes that long. It may be told often.
 */
void progress_start(const struct common *o, const char *what, const char *unit, uint64_t total);
extern const struct progress terminal;
void progress_end(void);
/* Seconds of a clock that only goes forward. */
double clock_seconds(void);
/* For an interruption: if the file is there, it holds what was done, and how says how to go on. NULL: no longer. */
void progress_keeps(const char *path, const char *how);
const char *progress_kept(void); /* for a signal handler; NULL: no work has begun */

/* Gives BLAS its threads; where memory is limited, no more than fit, and takes what they will need. ERR_NOMEM. */
int memory_reserve(struct err *e);

/* One line on stderr: "quire: warning: ...". */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same in red, on a terminal and without NO_COLOR: of what makes the result useless. */
void warn_loud(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct notes;
void warn_notes(const struct notes *n);
void note(const struct common *o, const char *format, ...) __attribute__((format(printf, 2, 3))); /* silent with -q */
/* "1.23 GiB", "431.0 KiB"; returns buf. */
char *size_text(uint64_t bytes, char buf[32]);
/* "12.3M", "1.10B": a count of parameters; returns buf. */
char *count_text(uint64_t n, char buf[32]);
/* Appends text from a file with control characters shown as '?', so that it cannot move the cursor. */
void safe_text(struct strbuf *out, const char *text);
/* Prints a strbuf to stdout and checks for errors (a closed pipe, a full disk). */
int out_print(const struct strbuf *b, struct err *e);
/* Writes it to a file, or, for "-", prints it. */
int out_write_text(const char *path, const struct strbuf *b, struct err *e);
/* Where a document goes there, no table does. path may be NULL. */
bool out_is_stdout(const char *path);

#endif
