/*
 * The Hugging Face folder (config.json, tokenizer files, model.safetensors or
 * shards named by model.safetensors.index.json) and the single safetensors
 * file, whose side files are those that lie beside it.
 */
#include "formats/hf.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "codec/codec.h"
#include "formats/file.h"
#include "formats/packed.h"
#include "formats/packing.h"
#include "formats/safetensors.h"
#include "formats/side.h"

#define MIB ((size_t)1 << 20)
const struct side_row side_rows[] = {
	{ "config.json", 16 * MIB },
	{ "generation_config.json", 16 * MIB },
	{ "tokenizer.json", 512 * MIB },
	{ "tokenizer_config.json", 64 * MIB },
	{ "special_tokens_map.json", 16 * MIB },
	{ "tokenizer.model", 256 * MIB },
	{ "added_tokens.json", 64 * MIB },
	{ "chat_template.jinja", 16 * MIB },
	{ "chat_template.json", 16 * MIB },
};
const unsigned side_row_count = sizeof side_rows / sizeof *side_rows;

static const char SINGLE[] = "model.safetensors", INDEX[] = "model.safetensors.index.json";

struct shard {
	char *path;
	const char *name;     /* as in messages and in the index */
	struct mapped map;
	struct st_file st;
};

struct hf {
	struct tensor_source base; /* first: the source is cast back to this */
	struct shard *shards;
	size_t shard_count;
	const struct mapped **maps; /* [shard_count], by place */
	const uint8_t **views;     /* [count] where each tensor's bytes begin */
};

static int hf_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct hf *h = (const struct hf *)s;
	if (i >= s->count)
		return err_set(e, ERR_BUG, "tensor %zu of %zu", i, s->count);
	*out = (struct tensor_bytes){ .data = h->views[i], .size = (size_t)s->tensors[i].nbytes };
	return ERR_OK;
}

static void hf_drop(struct tensor_source *s, const void *data, size_t size)
{
	const struct hf *h = (const struct hf *)s;
	mapped_drop_in(h->maps, h->shard_count, data, size);
}

