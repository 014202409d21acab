#include "formats/proof_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "formats/gguf_vocab.h"

enum { STRINGS = 300, PIECES = 7 };

struct pair {
	const struct tokenizer *a, *b;   /* the source's, and that of what was written */
	bool exact;                      /* the container can say all that the source's tokenizer does */
	struct token_ids x, y;
	struct strbuf text;
	struct proof_tokens *out;
};

/* U+2581 or a space: tokens of the user are spelled either way. */
static bool same_text(const char *s, size_t n, const char *t, size_t m)
{
	size_t i = 0, k = 0;
	while (i < n && k < m) {
		bool mark_s = n - i >= 3 && !memcmp(s + i, "\xe2\x96\x81", 3), mark_t = m - k >= 3 && !memcmp(t + k, "\xe2\x96\x81", 3);
		if ((mark_s ? ' ' : s[i]) != (mark_t ? ' ' : t[k]))
			return false;
		i += mark_s ? 3 : 1;
		k += mark_t ? 3 : 1;
	}
	return i == n && k == m;
}

static int check_id(const struct pair *p, int32_t id, struct err *e)
{
	size_t n, m;
	const char *s = tokenizer_piece(p->a, id, &n), *t = tokenizer_piece(p->b, id, &m);
	enum token_type want = tokenizer_type(p->a, id), got = tokenizer_type(p->b, id);
	if (want != got)
		return err_set(e, ERR_IO, "token %d reads back as %s, not %s", (int)id, token_type_names[got], token_type_names[want]);
	if (!s || !n) /* containers that list every id give such a one a name */
		return ERR_OK;
	if (!t || !(want == TOKEN_USER ? same_text(s, n, t, m) : n == m && !memcmp(s, t, n)))
		return err_set(e, ERR_IO, "token %d reads back as '%.60s', not '%.60s'", (int)id, t ? t : "", s);
	return ERR_OK;
}

static int check_ids(struct pair *p, struct err *e)
{
	size_t n = tokenizer_size(p->a) > tokenizer_size(p->b) ? tokenizer_size(p->a) : tokenizer_size(p->b);
	int rc = ERR_OK;
	for (size_t id = 0; id < n && !rc; id++)
		rc = check_id(p, (int32_t)id, e);
	p->out->tokens = n;
	return rc;
}

static int check_special(const struct pair *p, const struct json *a, const struct json *b, struct err *e)
{
	int32_t bos = tokenizer_bos(p->b), eos = tokenizer_eos(p->b);
	if (tokenizer_bos(p->a) != bos || tokenizer_adds_eos(p->a) != tokenizer_adds_eos(p->b))
		return err_set(e, ERR_IO, "the BOS or EOS around texts reads back as another");
	if (tokenizer_eos(p->a) >= 0 && tokenizer_eos(p->a) != eos)
		return err_set(e, ERR_IO, "EOS reads back as token %d, not %d", (int)eos, (int)tokenizer_eos(p->a));
	for (int i = SPECIAL_UNK; i < SPECIAL_COUNT; i++) {
		int64_t want = gguf_special(p->a, a, &gguf_special_rows[i]);
		int64_t got = gguf_special(p->b, b, &gguf_special_rows[i]);
		if (want >= 0 && got != want)
			return err_set(e, ERR_IO, "the %s token reads back as %lld, not %lld", gguf_special_rows[i].gguf, (long long)got,
				       (long long)want);
	}
	return ERR_OK;
}

/* Both ways of cutting one text. */
static int encode_both(struct pair *p, const char *text, size_t len, bool *same, struct err *e)
{
	p->x.count = p->y.count = 0;
	int rc = tokenizer_encode(p->a, text, len, false, &p->x, e);
	if (!rc)
		rc = tokenizer_encode(p->b, text, len, false, &p->y, e);
	*same = p->x.count == p->y.count && (!p->x.count || !memcmp(p->x.id, p->y.id, p->x.count * sizeof *p->x.id));
	return rc;
}

static int check_string(struct pair *p, const char *text, size_t len, struct err *e)
{
	bool same;
	int rc = encode_both(p, text, len, &same, e);
	p->out->strings++;
	if (rc || same)
		return rc;
	if (p->exact)
		return err_set(e, ERR_IO, "the text '%.*s' is cut into other tokens when read back", (int)(len < 80 ? len : 80), text);
	if (!p->out->differ++)
		snprintf(p->out->first, sizeof p->out->first, "%.*s", (int)(len < 80 ? len : 80), text);
	return ERR_OK;
}

