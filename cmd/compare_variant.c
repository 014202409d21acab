/* The variants of `compare`: what is asked for, what identifies each, and making those that are not there yet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/calibration.h"
#include "cmd/compare.h"
#include "formats/file.h"

enum { CALIB_SAMPLES = 128 }; /* as quantize --data */

/* "Q4_K_M" or "Q4_K_M/gptq" */
static int add_scheme(struct compare *c, const char *text, size_t n, struct err *e)
{
	struct variant *v;
	const char *slash = memchr(text, '/', n);
	size_t scheme = slash ? (size_t)(slash - text) : n;
	int rc = variant_add(c, &v, e);
	if (!rc)
		rc = variant_text(&v->name, text, n, e);
	if (!rc)
		rc = variant_text(&v->scheme, text, scheme, e);
	if (!rc && slash)
		rc = variant_text(&v->method, slash + 1, n - scheme - 1, e);
	return rc;
}

static int add_list(struct compare *c, const char *list, struct err *e)
{
	while (*list) {
		size_t n = strcspn(list, ",");
		if (n && add_scheme(c, list, n, e))
			return e->code;
		list += n + (list[n] == ',');
	}
	return ERR_OK;
}

static int add_file(struct compare *c, const char *path, struct err *e)
{
	struct variant *v;
	int rc = variant_add(c, &v, e);
	if (!rc)
		rc = variant_text(&v->name, path_basename(path), strlen(path_basename(path)), e);
	return rc ? rc : variant_text(&v->file, path, strlen(path), e);
}

/* Else it is a checkpoint as it is, or a folded one in its own types. */
static bool variant_quantized(const struct variant *v)
{
	return v->scheme || v->recipe || v->tensor.count;
}

static int variant_recipe(const struct variant *v, struct recipe **out, struct err *e)
{
	int rc = recipe_new(v->scheme, out, e);
	return rc ? rc : produce_recipe(*out, v->recipe, &v->tensor, e);
}

static const char *method_name(const struct compare *c, const struct variant *v)
{
	return v->method ? v->method : c->o->method ? c->o->method : c->default_method;
}

/* Statistics of the original say nothing about another checkpoint: methods gather their own there. */
static bool has_own_weights(const struct variant *v)
{
	return v->from || v->fold.count;
}

/* Single matrices can be attributed where channels stay what they are. */
static struct quantizer_options quantizer_wishes(const struct compare *c)
{
	return (struct quantizer_options){ .passes = (int)c->o->distill, .keep_channels = c->o->attribute && strcmp(c->o->attribute, "layers") };
}

/* Variants of one run may mix plain methods and calibrated ones. */
static int find_method(const struct compare *c, const struct variant *v, struct produce *p, struct calibration *k, struct err *e)
{
	const char *name = method_name(c, v);
	const struct quantizer_row *row = quantizer_find(name);
	p->method = method_find(row ? "imatrix" : name);
	if (!p->method)
		return method_unknown(name, e);
	if (row && has_own_weights(v) && !c->o->calib.count)
		return err_set(e, ERR_USAGE, "method %s needs statistics of the changed model; give a text to gather them on: --calib TEXT", name);
	if (row && !has_own_weights(v) && !c->o->stats)
		return err_set(e, ERR_USAGE, "method %s needs statistics of the model: --stats FILE (see quire calibrate)", name);
	*k = (struct calibration){ .row = row, .stats = c->o->stats, .options = quantizer_wishes(c) };
	if (row && has_own_weights(v))
		*k = (struct calibration){ .row = row, .texts = c->o->calib.item, .text_count = c->o->calib.count, .samples = CALIB_SAMPLES,
					   .options = quantizer_wishes(c) };
	p->calibration = row ? k : NULL;
	return ERR_OK;
}

/* Statistics of another model are refused before anything is made. */
int compare_stats(struct compare *c, struct err *e)
{
	struct stats *s = NULL;
	struct sha256 h;
	c->default_method = "search";
	if (!c->o->stats)
		return ERR_OK;
	int rc = stats_open(c->o->stats, &s, e);
	if (!rc)
		rc = stats_check(s, &c->reference.config, c->reference.checkpoint->source, c->reference.tokenizer, e);
	if (!rc)
		c->default_method = quantizer_default(s)->name;
	stats_close(s);
	sha256_init(&h);
	if (!rc)
		rc = compare_add_ends(&h, c->o->stats, e);
	identity_finish(&h, c->stats_key);
	return rc;
}

