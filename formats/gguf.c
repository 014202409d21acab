/*
 * GGUF models as checkpoints. Tensors appear under their Hugging Face names
 * and shapes, rows of Q and K in Hugging Face order; the metadata appears as
 * config.json and tokenizer files. What has no Hugging Face name keeps its own.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "formats/generation.h"
#include "formats/gguf_carry.h"
#include "formats/gguf_model.h"
#include "model/stored.h"
#include "formats/side.h"

struct view {
	const uint8_t *data;
	uint32_t heads;        /* rows are stored interleaved within so many heads; 0: as they are */
	bool plus_one;         /* stored as one more */
};

struct reader {
	struct tensor_source base; /* first: the source is cast back to this */
	struct gguf_model m;
	struct view *view;         /* [count] */
	const struct mapped **maps; /* [parts], by place */
};

/* GGUF row n*h + 2j + p is Hugging Face row n*h + p*h/2 + j, for heads of h rows. */
static void unpermute(const uint8_t *src, uint8_t *dst, uint64_t rows, uint64_t row_bytes, uint32_t heads)
{
	uint64_t size = rows / heads, half = size / 2;
	for (uint64_t n = 0; n < heads; n++)
		for (uint64_t j = 0; j < half; j++)
			for (uint64_t p = 0; p < 2; p++)
				memcpy(dst + (n * size + p * half + j) * row_bytes,
				       src + (n * size + 2 * j + p) * row_bytes, (size_t)row_bytes);
}

/* The rows that move: of a bias every element is one. */
static uint64_t moving_rows(const struct tensor *t)
{
	return t->ndim == 1 ? t->dim[0] : tensor_rows(t);
}

static int reader_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct reader *r = (const struct reader *)s;
	if (i >= s->count)
		return err_set(e, ERR_BUG, "tensor %zu of %zu", i, s->count);
	const struct tensor *t = &s->tensors[i];
	const struct view *v = &r->view[i];
	*out = (struct tensor_bytes){ .data = v->data, .size = (size_t)t->nbytes };
	if ((!v->heads && !v->plus_one) || !t->nbytes)
		return 0;
	uint8_t *moved = malloc((size_t)t->nbytes);
	if (!moved)
		return err_nomem(e);
	uint64_t rows = moving_rows(t);
	if (v->plus_one)
		gguf_shift(v->data, moved, rows, -1);
	else
		unpermute(v->data, moved, rows, t->nbytes / rows, v->heads);
	source_drop(s, v->data, (size_t)t->nbytes);
	out->data = out->owned = moved;
	return 0;
}

static void reader_drop(struct tensor_source *s, const void *data, size_t size)
{
	const struct reader *r = (const struct reader *)s;
	mapped_drop_in(r->maps, r->m.parts, data, size);
}

static void gguf_close(struct checkpoint *c)
{
	struct reader *r = c->private;
	if (!r)
		return;
	for (size_t i = 0; i < r->m.parts; i++) {
		gguf_release(&r->m.part[i].g);
		mapped_close(&r->m.part[i].map);
	}
	map_release(&r->base.index);
	c->private = NULL; /* itself in the arena */
}

static int gguf_probe(const char *path, bool is_dir, const uint8_t *head, size_t n)
{
	size_t len = strlen(path);
	if (is_dir)
		return 0;
	if (n >= 4 && memcmp(head, "GGUF", 4) == 0)
		return 2;
	return len > 5 && strcmp(path + len - 5, ".gguf") == 0;
}

/* Maps and parses one file; part is left so that gguf_close can release it. */
static int open_part(struct gguf_part *part, const char *path, struct err *e)
{
	int rc = mapped_open(&part->map, path, e);
	if (rc)
		return rc;
	part->data = part->map.data;
	part->size = part->map.size;
	rc = gguf_parse(&part->g, part->data, part->size, e);
	return rc ? err_prefix(e, "%.500s", path) : 0;
}

