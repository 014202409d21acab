/*
 * Writes a plan as a GGUF model. All offsets are known before the first byte,
 * so tensors go to their places in whatever order the plan has them. Rows of Q
 * and K are reordered within one head at a time, which is all that is held.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/generation.h"
#include "formats/gguf_carry.h"
#include "formats/gguf_model.h"
#include "model/stored.h"

struct slot {
	char name[96];             /* in the file; "": left out */
	uint32_t layer, expert;    /* expert: its place in the tensor of all of them, or NO_EXPERT */
	unsigned parts;            /* it is one of so many in a tensor, `expert` its place; 0: it is not */
	const struct plan_item *item;
	size_t index;              /* in the plan */
	uint64_t offset;           /* in the data blob */
	uint32_t heads;            /* rows are permuted within so many heads; 0: as they come */
	bool plus_one;             /* is stored as one more */
};

struct sink {
	struct tensor_sink base;   /* first: the sink is cast back to this */
	const struct plan *plan;
	const struct config *config;
	struct out_file *file;
	bool sealed;
	struct slot *slot;         /* [plan->count], in plan order */
	uint64_t data_at, end;     /* start of the blob, size of the file */
	size_t now;                /* the item being written; SIZE_MAX: none yet */
	uint64_t done;             /* its bytes so far */
	uint8_t *head;             /* one head, rows in the order of the file */
	size_t head_size;
};

/* Names without a layer first, then by layer, by bytes inside: the order llama.cpp's own quantizer writes. */
static int by_place(const void *pa, const void *pb)
{
	const struct slot *a = *(const struct slot *const *)pa, *b = *(const struct slot *const *)pb;
	uint32_t la = a->layer + 1, lb = b->layer + 1; /* UINT32_MAX, no layer, wraps to the front */
	if (la != lb)
		return la < lb ? -1 : 1;
	int order = strcmp(a->name, b->name);
	return order ? order : a->expert < b->expert ? -1 : a->expert > b->expert;
}

static uint64_t moving_rows(const struct tensor *t)
{
	return t->ndim == 1 ? t->dim[0] : tensor_rows(t);
}

static int plan_slot(struct sink *k, size_t i, bool keep_unknown, struct err *e)
{
	const struct arch *a = k->config->arch;
	const struct plan_item *it = &k->plan->items[i];
	const struct tensor *t = &it->out;
	struct slot *s = &k->slot[i];
	enum role role = role_from_hf(a, t->name, &s->layer);
	s->expert = NO_EXPERT;
	if (role != ROLE_UNKNOWN && role_rows[role].per_expert) {
		s->expert = place_expert(s->layer);
		s->layer = place_layer(s->layer);
	}
	s->item = it;
	s->index = i;
	if (tensor_name_ignored(t->name) || (role == ROLE_HEAD && k->config->tied))
		return 0;
	unsigned part;
	const struct stored *together = role == ROLE_UNKNOWN ? NULL : stored_of(a, role, true, &part);
	if (together) {
		stored_name(together, true, s->layer, s->name);
		s->parts = stored_count(together);
		s->expert = part;
	} else if (role != ROLE_UNKNOWN && !role_gguf_name(a, role, s->layer, s->name))
		role = ROLE_UNKNOWN;
	if (role == ROLE_UNKNOWN && (!keep_unknown || strlen(t->name) >= sizeof s->name))
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s' has no name in GGUF models of %s", t->name, a->gguf);
	if (role == ROLE_UNKNOWN)
		snprintf(s->name, sizeof s->name, "%s", t->name);
	if (t->ndim < 2 && strcmp(t->codec->name, "f32") != 0)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%s': GGUF needs vectors as f32, not %s", t->name, t->codec->name);
	enum layout layout = role_gguf_layout(a, role);
	s->plus_one = layout == LAYOUT_PLUS_ONE;
	if (layout != LAYOUT_ROPE_PAIRS)
		return 0;
	bool kv = role == ROLE_K || role == ROLE_K_BIAS;
	uint64_t rows = moving_rows(t);
	if (s->layer >= k->config->layers)
		return err_set(e, ERR_INPUT, "tensor '%s': the model has %" PRIu32 " layers", t->name, k->config->layers);
	s->heads = kv ? k->config->layer[s->layer].kv_heads : k->config->layer[s->layer].heads;
	if (!rows || rows % s->heads || rows / s->heads % 2 || t->nbytes % rows)
		return err_set(e, ERR_INPUT, "tensor '%s': its %" PRIu64 " rows are not %" PRIu32 " heads of an even size", t->name,
			       rows, s->heads);
	return 0;
}

