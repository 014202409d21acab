/*
 * The registry of checkpoint formats. To add one: declare its row here and put
 * it into the table. The first of equally sure probes wins, so a format that
 * is a special case of another stands before it.
 */
#include <stdlib.h>
#include <string.h>

#include "formats/adopt.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/side.h"

extern const struct format format_gguf, format_hf, format_quire, format_safetensors, format_gptq, format_awq, format_mlx;

const struct format *const format_rows[] = {
	&format_gguf,
	&format_quire,
	&format_safetensors,
	&format_gptq,
	&format_awq,
	&format_mlx,
	&format_hf, /* last: it is what a path without a known suffix is written as */
};
const unsigned format_row_count = sizeof format_rows / sizeof *format_rows;

/* Enough for a probe to see the magic and the beginning of a safetensors header. */
enum { HEAD = 4096 };

const struct format *format_find(const char *name)
{
	for (unsigned i = 0; i < format_row_count; i++)
		if (strcmp(format_rows[i]->name, name) == 0)
			return format_rows[i];
	return NULL;
}

const struct format *format_for_output(const char *path)
{
	size_t n = strlen(path);
	const struct format *folder = NULL;
	for (unsigned i = 0; i < format_row_count; i++) {
		const char *suffix = format_rows[i]->suffix;
		size_t m = suffix ? strlen(suffix) : 0;
		if (!suffix)
			folder = format_rows[i];
		else if (n > m && strcmp(path + n - m, suffix) == 0)
			return format_rows[i];
	}
	return folder;
}

static int read_head(const char *path, bool *is_dir, uint8_t *head, size_t *n, struct err *e)
{
	*n = 0;
	*is_dir = file_is_dir(path);
	if (*is_dir)
		return ERR_OK;
	struct mapped m; /* refuses what is not a regular file, with the reason */
	int rc = mapped_open(&m, path, e);
	if (rc)
		return rc;
	*n = m.size < HEAD ? m.size : HEAD;
	memcpy(head, m.data, *n);
	mapped_close(&m);
	return ERR_OK;
}

static const struct format *probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	const struct format *best = NULL;
	int sure = 0;
	for (unsigned i = 0; i < format_row_count; i++) {
		int s = format_rows[i]->probe(path, is_dir, head, n);
		if (s > sure) {
			sure = s;
			best = format_rows[i];
		}
	}
	return best;
}

int checkpoint_open(const char *path, struct checkpoint **out, struct err *e)
{
	uint8_t head[HEAD];
	size_t n;
	bool is_dir;
	*out = NULL;
	int rc = read_head(path, &is_dir, head, &n, e);
	if (rc)
		return rc;
	const struct format *format = probe(path, is_dir, head, n);
	if (!format)
		return err_set(e, ERR_INPUT, "%.600s: %s", path,
			       n ? "not a checkpoint of a known format" : "the file is empty, not a checkpoint");
	struct checkpoint *c = calloc(1, sizeof *c);
	if (!c)
		return err_nomem(e);
	c->format = format;
	c->path = arena_strdup(&c->arena, path);
	rc = c->path ? format->open(path, c, e) : err_nomem(e);
	if (!rc)
		rc = checkpoint_adopt(c, e);
	if (rc)
		checkpoint_close(c);
	else
		*out = c;
	return rc;
}

void checkpoint_close(struct checkpoint *c)
{
	if (!c)
		return;
	checkpoint_disown(c);
	c->format->close(c);
	sides_free(c->sides);
	notes_release(&c->notes);
	arena_release(&c->arena);
	free(c);
}
