/*
 * The one place that knows all files of a command: option tables say which options name inputs and outputs, and of what
 * kind. An output that is an input is refused, so are two outputs that are one file, and an existing file that is not an
 * earlier output of the same kind.
 */
#include "cmd/paths.h"

#include <stdlib.h>
#include <string.h>

#include "calib/stats/stats.h"
#include "formats/checkpoint.h"
#include "formats/file.h"

enum { HEAD = 512 };

static const struct kind {
	enum option_type type;
	const char *what;        /* "holds no WHAT"; NULL: an existing file is never taken for an earlier output */
	const char *marks[2];    /* one of them is at the beginning of such a file */
	const char *beside;      /* a suffix of another file that is written: none of the inputs, either */
} kinds[] = {
	{ .type = OPT_OUTPUT },
	{ .type = OPT_OUT_FOLDER },
	{ .type = OPT_OUT_STATS, .what = "statistics", .beside = ".resume" },
	{ .type = OPT_OUT_BASELINE, .what = "baseline", .marks = { "quirebas" } },
	{ .type = OPT_OUT_PART, .what = "part of a run", .marks = { "quirepar" } },
	{ .type = OPT_OUT_JUNIT, .what = "JUnit report of verify", .marks = { "<testsuite name=\"quire verify\"" } },
	{ .type = OPT_OUT_REPORT, .what = "report of quantize", .marks = { "\"quire-report/", "<!doctype html><html lang=en><meta charset=utf-8>" } },
	{ .type = OPT_OUT_CSV, .what = "table of compare", .marks = { "name,scheme,method,path,file_bytes," } },
	{ .type = OPT_OUT_PAGE, .what = "page of compare", .marks = { "<title>Variants of " } },
};

static const struct kind *kind_of(const struct option_row *o)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (kinds[i].type == o->type)
			return &kinds[i];
	return NULL;
}

static const char *value_of(const struct option_row *o, const void *opts)
{
	return *(const char *const *)(const void *)((const char *)opts + o->field);
}

static bool flag(const struct command *c, const void *opts, const char *name)
{
	for (size_t i = 0; i < c->option_count; i++)
		if (c->options[i].type == OPT_FLAG && !strcmp(c->options[i].name, name))
			return *(const bool *)(const void *)((const char *)opts + c->options[i].field);
	return false;
}

static int is_input(const struct option_row *o, const char *output, struct err *e)
{
	return err_set(e, ERR_USAGE, "'%.600s' is an input as well; give --%s another name", output, o->name);
}

/* Against one input; "-" is standard input. */
static int check_input(const struct option_row *o, const char *output, const char *input, struct err *e)
{
	const struct kind *k = kind_of(o);
	if (!strcmp(input, "-"))
		return ERR_OK;
	if (checkpoint_reads(input, output))
		return is_input(o, output, e);
	struct strbuf other = { 0 };
	int rc = ERR_OK;
	if (k->beside)
		strbuf_printf(&other, "%s%s", output, k->beside);
	if (other.failed)
		rc = err_nomem(e);
	else if (k->beside && checkpoint_reads(input, other.data))
		rc = is_input(o, other.data, e);
	strbuf_release(&other);
	return rc;
}

int paths_input(const struct command *c, const void *opts, const char *input, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < c->option_count && input && !rc; i++) {
		const struct option_row *o = &c->options[i];
		if (kind_of(o) && value_of(o, opts))
			rc = check_input(o, value_of(o, opts), input, e);
	}
	return rc;
}

static int check_inputs(const struct command *c, const void *opts, const char *const *args, size_t count, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < count && !rc && (!c->file_args || i < c->file_args); i++)
		rc = paths_input(c, opts, args[i], e);
	for (size_t i = 0; i < c->option_count && !rc; i++) {
		const struct option_row *o = &c->options[i];
		const struct string_list *l = (const void *)((const char *)opts + o->field);
		if (o->type == OPT_INPUT)
			rc = paths_input(c, opts, value_of(o, opts), e);
		for (size_t k = 0; o->type == OPT_INPUTS && k < l->count && !rc; k++)
			rc = paths_input(c, opts, l->item[k], e);
	}
	return rc;
}

/* The same file, or the same name in the same folder where there is none yet. */
static bool same_target(const char *a, const char *b)
{
	if (file_exists(a) || file_exists(b))
		return file_same(a, b);
	char *x = path_dirname(a), *y = path_dirname(b);
	bool same = x && y && file_same(x, y) && !strcmp(path_basename(a), path_basename(b));
	free(x);
	free(y);
	return same;
}

static int check_pairs(const struct command *c, const void *opts, struct err *e)
{
	for (size_t i = 0; i < c->option_count; i++)
		for (size_t k = 0; k < i; k++) {
			const struct option_row *a = &c->options[k], *b = &c->options[i];
			if (kind_of(a) && kind_of(b) && value_of(a, opts) && value_of(b, opts) && same_target(value_of(a, opts), value_of(b, opts)))
				return err_set(e, ERR_USAGE, "--%s and --%s name the same file '%.600s'", a->name, b->name, value_of(b, opts));
		}
	return ERR_OK;
}

/* Empty files are what mktemp makes. */
static bool is_earlier(const struct kind *k, const char *path)
{
	struct mapped m;
	struct stats *s;
	if (k->type == OPT_OUT_STATS) {
		bool good = !stats_open(path, &s, NULL);
		if (good) {
			stats_close(s);
			return true;
		}
	}
	if (mapped_open(&m, path, NULL))
		return true; /* a folder, a pipe, one that may not be read: whoever writes says so better */
	size_t n = m.size < HEAD ? m.size : HEAD;
	bool good = !n;
	for (size_t i = 0; i < 2 && k->marks[i] && !good; i++) {
		size_t len = strlen(k->marks[i]);
		for (size_t at = 0; at + len <= n && !good; at++)
			good = !memcmp(m.data + at, k->marks[i], len);
	}
	mapped_close(&m);
	return good;
}

static int check_existing(const struct command *c, const void *opts, struct err *e)
{
	if (flag(c, opts, "force") || flag(c, opts, "dry-run"))
		return ERR_OK;
	for (size_t i = 0; i < c->option_count; i++) {
		const struct kind *k = kind_of(&c->options[i]);
		const char *path = k ? value_of(&c->options[i], opts) : NULL;
		if (!path || k->type == OPT_OUT_FOLDER || !file_exists(path) || file_is_dir(path))
			continue;
		if (!k->what)
			return err_set(e, ERR_USAGE, "'%.600s' exists; --force overwrites it", path);
		if (!is_earlier(k, path))
			return err_set(e, ERR_USAGE, "'%.600s' exists and holds no %s; --force overwrites it", path, k->what);
	}
	return ERR_OK;
}

int paths_check(const struct command *c, const void *opts, const char *const *args, size_t count, struct err *e)
{
	int rc = check_inputs(c, opts, args, count, e);
	if (!rc)
		rc = check_pairs(c, opts, e);
	return rc ? rc : check_existing(c, opts, e);
}
