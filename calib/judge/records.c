#include "calib/judge/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/zip.h"

enum { VERSION = 1, FIXED = 16, BLOCK_HEADER = 12, HEADER_LIMIT = 1 << 20, MAX_RAW = 1 << 28 };

static const struct kind_row {
	const char *magic, *format, *what;
} kind_rows[] = {
	[RECORDS_BASELINE] = { "quirebas", "quire-baseline", "a baseline" },
	[RECORDS_PART] = { "quirepar", "quire-part", "a part of a run" },
};

static void hash_tokens(const struct windows *w, char out[IDENTITY_SIZE])
{
	struct sha256 h;
	uint8_t b[4];
	sha256_init(&h);
	for (size_t i = 0; i < w->count * w->ctx; i++) {
		store_u32(b, (uint32_t)w->tokens[i]);
		sha256_add(&h, b, sizeof b);
	}
	identity_finish(&h, out);
}

/* The tokens of a text, added to a hash. */
static int add_cut(struct sha256 *h, const struct tokenizer *t, const struct strbuf *text, struct err *e)
{
	struct token_ids ids = { 0 };
	int rc = text->failed ? err_nomem(e) : tokenizer_encode(t, text->data ? text->data : "", text->len, false, &ids, e);
	for (size_t k = 0; k < ids.count; k++) {
		uint8_t b[4];
		store_u32(b, (uint32_t)ids.id[k]);
		sha256_add(h, b, sizeof b);
	}
	sha256_add(h, "", 1); /* between texts */
	token_ids_release(&ids);
	return rc;
}

/* contexts: 1: pieces at the start of a text; 2: inside one as well, where no space comes before them. */
static int hash_tokenizer(const struct tokenizer *t, int contexts, char out[IDENTITY_SIZE], struct err *e)
{
	struct sha256 h;
	struct strbuf text = { 0 };
	char vocabulary[IDENTITY_SIZE];
	int rc = ERR_OK;
	identity_tokenizer(t, vocabulary);
	sha256_init(&h);
	identity_add(&h, vocabulary, sizeof vocabulary);
	for (size_t i = 0; i < tokenizer_size(t) && !rc; i++) {
		int32_t id = (int32_t)i;
		if (tokenizer_type(t, id) != TOKEN_NORMAL)
			continue;
		for (int inside = 0; inside < contexts && !rc; inside++) {
			strbuf_clear(&text);
			if (inside)
				strbuf_putc(&text, '\n');
			rc = tokenizer_decode(t, &id, 1, false, &text, e);
			if (!rc)
				rc = add_cut(&h, t, &text, e);
		}
	}
	identity_finish(&h, out);
	strbuf_release(&text);
	return rc;
}

int run_tokenizer(const struct tokenizer *t, char out[IDENTITY_SIZE], struct err *e)
{
	return hash_tokenizer(t, 2, out, e);
}

void run_merges(const struct tokenizer *t, char out[IDENTITY_SIZE])
{
	struct sha256 h;
	size_t n = tokenizer_merges(t);
	sha256_init(&h);
	for (size_t i = 0; i < n; i++) {
		const char *left, *right;
		tokenizer_merge(t, i, &left, &right);
		identity_add(&h, left, strlen(left));
		identity_add(&h, right, strlen(right));
	}
	identity_finish(&h, out);
	if (!n)
		out[0] = '\0';
}

static bool same_merges(const char *a, const char *b)
{
	return !*a || !*b || !strcmp(a, b);
}

int run_same_tokenizer(const struct tokenizer *a, const struct tokenizer *b, bool *same, struct err *e)
{
	char cut[2][IDENTITY_SIZE], merges[2][IDENTITY_SIZE];
	int rc = run_tokenizer(a, cut[0], e);
	if (!rc)
		rc = run_tokenizer(b, cut[1], e);
	run_merges(a, merges[0]);
	run_merges(b, merges[1]);
	*same = !rc && !strcmp(cut[0], cut[1]) && same_merges(merges[0], merges[1]);
	return rc;
}

int run_id_make(struct run_id *id, const struct loaded *model, const struct loaded *reference, const struct windows *w,
		enum protocol p, struct err *e)
{
	*id = (struct run_id){ .protocol = p, .ctx = w->ctx, .windows = w->count, .scored = windows_scored(w),
			       .vocab = model->config.vocab, .to = w->count };
	int rc = identity_model(&model->config, model->checkpoint->source, id->model, e);
	if (!rc && reference)
		rc = identity_model(&reference->config, reference->checkpoint->source, id->reference, e);
	if (!rc)
		rc = run_tokenizer(model->tokenizer, id->tokenizer, e);
	run_merges(model->tokenizer, id->merges);
	hash_tokens(w, id->tokens);
	strncpy(id->tool, "quire " QUIRE_VERSION, sizeof id->tool - 1);
	return rc;
}

