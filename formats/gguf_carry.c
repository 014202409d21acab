/*
 * Keys of a GGUF on their way through other formats. Its reader hands them on whole, as a side file that is itself a GGUF
 * without tensors; .quire stores that file, and the writer of GGUF puts back what is still true. Values are never decoded,
 * so every type comes back byte for byte.
 */
#include "formats/config_text.h"
#include "formats/gguf_carry.h"

#include <stdio.h>
#include <string.h>

#include "formats/gguf_model.h"
#include "formats/hf.h"

static bool begins(const char *key, const char *prefix)
{
	return !strncmp(key, prefix, strlen(prefix));
}

/* Of the container that was read, not of the model. */
static bool of_container(const char *key)
{
	return begins(key, "split.") || !strcmp(key, "general.alignment");
}

/* Says how tensors are stored, or how they came to be. */
static bool of_values(const char *key)
{
	return begins(key, "quantize.") || begins(key, "quire.") || !strcmp(key, "general.file_type") ||
	       !strcmp(key, "general.quantization_version");
}

static const char *behind_arch(const char *key, const struct config *c)
{
	size_t n = c && c->arch->gguf ? strlen(c->arch->gguf) : 0;
	return n && !strncmp(key, c->arch->gguf, n) && key[n] == '.' ? key + n + 1 : NULL;
}

struct carried {
	const struct config *config;  /* of the model that is written; NULL: one that quire does not know */
	bool same_model, same_values;
};

static bool still_true(const struct carried *x, const char *key)
{
	const char *suffix = behind_arch(key, x->config);
	if (of_container(key) || (of_values(key) && !x->same_values))
		return false;
	return !suffix || !gguf_key_of_config(x->config->arch, suffix) || x->same_model;
}

static int copy_keys(const struct gguf *g, const struct carried *x, struct strbuf *out, struct err *e)
{
	struct gguf_writer w = { 0 };
	for (size_t i = 0; i < g->kv_count; i++)
		if (still_true(x, g->kv[i].key))
			gguf_put_raw(&w, &g->kv[i]);
	int rc = gguf_header(&w, out, e);
	gguf_writer_release(&w);
	return rc;
}

int gguf_carry_all(const struct gguf *g, struct strbuf *out, struct err *e)
{
	static const struct carried everything = { .same_model = true, .same_values = true };
	return copy_keys(g, &everything, out, e);
}

static int parse(struct gguf *g, const struct side_file *f, struct err *e)
{
	int rc = gguf_parse(g, f->data, f->size, e);
	return rc ? err_prefix(e, "%s", f->name) : ERR_OK;
}

int gguf_carry(const struct checkpoint *src, const struct config *c, bool same_values, struct strbuf *out, struct err *e)
{
	struct carried x = { .config = c, .same_model = true, .same_values = same_values };
	const struct side_file *f, *text;
	struct gguf g;
	int rc = checkpoint_file(src, GGUF_KEYS_FILE, &f, e);
	if (rc || !f)
		return rc;
	rc = checkpoint_file(src, "config.json", &text, e);
	if (!rc && c && text)
		rc = config_text_describes(text, c, &x.same_model, e);
	if (!rc)
		rc = parse(&g, f, e);
	if (rc)
		return rc;
	rc = copy_keys(&g, &x, out, e);
	gguf_release(&g);
	return rc;
}

int gguf_merge(struct gguf_writer *w, struct gguf_writer *own, const struct strbuf *carried, struct err *e)
{
	struct strbuf text = { 0 };
	struct gguf ours = { 0 }, theirs = { 0 };
	int rc = gguf_header(own, &text, e);
	if (!rc)
		rc = gguf_parse(&ours, text.data, text.len, e);
	if (!rc && carried->len)
		rc = gguf_parse(&theirs, carried->data, carried->len, e);
	for (size_t i = 0; i < ours.kv_count && !rc; i++) {
		const struct gguf_kv *before = gguf_find(&theirs, ours.kv[i].key);
		gguf_put_raw(w, before ? before : &ours.kv[i]);
	}
	for (size_t i = 0; i < theirs.kv_count && !rc; i++)
		if (!gguf_find(&ours, theirs.kv[i].key))
			gguf_put_raw(w, &theirs.kv[i]);
	gguf_release(&ours);
	gguf_release(&theirs);
	strbuf_release(&text);
	return rc;
}

bool gguf_carries(const struct strbuf *carried, const char *key)
{
	struct gguf g;
	if (!carried->len || gguf_parse(&g, carried->data, carried->len, NULL))
		return false;
	bool found = gguf_find(&g, key) != NULL;
	gguf_release(&g);
	return found;
}

int gguf_note_lost(const struct checkpoint *src, struct notes *n, struct err *e)
{
	enum { SHOWN = 4 };
	const struct side_file *f;
	struct strbuf names = { 0 };
	struct config c = { 0 };
	struct gguf g;
	size_t lost = 0;
	int rc = n ? checkpoint_file(src, GGUF_KEYS_FILE, &f, e) : ERR_OK;
	if (!n || rc || !f)
		return rc;
	if ((rc = parse(&g, f, e)))
		return rc;
	bool known = !checkpoint_config(src, &c, NULL);
	for (size_t i = 0; i < g.kv_count; i++) {
		const char *key = g.kv[i].key;
		/* what describes the file, the model and its vocabulary has its place in the folder's files */
		if (of_values(key) || begins(key, "tokenizer.") || begins(key, "general.sampling.") || !strcmp(key, "general.architecture") ||
		    !strcmp(key, "general.type") || (known && behind_arch(key, &c) && gguf_key_of_config(c.arch, behind_arch(key, &c))))
			continue;
		if (lost++ < SHOWN)
			strbuf_printf(&names, "%s%s", lost > 1 ? ", " : "", key);
	}
	if (lost > SHOWN)
		strbuf_printf(&names, " and %zu more", lost - SHOWN);
	if (lost && !names.failed)
		notes_add(n, "keys of the GGUF that a Hugging Face folder has no file for are left out (%s); .quire and .gguf keep them",
			  names.data);
	rc = names.failed ? err_nomem(e) : ERR_OK;
	strbuf_release(&names);
	if (known)
		config_release(&c);
	gguf_release(&g);
	return rc;
}
