/*
 * Writing .quire. Sizes (with --compress) and checksums are known only after
 * streaming, so room for the largest header is left free in front, and the
 * header, padded with the spaces that safetensors allows, is written last.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/thread.h"
#include "base/zip.h"
#include "formats/config_text.h"
#include "formats/file.h"
#include "formats/gguf_carry.h"
#include "formats/hf.h"
#include "formats/quire.h"
#include "formats/safetensors.h"

enum { BATCH = 16 }; /* chunks packed together: enough for every worker, 16 MiB in and as much out */

struct stored_file {
	const char *name;
	char *entry;               /* the name of its tensor */
	const char *data;          /* not deflated; borrowed, or in the arena */
	size_t size;
	uint32_t crc;
};

struct quire_sink {
	struct tensor_sink sink;
	struct out_file *out;
	char *path;
	const struct plan *plan;
	struct write_options options;
	struct stored_file *files;
	size_t file_count;
	uint32_t *crc;             /* per item */
	bool *planed;              /* per item */
	struct st_entry *entries;  /* files, items and padding in file order */
	size_t entry_count, pads;
	uint64_t start;            /* of the byte buffer in the file */

	bool sealed;
	bool open;                 /* an item is being written */
	size_t item;
	uint64_t begin, raw;       /* the item's place in the buffer and raw bytes so far */
	/* compression */
	uint8_t *batch, *packed;
	size_t batch_len, packed_cap;
	size_t packed_size[BATCH];
	uint32_t *index;           /* sizes of all planes of the item */
	size_t index_at;
	struct arena arena;
};

static unsigned item_planes(const struct quire_sink *s, size_t i)
{
	return s->planed[i] ? planes_of(s->plan->items[i].out.codec) : 0;
}

static void crc_text(char text[9], uint32_t crc)
{
	snprintf(text, 9, "%08" PRIx32, crc);
}

static void print_facts(struct json_writer *w, const struct write_options *o)
{
	size_t n = strlen(QUIRE_SOURCE_FACT);
	for (int source = 0; source < 2; source++) {
		jw_object(w, source ? "source" : "facts");
		for (size_t i = 0; i < o->fact_count; i++)
			if ((strncmp(o->facts[i].key, QUIRE_SOURCE_FACT, n) == 0) == (source == 1))
				jw_string(w, o->facts[i].key + (source ? n : 0), o->facts[i].value);
		jw_end_object(w);
	}
}

static void print_manifest(const struct quire_sink *s, struct strbuf *out)
{
	struct json_writer w = { .out = out };
	char crc[9];
	jw_object(&w, NULL);
	jw_int(&w, "version", QUIRE_VERSION_NOW);
	jw_string(&w, "tool", s->options.tool_version ? s->options.tool_version : "quire");
	jw_string(&w, "recipe", s->options.recipe ? s->options.recipe : "keep");
	print_facts(&w, &s->options);
	jw_array(&w, "files");
	for (size_t i = 0; i < s->file_count; i++) {
		jw_object(&w, NULL);
		jw_string(&w, "name", s->files[i].name);
		jw_uint(&w, "size", s->files[i].size);
		crc_text(crc, s->files[i].crc);
		jw_string(&w, "crc32", crc);
		jw_end_object(&w);
	}
	jw_end_array(&w);
	jw_array(&w, "tensors");
	for (size_t i = 0; i < s->plan->count; i++) {
		const struct tensor *t = &s->plan->items[i].out;
		jw_object(&w, NULL);
		jw_string(&w, "name", t->name);
		jw_string(&w, "codec", t->codec->name);
		jw_array(&w, "shape");
		for (uint32_t d = 0; d < t->ndim; d++)
			jw_uint(&w, NULL, t->dim[d]);
		jw_end_array(&w);
		crc_text(crc, s->crc[i]);
		jw_string(&w, "crc32", crc);
		if (item_planes(s, i))
			jw_uint(&w, "planes", item_planes(s, i));
		jw_end_object(&w);
	}
	jw_end_array(&w);
	jw_end_object(&w);
}