int run_id_older(const struct run_id *kept, const struct tokenizer *t, bool *older, struct err *e)
{
	char hash[IDENTITY_SIZE];
	int rc = *kept->merges ? ERR_OK : hash_tokenizer(t, 1, hash, e);
	*older = !rc && !*kept->merges && !strcmp(kept->tokenizer, hash);
	return rc;
}

void run_id_kv(struct run_id *id, const struct kv_choice *kv)
{
	if (!kv_chosen(kv))
		return;
	snprintf(id->kv, sizeof id->kv, "%.20s", kv->k ? kv->k : "f32");
	snprintf(id->kv_v, sizeof id->kv_v, "%.20s", kv->v ? kv->v : id->kv);
	id->kv_rotate = kv->rotate;
}

int run_id_match(const struct run_id *kept, const struct run_id *now, const char *kept_name, struct err *e)
{
	const struct {
		const char *what;
		size_t kept, now;
	} counts[] = {
		{ "vocabulary", kept->vocab, now->vocab },
		{ "context", kept->ctx, now->ctx },
		{ "number of windows", kept->windows, now->windows },
		{ "number of scored tokens per window", kept->scored, now->scored },
	};
	if (strcmp(kept->tokenizer, now->tokenizer))
		return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: it was made with another tokenizer", kept_name);
	if (!same_merges(kept->merges, now->merges))
		return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: it was made with another tokenizer (other merges)", kept_name);
	if (kept->protocol != now->protocol)
		return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: it was made with protocol %s, this run uses %s", kept_name,
			       protocol_rows[kept->protocol].name, protocol_rows[now->protocol].name);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		if (counts[i].kept != counts[i].now)
			return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: its %s is %zu, this run's %zu", kept_name,
				       counts[i].what, counts[i].kept, counts[i].now);
	if (strcmp(kept->tokens, now->tokens))
		return err_set(e, ERR_NOT_COMPARABLE, "not comparable with %s: it was made on other tokens (another text)", kept_name);
	return ERR_OK;
}

static void print_header(const struct run_id *id, enum records_kind kind, struct strbuf *out)
{
	struct json_writer w = { .out = out };
	jw_object(&w, NULL);
	jw_string(&w, "format", kind_rows[kind].format);
	jw_int(&w, "version", VERSION);
	jw_string(&w, "tool", id->tool);
	jw_string(&w, "model", id->model);
	jw_string(&w, "model_name", id->model_name);
	if (*id->reference) {
		jw_string(&w, "reference", id->reference);
		jw_string(&w, "reference_name", id->reference_name);
	}
	if (*id->as)
		jw_string(&w, "as", id->as);
	if (*id->kv) {
		jw_string(&w, "kv_cache", id->kv);
		jw_string(&w, "kv_cache_v", id->kv_v);
		jw_bool(&w, "kv_rotate", id->kv_rotate);
	}
	jw_string(&w, "data_name", id->data_name);
	jw_string(&w, "tokenizer", id->tokenizer);
	if (*id->merges)
		jw_string(&w, "merges", id->merges);
	jw_string(&w, "tokens", id->tokens);
	jw_string(&w, "protocol", protocol_rows[id->protocol].name);
	jw_uint(&w, "ctx", id->ctx);
	jw_uint(&w, "windows", id->windows);
	jw_uint(&w, "scored", id->scored);
	jw_uint(&w, "vocab", id->vocab);
	jw_uint(&w, "from", id->from);
	jw_uint(&w, "to", id->to);
	jw_uint(&w, "fields", id->fields);
	jw_end_object(&w);
}

int records_create(struct records_writer *w, const char *path, enum records_kind kind, const struct run_id *id, struct err *e)
{
	struct strbuf header = { 0 };
	uint8_t fixed[FIXED];
	*w = (struct records_writer){ 0 };
	print_header(id, kind, &header);
	int rc = header.failed ? err_nomem(e) : out_open(path, &w->file, e);
	if (!rc) {
		memcpy(fixed, kind_rows[kind].magic, 8);
		store_u32(fixed + 8, (uint32_t)header.len);
		store_u32(fixed + 12, zip_crc32(0, header.data, header.len));
		rc = out_write(w->file, fixed, sizeof fixed, e);
	}
	if (!rc)
		rc = out_write(w->file, header.data, header.len, e);
	strbuf_release(&header);
	if (rc)
		records_abort(w);
	return rc;
}

