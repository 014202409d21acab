/* The plan file of `compare`: a variant per line. */
#include <stdlib.h>
#include <string.h>

#include "cmd/compare.h"
#include "formats/file.h"

/* One of a line's words, or two: `--kv-heads 4` is `kv-heads=4`. */
struct word {
	const char *name, *value;   /* value NULL: a word by itself */
	size_t name_len, value_len;
};

static int list_add(struct string_list *l, char *item, struct err *e)
{
	const char **p = item ? realloc(l->item, (l->count + 1) * sizeof *p) : NULL;
	if (!p) {
		free(item);
		return err_nomem(e);
	}
	l->item = p;
	l->item[l->count++] = item;
	return ERR_OK;
}

static int add_tensor(struct variant *v, const struct word *w, struct err *e)
{
	char *copy = NULL;
	int rc = variant_text(&copy, w->value, w->value_len, e);
	return rc ? rc : list_add(&v->tensor, copy, e);
}

static int add_fold(struct variant *v, const char *option, const struct word *w, struct err *e)
{
	struct strbuf b = { 0 };
	strbuf_printf(&b, "--%s=%.*s", option, (int)w->value_len, w->value);
	return list_add(&v->fold, b.data, e);
}

static int plan_option(struct variant *v, const struct word *w, struct err *e)
{
	static const struct {
		const char *name;
		size_t field;
	} fields[] = {
		{ "scheme", offsetof(struct variant, scheme) },
		{ "method", offsetof(struct variant, method) },
		{ "recipe", offsetof(struct variant, recipe) },
		{ "file", offsetof(struct variant, file) },
		{ "from", offsetof(struct variant, from) },
		{ "kv-cache", offsetof(struct variant, kv) },
		{ "kv-cache-v", offsetof(struct variant, kv_v) },
		{ "kv-rotate", offsetof(struct variant, kv_rotate) },
	};
	const char *option = fold_option(w->name, w->name_len);
	if (w->name_len == 6 && !memcmp(w->name, "tensor", 6))
		return add_tensor(v, w, e);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		if (strlen(fields[i].name) == w->name_len && !memcmp(w->name, fields[i].name, w->name_len))
			return variant_text((char **)(void *)((char *)v + fields[i].field), w->value, w->value_len, e);
	if (option)
		return add_fold(v, option, w, e);
	return err_set(e, ERR_USAGE, "unknown option '%.*s'; a variant takes scheme, method, recipe, tensor, from, file, kv-cache, kv-cache-v, "
		       "kv-rotate, and of fold kv-heads, layers, share-layers, share-method, sliding-window, full-every, kv-budget, group and fold-method",
		       (int)(w->name_len < 40 ? w->name_len : 40), w->name);
}

/* The next blank-separated piece of line[at..n); false at the end or a comment. */
static bool next_piece(const char *line, size_t n, size_t *at, const char **piece, size_t *len)
{
	while (*at < n && strchr(" \t\r", line[*at]))
		++*at;
	*piece = line + *at;
	for (*len = 0; *at < n && !strchr(" \t\r", line[*at]); ++*at)
		++*len;
	return *len && **piece != '#';
}

static bool next_word(const char *line, size_t n, size_t *at, struct word *w, struct err *e)
{
	*w = (struct word){ 0 };
	if (!next_piece(line, n, at, &w->name, &w->name_len))
		return false;
	bool dashes = w->name_len > 2 && !memcmp(w->name, "--", 2);
	const char *equal = memchr(w->name, '=', w->name_len);
	if (dashes) {
		w->name += 2;
		w->name_len -= 2;
	}
	if (equal) {
		w->value = equal + 1;
		w->value_len = w->name_len - (size_t)(equal + 1 - w->name);
		w->name_len = (size_t)(equal - w->name);
	} else if (dashes && !next_piece(line, n, at, &w->value, &w->value_len)) {
		err_set(e, ERR_USAGE, "--%.*s needs a value", (int)(w->name_len < 40 ? w->name_len : 40), w->name);
		return false;
	}
	return true;
}

static int check(const struct variant *v, struct err *e)
{
	if (v->kv_rotate && strcmp(v->kv_rotate, "yes"))
		return err_set(e, ERR_USAGE, "kv-rotate takes yes, not '%.40s'", v->kv_rotate);
	if (!v->scheme && !v->recipe && !v->file && !v->tensor.count && !v->fold.count)
		return err_set(e, ERR_USAGE, "variant '%.80s' has no scheme, no recipe, no fold options and no file", v->name);
	if (v->file && (v->scheme || v->method || v->recipe || v->tensor.count || v->from || v->fold.count))
		return err_set(e, ERR_USAGE, "variant '%.80s' is a file; it takes no scheme, method, recipe, tensor, from or fold options", v->name);
	return ERR_OK;
}

static int plan_line(struct compare *c, const char *line, size_t n, struct err *e)
{
	struct variant *v = NULL;
	struct word w;
	size_t at = 0;
	int rc = ERR_OK;
	e->code = ERR_OK;
	while (!rc && next_word(line, n, &at, &w, e)) {
		if (!v && w.value)
			return err_set(e, ERR_USAGE, "a line begins with the variant's name, not with an option");
		if (!v && !(rc = variant_add(c, &v, e)))
			rc = variant_text(&v->name, w.name, w.name_len, e);
		else if (!rc && w.value)
			rc = plan_option(v, &w, e);
		else if (!rc && !v->scheme)
			rc = variant_text(&v->scheme, w.name, w.name_len, e);
		else if (!rc)
			return err_set(e, ERR_USAGE, "'%.*s' is not NAME=VALUE", (int)(w.name_len < 40 ? w.name_len : 40), w.name);
	}
	rc = rc ? rc : e->code;
	return rc || !v ? rc : check(v, e);
}

int compare_plan_text(struct compare *c, const char *text, size_t len, const char *name, struct err *e)
{
	const char *end = text + len, *at = text;
	for (size_t line = 1; at < end; line++) {
		const char *nl = memchr(at, '\n', (size_t)(end - at)), *stop = nl ? nl : end;
		size_t n = (size_t)(stop - at);
		int rc = memchr(at, 0, n) ? err_set(e, ERR_USAGE, "a NUL byte; a plan is text") : plan_line(c, at, n, e);
		if (rc)
			return err_prefix(e, "%.600s, line %zu", name, line);
		at = stop + (nl != NULL);
	}
	return ERR_OK;
}

int compare_plan(struct compare *c, const char *path, struct err *e)
{
	struct strbuf text = { 0 };
	int rc = stream_read(path, &text, 1 << 20, e);
	if (!rc)
		rc = compare_plan_text(c, text.data, text.len, path, e);
	strbuf_release(&text);
	return rc;
}