/* "x-00001-of-00003.gguf": where the first number stands, or NULL. */
static char *split_number(char *path, unsigned count)
{
	char tail[40];
	int n = snprintf(tail, sizeof tail, "-of-%05u.gguf", count);
	size_t len = strlen(path), tail_len = (size_t)n;
	if (len < tail_len + 6 || strcmp(path + len - tail_len, tail) || path[len - tail_len - 6] != '-')
		return NULL;
	return path + len - tail_len - 5;
}

static int check_part(const struct gguf *g, uint64_t no, uint64_t count, struct err *e)
{
	uint64_t v;
	if (!gguf_uint(gguf_find(g, "split.count"), 0, &v) || v != count)
		return err_set(e, ERR_INPUT, "split.count is not %" PRIu64 " as in the first file", count);
	if (!gguf_uint(gguf_find(g, "split.no"), 0, &v) || v != no)
		return err_set(e, ERR_INPUT, "split.no is not %" PRIu64 ", as its name says", no);
	return 0;
}

/* Opens the other files of a split model; any of them may have been given. */
static int open_split(struct checkpoint *c, struct reader *r, const char *path, uint64_t count, struct err *e)
{
	char *name = arena_strdup(&c->arena, path);
	char *number = name ? split_number(name, (unsigned)count) : NULL, digits[16];
	uint64_t total = 0, claimed;
	int rc = 0;
	if (!name)
		return err_nomem(e);
	if (!number)
		return err_set(e, ERR_INPUT, "%.500s: one of %" PRIu64 " files, but not named like NAME-00001-of-%05u.gguf", path,
			       count, (unsigned)count);
	struct gguf_part *parts = arena_array(&c->arena, (size_t)count, sizeof *parts);
	if (!parts)
		return err_nomem(e);
	gguf_release(&r->m.part[0].g);
	mapped_close(&r->m.part[0].map);
	r->m.part = parts;
	r->m.parts = (size_t)count;
	for (uint64_t i = 0; i < count && !rc; i++) {
		snprintf(digits, sizeof digits, "%05u", (unsigned)i + 1);
		memcpy(number, digits, 5);
		rc = open_part(&parts[i], name, e);
		if (!rc && check_part(&parts[i].g, i, count, e))
			rc = err_prefix(e, "%.500s", name);
		total += parts[i].g.tensor_count;
	}
	if (!rc && gguf_uint(gguf_find(&parts[0].g, "split.tensors.count"), 0, &claimed) && claimed != total)
		rc = err_set(e, ERR_INPUT, "%.500s: split.tensors.count is %" PRIu64 ", the files hold %" PRIu64 " tensors", path,
			     claimed, total);
	return rc;
}

static int open_parts(struct checkpoint *c, struct reader *r, const char *path, struct err *e)
{
	uint64_t count = 1;
	r->m.part = arena_alloc(&c->arena, sizeof *r->m.part);
	if (!r->m.part)
		return err_nomem(e);
	r->m.parts = 1;
	int rc = open_part(&r->m.part[0], path, e);
	if (rc)
		return rc;
	gguf_uint(gguf_find(&r->m.part[0].g, "split.count"), 0, &count);
	if (count > 99999)
		return err_set(e, ERR_INPUT, "%.500s: split.count %" PRIu64 " is too large", path, count);
	return count > 1 ? open_split(c, r, path, count, e) : 0;
}

/* How many experts' matrices lie in a tensor; 0: it is a tensor like others. */
static uint32_t experts_in(const struct reader *r, const struct gguf_tensor *g)
{
	uint32_t layer;
	enum role role = r->m.arch ? role_from_gguf(r->m.arch, g->name, &layer) : ROLE_UNKNOWN;
	bool experts = role != ROLE_UNKNOWN && role_rows[role].per_expert && layer < MAX_LAYERS;
	return experts && g->ndim == 3 && g->nbytes && g->dim[2] <= MAX_EXPERTS ? (uint32_t)g->dim[2] : 0;
}

