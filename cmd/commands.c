/* The commands, in the order that help shows them. To add one: cmd/<name>.c, a line in command.h, a row here. */
#include <string.h>

#include "cmd/command.h"

const struct command *const command_rows[] = {
	&inspect_command,
	&convert_command,
	&calibrate_command,
	&fold_command,
	&quantize_command,
	&verify_command,
	&compare_command,
	&generate_command,
	&tokenize_command,
	&doctor_command,
	&help_command,
};
const unsigned command_row_count = sizeof command_rows / sizeof *command_rows;

const struct command *command_find(const char *name)
{
	for (unsigned i = 0; i < command_row_count; i++)
		if (!strcmp(command_rows[i]->name, name))
			return command_rows[i];
	return NULL;
}

const char *command_nearest(const char *name)
{
	unsigned best = (unsigned)strlen(name) / 3 + 1;
	const char *found = NULL;
	for (unsigned i = 0; i < command_row_count; i++) {
		unsigned d = name_distance(name, command_rows[i]->name, best);
		if (strlen(name) > 2 && !strncmp(name, command_rows[i]->name, strlen(name)))
			d = 0;
		if (d <= best && (!found || d < best)) {
			best = d;
			found = command_rows[i]->name;
		}
	}
	return found;
}
