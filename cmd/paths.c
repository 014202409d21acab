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

/* An output of a command: an option that is given, or the file that a flag's environment variable names, which grows. */
struct target {
	const struct kind *kind; /* NULL: it grows */
	const char *dashes, *name, *path;
};

static bool target_of(const struct option_row *o, const void *opts, struct target *t)
{
	static const struct {
		const char *flag, *variable;
	} named_outside[] = { { "github", "GITHUB_STEP_SUMMARY" } };
	*t = (struct target){ .kind = kind_of(o), .dashes = "--", .name = o->name };
	if (t->kind)
		t->path = value_of(o, opts);
	for (size_t i = 0; i < sizeof named_outside / sizeof *named_outside; i++)
		if (o->type == OPT_FLAG && !strcmp(o->name, named_outside[i].flag) && *(const bool *)(const void *)((const char *)opts + o->field))
			*t = (struct target){ .dashes = "", .name = named_outside[i].variable, .path = getenv(named_outside[i].variable) };
	return t->path && *t->path;
}

static bool flag(const struct command *c, const void *opts, const char *name)
{
	for (size_t i = 0; i < c->option_count; i++)
		if (c->options[i].type == OPT_FLAG && !strcmp(c->options[i].name, name))
			return *(const bool *)(const void *)((const char *)opts + c->options[i].field);
	return false;
}

static int is_input(const struct target *t, const char *output, struct err *e)
{
	return err_set(e, ERR_USAGE, "'%.600s' is an input as well; give %s%s another name", output, t->dashes, t->name);
}

/* Against one input; "-" is standard input. */
static int check_input(const struct target *t, const char *input, struct err *e)
{
	const char *beside = t->kind ? t->kind->beside : NULL;
	if (!strcmp(input, "-"))
		return ERR_OK;
	if (checkpoint_reads(input, t->path))
		return is_input(t, t->path, e);
	struct strbuf other = { 0 };
	int rc = ERR_OK;
	if (beside)
		strbuf_printf(&other, "%s%s", t->path, beside);
	if (other.failed)
		rc = err_nomem(e);
	else if (beside && checkpoint_reads(input, other.data))
		rc = is_input(t, other.data, e);
	strbuf_release(&other);
	return rc;
}

int paths_input(const struct command *c, const void *opts, const char *input, struct err *e)
{
	int rc = ERR_OK;
	for (size_t i = 0; i < c->option_count && input && !rc; i++) {
		struct target t;
		if (target_of(&c->options[i], opts, &t))
			rc = check_input(&t, input, e);
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

/* One document on standard output, and nothing else. */
static int check_stdout(const struct command *c, const void *opts, struct err *e)
{
	const struct common *common = opts;
	struct target t;
	for (size_t i = 0; i < c->option_count && common->json; i++)
		if (c->options[i].type != OPT_OUTPUT && target_of(&c->options[i], opts, &t) && out_is_stdout(t.path))
			return err_set(e, ERR_USAGE, "--json and %s%s both go to standard output; name a file", t.dashes, t.name);
	return ERR_OK;
}

static int check_pairs(const struct command *c, const void *opts, struct err *e)
{
	for (size_t i = 0; i < c->option_count; i++)
		for (size_t k = 0; k < i; k++) {
			struct target a, b;
			if (target_of(&c->options[k], opts, &a) && target_of(&c->options[i], opts, &b) && same_target(a.path, b.path))
				return err_set(e, ERR_USAGE, "%s%s and %s%s name the same file '%.600s'", a.dashes, a.name, b.dashes, b.name, b.path);
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
		rc = check_stdout(c, opts, e);
	if (!rc)
		rc = check_pairs(c, opts, e);
	return rc ? rc : check_existing(c, opts, e);
}
