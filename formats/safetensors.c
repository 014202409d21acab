#include "formats/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/map.h"
#include "codec/codec.h"

const struct st_dtype st_dtypes[] = {
	{ "BOOL", 8 },        { "F4", 4 },      { "F6_E2M3", 6 },     { "F6_E3M2", 6 },     { "U8", 8 },   { "I8", 8 },
	{ "F8_E5M2", 8 },     { "F8_E4M3", 8 }, { "F8_E8M0", 8 },     { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
	{ "I16", 16 },        { "U16", 16 },    { "F16", 16 },        { "BF16", 16 },       { "I32", 32 }, { "U32", 32 },
	{ "F32", 32 },        { "C64", 64 },    { "F64", 64 },        { "I64", 64 },        { "U64", 64 },
};
const unsigned st_dtype_count = sizeof st_dtypes / sizeof *st_dtypes;

const struct st_dtype *st_dtype_find(const char *name)
{
	for (unsigned i = 0; i < st_dtype_count; i++)
		if (strcmp(st_dtypes[i].name, name) == 0)
			return &st_dtypes[i];
	return NULL;
}

/*
 * The header is read by a scanner of its own: a general JSON tree cannot tell
 * 8 from 8.0, keeps no 64-bit integers, and needs forty times the file's bytes.
 */
struct scan {
	const char *start, *at, *end;
	struct arena *arena;
	struct err *e;
};

static int broken(struct scan *s, const char *what)
{
	return err_set(s->e, ERR_INPUT, "header: %s at byte %zu", what, (size_t)(s->at - s->start) + 8);
}

static void space(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

/* Skips white space and takes c if it is next. */
static bool take(struct scan *s, char c)
{
	space(s);
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static int hex4(const char *p, const char *end, unsigned *out)
{
	*out = 0;
	for (int i = 0; i < 4; i++, p++) {
		if (p == end)
			return -1;
		int d = hex_digit(*p);
		if (d < 0)
			return -1;
		*out = *out << 4 | (unsigned)d;
	}
	return 0;
}

static char *put_utf8(char *p, unsigned c)
{
	if (c < 0x80) {
		*p++ = (char)c;
	} else if (c < 0x800) {
		*p++ = (char)(0xc0 | c >> 6);
		*p++ = (char)(0x80 | (c & 63));
	} else if (c < 0x10000) {
		*p++ = (char)(0xe0 | c >> 12);
		*p++ = (char)(0x80 | (c >> 6 & 63));
		*p++ = (char)(0x80 | (c & 63));
	} else {
		*p++ = (char)(0xf0 | c >> 18);
		*p++ = (char)(0x80 | (c >> 12 & 63));
		*p++ = (char)(0x80 | (c >> 6 & 63));
		*p++ = (char)(0x80 | (c & 63));
	}
	return p;
}

/* One escape, s->at behind its backslash. */
static int escape(struct scan *s, char **p)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	if (s->at == s->end)
		return broken(s, "unfinished string");
	const char *simple = *s->at ? strchr(from, *s->at) : NULL;
	if (simple) {
		*(*p)++ = to[simple - from];
		s->at++;
		return ERR_OK;
	}
	unsigned c, low;
	if (*s->at != 'u' || hex4(s->at + 1, s->end, &c))
		return broken(s, "bad escape in a string");
	if (c >= 0xd800 && c < 0xdc00 && s->end - s->at >= 7 && s->at[5] == '\\' && s->at[6] == 'u' &&
	    !hex4(s->at + 7, s->end, &low) && low >= 0xdc00 && low < 0xe000) {
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		s->at += 6;
	} else if (c >= 0xd800 && c < 0xe000) {
		return broken(s, "half of a surrogate pair in a string");
	}
	if (!c)
		return broken(s, "NUL in a string");
	*p = put_utf8(*p, c);
	s->at += 5;
	return ERR_OK;
}

/* A string into the arena; UTF-8 was checked over the whole header. */
static int string(struct scan *s, const char **out)
{
	if (!take(s, '"'))
		return broken(s, "expected a string");
	const char *close = s->at;
	while (close < s->end && *close != '"')
		close += *close == '\\' && close + 1 < s->end ? 2 : 1;
	if (close >= s->end) {
		s->at = s->end;
		return broken(s, "unfinished string");
	}
	/* decoding never makes a string longer */
	char *text = arena_alloc(s->arena, (size_t)(close - s->at) + 1), *p = text;
	if (!text)
		return err_nomem(s->e);
	while (s->at < close) {
		if ((unsigned char)*s->at < 0x20)
			return broken(s, "control character in a string");
		if (*s->at != '\\') {
			*p++ = *s->at++;
			continue;
		}
		s->at++;
		int rc = escape(s, &p);
		if (rc)
			return rc;
	}
	*p = '\0';
	s->at = close + 1;
	*out = text;
	return ERR_OK;
}

static int whole_number(struct scan *s, uint64_t *out)
{
	space(s);
	const char *first = s->at;
	if (first < s->end && *first == '-')
		return broken(s, "negative number");
	uint64_t v = 0;
	for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
		if (mul_overflows(v, 10, &v) || add_overflows(v, (uint64_t)(*s->at - '0'), &v))
			return broken(s, "number beyond 64 bits");
	if (s->at == first)
		return broken(s, "expected a whole number");
	if (*first == '0' && s->at - first > 1)
		return broken(s, "number with leading zeros");
	if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E'))
		return broken(s, "number that is not written as a whole number");
	*out = v;
	return ERR_OK;
}

/* A JSON number of any form, for members that are skipped. */
static int skip_number(struct scan *s)
{
	const char *first;
	if (s->at < s->end && *s->at == '-')
		s->at++;
	for (int part = 0; part < 3; part++) {
		if (part == 1 && !(s->at < s->end && *s->at == '.'))
			continue;
		if (part == 2 && !(s->at < s->end && (*s->at == 'e' || *s->at == 'E')))
			continue;
		s->at += part > 0;
		if (part == 2 && s->at < s->end && (*s->at == '+' || *s->at == '-'))
			s->at++;
		first = s->at;
		while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
			s->at++;
		if (s->at == first || (part == 0 && *first == '0' && s->at - first > 1))
			return broken(s, "bad number");
	}
	return ERR_OK;
}

enum { SKIP_DEPTH = 64 }; /* nothing that belongs into a header nests deeper */

/* The value of a member that means nothing here: checked, then forgotten. */
static int skip_value(struct scan *s, int depth)
{
	static const char *const words[] = { "true", "false", "null" };
	const char *text;
	space(s);
	if (s->at == s->end)
		return broken(s, "unfinished header");
	if (depth > SKIP_DEPTH)
		return broken(s, "values nested too deeply");
	if (*s->at == '"')
		return string(s, &text);
	if (*s->at == '{' || *s->at == '[') {
		bool object = *s->at++ == '{';
		if (take(s, object ? '}' : ']'))
			return ERR_OK;
		do {
			int rc = object ? string(s, &text) : ERR_OK;
			if (!rc && object && !take(s, ':'))
				rc = broken(s, "expected ':'");
			if (!rc)
				rc = skip_value(s, depth + 1);
			if (rc)
				return rc;
		} while (take(s, ','));
		return take(s, object ? '}' : ']') ? ERR_OK : broken(s, object ? "expected ',' or '}'" : "expected ',' or ']'");
	}
	for (unsigned i = 0; i < 3; i++) {
		size_t n = strlen(words[i]);
		if ((size_t)(s->end - s->at) >= n && memcmp(s->at, words[i], n) == 0) {
			s->at += n;
			return ERR_OK;
		}
	}
	return skip_number(s);
}

/* Walks the members of an object: 1 with the key read and ':' taken, 0 at its end, -1 on error (code in *rc). */
static int member(struct scan *s, bool *first, const char **key, int *rc)
{
	if (*first ? take(s, '}') : !take(s, ',')) {
		if (!*first && !take(s, '}')) {
			*rc = broken(s, "expected ',' or '}'");
			return -1;
		}
		return 0;
	}
	*first = false;
	*rc = string(s, key);
	if (!*rc && !take(s, ':'))
		*rc = broken(s, "expected ':'");
	return *rc ? -1 : 1;
}

/* Makes room for one more; the array is malloc'ed until the parse is done. */
static void *grown(void *array, size_t count, size_t size)
{
	if (count & (count - 1) || (count && count < 16))
		return array;
	return count > SIZE_MAX / 2 / size ? NULL : realloc(array, (count ? count * 2 : 16) * size);
}

static int metadata(struct scan *s, struct st_file *f, struct map *seen)
{
	const char *key, *value;
	bool first = true;
	int more, rc = ERR_OK;
	if (f->meta)
		return err_set(s->e, ERR_INPUT, "header: '__metadata__' appears twice");
	if (!take(s, '{'))
		return broken(s, "'__metadata__' is not an object");
	if (!(f->meta = grown(NULL, 0, sizeof *f->meta)))
		return err_nomem(s->e);
	while ((more = member(s, &first, &key, &rc)) > 0) {
		space(s);
		if (s->at < s->end && *s->at != '"')
			return err_set(s->e, ERR_INPUT, "header: '__metadata__' value of '%.200s' is not a string", key);
		if ((rc = string(s, &value)))
			return rc;
		int fresh = map_add(seen, key, strlen(key), 0);
		if (fresh <= 0)
			return fresh ? err_nomem(s->e) : err_set(s->e, ERR_INPUT, "header: '__metadata__' names '%.200s' twice", key);
		struct fact *meta = grown(f->meta, f->meta_count, sizeof *meta);
		if (!meta)
			return err_nomem(s->e);
		f->meta = meta;
		f->meta[f->meta_count++] = (struct fact){ key, value };
	}
	return more < 0 ? rc : ERR_OK;
}

static int shape(struct scan *s, struct st_entry *t)
{
	if (!take(s, '['))
		return broken(s, "'shape' is not an array");
	if (take(s, ']'))
		return ERR_OK;
	do {
		uint64_t v;
		int rc = whole_number(s, &v);
		if (rc)
			return rc;
		if (t->ndim == TENSOR_MAX_DIMS)
			return err_set(s->e, ERR_UNSUPPORTED, "more than %d dimensions", (int)TENSOR_MAX_DIMS);
		t->dim[t->ndim++] = v;
	} while (take(s, ','));
	return take(s, ']') ? ERR_OK : broken(s, "expected ',' or ']'");
}

static int offsets(struct scan *s, struct st_entry *t)
{
	if (!take(s, '['))
		return broken(s, "'data_offsets' is not an array");
	int rc = whole_number(s, &t->begin);
	if (!rc && !take(s, ','))
		rc = broken(s, "'data_offsets' is not two numbers");
	if (!rc)
		rc = whole_number(s, &t->end);
	if (!rc && !take(s, ']'))
		rc = broken(s, "'data_offsets' is not two numbers");
	return rc;
}

static int dtype(struct scan *s, struct st_entry *t)
{
	const char *text;
	int rc = string(s, &text);
	if (rc)
		return rc;
	t->dtype = st_dtype_find(text);
	return t->dtype ? ERR_OK : err_set(s->e, ERR_UNSUPPORTED, "dtype '%.40s' is not known", text);
}

static const struct {
	const char *name;
	int (*read)(struct scan *s, struct st_entry *t);
} fields[] = { { "dtype", dtype }, { "shape", shape }, { "data_offsets", offsets } };
enum { FIELDS = sizeof fields / sizeof *fields };

static int fields_read(struct scan *s, struct st_entry *t)
{
	const char *key;
	bool first = true;
	unsigned have = 0;
	int more, rc = ERR_OK;
	if (!take(s, '{'))
		return broken(s, "not an object");
	while ((more = member(s, &first, &key, &rc)) > 0) {
		unsigned i = 0;
		while (i < FIELDS && strcmp(key, fields[i].name))
			i++;
		if (i < FIELDS && have & 1u << i)
			return err_set(s->e, ERR_INPUT, "'%s' appears twice", key);
		rc = i < FIELDS ? fields[i].read(s, t) : skip_value(s, 0);
		if (rc)
			return rc;
		have |= i < FIELDS ? 1u << i : 0;
	}
	for (unsigned i = 0; more == 0 && i < FIELDS; i++)
		if (!(have & 1u << i))
			return err_set(s->e, ERR_INPUT, "'%s' is missing", fields[i].name);
	return more < 0 ? rc : ERR_OK;
}

/* Names go to terminals and into error lines; no model has control characters in them. */
static int name_check(struct scan *s, const char *name)
{
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return err_set(s->e, ERR_UNSUPPORTED, "tensor name '%.*s\\x%02x...' has control characters",
				       (int)(p - name < 200 ? p - name : 200), name, (unsigned)*p);
	return ERR_OK;
}

static int entry(struct scan *s, struct st_file *f, const char *name, struct map *seen)
{
	int rc = name_check(s, name);
	if (rc)
		return rc;
	int fresh = map_add(seen, name, strlen(name), 0);
	if (fresh <= 0)
		return fresh ? err_nomem(s->e) : err_set(s->e, ERR_INPUT, "tensor '%.200s': named twice", name);
	struct st_entry *all = grown(f->entries, f->count, sizeof *all);
	if (!all)
		return err_nomem(s->e);
	f->entries = all;
	struct st_entry *t = &all[f->count++];
	*t = (struct st_entry){ .name = name };
	rc = fields_read(s, t);
	return rc == ERR_INPUT || rc == ERR_UNSUPPORTED ? err_prefix(s->e, "tensor '%.200s'", name) : rc;
}

static int header(struct scan *s, struct st_file *f)
{
	struct map names = { 0 }, keys = { 0 };
	const char *key;
	bool first = true;
	int more = -1, rc = ERR_OK;
	if (s->at == s->end || *s->at != '{')
		rc = broken(s, "does not begin with '{'");
	else
		s->at++;
	while (!rc && (more = member(s, &first, &key, &rc)) > 0)
		rc = strcmp(key, "__metadata__") ? entry(s, f, key, &names) : metadata(s, f, &keys);
	if (!rc) {
		space(s);
		if (s->at < s->end)
			rc = broken(s, "text after the end of the object");
	}
	map_release(&names);
	map_release(&keys);
	return rc;
}

static int by_offset(const void *a, const void *b)
{
	const struct st_entry *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Bytes of an entry from shape and dtype. */
static int entry_bytes(const struct st_entry *t, uint64_t *out, struct err *e)
{
	uint64_t n = 1;
	bool over = false;
	for (uint32_t i = 0; i < t->ndim; i++)
		over |= mul_overflows(n, t->dim[i], &n);
	if (over || mul_overflows(n, t->dtype->bits, &n))
		return err_set(e, ERR_INPUT, "tensor '%.200s': the product of its shape overflows", t->name);
	if (n % 8)
		return err_set(e, ERR_INPUT, "tensor '%.200s': its bits do not fill whole bytes", t->name);
	*out = n / 8;
	return ERR_OK;
}

static int check_layout(struct st_file *f, struct err *e)
{
	uint64_t at = 0, bytes;
	for (size_t i = 0; i < f->count; i++) {
		const struct st_entry *t = &f->entries[i];
		if (t->end < t->begin)
			return err_set(e, ERR_INPUT, "tensor '%.200s': data ends (%" PRIu64 ") before it begins (%" PRIu64 ")",
				       t->name, t->end, t->begin);
		if (t->begin != at)
			return err_set(e, ERR_INPUT, "tensor '%.200s': data begins at %" PRIu64 ", %s %" PRIu64, t->name, t->begin,
				       t->begin < at ? "overlapping the data before, which ends at" : "leaving a hole after", at);
		int rc = entry_bytes(t, &bytes, e);
		if (rc)
			return rc;
		if (t->end - t->begin != bytes)
			return err_set(e, ERR_INPUT, "tensor '%.200s': has %" PRIu64 " bytes of data, its dtype %s and shape need %" PRIu64,
				       t->name, t->end - t->begin, t->dtype->name, bytes);
		if (t->end > f->data_size)
			return err_set(e, ERR_INPUT, "tensor '%.200s': data ends at %" PRIu64 ", but the file holds %" PRIu64
				       " bytes of data (truncated?)", t->name, t->end, f->data_size);
		at = t->end;
	}
	if (at != f->data_size)
		return err_set(e, ERR_INPUT, "%" PRIu64 " bytes after the last tensor's data", f->data_size - at);
	return ERR_OK;
}

int st_parse(struct st_file *f, const uint8_t *bytes, size_t size, struct err *e)
{
	*f = (struct st_file){ 0 };
	if (size < 8)
		return err_set(e, ERR_INPUT, "%zu bytes are too short for a safetensors file", size);
	uint64_t n = load_u64(bytes);
	if (n > ST_HEADER_MAX)
		return err_set(e, ERR_INPUT, "header length %" PRIu64 " is beyond the format's limit of %d", n, (int)ST_HEADER_MAX);
	if (n > size - 8)
		return err_set(e, ERR_INPUT, "header length %" PRIu64 " is beyond the end of the file (truncated?)", n);
	const char *text = (const char *)bytes + 8;
	f->data = bytes + 8 + n;
	f->data_size = size - 8 - n;
	struct scan s = { text, text, text + n, &f->arena, e };
	int rc = utf8_valid(text, (size_t)n) ? header(&s, f) : err_set(e, ERR_INPUT, "header is not valid UTF-8");
	if (!rc && f->count > 1)
		qsort(f->entries, f->count, sizeof *f->entries, by_offset);
	if (!rc)
		rc = check_layout(f, e);
	if (rc)
		st_release(f);
	return rc;
}

void st_release(struct st_file *f)
{
	free(f->entries);
	free(f->meta);
	arena_release(&f->arena);
	*f = (struct st_file){ 0 };
}

const char *st_meta(const struct st_file *f, const char *key)
{
	for (size_t i = 0; i < f->meta_count; i++)
		if (strcmp(f->meta[i].key, key) == 0)
			return f->meta[i].value;
	return NULL;
}

int st_tensor(const struct st_entry *t, struct tensor *out, struct err *e)
{
	const struct codec *c = codec_from_safetensors(t->dtype->name);
	if (!c)
		return err_set(e, ERR_UNSUPPORTED, "tensor '%.200s': dtype %s is not supported", t->name, t->dtype->name);
	*out = (struct tensor){ .name = t->name, .codec = c, .ndim = t->ndim, .nbytes = t->end - t->begin };
	memcpy(out->dim, t->dim, sizeof out->dim);
	return ERR_OK;
}

static int canonical(const void *a, const void *b)
{
	const struct st_entry *x = a, *y = b;
	if (x->dtype != y->dtype)
		return x->dtype > y->dtype ? -1 : 1;
	return strcmp(x->name, y->name);
}

int st_layout(struct st_entry *entries, size_t count, struct err *e)
{
	if (count > 1)
		qsort(entries, count, sizeof *entries, canonical);
	uint64_t at = 0, bytes;
	for (size_t i = 0; i < count; i++) {
		int rc = entry_bytes(&entries[i], &bytes, e);
		if (rc)
			return rc;
		entries[i].begin = at;
		if (add_overflows(at, bytes, &at))
			return err_set(e, ERR_UNSUPPORTED, "tensor '%.200s': the file would be too large", entries[i].name);
		entries[i].end = at;
	}
	return ERR_OK;
}

int st_header(struct strbuf *out, const struct st_listing *l, uint64_t align, struct err *e)
{
	struct json_writer w = { .out = out };
	size_t start = out->len;
	strbuf_add(out, "\0\0\0\0\0\0\0", 8);
	jw_object(&w, NULL);
	if (l->meta_count) { /* an empty map makes some readers fail */
		jw_object(&w, "__metadata__");
		for (size_t i = 0; i < l->meta_count; i++)
			jw_string(&w, l->meta[i].key, l->meta[i].value);
		jw_end_object(&w);
	}
	for (size_t i = 0; i < l->count; i++) {
		const struct st_entry *t = &l->entries[i];
		jw_object(&w, t->name);
		jw_string(&w, "dtype", t->dtype->name);
		jw_array(&w, "shape");
		for (uint32_t d = 0; d < t->ndim; d++)
			jw_uint(&w, NULL, t->dim[d]);
		jw_end_array(&w);
		jw_array(&w, "data_offsets");
		jw_uint(&w, NULL, t->begin);
		jw_uint(&w, NULL, t->end);
		jw_end_array(&w);
		jw_end_object(&w);
	}
	jw_end_object(&w);
	while ((out->len - start) % align && !out->failed)
		strbuf_putc(out, ' ');
	if (out->failed)
		return err_nomem(e);
	size_t n = out->len - start - 8;
	if (n > ST_HEADER_MAX)
		return err_set(e, ERR_UNSUPPORTED, "header of %zu bytes is beyond the format's limit", n);
	store_u64(out->data + start, n);
	return ERR_OK;
}