/* One matrix of those that lie in a tensor. */
static int unstack(struct checkpoint *c, const struct reader *r, const struct gguf_tensor *g, uint32_t i, struct tensor *t,
		   struct err *e)
{
	char name[96];
	uint32_t layer = 0;
	enum role role = role_from_gguf(r->m.arch, g->name, &layer);
	*t = (struct tensor){ .codec = g->codec, .ndim = 2, .dim = { g->dim[1], g->dim[0] }, .nbytes = g->nbytes / g->dim[2] };
	t->name = arena_strdup(&c->arena, role_hf_name(r->m.arch, role, place_of(layer, i), name));
	return t->name ? ERR_OK : err_nomem(e);
}

/* What holds several of the model's tensors, one after the other. */
static const struct stored *holds_parts(const struct reader *r, const struct gguf_tensor *g, uint32_t *layer)
{
	return r->m.arch ? stored_find(r->m.arch, g->name, true, layer) : NULL;
}

/* One of them. */
static int take_part(struct checkpoint *c, const struct reader *r, const struct gguf_tensor *g, unsigned i, struct tensor *t,
		     struct err *e)
{
	char name[96];
	uint32_t layer;
	uint64_t first[STORED_PARTS + 1] = { 0 }, rows = g->ndim == 2 ? g->dim[1] : g->ndim == 1 ? g->dim[0] : 0;
	const struct stored *s = holds_parts(r, g, &layer);
	if (!rows || !stored_rows(s, rows, gguf_model_heads(&r->m, layer, false), gguf_model_heads(&r->m, layer, true), first) || g->nbytes % rows)
		return err_set(e, ERR_INPUT, "tensor '%s': its %" PRIu64 " rows are not those of Q, K and V", g->name, rows);
	*t = (struct tensor){ .codec = g->codec, .ndim = g->ndim, .dim = { first[i + 1] - first[i], g->ndim == 2 ? g->dim[0] : 0 } };
	t->nbytes = g->nbytes / rows * t->dim[0];
	t->name = arena_strdup(&c->arena, role_hf_name(r->m.arch, s->part[i], layer, name));
	return t->name ? ERR_OK : err_nomem(e);
}

/* Hugging Face name and shape of a tensor, and whether its rows are permuted. */
static int translate(struct checkpoint *c, const struct reader *r, const struct gguf_tensor *g, struct tensor *t,
		     struct view *v, struct err *e)
{
	char name[96];
	uint32_t layer = 0;
	const struct arch *a = r->m.arch;
	enum role role = a ? role_from_gguf(a, g->name, &layer) : ROLE_UNKNOWN;
	bool named = role != ROLE_UNKNOWN && !role_rows[role].per_expert;
	const char *hf = named ? role_hf_name(a, role, layer, name) : NULL;
	t->name = arena_strdup(&c->arena, hf ? hf : g->name);
	if (!t->name)
		return err_nomem(e);
	t->codec = g->codec;
	t->ndim = g->ndim;
	for (uint32_t i = 0; i < g->ndim; i++)
		t->dim[i] = g->dim[g->ndim - 1 - i];
	t->nbytes = g->nbytes;
	enum layout layout = a ? role_gguf_layout(a, role) : LAYOUT_SAME;
	if (layout == LAYOUT_SAME || !t->nbytes)
		return 0;
	if (layout == LAYOUT_PLUS_ONE) {
		v->plus_one = true;
		bool plain = t->ndim == 1 && !strcmp(t->codec->name, "f32");
		return plain ? 0 : err_set(e, ERR_UNSUPPORTED, "tensor '%s' is not a vector of f32", g->name);
	}
	bool k = role == ROLE_K || role == ROLE_K_BIAS;
	v->heads = gguf_model_heads(&r->m, layer, k);
	uint64_t rows = moving_rows(t);
	if (!v->heads || rows % v->heads || rows / v->heads % 2 || t->nbytes % rows)
		return err_set(e, ERR_INPUT, "tensor '%s': its %" PRIu64 " rows are not %" PRIu32 " heads of an even size", g->name,
			       rows, v->heads);
	return 0;
}

