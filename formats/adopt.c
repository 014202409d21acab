#include "formats/adopt.h"
#include "formats/config_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "codec/codec.h"
#include "formats/side.h"
#include "formats/parts.h"
#include "model/stored.h"

struct adopted {
	struct tensor_source base; /* first: the source is cast back to this */
	struct tensor_source *stored;
	size_t *at;                /* [count] positions in stored */
	struct tensor *tensors;    /* [count] base.tensors */
	struct part *part;         /* [count] what of the tensor there */
};

static int adopted_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	const struct adopted *a = (const struct adopted *)s;
	if (i >= s->count)
		return err_set(e, ERR_BUG, "tensor %zu of %zu", i, s->count);
	int rc = a->stored->get(a->stored, a->at[i], out, e);
	return rc ? rc : part_take(&a->part[i], &s->tensors[i], out, e);
}

static void adopted_drop(struct tensor_source *s, const void *data, size_t size)
{
	source_drop(((const struct adopted *)s)->stored, data, size);
}

static bool adopted_summed(struct tensor_source *s, size_t i, uint32_t *crc)
{
	const struct adopted *a = (const struct adopted *)s;
	return !a->part[i].count && source_summed(a->stored, a->at[i], crc);
}

/* Row by row, as numbers: a head may be stored in another type than the embedding. */
static int same_rows(const struct tensor *x, const uint8_t *a, const struct tensor *y, const uint8_t *b, bool *same,
		     struct err *e)
{
	size_t cols = (size_t)tensor_cols(x);
	uint64_t rows = tensor_rows(x), step_a = codec_row_bytes(x->codec, cols), step_b = codec_row_bytes(y->codec, cols);
	float *u = malloc((2 * cols + 1) * sizeof *u);
	if (!u)
		return err_nomem(e);
	*same = true;
	for (uint64_t r = 0; r < rows && *same; r++) {
		x->codec->decode(x->codec, a + r * step_a, u, cols);
		y->codec->decode(y->codec, b + r * step_b, u + cols, cols);
		for (size_t i = 0; i < cols && *same; i++)
			*same = u[i] == u[cols + i];
	}
	free(u);
	return ERR_OK;
}

static int same_tensor(struct tensor_source *s, const struct tensor *x, const struct tensor *y, bool *same, struct err *e)
{
	struct tensor_bytes a = { 0 }, b = { 0 };
	*same = false;
	if (!x->codec->decode || !y->codec->decode)
		return ERR_OK;
	int rc = s->get(s, source_position(s, x), &a, e);
	if (!rc)
		rc = s->get(s, source_position(s, y), &b, e);
	if (!rc && x->codec == y->codec && a.size == b.size && !memcmp(a.data, b.data, a.size))
		*same = true;
	else if (!rc)
		rc = same_rows(x, a.data, y, b.data, same, e);
	if (!rc) {
		source_drop(s, a.data, a.size);
		source_drop(s, b.data, b.size);
	}
	tensor_bytes_release(&a);
	tensor_bytes_release(&b);
	return rc;
}

/* What becomes of the head of a model whose config ties it to the embedding. */
enum head { HEAD_STAYS, HEAD_DROPPED, HEAD_IS_EMBEDDING, HEAD_UNTIED };

static int judge_head(struct tensor_source *s, const struct config *config, enum head *out, struct err *e)
{
	char name[96];
	const struct tensor *head = source_find(s, role_hf_name(config->arch, ROLE_HEAD, UINT32_MAX, name));
	const struct tensor *embed = source_find(s, role_hf_name(config->arch, ROLE_EMBED, UINT32_MAX, name));
	bool same;
	*out = HEAD_STAYS;
	if (!head || !config->tied)
		return ERR_OK;
	if (!embed)
		embed = source_find(s, strchr(name, '.') + 1);
	if (!embed) {
		*out = HEAD_IS_EMBEDDING;
		return ERR_OK;
	}
	if (head->ndim != 2 || embed->ndim != 2 || head->dim[0] != embed->dim[0] || head->dim[1] != embed->dim[1])
		return ERR_OK; /* checked against the config like every other tensor */
	int rc = same_tensor(s, head, embed, &same, e);
	if (!rc)
		*out = same ? HEAD_DROPPED : HEAD_UNTIED;
	return rc;
}

/* The name as the whole model has it, in buf: with the prefix that all of its tensors inside layers have. */
static bool with_prefix(const struct arch *a, const char *name, char *buf, size_t size)
{
	const char *embed = role_hf_name(a, ROLE_EMBED, UINT32_MAX, buf);
	int prefix = (int)(strchr(embed, '.') - embed) + 1;
	char full[200];
	if (snprintf(full, sizeof full, "%.*s%s", prefix, embed, name) >= (int)size)
		return false;
	strcpy(buf, full);
	return true;
}

