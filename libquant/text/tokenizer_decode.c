/* Decoders and post-processors. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

void pieces_close(struct pieces *p)
{
	if (p->count == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		size_t *end = p->failed ? NULL : realloc(p->end, cap * sizeof *end);
		if (!end) {
			p->failed = true;
			return;
		}
		p->end = end;
		p->cap = cap;
	}
	p->end[p->count++] = p->text.len;
}

void pieces_release(struct pieces *p)
{
	free(p->end);
	strbuf_release(&p->text);
	*p = (struct pieces){ 0 };
}

static const char *piece_at(const struct pieces *p, size_t i, size_t *len)
{
	size_t start = i ? p->end[i - 1] : 0;
	*len = p->end[i] - start;
	return *len ? p->text.data + start : "";
}

static int parse_replace(const struct json *j, struct arena *a, struct dec_step *s, struct err *e)
{
	int rc = part_string(j, "content", a, &s->text, &s->text_len, e);
	if (!rc && !s->text)
		rc = err_set(e, ERR_INPUT, "Replace has no content");
	return rc ? rc : pattern_parse(json_get(j, "pattern"), a, &s->pattern, e);
}

static int replace(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	struct spans spans = { 0 };
	struct pattern_use use = { 0 };
	int rc = ERR_OK;
	for (size_t i = 0, len; i < in->count && !rc; i++) {
		const char *text = piece_at(in, i, &len);
		rc = pattern_spans(&s->pattern, &use, text, len, &spans, e);
		for (size_t k = 0; k < spans.count && !rc; k++) {
			const struct span *p = &spans.at[k];
			if (p->match)
				strbuf_add(&out->text, s->text, s->text_len);
			else
				strbuf_add(&out->text, text + p->start, p->end - p->start);
		}
		pieces_close(out);
	}
	pattern_use_release(&use);
	free(spans.at);
	return rc;
}

static int fuse(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	(void)s, (void)e;
	strbuf_add(&out->text, in->text.data, in->text.len);
	pieces_close(out);
	return ERR_OK;
}

/* The byte of <0xNN>, or -1. */
static int byte_piece(const char *s, size_t n)
{
	if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
		return -1;
	int high = s[3] == '+' ? 0 : hex_digit(s[3]), low = hex_digit(s[4]);
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static void flush_bytes(struct strbuf *bytes, struct pieces *out)
{
	if (bytes->len && utf8_valid(bytes->data, bytes->len)) {
		strbuf_add(&out->text, bytes->data, bytes->len);
		pieces_close(out);
	} else {
		for (size_t i = 0; i < bytes->len; i++) {
			strbuf_utf8(&out->text, UNICODE_REPLACEMENT);
			pieces_close(out);
		}
	}
	strbuf_clear(bytes);
}

static int byte_fallback(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	(void)s;
	struct strbuf bytes = { 0 };
	for (size_t i = 0, len; i < in->count; i++) {
		const char *text = piece_at(in, i, &len);
		int byte = byte_piece(text, len);
		if (byte >= 0) {
			strbuf_putc(&bytes, (char)byte);
			continue;
		}
		flush_bytes(&bytes, out);
		strbuf_add(&out->text, text, len);
		pieces_close(out);
	}
	flush_bytes(&bytes, out);
	bool failed = bytes.failed;
	strbuf_release(&bytes);
	return failed ? err_nomem(e) : ERR_OK;
}

static int parse_char(const struct json *j, const char *key, struct dec_step *s, struct err *e)
{
	const char *c = json_string(json_get(j, key));
	if (!c || !*c || utf8_length(*c) != strlen(c))
		return err_set(e, ERR_INPUT, "decoder: \"%s\" is not one character", key);
	s->code = utf8_code(c);
	return ERR_OK;
}

static int parse_strip(const struct json *j, struct arena *a, struct dec_step *s, struct err *e)
{
	(void)a;
	if (!json_int(json_get(j, "start"), &s->start) || !json_int(json_get(j, "stop"), &s->stop) || s->start < 0 || s->stop < 0)
		return err_set(e, ERR_INPUT, "Strip: start and stop are not counts");
	return parse_char(j, "content", s, e);
}

static int strip(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	(void)e;
	for (size_t i = 0, len; i < in->count; i++) {
		const char *text = piece_at(in, i, &len);
		size_t from = 0, to = len, back;
		for (int64_t k = 0; k < s->start && from < len && utf8_code(text + from) == s->code; k++)
			from += utf8_length(text[from]);
		for (int64_t k = 0; k < s->stop && to > from && utf8_code(text + (back = utf8_back(text, to))) == s->code; k++)
			to = back;
		strbuf_add(&out->text, text + from, to - from);
		pieces_close(out);
	}
	return ERR_OK;
}

static int parse_metaspace(const struct json *j, struct arena *a, struct dec_step *s, struct err *e)
{
	(void)a;
	const char *scheme = json_string(json_get(j, "prepend_scheme"));
	s->prepended = !(scheme && strcmp(scheme, "never") == 0) && part_bool(j, "add_prefix_space", true);
	return parse_char(j, "replacement", s, e);
}

static int metaspace(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	(void)e;
	for (size_t i = 0, len; i < in->count; i++) {
		const char *text = piece_at(in, i, &len);
		for (size_t k = 0; k < len; k += utf8_length(text[k])) {
			if (utf8_code(text + k) != s->code)
				strbuf_add(&out->text, text + k, utf8_length(text[k]));
			else if (i || !s->prepended)
				strbuf_putc(&out->text, ' ');
		}
		pieces_close(out);
	}
	return ERR_OK;
}

static int byte_level(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	(void)s;
	short byte[0x180];
	for (uint32_t c = 0; c < 0x180; c++)
		byte[c] = (short)byte_level_byte(c);
	struct strbuf bytes = { 0 };
	for (size_t i = 0, len; i < in->count; i++) {
		const char *text = piece_at(in, i, &len);
		size_t before = bytes.len, k = 0;
		for (uint32_t c; k < len && (c = utf8_code(text + k)) < 0x180 && byte[c] >= 0; k += utf8_length(text[k]))
			strbuf_putc(&bytes, (char)byte[c]);
		if (k < len && !bytes.failed) { /* not of the alphabet: taken as it is */
			bytes.len = before;
			strbuf_add(&bytes, text, len);
		}
	}
	unicode_sanitize(bytes.data ? bytes.data : "", bytes.len, &out->text);
	pieces_close(out);
	bool failed = bytes.failed;
	strbuf_release(&bytes);
	return failed ? err_nomem(e) : ERR_OK;
}

static int parse_bpe(const struct json *j, struct arena *a, struct dec_step *s, struct err *e)
{
	int rc = part_string(j, "suffix", a, &s->pattern.text, &s->pattern.len, e);
	if (!rc && !s->pattern.len)
		rc = err_set(e, ERR_UNSUPPORTED, "BPEDecoder without a suffix is not handled");
	return rc;
}

static int bpe(const struct dec_step *s, const struct pieces *in, struct pieces *out, struct err *e)
{
	struct dec_step space = *s;
	space.text = " ";
	struct pieces all = { 0 };
	space.text_len = 1;
	int rc = replace(&space, in, &all, e);
	/* the last piece's suffixes vanish instead */
	size_t keep = in->count > 1 && all.count == in->count ? all.end[in->count - 2] : 0;
	strbuf_add(&out->text, all.text.data, keep);
	if (!rc && in->count) {
		size_t len;
		const char *last = piece_at(in, in->count - 1, &len);
		struct pieces one = { 0 };
		strbuf_add(&one.text, last, len);
		pieces_close(&one);
		space.text_len = 0;
		if (one.failed || one.text.failed)
			rc = err_nomem(e);
		else
			rc = replace(&space, &one, out, e);
		pieces_release(&one);
	}
	pieces_release(&all);
	return rc;
}

static const struct dec_row rows[] = {
	{ "ByteLevel", NULL, byte_level },
	{ "Replace", parse_replace, replace },
	{ "ByteFallback", NULL, byte_fallback },
	{ "Fuse", NULL, fuse },
	{ "Strip", parse_strip, strip },
	{ "Metaspace", parse_metaspace, metaspace },
	{ "BPEDecoder", parse_bpe, bpe },
};

static int parse_one(const struct json *j, struct arena *a, struct dec_steps *out, struct err *e)
{
	const char *type = json_string(json_get(j, "type"));
	if (!type)
		return err_set(e, ERR_INPUT, "tokenizer.json: a decoder without a type");
	if (strcmp(type, "Sequence") == 0) {
		int rc = ERR_OK;
		for (j = json_first(json_get(j, "decoders")); j && !rc; j = json_next(j))
			rc = parse_one(j, a, out, e);
		return rc;
	}
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(type, rows[i].type) == 0) {
			struct dec_step *s = &out->at[out->count++];
			s->row = &rows[i];
			return rows[i].parse ? rows[i].parse(j, a, s, e) : ERR_OK;
		}
	return err_set(e, ERR_UNSUPPORTED, "tokenizer decoder %.60s is not handled", type);
}