/* What llama.cpp multiplies a matrix by, in a tensor beside it (of NVFP4): without it every weight would be a wrong one. */
static bool is_factor(const struct reader *r, const char *name)
{
	char weight[128];
	uint32_t layer;
	size_t n = strlen(name), end = strlen(".scale");
	if (!r->m.arch || n <= end || strcmp(name + n - end, ".scale"))
		return false;
	snprintf(weight, sizeof weight, "%.*s.weight", (int)(n - end), name);
	return role_from_gguf(r->m.arch, weight, &layer) != ROLE_UNKNOWN;
}

static int list_tensors(struct checkpoint *c, struct reader *r, struct err *e)
{
	size_t count = 0, at = 0;
	for (size_t p = 0; p < r->m.parts; p++)
		for (size_t i = 0; i < r->m.part[p].g.tensor_count; i++)
			count += STORED_PARTS + experts_in(r, &r->m.part[p].g.tensors[i]);
	struct tensor *tensors = arena_array(&c->arena, count + 1, sizeof *tensors);
	r->view = arena_array(&c->arena, count + 1, sizeof *r->view);
	r->maps = arena_array(&c->arena, r->m.parts, sizeof *r->maps);
	if (!tensors || !r->view || !r->maps)
		return err_nomem(e);
	for (size_t p = 0; p < r->m.parts; p++)
		r->maps[p] = &r->m.part[p].map;
	mapped_sort(r->maps, r->m.parts);
	for (size_t p = 0; p < r->m.parts; p++) {
		const struct gguf_part *part = &r->m.part[p];
		for (size_t i = 0; i < part->g.tensor_count; i++) {
			const struct gguf_tensor *g = &part->g.tensors[i];
			/* becomes rope_scaling in config.json */
			if (r->m.arch && gguf_rope_tensor(g->name))
				continue;
			if (is_factor(r, g->name))
				return err_set(e, ERR_UNSUPPORTED, "tensor '%s' is a factor of the weights beside it, which is not read; convert the "
					       "checkpoint that the file was made from", g->name);
			uint32_t experts = experts_in(r, g), k = 0, layer;
			const struct stored *s = holds_parts(r, g, &layer);
			uint64_t offset = 0;
			do {
				int rc = experts ? unstack(c, r, g, k, &tensors[at], e)
					 : s	 ? take_part(c, r, g, k, &tensors[at], e)
						 : translate(c, r, g, &tensors[at], &r->view[at], e);
				if (rc)
					return rc;
				r->view[at].data = part->data + g->at + offset;
				offset += tensors[at].nbytes;
				at++;
			} while (++k < (s ? stored_count(s) : experts));
		}
	}
	r->base = (struct tensor_source){ .tensors = tensors, .count = at, .get = reader_get, .drop = reader_drop };
	return source_index(&r->base, e);
}

/* An empty text is no file. */
static int add_file(struct checkpoint *c, const char *name, const struct strbuf *text, struct err *e)
{
	return text->len ? side_put(c, name, text->data, text->len, e) : 0;
}

static int read_keys(const void *from, struct arena *arena, struct side_file *out, struct err *e)
{
	struct strbuf text = { 0 };
	int rc = gguf_carry_all(from, &text, e);
	if (!rc && !(out->data = arena_strndup(arena, text.data ? text.data : "", text.len)))
		rc = err_nomem(e);
	out->size = text.len;
	strbuf_release(&text);
	return rc;
}

static int make_files(struct checkpoint *c, const struct gguf_model *m, struct err *e)
{
	struct strbuf config = { 0 }, model = { 0 }, json = { 0 }, settings = { 0 }, generation = { 0 };
	int rc = gguf_config(m, &config, e);
	if (!rc)
		rc = gguf_vocabulary(m, &model, &json, &settings, e);
	if (!rc && m->arch)
		gguf_generation_config(m->meta, &generation);
	if (!rc && generation.failed)
		rc = err_nomem(e);
	if (!rc && !(rc = add_file(c, "config.json", &config, e)) && !(rc = add_file(c, "tokenizer.json", &json, e)) &&
	    !(rc = add_file(c, "tokenizer_config.json", &settings, e)) && !(rc = add_file(c, "tokenizer.model", &model, e)) &&
	    !(rc = add_file(c, "generation_config.json", &generation, e)))
		rc = side_add(c, GGUF_KEYS_FILE, read_keys, m->meta, e);
	strbuf_release(&config);
	strbuf_release(&model);
	strbuf_release(&json);
	strbuf_release(&settings);
	strbuf_release(&generation);
	return rc;
}

