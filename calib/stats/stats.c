#include "calib/stats/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "calib/stats/stats_file.h"
#include "formats/imatrix.h"

static int meta_number(const struct stats *s, const char *key, uint64_t *out, struct err *e)
{
	const char *text = st_meta(&s->file, key);
	uint64_t v = 0;
	if (!text || !*text || strlen(text) > 18)
		return err_set(e, ERR_INPUT, "metadata: '%s' is missing or not a number", key);
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return err_set(e, ERR_INPUT, "metadata: '%s' is not a whole number", key);
		v = v * 10 + (uint64_t)(*text - '0');
	}
	*out = v;
	return ERR_OK;
}

static bool is_hash(const char *text)
{
	return text && strlen(text) == IDENTITY_SIZE - 1 && strspn(text, "0123456789abcdef") == IDENTITY_SIZE - 1;
}

static int meta_hash(const struct stats *s, const char *key, char out[IDENTITY_SIZE], struct err *e)
{
	const char *text = st_meta(&s->file, key);
	if (!is_hash(text))
		return err_set(e, ERR_INPUT, "metadata: '%s' is missing or not a sha256", key);
	memcpy(out, text, IDENTITY_SIZE);
	return ERR_OK;
}

static int read_source(struct stats_source *x, const struct json *j, struct err *e)
{
	int64_t seed, total;
	const char *data = json_string(json_get(j, "data"));
	if (!is_hash(data) || !json_int(json_get(j, "seed"), &seed) || seed < 0 || !json_int(json_get(j, "windows"), &total) ||
	    total < 1 || total > INT32_MAX)
		return err_set(e, ERR_INPUT, "metadata: 'sources' has an element without data, seed and windows");
	memcpy(x->data, data, IDENTITY_SIZE);
	x->seed = (uint64_t)seed;
	x->total = (uint32_t)total;
	return ERR_OK;
}

static int read_sources(struct stats *s, struct err *e)
{
	const char *text = st_meta(&s->file, "sources");
	if (!text)
		return err_set(e, ERR_INPUT, "metadata: 'sources' is missing");
	struct json *j = json_parse(text, strlen(text), e);
	if (!j)
		return err_prefix(e, "metadata: 'sources'");
	size_t n = json_kind(j) == JSON_ARRAY ? json_count(j) : 0;
	int rc = n && n <= STATS_MAX_SOURCES ? ERR_OK : err_set(e, ERR_INPUT, "metadata: 'sources' is not a list of texts");
	if (!rc && !(s->head.sources = arena_array(&s->arena, n, sizeof *s->head.sources)))
		rc = err_nomem(e);
	for (const struct json *x = json_first(j); x && !rc; x = json_next(x))
		rc = read_source(&s->head.sources[s->head.source_count++], x, e);
	json_free(j);
	return rc;
}

static int read_head(struct stats *s, struct err *e)
{
	const char *format = st_meta(&s->file, "format"), *collect = st_meta(&s->file, "collect"), *tool = st_meta(&s->file, "tool");
	uint64_t version, ctx;
	if (!format || strcmp(format, STATS_FORMAT))
		return err_set(e, ERR_INPUT, "not a statistics file (a safetensors file without format = " STATS_FORMAT ")");
	int rc = meta_number(s, "format_version", &version, e);
	if (!rc && version != STATS_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "statistics of version %" PRIu64 "; this program reads version %d", version, STATS_VERSION);
	unsigned k = 0;
	while (collect && k < collect_row_count && strcmp(collect_rows[k].name, collect))
		k++;
	if (!rc && (!collect || k == collect_row_count))
		rc = err_set(e, ERR_UNSUPPORTED, "statistics of kind '%.40s' are not known", collect ? collect : "");
	if (!rc)
		rc = meta_number(s, "ctx", &ctx, e);
	if (!rc)
		rc = meta_hash(s, "model", s->head.model, e);
	if (!rc)
		rc = meta_hash(s, "tokenizer", s->head.tokenizer, e);
	if (!rc)
		rc = read_sources(s, e);
	if (rc)
		return rc;
	s->head.collect = collect_rows[k].collect;
	s->head.ctx = (size_t)ctx;
	s->head.tool = tool ? tool : "";
	return ERR_OK;
}

static bool shaped(const struct st_entry *t, const char *dtype, uint32_t ndim, uint64_t a, uint64_t b)
{
	return t && !strcmp(t->dtype->name, dtype) && t->ndim == ndim && t->dim[0] == a && (ndim < 2 || t->dim[1] == b);
}