/* Everything that can be wrong with the words is found before anything is made. */
static int check_variant(const struct compare *c, size_t at, struct err *e)
{
	const struct variant *v = &c->variants[at];
	for (size_t i = 0; i < at; i++)
		if (!strcmp(c->variants[i].name, v->name))
			return err_set(e, ERR_USAGE, "two variants are called '%.80s'; give them names in a --plan file", v->name);
	if (v->file) {
		if (!file_exists(v->file))
			return err_set(e, ERR_IO, "'%.600s' does not exist", v->file);
		return ERR_OK;
	}
	if (v->from && !file_exists(v->from))
		return err_set(e, ERR_IO, "'%.600s' does not exist", v->from);
	struct recipe *r = NULL;
	struct produce p;
	struct calibration k;
	int rc = v->fold.count ? fold_check_words(c, v, e) : ERR_OK;
	if (!rc && variant_quantized(v))
		rc = variant_recipe(v, &r, e);
	recipe_free(r);
	if (!rc && variant_quantized(v))
		rc = find_method(c, v, &p, &k, e);
	if (rc && strcmp(v->name, v->scheme ? v->scheme : ""))
		err_prefix(e, "variant '%.80s'", v->name);
	return rc;
}

int compare_variants(struct compare *c, const char *const *files, size_t count, struct err *e)
{
	int rc = c->o->schemes ? add_list(c, c->o->schemes, e) : ERR_OK;
	if (!rc && c->o->plan)
		rc = compare_plan(c, c->o->plan, e);
	for (size_t i = 0; i < count && !rc; i++)
		rc = add_file(c, files[i], e);
	if (!rc && !c->count)
		rc = err_set(e, ERR_USAGE, "nothing to compare: give --schemes A,B,C, --plan FILE or further models");
	for (size_t i = 0; i < c->count && !rc; i++)
		rc = check_variant(c, i, e);
	return rc;
}

