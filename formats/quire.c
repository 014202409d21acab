/*
 * Reading .quire. The safetensors parser has checked the outside; here every
 * entry must be named by the manifest (or be padding), and what the manifest
 * says must fit the bytes. Nothing is inflated beyond what its stored bytes
 * could hold.
 */
#include "formats/quire.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "base/thread.h"
#include "base/zip.h"
#include "formats/file.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "formats/side.h"

enum {
	/* Deflate makes at most 258 bytes of 2 bits (zlib's own figure for the limit); more is a lie. */
	MAX_RATIO = 1032,
	MAX_FILES = 1 << 29,         /* all side files together, inflated: ten times the largest tokenizer */
	CRC_PIECE = 4 << 20,
};

struct quire_tensor {
	const uint8_t *stored;
	uint64_t stored_size;
	unsigned planes;
	uint32_t crc;
	atomic_bool good;            /* its bytes have been summed, and are what the manifest says */
};

struct quire_reader {
	struct tensor_source source;
	struct mapped map;
	struct st_file st;
	struct tensor *tensors;
	struct quire_tensor *info;
	struct json *manifest;
	struct map entries;          /* name -> entry */
	bool *used;                  /* per entry */
	uint64_t files_size;         /* of all side files, inflated */
	struct fact *facts;
};

static const struct st_entry *take_entry(struct quire_reader *r, const char *name)
{
	uint64_t i;
	if (!map_get(&r->entries, name, strlen(name), &i) || r->used[i])
		return NULL;
	r->used[i] = true;
	return &r->st.entries[i];
}

static bool parse_crc(const char *text, uint32_t *out)
{
	*out = 0;
	if (!text || strlen(text) != 8)
		return false;
	for (; *text; text++) {
		int d = *text >= '0' && *text <= '9' ? *text - '0' : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 : -1;
		if (d < 0)
			return false;
		*out = *out << 4 | (uint32_t)d;
	}
	return true;
}

static bool read_crc(const struct json *j, uint32_t *out)
{
	return parse_crc(json_string(json_get(j, "crc32")), out);
}

static bool aligned(const struct quire_reader *r, const struct st_entry *entry)
{
	return ((uint64_t)(r->st.data - r->map.data) + entry->begin) % QUIRE_ALIGN == 0;
}

/* A side file as it is stored. */
struct packed_file {
	const char *path, *name;
	const uint8_t *stored;
	uint64_t stored_size, size;
	uint32_t crc;
};

static int inflate_file(const void *from, struct arena *arena, struct side_file *out, struct err *e)
{
	const struct packed_file *f = from;
	char *data = arena_alloc(arena, (size_t)f->size + 1);
	if (!data)
		return err_nomem(e);
	int rc = zip_inflate(f->stored, (size_t)f->stored_size, data, (size_t)f->size, e);
	if (!rc && zip_crc32(0, data, (size_t)f->size) != f->crc)
		rc = err_set(e, ERR_INPUT, "the checksum does not match (damaged?)");
	if (rc)
		return err_prefix(e, "%.600s: file %s", f->path, f->name);
	out->data = data;
	out->size = (size_t)f->size;
	return ERR_OK;
}

/* Lists it; what its bytes are is looked at when somebody asks for them. */
static int read_file(struct quire_reader *r, struct checkpoint *c, const struct json *j, struct err *e)
{
	const char *name = json_string(json_get(j, "name"));
	char entry_name[300];
	int64_t size;
	uint32_t crc;
	if (!name || !side_name_valid(name))
		return err_set(e, ERR_INPUT, "manifest: a file has a bad name");
	snprintf(entry_name, sizeof entry_name, "%s%s", QUIRE_FILE_PREFIX, name);
	if (!json_int(json_get(j, "size"), &size) || size < 0 || size > MAX_FILES || !read_crc(j, &crc))
		return err_set(e, ERR_INPUT, "manifest: file %s: bad size or crc32", name);
	const struct st_entry *entry = take_entry(r, entry_name);
	if (!entry || strcmp(entry->dtype->name, "U8"))
		return err_set(e, ERR_INPUT, "file %s is in the manifest, but there is no U8 tensor %s", name, entry_name);
	uint64_t stored = entry->end - entry->begin;
	if ((uint64_t)size > stored * MAX_RATIO)
		return err_set(e, ERR_INPUT, "file %s: %" PRIu64 " stored bytes cannot hold %" PRId64, name, stored, size);
	if ((uint64_t)size > MAX_FILES - r->files_size)
		return err_set(e, ERR_INPUT, "file %s: the side files come to more than %d MiB", name, MAX_FILES >> 20);
	r->files_size += (uint64_t)size;
	struct packed_file *f = arena_alloc(&c->arena, sizeof *f);
	if (!f)
		return err_nomem(e);
	*f = (struct packed_file){ c->path, name, r->st.data + entry->begin, stored, (uint64_t)size, crc };
	return side_add(c, name, inflate_file, f, e);
}

