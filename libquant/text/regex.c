#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "text/unicode.h"

struct regex {
	pcre2_code *code;
	_Atomic(pcre2_code *) fast; /* a copy compiled to machine code, once a search has read enough; NULL until then, or for good */
};

enum {
	MAX_PATTERN = 64 << 10,   /* bytes; PCRE2 limits what they compile to */
	FAST_AFTER = 4096,        /* bytes read by one search: compiling costs as much as reading some thousand */
	MATCH_STEPS = 10000000,   /* of backtracking in one match, as in Oniguruma */
	MATCH_KIB = 256 << 10,
};

/* What the escapes mean inside a class, by Unicode properties; PCRE2's own differ for some characters. */
#define SPACE "\\p{Z}\\x09-\\x0d\\x85"
#define LETTERS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD  LETTERS "\\xb2\\xb3\\xb9\\xbc-\\xbe" /* but not in a class with members of its own */
#define HEX   "0-9A-Fa-f"

#define MAX_GROUPS 250 /* PCRE2's own limit on nested parentheses */

struct translation {
	const char *p, *end;
	struct strbuf out;
	size_t atom;                  /* where in `out` the last atom starts */
	size_t groups[MAX_GROUPS];
	int depth;
	const char *unsupported;
	bool unterminated;            /* a class */
};

static void insert(struct strbuf *b, size_t at, const char *s)
{
	size_t n = strlen(s), tail = b->len - at;
	strbuf_add(b, s, n); /* makes room */
	if (b->failed)
		return;
	memmove(b->data + at + n, b->data + at, tail);
	memcpy(b->data + at, s, n);
}

static const char *escape_class(char c)
{
	switch (c) {
	case 's': return SPACE;
	case 'w': return WORD;
	case 'h': return HEX;
	default: return NULL;
	}
}

/* [:name:] inside a class */
static const struct {
	const char *name, *set;
} posix[] = {
	{ "[:alpha:]", "\\p{Alphabetic}" }, { "[:digit:]", "\\p{Nd}" },     { "[:alnum:]", "\\p{Alphabetic}\\p{Nd}" },
	{ "[:punct:]", "\\p{P}\\p{S}" },    { "[:space:]", SPACE },          { "[:upper:]", "\\p{Uppercase}" },
	{ "[:lower:]", "\\p{Lowercase}" },  { "[:xdigit:]", HEX },           { "[:word:]", LETTERS },
	{ "[:cntrl:]", "\\p{Cc}" },
};

/* True when \p{sc:NAME} is a script: then \p{NAME} means it, while PCRE2 takes script extensions for it. */
static bool is_script(const char *name, size_t len)
{
	char pattern[64];
	int code;
	size_t where;
	if (len < 3 || len > 40)
		return false;
	int n = snprintf(pattern, sizeof pattern, "\\p{sc:%.*s}", (int)len, name);
	pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, (size_t)n, PCRE2_UTF, &code, &where, NULL);
	pcre2_code_free(c);
	return c != NULL;
}

/* Copies \p{..}, \x{..}, \o{..} whole, so that what is in the braces is not taken for a quantifier. */
static void copy_escape(struct translation *t)
{
	char c = t->p[1];
	strbuf_add(&t->out, t->p, 2);
	t->p += 2;
	if ((c == 'p' || c == 'P' || c == 'x' || c == 'o' || c == 'k' || c == 'g') && t->p < t->end && (*t->p == '{' || *t->p == '<')) {
		char close = *t->p == '{' ? '}' : '>';
		const char *stop = memchr(t->p, close, (size_t)(t->end - t->p));
		if (stop && (c == 'p' || c == 'P') && is_script(t->p + 1, (size_t)(stop - t->p - 1))) {
			strbuf_puts(&t->out, "{sc:");
			t->p++;
		}
		stop = stop ? stop + 1 : t->end;
		strbuf_add(&t->out, t->p, (size_t)(stop - t->p));
		t->p = stop;
	}
}

