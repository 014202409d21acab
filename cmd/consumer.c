#include "cmd/consumer.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "formats/checkpoint.h"

/* What each program loads, the first where nothing says otherwise, and the usual scheme of those who use it. */
static const struct consumer {
	const char *name, *formats[4], *scheme;
} consumers[] = {
	{ "vllm", { "hf", "gptq", "awq" }, "W4A16" },
	{ "transformers", { "hf", "gptq", "awq" }, "W4A16" },
	{ "mlx", { "mlx", "hf" }, "int4-g64" },
	{ "llama.cpp", { "gguf" }, "Q4_K_M" },
};

static bool loads(const struct consumer *c, const char *format)
{
	for (size_t i = 0; i < sizeof c->formats / sizeof *c->formats && c->formats[i]; i++)
		if (!strcmp(c->formats[i], format))
			return true;
	return false;
}

int consumer_choose(const char *name, const char *output, const char **format, const char **scheme, struct err *e)
{
	const struct consumer *c = consumers, *end = consumers + sizeof consumers / sizeof *consumers;
	if (!name)
		return ERR_OK;
	while (c < end && strcmp(c->name, name))
		c++;
	if (c == end)
		return err_set(e, ERR_USAGE, "unknown program '%.40s'; --for takes one of: " CONSUMER_WORDS, name);
	const struct format *by_name = output ? format_for_output(output) : NULL;
	const char *said = *format ? *format : by_name && by_name->suffix ? by_name->name : NULL;
	if (said && !loads(c, said))
		return err_set(e, ERR_USAGE, "%s does not load %s; it loads %s", c->name, said, c->formats[0]);
	if (!said)
		*format = c->formats[0];
	if (scheme && !*scheme)
		*scheme = c->scheme;
	return ERR_OK;
}