int dec_parse(const struct json *j, struct arena *a, struct dec_steps *out, struct err *e)
{
	if (json_is_null(j))
		return ERR_OK;
	size_t n;
	int rc = part_steps(j, "decoders", &n, e);
	if (rc)
		return rc;
	out->present = true;
	out->at = arena_array(a, n, sizeof *out->at);
	return out->at ? parse_one(j, a, out, e) : err_nomem(e);
}

void dec_release(struct dec_steps *d)
{
	for (size_t i = 0; i < d->count; i++)
		regex_free(d->at[i].pattern.regex);
}

int dec_apply(const struct dec_steps *d, struct pieces *p, struct strbuf *out, struct err *e)
{
	size_t given = p->text.len;
	int rc = ERR_OK;
	for (size_t i = 0; i < d->count && !rc; i++) {
		struct pieces next = { .text.limit = growth_limit(given) };
		rc = d->at[i].row->apply(&d->at[i], p, &next, e);
		if (next.text.over)
			rc = growth_error("the decoder", given, e);
		if (!rc && (next.failed || next.text.failed))
			rc = err_nomem(e);
		pieces_release(p);
		*p = next;
	}
	if (d->present) {
		strbuf_add(out, p->text.data, p->text.len);
		return rc;
	}
	for (size_t i = 0, len; i < p->count; i++) { /* without a decoder, words */
		const char *text = piece_at(p, i, &len);
		if (i)
			strbuf_putc(out, ' ');
		strbuf_add(out, text, len);
	}
	return rc;
}

