/*
 * Chat templates: one text, or several by name. A folder has them in tokenizer_config.json (a text, or a list of names and
 * texts), in chat_template.jinja with additional_chat_templates/NAME.jinja, which go first, or in chat_template.json; GGUF
 * in tokenizer.chat_template, tokenizer.chat_template.NAME and the list of names tokenizer.chat_templates.
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "formats/gguf_model.h"
#include "formats/hf.h"

#define KEY "tokenizer.chat_template"

struct templates {
	struct gguf_writer *w;
	struct strbuf names;   /* each ends with a NUL */
	size_t count;
};

static bool plain_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool named_before(const struct templates *t, const char *name)
{
	for (size_t at = 0; at < t->names.len; at += strlen(t->names.data + at) + 1)
		if (!strcmp(t->names.data + at, name))
			return true;
	return false;
}

/* Names are part of a key: what is no letter or digit becomes '_' there, as in llama.cpp's converter. */
static void put(struct templates *t, const char *name, size_t name_len, const char *text, size_t len)
{
	char plain[64], key[sizeof KEY + sizeof plain];
	size_t n = name_len < sizeof plain ? name_len : sizeof plain - 1;
	for (size_t i = 0; i < n; i++)
		plain[i] = plain_char(name[i]) ? name[i] : '_';
	plain[n] = '\0';
	if (!n || !strcmp(plain, "default")) {
		gguf_put_string(t->w, KEY, text, len);
		return;
	}
	if (n < name_len || named_before(t, plain)) {
		notes_add(t->w->notes, "chat template '%.80s' is left out: GGUF would call it '%s', like another one", name, plain);
		return;
	}
	strbuf_add(&t->names, plain, n + 1);
	t->count++;
	snprintf(key, sizeof key, KEY ".%s", plain);
	gguf_put_string(t->w, key, text, len);
}

static void put_list(struct templates *t, const struct json *j)
{
	const char *text = json_string(j);
	if (text)
		put(t, "", 0, text, strlen(text));
	for (const struct json *x = json_kind(j) == JSON_ARRAY ? json_first(j) : NULL; x; x = json_next(x)) {
		const char *name = json_string(json_get(x, "name"));
		text = json_string(json_get(x, "template"));
		if (name && *name && text)
			put(t, name, strlen(name), text, strlen(text));
	}
}

static int put_files(struct templates *t, const struct checkpoint *c, bool *some, struct err *e)
{
	const size_t folder = strlen(SIDE_TEMPLATES), end = strlen(".jinja");
	const struct side_file *f;
	const char *name;
	int rc = checkpoint_file(c, "chat_template.jinja", &f, e);
	*some = f != NULL;
	if (f)
		put(t, "", 0, f->data, f->size);
	for (size_t i = 0; !rc && (name = checkpoint_file_name(c, i)); i++) {
		if (strncmp(name, SIDE_TEMPLATES, folder) || (rc = checkpoint_file(c, name, &f, e)))
			continue;
		put(t, name + folder, strlen(name + folder) - end, f->data, f->size);
		*some = true;
	}
	return rc;
}

static int put_json(struct templates *t, const struct checkpoint *c, const char *file, bool *some, struct err *e)
{
	struct json *root;
	int rc = checkpoint_json(c, file, &root, e);
	*some = false;
	if (rc)
		return rc;
	const struct json *j = json_get(root, "chat_template");
	if (!json_is_null(j)) {
		put_list(t, j);
		*some = true;
	}
	json_free(root);
	return ERR_OK;
}

int gguf_put_chat_templates(struct gguf_writer *w, const struct checkpoint *c, struct err *e)
{
	struct templates t = { .w = w };
	bool some;
	int rc = put_files(&t, c, &some, e);
	if (!some && !rc)
		rc = put_json(&t, c, "tokenizer_config.json", &some, e);
	if (!some && !rc)
		rc = put_json(&t, c, "chat_template.json", &some, e);
	if (t.count && !t.names.failed) {
		gguf_begin_strings(w, KEY "s");
		for (size_t at = 0; at < t.names.len; at += strlen(t.names.data + at) + 1)
			gguf_array_string(w, t.names.data + at, strlen(t.names.data + at));
		gguf_end_strings(w);
	}
	if (!rc && t.names.failed)
		rc = err_nomem(e);
	strbuf_release(&t.names);
	return rc;
}

static void entry(struct json_writer *w, const char *name, size_t len, const char *text, size_t size)
{
	jw_object(w, NULL);
	jw_string_n(w, "name", name, len);
	jw_string_n(w, "template", text, size);
	jw_end_object(w);
}

void gguf_chat_templates(const struct gguf *g, struct json_writer *w)
{
	size_t len, size;
	const char *main = gguf_string(gguf_find(g, KEY), &len), *text;
	bool list = false;
	if (main && !utf8_valid(main, len))
		main = NULL;
	for (size_t i = 0; i < g->kv_count; i++) {
		const char *name = g->kv[i].key;
		if (strncmp(name, KEY ".", sizeof KEY) || !name[sizeof KEY] || !(text = gguf_string(&g->kv[i], &size)) ||
		    !utf8_valid(text, size))
			continue;
		if (!list) {
			jw_array(w, "chat_template");
			if (main)
				entry(w, "default", strlen("default"), main, len);
			list = true;
		}
		entry(w, name + sizeof KEY, strlen(name + sizeof KEY), text, size);
	}
	if (list)
		jw_end_array(w);
	else if (main)
		jw_string_n(w, "chat_template", main, len);
}