/* A tensor that holds others, of a layer; its name may lack the prefix. */
struct held {
	const struct stored *of; /* NULL: it holds none */
	uint32_t layer;
};
static struct held holds_parts(const struct tensor_source *s, const struct arch *a, const char *name)
{
	char buf[96];
	struct held h = { NULL, 0 };
	h.of = stored_find(a, name, false, &h.layer);
	if (!h.of && (a->stored || a->also_stored) && with_prefix(a, name, buf, sizeof buf) && !source_find(s, buf))
		h.of = stored_find(a, buf, false, &h.layer);
	return h;
}

/* The name that the model's class has for a tensor, in buf or as it is; NULL: it has none, nothing needs it. */
static const char *adopted_name(const struct tensor_source *s, const struct arch *a, const char *name, enum head head, char *buf,
				size_t size)
{
	uint32_t layer;
	enum role r = role_from_hf(a, name, &layer);
	if (r == ROLE_HEAD && head == HEAD_DROPPED)
		return NULL;
	if (r == ROLE_HEAD && head == HEAD_IS_EMBEDDING)
		return role_hf_name(a, ROLE_EMBED, UINT32_MAX, buf);
	if (tensor_name_ignored(name))
		return NULL;
	if (r != ROLE_UNKNOWN || !with_prefix(a, name, buf, size))
		return name;
	return role_from_hf(a, buf, &layer) != ROLE_UNKNOWN && !source_find(s, buf) ? buf : name;
}

/* More tensors than the stored one that is taken apart. */
static size_t parts_in(const struct held *h, const struct config *c)
{
	return h->of ? stored_count(h->of) * (h->of->experts ? c->experts : 1) : 0;
}

static bool anything_to_do(const struct tensor_source *s, const struct arch *a, enum head head)
{
	char buf[96];
	for (size_t i = 0; i < s->count; i++)
		if (holds_parts(s, a, s->tensors[i].name).of || adopted_name(s, a, s->tensors[i].name, head, buf, sizeof buf) != s->tensors[i].name)
			return true;
	return false;
}

/* For inspect: the container holds tensors that no list shows. */
static int add_fact(struct checkpoint *c, size_t dropped, struct err *e)
{
	struct fact *facts = arena_array(&c->arena, c->fact_count + 1, sizeof *facts);
	char text[80];
	snprintf(text, sizeof text, "%zu tensors that the model computes itself, or has twice", dropped);
	const char *value = arena_strdup(&c->arena, text);
	if (!facts || !value)
		return err_nomem(e);
	if (c->fact_count)
		memcpy(facts, c->facts, c->fact_count * sizeof *facts);
	facts[c->fact_count++] = (struct fact){ "left out", value };
	c->facts = facts;
	return ERR_OK;
}

/* Appends the parts of a tensor that holds several. */
static int view_parts(struct checkpoint *c, struct adopted *v, const struct config *config, size_t i, const struct held *held,
		      struct err *e)
{
	struct part parts[STORED_PARTS];
	struct tensor t;
	char name[96];
	unsigned n = stored_count(held->of);
	int rc = part_expert(held->of, &v->stored->tensors[i], config->experts, &t, e);
	if (!rc)
		rc = parts_of(held->of, &t, config, held->layer, parts, e);
	for (size_t k = 0; k < parts_in(held, config) && !rc; k++) {
		size_t at = v->base.count++;
		enum role r = held->of->part[k % n];
		v->at[at] = i;
		v->part[at] = parts[k % n];
		v->part[at].before = k / n * t.nbytes;
		v->tensors[at] = part_tensor(&parts[k % n], &t);
		v->tensors[at].name = arena_strdup(&c->arena, role_hf_name(config->arch, r, role_place(r, held->layer, (uint32_t)(k / n)), name));
		if (!v->tensors[at].name)
			return err_nomem(e);
	}
	return rc;
}

