#ifndef QUIRE_CMD_PATHS_H
#define QUIRE_CMD_PATHS_H
/* The files that the options and arguments of a command name. */
#include "cmd/command.h"

/*
 * Refuses an output that is an input (of a folder: one of the files that are read), two outputs that are one file, and an
 * existing file that is no earlier output of its kind, unless the command has --force. ERR_USAGE.
 */
int paths_check(const struct command *c, const void *opts, const char *const *args, size_t count, struct err *e);
/* The same for one more input, which the command found in a file. NULL is none. */
int paths_input(const struct command *c, const void *opts, const char *input, struct err *e);

#endif