static int print_header(const struct quire_sink *s, const struct st_entry *entries, size_t count, struct strbuf *out, struct err *e)
{
	struct strbuf manifest = { 0 };
	char version[16], crc[9];
	snprintf(version, sizeof version, "%d", QUIRE_VERSION_NOW);
	print_manifest(s, &manifest);
	crc_text(crc, zip_crc32(0, manifest.data, manifest.len));
	struct fact meta[] = { { "quire", version }, { "format", "pt" }, { "quire.crc32", crc }, { "quire.manifest", manifest.data } };
	int rc = manifest.failed ? err_nomem(e) : st_header(out, &(struct st_listing){ entries, count, meta, 4 }, QUIRE_ALIGN, e);
	strbuf_release(&manifest);
	return rc;
}

/* The entry of a tensor of nbytes stored bytes: as itself where safetensors has its type, else as rows of bytes. */
static struct st_entry tensor_entry(const struct quire_sink *s, size_t i, uint64_t begin, uint64_t end)
{
	const struct tensor *t = &s->plan->items[i].out;
	struct st_entry entry = { .name = t->name, .begin = begin, .end = end, .dtype = st_dtype_find("U8") };
	if (item_planes(s, i)) {
		entry.ndim = 1;
		entry.dim[0] = end - begin;
	} else if (t->codec->safetensors) {
		entry.dtype = st_dtype_find(t->codec->safetensors);
		entry.ndim = t->ndim;
		memcpy(entry.dim, t->dim, sizeof entry.dim);
	} else {
		entry.ndim = 2;
		entry.dim[0] = tensor_rows(t);
		entry.dim[1] = codec_row_bytes(t->codec, tensor_cols(t));
	}
	return entry;
}

/* A header with the largest numbers that can come: its length is what is kept free. */
static int reserve(struct quire_sink *s, struct err *e)
{
	uint64_t most = 0;
	size_t n = 0, all = 2 * (s->file_count + s->plan->count);
	bool over = false;
	for (size_t i = 0; i < s->file_count; i++)
		over |= add_overflows(most, zip_bound(s->files[i].size) + QUIRE_ALIGN, &most);
	for (size_t i = 0; i < s->plan->count; i++) {
		uint64_t raw = s->plan->items[i].out.nbytes;
		/* a chunk that does not shrink is stored, so only its index is added */
		over |= add_overflows(most, raw, &most) ||
			add_overflows(most, quire_chunks(raw) * 4 * QUIRE_MAX_PLANES + QUIRE_ALIGN, &most);
	}
	if (over)
		return err_set(e, ERR_UNSUPPORTED, "the file would be too large");
	s->entries = calloc(all ? all : 1, sizeof *s->entries);
	if (!s->entries)
		return err_nomem(e);
	for (size_t i = 0; i < s->file_count; i++) {
		struct stored_file *f = &s->files[i];
		size_t room = strlen(f->name) + sizeof QUIRE_FILE_PREFIX;
		f->entry = arena_alloc(&s->arena, room);
		if (!f->entry)
			return err_nomem(e);
		snprintf(f->entry, room, "%s%s", QUIRE_FILE_PREFIX, f->name);
		s->entries[n++] = (struct st_entry){ f->entry, st_dtype_find("U8"), 1, { most }, most, most };
	}
	for (size_t i = 0; i < s->plan->count; i++)
		s->entries[n++] = tensor_entry(s, i, most, most + most);
	for (size_t i = 0; n < all; i++) {
		char *name = arena_alloc(&s->arena, 32);
		if (!name)
			return err_nomem(e);
		snprintf(name, 32, "%s%zu", QUIRE_PAD_PREFIX, i);
		s->entries[n++] = (struct st_entry){ name, st_dtype_find("U8"), 1, { QUIRE_ALIGN - 1 }, most, most };
	}
	struct strbuf header = { 0 };
	int rc = print_header(s, s->entries, n, &header, e);
	s->start = header.len;
	strbuf_release(&header);
	return rc;
}

