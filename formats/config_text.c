#include "formats/config_text.h"

#include <stdbool.h>
#include <string.h>

/* Behind a string, a word or a number at `at`. */
static size_t scalar_end(const char *text, size_t len, size_t at)
{
	if (text[at] != '"') {
		while (at < len && !strchr(",}] \t\r\n", text[at]))
			at++;
		return at;
	}
	for (at++; at < len && text[at] != '"'; at++)
		at += text[at] == '\\';
	return at + 1;
}

static bool same_kind(char a, char b)
{
	bool flag_a = a == 't' || a == 'f', flag_b = b == 't' || b == 'f';
	return a == '"' ? b == '"' : flag_a && flag_b;
}

void config_text_replace(const char *text, size_t len, const char *key, const char *value, struct strbuf *out)
{
	size_t done = 0, n = strlen(key);
	int depth = 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '{' || text[i] == '[')
			depth++;
		if (text[i] == '}' || text[i] == ']')
			depth--;
		if (text[i] != '"')
			continue;
		size_t start = i + 1, v = scalar_end(text, len, i);
		i = v - 1; /* the closing quote */
		if (depth != 1 || i - start != n || i >= len || memcmp(text + start, key, n))
			continue;
		while (v < len && strchr(" \t\r\n:", text[v]) && text[v])
			v++;
		if (v == i + 1 || v >= len || !same_kind(text[v], *value))
			continue;
		size_t stop = scalar_end(text, len, v);
		if (stop > len)
			break;
		strbuf_add(out, text + done, v - done);
		strbuf_puts(out, value);
		done = stop;
		i = stop - 1;
	}
	strbuf_add(out, text + done, len - done);
}

/* Does this text describe the model that is written? Unknown architectures cannot have been changed. */
int config_text_describes(const struct side_file *f, const struct config *config, bool *same, struct err *e)
{
	struct config own = { 0 };
	struct strbuf a = { 0 }, b = { 0 };
	struct err why = { 0 };
	*same = true;
	int rc = config_parse(&own, f->data, f->size, &why);
	if (rc)
		return rc == ERR_NOMEM ? err_nomem(e) : ERR_OK;
	rc = config_print(&own, f->data, f->size, &a, &why);
	if (!rc)
		rc = config_print(config, f->data, f->size, &b, &why);
	if (!rc && (a.failed || b.failed))
		rc = ERR_NOMEM;
	if (!rc)
		*same = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
	config_release(&own);
	strbuf_release(&a);
	strbuf_release(&b);
	return rc == ERR_NOMEM ? err_nomem(e) : ERR_OK;
}