static void hf_close(struct checkpoint *c)
{
	struct hf *h = c->private;
	for (size_t i = 0; h && i < h->shard_count; i++) {
		st_release(&h->shards[i].st);
		mapped_close(&h->shards[i].map);
		free(h->shards[i].path);
	}
	if (h && c->source && c->source != &h->base)
		map_release(&c->source->index);
	if (h)
		map_release(&h->base.index);
	c->private = NULL;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard lies in the folder itself: a path from an index must not reach elsewhere. */
static bool plain_name(const char *name)
{
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (const char *p = name; *p; p++)
		if (*p == '/' || *p == '\\' || (unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	return true;
}

bool side_name_valid(const char *name)
{
	size_t folder = strlen(SIDE_TEMPLATES), n = strlen(name);
	if (strchr(name, '/')) {
		if (strncmp(name, SIDE_TEMPLATES, folder) || n < folder + 7 || strcmp(name + n - 6, ".jinja"))
			return false;
		name += folder;
	}
	return plain_name(name) && *name != '.' && n <= 200;
}

struct beside {
	const char *path;
	size_t limit;
};

static int read_side(const void *from, struct arena *arena, struct side_file *out, struct err *e)
{
	const struct beside *b = from;
	struct strbuf text = { 0 };
	int rc = file_read(b->path, &text, b->limit, e);
	if (!rc && !(out->data = arena_strndup(arena, text.data ? text.data : "", text.len)))
		rc = err_nomem(e);
	out->size = text.len;
	strbuf_release(&text);
	return rc;
}

static int list_side(struct checkpoint *c, const char *dir, const char *name, size_t limit, struct err *e)
{
	char *path = path_join(dir, name);
	int rc = path ? ERR_OK : err_nomem(e);
	if (!rc && file_exists(path) && !(rc = file_check(path, limit, e))) {
		struct beside *b = arena_alloc(&c->arena, sizeof *b);
		if (b)
			*b = (struct beside){ arena_strdup(&c->arena, path), limit };
		rc = b && b->path ? side_add(c, name, read_side, b, e) : err_nomem(e);
	}
	free(path);
	return rc;
}

/* Names of chat templates, sorted, so that what is written does not depend on the file system. */
static int template_names(struct checkpoint *c, const char *dir, const char **names, size_t room, size_t *count, struct err *e)
{
	char *path = path_join(dir, SIDE_TEMPLATES), name[300];
	DIR *d = path ? opendir(path) : NULL;
	int rc = path ? ERR_OK : err_nomem(e);
	*count = 0;
	for (struct dirent *x; d && !rc && (x = readdir(d));) {
		snprintf(name, sizeof name, "%s%s", SIDE_TEMPLATES, x->d_name);
		if (!side_name_valid(name))
			continue;
		if (*count == room)
			rc = err_set(e, ERR_UNSUPPORTED, "%.400s: more than %zu chat templates", path, room);
		else if (!(names[(*count)++] = arena_strdup(&c->arena, name)))
			rc = err_nomem(e);
	}
	if (d)
		closedir(d);
	free(path);
	if (!rc)
		qsort(names, *count, sizeof *names, by_text);
	return rc;
}

/* Those side files that exist in the folder. */
static int side_files(struct checkpoint *c, const char *dir, struct err *e)
{
	enum { TEMPLATES = 100 };
	const char *names[TEMPLATES];
	size_t count;
	int rc = template_names(c, dir, names, TEMPLATES, &count, e);
	for (unsigned i = 0; i < side_row_count && !rc; i++)
		rc = list_side(c, dir, side_rows[i].name, side_rows[i].limit, e);
	for (size_t i = 0; i < count && !rc; i++)
		rc = list_side(c, dir, names[i], 16 * MIB, e);
	return rc;
}

static int shard_open(struct shard *s, struct err *e)
{
	int rc = mapped_open(&s->map, s->path, e);
	if (!rc && st_parse(&s->st, s->map.data, s->map.size, e))
		rc = err_prefix(e, "%.400s", s->path);
	return rc;
}

/* Joins the shards' entries into one list of tensors. */
static int gather(struct checkpoint *c, struct hf *h, struct err *e)
{
	size_t count = 0, at = 0;
	for (size_t i = 0; i < h->shard_count; i++)
		count += h->shards[i].st.count;
	struct tensor *tensors = arena_array(&c->arena, count + 1, sizeof *tensors);
	h->views = arena_array(&c->arena, count + 1, sizeof *h->views);
	h->maps = arena_array(&c->arena, h->shard_count, sizeof *h->maps);
	if (!tensors || !h->views || !h->maps)
		return err_nomem(e);
	for (size_t i = 0; i < h->shard_count; i++)
		h->maps[i] = &h->shards[i].map;
	mapped_sort(h->maps, h->shard_count);
	for (size_t i = 0; i < h->shard_count; i++) {
		const struct shard *s = &h->shards[i];
		for (size_t j = 0; j < s->st.count; j++, at++) {
			if (st_tensor(&s->st.entries[j], &tensors[at], e))
				return err_prefix(e, "%.400s", s->path);
			h->views[at] = s->st.data + s->st.entries[j].begin;
		}
	}
	h->base = (struct tensor_source){ .tensors = tensors, .count = count, .get = hf_get, .drop = hf_drop };
	c->source = &h->base;
	return source_index(&h->base, e) ? err_prefix(e, "%.400s", c->path) : ERR_OK;
}

/* What the container says of itself: the metadata of the first shard and, of several, their number. */
static int facts(struct checkpoint *c, const struct hf *h, struct err *e)
{
	const struct st_file *st = &h->shards[0].st;
	struct fact *f = arena_array(&c->arena, st->meta_count + 1, sizeof *f);
	char text[32];
	if (!f)
		return err_nomem(e);
	c->facts = f;
	if (st->meta_count)
		memcpy(f, st->meta, st->meta_count * sizeof *f);
	c->fact_count = st->meta_count;
	if (h->shard_count > 1) {
		snprintf(text, sizeof text, "%zu", h->shard_count);
		f[c->fact_count].key = "shards";
		f[c->fact_count].value = arena_strdup(&c->arena, text);
		if (!f[c->fact_count++].value)
			return err_nomem(e);
	}
	return ERR_OK;
}

static struct hf *hf_new(struct checkpoint *c, size_t shards, struct err *e)
{
	struct hf *h = arena_alloc(&c->arena, sizeof *h);
	if (h)
		h->shards = arena_array(&c->arena, shards, sizeof *h->shards);
	if (!h || !h->shards) {
		err_nomem(e);
		return NULL;
	}
	c->private = h;
	return h;
}

/* One file: path itself or SINGLE in the folder path. */
static int open_single(const char *path, const char *name, struct checkpoint *c, struct err *e)
{
	struct hf *h = hf_new(c, 1, e);
	if (!h)
		return ERR_NOMEM;
	h->shards[0].path = name ? path_join(path, name) : strdup(path);
	h->shards[0].name = name;
	h->shard_count = 1;
	int rc = h->shards[0].path ? shard_open(&h->shards[0], e) : err_nomem(e);
	if (!rc)
		rc = gather(c, h, e);
	return rc ? rc : facts(c, h, e);
}

/* The distinct file names of a weight map, sorted, into the arena. */
static int shard_names(struct checkpoint *c, const struct json *weights, const char ***out, size_t *count, struct err *e)
{
	const char **names = arena_array(&c->arena, json_count(weights), sizeof *names);
	struct map seen = { 0 };
	int rc = names ? ERR_OK : err_nomem(e);
	*count = 0;
	for (const struct json *j = json_first(weights); j && !rc; j = json_next(j)) {
		const char *file = json_string(j);
		if (!file)
			rc = err_set(e, ERR_INPUT, "the file of tensor '%.200s' is not a string", json_key(j));
		else if (!plain_name(file))
			rc = err_set(e, ERR_INPUT, "tensor '%.200s': '%.200s' is not a plain file name", json_key(j), file);
		else {
			int fresh = map_add(&seen, file, strlen(file), 0);
			if (fresh > 0)
				names[(*count)++] = file;
			rc = fresh < 0 ? err_nomem(e) : ERR_OK;
		}
	}
	map_release(&seen);
	if (!rc)
		qsort(names, *count, sizeof *names, by_text);
	for (size_t i = 0; i < *count && !rc; i++)
		if (!(names[i] = arena_strdup(&c->arena, names[i])))
			rc = err_nomem(e);
	*out = names;
	return rc;
}

/* Every tensor of a shard must be one that the index places there. */
static int check_shard(const struct shard *s, const struct map *index, struct err *e)
{
	for (size_t i = 0; i < s->st.count; i++) {
		const char *name = s->st.entries[i].name;
		uint64_t value;
		if (!map_get(index, name, strlen(name), &value))
			return err_set(e, ERR_INPUT, "%.400s: tensor '%.200s' is not in the index", s->path, name);
		const char *file = (const char *)(uintptr_t)value;
		if (strcmp(file, s->name))
			return err_set(e, ERR_INPUT, "%.400s: tensor '%.200s' belongs into %.100s, says the index", s->path, name, file);
	}
	return ERR_OK;
}

/* ... and every tensor that the index places in a shard must be there. */
static int check_index(const struct hf *h, const struct json *weights, struct err *e)
{
	struct map have = { 0 };
	int rc = ERR_OK;
	for (size_t i = 0; i < h->shard_count && !rc; i++)
		for (size_t j = 0; j < h->shards[i].st.count && !rc; j++) {
			const char *name = h->shards[i].st.entries[j].name;
			if (map_add(&have, name, strlen(name), i) < 0)
				rc = err_nomem(e);
		}
	for (const struct json *j = json_first(weights); j && !rc; j = json_next(j))
		if (!map_get(&have, json_key(j), strlen(json_key(j)), NULL))
			rc = err_set(e, ERR_INPUT, "tensor '%.200s' is not in its shard %.200s", json_key(j), json_string(j));
	map_release(&have);
	return rc;
}

static int open_shard(const char *dir, const char *path, const char *name, const struct map *index, struct hf *h,
		      struct err *e)
{
	struct shard *s = &h->shards[h->shard_count++];
	s->name = name;
	s->path = path_join(dir, name);
	if (!s->path)
		return err_nomem(e);
	if (!file_exists(s->path))
		return err_set(e, ERR_INPUT, "%.400s: shard '%.200s' is missing", path, name);
	int rc = shard_open(s, e);
	return rc ? rc : check_shard(s, index, e);
}

/* path: of the index, for messages */
static int open_shards(const char *dir, const char *path, const struct json *weights, struct checkpoint *c, struct err *e)
{
	const char **names;
	size_t count;
	if (shard_names(c, weights, &names, &count, e))
		return err_prefix(e, "%.400s", path);
	struct hf *h = hf_new(c, count, e);
	if (!h)
		return ERR_NOMEM;
	struct map index = { 0 };
	int rc = ERR_OK;
	for (const struct json *j = json_first(weights); j && !rc; j = json_next(j))
		if (map_add(&index, json_key(j), strlen(json_key(j)), (uint64_t)(uintptr_t)json_string(j)) < 0)
			rc = err_nomem(e);
	for (size_t i = 0; i < count && !rc; i++)
		rc = open_shard(dir, path, names[i], &index, h, e);
	map_release(&index);
	if (!rc && check_index(h, weights, e))
		rc = err_prefix(e, "%.400s", path);
	return rc;
}

static int open_index(const char *dir, const char *path, struct checkpoint *c, struct err *e)
{
	struct strbuf text = { 0 };
	int rc = file_read(path, &text, 256 * MIB, e);
	struct json *root = rc ? NULL : json_parse(text.data ? text.data : "", text.len, e);
	const struct json *weights = json_get(root, "weight_map");
	if (!rc && !root)
		rc = err_prefix(e, "%.400s", path);
	else if (!rc && (json_kind(weights) != JSON_OBJECT || !json_count(weights)))
		rc = err_set(e, ERR_INPUT, "%.400s: has no object 'weight_map' with tensors", path);
	else if (!rc)
		rc = open_shards(dir, path, weights, c, e);
	json_free(root);
	strbuf_release(&text);
	return rc;
}

static int hf_open(const char *path, struct checkpoint *c, struct err *e)
{
	char *single = path_join(path, SINGLE), *index = path_join(path, INDEX), *torch = path_join(path, "pytorch_model.bin");
	int rc;
	if (!single || !index || !torch)
		rc = err_nomem(e);
	else if (file_exists(single))
		rc = open_single(path, SINGLE, c, e);
	else if (file_exists(index)) {
		rc = open_index(path, index, c, e);
		if (!rc)
			rc = gather(c, c->private, e);
		if (!rc)
			rc = facts(c, c->private, e);
	} else if (file_exists(torch))
		rc = err_set(e, ERR_UNSUPPORTED, "%.600s: has only pytorch_model.bin; save it as safetensors first", path);
	else
		rc = err_set(e, ERR_INPUT, "%.600s: the folder has neither %s nor %s", path, SINGLE, INDEX);
	if (!rc)
		rc = side_files(c, path, e);
	if (!rc)
		rc = packed_attach(c, e);
	free(single);
	free(index);
	free(torch);
	return rc;
}

static int st_open(const char *path, struct checkpoint *c, struct err *e)
{
	int rc = open_single(path, NULL, c, e);
	char *dir = rc ? NULL : path_dirname(path);
	if (!rc)
		rc = dir ? side_files(c, dir, e) : err_nomem(e);
	if (!rc)
		rc = packed_attach(c, e);
	free(dir);
	return rc;
}

static int hf_probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	(void)path;
	(void)head;
	(void)n;
	return is_dir ? 2 : 0; /* any folder, so that the message says what it lacks */
}

static int st_probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	size_t len = strlen(path);
	if (is_dir)
		return 0;
	if (n > 8 && head[8] == '{' && load_u64(head) <= ST_HEADER_MAX)
		return 2;
	return len > 12 && strcmp(path + len - 12, ".safetensors") == 0;
}

static bool st_holds(const struct codec *c)
{
	return c->safetensors != NULL;
}

static bool hf_holds(const struct codec *c)
{
	return st_holds(c) || packing_holds(&packing_ct, c);
}

/* Folders that other programs' layouts make: written only, since the one above reads them by what they say. */
static int no_probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	(void)path;
	(void)is_dir;
	(void)head;
	(void)n;
	return 0;
}