/* The index of a tensor in planes: its blocks must fill the stored bytes, none larger than raw or smaller than deflate allows. */
static int check_index(const struct quire_tensor *q, uint64_t nbytes, struct err *e)
{
	uint64_t chunks = quire_chunks(nbytes), index = chunks * q->planes * 4, at = index;
	if (index > q->stored_size)
		return err_set(e, ERR_INPUT, "%" PRIu64 " stored bytes cannot hold the index of %" PRIu64 " chunks", q->stored_size, chunks);
	for (uint64_t i = 0; i < chunks * q->planes; i++) {
		uint64_t left = nbytes - i / q->planes * QUIRE_CHUNK, words = (left < QUIRE_CHUNK ? left : QUIRE_CHUNK) / q->planes;
		uint64_t size = load_u32(q->stored + i * 4);
		if (size > words || size * MAX_RATIO < words)
			return err_set(e, ERR_INPUT, "block %" PRIu64 " of %" PRIu64 " bytes cannot hold %" PRIu64, i, size, words);
		at += size;
	}
	return at == q->stored_size ? ERR_OK
				    : err_set(e, ERR_INPUT, "blocks add up to %" PRIu64 " bytes, %" PRIu64 " are stored", at, q->stored_size);
}

static int check_stored(const struct st_entry *entry, const struct tensor *t, unsigned planes, struct err *e)
{
	const struct codec *c = t->codec;
	const char *dtype = planes || !c->safetensors ? "U8" : c->safetensors;
	if (strcmp(entry->dtype->name, dtype))
		return err_set(e, ERR_INPUT, "its dtype is %s, %s expected", entry->dtype->name, dtype);
	bool same = planes ? entry->ndim == 1
		    : c->safetensors ? entry->ndim == t->ndim && !memcmp(entry->dim, t->dim, t->ndim * sizeof *t->dim)
				     : entry->ndim == 2 && entry->dim[0] == tensor_rows(t) &&
					       entry->dim[1] == codec_row_bytes(c, tensor_cols(t));
	if (!same)
		return err_set(e, ERR_INPUT, "the shape in the manifest does not fit the one in the header");
	if (!planes && entry->end - entry->begin != t->nbytes)
		return err_set(e, ERR_INPUT, "%" PRIu64 " bytes are stored, %" PRIu64 " expected", entry->end - entry->begin, t->nbytes);
	return ERR_OK;
}

static int read_shape(const struct json *shape, struct tensor *t, struct err *e)
{
	int64_t dim;
	if (json_kind(shape) != JSON_ARRAY || json_count(shape) > TENSOR_MAX_DIMS)
		return err_set(e, ERR_INPUT, "bad shape in the manifest");
	for (const struct json *d = json_first(shape); d; d = json_next(d)) {
		if (!json_int(d, &dim) || dim < 0)
			return err_set(e, ERR_INPUT, "bad shape in the manifest");
		t->dim[t->ndim++] = (uint64_t)dim;
	}
	return ERR_OK;
}

static int read_tensor(struct quire_reader *r, const struct json *j, struct err *e)
{
	struct tensor *t = &r->tensors[r->source.count];
	struct quire_tensor *q = &r->info[r->source.count];
	const char *codec = json_string(json_get(j, "codec"));
	int64_t planes = 0;
	t->name = json_string(json_get(j, "name"));
	if (!t->name || !*t->name)
		return err_set(e, ERR_INPUT, "manifest: a tensor has no name");
	t->codec = codec ? codec_find(codec) : NULL;
	if (!t->codec)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: codec '%.60s' is not known", t->name, codec ? codec : "");
	const struct json *p = json_get(j, "planes");
	int rc = ERR_OK;
	if (!read_crc(j, &q->crc) || (p && (!json_int(p, &planes) || planes != planes_of(t->codec) || !planes)))
		rc = err_set(e, ERR_INPUT, "bad crc32 or planes in the manifest");
	if (!rc)
		rc = read_shape(json_get(j, "shape"), t, e);
	if (!rc)
		rc = tensor_measure(t, e);
	const struct st_entry *entry = rc ? NULL : take_entry(r, t->name);
	if (!rc && !entry)
		rc = err_set(e, ERR_INPUT, "in the manifest, but not in the header (or twice in the manifest)");
	if (!rc)
		rc = check_stored(entry, t, (unsigned)planes, e);
	if (!rc && !aligned(r, entry))
		rc = err_set(e, ERR_INPUT, "does not begin at a multiple of %d bytes", (int)QUIRE_ALIGN);
	if (!rc) {
		q->stored = r->st.data + entry->begin;
		q->stored_size = entry->end - entry->begin;
		q->planes = (unsigned)planes;
		rc = planes ? check_index(q, t->nbytes, e) : ERR_OK;
	}
	if (rc)
		return err_prefix(e, "tensor %.200s", t->name);
	r->source.count++;
	return ERR_OK;
}

