#include "base/notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void notes_add(struct notes *n, const char *format, ...)
{
	char text[1000];
	va_list ap;
	if (!n || n->failed)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	for (size_t i = 0; i < n->count; i++)
		if (!strcmp(n->line[i], text))
			return;
	char **line = realloc(n->line, (n->count + 1) * sizeof *line), *copy = strdup(text);
	if (line)
		n->line = line;
	if (line && copy)
		n->line[n->count++] = copy;
	else
		free(copy);
	n->failed = !line || !copy;
}

void notes_release(struct notes *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->line[i]);
	free(n->line);
	*n = (struct notes){ 0 };
}