static int view(struct checkpoint *c, const struct config *config, enum head head, struct err *e)
{
	struct tensor_source *s = c->source;
	const struct arch *a = config->arch;
	size_t most = s->count + 1, dropped = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct held held = holds_parts(s, a, s->tensors[i].name);
		most += parts_in(&held, config);
	}
	struct adopted *v = arena_alloc(&c->arena, sizeof *v);
	struct tensor *tensors = arena_array(&c->arena, most, sizeof *tensors);
	if (!v || !tensors || !(v->at = arena_array(&c->arena, most, sizeof *v->at)) ||
	    !(v->part = arena_array(&c->arena, most, sizeof *v->part)))
		return err_nomem(e);
	v->stored = s;
	v->tensors = tensors;
	v->base = (struct tensor_source){ .tensors = tensors, .get = adopted_get, .drop = adopted_drop, .summed = adopted_summed,
					  .copies = s->copies };
	int rc = ERR_OK;
	for (size_t i = 0; i < s->count && !rc; i++) {
		char buf[96];
		const struct held held = holds_parts(s, a, s->tensors[i].name);
		if (held.of && held.layer < config->layers) {
			rc = view_parts(c, v, config, i, &held, e);
			continue;
		}
		const char *name = adopted_name(s, a, s->tensors[i].name, head, buf, sizeof buf);
		dropped += !name;
		if (!name)
			continue;
		tensors[v->base.count] = s->tensors[i];
		if (name == buf && !(name = arena_strdup(&c->arena, buf)))
			return err_nomem(e);
		tensors[v->base.count].name = name;
		v->part[v->base.count] = (struct part){ .count = 0 };
		v->at[v->base.count++] = i;
	}
	if (rc)
		return rc;
	c->stored = s;
	c->source = &v->base;
	rc = dropped ? add_fact(c, dropped, e) : ERR_OK;
	return rc ? rc : source_index(&v->base, e);
}

/* The config says so from here on, as every other program will read it in what is written. */
static int untie(struct checkpoint *c, const struct side_file *f, struct err *e)
{
	struct strbuf text = { 0 };
	config_text_replace(f->data, f->size, "tie_word_embeddings", "false", &text);
	/* a family that ties unless told otherwise may leave the key out */
	if (text.len == f->size && !text.failed) {
		const char *brace = strchr(f->data, '{');
		size_t at = (size_t)(brace - f->data) + 1;
		strbuf_clear(&text);
		strbuf_add(&text, f->data, at);
		strbuf_puts(&text, "\"tie_word_embeddings\": false,");
		strbuf_add(&text, f->data + at, f->size - at);
	}
	int rc = text.failed ? err_nomem(e) : side_put(c, f->name, text.data, text.len, e);
	strbuf_release(&text);
	if (rc)
		return rc;
	notes_add(&c->notes, "%.600s: config.json ties the output head to the embedding, but another head is stored; it is used, as "
		  "transformers does", c->path);
	return ERR_OK;
}

/* layer_types that the class does not read, where they ask for something else than what is run. */
static int note_layer_types(struct checkpoint *c, const struct side_file *f, const struct config *config, struct err *e)
{
	uint32_t i = 0, other = 0;
	if (config->arch->window != WINDOW_NONE && config->arch->window != WINDOW_ALL)
		return ERR_OK;
	struct json *root = json_parse(f->data, f->size, e);
	if (!root)
		return e->code;
	const struct json *types = json_is_null(json_get(root, "window_per_layer")) ? json_get(root, "layer_types") : NULL;
	for (const struct json *j = json_first(types); j && i < config->layers; j = json_next(j), i++) {
		const char *type = json_string(j);
		other += type && !strcmp(type, "sliding_attention") ? !config->layer[i].window : config->layer[i].window != 0;
	}
	if (other)
		notes_add(&c->notes, "%.600s: config.json has layer_types, which %s does not read, nor does transformers: %u layers run otherwise",
			  c->path, config->arch->name, other);
	json_free(root);
	return ERR_OK;
}

int checkpoint_adopt(struct checkpoint *c, struct err *e)
{
	const struct side_file *f;
	struct config config;
	struct err ignored;
	enum head head;
	if (!c->source || !checkpoint_has(c, "config.json"))
		return ERR_OK;
	/* what is wrong with a config is said by those who need it */
	if (checkpoint_file(c, "config.json", &f, &ignored) || config_parse(&config, f->data, f->size, &ignored))
		return ignored.code == ERR_NOMEM ? err_nomem(e) : ERR_OK;
	int rc = note_layer_types(c, f, &config, e);
	if (!rc)
		rc = judge_head(c->source, &config, &head, e);
	if (!rc && anything_to_do(c->source, config.arch, head))
		rc = view(c, &config, head, e);
	if (!rc && head == HEAD_UNTIED)
		rc = untie(c, f, e);
	config_release(&config);
	return rc ? err_prefix(e, "%.600s", c->path) : ERR_OK;
}

void checkpoint_disown(struct checkpoint *c)
{
	if (!c->stored)
		return;
	map_release(&c->source->index);
	c->source = c->stored;
}
