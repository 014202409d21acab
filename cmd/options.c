/* The option parser: one pass over argv, driven by the tables of the command. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"

const struct option_row common_rows[] = {
	{ "json", 0, OPT_FLAG, NULL, "print results as JSON", offsetof(struct common, json) },
	{ "quiet", 'q', OPT_FLAG, NULL, "no progress and no notes", offsetof(struct common, quiet) },
	{ "verbose", 'v', OPT_FLAG, NULL, "say more", offsetof(struct common, verbose) },
	{ "threads", 0, OPT_INT, "N", "use N threads (default: OMP_NUM_THREADS or all cores)", offsetof(struct common, threads) },
	{ "help", 'h', OPT_FLAG, NULL, "show this help", offsetof(struct common, help) },
};
const unsigned common_row_count = sizeof common_rows / sizeof *common_rows;

enum { NAME_LIMIT = 63 };

/* The row'th option, hidden ones included. */
static const struct option_row *option_at(const struct command *c, size_t row)
{
	if (row < c->option_count)
		return &c->options[row];
	row -= c->option_count;
	if (c->no_json) /* the first of the common rows */
		row++;
	return row < common_row_count ? &common_rows[row] : NULL;
}

const struct option_row *option_visible(const struct command *c, size_t row)
{
	const struct option_row *o;
	for (size_t i = 0; (o = option_at(c, i)); i++)
		if (o->help && !row--)
			return o;
	return NULL;
}

