/*
 * Writes safetensors: a Hugging Face folder, sharded when large, or one file.
 * The layout is the reference writer's (dtype descending, then name), whatever
 * order the plan streams in: all offsets come from the plan, and each tensor's
 * bytes go to their place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "codec/codec.h"
#include "formats/config_text.h"
#include "formats/file.h"
#include "formats/gguf_carry.h"
#include "formats/hf.h"
#include "formats/packing.h"
#include "formats/parts.h"
#include "formats/safetensors.h"

/* What huggingface_hub cuts at by default, so that shards have the size people expect. */
static const uint64_t SHARD_SIZE = 5000000000;

struct shard_plan {
	size_t first, count;         /* of the plan's items */
	struct st_entry *entries;    /* [count] in file order */
	struct strbuf header;
	char name[64];
};

struct st_sink {
	struct tensor_sink base;     /* first: the sink is cast back to this */
	const struct plan *plan;
	struct out_dir *dir;         /* NULL: one file */
	struct out_file *file;       /* of the current shard, or NULL */
	struct shard_plan *shards;
	size_t shard_count, shard;   /* the current one */
	uint64_t *places;            /* [items] where in its file an item begins */
	size_t next;                 /* the item that comes next */
	uint64_t at, left;           /* of the current item */
	bool sealed;
	struct arena arena;
	const struct packing *packing; /* of weights in codes; NULL: there are none */
	struct plan parts;           /* of those: what is really written */
};

static int bug(struct err *e, const char *what)
{
	return err_set(e, ERR_BUG, "safetensors writer: %s", what);
}

/* Cuts the plan into shards, in plan order; a tensor larger than the limit has a shard to itself. */
static int cut(struct st_sink *k, uint64_t limit, struct err *e)
{
	const struct plan *p = k->plan;
	k->shards = arena_array(&k->arena, p->count + 1, sizeof *k->shards);
	if (!k->shards)
		return err_nomem(e);
	uint64_t bytes = 0;
	k->shard_count = 1;
	for (size_t i = 0; i < p->count; i++) {
		uint64_t n = p->items[i].out.nbytes;
		struct shard_plan *s = &k->shards[k->shard_count - 1];
		if (s->count && limit && (n > limit || bytes > limit - n)) {
			s = &k->shards[k->shard_count++];
			s->first = i;
			bytes = 0;
		}
		s->count++;
		bytes += n;
	}
	for (size_t i = 0; i < k->shard_count; i++)
		if (k->shard_count == 1)
			strcpy(k->shards[i].name, "model.safetensors");
		else
			snprintf(k->shards[i].name, sizeof k->shards[i].name, "model-%05zu-of-%05zu.safetensors", i + 1,
				 k->shard_count);
	return ERR_OK;
}

static int entry_of(const struct tensor *t, struct st_entry *out, struct err *e)
{
	const struct st_dtype *dtype = t->codec->safetensors ? st_dtype_find(t->codec->safetensors) : NULL;
	if (!dtype)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%.200s': %s cannot be stored in safetensors (.quire and .gguf can)",
			       t->name, t->codec->name);
	*out = (struct st_entry){ .name = t->name, .dtype = dtype, .ndim = t->ndim };
	memcpy(out->dim, t->dim, sizeof out->dim);
	return ERR_OK;
}

/* Lays a shard out and fills the places of its items. */
static int lay_out(struct st_sink *k, struct shard_plan *s, const struct map *index, struct err *e)
{
	const struct fact meta = { "format", k->packing ? k->packing->metadata : "pt" };
	s->entries = arena_array(&k->arena, s->count + 1, sizeof *s->entries);
	if (!s->entries)
		return err_nomem(e);
	int rc = ERR_OK;
	for (size_t i = 0; i < s->count && !rc; i++)
		rc = entry_of(&k->plan->items[s->first + i].out, &s->entries[i], e);
	if (!rc)
		rc = st_layout(s->entries, s->count, e);
	if (!rc)
		rc = st_header(&s->header, &(struct st_listing){ s->entries, s->count, &meta, 1 }, 8, e);
	for (size_t i = 0; i < s->count && !rc; i++) {
		const struct st_entry *t = &s->entries[i];
		uint64_t item;
		if (!map_get(index, t->name, strlen(t->name), &item) || k->plan->items[item].out.nbytes != t->end - t->begin)
			return bug(e, "a tensor's size is not that of its shape");
		k->places[item] = s->header.len + t->begin;
	}
	return rc;
}