/* Tokens and where they come from: in order, none twice. */
static int read_windows(struct stats *s, struct err *e)
{
	for (size_t i = 0; i < s->file.count; i++) {
		const struct st_entry *t = &s->file.entries[i];
		s->tokens = strcmp(t->name, "tokens") ? s->tokens : t;
		s->windows = strcmp(t->name, "windows") ? s->windows : t;
	}
	size_t n = s->windows && s->windows->ndim == 2 ? (size_t)s->windows->dim[0] : 0;
	if (!n || !shaped(s->windows, "I32", 2, n, 2))
		return err_set(e, ERR_INPUT, "tensor 'windows' is missing or not I32 [windows, 2]");
	if (s->head.ctx < 2 || !shaped(s->tokens, "I32", 2, n, s->head.ctx))
		return err_set(e, ERR_INPUT, "tensor 'tokens' is missing or not I32 [windows, ctx]");
	const uint8_t *w = stats_data(s, s->windows), *tokens = stats_data(s, s->tokens);
	for (size_t i = 0; i < n; i++) {
		uint32_t source = load_u32(w + 8 * i), index = load_u32(w + 8 * i + 4);
		if (source >= s->head.source_count || index >= s->head.sources[source].total ||
		    (i && (source < load_u32(w + 8 * i - 8) ||
			   (source == load_u32(w + 8 * i - 8) && index <= load_u32(w + 8 * i - 4)))))
			return err_set(e, ERR_INPUT, "tensor 'windows': row %zu is out of range or out of order", i);
	}
	for (size_t i = 0; i < n * s->head.ctx; i++)
		if ((int32_t)load_u32(tokens + 4 * i) < 0)
			return err_set(e, ERR_INPUT, "tensor 'tokens': element %zu is negative", i);
	s->head.windows = n;
	return ERR_OK;
}

/* "KEY.FIELD" of an entry; FIELDS when the name is of another kind. */
static enum field split_name(const char *name, size_t *key)
{
	const char *dot = strrchr(name, '.');
	for (int f = 0; dot && dot > name && f < FIELDS; f++)
		if (!strcmp(dot + 1, field_rows[f].suffix)) {
			*key = (size_t)(dot - name);
			return (enum field)f;
		}
	return FIELDS;
}

static int collect_fields(struct stats *s, struct err *e)
{
	s->entries = arena_array(&s->arena, s->file.count, sizeof *s->entries);
	if (!s->entries)
		return err_nomem(e);
	for (size_t i = 0; i < s->file.count; i++) {
		const struct st_entry *t = &s->file.entries[i];
		size_t key;
		uint64_t at;
		enum field f = split_name(t->name, &key);
		if (f == FIELDS)
			continue;
		if (!map_get(&s->index, t->name, key, &at)) {
			at = s->count++;
			s->entries[at].key = arena_strndup(&s->arena, t->name, key);
			if (!s->entries[at].key || map_add(&s->index, s->entries[at].key, key, at) < 0)
				return err_nomem(e);
		}
		s->entries[at].field[f] = t;
	}
	return s->count ? ERR_OK : err_set(e, ERR_INPUT, "the file has no statistics");
}

static int check_entry(struct stats *s, struct stats_entry *x, struct err *e)
{
	const struct st_entry *sums = x->field[FIELD_SUM_SQUARES];
	uint64_t n = sums ? sums->dim[0] : 0, elements;
	struct stats_input in;
	enum role role = stats_input_parse(x->key, &in) ? in.role : ROLE_UNKNOWN;
	if (!n || !shaped(sums, "F64", 1, n, 0))
		return err_set(e, ERR_INPUT, "'%.200s.sum_squares' is missing or not F64 [n]", x->key);
	for (int f = 0; f < FIELDS; f++) {
		const struct st_entry *t = x->field[f];
		if (!field_present((enum field)f, s->head.collect, role)) {
			x->field[f] = NULL;
			continue;
		}
		if (!field_elements((enum field)f, n, &elements) ||
		    !(shaped(t, field_rows[f].dtype, 1, elements, 0) || (f == FIELD_MOMENT && shaped(t, "F64", 1, elements, 0))))
			return err_set(e, ERR_INPUT, "'%.200s.%s' is missing, or not %s of the size that goes with %" PRIu64 " channels",
				       x->key, field_rows[f].suffix, field_rows[f].dtype, n);
	}
	x->n = (size_t)n;
	x->count = load_u64(stats_data(s, x->field[FIELD_COUNT]));
	bool may_be_none = role != ROLE_UNKNOWN && role_rows[role].per_expert;
	if ((!x->count && !may_be_none) || x->count > (uint64_t)1 << 53)
		return err_set(e, ERR_INPUT, "'%.200s.count' is not a number of tokens", x->key);
	x->importance = arena_array(&s->arena, x->n, sizeof *x->importance);
	if (!x->importance)
		return err_nomem(e);
	for (size_t i = 0; i < x->n; i++) {
		double v = load_f64_at(stats_data(s, sums), i);
		if (!(v >= 0) || v / (double)x->count > 3e38 || (!x->count && v > 0))
			return err_set(e, ERR_INPUT, "'%.200s.sum_squares': the value of channel %zu is not a sum of squares", x->key, i);
		x->importance[i] = x->count ? (float)(v / (double)x->count) : 0;
	}
	x->mats = 1;
	return ERR_OK;
}