static const struct option_row *find_long(const struct command *c, const char *name, size_t len)
{
	const struct option_row *o;
	for (size_t i = 0; (o = option_at(c, i)); i++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct option_row *find_short(const struct command *c, char letter)
{
	const struct option_row *o;
	for (size_t i = 0; (o = option_at(c, i)); i++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int unknown_option(const struct command *c, const char *arg, const char *name, size_t len, struct err *e)
{
	char text[NAME_LIMIT + 1];
	const struct option_row *o, *found = NULL;
	unsigned best = (unsigned)len / 3 + 1;
	len = len < NAME_LIMIT ? len : NAME_LIMIT;
	memcpy(text, name, len);
	text[len] = '\0';
	for (size_t i = 0; len > 1 && (o = option_visible(c, i)); i++) {
		unsigned d = name_distance(text, o->name, best);
		if (!strncmp(text, o->name, len))
			d = 0;
		if (d < best || (d == best && !found)) {
			best = d;
			found = o;
		}
	}
	if (found)
		return err_set(e, ERR_USAGE, "unknown option %.80s; did you mean --%s?", arg, found->name);
	return err_set(e, ERR_USAGE, "unknown option %.80s; 'quire help %s' lists the options", arg, c->name);
}

bool size_parse(const char *text, uint64_t *out)
{
	static const struct {
		const char *suffix;
		double unit;
	} units[] = {
		{ "", 1 }, { "B", 1 },
		{ "K", 0x1p10 }, { "KiB", 0x1p10 }, { "KB", 1e3 }, { "M", 0x1p20 }, { "MiB", 0x1p20 }, { "MB", 1e6 },
		{ "G", 0x1p30 }, { "GiB", 0x1p30 }, { "GB", 1e9 }, { "T", 0x1p40 }, { "TiB", 0x1p40 }, { "TB", 1e12 },
	};
	char *end, unit[4];
	if (*text < '0' || *text > '9' || text[1] == 'x' || text[1] == 'X')
		return false;
	double v = strtod(text, &end);
	if (strlen(end) >= sizeof unit)
		return false;
	strcpy(unit, end);
	if (*unit >= 'a' && *unit <= 'z')
		*unit = (char)(*unit - 'a' + 'A');
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (!strcmp(unit, units[i].suffix)) {
			v *= units[i].unit;
			if (!(v < 0x1p63))
				return false;
			*out = (uint64_t)v;
			return true;
		}
	return false;
}

static bool parse_int(const char *text, int64_t *out)
{
	char *end;
	const char *digits = text + (*text == '-' || *text == '+');
	if (*digits < '0' || *digits > '9')
		return false;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	*out = v;
	return !*end && !errno;
}

static bool parse_double(const char *text, double *out)
{
	char *end;
	if (!*text || strspn(text, "+-.0123456789eE") != strlen(text))
		return false;
	*out = strtod(text, &end);
	return end != text && !*end && isfinite(*out);
}

static int list_add(struct string_list *l, const char *item, struct err *e)
{
	if (!(l->count & (l->count - 1))) { /* grows at powers of two */
		const char **p = realloc(l->item, (l->count ? l->count * 2 : 1) * sizeof *p);
		if (!p)
			return err_nomem(e);
		l->item = p;
	}
	l->item[l->count++] = item;
	return ERR_OK;
}

static int store(const struct option_row *o, const char *value, void *opts, struct err *e)
{
	char *field = (char *)opts + o->field;
	bool good = true;
	const char *want = "";
	switch (o->type) {
	case OPT_FLAG:
		*(bool *)(void *)field = true;
		break;
	case OPT_LIST:
	case OPT_INPUTS:
		return list_add((struct string_list *)(void *)field, value, e);
	default: /* text, of which cmd/paths.c knows what it names */
		*(const char **)(void *)field = value;
		break;
	case OPT_INT:
		good = parse_int(value, (int64_t *)(void *)field);
		want = "a whole number";
		break;
	case OPT_DOUBLE:
		good = parse_double(value, (double *)(void *)field);
		want = "a number";
		break;
	case OPT_SIZE:
		good = size_parse(value, (uint64_t *)(void *)field);
		want = "a size such as 64MiB, 2G or 5e9";
		break;
	}
	if (!good)
		return err_set(e, ERR_USAGE, "--%s needs %s, not '%.80s'", o->name, want, value);
	return ERR_OK;
}

/* A following argument that looks like an option is no value: it is more often a value that was forgotten. */
static bool can_be_value(const char *arg)
{
	double number;
	return arg && (*arg != '-' || !arg[1] || parse_double(arg, &number));
}

struct parse {
	const struct command *c;
	int argc, at;
	char **argv;
	void *opts;
};

static int next_value(struct parse *p, const struct option_row *o, const char **value, struct err *e)
{
	*value = p->at + 1 < p->argc ? p->argv[p->at + 1] : NULL;
	if (!can_be_value(*value))
		return err_set(e, ERR_USAGE, "--%s needs a value: --%s %s%s", o->name, o->name, o->value,
			       *value ? " (write --NAME=VALUE when the value begins with '-')" : "");
	p->at++;
	return ERR_OK;
}

static int parse_long(struct parse *p, struct err *e)
{
	const char *arg = p->argv[p->at], *name = arg + 2, *value = strchr(name, '=');
	size_t len = value ? (size_t)(value - name) : strlen(name);
	const struct option_row *o = find_long(p->c, name, len);
	if (!o)
		return unknown_option(p->c, arg, name, len, e);
	if (value && o->type == OPT_FLAG)
		return err_set(e, ERR_USAGE, "--%s takes no value", o->name);
	if (value)
		value++;
	else if (o->type != OPT_FLAG && next_value(p, o, &value, e))
		return e->code;
	return store(o, value, p->opts, e);
}

static int parse_short(struct parse *p, struct err *e)
{
	const char *arg = p->argv[p->at], *at = arg + 1;
	if (find_long(p->c, at, strcspn(at, "=")) && at[1])
		return err_set(e, ERR_USAGE, "unknown option %.80s; did you mean -%.80s?", arg, arg);
	for (; *at; at++) {
		const struct option_row *o = find_short(p->c, *at);
		const char *value = at[1] ? at + 1 : NULL;
		if (!o)
			return unknown_option(p->c, arg, at, 1, e);
		if (o->type == OPT_FLAG) {
			store(o, NULL, p->opts, e);
			continue;
		}
		if (!value && next_value(p, o, &value, e))
			return e->code;
		return store(o, value, p->opts, e);
	}
	return ERR_OK;
}

int options_parse(const struct command *c, int argc, char **argv, void *opts, struct string_list *args, struct err *e)
{
	struct parse p = { .c = c, .argc = argc, .at = 1, .argv = argv, .opts = opts };
	bool only_args = false;
	struct common *common = opts;
	memset(opts, 0, c->options_size);
	if (c->defaults)
		memcpy(opts, c->defaults, c->options_size);
	args->count = 0;
	for (; p.at < argc; p.at++) {
		const char *arg = argv[p.at];
		int rc = ERR_OK;
		if (only_args || *arg != '-' || !arg[1])
			args->item[args->count++] = arg;
		else if (!strcmp(arg, "--"))
			only_args = true;
		else
			rc = arg[1] == '-' ? parse_long(&p, e) : parse_short(&p, e);
		if (common->help)
			return ERR_OK;
		if (rc)
			return rc;
	}
	if (args->count < c->min_args)
		return err_set(e, ERR_USAGE, "%s; usage: quire %s %s", args->count ? "an argument is missing" : "arguments are missing",
			       c->name, c->synopsis);
	if (args->count > c->max_args)
		return err_set(e, ERR_USAGE, "unexpected argument '%.80s'; usage: quire %s %s", args->item[c->max_args], c->name,
			       c->synopsis);
	if (common->threads < 0 || common->threads > 1024)
		return err_set(e, ERR_USAGE, "--threads needs a number from 1 to 1024 (0: all cores)");
	return ERR_OK;
}

void options_release(const struct command *c, void *opts)
{
	for (size_t i = 0; i < c->option_count; i++)
		if (c->options[i].type == OPT_LIST || c->options[i].type == OPT_INPUTS) {
			struct string_list *l = (void *)((char *)opts + c->options[i].field);
			free(l->item);
			*l = (struct string_list){ 0 };
		}
}