/* File names of a variant: what it is called, made safe, and the hash of what it is made from. */
static int set_stem(const struct compare *c, struct variant *v, struct err *e)
{
	struct strbuf b = { 0 };
	strbuf_printf(&b, "%s/", c->work);
	/* by scheme: variants that differ in their cache alone share a file */
	const char *base = !variant_quantized(v) ? v->name : v->scheme ? v->scheme : "recipe";
	for (const char *s = base; *s && s - base < 80; s++)
		strbuf_putc(&b, strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-", *s) ? *s : '_');
	strbuf_printf(&b, "-%.16s", v->key);
	if (b.failed)
		return err_nomem(e);
	v->stem = b.data;
	struct strbuf path = { 0 };
	if (v->file || !variant_quantized(v))
		strbuf_puts(&path, v->file ? v->file : v->folded);
	else
		strbuf_printf(&path, "%s.%s", v->stem, c->o->to);
	v->path = path.data;
	return path.failed ? err_nomem(e) : ERR_OK;
}

static void add_text(struct sha256 *h, const char *s)
{
	identity_add(h, s, strlen(s));
}

struct running variant_running(const struct compare *c, const struct variant *v)
{
	return (struct running){ .as = c->o->as, .kv = variant_kv(v) };
}

static int open_variant(const struct compare *c, struct variant *v, const char *path, struct err *e)
{
	const struct running running = variant_running(c, v);
	v->loaded = calloc(1, sizeof *v->loaded);
	int rc = v->loaded ? loaded_open(v->loaded, path, e) : err_nomem(e);
	return rc ? rc : running_set(&running, v->loaded->model, path, e);
}

static int identity_of(const char *path, char out[IDENTITY_SIZE], struct err *e)
{
	struct loaded l;
	int rc = loaded_open(&l, path, e);
	if (!rc)
		rc = identity_model(&l.config, l.checkpoint->source, out, e);
	loaded_close(&l);
	return rc;
}

static int key_of(struct compare *c, struct variant *v, struct err *e)
{
	struct sha256 h;
	struct recipe *r = NULL;
	char identity[IDENTITY_SIZE];
	const char *base = c->identity;
	int rc = ERR_OK;
	sha256_init(&h);
	if (v->file) {
		rc = open_variant(c, v, v->file, e);
		if (!rc)
			rc = identity_model(&v->loaded->config, v->loaded->checkpoint->source, identity, e);
		if (!rc)
			add_text(&h, identity);
	} else {
		if (v->from) {
			rc = identity_of(v->from, identity, e);
			base = identity;
		}
		if (!rc && v->fold.count) {
			rc = fold_key(c, v, base, identity, e);
			base = identity;
		}
		if (!rc)
			rc = variant_recipe(v, &r, e);
		if (!rc) {
			bool uses_stats = variant_quantized(v) && quantizer_find(method_name(c, v));
			add_text(&h, "quire " QUIRE_VERSION);
			add_text(&h, base);
			add_text(&h, variant_quantized(v) ? recipe_name(r) : "");
			add_text(&h, variant_quantized(v) ? method_name(c, v) : "");
			if (uses_stats) {
				struct quantizer_options wishes = quantizer_wishes(c);
				char text[32];
				snprintf(text, sizeof text, "%d%s", wishes.passes, wishes.keep_channels ? " keep" : "");
				add_text(&h, has_own_weights(v) ? c->calib_key : c->stats_key);
				add_text(&h, text);
			}
			add_text(&h, c->o->to);
		}
	}
	recipe_free(r);
	identity_finish(&h, v->key);
	return rc ? rc : set_stem(c, v, e);
}

int compare_keys(struct compare *c, struct err *e)
{
	int rc = fold_text_key(c, e);
	for (size_t i = 0; i < c->count && !rc; i++)
		rc = key_of(c, &c->variants[i], e);
	return rc;
}

static int make(struct compare *c, struct variant *v, struct err *e)
{
	struct common quiet = c->o->common;
	quiet.json = false;
	quiet.quiet = true;
	struct produce p = { .common = &quiet, .input = v->fold.count ? v->folded : v->from ? v->from : c->model, .out = { .path = v->path, .no_source_hash = true },
			     .proof = true };
	struct calibration calibration;
	double start = clock_seconds();
	int rc = v->fold.count && !file_exists(v->folded) ? fold_make(c, v, e) : ERR_OK;
	if (!rc && variant_quantized(v)) {
		rc = find_method(c, v, &p, &calibration, e);
		if (!rc)
			rc = variant_recipe(v, &p.recipe, e);
		if (!rc)
			rc = produce(&p, e);
		recipe_free(p.recipe);
	}
	v->make_seconds = clock_seconds() - start;
	v->made = !rc;
	return rc ? rc : compare_keep_made(v, e);
}

int compare_make(struct compare *c, struct err *e)
{
	for (size_t i = 0; i < c->count; i++) {
		struct variant *v = &c->variants[i];
		if (!v->file && !file_exists(v->path)) {
			note(&c->o->common, "making %s (%zu of %zu)", v->name, i + 1, c->count);
			if (make(c, v, e))
				return err_prefix(e, "variant '%.80s'", v->name);
		} else if (!v->file) {
			compare_kept_made(v);
		}
		if (!v->file)
			compare_goes_on(c);
		if (!v->loaded && open_variant(c, v, v->path, e))
			return e->code;
	}
	return ERR_OK;
}

void compare_size(const struct loaded *l, const char *path, uint64_t *bytes, double *bits)
{
	const struct tensor_source *s = l->checkpoint->source;
	uint64_t sum = 0;
	double elements = 0;
	struct mapped m;
	for (size_t i = 0; i < s->count; i++) {
		sum += s->tensors[i].nbytes;
		elements += (double)tensor_elements(&s->tensors[i]);
	}
	*bits = elements > 0 ? 8 * (double)sum / elements : 0;
	*bytes = sum;
	if (!file_is_dir(path) && !mapped_open(&m, path, NULL)) {
		*bytes = m.size;
		mapped_close(&m);
	}
}
