#include "calib/run/text.h"

#include <string.h>

#include "base/json.h"
#include "base/zip.h"
#include "calib/run/identity.h"
#include "formats/file.h"

/* What unpacks to more than this is no text to calibrate on; a bomb, rather. */
enum { UNPACKED_MAX = 1 << 30 };

/* In place, when it is packed. */
static int unpack(struct strbuf *text, struct err *e)
{
	int rc = ERR_OK;
	if (text->len >= 2 && !memcmp(text->data, "\x1f\x8b", 2)) {
		struct strbuf plain = { 0 };
		rc = zip_gunzip(text->data, text->len, &plain, UNPACKED_MAX, e);
		strbuf_release(text);
		*text = plain;
	}
	return rc || text->len ? rc : err_set(e, ERR_INPUT, "the text is empty");
}

static bool is_stdin(const char *path)
{
	return !strcmp(path, "-");
}

static const char *shown(const char *path)
{
	return is_stdin(path) ? "standard input" : path;
}

int text_read(const char *path, struct strbuf *out, struct err *e)
{
	int rc = is_stdin(path) ? file_read_stdin(out, true, e) : stream_read(path, out, 0, e);
	if (!rc && unpack(out, e))
		return err_prefix(e, "%s", shown(path));
	return rc;
}

static bool is_json_lines(const char *path)
{
	static const char *const endings[] = { ".jsonl", ".ndjson" };
	size_t n = strlen(path);
	if (n > 3 && !strcmp(path + n - 3, ".gz"))
		n -= 3;
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t k = strlen(endings[i]);
		if (n > k && !strncmp(path + n - k, endings[i], k))
			return true;
	}
	return false;
}

struct job {
	const struct tokenizer *t;
	struct token_ids *ids;
	struct sha256 hash;
};

static int document(struct job *j, const char *text, size_t len, struct err *e)
{
	identity_add(&j->hash, text, len);
	return tokenizer_encode(j->t, text, len, true, j->ids, e);
}

static int json_line(struct job *j, const char *line, size_t len, struct err *e)
{
	struct json *root = json_parse(line, len, e);
	if (!root)
		return e->code;
	const char *text = json_string(json_get(root, "text"));
	int rc = text ? document(j, text, strlen(text), e) : err_set(e, ERR_INPUT, "there is no string \"text\"");
	json_free(root);
	return rc;
}

static int json_lines(struct job *j, const struct strbuf *all, struct err *e)
{
	const char *at = all->data, *end = at + all->len;
	for (size_t number = 1; at < end; number++) {
		const char *nl = memchr(at, '\n', (size_t)(end - at)), *stop = nl ? nl : end;
		size_t len = (size_t)(stop - at);
		if (strspn(at, " \t\r") < len && json_line(j, at, len, e))
			return err_prefix(e, "line %zu", number);
		at = stop + (nl != NULL);
	}
	return ERR_OK;
}

static int one_file(struct job *j, const char *path, struct err *e)
{
	struct strbuf text = { 0 };
	size_t before = j->ids->count;
	int rc = text_read(path, &text, e);
	if (!rc) {
		rc = is_json_lines(path) ? json_lines(j, &text, e) : document(j, text.data, text.len, e);
		if (!rc && j->ids->count == before)
			rc = err_set(e, ERR_INPUT, "the text is empty");
		if (rc)
			err_prefix(e, "%s", shown(path));
	}
	strbuf_release(&text);
	return rc;
}

int texts_tokens(const struct tokenizer *t, const char *const *paths, size_t count, struct token_ids *ids, char hash[65],
		 struct err *e)
{
	struct job j = { .t = t, .ids = ids };
	int rc = ERR_OK;
	*ids = (struct token_ids){ 0 };
	sha256_init(&j.hash);
	for (size_t i = 0; i < count && !rc; i++)
		rc = one_file(&j, paths[i], e);
	identity_finish(&j.hash, hash);
	return rc;
}

int text_parse(const struct tokenizer *t, struct strbuf *text, bool lines, struct token_ids *ids, char hash[65], struct err *e)
{
	struct job j = { .t = t, .ids = ids };
	*ids = (struct token_ids){ 0 };
	sha256_init(&j.hash);
	int rc = unpack(text, e);
	if (!rc)
		rc = lines ? json_lines(&j, text, e) : document(&j, text->data, text->len, e);
	identity_finish(&j.hash, hash);
	return rc;
}

int text_tokens(const struct tokenizer *t, const char *path, struct token_ids *ids, struct err *e)
{
	char hash[65];
	return texts_tokens(t, &path, 1, ids, hash, e);
}