/* A special token's text alone must be that token wherever it is in the source. */
static int check_own_text(struct pair *p, int32_t id, struct err *e)
{
	enum token_type type = tokenizer_type(p->a, id);
	bool same;
	if (type != TOKEN_CONTROL && type != TOKEN_USER && type != TOKEN_UNKNOWN)
		return ERR_OK;
	strbuf_clear(&p->text);
	int rc = tokenizer_decode(p->a, &id, 1, false, &p->text, e);
	if (!rc)
		rc = p->text.failed ? err_nomem(e) : encode_both(p, p->text.data ? p->text.data : "", p->text.len, &same, e);
	if (!rc && p->x.count == 1 && p->x.id[0] == id && !same)
		return err_set(e, ERR_IO, "the text of token %d, '%.60s', is not that token when read back", (int)id, p->text.data);
	return rc;
}

/* Where a space goes after a special token is a matter of its own, which not every container can say. */
static int check_strings(struct pair *p, struct err *e)
{
	static const char *const fixed[] = {
		"Hello, world! It's 3.14159 or 2,718; isn't it?", " leading and  double   spaces ", "line\nline\n\n\tindented\r\nlast\n",
		"caf\xc3\xa9 na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xf0\x9f\x98\x80",
		"0 00 000 0000 12345678901234567890", "int main(void) { return x[i] != 0x1F && *p++ <= ~y; }",
		"https://example.org/a_b?c=d%20e#f user@example.org", "''' \"\"\" <> </ |> [] {{}} \\n \x7f\x01",
	};
	bool mixed = tokenizer_space_always(p->a) == tokenizer_space_always(p->b) || !tokenizer_space_prefix(p->a);
	struct rng r = { .state = tokenizer_size(p->a) };
	size_t n = tokenizer_size(p->a);
	int rc = ERR_OK;
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed && !rc; i++)
		rc = check_string(p, fixed[i], strlen(fixed[i]), e);
	for (size_t i = 0; i < STRINGS && n && !rc; i++) {
		strbuf_clear(&p->text);
		for (int k = 0; k < PIECES && !rc; k++) {
			int32_t id = (int32_t)rng_below(&r, n);
			enum token_type type = tokenizer_type(p->a, id);
			if (tokenizer_piece(p->a, id, NULL) && (type == TOKEN_NORMAL || (mixed && type != TOKEN_BYTE && type != TOKEN_UNUSED)))
				rc = tokenizer_decode(p->a, &id, 1, false, &p->text, e);
			if (k % 3 == 2)
				strbuf_putc(&p->text, ' ');
		}
		if (!rc)
			rc = p->text.failed ? err_nomem(e) : check_string(p, p->text.data ? p->text.data : "", p->text.len, e);
	}
	return rc;
}

static int compare(struct pair *p, const struct checkpoint *source, const struct checkpoint *written, struct err *e)
{
	struct json *a, *b = NULL;
	int rc = checkpoint_json(source, "tokenizer_config.json", &a, e);
	if (!rc)
		rc = checkpoint_json(written, "tokenizer_config.json", &b, e);
	if (!rc)
		rc = check_ids(p, e);
	if (!rc)
		rc = check_special(p, a, b, e);
	for (size_t id = 0; id < tokenizer_size(p->a) && !rc; id++)
		rc = check_own_text(p, (int32_t)id, e);
	if (!rc)
		rc = check_strings(p, e);
	json_free(a);
	json_free(b);
	token_ids_release(&p->x);
	token_ids_release(&p->y);
	strbuf_release(&p->text);
	return rc;
}

int proof_tokenizer(const struct checkpoint *source, const char *path, struct proof_tokens *out, struct err *e)
{
	struct checkpoint *c;
	struct tokenizer *a = NULL, *b = NULL;
	*out = (struct proof_tokens){ 0 };
	/* one that this program cannot read was copied, or refused before anything was written */
	int rc = checkpoint_has_tokenizer(source) ? checkpoint_tokenizer(source, &a, e) : ERR_UNSUPPORTED;
	if (rc)
		return rc == ERR_NOMEM ? rc : ERR_OK;
	rc = checkpoint_open(path, &c, e);
	if (!rc && checkpoint_file_name(c, 0)) { /* else a single file of tensors */
		bool gguf = !strcmp(c->format->name, "gguf"), made = checkpoint_has(source, "tokenizer.json") != checkpoint_has(c, "tokenizer.json");
		struct pair p = { .a = a, .out = out, .exact = gguf ? !strcmp(source->format->name, "gguf") : !made };
		rc = checkpoint_tokenizer(c, &b, e);
		p.b = b;
		if (!rc)
			rc = compare(&p, source, c, e);
	}
	tokenizer_close(a);
	tokenizer_close(b);
	checkpoint_close(c);
	return rc;
}