int records_add(struct records_writer *w, const void *raw, size_t size, struct err *e)
{
	if (size > MAX_RAW)
		return err_set(e, ERR_UNSUPPORTED, "a window of %zu bytes of records is too large; use a smaller --ctx", size);
	size_t packed = zip_bound(size);
	uint8_t *b = malloc(BLOCK_HEADER + packed);
	if (!b)
		return err_nomem(e);
	int rc = zip_deflate(raw, size, ZIP_BYTES, b + BLOCK_HEADER, &packed, e);
	store_u32(b, (uint32_t)packed);
	store_u32(b + 4, (uint32_t)size);
	store_u32(b + 8, zip_crc32(0, b + BLOCK_HEADER, packed));
	if (!rc)
		rc = out_write(w->file, b, BLOCK_HEADER + packed, e);
	free(b);
	w->blocks++;
	return rc;
}

int records_finish(struct records_writer *w, struct err *e)
{
	struct out_file *f = w->file;
	w->file = NULL;
	return out_commit(f, e);
}

void records_abort(struct records_writer *w)
{
	out_abort(w->file);
	w->file = NULL;
}

static bool get_hash(const struct json *h, const char *key, bool optional, char out[IDENTITY_SIZE])
{
	const char *s = json_string(json_get(h, key));
	out[0] = '\0';
	if (!s)
		return optional && !json_get(h, key);
	if (strlen(s) != IDENTITY_SIZE - 1 || strspn(s, "0123456789abcdef") != IDENTITY_SIZE - 1)
		return false;
	memcpy(out, s, IDENTITY_SIZE);
	return true;
}

static void get_name(const struct json *h, const char *key, char *out, size_t room)
{
	const char *s = json_string(json_get(h, key));
	size_t n = s ? strlen(s) : 0;
	n = n < room ? n : room - 1;
	if (n)
		memcpy(out, s, n);
	out[n] = '\0';
}

static bool get_size(const struct json *h, const char *key, size_t max, size_t *out)
{
	int64_t v;
	if (!json_int(json_get(h, key), &v) || v < 0 || (uint64_t)v > max)
		return false;
	*out = (size_t)v;
	return true;
}

static int parse_header(struct run_id *id, const struct json *h, enum records_kind kind, struct err *e)
{
	int64_t version = 0;
	size_t fields = 0;
	const char *format = json_string(json_get(h, "format")), *protocol = json_string(json_get(h, "protocol"));
	if (!format || strcmp(format, kind_rows[kind].format) || !json_int(json_get(h, "version"), &version))
		return err_set(e, ERR_INPUT, "the header is not that of %s", kind_rows[kind].what);
	if (version != VERSION)
		return err_set(e, ERR_UNSUPPORTED, "version %lld; this program reads version %d", (long long)version, VERSION);
	unsigned p = 0;
	while (protocol && p < protocol_row_count && strcmp(protocol, protocol_rows[p].name))
		p++;
	if (!protocol || p == protocol_row_count)
		return err_set(e, ERR_INPUT, "the header's protocol is missing or unknown");
	id->protocol = protocol_rows[p].protocol;
	if (!get_hash(h, "model", false, id->model) || !get_hash(h, "reference", true, id->reference) ||
	    !get_hash(h, "tokenizer", false, id->tokenizer) || !get_hash(h, "merges", true, id->merges) ||
	    !get_hash(h, "tokens", false, id->tokens))
		return err_set(e, ERR_INPUT, "a hash in the header is missing or not sha256");
	if (!get_size(h, "ctx", 1 << 24, &id->ctx) || !get_size(h, "windows", UINT32_MAX, &id->windows) ||
	    !get_size(h, "scored", 1 << 24, &id->scored) || !get_size(h, "vocab", 1 << 24, &id->vocab) ||
	    !get_size(h, "from", id->windows, &id->from) || !get_size(h, "to", id->windows, &id->to) ||
	    !get_size(h, "fields", 255, &fields) || id->from > id->to || id->ctx < 2 || !id->scored || id->scored >= id->ctx ||
	    !id->windows || id->vocab < 2)
		return err_set(e, ERR_INPUT, "a number in the header is missing or makes no sense");
	if (kind == RECORDS_BASELINE && (id->from || id->to != id->windows))
		return err_set(e, ERR_INPUT, "a baseline must hold every window");
	id->fields = (unsigned)fields;
	get_name(h, "model_name", id->model_name, sizeof id->model_name);
	get_name(h, "reference_name", id->reference_name, sizeof id->reference_name);
	get_name(h, "data_name", id->data_name, sizeof id->data_name);
	get_name(h, "as", id->as, sizeof id->as);
	get_name(h, "kv_cache", id->kv, sizeof id->kv);
	get_name(h, "kv_cache_v", id->kv_v, sizeof id->kv_v);
	json_bool(json_get(h, "kv_rotate"), &id->kv_rotate);
	get_name(h, "tool", id->tool, sizeof id->tool);
	return ERR_OK;
}

