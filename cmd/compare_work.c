/* What `compare` keeps in its work folder, so that a second run continues where the first one stopped. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/verify_part.h"
#include "cmd/compare.h"
#include "formats/file.h"

static int run_id(const struct compare *c, const struct variant *v, struct run_id *id, struct err *e)
{
	int rc = run_id_make(id, v->loaded, NULL, &c->w, c->protocol, e);
	memcpy(id->reference, c->identity, IDENTITY_SIZE); /* worked out once for all */
	const struct running running = variant_running(c, v);
	running_note(&running, id);
	return rc;
}

/* Of a variant in a measured run: everything that could change a figure. */
static int run_key(const struct compare *c, const struct variant *v, struct run_id *id, char key[IDENTITY_SIZE], struct err *e)
{
	struct sha256 h;
	int rc = run_id(c, v, id, e);
	uint8_t rotate = id->kv_rotate;
	uint64_t numbers[4] = { id->protocol, id->ctx, id->windows, id->scored };
	sha256_init(&h);
	identity_add(&h, v->key, IDENTITY_SIZE - 1);
	identity_add(&h, id->model, IDENTITY_SIZE - 1);
	identity_add(&h, id->reference, IDENTITY_SIZE - 1);
	identity_add(&h, id->tokenizer, IDENTITY_SIZE - 1);
	identity_add(&h, id->tokens, IDENTITY_SIZE - 1);
	identity_add(&h, id->kv, strlen(id->kv));
	identity_add(&h, id->kv_v, strlen(id->kv_v));
	identity_add(&h, &rotate, 1);
	if (*id->as)
		identity_add(&h, id->as, strlen(id->as));
	identity_add(&h, numbers, sizeof numbers);
	identity_finish(&h, key);
	return rc;
}

/* NULL where there was no memory for all of it. */
static char *path_of(struct strbuf *s)
{
	if (s->failed)
		strbuf_release(s);
	return s->data;
}

static char *join(const char *a, const char *b)
{
	struct strbuf s = { 0 };
	strbuf_printf(&s, "%s%s", a, b);
	return path_of(&s);
}

static struct json *read_json(const char *path)
{
	struct strbuf text = { 0 };
	struct json *j = NULL;
	if (!file_read(path, &text, 1 << 24, NULL))
		j = json_parse(text.data ? text.data : "", text.len, NULL);
	strbuf_release(&text);
	return j;
}

static bool read_layers(const struct compare *c, struct variant *v, const struct json *list)
{
	size_t layers = c->reference.config.layers, i = 0;
	if (json_is_null(list))
		return true;
	v->layer = calloc(layers, sizeof *v->layer);
	for (const struct json *x = json_first(list); x && i < layers && v->layer; x = json_next(x))
		if (!json_number(x, &v->layer[i++]))
			break;
	if (v->layer && i == layers)
		return true;
	free(v->layer);
	v->layer = NULL;
	return false;
}

static bool same_run(const struct run_id *a, const struct run_id *b)
{
	return !strcmp(a->model, b->model) && !strcmp(a->reference, b->reference) && a->from == 0 && a->to == b->windows &&
	       !run_id_match(a, b, "", NULL);
}

int compare_kept(const struct compare *c, struct variant *v, bool *is_kept, struct err *e)
{
	struct run_id now, kept;
	char key[IDENTITY_SIZE];
	struct strbuf stem = { 0 };
	int rc = run_key(c, v, &now, key, e);
	*is_kept = false;
	if (rc)
		return rc;
	strbuf_printf(&stem, "%s-%.16s", v->stem, key);
	v->kept = path_of(&stem);
	if (!v->kept)
		return err_nomem(e);
	char *facts = join(v->kept, ".json"), *part = join(v->kept, ".part");
	struct json *j = facts && file_exists(facts) ? read_json(facts) : NULL;
	bool good = j && part && json_number(json_get(j, "run_seconds"), &v->run_seconds) && read_layers(c, v, json_get(j, "layers"));
	const char *list[1] = { part };
	if (good && verify_part_merge(list, 1, &kept, &v->m, NULL))
		good = false;
	else if (good && (!same_run(&kept, &now) || !v->m.has_reference)) {
		measurement_release(&v->m);
		good = false;
	}
	if (!good) {
		free(v->layer);
		v->layer = NULL;
	}
	json_free(j);
	free(facts);
	free(part);
	*is_kept = good;
	return ERR_OK;
}