/* A file that lacks a tensor would only fail in the loader. */
static int check_complete(const struct sink *k, struct err *e)
{
	struct map have = { 0 };
	char name[96];
	int rc = 0;
	for (size_t i = 0; i < k->plan->count && !rc; i++)
		if (map_add(&have, k->plan->items[i].out.name, strlen(k->plan->items[i].out.name), i) < 0)
			rc = err_nomem(e);
	for (int r = 0; r < ROLE_COUNT && !rc; r++) {
		uint32_t layers = role_rows[r].per_layer ? k->config->layers : 1;
		for (uint32_t i = 0; i < layers && !rc; i++) {
			uint32_t count = role_count(k->config, (enum role)r, i);
			uint64_t at;
			for (uint32_t x = 0; x < count && !rc; x++)
				if (role_hf_name(k->config->arch, (enum role)r, role_place((enum role)r, i, x), name) &&
				    !map_get(&have, name, strlen(name), &at))
					rc = err_set(e, ERR_INPUT, "tensor '%s' is missing", name);
		}
	}
	map_release(&have);
	return rc;
}

/* The experts of a tensor, which are all there and in order, one behind the other: how many of the slots they are. */
static int add_stack(const struct sink *k, struct gguf_writer *w, struct slot **slot, size_t left, size_t *count, struct err *e)
{
	const struct tensor *first = &slot[0]->item->out;
	const struct tensor all = { .name = slot[0]->name, .codec = first->codec, .ndim = 3,
				    .dim = { k->config->experts, first->dim[0], first->dim[1] } };
	uint64_t at;
	*count = k->config->experts;
	for (size_t i = 0; i < *count; i++) {
		const struct tensor *t = i < left ? &slot[i]->item->out : NULL;
		if (!t || slot[i]->expert != i || strcmp(slot[i]->name, slot[0]->name) || t->ndim != 2)
			return err_set(e, ERR_INPUT, "tensor '%s': its experts are not %" PRIu32 " matrices", slot[0]->name, k->config->experts);
		if (t->codec != first->codec || t->dim[0] != first->dim[0] || t->dim[1] != first->dim[1])
			return err_set(e, ERR_UNSUPPORTED, "tensor '%s' holds all experts in one type: %s is %s, %s is %s", slot[0]->name,
				       first->name, first->codec->name, t->name, t->codec->name);
	}
	int rc = gguf_add_tensor(w, &all, &at, e);
	for (size_t i = 0; i < *count && !rc; i++)
		slot[i]->offset = at + i * first->nbytes;
	return rc;
}