static int prepare(struct st_sink *k, uint64_t limit, struct err *e)
{
	struct map index = { 0 };
	int rc = cut(k, limit, e);
	k->places = arena_array(&k->arena, k->plan->count + 1, sizeof *k->places);
	if (!rc && !k->places)
		rc = err_nomem(e);
	for (size_t i = 0; i < k->plan->count && !rc; i++) {
		const char *name = k->plan->items[i].out.name;
		int fresh = map_add(&index, name, strlen(name), i);
		if (fresh <= 0)
			rc = fresh ? err_nomem(e) : err_set(e, ERR_INPUT, "tensor '%.200s' would be written twice", name);
	}
	for (size_t i = 0; i < k->shard_count && !rc; i++)
		rc = lay_out(k, &k->shards[i], &index, e);
	map_release(&index);
	return rc;
}

/* The first bytes of a shard; in a folder also its file. */
static int shard_begin(struct st_sink *k, struct err *e)
{
	struct shard_plan *s = &k->shards[k->shard];
	int rc = k->dir ? out_dir_file(k->dir, s->name, &k->file, e) : ERR_OK;
	return rc ? rc : out_write(k->file, s->header.data, s->header.len, e);
}

/* Reads the header back from the disk's view of the file, with the checks that any input gets. */
static int shard_check(struct st_sink *k, struct err *e)
{
	const struct shard_plan *s = &k->shards[k->shard];
	struct mapped m;
	struct st_file st;
	int rc = out_flush(k->file, e);
	if (!rc)
		rc = mapped_open(&m, out_temp_path(k->file), e);
	if (rc)
		return rc;
	rc = st_parse(&st, m.data, m.size, e) ? err_prefix(e, "what was written does not read back") : ERR_OK;
	if (!rc && st.count != s->count)
		rc = bug(e, "what was written does not read back");
	for (size_t i = 0; i < s->count && !rc; i++)
		if (st.entries[i].end - st.entries[i].begin != s->entries[i].end - s->entries[i].begin)
			rc = bug(e, "what was written does not read back");
	st_release(&st);
	mapped_close(&m);
	return rc;
}

/* Checks the current shard and, in a folder, closes it. */
static int shard_end(struct st_sink *k, struct err *e)
{
	int rc = shard_check(k, e);
	if (rc || !k->dir)
		return rc;
	struct out_file *f = k->file;
	k->file = NULL;
	return out_commit(f, e);
}

static int sink_item(struct tensor_sink *base, size_t index, struct err *e)
{
	struct st_sink *k = (struct st_sink *)base;
	if (k->left || index != k->next || index >= k->plan->count)
		return bug(e, "items out of order or incomplete");
	if (index == k->shards[k->shard].first + k->shards[k->shard].count) {
		int rc = shard_end(k, e);
		k->shard++;
		if (!rc)
			rc = shard_begin(k, e);
		if (rc)
			return rc;
	}
	k->next++;
	k->at = k->places[index];
	k->left = k->plan->items[index].out.nbytes;
	return ERR_OK;
}

static int sink_bytes(struct tensor_sink *base, const void *data, size_t size, struct err *e)
{
	struct st_sink *k = (struct st_sink *)base;
	if (size > k->left)
		return bug(e, "more bytes than planned");
	int rc = out_pwrite(k->file, data, size, k->at, e);
	k->at += size;
	k->left -= size;
	return rc;
}

struct weight {
	const char *name, *file;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct weight *)a)->name, ((const struct weight *)b)->name);
}

static int dir_put(struct out_dir *d, const char *name, const void *data, size_t size, struct err *e)
{
	struct out_file *f;
	int rc = out_dir_file(d, name, &f, e);
	return rc ? rc : out_whole(f, data, size, e);
}

static int write_index(struct st_sink *k, struct err *e)
{
	struct strbuf text = { 0 };
	struct json_writer w = { .out = &text, .indent = 2 };
	struct weight *all = arena_array(&k->arena, k->plan->count, sizeof *all);
	uint64_t total = 0;
	if (!all)
		return err_nomem(e);
	for (size_t i = 0; i < k->shard_count; i++)
		for (size_t j = 0; j < k->shards[i].count; j++) {
			const struct tensor *t = &k->plan->items[k->shards[i].first + j].out;
			all[k->shards[i].first + j] = (struct weight){ t->name, k->shards[i].name };
			total += t->nbytes;
		}
	qsort(all, k->plan->count, sizeof *all, by_name);
	jw_object(&w, NULL);
	jw_object(&w, "metadata");
	jw_uint(&w, "total_size", total);
	jw_end_object(&w);
	jw_object(&w, "weight_map");
	for (size_t i = 0; i < k->plan->count; i++)
		jw_string(&w, all[i].name, all[i].file);
	jw_end_object(&w);
	jw_end_object(&w);
	strbuf_putc(&text, '\n');
	int rc = text.failed ? err_nomem(e) : dir_put(k->dir, "model.safetensors.index.json", text.data, text.len, e);
	strbuf_release(&text);
	return rc;
}

