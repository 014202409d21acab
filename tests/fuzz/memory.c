#include "tests/fuzz/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "formats/file.h"

static const struct memory *now; /* the fuzzer's interface leaves no other way to hand it on */

int __real_mapped_open(struct mapped *m, const char *path, struct err *e);
int __real_file_read(const char *path, struct strbuf *out, size_t limit, struct err *e);
int __real_file_check(const char *path, size_t limit, struct err *e);
bool __real_file_exists(const char *path);
bool __real_file_is_dir(const char *path);
int __wrap_mapped_open(struct mapped *m, const char *path, struct err *e);
int __wrap_file_read(const char *path, struct strbuf *out, size_t limit, struct err *e);
int __wrap_file_check(const char *path, size_t limit, struct err *e);
bool __wrap_file_exists(const char *path);
bool __wrap_file_is_dir(const char *path);

static bool is_memory(const char *path)
{
	return !strncmp(path, MEMORY_ROOT, sizeof MEMORY_ROOT - 1);
}

static const struct memory_file *find(const char *path)
{
	for (size_t i = 0; now && i < now->count; i++)
		if (!strcmp(now->file[i].path, path))
			return &now->file[i];
	return NULL;
}

static int missing(const char *path, struct err *e)
{
	return err_set(e, ERR_IO, "cannot open '%.600s': %s", path, strerror(ENOENT));
}

int __wrap_mapped_open(struct mapped *m, const char *path, struct err *e)
{
	if (!is_memory(path))
		return __real_mapped_open(m, path, e);
	const struct memory_file *f = find(path);
	*m = (struct mapped){ 0 };
	if (!f)
		return missing(path, e);
	*m = (struct mapped){ .data = f->data, .size = f->size, .path = strdup(path) };
	return m->path ? ERR_OK : err_nomem(e);
}

int __wrap_file_read(const char *path, struct strbuf *out, size_t limit, struct err *e)
{
	if (!is_memory(path))
		return __real_file_read(path, out, limit, e);
	const struct memory_file *f = find(path);
	if (!f)
		return missing(path, e);
	strbuf_add(out, f->data, f->size);
	return out->failed ? err_nomem(e) : ERR_OK;
}

int __wrap_file_check(const char *path, size_t limit, struct err *e)
{
	if (!is_memory(path))
		return __real_file_check(path, limit, e);
	return find(path) ? ERR_OK : missing(path, e);
}

bool __wrap_file_exists(const char *path)
{
	return is_memory(path) ? find(path) != NULL : __real_file_exists(path);
}

bool __wrap_file_is_dir(const char *path)
{
	return is_memory(path) ? !strcmp(path, MEMORY_ROOT) : __real_file_is_dir(path);
}

static void add(struct memory *m, const uint8_t *name, size_t name_len, const uint8_t *data, size_t size)
{
	struct memory_file *f = &m->file[m->count];
	if (m->count == MEMORY_FILES || name_len > MEMORY_NAME)
		return;
	f->data = malloc(size ? size : 1);
	if (!f->data)
		abort();
	memcpy(f->data, data, size);
	f->size = size;
	snprintf(f->path, sizeof f->path, "%s/%.*s", MEMORY_ROOT, (int)name_len, (const char *)name);
	m->count++;
}

/* The next line of '@' and a name at or after `at`: where it begins, or the end. */
static const uint8_t *next_name(const uint8_t *at, const uint8_t *start, const uint8_t *end)
{
	for (; at < end && (at = memchr(at, '@', (size_t)(end - at))); at++)
		if (at == start || at[-1] == '\n')
			return at;
	return end;
}

void memory_set(struct memory *m, const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size, *at = size ? next_name(data, data, end) : end;
	m->count = 0;
	if (size && at != data)
		add(m, (const uint8_t *)"0", 1, data, (size_t)(at - data) - (at < end));
	while (at < end) {
		const uint8_t *line = memchr(at, '\n', (size_t)(end - at));
		if (!line)
			break;
		const uint8_t *next = next_name(line + 1, data, end);
		/* the line break before the next name belongs to that line */
		add(m, at + 1, (size_t)(line - at - 1), line + 1, (size_t)(next - line - 1) - (next < end && next > line + 1));
		at = next;
	}
	now = m;
}

void memory_clear(struct memory *m)
{
	now = NULL;
	for (size_t i = 0; i < m->count; i++)
		free(m->file[i].data);
	m->count = 0;
}

static unsigned read_tensor(struct tensor_source *source, size_t i, struct err *e)
{
	const struct tensor *t = &source->tensors[i];
	struct tensor_bytes b;
	unsigned sum = 0;
	if (source->get(source, i, &b, e))
		return 0;
	if (b.size != t->nbytes)
		abort();
	for (size_t k = 0; k < b.size; k++)
		sum += b.data[k];
	uint64_t cols = tensor_cols(t), row_bytes = codec_row_bytes(t->codec, cols);
	float *row = t->codec->decode && row_bytes && t->nbytes ? malloc((size_t)cols * sizeof *row) : NULL;
	for (uint64_t r = 0; row && r < tensor_rows(t); r++)
		t->codec->decode(t->codec, b.data + r * row_bytes, row, (size_t)cols);
	free(row);
	tensor_bytes_release(&b);
	return sum;
}

void memory_checkpoint(const char *path)
{
	struct checkpoint *c = NULL;
	struct config config;
	struct tokenizer *t;
	struct err e = { 0 };
	uint64_t total = 0;
	unsigned sum = 0;
	if (checkpoint_open(path, &c, &e)) {
		if (!*e.message)
			abort();
		return;
	}
	if (!checkpoint_config(c, &config, &e))
		config_release(&config);
	if (!checkpoint_tokenizer(c, &t, &e))
		tokenizer_close(t);
	checkpoint_files(c, &e);
	for (size_t i = 0; i < c->source->count; i++)
		total += c->source->tensors[i].nbytes;
	for (size_t i = 0; i < c->source->count && total < 1 << 20; i++)
		sum += read_tensor(c->source, i, &e);
	if (c->format->check && total < 1 << 20)
		c->format->check(c, NULL, &e);
	if (sum == UINT32_MAX) /* so that the reads stay */
		abort();
	checkpoint_close(c);
}