/* The parts of a tensor, one behind the other: their rows. */
static int add_parts(struct gguf_writer *w, struct slot **slot, size_t left, size_t *count, struct err *e)
{
	const struct tensor *first = &slot[0]->item->out;
	struct tensor all = { .name = slot[0]->name, .codec = first->codec, .ndim = first->ndim, .dim = { 0, first->dim[1] } };
	uint64_t at;
	*count = slot[0]->parts;
	for (size_t i = 0; i < *count; i++) {
		const struct tensor *t = i < left ? &slot[i]->item->out : NULL;
		if (!t || slot[i]->expert != i || strcmp(slot[i]->name, slot[0]->name) || t->ndim != first->ndim || t->dim[1] != all.dim[1])
			return err_set(e, ERR_INPUT, "tensor '%s': not all of its %zu parts are there, in one width", slot[0]->name, *count);
		if (t->codec != first->codec)
			return err_set(e, ERR_UNSUPPORTED, "tensor '%s' holds its parts in one type: %s is %s, %s is %s", slot[0]->name,
				       first->name, first->codec->name, t->name, t->codec->name);
		all.dim[0] += t->dim[0];
	}
	int rc = gguf_add_tensor(w, &all, &at, e);
	for (size_t i = 0; i < *count && !rc; i++) {
		slot[i]->offset = at;
		at += slot[i]->item->out.nbytes;
	}
	return rc;
}

/* Is gguf_rope_tensors[i] written? */
static bool has_rope_tensor(const struct config *c, int i)
{
	const struct rope *r = &c->rope;
	bool longrope = r->scaling == ROPE_LONGROPE;
	return i ? longrope : r->scaling == ROPE_LLAMA3 || (r->divisors && !longrope) || c->arch->gguf_divisors;
}

/* Gives every tensor its place. */
static int place_tensors(struct sink *k, struct gguf_writer *w, uint64_t rope_at[ROPE_TENSORS], struct err *e)
{
	struct slot rope[ROPE_TENSORS], **order;
	const struct rope *r = &k->config->rope;
	size_t count = 0;
	int rc = 0;
	order = malloc((k->plan->count + ROPE_TENSORS) * sizeof *order);
	if (!order)
		return err_nomem(e);
	for (size_t i = 0; i < k->plan->count; i++)
		if (k->slot[i].name[0])
			order[count++] = &k->slot[i];
	for (int i = 0; i < ROPE_TENSORS; i++) {
		rope[i] = (struct slot){ .layer = UINT32_MAX, .index = (size_t)i };
		snprintf(rope[i].name, sizeof rope[i].name, "%s", gguf_rope_tensors[i]);
		if (has_rope_tensor(k->config, i))
			order[count++] = &rope[i];
	}
	qsort(order, count, sizeof *order, by_place);
	for (size_t i = 0, n; i < count && !rc; i += n) {
		n = 1;
		if (!order[i]->item) {
			const struct tensor divisors = { .name = order[i]->name, .codec = codec_find("f32"), .ndim = 1, .dim = { r->dims / 2 } };
			rc = gguf_add_tensor(w, &divisors, &rope_at[order[i]->index], e);
			continue;
		}
		const struct tensor *t = &order[i]->item->out;
		uint64_t before = w->data_bytes;
		struct tensor named = *t;
		named.name = order[i]->name;
		if (order[i]->parts)
			rc = add_parts(w, order + i, count - i, &n, e);
		else if (order[i]->expert != NO_EXPERT)
			rc = add_stack(k, w, order + i, count - i, &n, e);
		else
			rc = gguf_add_tensor(w, &named, &order[i]->offset, e);
		uint64_t bytes = 0;
		for (size_t part = 0; part < n && !rc; part++)
			bytes += order[i + part]->item->out.nbytes;
		if (!rc && w->data_bytes - before != round_up(bytes, GGUF_ALIGNMENT))
			rc = err_set(e, ERR_BUG, "tensor '%s': planned as %" PRIu64 " bytes", t->name, t->nbytes);
	}
	free(order);
	return rc;
}

static void put_text(struct gguf_writer *w, const char *key, const char *value)
{
	if (value)
		gguf_put_string(w, key, value, strlen(value));
}

static const char *fact_of(const struct checkpoint *c, const char *key)
{
	for (size_t i = 0; c && i < c->fact_count; i++)
		if (!strcmp(c->facts[i].key, key))
			return c->facts[i].value;
	return NULL;
}

