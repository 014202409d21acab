#include "cmd/fold_heads.h"

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

static int parse_count(const char **at, uint32_t *out)
{
	char *end;
	unsigned long v = strtoul(*at, &end, 10);
	if (end == *at || **at < '0' || **at > '9' || v > UINT32_MAX)
		return -1;
	*out = (uint32_t)v;
	*at = end;
	return 0;
}

int heads_parse(const char *text, uint32_t layers, uint32_t *heads, struct err *e)
{
	const char *at = text;
	uint32_t n = 0, v;
	while (n < layers && !parse_count(&at, &v)) {
		heads[n++] = v;
		if (*at != ',')
			break;
		at++;
	}
	if (*at || !n || (n > 1 && n != layers))
		return err_set(e, ERR_USAGE, "--kv-heads '%.80s': give one count, or %u of them (one per layer) with commas between", text,
			       layers);
	for (uint32_t i = 1; n == 1 && i < layers; i++)
		heads[i] = heads[0];
	return ERR_OK;
}

int heads_keep_others(const char *text, const struct config *c, uint32_t *heads, struct err *e)
{
	const char *at = text;
	bool *in = calloc(c->layers, sizeof *in), good = true;
	if (!in)
		return err_nomem(e);
	while (good) {
		uint32_t from, to;
		good = !parse_count(&at, &from);
		to = from;
		if (good && *at == '-') {
			at++;
			good = !parse_count(&at, &to);
		}
		good = good && from <= to && to < c->layers;
		for (uint32_t i = from; good && i <= to; i++)
			in[i] = true;
		if (*at != ',')
			break;
		at++;
	}
	good = good && !*at;
	for (uint32_t i = 0; i < c->layers; i++)
		if (!in[i])
			heads[i] = c->layer[i].kv_heads;
	free(in);
	return good ? ERR_OK : err_set(e, ERR_USAGE, "--layers '%.80s': give ranges like 4-20 or 0,3-5, within 0-%u", text, c->layers - 1);
}

int fold_method_find(const char *name, const struct fold_method_row **out, struct err *e)
{
	for (unsigned i = 0; i < fold_method_row_count; i++)
		if (!strcmp(name, fold_method_rows[i].name)) {
			*out = &fold_method_rows[i];
			return ERR_OK;
		}
	struct strbuf known = { 0 };
	for (unsigned i = 0; i < fold_method_row_count; i++)
		strbuf_printf(&known, "%s%s", i ? ", " : "", fold_method_rows[i].name);
	err_set(e, ERR_USAGE, "unknown method '%.40s'; --method takes one of: %s", name, known.data ? known.data : "");
	strbuf_release(&known);
	return ERR_USAGE;
}