static const char *pad_name(struct quire_sink *s)
{
	char *name = arena_alloc(&s->arena, 32);
	if (name)
		snprintf(name, 32, "%s%zu", QUIRE_PAD_PREFIX, s->pads++);
	return name;
}

static int pad(struct quire_sink *s, struct err *e)
{
	uint64_t at = out_offset(s->out) - s->start, end = round_up(at, QUIRE_ALIGN);
	if (at == end)
		return ERR_OK;
	const char *name = pad_name(s);
	if (!name)
		return err_nomem(e);
	s->entries[s->entry_count++] = (struct st_entry){ name, st_dtype_find("U8"), 1, { end - at }, at, end };
	return out_pad(s->out, QUIRE_ALIGN, e);
}

static int put_zeros(struct quire_sink *s, uint64_t n, struct err *e)
{
	static const uint8_t zeros[4096];
	int rc = ERR_OK;
	for (; n && !rc; n -= n < sizeof zeros ? n : sizeof zeros)
		rc = out_write(s->out, zeros, n < sizeof zeros ? n : sizeof zeros, e);
	return rc;
}

static int put_files(struct quire_sink *s, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < s->file_count && !rc; i++) {
		struct stored_file *f = &s->files[i];
		size_t n = zip_bound(f->size);
		uint64_t at = out_offset(s->out) - s->start;
		uint8_t *buf = malloc(n);
		if (!buf)
			return err_nomem(e);
		rc = zip_deflate(f->data, f->size, ZIP_TEXT, buf, &n, e);
		f->crc = zip_crc32(0, f->data, f->size);
		if (!rc)
			rc = out_write(s->out, buf, n, e);
		free(buf);
		s->entries[s->entry_count++] = (struct st_entry){ f->entry, st_dtype_find("U8"), 1, { n }, at, at + n };
		if (!rc)
			rc = pad(s, e);
	}
	return rc;
}

static void pack_one(void *arg, size_t i, int worker)
{
	struct quire_sink *s = arg;
	unsigned planes = item_planes(s, s->item);
	size_t at = i * QUIRE_CHUNK, n = s->batch_len - at < QUIRE_CHUNK ? s->batch_len - at : QUIRE_CHUNK;
	(void)worker;
	uint32_t sizes[QUIRE_MAX_PLANES];
	s->packed_size[i] = planes_pack(planes, s->batch + at, n, s->packed + i * s->packed_cap, sizes);
	memcpy(s->index + s->index_at + i * planes, sizes, planes * sizeof *sizes);
}

static int flush_batch(struct quire_sink *s, struct err *e)
{
	size_t chunks = (s->batch_len + QUIRE_CHUNK - 1) / QUIRE_CHUNK;
	thread_for(chunks, pack_one, s);
	for (size_t i = 0; i < chunks; i++) {
		int rc = s->packed_size[i] ? out_write(s->out, s->packed + i * s->packed_cap, s->packed_size[i], e) : err_nomem(e);
		if (rc)
			return rc;
	}
	s->index_at += chunks * item_planes(s, s->item);
	s->batch_len = 0;
	return ERR_OK;
}

static int end_item(struct quire_sink *s, struct err *e)
{
	const struct tensor *t = &s->plan->items[s->item].out;
	unsigned planes = item_planes(s, s->item);
	int rc = ERR_OK;
	if (!s->open)
		return ERR_OK;
	s->open = false;
	if (s->raw != t->nbytes)
		return err_set(e, ERR_BUG, "tensor %s: %" PRIu64 " bytes written, %" PRIu64 " planned", t->name, s->raw, t->nbytes);
	if (planes) {
		rc = flush_batch(s, e);
		size_t n = (size_t)quire_chunks(t->nbytes) * planes;
		for (size_t i = 0; i < n && !rc; i++) {
			uint32_t value = s->index[i];
			store_u32(&s->index[i], value);
		}
		if (!rc && n)
			rc = out_pwrite(s->out, s->index, n * 4, s->start + s->begin, e);
	}
	if (rc)
		return rc;
	s->entries[s->entry_count++] = tensor_entry(s, s->item, s->begin, out_offset(s->out) - s->start);
	return pad(s, e);
}

