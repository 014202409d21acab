#ifndef QUIRE_BASE_JSON_H
#define QUIRE_BASE_JSON_H
/*
 * JSON in and out. Reading wraps cJSON (the only place that sees its header)
 * and is stricter: the text must be UTF-8, one value with nothing after it,
 * and no object may name a key twice. Writing streams into a strbuf.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

struct json; /* a value; owned by the root that json_parse returned */

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* The text need not be NUL-terminated. NULL and *e on failure (ERR_INPUT, ERR_NOMEM). Free with json_free. */
struct json *json_parse(const char *text, size_t len, struct err *e);
void json_free(struct json *root);

/* Every accessor takes NULL and behaves as if it were a missing or null value. */
enum json_kind json_kind(const struct json *j);
const struct json *json_get(const struct json *object, const char *key); /* case-sensitive; NULL when missing */
const struct json *json_first(const struct json *container);            /* first element or member */
const struct json *json_next(const struct json *element);
const char *json_key(const struct json *member);
size_t json_count(const struct json *container);
const char *json_string(const struct json *j);                          /* NULL unless a string */
bool json_number(const struct json *j, double *out);
bool json_int(const struct json *j, int64_t *out);                      /* only whole numbers within +-2^53 */
bool json_bool(const struct json *j, bool *out);
bool json_is_null(const struct json *j);                                /* missing counts as null */

/* Prints a value back as compact JSON, numbers shortest-exact. */
void json_print(const struct json *j, struct strbuf *out);

bool utf8_valid(const char *text, size_t len);
/* Bytes of the character that text[room] begins with; 0 when it is not UTF-8. */
size_t utf8_sequence(const char *text, size_t room);
/*
 * Bytes that follow a lead byte of more than one; 0: it is none. limits: of the first of them, lowest and highest, which
 * exclude overlong forms, surrogates and code points past U+10FFFF.
 */
unsigned utf8_follow(unsigned char lead, unsigned char limits[2]);

/* Writer. Keys are for members of objects; pass NULL inside arrays. indent 0 writes one line without spaces. */
struct json_writer {
	struct strbuf *out;
	int indent, depth;
	bool comma;
};
void jw_object(struct json_writer *w, const char *key);
/* The outermost object of what a program may read; "schema" says which keys there are, and in which version: "quire-inspect/1". */
void jw_document(struct json_writer *w, const char *schema);
void jw_array(struct json_writer *w, const char *key);
void jw_end_object(struct json_writer *w);
void jw_end_array(struct json_writer *w);
void jw_string(struct json_writer *w, const char *key, const char *value); /* NULL writes null */
void jw_string_n(struct json_writer *w, const char *key, const char *value, size_t len);
void jw_int(struct json_writer *w, const char *key, int64_t value);
void jw_uint(struct json_writer *w, const char *key, uint64_t value);
void jw_double(struct json_writer *w, const char *key, double value);      /* shortest form that reads back; NaN and inf become null */
void jw_bool(struct json_writer *w, const char *key, bool value);
void jw_null(struct json_writer *w, const char *key);
void jw_raw(struct json_writer *w, const char *key, const char *json);     /* an already encoded value */

#endif