/* ---- post-processors: ids in front and behind ---- */

struct around {
	size_t head_count, tail_count;
	int32_t head[MAX_AROUND], tail[MAX_AROUND];
};

static int too_many(size_t count, struct err *e)
{
	return count <= MAX_AROUND ? ERR_OK : err_set(e, ERR_INPUT, "the tokenizer's post-processor puts more than %d tokens around a "
						       "text", (int)MAX_AROUND);
}

static int put_ids(const struct json *ids, int32_t list[MAX_AROUND], size_t *count, struct err *e)
{
	for (ids = json_first(ids); ids; ids = json_next(ids)) {
		int64_t id;
		if (!json_int(ids, &id) || id < 0 || id >= TOKENIZER_MAX_ID)
			return err_set(e, ERR_INPUT, "post-processor: a token id is out of range");
		if (too_many(*count + 1, e))
			return ERR_INPUT;
		list[(*count)++] = (int32_t)id;
	}
	return ERR_OK;
}

static int template(const struct json *j, struct around *x, struct err *e)
{
	const struct json *specials = json_get(j, "special_tokens"), *single = json_get(j, "single");
	bool seen = false;
	if (json_kind(single) != JSON_ARRAY)
		return err_set(e, ERR_UNSUPPORTED, "TemplateProcessing: \"single\" is not a list");
	if (too_many(json_count(single), e))
		return ERR_INPUT;
	for (const struct json *p = json_first(single); p; p = json_next(p)) {
		const char *token = json_string(json_get(json_get(p, "SpecialToken"), "id"));
		const char *sequence = json_string(json_get(json_get(p, "Sequence"), "id"));
		if (sequence && strcmp(sequence, "A") == 0 && !seen) {
			seen = true;
			continue;
		}
		const struct json *ids = token ? json_get(json_get(specials, token), "ids") : NULL;
		if (json_kind(ids) != JSON_ARRAY)
			return err_set(e, ERR_UNSUPPORTED, "TemplateProcessing: a part of \"single\" is not handled");
		int rc = seen ? put_ids(ids, x->tail, &x->tail_count, e) : put_ids(ids, x->head, &x->head_count, e);
		if (rc)
			return rc;
	}
	return seen ? ERR_OK : err_set(e, ERR_UNSUPPORTED, "TemplateProcessing: \"single\" lacks the sequence");
}