static int read_lists(struct quire_reader *r, struct checkpoint *c, struct err *e)
{
	const struct json *files = json_get(r->manifest, "files"), *tensors = json_get(r->manifest, "tensors");
	int rc = ERR_OK;
	if (json_kind(files) != JSON_ARRAY || json_kind(tensors) != JSON_ARRAY)
		return err_set(e, ERR_INPUT, "manifest: files and tensors must be lists");
	size_t nt = json_count(tensors);
	r->tensors = arena_array(&c->arena, nt + 1, sizeof *r->tensors);
	r->info = arena_array(&c->arena, nt + 1, sizeof *r->info);
	if (!r->tensors || !r->info)
		return err_nomem(e);
	r->source.tensors = r->tensors;
	for (const struct json *j = json_first(files); j && !rc; j = json_next(j))
		rc = read_file(r, c, j, e);
	for (const struct json *j = json_first(tensors); j && !rc; j = json_next(j))
		rc = read_tensor(r, j, e);
	size_t n = strlen(QUIRE_PAD_PREFIX);
	for (size_t i = 0; i < r->st.count && !rc; i++) {
		const struct st_entry *entry = &r->st.entries[i];
		bool pad = !strncmp(entry->name, QUIRE_PAD_PREFIX, n) && entry->end - entry->begin < QUIRE_ALIGN;
		if (!r->used[i] && !pad)
			rc = err_set(e, ERR_INPUT, "tensor %.200s is not in the manifest", entry->name);
	}
	return rc;
}

static int add_fact(struct quire_reader *r, struct checkpoint *c, const char *prefix, const char *key, const char *value)
{
	size_t room = strlen(prefix) + strlen(key) + 1;
	char *name = arena_alloc(&c->arena, room);
	if (!name)
		return ERR_NOMEM;
	snprintf(name, room, "%s%s", prefix, key);
	r->facts[c->fact_count++] = (struct fact){ name, value };
	return ERR_OK;
}

static int read_facts(struct quire_reader *r, struct checkpoint *c, struct err *e)
{
	static const struct { const char *key, *prefix; } groups[] = { { "facts", "" }, { "source", QUIRE_SOURCE_FACT } };
	const char *tool = json_string(json_get(r->manifest, "tool")), *recipe = json_string(json_get(r->manifest, "recipe"));
	size_t n = 2 + json_count(json_get(r->manifest, "facts")) + json_count(json_get(r->manifest, "source"));
	int rc = ERR_OK;
	r->facts = arena_array(&c->arena, n, sizeof *r->facts);
	if (!r->facts)
		return err_nomem(e);
	c->facts = r->facts;
	if (!tool || !recipe)
		return err_set(e, ERR_INPUT, "manifest: tool and recipe are missing");
	rc = add_fact(r, c, "", "tool", tool);
	if (!rc)
		rc = add_fact(r, c, "", "recipe", recipe);
	for (size_t g = 0; g < 2 && !rc; g++) {
		const struct json *group = json_get(r->manifest, groups[g].key);
		if (json_kind(group) != JSON_OBJECT)
			return err_set(e, ERR_INPUT, "manifest: %s must be an object", groups[g].key);
		for (const struct json *j = json_first(group); j && !rc; j = json_next(j)) {
			if (!json_string(j))
				return err_set(e, ERR_INPUT, "manifest: %s must hold strings", groups[g].key);
			rc = add_fact(r, c, groups[g].prefix, json_key(j), json_string(j));
		}
	}
	return rc ? err_nomem(e) : ERR_OK;
}

struct inflate_job {
	const struct quire_tensor *q;
	const uint64_t *at;          /* where each chunk's blocks begin */
	uint8_t *dst;
	uint64_t nbytes;
	atomic_int rc;
};