static int sink_item(struct tensor_sink *k, size_t index, struct err *e)
{
	struct quire_sink *s = (struct quire_sink *)k;
	int rc = end_item(s, e);
	if (rc)
		return rc;
	uint64_t n = quire_chunks(s->plan->items[index].out.nbytes) * item_planes(s, index);
	s->open = true;
	s->item = index;
	s->raw = s->batch_len = s->index_at = 0;
	s->begin = out_offset(s->out) - s->start;
	if (!n)
		return ERR_OK;
	free(s->index);
	s->index = malloc(n * sizeof *s->index);
	if (!s->index)
		return err_nomem(e);
	return put_zeros(s, n * 4, e);
}

static int sink_bytes(struct tensor_sink *k, const void *data, size_t size, struct err *e)
{
	struct quire_sink *s = (struct quire_sink *)k;
	const uint8_t *p = data;
	const struct tensor *t = &s->plan->items[s->item].out;
	if (size > t->nbytes - s->raw)
		return err_set(e, ERR_BUG, "tensor %s: more bytes written than the %" PRIu64 " planned", t->name, t->nbytes);
	s->crc[s->item] = zip_crc32(s->crc[s->item], data, size);
	s->raw += size;
	if (!item_planes(s, s->item))
		return out_write(s->out, data, size, e);
	while (size) {
		size_t n = (size_t)BATCH * QUIRE_CHUNK - s->batch_len;
		n = n < size ? n : size;
		memcpy(s->batch + s->batch_len, p, n);
		s->batch_len += n;
		p += n;
		size -= n;
		int rc = s->batch_len == (size_t)BATCH * QUIRE_CHUNK ? flush_batch(s, e) : ERR_OK;
		if (rc)
			return rc;
	}
	return ERR_OK;
}

static int sink_seal(struct tensor_sink *k, const char **path, struct err *e)
{
	struct quire_sink *s = (struct quire_sink *)k;
	struct strbuf header = { 0 };
	*path = out_temp_path(s->out);
	if (s->sealed)
		return ERR_OK;
	int rc = end_item(s, e);
	if (!rc)
		rc = print_header(s, s->entries, s->entry_count, &header, e);
	if (!rc && header.len > s->start)
		rc = err_set(e, ERR_BUG, "%s: the header needs %zu bytes, %" PRIu64 " were kept free", s->path, header.len, s->start);
	while (!rc && header.len < s->start && !header.failed)
		strbuf_putc(&header, ' ');
	if (!rc && header.failed)
		rc = err_nomem(e);
	if (!rc) {
		store_u64(header.data, header.len - 8);
		rc = out_pwrite(s->out, header.data, header.len, 0, e);
	}
	strbuf_release(&header);
	if (!rc)
		rc = out_flush(s->out, e);
	s->sealed = !rc;
	return rc;
}

static int sink_finish(struct tensor_sink *k, struct err *e)
{
	struct quire_sink *s = (struct quire_sink *)k;
	const char *path;
	int rc = sink_seal(k, &path, e);
	if (rc)
		return rc;
	struct out_file *f = s->out;
	s->out = NULL;
	return out_commit(f, e);
}

static void sink_close(struct tensor_sink *k)
{
	struct quire_sink *s = (struct quire_sink *)k;
	if (!s)
		return;
	out_abort(s->out);
	free(s->files);
	free(s->crc);
	free(s->planed);
	free(s->entries);
	free(s->batch);
	free(s->packed);
	free(s->index);
	free(s->path);
	arena_release(&s->arena);
	free(s);
}