static int parse_blocks(struct records *r, struct cursor *c, struct err *e)
{
	size_t count = r->id.to - r->id.from;
	/* the header's word for the count is not trusted before the bytes are there */
	if (count > (size_t)(c->end - c->at) / BLOCK_HEADER)
		return err_set(e, ERR_INPUT, "cut short: %zu windows cannot be in %zu bytes", count, (size_t)(c->end - c->at));
	r->block = calloc(count ? count : 1, sizeof *r->block);
	if (!r->block)
		return err_nomem(e);
	for (size_t i = 0; i < count; i++) {
		struct records_block *b = &r->block[i];
		b->packed = cursor_u32(c);
		b->raw = cursor_u32(c);
		uint32_t crc = cursor_u32(c);
		b->data = cursor_take(c, b->packed);
		if (c->bad)
			return err_set(e, ERR_INPUT, "cut short in the block of window %zu", r->id.from + i);
		if (b->raw > MAX_RAW || b->raw / 1100 > b->packed) /* deflate shrinks by no more than 1032 */
			return err_set(e, ERR_INPUT, "the block of window %zu claims an impossible size", r->id.from + i);
		if (zip_crc32(0, b->data, b->packed) != crc)
			return err_set(e, ERR_INPUT, "damaged: the checksum of window %zu is wrong", r->id.from + i);
	}
	if (c->at != c->end)
		return err_set(e, ERR_INPUT, "%zu bytes follow the last window", (size_t)(c->end - c->at));
	return ERR_OK;
}

int records_parse(struct records *r, const uint8_t *data, size_t size, enum records_kind kind, struct err *e)
{
	*r = (struct records){ 0 };
	struct cursor c = { data, data + size, false };
	const uint8_t *magic = cursor_take(&c, 8);
	if (!magic || memcmp(magic, kind_rows[kind].magic, 8))
		return err_set(e, ERR_INPUT, "not %s", kind_rows[kind].what);
	uint32_t n = cursor_u32(&c), crc = cursor_u32(&c);
	const uint8_t *text = n <= HEADER_LIMIT ? cursor_take(&c, n) : NULL;
	if (!text)
		return err_set(e, ERR_INPUT, "cut short in the header");
	if (zip_crc32(0, text, n) != crc)
		return err_set(e, ERR_INPUT, "damaged: the checksum of the header is wrong");
	struct json *h = json_parse((const char *)text, n, e);
	if (!h)
		return e->code;
	int rc = parse_header(&r->id, h, kind, e);
	json_free(h);
	if (!rc)
		rc = parse_blocks(r, &c, e);
	if (rc)
		records_close(r);
	return rc;
}

int records_open(struct records *r, const char *path, enum records_kind kind, struct err *e)
{
	struct mapped map;
	*r = (struct records){ 0 };
	int rc = mapped_open(&map, path, e);
	if (rc)
		return rc;
	rc = records_parse(r, map.data, map.size, kind, e);
	if (rc) {
		mapped_close(&map);
		return err_prefix(e, "%s", path);
	}
	r->map = map;
	return ERR_OK;
}

void records_close(struct records *r)
{
	free(r->block);
	if (r->map.data)
		mapped_close(&r->map);
	*r = (struct records){ 0 };
}

int records_block(const struct records *r, size_t i, uint8_t **raw, struct err *e)
{
	const struct records_block *b = &r->block[i];
	*raw = malloc(b->raw ? b->raw : 1);
	if (!*raw)
		return err_nomem(e);
	int rc = zip_inflate(b->data, b->packed, *raw, b->raw, e);
	if (rc) {
		free(*raw);
		*raw = NULL;
		return err_prefix(e, "window %zu", r->id.from + i);
	}
	return ERR_OK;
}