static void put_general(struct gguf_writer *w, const struct config *c, const struct write_options *o)
{
	char key[160];
	put_text(w, "general.architecture", c->arch->gguf);
	gguf_put_u32(w, "general.quantization_version", 2);
	if (o && o->gguf_file_type >= 0)
		gguf_put_u32(w, "general.file_type", (uint32_t)o->gguf_file_type);
	if (!o)
		return;
	put_text(w, "quire.recipe", o->recipe);
	for (size_t i = 0; i < o->fact_count; i++) {
		snprintf(key, sizeof key, "quire.%.140s", o->facts[i].key);
		put_text(w, key, o->facts[i].value);
	}
}

/* The tokens that end a text, in the order in which the keys eos, eot and eom take them. */
static int end_tokens(const struct checkpoint *src, struct config *c, struct notes *n, struct err *e)
{
	enum { KEYS = 3 };
	struct end_tokens t;
	int rc = checkpoint_ends(src, c, &t, e);
	if (rc)
		return rc;
	if (t.count > KEYS)
		notes_add(n, "%u tokens end a text; GGUF has keys for the first %d", t.count, KEYS);
	c->eos_count = t.count < KEYS ? t.count : KEYS;
	memcpy(c->eos, t.id, c->eos_count * sizeof *c->eos);
	return 0;
}

static int put_vocabulary(struct gguf_writer *w, const struct checkpoint *src, const struct config *c, struct err *e)
{
	struct tokenizer *t = NULL;
	struct config with = *c;
	const struct side_file *settings = NULL;
	int rc = src ? end_tokens(src, &with, w->notes, e) : 0;
	if (!rc && src && checkpoint_has_tokenizer(src))
		rc = checkpoint_tokenizer(src, &t, e);
	if (!rc)
		rc = checkpoint_file(src, "tokenizer_config.json", &settings, e);
	if (!rc)
		rc = gguf_put_vocabulary(w, &with, t, fact_of(src, "tokenizer.ggml.pre"), settings, e);
	if (!rc && t)
		rc = gguf_put_chat_templates(w, src, e);
	tokenizer_close(t);
	return rc;
}

/* What was a GGUF before has its own words for most of it, above all for its vocabulary. */
static int put_metadata(struct gguf_writer *w, const struct checkpoint *src, const struct config *c,
			const struct write_options *o, struct err *e)
{
	struct gguf_writer own = { .notes = w->notes };
	struct strbuf carried = { 0 };
	int rc = gguf_carry(src, c, o && o->same_values, &carried, e);
	put_general(&own, c, o);
	if (!rc)
		rc = gguf_put_config(&own, c, e);
	if (!rc && !gguf_carries(&carried, "tokenizer.ggml.model"))
		rc = put_vocabulary(&own, src, c, e);
	if (!rc)
		rc = gguf_put_sampling(&own, src, e);
	if (!rc)
		rc = gguf_merge(w, &own, &carried, e);
	gguf_writer_release(&own);
	strbuf_release(&carried);
	return rc;
}

static int write_divisors(struct sink *k, int which, uint64_t offset, struct err *e)
{
	const struct rope *r = &k->config->rope;
	size_t n = r->dims / 2;
	float *d = malloc((n + 1) * sizeof *d);
	uint8_t *raw = malloc(4 * n + 1);
	int rc = d && raw ? 0 : err_nomem(e);
	if (!rc) {
		if (r->divisors)
			memcpy(d, which == 2 ? r->far : r->divisors, n * sizeof *d);
		else
			gguf_rope_divisors(r, d);
		for (size_t i = 0; i < n; i++) {
			uint32_t u;
			memcpy(&u, &d[i], 4);
			store_u32(raw + 4 * i, u);
		}
		rc = out_pwrite(k->file, raw, 4 * n, k->data_at + offset, e);
	}
	free(d);
	free(raw);
	return rc;
}