static int sink_seal(struct tensor_sink *base, const char **path, struct err *e)
{
	struct st_sink *k = (struct st_sink *)base;
	*path = k->dir ? out_dir_temp_path(k->dir) : out_temp_path(k->file);
	if (k->sealed)
		return ERR_OK;
	if (k->left || k->next != k->plan->count)
		return bug(e, "finished before all tensors were written");
	int rc = shard_end(k, e);
	if (!rc && k->shard_count > 1)
		rc = write_index(k, e);
	k->sealed = !rc;
	return rc;
}

static int sink_finish(struct tensor_sink *base, struct err *e)
{
	struct st_sink *k = (struct st_sink *)base;
	const char *path;
	int rc = sink_seal(base, &path, e);
	if (rc)
		return rc;
	if (!k->dir) {
		struct out_file *f = k->file;
		k->file = NULL;
		return out_commit(f, e);
	}
	struct out_dir *d = k->dir;
	k->dir = NULL;
	return out_dir_commit(d, e);
}

static void sink_close(struct tensor_sink *base)
{
	struct st_sink *k = (struct st_sink *)base;
	if (!k)
		return;
	out_abort(k->file);
	out_dir_abort(k->dir);
	for (size_t i = 0; k->shards && i < k->shard_count; i++)
		strbuf_release(&k->shards[i].header);
	arena_release(&k->arena);
	plan_release(&k->parts);
	free(k);
}

static struct st_sink *sink_new(const struct plan *p, uint64_t limit, const struct packing *packing, struct err *e)
{
	struct st_sink *k = calloc(1, sizeof *k);
	if (!k) {
		err_nomem(e);
		return NULL;
	}
	k->base = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	k->packing = packing;
	k->plan = packing ? &k->parts : p;
	if ((packing && packing_plan(packing, p, &k->parts, e)) || prepare(k, limit, e)) {
		sink_close(&k->base);
		return NULL;
	}
	return k;
}

/* torch's name of the one type that all floats have, or NULL. */
static const char *common_dtype(const struct plan *p)
{
	static const struct {
		const char *safetensors, *torch;
	} names[] = { { "F32", "float32" }, { "F16", "float16" }, { "BF16", "bfloat16" }, { "F64", "float64" } };
	const struct codec *one = NULL;
	for (size_t i = 0; i < p->count; i++) {
		const struct codec *c = p->items[i].out.codec;
		if (c->kind != CODEC_FLOAT || !c->safetensors)
			continue;
		if (one && one != c)
			return NULL;
		one = c;
	}
	for (unsigned i = 0; one && i < sizeof names / sizeof *names; i++)
		if (strcmp(one->safetensors, names[i].safetensors) == 0)
			return names[i].torch;
	return NULL;
}

/* config.json as it was, but for the dtype; printed anew only when the model is another (folded) one. */
static int config_text(const struct side_file *f, const struct config *config, const struct plan *p, struct strbuf *out,
		       struct err *e)
{
	struct strbuf fresh = { 0 }, half = { 0 };
	const char *text = f ? f->data : NULL, *dtype = common_dtype(p);
	char quoted[24];
	size_t len = f ? f->size : 0;
	bool same = false;
	int rc = config && f ? config_text_describes(f, config, &same, e) : ERR_OK;
	if (rc)
		return rc;
	if (config && !same) {
		rc = config_print(config, text, len, &fresh, e);
		if (rc) {
			strbuf_release(&fresh);
			return rc;
		}
		text = fresh.data;
		len = fresh.len;
	}
	if (dtype) {
		snprintf(quoted, sizeof quoted, "\"%s\"", dtype);
		config_text_replace(text, len, "torch_dtype", quoted, &half);
		config_text_replace(half.data, half.len, "dtype", quoted, out);
	} else {
		strbuf_add(out, text, len);
	}
	bool failed = fresh.failed || half.failed || out->failed;
	strbuf_release(&fresh);
	strbuf_release(&half);
	return failed ? err_nomem(e) : ERR_OK;
}

/* A tokenizer whose class reads tokenizer.json only gets one made of tokenizer.model where that is all there is. */
static int write_tokenizer(struct out_dir *d, const struct checkpoint *src, struct err *e)
{
	struct json *j = NULL;
	int rc = ERR_OK;
	if (!checkpoint_has(src, "tokenizer.json") && checkpoint_has(src, "tokenizer.model"))
		rc = checkpoint_json(src, "tokenizer_config.json", &j, e);
	const char *class = json_string(json_get(j, "tokenizer_class"));
	bool wanted = class && !strcmp(class, "PreTrainedTokenizerFast");
	json_free(j);
	if (rc || !wanted)
		return rc;
	struct tokenizer *t;
	struct strbuf text = { 0 };
	if ((rc = checkpoint_tokenizer(src, &t, e)))
		return rc;
	rc = tokenizer_write_json(t, &text, e);
	if (!rc)
		rc = dir_put(d, "tokenizer.json", text.data, text.len, e);
	strbuf_release(&text);
	tokenizer_close(t);
	return rc;
}