static void inflate_chunk(void *arg, size_t i, int worker)
{
	struct inflate_job *j = arg;
	uint32_t sizes[QUIRE_MAX_PLANES];
	uint64_t left = j->nbytes - i * QUIRE_CHUNK;
	(void)worker;
	for (unsigned p = 0; p < j->q->planes; p++)
		sizes[p] = load_u32(j->q->stored + (i * j->q->planes + p) * 4);
	struct err e;
	int rc = planes_unpack(j->q->planes, j->q->stored + j->at[i], sizes, j->dst + i * QUIRE_CHUNK,
			       left < QUIRE_CHUNK ? (size_t)left : QUIRE_CHUNK, &e);
	if (rc)
		atomic_store(&j->rc, rc);
}

static int inflate_tensor(const struct quire_tensor *q, const struct tensor *t, uint8_t *dst, struct err *e)
{
	uint64_t chunks = quire_chunks(t->nbytes), at = chunks * q->planes * 4;
	struct inflate_job j = { .q = q, .dst = dst, .nbytes = t->nbytes };
	uint64_t *starts = malloc((size_t)(chunks + 1) * sizeof *starts);
	if (!starts)
		return err_nomem(e);
	for (uint64_t i = 0; i < chunks; i++) {
		starts[i] = at;
		for (unsigned p = 0; p < q->planes; p++)
			at += load_u32(q->stored + (i * q->planes + p) * 4);
	}
	j.at = starts;
	/* a file that changed under the map since it was opened must not lead outside it */
	atomic_init(&j.rc, at == q->stored_size ? ERR_OK : ERR_INPUT);
	if (!atomic_load(&j.rc))
		thread_for((size_t)chunks, inflate_chunk, &j);
	free(starts);
	int rc = atomic_load(&j.rc);
	return rc == ERR_NOMEM ? err_nomem(e) : rc ? err_set(e, ERR_INPUT, "tensor %.200s: its deflated data is damaged", t->name) : ERR_OK;
}

/*
 * The first time that a tensor is asked for its bytes are summed, so that damage is found before anything is made of them:
 * the disk is read then anyhow. Pieces are let go, so that a large file does not fill memory.
 */
static int sum_tensor(struct quire_reader *r, size_t i, const struct tensor_bytes *b, struct err *e)
{
	struct quire_tensor *q = &r->info[i];
	uint32_t crc = 0;
	for (size_t at = 0, n; at < b->size; at += n) {
		n = b->size - at < CRC_PIECE ? b->size - at : CRC_PIECE;
		crc = zip_crc32(crc, b->data + at, n);
		if (!b->owned && b->size > CRC_PIECE)
			mapped_drop(&r->map, b->data + at, n);
	}
	if (crc != q->crc)
		return err_set(e, ERR_INPUT, "tensor %.200s: the checksum does not match (crc32 %08" PRIx32 ", %08" PRIx32 " expected)",
			       r->tensors[i].name, crc, q->crc);
	atomic_store(&q->good, true);
	return ERR_OK;
}

static int quire_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct quire_reader *r = (struct quire_reader *)s;
	const struct quire_tensor *q = &r->info[i];
	const struct tensor *t = &r->tensors[i];
	int rc = ERR_OK;
	*out = (struct tensor_bytes){ .data = q->stored, .size = (size_t)t->nbytes };
	if (q->planes) {
		uint8_t *dst = malloc(t->nbytes ? (size_t)t->nbytes : 1);
		rc = dst ? inflate_tensor(q, t, dst, e) : err_nomem(e);
		out->data = out->owned = dst;
		mapped_drop(&r->map, q->stored, (size_t)q->stored_size);
	}
	if (!rc && !atomic_load(&q->good))
		rc = sum_tensor(r, i, out, e);
	if (rc)
		tensor_bytes_release(out);
	return rc;
}

static void quire_drop(struct tensor_source *s, const void *data, size_t size)
{
	struct quire_reader *r = (struct quire_reader *)s;
	mapped_drop(&r->map, data, size);
}

static bool quire_summed(struct tensor_source *s, size_t i, uint32_t *crc)
{
	struct quire_tensor *q = &((struct quire_reader *)s)->info[i];
	*crc = q->crc;
	return atomic_load(&q->good);
}