/* The side files, config.json printed anew when the model is another one than the source's. */
static int gather_files(struct quire_sink *s, const struct checkpoint *src, const struct config *config,
			const struct write_options *o, struct err *e)
{
	size_t n = 0;
	bool have = false;
	while (checkpoint_file_name(src, n))
		n++;
	s->files = calloc(n + 1, sizeof *s->files);
	if (!s->files)
		return err_nomem(e);
	for (size_t i = 0; i <= n; i++) {
		const struct side_file *f = NULL;
		int rc = i < n ? checkpoint_file(src, checkpoint_file_name(src, i), &f, e) : ERR_OK;
		if (rc)
			return rc;
		bool is_config = f && !strcmp(f->name, "config.json");
		struct stored_file *to = &s->files[s->file_count];
		have |= is_config;
		bool same = true;
		if (is_config && config && config_text_describes(f, config, &same, e))
			return ERR_NOMEM;
		if (f && !strcmp(f->name, GGUF_KEYS_FILE)) {
			struct strbuf keys = { 0 };
			rc = gguf_carry(src, config, o && o->same_values, &keys, e);
			char *copy = rc || keys.failed ? NULL : arena_strndup(&s->arena, keys.data, keys.len);
			*to = (struct stored_file){ .name = f->name, .data = copy, .size = keys.len };
			strbuf_release(&keys);
			if (!copy)
				return rc ? rc : err_nomem(e);
		} else if (f && same)
			*to = (struct stored_file){ .name = f->name, .data = f->data, .size = f->size };
		else if ((is_config || !have) && config && (is_config || !f)) {
			struct strbuf text = { 0 };
			rc = config_print(config, f ? f->data : NULL, f ? f->size : 0, &text, e);
			char *copy = rc || text.failed ? NULL : arena_strndup(&s->arena, text.data, text.len);
			*to = (struct stored_file){ .name = "config.json", .data = copy, .size = text.len };
			strbuf_release(&text);
			if (!copy)
				return rc ? rc : err_nomem(e);
		} else
			continue;
		s->file_count++;
	}
	return ERR_OK;
}

static int prepare_items(struct quire_sink *s, struct err *e)
{
	size_t n = s->plan->count ? s->plan->count : 1;
	s->crc = calloc(n, sizeof *s->crc);
	s->planed = calloc(n, sizeof *s->planed);
	if (!s->crc || !s->planed)
		return err_nomem(e);
	for (size_t i = 0; i < s->plan->count; i++) {
		const struct tensor *t = &s->plan->items[i].out;
		if (!strncmp(t->name, "__", 2))
			return err_set(e, ERR_UNSUPPORTED, "tensor %s: names that begin with __ are reserved", t->name);
		s->planed[i] = s->options.compress && planes_of(t->codec) && t->nbytes;
	}
	if (!s->options.compress)
		return ERR_OK;
	s->packed_cap = planes_bound(QUIRE_MAX_PLANES, QUIRE_CHUNK);
	s->batch = malloc((size_t)BATCH * QUIRE_CHUNK);
	s->packed = malloc(BATCH * s->packed_cap);
	return s->batch && s->packed ? ERR_OK : err_nomem(e);
}

int quire_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	struct quire_sink *s = calloc(1, sizeof *s);
	*out = NULL;
	if (!s)
		return err_nomem(e);
	s->sink = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	s->plan = r->plan;
	s->options = *r->options;
	s->path = strdup(path ? path : "");
	int rc = s->path ? gather_files(s, r->src, r->config, r->options, e) : err_nomem(e);
	if (!rc)
		rc = prepare_items(s, e);
	if (!rc)
		rc = reserve(s, e);
	if (!rc && path)
		rc = out_open(path, &s->out, e);
	if (!rc && path)
		rc = put_zeros(s, s->start, e);
	if (!rc && path)
		rc = put_files(s, e);
	if (rc || !path)
		sink_close(&s->sink);
	else
		*out = &s->sink;
	return rc;
}
