#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"

unsigned utf8_follow(unsigned char lead, unsigned char limits[2])
{
	static const struct {
		unsigned char first, last, limits[2];
		unsigned follow;
	} rows[] = {
		{ 0xc2, 0xdf, { 0x80, 0xbf }, 1 },
		{ 0xe0, 0xe0, { 0xa0, 0xbf }, 2 },
		{ 0xe1, 0xec, { 0x80, 0xbf }, 2 },
		{ 0xed, 0xed, { 0x80, 0x9f }, 2 },
		{ 0xee, 0xef, { 0x80, 0xbf }, 2 },
		{ 0xf0, 0xf0, { 0x90, 0xbf }, 3 },
		{ 0xf1, 0xf3, { 0x80, 0xbf }, 3 },
		{ 0xf4, 0xf4, { 0x80, 0x8f }, 3 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (lead >= rows[i].first && lead <= rows[i].last) {
			memcpy(limits, rows[i].limits, 2);
			return rows[i].follow;
		}
	return 0;
}

size_t utf8_sequence(const char *text, size_t room)
{
	const unsigned char *s = (const unsigned char *)text;
	if (!room)
		return 0;
	if (*s < 0x80)
		return 1;
	unsigned char limits[2];
	size_t more = utf8_follow(*s, limits);
	if (!more || room <= more || s[1] < limits[0] || s[1] > limits[1])
		return 0;
	for (size_t i = 2; i <= more; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return more + 1;
}

bool utf8_valid(const char *text, size_t len)
{
	for (size_t n; len; text += n, len -= n) {
		n = utf8_sequence(text, len);
		if (!n)
			return false;
	}
	return true;
}

/* cJSON says of no memory what it says of no JSON. */
static _Thread_local bool out_of_memory;

static void *note_malloc(size_t n)
{
	void *p = malloc(n);
	out_of_memory |= !p;
	return p;
}

__attribute__((constructor)) static void set_hooks(void)
{
	cJSON_InitHooks(&(cJSON_Hooks){ note_malloc, free });
}

static const cJSON *node(const struct json *j)
{
	return (const cJSON *)(const void *)j;
}

static const struct json *wrap(const cJSON *c)
{
	return (const struct json *)(const void *)c;
}

static int unique_keys(const cJSON *object, struct err *e)
{
	struct map seen = { 0 };
	int rc = ERR_OK;
	for (const cJSON *c = object->child; c && !rc; c = c->next) {
		int fresh = map_add(&seen, c->string, strlen(c->string), 0);
		if (fresh < 0)
			rc = err_nomem(e);
		else if (!fresh)
			rc = err_set(e, ERR_INPUT, "JSON object names key \"%.200s\" twice", c->string);
	}
	map_release(&seen);
	return rc;
}

/* cJSON bounds nesting at 1000 levels, so the recursion is bounded too. */
static int check_keys(const cJSON *c, struct err *e)
{
	if (cJSON_IsObject(c) && unique_keys(c, e))
		return e ? e->code : ERR_INPUT;
	for (c = c->child; c; c = c->next)
		if ((c->type & 0xff) >= cJSON_Array && check_keys(c, e))
			return e ? e->code : ERR_INPUT;
	return ERR_OK;
}

struct json *json_parse(const char *text, size_t len, struct err *e)
{
	if (!utf8_valid(text, len)) {
		err_set(e, ERR_INPUT, "JSON text is not valid UTF-8");
		return NULL;
	}
	/* cJSON wants a terminator inside the buffer to check for trailing text */
	char *copy = malloc(len + 1);
	if (!copy) {
		err_nomem(e);
		return NULL;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	const char *stop = NULL;
	out_of_memory = false;
	cJSON *root = memchr(text, 0, len) ? NULL : cJSON_ParseWithLengthOpts(copy, len + 1, &stop, 1);
	if (!root && out_of_memory)
		err_nomem(e);
	else if (!root)
		err_set(e, ERR_INPUT, "not valid JSON near byte %zu", stop ? (size_t)(stop - copy) : (size_t)0);
	else if (check_keys(root, e)) {
		cJSON_Delete(root);
		root = NULL;
	}
	free(copy);
	return (struct json *)(void *)root;
}

void json_free(struct json *root)
{
	cJSON_Delete((cJSON *)(void *)root);
}

enum json_kind json_kind(const struct json *j)
{
	const cJSON *c = node(j);
	return cJSON_IsBool(c)     ? JSON_BOOL
	       : cJSON_IsNumber(c) ? JSON_NUMBER
	       : cJSON_IsString(c) ? JSON_STRING
	       : cJSON_IsArray(c)  ? JSON_ARRAY
	       : cJSON_IsObject(c) ? JSON_OBJECT
				   : JSON_NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
	return wrap(cJSON_GetObjectItemCaseSensitive(node(object), key));
}

const struct json *json_first(const struct json *container)
{
	return container ? wrap(node(container)->child) : NULL;
}

const struct json *json_next(const struct json *element)
{
	return element ? wrap(node(element)->next) : NULL;
}

const char *json_key(const struct json *member)
{
	return member ? node(member)->string : NULL;
}

size_t json_count(const struct json *container)
{
	size_t n = 0;
	for (const struct json *j = json_first(container); j; j = json_next(j))
		n++;
	return n;
}

const char *json_string(const struct json *j)
{
	return cJSON_IsString(node(j)) ? node(j)->valuestring : NULL;
}

bool json_number(const struct json *j, double *out)
{
	if (!cJSON_IsNumber(node(j)))
		return false;
	*out = node(j)->valuedouble;
	return true;
}

bool json_int(const struct json *j, int64_t *out)
{
	double d;
	if (!json_number(j, &d) || !(fabs(d) <= 0x1p53) || d != floor(d))
		return false;
	*out = (int64_t)d;
	return true;
}

bool json_bool(const struct json *j, bool *out)
{
	if (!cJSON_IsBool(node(j)))
		return false;
	*out = cJSON_IsTrue(node(j));
	return true;
}

bool json_is_null(const struct json *j)
{
	return !j || cJSON_IsNull(node(j));
}

void json_print(const struct json *j, struct strbuf *out)
{
	struct json_writer w = { .out = out };
	const struct json *c;
	double d = 0;
	bool b = false;
	switch (json_kind(j)) {
	case JSON_NULL: jw_null(&w, NULL); break;
	case JSON_BOOL: json_bool(j, &b); jw_bool(&w, NULL, b); break;
	case JSON_NUMBER: json_number(j, &d); jw_double(&w, NULL, d); break;
	case JSON_STRING: jw_string(&w, NULL, json_string(j)); break;
	case JSON_ARRAY:
		strbuf_putc(out, '[');
		for (c = json_first(j); c; c = json_next(c)) {
			json_print(c, out);
			if (json_next(c))
				strbuf_putc(out, ',');
		}
		strbuf_putc(out, ']');
		break;
	case JSON_OBJECT:
		strbuf_putc(out, '{');
		for (c = json_first(j); c; c = json_next(c)) {
			jw_string(&w, NULL, json_key(c));
			w.comma = false;
			strbuf_putc(out, ':');
			json_print(c, out);
			if (json_next(c))
				strbuf_putc(out, ',');
		}
		strbuf_putc(out, '}');
		break;
	}
}

/* An escape for bytes that a string cannot hold as they are; NULL: it can. */
static const char *escaped(const char *s, size_t len, char buf[8])
{
	static const char from[] = "\"\\\n\t\r", to[] = "\"\\ntr";
	unsigned char c = (unsigned char)*s;
	if (!len)
		return "\\ufffd"; /* a path may hold any bytes; JSON may not */
	if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
		return NULL;
	const char *simple = c ? strchr(from, c) : NULL;
	if (simple)
		snprintf(buf, 8, "\\%c", to[simple - from]);
	else
		snprintf(buf, 8, "\\u%04x", c);
	return buf;
}

static void quoted(struct strbuf *b, const char *s, size_t n)
{
	size_t plain = 0; /* from here on nothing needed an escape */
	char buf[8];
	strbuf_putc(b, '"');
	for (size_t i = 0, len; i < n; i += len ? len : 1) {
		len = utf8_sequence(s + i, n - i);
		const char *instead = escaped(s + i, len, buf);
		if (!instead)
			continue;
		strbuf_add(b, s + plain, i - plain);
		strbuf_puts(b, instead);
		plain = i + (len ? len : 1);
	}
	strbuf_add(b, s + plain, n - plain);
	strbuf_putc(b, '"');
}

static void newline(struct json_writer *w)
{
	if (!w->indent)
		return;
	strbuf_putc(w->out, '\n');
	for (int i = 0; i < w->indent * w->depth; i++)
		strbuf_putc(w->out, ' ');
}

/* Headers are lists of numbers: printf is too slow for hundreds of thousands of tensors. */
static void digits(struct strbuf *b, uint64_t v)
{
	char text[20];
	size_t at = sizeof text;
	do
		text[--at] = (char)('0' + v % 10);
	while (v /= 10);
	strbuf_add(b, text + at, sizeof text - at);
}

static void lead(struct json_writer *w, const char *key)
{
	if (w->comma)
		strbuf_putc(w->out, ',');
	if (w->depth)
		newline(w);
	if (key) {
		quoted(w->out, key, strlen(key));
		strbuf_puts(w->out, w->indent ? ": " : ":");
	}
	w->comma = true;
}

static void open_container(struct json_writer *w, const char *key, char bracket)
{
	lead(w, key);
	strbuf_putc(w->out, bracket);
	w->depth++;
	w->comma = false;
}

static void close_container(struct json_writer *w, char bracket)
{
	bool empty = !w->comma;
	w->depth--;
	if (!empty)
		newline(w);
	strbuf_putc(w->out, bracket);
	w->comma = true;
}

void jw_object(struct json_writer *w, const char *key)
{
	open_container(w, key, '{');
}

void jw_document(struct json_writer *w, const char *schema)
{
	jw_object(w, NULL);
	jw_string(w, "schema", schema);
}

void jw_array(struct json_writer *w, const char *key)
{
	open_container(w, key, '[');
}

void jw_end_object(struct json_writer *w)
{
	close_container(w, '}');
}

void jw_end_array(struct json_writer *w)
{
	close_container(w, ']');
}

void jw_string_n(struct json_writer *w, const char *key, const char *value, size_t len)
{
	lead(w, key);
	quoted(w->out, value, len);
}

void jw_string(struct json_writer *w, const char *key, const char *value)
{
	if (value)
		jw_string_n(w, key, value, strlen(value));
	else
		jw_null(w, key);
}

void jw_int(struct json_writer *w, const char *key, int64_t value)
{
	lead(w, key);
	if (value < 0)
		strbuf_putc(w->out, '-');
	digits(w->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void jw_uint(struct json_writer *w, const char *key, uint64_t value)
{
	lead(w, key);
	digits(w->out, value);
}

void jw_double(struct json_writer *w, const char *key, double value)
{
	if (!isfinite(value)) {
		jw_null(w, key);
		return;
	}
	char text[40];
	for (int digits = 6; digits <= 17; digits += digits < 15 ? 3 : 1) {
		snprintf(text, sizeof text, "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	lead(w, key);
	strbuf_puts(w->out, text);
}

void jw_bool(struct json_writer *w, const char *key, bool value)
{
	jw_raw(w, key, value ? "true" : "false");
}

void jw_null(struct json_writer *w, const char *key)
{
	jw_raw(w, key, "null");
}

void jw_raw(struct json_writer *w, const char *key, const char *json)
{
	lead(w, key);
	strbuf_puts(w->out, json);
}
