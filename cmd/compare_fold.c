/* Folded variants of `compare`: made by `fold` itself, with the words of the plan's line as its options. */
#include <stdlib.h>
#include <string.h>

#include "calib/run/text.h"
#include "cmd/compare.h"
#include "formats/file.h"

/* By name in a plan; the other options of fold say where and how to write, which is compare's business. */
static const struct {
	const char *name, *option;
} fold_options[] = {
	{ "kv-heads", "kv-heads" },
	{ "layers", "layers" },
	{ "share-layers", "share-layers" },
	{ "share-method", "share-method" },
	{ "sliding-window", "sliding-window" },
	{ "window", "window" }, /* older spellings: this and fold-samples */
	{ "full-every", "full-every" },
	{ "kv-budget", "kv-budget" },
	{ "group", "group" },
	{ "fold-method", "method" },
	{ "fold-stats", "stats" },
	{ "fold-windows", "windows" },
	{ "fold-samples", "samples" },
	{ "fold-steps", "steps" },
	{ "fold-seed", "seed" },
};

const char *fold_option(const char *name, size_t n)
{
	for (size_t i = 0; i < sizeof fold_options / sizeof *fold_options; i++)
		if (strlen(fold_options[i].name) == n && !memcmp(name, fold_options[i].name, n))
			return fold_options[i].option;
	return NULL;
}

/* A command line of fold. */
struct fold_line {
	void *options;
	struct string_list args;
};

static void line_release(struct fold_line *l)
{
	if (l->options)
		options_release(&fold_command, l->options);
	free(l->options);
	free(l->args.item);
}

/* output NULL: only the words are looked at. The texts of --calib go in as --data. */
static int line_parse(const struct compare *c, const struct variant *v, const char *output, struct fold_line *l, struct err *e)
{
	size_t most = 8 + v->fold.count + 2 * c->o->calib.count, n = 0;
	char **argv = calloc(most, sizeof *argv);
	*l = (struct fold_line){ .options = calloc(1, fold_command.options_size), .args.item = calloc(most, sizeof *l->args.item) };
	int rc = argv && l->options && l->args.item ? ERR_OK : err_nomem(e);
	const char *const start[] = { "fold", "--quiet", "--no-source-hash", "--force", "--output", output ? output : "-" };
	for (size_t i = 0; !rc && i < sizeof start / sizeof *start; i++)
		argv[n++] = (char *)(uintptr_t)start[i];
	for (size_t i = 0; !rc && i < v->fold.count; i++)
		argv[n++] = (char *)(uintptr_t)v->fold.item[i];
	for (size_t i = 0; !rc && i < c->o->calib.count; i++) {
		argv[n++] = (char *)(uintptr_t)"--data";
		argv[n++] = (char *)(uintptr_t)c->o->calib.item[i];
	}
	if (!rc)
		argv[n++] = (char *)(uintptr_t)(v->from ? v->from : c->model);
	if (!rc)
		rc = options_parse(&fold_command, (int)n, argv, l->options, &l->args, e);
	free(argv);
	return rc;
}

static const char *stats_of(const struct variant *v)
{
	for (size_t i = 0; i < v->fold.count; i++)
		if (!strncmp(v->fold.item[i], "--stats=", 8))
			return v->fold.item[i] + 8;
	return NULL;
}

int fold_check_words(const struct compare *c, const struct variant *v, struct err *e)
{
	struct fold_line l;
	if (!c->o->calib.count && !stats_of(v))
		return err_set(e, ERR_USAGE, "fold options need a text to calibrate on, another one than the judged: --calib TEXT "
			       "(or fold-stats=STATS)");
	for (size_t i = 0; i < c->o->calib.count; i++)
		if (file_same(c->o->calib.item[i], c->o->data) || !strcmp(c->o->calib.item[i], c->o->data))
			return err_set(e, ERR_USAGE, "--calib and --data are the same text; what was fitted to a text is not judged on it");
	int rc = line_parse(c, v, NULL, &l, e);
	line_release(&l);
	return rc;
}

int fold_text_key(struct compare *c, struct err *e)
{
	struct sha256 h;
	sha256_init(&h);
	for (size_t i = 0; i < c->o->calib.count; i++) {
		struct strbuf text = { 0 };
		int rc = text_read(c->o->calib.item[i], &text, e);
		if (!rc)
			identity_add(&h, text.data, text.len);
		strbuf_release(&text);
		if (rc)
			return rc;
	}
	identity_finish(&h, c->calib_key);
	return ERR_OK;
}

int fold_key(const struct compare *c, struct variant *v, const char *base, char out[IDENTITY_SIZE], struct err *e)
{
	struct sha256 h;
	struct strbuf path = { 0 };
	sha256_init(&h);
	identity_add(&h, "fold, quire " QUIRE_VERSION, strlen("fold, quire " QUIRE_VERSION));
	identity_add(&h, base, strlen(base));
	identity_add(&h, c->calib_key, strlen(c->calib_key));
	for (size_t i = 0; i < v->fold.count; i++)
		identity_add(&h, v->fold.item[i], strlen(v->fold.item[i]));
	if (stats_of(v) && compare_add_ends(&h, stats_of(v), e))
		return e->code;
	identity_finish(&h, out);
	strbuf_printf(&path, "%s/folded-%.16s.%s", c->work, out, c->o->to);
	free(v->folded);
	v->folded = path.data;
	return path.failed ? err_nomem(e) : ERR_OK;
}

int fold_make(const struct compare *c, const struct variant *v, struct err *e)
{
	struct fold_line l;
	int rc = line_parse(c, v, v->folded, &l, e);
	if (!rc)
		rc = fold_command.run(l.options, l.args.item, l.args.count, e);
	line_release(&l);
	return rc;
}