static int parse_native(struct stats *s, const uint8_t *data, size_t size, struct err *e)
{
	int rc = st_parse(&s->file, data, size, e);
	if (!rc)
		rc = read_head(s, e);
	if (!rc)
		rc = read_windows(s, e);
	if (!rc)
		rc = collect_fields(s, e);
	for (size_t i = 0; i < s->count && !rc; i++)
		rc = check_entry(s, &s->entries[i], e);
	if (rc)
		return rc;
	uint64_t total = 0;
	for (size_t i = 0; i < s->head.source_count; i++)
		total += s->head.sources[i].total;
	s->info = (struct stats_info){ .collect = s->head.collect, .model = s->head.model, .tokenizer = s->head.tokenizer,
				       .tool = s->head.tool, .tokens = (uint64_t)s->head.windows * s->head.ctx,
				       .windows = s->head.windows, .ctx = s->head.ctx, .windows_total = (size_t)total,
				       .entries = s->count };
	return ERR_OK;
}

/* Means, and how many tokens they are over; a count of 0 has no mean, and 1 everywhere is what readers use then. */
static int copy_means(struct stats *s, struct stats_entry *x, const struct imatrix_entry *from, struct err *e)
{
	x->n = from->n;
	x->mats = from->mats;
	x->key = arena_strdup(&s->arena, from->name);
	x->importance = arena_array(&s->arena, x->n * x->mats, sizeof *x->importance);
	x->counts = arena_array(&s->arena, x->mats, sizeof *x->counts);
	if (!x->key || !x->importance || !x->counts)
		return err_nomem(e);
	for (size_t i = 0; i < x->mats; i++) {
		float count = from->counts[i];
		x->counts[i] = count < 1e15f ? count : 0;
		for (size_t k = 0; k < x->n; k++)
			x->importance[i * x->n + k] = count > 0 ? from->sum_squares[i * x->n + k] / count : 1;
	}
	x->count = x->mats == 1 && x->counts[0] < 1 ? 1 : (uint64_t)x->counts[0];
	return ERR_OK;
}

/* Keys are GGUF names. */
static int parse_foreign(struct stats *s, const uint8_t *data, size_t size, struct err *e)
{
	struct imatrix m;
	int rc = imatrix_parse(&m, data, size, e);
	if (rc)
		return rc;
	s->info = (struct stats_info){ .foreign = true, .model = "", .tokenizer = "", .tool = "", .ctx = m.chunk_size,
				       .windows = m.chunk_count, .windows_total = m.chunk_count };
	s->entries = arena_array(&s->arena, m.count, sizeof *s->entries);
	for (size_t i = 0; i < m.count && s->entries && !rc; i++) {
		const struct imatrix_entry *from = &m.entries[i];
		struct stats_entry *x = &s->entries[s->count];
		rc = copy_means(s, x, from, e);
		if (!rc && map_add(&s->index, x->key, strlen(x->key), s->count) < 0)
			rc = err_nomem(e);
		/* the older form does not say how many tokens there were; of several experts none has seen all */
		if (!rc && m.chunk_size && x->mats == 1 && x->count > s->info.tokens)
			s->info.tokens = x->count;
		s->count++;
	}
	if (!s->entries)
		rc = err_nomem(e);
	s->info.entries = s->count;
	imatrix_release(&m);
	return rc;
}

