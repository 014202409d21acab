#ifndef QUIRE_TEXT_REGEX_H
#define QUIRE_TEXT_REGEX_H
/*
 * Patterns as tokenizer.json writes them: the syntax of Oniguruma, which is
 * translated to PCRE2's where the two differ (\s, \w, \b, \h, ^ and $, (?m),
 * {,n}, {n,m}+), over valid UTF-8.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/strbuf.h"

struct regex;

/* ERR_INPUT for a malformed pattern, ERR_UNSUPPORTED for syntax that has no counterpart. */
int regex_compile(const char *pattern, size_t len, struct regex **out, struct err *e);
void regex_free(struct regex *r);

/* Searches with one regex over one text after the other. Several threads may each have one for the same regex. */
struct regex_search {
	struct regex *regex;
	void *code, *match, *context, *stack;
	const char *text, *subject; /* subject: the text as the engine sees it */
	size_t len, from, last_end, seen; /* seen: bytes of all texts so far */
	bool any;
	struct strbuf stand_in;
};
int regex_start(struct regex_search *s, struct regex *r, struct err *e);
/* The text must stay until the next call. */
int regex_text(struct regex_search *s, const char *text, size_t len, struct err *e);
/*
 * The next match, left to right without overlap. An empty match that touches
 * the one before is skipped. 1 with *start and *end, 0 at the end, or minus an error code.
 */
int regex_next(struct regex_search *s, size_t *start, size_t *end, struct err *e);
void regex_stop(struct regex_search *s);

#endif