static int write_front(struct sink *k, struct gguf_writer *w, const uint64_t rope_at[ROPE_TENSORS], struct err *e)
{
	struct strbuf header = { 0 };
	static const uint8_t zeros[GGUF_ALIGNMENT];
	int rc = gguf_header(w, &header, e);
	if (!rc)
		rc = out_pwrite(k->file, header.data, header.len, 0, e);
	k->data_at = header.len;
	k->end = header.len + w->data_bytes;
	strbuf_release(&header);
	/* the padding of the last tensor, which nothing else writes; gaps before it read as zeros */
	if (!rc && w->data_bytes)
		rc = out_pwrite(k->file, zeros, sizeof zeros, k->end - sizeof zeros, e);
	for (int i = 0; i < ROPE_TENSORS && !rc; i++)
		if (has_rope_tensor(k->config, i))
			rc = write_divisors(k, i, rope_at[i], e);
	return rc;
}

/* Is item k->now (if any) complete? */
static int check_item(const struct sink *k, struct err *e)
{
	if (k->now >= k->plan->count || k->done == k->plan->items[k->now].out.nbytes)
		return 0;
	return err_set(e, ERR_BUG, "tensor '%s': %" PRIu64 " of %" PRIu64 " bytes arrived", k->plan->items[k->now].out.name,
		       k->done, k->plan->items[k->now].out.nbytes);
}

static int sink_item(struct tensor_sink *base, size_t index, struct err *e)
{
	struct sink *k = (struct sink *)base;
	int rc = check_item(k, e);
	if (rc)
		return rc;
	if (index >= k->plan->count)
		return err_set(e, ERR_BUG, "item %zu of %zu", index, k->plan->count);
	const struct slot *s = &k->slot[index];
	k->now = index;
	k->done = 0;
	if (!s->heads && !s->plus_one)
		return 0;
	size_t need = (size_t)(s->item->out.nbytes / (s->heads ? s->heads : 1));
	if (need > k->head_size) {
		uint8_t *p = realloc(k->head, need);
		if (!p)
			return err_nomem(e);
		k->head = p;
		k->head_size = need;
	}
	return 0;
}

/* Hugging Face row p*h/2 + j of a head becomes row 2j + p. Pieces may end anywhere, also inside a row. */
static int permuted(struct sink *k, const struct slot *s, const uint8_t *data, size_t size, struct err *e)
{
	const struct tensor *t = &s->item->out;
	uint64_t rows = moving_rows(t) / s->heads, row = t->nbytes / (rows * s->heads), head = rows * row;
	while (size) {
		uint64_t in_head = k->done % head, i = in_head / row, at = in_head % row;
		uint64_t to = i < rows / 2 ? 2 * i : 2 * (i - rows / 2) + 1;
		size_t n = row - at < size ? (size_t)(row - at) : size;
		memcpy(k->head + to * row + at, data, n);
		data += n;
		size -= n;
		k->done += n;
		if (k->done % head)
			continue;
		int rc = out_pwrite(k->file, k->head, (size_t)head, k->data_at + s->offset + k->done - head, e);
		if (rc)
			return rc;
	}
	return 0;
}

/* A vector is gathered, since pieces may end inside a value. */
static int shifted(struct sink *k, const struct slot *s, const uint8_t *data, size_t size, struct err *e)
{
	const struct tensor *t = &s->item->out;
	memcpy(k->head + k->done, data, size);
	k->done += size;
	if (k->done < t->nbytes)
		return 0;
	gguf_shift(k->head, k->head, t->nbytes / 4, 1);
	return out_pwrite(k->file, k->head, (size_t)t->nbytes, k->data_at + s->offset, e);
}

static int sink_bytes(struct tensor_sink *base, const void *data, size_t size, struct err *e)
{
	struct sink *k = (struct sink *)base;
	if (k->now >= k->plan->count || size > k->plan->items[k->now].out.nbytes - k->done)
		return err_set(e, ERR_BUG, "tensor '%s': more bytes than planned",
			       k->now < k->plan->count ? k->plan->items[k->now].out.name : "?");
	const struct slot *s = &k->slot[k->now];
	if (s->heads && s->name[0])
		return permuted(k, s, data, size, e);
	if (s->plus_one && s->name[0])
		return shifted(k, s, data, size, e);
	uint64_t at = k->data_at + s->offset + k->done;
	k->done += size;
	return s->name[0] ? out_pwrite(k->file, data, size, at, e) : 0;
}