static void escape(struct translation *t)
{
	char c = t->end - t->p > 1 ? t->p[1] : '\0';
	const char *set = escape_class(c >= 'A' && c <= 'Z' ? (char)(c + 32) : c);
	t->atom = t->out.len;
	if (set) {
		strbuf_printf(&t->out, "[%s%s]", c < 'a' ? "^" : "", set);
		t->p += 2;
	} else if (c == 'b' || c == 'B') {
		strbuf_puts(&t->out, c == 'b' ? "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))"
					      : "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
		t->p += 2;
	} else if (c == 'C' || c == 'M' || c == 'y' || c == 'Y') {
		t->unsupported = "an escape";
	} else if (c == '\0') {
		strbuf_putc(&t->out, '\\'); /* PCRE2 reports it */
		t->p++;
	} else {
		copy_escape(t);
	}
}

/*
 * A class of Oniguruma may hold classes and intersections; PCRE2's may not. A set is kept as the members that a class
 * can list and, beside them, expressions for one character each.
 */
struct set {
	struct strbuf items, others;   /* "a-z\\p{L}", "|[^b]" */
};

static void set_release(struct set *s)
{
	strbuf_release(&s->items);
	strbuf_release(&s->others);
}

static void set_other(struct set *s, const char *open, const char *expression, const char *close)
{
	strbuf_printf(&s->others, "|%s%s%s", open, expression, close);
}

/* An escape in a class; copies what PCRE2 reads the same way. */
static void class_escape(struct translation *t, struct set *s)
{
	char c = t->end - t->p > 1 ? t->p[1] : '\0';
	const char *same = c == 'w' ? LETTERS : escape_class(c);
	const char *other = c == 'W' ? LETTERS : c >= 'A' && c <= 'Z' ? escape_class((char)(c + 32)) : NULL;
	if (same)
		strbuf_puts(&s->items, same);
	else if (other)
		set_other(s, "[^", other, "]");
	else if (c == '\0')
		strbuf_putc(&s->items, '\\'); /* PCRE2 reports it */
	else {
		struct strbuf out = t->out;
		t->out = s->items;
		copy_escape(t);
		s->items = t->out;
		t->out = out;
		return;
	}
	t->p += c ? 2 : 1;
}

/* [:name:] or [:^name:]; false when it is none */
static bool posix_class(struct translation *t, struct set *s)
{
	bool negated = t->end - t->p > 2 && t->p[2] == '^';
	const char *name = t->p + 2 + negated;
	for (size_t i = 0; t->p[1] == ':' && i < sizeof posix / sizeof posix[0]; i++) {
		size_t n = strlen(posix[i].name) - 2;
		if ((size_t)(t->end - name) < n || memcmp(name, posix[i].name + 2, n) != 0)
			continue;
		if (negated)
			set_other(s, "[^", posix[i].set, "]");
		else
			strbuf_puts(&s->items, posix[i].set);
		t->p = name + n;
		return true;
	}
	return false;
}

/* Appends an expression for one character of the set. */
static void set_expression(const struct set *s, bool negated, struct strbuf *out)
{
	const char *items = s->items.len ? s->items.data : NULL, *others = s->others.len ? s->others.data : NULL;
	if (!others)
		strbuf_printf(out, "[%s%s]", negated ? "^" : "", items);
	else if (items)
		strbuf_printf(out, negated ? "(?:(?!(?:[%s]%s))(?s:.))" : "(?:[%s]%s)", items, others);
	else
		strbuf_printf(out, negated ? "(?:(?!(?:%s))(?s:.))" : "(?:%s)", others + 1);
}

static void class_set(struct translation *t, int depth, bool *plain, struct set *out);

/* One operand of an intersection, up to "&&" or the end of the class. */
static void class_operand(struct translation *t, int depth, struct set *s)
{
	for (; t->p < t->end && *t->p != ']' && !t->unsupported && !s->items.failed && !s->others.failed;) {
		if (*t->p == '\\') {
			class_escape(t, s);
		} else if (*t->p == '[') {
			struct set inner = { 0 };
			bool plain = true;
			if (posix_class(t, s))
				continue;
			class_set(t, depth + 1, &plain, &inner);
			if (plain)
				strbuf_add(&s->items, inner.items.data, inner.items.len);
			else if (inner.others.len)
				strbuf_add(&s->others, inner.others.data, inner.others.len);
			s->items.failed |= inner.items.failed | inner.others.failed;
			set_release(&inner);
		} else if (*t->p == '&' && t->end - t->p > 1 && t->p[1] == '&') {
			return;
		} else {
			strbuf_putc(&s->items, *t->p++);
		}
	}
}

/* From '[' on. plain: the members are in out->items; else one expression is in out->others, after its '|'. */
static void class_set(struct translation *t, int depth, bool *plain, struct set *out)
{
	enum { DEEPEST = 20 };
	struct strbuf ahead = { 0 };
	bool negated = false;
	t->p++;
	if (depth > DEEPEST)
		t->unsupported = "classes nested that deep";
	if (t->p < t->end && *t->p == '^') {
		negated = true;
		t->p++;
	}
	if (t->p < t->end && *t->p == ']')
		strbuf_putc(&out->items, *t->p++);
	class_operand(t, depth, out);
	while (t->p < t->end && *t->p == '&' && !t->unsupported && !ahead.failed) {
		strbuf_puts(&ahead, "(?=");
		if (!out->items.len && !out->others.len)
			t->unsupported = "an intersection with nothing";
		else
			set_expression(out, false, &ahead);
		strbuf_putc(&ahead, ')');
		strbuf_clear(&out->items);
		strbuf_clear(&out->others);
		t->p += 2;
		class_operand(t, depth, out);
	}
	if (t->p >= t->end)
		t->unterminated = true;
	else
		t->p++;
	*plain = !negated && !ahead.len && !out->others.len;
	if (!*plain && !t->unsupported && !t->unterminated) {
		struct strbuf one = { 0 };
		if (!out->items.len && !out->others.len) {
			t->unsupported = "an empty class";
		} else if (ahead.len) {
			strbuf_printf(&one, "|(?:%s", negated ? "(?!" : "");
			strbuf_add(&one, ahead.data, ahead.len);
			set_expression(out, false, &one);
			strbuf_puts(&one, negated ? ")(?s:.))" : ")");
		} else {
			strbuf_putc(&one, '|');
			set_expression(out, negated, &one);
		}
		one.failed |= out->items.failed | out->others.failed | ahead.failed;
		set_release(out);
		out->others = one;
	}
	strbuf_release(&ahead);
}

static void class(struct translation *t)
{
	struct set s = { 0 };
	bool plain = true;
	t->atom = t->out.len;
	class_set(t, 0, &plain, &s);
	if (t->unterminated)
		strbuf_putc(&t->out, '['); /* PCRE2 reports it */
	else if (plain && s.items.len)
		set_expression(&s, false, &t->out);
	else if (s.others.len)
		strbuf_puts(&t->out, s.others.data + 1);
	else if (!t->unsupported)
		t->unsupported = "an empty class";
	t->out.failed |= s.items.failed | s.others.failed;
	set_release(&s);
}

/* "(" and what may follow it; Oniguruma's flag m is "dot matches newline", PCRE2's s. */
static void group(struct translation *t)
{
	if (t->depth == MAX_GROUPS) {
		t->unsupported = "groups nested that deep";
		return;
	}
	t->groups[t->depth++] = t->out.len;
	strbuf_putc(&t->out, *t->p++);
	if (t->p >= t->end || *t->p != '?')
		return;
	strbuf_putc(&t->out, *t->p++);
	if (t->p < t->end && *t->p == '~') {
		t->unsupported = "the absence operator";
		return;
	}
	while (t->p < t->end && ((*t->p >= 'a' && *t->p <= 'z') || *t->p == '-')) {
		strbuf_putc(&t->out, *t->p == 'm' ? 's' : *t->p);
		t->p++;
	}
}

/* {n,m}: Oniguruma reads {,m} as {0,m}, and a + after the braces repeats instead of making it possessive. */
static void braces(struct translation *t)
{
	const char *q = t->p + 1;
	bool digits = false, comma = false;
	for (; q < t->end && *q != '}'; q++) {
		if (*q == ',' && !comma)
			comma = true;
		else if (*q >= '0' && *q <= '9')
			digits = true;
		else
			break;
	}
	if (q >= t->end || *q != '}' || !digits) {
		t->atom = t->out.len;
		strbuf_puts(&t->out, "\\{");
		t->p++;
		return;
	}
	strbuf_putc(&t->out, '{');
	if (t->p[1] == ',')
		strbuf_putc(&t->out, '0');
	strbuf_add(&t->out, t->p + 1, (size_t)(q - t->p));
	t->p = q + 1;
	if (t->p < t->end && *t->p == '+') {
		insert(&t->out, t->atom, "(?:");
		strbuf_putc(&t->out, ')');
	}
}

static void translate_one(struct translation *t)
{
	char c = *t->p;
	switch (c) {
	case '\\': escape(t); break;
	case '[': class(t); break;
	case '(': group(t); break;
	case '{': braces(t); break;
	case ')':
		t->atom = t->depth ? t->groups[--t->depth] : t->out.len;
		strbuf_putc(&t->out, *t->p++);
		break;
	case '*': case '+': case '?':
		strbuf_putc(&t->out, *t->p++);
		break;
	default:
		t->atom = t->out.len;
		do
			strbuf_putc(&t->out, *t->p++);
		while (t->p < t->end && ((unsigned char)*t->p & 0xc0) == 0x80);
	}
}

int regex_compile(const char *pattern, size_t len, struct regex **out, struct err *e)
{
	struct translation t = { .p = pattern, .end = pattern + len };
	if (len > MAX_PATTERN)
		return *out = NULL, err_set(e, ERR_INPUT, "a pattern of %zu bytes; the limit is %d", len, (int)MAX_PATTERN);
	while (t.p < t.end && !t.unsupported && !t.out.failed)
		translate_one(&t);
	struct regex *r = calloc(1, sizeof *r);
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	int rc = ERR_OK, code = 0;
	size_t where = 0;
	if (t.out.failed || !r || !context) {
		rc = err_nomem(e);
	} else if (t.unsupported) {
		rc = err_set(e, ERR_UNSUPPORTED, "pattern \"%.*s\": %s is not handled", (int)(len < 200 ? len : 200), pattern, t.unsupported);
	} else {
		pcre2_set_newline(context, PCRE2_NEWLINE_LF);
		r->code = pcre2_compile((PCRE2_SPTR)(t.out.data ? t.out.data : ""), t.out.len,
					PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &where, context);
		if (!r->code && code == PCRE2_ERROR_HEAP_FAILED) {
			rc = err_nomem(e);
		} else if (!r->code) {
			char why[160] = "";
			pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
			rc = err_set(e, ERR_INPUT, "pattern \"%.*s\": %s", (int)(len < 200 ? len : 200), pattern, why);
		}
	}
	pcre2_compile_context_free(context);
	strbuf_release(&t.out);
	if (rc) {
		free(r);
		r = NULL;
	}
	*out = r;
	return rc;
}

void regex_free(struct regex *r)
{
	if (!r)
		return;
	pcre2_code_free(r->code);
	pcre2_code_free(atomic_load(&r->fast));
	free(r);
}

int regex_start(struct regex_search *s, struct regex *r, struct err *e)
{
	*s = (struct regex_search){ .regex = r, .code = atomic_load(&r->fast) };
	s->match = pcre2_match_data_create(1, NULL);
	s->context = pcre2_match_context_create(NULL);
	if (!s->match || !s->context) {
		regex_stop(s);
		return err_nomem(e);
	}
	if (!s->code)
		s->code = r->code;
	pcre2_set_match_limit(s->context, MATCH_STEPS);
	pcre2_set_heap_limit(s->context, MATCH_KIB);
	return ERR_OK;
}

/* Without machine code, for want of memory or of a compiler, the search is only slower. */
static void speed_up(struct regex_search *s)
{
	struct regex *r = s->regex;
	pcre2_code *none = NULL, *copy;
	if (!atomic_load(&r->fast) && (copy = pcre2_code_copy(r->code)) != NULL)
		if (pcre2_jit_compile(copy, PCRE2_JIT_COMPLETE) || !atomic_compare_exchange_strong(&r->fast, &none, copy))
			pcre2_code_free(copy); /* another thread was first */
	if (atomic_load(&r->fast))
		s->code = atomic_load(&r->fast);
	if (s->code != r->code && !s->stack && (s->stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, NULL)) != NULL)
		pcre2_jit_stack_assign(s->context, NULL, s->stack);
}