/* cls and sep: ["text", id] */
static int cls_sep(const struct json *j, struct around *x, struct err *e)
{
	static const char *const keys[] = { "cls", "sep" };
	for (int i = 0; i < 2; i++) {
		int64_t id;
		const struct json *pair = json_get(j, keys[i]);
		if (!json_int(json_next(json_first(pair)), &id) || id < 0 || id >= TOKENIZER_MAX_ID)
			return err_set(e, ERR_INPUT, "post-processor: \"%s\" is not a token and its id", keys[i]);
		*(i ? x->tail : x->head) = (int32_t)id;
		*(i ? &x->tail_count : &x->head_count) = 1;
	}
	return ERR_OK;
}

static int only_offsets(const struct json *j, struct around *x, struct err *e)
{
	(void)j, (void)x, (void)e;
	return ERR_OK;
}

static const struct {
	const char *type;
	int (*parse)(const struct json *j, struct around *x, struct err *e);
} post_rows[] = {
	{ "TemplateProcessing", template },
	{ "ByteLevel", only_offsets },
	{ "BertProcessing", cls_sep },
	{ "RobertaProcessing", cls_sep },
};

static int post_one(const struct json *j, struct tokenizer *t, struct err *e)
{
	const char *type = json_string(json_get(j, "type"));
	struct around x;
	int rc = -1;
	x.head_count = x.tail_count = 0;
	for (size_t i = 0; type && i < sizeof post_rows / sizeof post_rows[0]; i++)
		if (strcmp(type, post_rows[i].type) == 0)
			rc = post_rows[i].parse(j, &x, e);
	if (rc)
		return rc > 0 ? rc : err_set(e, ERR_UNSUPPORTED, "tokenizer post-processor %.60s is not handled", type ? type : "(none)");
	if (!x.head_count && !x.tail_count)
		return ERR_OK;
	if (too_many(x.head_count + t->head_count + x.tail_count + t->tail_count, e))
		return ERR_INPUT;
	/* what comes later in a sequence goes around what came before */
	int32_t *head = arena_array(&t->arena, x.head_count + t->head_count + 1, sizeof *head);
	int32_t *tail = arena_array(&t->arena, x.tail_count + t->tail_count + 1, sizeof *tail);
	if (!head || !tail)
		return err_nomem(e);
	for (size_t i = 0; i < x.head_count + t->head_count; i++)
		head[i] = i < x.head_count ? x.head[i] : t->head[i - x.head_count];
	for (size_t i = 0; i < x.tail_count + t->tail_count; i++)
		tail[i] = i < t->tail_count ? t->tail[i] : x.tail[i - t->tail_count];
	t->head = head;
	t->tail = tail;
	t->head_count += x.head_count;
	t->tail_count += x.tail_count;
	return ERR_OK;
}

int post_parse(const struct json *j, struct tokenizer *t, struct err *e)
{
	if (json_is_null(j))
		return ERR_OK;
	const char *type = json_string(json_get(j, "type"));
	if (!type || strcmp(type, "Sequence") != 0)
		return post_one(j, t, e);
	int rc = ERR_OK;
	for (j = json_first(json_get(j, "processors")); j && !rc; j = json_next(j))
		rc = post_parse(j, t, e);
	return rc;
}