int stats_parse(const uint8_t *data, size_t size, struct stats **out, struct err *e)
{
	struct stats *s = calloc(1, sizeof *s);
	if (!s)
		return err_nomem(e);
	/* a header's length and its brace; an importance matrix begins with a magic or a small count and a name */
	bool native = size > 8 && data[8] == '{' && memcmp(data, "GGUF", 4) && load_u64(data) <= size - 8;
	int rc = (native ? parse_native : parse_foreign)(s, data, size, e);
	if (rc)
		stats_close(s);
	else
		*out = s;
	return rc;
}

int stats_open(const char *path, struct stats **out, struct err *e)
{
	struct mapped *map = calloc(1, sizeof *map);
	int rc = map ? mapped_open(map, path, e) : err_nomem(e);
	if (!rc && !map->size)
		rc = err_set(e, ERR_INPUT, "%s: the file is empty", path);
	else if (!rc && (rc = stats_parse(map->data, map->size, out, e)))
		err_prefix(e, "%s", path);
	if (!rc) {
		(*out)->map = map;
		return ERR_OK;
	}
	if (map)
		mapped_close(map);
	free(map);
	return rc;
}

void stats_close(struct stats *s)
{
	if (!s)
		return;
	st_release(&s->file);
	map_release(&s->index);
	if (s->map)
		mapped_close(s->map);
	free(s->map);
	for (int i = 0; i < 2; i++)
		free(s->pooled[i].m);
	arena_release(&s->arena);
	free(s);
}

const struct stats_info *stats_info(const struct stats *s)
{
	return &s->info;
}

const struct stats_entry *stats_find(const struct stats *s, const char *key)
{
	uint64_t at;
	return map_get(&s->index, key, strlen(key), &at) ? &s->entries[at] : NULL;
}

static int check_sizes(struct stats *s, struct err *e)
{
	struct stats_input *in;
	size_t count, found = 0;
	char key[STATS_KEY];
	int rc = stats_inputs(s->config, s->info.collect, &in, &count, e);
	if (rc)
		return rc;
	rc = stats_index(s, e);
	for (size_t i = 0; i < count && !rc; i++) {
		stats_input_key(&in[i], key);
		const struct stats_entry *x = in[i].output ? stats_find(s, key) : stats_site(s, in[i].role, in[i].layer);
		if (x && x->n != in[i].n)
			rc = err_set(e, s->info.foreign ? ERR_NOT_COMPARABLE : ERR_INPUT,
				     "'%s' has %zu channels where the model has %zu", key, x->n, in[i].n);
		else if (!x && !s->info.foreign)
			rc = err_set(e, ERR_INPUT, "the statistics lack '%s'", key);
		found += x != NULL;
	}
	if (!rc && !found)
		rc = err_set(e, ERR_NOT_COMPARABLE, "the importance matrix has no entry of this model");
	free(in);
	return rc;
}

static int check_model(struct stats *s, const struct config *c, struct tensor_source *source, const struct tokenizer *t, struct err *e)
{
	char hash[IDENTITY_SIZE];
	int rc;
	if (!s->info.foreign) {
		if ((rc = identity_model(c, source, hash, e)))
			return rc;
		if (strcmp(hash, s->head.model))
			return err_set(e, ERR_NOT_COMPARABLE, "the statistics were gathered with another model (%.12s..., this one is %.12s...)",
				       s->head.model, hash);
		if (t)
			identity_tokenizer(t, hash);
		if (t && strcmp(hash, s->head.tokenizer))
			return err_set(e, ERR_NOT_COMPARABLE, "the statistics were gathered with another tokenizer");
		const uint8_t *tokens = stats_data(s, s->tokens);
		for (size_t i = 0; i < s->head.windows * s->head.ctx; i++)
			if (load_u32(tokens + 4 * i) >= c->vocab)
				return err_set(e, ERR_INPUT, "tensor 'tokens': element %zu is outside the vocabulary", i);
	}
	s->config = c;
	if ((rc = check_sizes(s, e)))
		s->config = NULL;
	return rc;
}

int stats_check(struct stats *s, const struct config *c, struct tensor_source *source, const struct tokenizer *t, struct err *e)
{
	if (s->info.collect == COLLECT_KV)
		return err_set(e, ERR_INPUT, "these are statistics of keys and values, for fold; make others with calibrate --collect full");
	return check_model(s, c, source, t, e);
}

int stats_check_kv(struct stats *s, const struct config *c, struct tensor_source *source, const struct tokenizer *t, struct err *e)
{
	if (s->info.foreign || s->info.collect != COLLECT_KV)
		return err_set(e, ERR_INPUT, "the statistics hold no keys and values; make them with calibrate --collect kv");
	return check_model(s, c, source, t, e);
}