int regex_text(struct regex_search *s, const char *text, size_t len, struct err *e)
{
	s->text = s->subject = text;
	s->len = len;
	s->from = s->last_end = 0;
	s->any = false;
	if (s->seen <= FAST_AFTER && (s->seen += len) > FAST_AFTER)
		speed_up(s);
	/* PCRE2's tables may not know the newest characters: it sees others like them in their place */
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_length(text[i]);
		uint32_t c = n > 2 ? utf8_code(text + i) : 0, like = n > 2 ? unicode_stand_in(c) : 0;
		if (like == c)
			continue;
		if (s->subject == text) {
			strbuf_clear(&s->stand_in);
			strbuf_add(&s->stand_in, text, len);
			if (s->stand_in.failed)
				return err_nomem(e);
			s->subject = s->stand_in.data;
		}
		utf8_encode(like, s->stand_in.data + i);
	}
	return ERR_OK;
}

int regex_next(struct regex_search *s, size_t *start, size_t *end, struct err *e)
{
	while (s->from <= s->len) {
		int rc = pcre2_match(s->code, (PCRE2_SPTR)s->subject, s->len, s->from, PCRE2_NO_UTF_CHECK, s->match, s->context);
		if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
			rc = pcre2_match(s->code, (PCRE2_SPTR)s->subject, s->len, s->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
					 s->match, s->context);
		if (rc == PCRE2_ERROR_NOMATCH)
			return 0;
		if (rc == PCRE2_ERROR_NOMEMORY)
			return -err_nomem(e);
		if (rc < 0) {
			char why[160] = "";
			pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
			return -err_set(e, ERR_INPUT, "a pattern of the tokenizer fails on this text: %s", why);
		}
		const size_t *at = pcre2_get_ovector_pointer(s->match);
		if (at[0] > at[1]) /* \K in a lookahead */
			return -err_set(e, ERR_UNSUPPORTED, "a pattern of the tokenizer matches backwards");
		if (at[0] == at[1] && s->any && s->last_end == at[1]) {
			s->from += s->from < s->len ? utf8_length(s->text[s->from]) : 1;
			continue;
		}
		*start = at[0];
		*end = at[1];
		s->from = s->last_end = at[1];
		s->any = true;
		return 1;
	}
	return 0;
}

void regex_stop(struct regex_search *s)
{
	pcre2_match_data_free(s->match);
	pcre2_match_context_free(s->context);
	pcre2_jit_stack_free(s->stack);
	strbuf_release(&s->stand_in);
	*s = (struct regex_search){ 0 };
}