#define FOLDER(NAME) \
	static bool NAME##_holds(const struct codec *c) \
	{ \
		return st_holds(c) || packing_holds(&packing_##NAME, c); \
	} \
	static int NAME##_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e) \
	{ \
		return hf_create(&packing_##NAME, path, r, out, e); \
	}
FOLDER(gptq)
FOLDER(awq)
FOLDER(mlx)

static int hf_create_ct(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	return hf_create(&packing_ct, path, r, out, e);
}

extern const struct format format_hf, format_safetensors, format_gptq, format_awq, format_mlx;
const struct format format_gptq = {
	.name = "gptq",
	.summary = "Hugging Face folder with GPTQ's weights",
	.loaded_by = "GPTQModel, vLLM",
	.probe = no_probe,
	.holds = gptq_holds,
	.one_float = true,
	.f16_scales = true,
	.create = gptq_create,
};
const struct format format_awq = {
	.name = "awq",
	.summary = "Hugging Face folder with AWQ's weights (gemm)",
	.loaded_by = "AutoAWQ, vLLM",
	.probe = no_probe,
	.holds = awq_holds,
	.one_float = true,
	.f16_scales = true,
	.create = awq_create,
};
const struct format format_mlx = {
	.name = "mlx",
	.summary = "Hugging Face folder with MLX's weights (affine)",
	.loaded_by = "mlx-lm",
	.probe = no_probe,
	.holds = mlx_holds,
	.one_float = true,
	.ends = true,
	.create = mlx_create,
};
const struct format format_hf = {
	.name = "hf",
	.summary = "Hugging Face folder: config, tokenizer and safetensors shards",
	.loaded_by = "transformers, vLLM",
	.probe = hf_probe,
	.open = hf_open,
	.close = hf_close,
	.holds = hf_holds,
	.one_float = true,
	.create = hf_create_ct,
};
const struct format format_safetensors = {
	.name = "safetensors",
	.summary = "one safetensors file; config and tokenizer beside it are read, but not written",
	.suffix = ".safetensors",
	.probe = st_probe,
	.open = st_open,
	.close = hf_close,
	.holds = st_holds,
	.create = st_create,
};