/* Writes what w holds, whose text it releases, and the path. */
static int keep_json(char *path, struct json_writer *w, struct err *e)
{
	strbuf_putc(w->out, '\n');
	int rc = w->out->failed || !path ? err_nomem(e) : file_write(path, w->out->data, w->out->len, e);
	strbuf_release(w->out);
	free(path);
	return rc;
}

void compare_goes_on(const struct compare *c)
{
	progress_keeps(c->work, "the same command goes on with it");
}

int compare_keep(const struct compare *c, struct variant *v, struct err *e)
{
	struct run_id id;
	struct strbuf text = { 0 };
	struct json_writer w = { .out = &text, .indent = 2 };
	char *facts = join(v->kept, ".json"), *part = join(v->kept, ".part");
	int rc = facts && part ? run_id(c, v, &id, e) : err_nomem(e);
	if (!rc)
		rc = verify_part_write(part, &id, &v->m, e);
	jw_object(&w, NULL);
	jw_string(&w, "name", v->name);
	jw_double(&w, "run_seconds", v->run_seconds);
	if (v->layer) {
		jw_array(&w, "layers");
		for (size_t i = 0; i < c->reference.config.layers; i++)
			jw_double(&w, NULL, v->layer[i]);
		jw_end_array(&w);
	}
	jw_end_object(&w);
	strbuf_putc(&text, '\n');
	/* the last to appear: without it the measurement does not count */
	if (!rc)
		rc = text.failed ? err_nomem(e) : file_write(facts, text.data, text.len, e);
	strbuf_release(&text);
	free(facts);
	free(part);
	return rc;
}

static char *attribution_path(const struct variant *v, enum attribute_by by)
{
	struct strbuf s = { 0 };
	strbuf_printf(&s, "%s-by-%s.json", v->kept, attribute_rows[by].name);
	return path_of(&s);
}

bool compare_kept_attribution(const struct compare *c, struct variant *v, enum attribute_by by)
{
	char *path = attribution_path(v, by);
	struct json *j = path && file_exists(path) ? read_json(path) : NULL;
	bool good = j && attribution_read(json_get(j, "attribution"), by, &v->attribution);
	if (good && v->attribution.windows != c->w.count) {
		attribution_release(&v->attribution);
		good = false;
	}
	json_free(j);
	free(path);
	return good;
}

int compare_keep_attribution(const struct variant *v, struct err *e)
{
	struct strbuf text = { 0 };
	struct json_writer w = { .out = &text, .indent = 2 };
	char *path = attribution_path(v, v->attribution.by);
	jw_object(&w, NULL);
	jw_string(&w, "name", v->name);
	attribution_json(&v->attribution, "attribution", &w);
	jw_end_object(&w);
	return keep_json(path, &w, e);
}

int compare_keep_made(const struct variant *v, struct err *e)
{
	struct strbuf text = { 0 };
	struct json_writer w = { .out = &text, .indent = 2 };
	char *path = join(v->stem, ".json");
	jw_object(&w, NULL);
	jw_string(&w, "name", v->name);
	jw_string(&w, "key", v->key);
	jw_double(&w, "make_seconds", v->make_seconds);
	jw_end_object(&w);
	return keep_json(path, &w, e);
}

void compare_kept_made(struct variant *v)
{
	char *path = join(v->stem, ".json");
	struct json *j = path && file_exists(path) ? read_json(path) : NULL;
	json_number(json_get(j, "make_seconds"), &v->make_seconds);
	json_free(j);
	free(path);
}