/* What was written must parse before it takes the place of anything. */
static int read_back(const struct sink *k, struct err *e)
{
	struct mapped m;
	struct gguf g;
	int rc = mapped_open(&m, out_temp_path(k->file), e);
	if (rc)
		return rc;
	if (m.size != k->end)
		rc = err_set(e, ERR_IO, "the written file has %zu bytes instead of %" PRIu64, m.size, k->end);
	else if (!(rc = gguf_parse(&g, m.data, m.size, e)))
		gguf_release(&g);
	mapped_close(&m);
	return rc;
}

static int sink_seal(struct tensor_sink *base, const char **path, struct err *e)
{
	struct sink *k = (struct sink *)base;
	*path = out_temp_path(k->file);
	if (k->sealed)
		return ERR_OK;
	int rc = check_item(k, e);
	if (!rc)
		rc = out_flush(k->file, e);
	if (!rc)
		rc = read_back(k, e);
	k->sealed = !rc;
	return rc;
}

static int sink_finish(struct tensor_sink *base, struct err *e)
{
	struct sink *k = (struct sink *)base;
	const char *path;
	int rc = sink_seal(base, &path, e);
	if (rc)
		return rc;
	struct out_file *f = k->file;
	k->file = NULL;
	return out_commit(f, e);
}

static void sink_close(struct tensor_sink *base)
{
	struct sink *k = (struct sink *)base;
	out_abort(k->file);
	free(k->slot);
	free(k->head);
	free(k);
}

static int prepare(struct sink *k, const char *path, const struct checkpoint *src, const struct write_options *o, struct err *e)
{
	struct gguf_writer w = { .notes = o ? o->notes : NULL };
	uint64_t rope_at[ROPE_TENSORS] = { 0 };
	/* between GGUF files, what quire does not know is carried over */
	bool keep = src && src->format == &format_gguf;
	int rc = 0;
	for (size_t i = 0; i < k->plan->count && !rc; i++)
		rc = plan_slot(k, i, keep, e);
	if (!rc)
		rc = check_complete(k, e);
	if (!rc)
		rc = put_metadata(&w, src, k->config, o, e);
	if (!rc)
		rc = place_tensors(k, &w, rope_at, e);
	if (!rc && path)
		rc = out_open(path, &k->file, e);
	if (!rc && path)
		rc = write_front(k, &w, rope_at, e);
	gguf_writer_release(&w);
	return rc;
}

int gguf_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e)
{
	*out = NULL;
	if (!r->config)
		return err_set(e, ERR_UNSUPPORTED, "%.500s%sGGUF needs to know the architecture of the model", path ? path : "", path ? ": " : "");
	if (!r->config->arch->gguf)
		return err_set(e, ERR_UNSUPPORTED, "%.500s%sno program loads %s from GGUF; write a Hugging Face folder or .quire file", path ? path : "",
			       path ? ": " : "", r->config->arch->name);
	struct sink *k = calloc(1, sizeof *k);
	if (!k)
		return err_nomem(e);
	k->base = (struct tensor_sink){ sink_item, sink_bytes, sink_seal, sink_finish, sink_close };
	k->plan = r->plan;
	k->config = r->config;
	k->now = SIZE_MAX;
	k->slot = calloc(r->plan->count + 1, sizeof *k->slot);
	int rc = k->slot ? prepare(k, path, r->src, r->options, e) : err_nomem(e);
	if (rc || !path)
		sink_close(&k->base);
	else
		*out = &k->base;
	return rc && rc != ERR_IO && path ? err_prefix(e, "%.500s", path) : rc;
}