/* Long texts and arrays are described, not copied. */
static void fact_text(const struct gguf_kv *kv, struct strbuf *out)
{
	enum { LONG = 200 };
	double f;
	bool b;
	size_t len;
	uint64_t u;
	const char *s = gguf_string(kv, &len), *name;
	if (kv->type == GGUF_ARRAY)
		strbuf_printf(out, "%" PRIu64 " elements", kv->count);
	else if (s && (len > LONG || !utf8_valid(s, len) || memchr(s, '\0', len)))
		strbuf_printf(out, "%zu bytes", len);
	else if (s)
		strbuf_add(out, s, len);
	else if (gguf_bool(kv, &b))
		strbuf_puts(out, b ? "true" : "false");
	else if (!strcmp(kv->key, "general.file_type") && gguf_uint(kv, 0, &u) && (name = gguf_file_type_name(u)))
		strbuf_printf(out, "%" PRIu64 " (%s)", u, name);
	else if (gguf_uint(kv, 0, &u))
		strbuf_printf(out, "%" PRIu64, u);
	else if (gguf_float(kv, 0, &f))
		strbuf_printf(out, "%.7g", f);
}

static int make_facts(struct checkpoint *c, const struct gguf_model *m, struct err *e)
{
	const struct gguf *g = m->meta;
	struct strbuf text = { 0 };
	struct fact *facts = arena_array(&c->arena, g->kv_count + 2, sizeof *facts);
	if (!facts)
		return err_nomem(e);
	c->facts = facts;
	strbuf_printf(&text, "%" PRIu32, g->version);
	facts[c->fact_count++] = (struct fact){ "gguf.version", arena_strdup(&c->arena, text.data ? text.data : "") };
	if (m->parts > 1) {
		strbuf_clear(&text);
		strbuf_printf(&text, "%zu", m->parts);
		facts[c->fact_count++] = (struct fact){ "shards", arena_strdup(&c->arena, text.data ? text.data : "") };
	}
	for (size_t i = 0; i < g->kv_count; i++) {
		if (!strncmp(g->kv[i].key, "split.", 6))
			continue;
		strbuf_clear(&text);
		fact_text(&g->kv[i], &text);
		facts[c->fact_count++] = (struct fact){ arena_strdup(&c->arena, g->kv[i].key),
							 arena_strdup(&c->arena, text.data ? text.data : "") };
	}
	bool failed = text.failed;
	for (size_t i = 0; i < c->fact_count; i++)
		failed |= !facts[i].key || !facts[i].value;
	strbuf_release(&text);
	return failed ? err_nomem(e) : 0;
}

static int gguf_open(const char *path, struct checkpoint *c, struct err *e)
{
	struct reader *r = arena_alloc(&c->arena, sizeof *r);
	if (!r)
		return err_nomem(e);
	c->private = r;
	int rc = open_parts(c, r, path, e);
	if (rc)
		return rc;
	if (!(rc = gguf_model_init(&r->m, e)) && !(rc = gguf_check_keys(&r->m, e)) && !(rc = list_tensors(c, r, e)) && !(rc = make_files(c, &r->m, e)))
		rc = make_facts(c, &r->m, e);
	c->source = &r->base;
	return rc ? err_prefix(e, "%.500s", path) : 0;
}

static bool gguf_holds(const struct codec *c)
{
	return c->gguf_type >= 0;
}

const struct format format_gguf = {
	.name = "gguf",
	.summary = "one file for llama.cpp and programs that use ggml",
	.suffix = ".gguf",
	.loaded_by = "llama.cpp",
	.probe = gguf_probe,
	.open = gguf_open,
	.close = gguf_close,
	.holds = gguf_holds,
	.describes = gguf_expressible,
	.vectors = "f32",
	.create = gguf_create,
};
