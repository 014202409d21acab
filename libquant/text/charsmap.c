/* SentencePiece's compiled normalization: a double array as Darts-clone lays it out, and strings. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "text/tokenizer_parts.h"

struct charsmap {
	uint32_t *unit;
	size_t units;
	char *strings; /* NUL-terminated each, and the whole */
	size_t strings_len;
};

int charsmap_open(const void *data, size_t len, struct charsmap **out, struct err *e)
{
	const char *bytes = data;
	*out = NULL;
	uint32_t trie = len >= 4 ? load_u32(bytes) : 0;
	if (len < 4 || trie > len - 4 || trie % 4 || !trie)
		return err_set(e, ERR_INPUT, "the precompiled_charsmap is truncated");
	struct charsmap *c = calloc(1, sizeof *c);
	size_t rest = len - 4 - trie;
	if (c) {
		c->unit = malloc(trie);
		c->strings = malloc(rest + 1);
	}
	if (!c || !c->unit || !c->strings) {
		charsmap_free(c);
		return err_nomem(e);
	}
	c->units = trie / 4;
	for (size_t i = 0; i < c->units; i++)
		c->unit[i] = load_u32(bytes + 4 + i * 4);
	memcpy(c->strings, bytes + 4 + trie, rest);
	c->strings[rest] = '\0';
	c->strings_len = rest;
	for (size_t i = 0, n; i < rest; i += n + 1)
		if ((n = strlen(c->strings + i)) > MAX_REPLACEMENT) {
			charsmap_free(c);
			return err_set(e, ERR_INPUT, "the precompiled_charsmap has a replacement of %zu bytes; the limit is %d", n,
				       (int)MAX_REPLACEMENT);
		}
	*out = c;
	return ERR_OK;
}

void charsmap_free(struct charsmap *c)
{
	if (!c)
		return;
	free(c->unit);
	free(c->strings);
	free(c);
}

static uint32_t unit_offset(uint32_t u)
{
	return (u >> 10) << ((u & (1u << 9)) >> 6);
}

/* The shortest or longest prefix of s in the trie: its length, 0 when there is none. */
static size_t trie_prefix(const struct charsmap *c, const char *s, size_t n, bool longest, const char **to)
{
	size_t found = 0;
	uint32_t at = unit_offset(c->unit[0]);
	for (size_t i = 0; i < n; i++) {
		unsigned char byte = (unsigned char)s[i];
		at ^= byte;
		if (!byte || at >= c->units || (c->unit[at] & (1u << 31 | 0xff)) != byte)
			break;
		uint32_t u = c->unit[at];
		at ^= unit_offset(u);
		if (!(u >> 8 & 1))
			continue;
		uint32_t value = at < c->units ? c->unit[at] & 0x7fffffff : 0;
		if (at >= c->units || value > c->strings_len)
			break;
		found = i + 1;
		*to = c->strings + value;
		if (!longest)
			break;
	}
	return found;
}

size_t charsmap_longest(const struct charsmap *c, const char *s, size_t n, const char **to)
{
	return trie_prefix(c, s, n, true, to);
}

const char *charsmap_first(const struct charsmap *c, const char *s, size_t n)
{
	const char *to;
	return trie_prefix(c, s, n, false, &to) ? to : NULL;
}