static int write_config(struct out_dir *d, const struct packing *packing, const struct plan *p, struct strbuf *text, struct err *e)
{
	struct strbuf object = { 0 };
	int rc = packing ? packing_config(packing, p, text, packing->file ? &object : NULL, e) : ERR_OK;
	if (!rc)
		rc = dir_put(d, "config.json", text->data, text->len, e);
	if (!rc && object.len)
		rc = dir_put(d, packing->file, object.data, object.len, e);
	strbuf_release(&object);
	return rc;
}

static int write_sides(struct out_dir *d, const struct packing *packing, const struct write_request *r, struct err *e)
{
	const struct checkpoint *src = r->src;
	const struct config *config = r->config;
	const struct plan *p = r->plan;
	const struct side_file *f;
	struct strbuf text = { 0 };
	const char *name;
	bool code = r->options && r->options->code && config;
	int rc = checkpoint_file(src, "config.json", &f, e);
	if (!rc && (f || config)) {
		rc = config_text(f, config, p, &text, e);
		if (!rc && code)
			rc = hf_code_config(config, &text, e);
		if (!rc)
			rc = write_config(d, packing, p, &text, e);
		strbuf_clear(&text);
	}
	if (!rc && code && !(rc = hf_code_text(&text, e)))
		rc = dir_put(d, HF_CODE_FILE, text.data, text.len, e);
	strbuf_release(&text);
	for (size_t i = 0; !rc && (name = checkpoint_file_name(src, i)); i++) {
		if (!strcmp(name, "config.json") || !strcmp(name, GGUF_KEYS_FILE))
			continue;
		if (!(rc = checkpoint_file(src, name, &f, e)))
			rc = dir_put(d, name, f->data, f->size, e);
	}
	return rc;
}

static int create_folder(const struct packing *packing, const char *path, const struct write_request *r, struct tensor_sink **out,
			 struct err *e)
{
	const struct plan *p = r->plan;
	const struct write_options *o = r->options;
	struct strbuf config = { 0 };
	*out = NULL;
	packing = packing_wanted(packing, p) ? packing : NULL;
	if (packing && !r->config && !checkpoint_has(r->src, "config.json"))
		return err_set(e, ERR_UNSUPPORTED, "%.500s%show a folder's quantized weights are stored stands in its config.json, and the model has "
			       "none; put it beside the model, or write .quire", path ? path : "", path ? ": " : "");
	struct st_sink *k = sink_new(p, o && o->shard_size ? o->shard_size : SHARD_SIZE, packing, e);
	if (!k)
		return e->code;
	int rc = gguf_note_lost(r->src, o ? o->notes : NULL, e);
	if (!rc && packing && !path) {
		strbuf_puts(&config, "{}");
		rc = packing_config(packing, p, &config, NULL, e);
		strbuf_release(&config);
	}
	if (rc || !path) {
		sink_close(&k->base);
		return rc;
	}
	rc = out_dir_open(path, &k->dir, e);
	if (!rc)
		rc = write_sides(k->dir, packing, r, e);
	if (!rc)
		rc = write_tokenizer(k->dir, r->src, e);
	if (!rc)
		rc = shard_begin(k, e);
	*out = &k->base;
	if (!rc && packing)
		rc = packing_sink(packing, p, &k->base, out, e);
	if (rc) {
		sink_close(&k->base);
		*out = NULL;
	}
	return rc;
}

static int create_file(const struct packing *packing, const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	(void)packing;
	*out = NULL;
	if (!path)
		return ERR_OK;
	struct st_sink *k = sink_new(r->plan, 0, NULL, e);
	if (!k)
		return e->code;
	int rc = out_open(path, &k->file, e);
	if (!rc)
		rc = shard_begin(k, e);
	if (rc)
		sink_close(&k->base);
	else
		*out = &k->base;
	return rc;
}

typedef int create(const struct packing *packing, const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);

/* With tensors put together as the model's class has them. */
static int create_together(create *next, const struct packing *packing, const char *path, const struct write_request *r,
			   struct tensor_sink **out, struct err *e)
{
	struct together *t;
	struct write_request parts = *r;
	*out = NULL;
	int rc = together_new(r->plan, r->config, &t, e);
	if (!rc) {
		parts.plan = t ? together_plan(t) : r->plan;
		rc = next(packing, path, &parts, out, e);
	}
	if (t && *out)
		*out = together_sink(t, *out);
	else
		together_free(t);
	return rc;
}

int hf_create(const struct packing *k, const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	return create_together(create_folder, k, path, r, out, e);
}

int st_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	return create_together(create_file, NULL, path, r, out, e);
}