const float *stats_importance(const struct stats *s, enum role r, uint32_t place, size_t *n)
{
	const struct stats_entry *x = stats_site(s, r, place);
	if (x && n)
		*n = x->n;
	return x ? x->importance : NULL;
}

uint64_t stats_count(const struct stats *s, enum role r, uint32_t place)
{
	const struct stats_entry *x = stats_site(s, r, place);
	return x ? x->count : 0;
}

bool stats_magnitudes(const struct stats *s, enum role r, uint32_t place, float **largest, float **mean, size_t *n)
{
	const struct stats_entry *x = s->info.foreign ? NULL : stats_site(s, r, place);
	if (!x)
		return false;
	*n = x->n;
	*largest = malloc(x->n * sizeof **largest);
	*mean = malloc(x->n * sizeof **mean);
	if (!*largest || !*mean) {
		free(*largest);
		free(*mean);
		return false;
	}
	for (size_t i = 0; i < x->n; i++) {
		(*largest)[i] = load_f32_at(stats_data(s, x->field[FIELD_ABS_MAX]), i);
		(*mean)[i] = (float)(load_f64_at(stats_data(s, x->field[FIELD_ABS_SUM]), i) / (double)x->count);
	}
	return true;
}

bool stats_has_moment(const struct stats *s, enum role r, uint32_t place)
{
	const struct stats_entry *x = stats_site(s, r, place);
	return x && x->field[FIELD_MOMENT];
}

static int read_moment(const struct stats *s, const struct stats_entry *x, double **out, struct err *e)
{
	*out = NULL;
	int rc = stats_add_moment(s, x, x->count ? 1 / (double)x->count : 0, out, e);
	if (rc) {
		free(*out);
		*out = NULL;
	}
	return rc;
}

int stats_moment(struct stats *s, enum role r, uint32_t place, double **out, size_t *n, struct err *e)
{
	const struct stats_entry *x = stats_site(s, r, place);
	char key[STATS_KEY];
	if (!x || !x->field[FIELD_MOMENT])
		return err_set(e, ERR_INPUT, "the statistics hold no second moments of '%s'; make them with calibrate --collect full",
			       r < ROLE_COUNT ? stats_key(r, place, key) : "?");
	*n = x->n;
	int rc = read_moment(s, x, out, e);
	if (!rc && role_rows[r].per_expert && x->count < x->n && (rc = stats_borrow(s, x, r, place, *out, e))) {
		free(*out);
		*out = NULL;
	}
	return rc;
}

int stats_kv(const struct stats *s, uint32_t layer, struct fold_moments *out, struct err *e)
{
	const struct stats_entry *x[3];
	*out = (struct fold_moments){ 0 };
	for (int i = 0; i < 3; i++) {
		static const enum role roles[] = { ROLE_Q, ROLE_K, ROLE_V };
		struct stats_input in = { .role = roles[i], .layer = layer, .output = true };
		char key[STATS_KEY];
		x[i] = s->config ? stats_find(s, stats_input_key(&in, key)) : NULL;
		if (!x[i] || (i && !x[i]->field[FIELD_MOMENT]))
			return err_set(e, ERR_INPUT, "the statistics lack '%s'", stats_input_key(&in, key));
	}
	int rc = read_moment(s, x[1], &out->kk, e);
	if (!rc)
		rc = read_moment(s, x[2], &out->vv, e);
	if (!rc && !(out->qq = malloc(x[0]->n * sizeof *out->qq)))
		rc = err_nomem(e);
	for (size_t i = 0; i < x[0]->n && !rc; i++)
		out->qq[i] = (double)x[0]->importance[i];
	if (rc)
		fold_moments_release(out);
	return rc;
}

int stats_windows(const struct stats *s, struct windows *w, struct err *e)
{
	*w = (struct windows){ 0 };
	if (s->info.foreign)
		return err_set(e, ERR_INPUT, "an importance matrix holds no tokens; gather statistics with quire calibrate");
	w->count = s->head.windows;
	w->ctx = s->head.ctx;
	w->tokens = malloc(w->count * w->ctx * sizeof *w->tokens);
	if (!w->tokens)
		return err_nomem(e);
	for (size_t i = 0; i < w->count * w->ctx; i++)
		w->tokens[i] = (int32_t)load_u32(stats_data(s, s->tokens) + 4 * i);
	return ERR_OK;
}