static int read_all(struct quire_reader *r, struct checkpoint *c, struct err *e)
{
	const char *version = st_meta(&r->st, "quire"), *manifest = st_meta(&r->st, "quire.manifest");
	int64_t number;
	if (!version || !manifest)
		return err_set(e, ERR_INPUT, "a safetensors file, but without a quire manifest");
	if (strcmp(version, "1"))
		return err_set(e, ERR_UNSUPPORTED, "format version %.20s; this program reads version %d", version, (int)QUIRE_VERSION_NOW);
	/* files of older versions have none */
	const char *sum = st_meta(&r->st, "quire.crc32");
	uint32_t crc;
	if (sum && (!parse_crc(sum, &crc) || crc != zip_crc32(0, manifest, strlen(manifest))))
		return err_set(e, ERR_INPUT, "manifest: its checksum does not match (damaged?)");
	r->manifest = json_parse(manifest, strlen(manifest), e);
	if (!r->manifest)
		return err_prefix(e, "manifest");
	if (!json_int(json_get(r->manifest, "version"), &number) || number != QUIRE_VERSION_NOW)
		return err_set(e, ERR_INPUT, "manifest: the version is not the header's");
	r->used = calloc(r->st.count + 1, sizeof *r->used);
	if (!r->used)
		return err_nomem(e);
	for (size_t i = 0; i < r->st.count; i++)
		if (map_add(&r->entries, r->st.entries[i].name, strlen(r->st.entries[i].name), i) < 0)
			return err_nomem(e);
	int rc = read_facts(r, c, e);
	if (!rc)
		rc = read_lists(r, c, e);
	return rc ? rc : source_index(&r->source, e);
}

static void quire_close(struct checkpoint *c)
{
	struct quire_reader *r = c->private;
	if (!r)
		return;
	c->private = NULL;
	map_release(&r->source.index);
	map_release(&r->entries);
	free(r->used);
	json_free(r->manifest);
	st_release(&r->st);
	if (r->map.path)
		mapped_close(&r->map);
	free(r);
}

static int quire_open(const char *path, struct checkpoint *c, struct err *e)
{
	struct quire_reader *r = calloc(1, sizeof *r);
	if (!r)
		return err_nomem(e);
	c->private = r;
	r->source.get = quire_get;
	r->source.drop = quire_drop;
	r->source.summed = quire_summed;
	c->source = &r->source;
	int rc = mapped_open(&r->map, path, e);
	if (rc)
		return rc;
	rc = st_parse(&r->st, r->map.data, r->map.size, e);
	if (!rc)
		rc = read_all(r, c, e);
	return rc ? err_prefix(e, "%.600s", path) : ERR_OK;
}

/* What was read before has been summed then. */
static int check_tensor(struct quire_reader *r, size_t i, struct err *e)
{
	struct tensor_bytes b;
	if (atomic_load(&r->info[i].good))
		return ERR_OK;
	int rc = quire_get(&r->source, i, &b, e);
	if (!rc)
		tensor_bytes_release(&b);
	return rc;
}

static int quire_check(struct checkpoint *c, const struct progress *progress, struct err *e)
{
	struct quire_reader *r = c->private;
	uint64_t total = 0, done = 0;
	for (size_t i = 0; i < r->source.count; i++)
		total += r->tensors[i].nbytes;
	for (size_t i = 0; i < r->source.count; i++) {
		int rc = check_tensor(r, i, e);
		if (rc)
			return err_prefix(e, "%.600s", c->path);
		done += r->tensors[i].nbytes;
		if (!progress_tell(progress, done, total))
			return err_set(e, ERR_IO, "interrupted");
	}
	int rc = checkpoint_files(c, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < r->st.count; i++) {
		const struct st_entry *entry = &r->st.entries[i];
		for (uint64_t at = entry->begin; !r->used[i] && at < entry->end; at++)
			if (r->st.data[at])
				return err_set(e, ERR_INPUT, "%.600s: padding %.100s is not zero", c->path, entry->name);
	}
	return ERR_OK;
}

static int quire_probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	static const char start[] = "{\"__metadata__\":{\"quire\":\"";
	size_t len = strlen(path);
	if (is_dir)
		return 0;
	if (n >= 8 + sizeof start - 1 && !memcmp(head + 8, start, sizeof start - 1))
		return 3;   /* surer than safetensors, which it also is */
	return len > 6 && !strcmp(path + len - 6, ".quire");
}

static bool quire_holds(const struct codec *c)
{
	(void)c;
	return true;
}

const struct format format_quire = {
	.name = "quire",
	.summary = "one file for a device: tensors in any codec, side files, checksums; also a safetensors file",
	.suffix = ".quire",
	.probe = quire_probe,
	.open = quire_open,
	.close = quire_close,
	.check = quire_check,
	.holds = quire_holds,
	.deflates = true,
	.keeps_origin = true,
	.create = quire_create,
};
