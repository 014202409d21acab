/* Recipes: a scheme and rules on top of it choose a codec for every tensor. */
#include "plan/recipe.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "model/stored.h"
#include "plan/presets.h"

struct override {
	char *pattern;
	const struct codec *codec;  /* NULL: keep the source's */
};

struct recipe {
	const struct recipe_row *row;       /* NULL: one codec, or keep */
	const struct codec *codec, *wide;   /* default; embedding and head when row is NULL */
	const struct codec *vectors;        /* NULL: as in the source */
	struct override *overrides;
	size_t count;
	struct strbuf name;
	bool folder;                        /* recipe_folder: */
	struct recipe_folder as;
	bool activations;
};

/* ASCII case and '-' against '_' do not matter in names. */
static bool same_name(const char *a, const char *b, size_t len)
{
	for (size_t i = 0; i < len; i++, b++) {
		int x = a[i] == '-' ? '_' : tolower((unsigned char)a[i]), y = *b == '-' ? '_' : tolower((unsigned char)*b);
		if (!*b || x != y)
			return false;
	}
	return !*b;
}

static const struct recipe_row *row_find(const char *name)
{
	for (unsigned i = 0; i < recipe_row_count; i++)
		if (same_name(name, recipe_rows[i].name, strlen(name)))
			return &recipe_rows[i];
	return NULL;
}

/* What a scheme or a rule may name. */
static bool is_scheme(const struct codec *c)
{
	return codec_quantizes(c) || c->kind == CODEC_FLOAT;
}

const char *scheme_name(size_t i)
{
	if (i < recipe_row_count)
		return recipe_rows[i].name;
	if ((i -= recipe_row_count) < scheme_alias_count)
		return scheme_aliases[i].name;
	i -= scheme_alias_count;
	for (unsigned k = 0; k < codec_row_count; k++)
		if (is_scheme(codec_rows[k]) && !i--)
			return codec_rows[k]->name;
	return NULL;
}

/* In lower case and without what stands between the parts, which is the first that people forget: "q4km" is q4_k_m. */
static void folded(const char *name, char out[64])
{
	size_t n = 0;
	for (; *name && n < 63; name++)
		if (*name != '-' && *name != '_')
			out[n++] = (char)tolower((unsigned char)*name);
	out[n] = '\0';
}

struct nearest {
	char asked[64];
	const char *found;
	unsigned best;
};

static void nearer(struct nearest *n, const char *name)
{
	char b[64];
	folded(name, b);
	size_t len = strlen(n->asked);
	unsigned d = len > 1 && !strncmp(n->asked, b, len) ? 0 : name_distance(n->asked, b, n->best);
	if (d < n->best || (d == n->best && !n->found)) {
		n->best = d;
		n->found = name;
	}
}

/* "; did you mean q4_k?", or what to do instead. codecs: presets are none of the answers. */
static const char *advice(const char *name, bool codecs, char out[128])
{
	struct nearest n = { .found = NULL };
	folded(name, n.asked);
	n.best = (unsigned)strlen(n.asked) / 3 + 1;
	for (unsigned i = 0; i < recipe_row_count && !codecs; i++)
		nearer(&n, recipe_rows[i].name);
	for (size_t i = 0; i < scheme_alias_count && !codecs; i++)
		nearer(&n, scheme_aliases[i].name);
	for (unsigned i = 0; i < codec_row_count; i++)
		if (is_scheme(codec_rows[i]))
			nearer(&n, codec_rows[i]->name);
	if (n.found)
		snprintf(out, 128, "did you mean %s?", n.found);
	else
		snprintf(out, 128, "'quire help schemes' lists them");
	return out;
}

static int row_check(const struct recipe_row *row, struct err *e)
{
	if (!codec_find(row->codec))
		return err_set(e, ERR_UNSUPPORTED, "scheme %s needs codec %s, which is not built in", row->name, row->codec);
	for (const struct recipe_rule *r = row->rules; r && r->codec; r++)
		if (!codec_find(r->codec))
			return err_set(e, ERR_UNSUPPORTED, "scheme %s needs codec %s, which is not built in", row->name, r->codec);
	return ERR_OK;
}

/* Eight bits of the same family, so that a reader needs no second kind of decoder: int8 groups of the same length, else q8_0. */
static const struct codec *wide_codec(const struct codec *c)
{
	char name[32];
	if (!codec_quantizes(c) || c->bits >= 8)
		return c;
	if (c->kind == CODEC_GROUP) {
		if (c->block)
			snprintf(name, sizeof name, "int8-g%u%s", (unsigned)c->block, c->group_bias ? "-bias" : "");
		const struct codec *w = codec_find(c->block ? name : "int8-row");
		if (w)
			return w;
	}
	const struct codec *w = codec_find("q8_0");
	return w ? w : codec_find("f16");
}

int recipe_new(const char *scheme, struct recipe **out, struct err *e)
{
	struct recipe *r = calloc(1, sizeof *r);
	*out = NULL;
	if (!r)
		return err_nomem(e);
	int rc = ERR_OK;
	if (!scheme) {
		strbuf_puts(&r->name, "keep");
	} else if ((r->row = row_find(scheme))) {
		rc = row_check(r->row, e);
		r->codec = codec_find(r->row->codec);
		r->vectors = codec_find("f32");
	} else {
		const char *name = strlen(scheme) > 5 && same_name(scheme, "pure_", 5) ? scheme + 5 : scheme;
		for (size_t i = 0; i < scheme_alias_count; i++)
			if (same_name(name, scheme_aliases[i].name, strlen(name))) {
				r->activations = scheme_aliases[i].activations;
				name = scheme_aliases[i].codec;
			}
		r->codec = codec_find(name);
		char hint[128];
		if (!r->codec || !is_scheme(r->codec))
			rc = err_set(e, ERR_USAGE, "unknown scheme '%.60s'; %s", scheme, advice(name, name != scheme, hint));
		else {
			r->wide = wide_codec(r->codec);
			r->vectors = r->codec->kind == CODEC_BLOCK ? codec_find("f32") : NULL;
		}
	}
	if (!rc && scheme) {
		const char *name = r->row ? r->row->name : r->codec->name;
		for (; *name; name++)
			strbuf_putc(&r->name, (char)tolower((unsigned char)*name));
	}
	if (!rc && r->name.failed)
		rc = err_nomem(e);
	if (rc) {
		recipe_free(r);
		return rc;
	}
	*out = r;
	return ERR_OK;
}

void recipe_vectors(struct recipe *r, const struct codec *c)
{
	r->vectors = c;
}

static const char *trim(const char *s, const char **end)
{
	while (s < *end && isspace((unsigned char)*s))
		s++;
	while (*end > s && isspace((unsigned char)(*end)[-1]))
		(*end)--;
	return s;
}

static int add_override(struct recipe *r, const char *rule, size_t len, struct err *e)
{
	const char *eq = memchr(rule, '=', len), *end = rule + len, *stop = eq ? eq : end;
	int shown = len < 80 ? (int)len : 80;
	if (!eq)
		return err_set(e, ERR_USAGE, "rule '%.*s' is not of the form PATTERN=CODEC", shown, rule);
	const char *pattern = trim(rule, &stop), *name = trim(eq + 1, &end);
	char codec[64];
	if (stop == pattern)
		return err_set(e, ERR_USAGE, "rule '%.*s' has no pattern", shown, rule);
	snprintf(codec, sizeof codec, "%.*s", end - name < 63 ? (int)(end - name) : 63, name);
	const struct codec *c = codec_find(codec);
	char hint[128];
	if (!same_name(codec, "keep", strlen(codec)) && (!c || !is_scheme(c)))
		return err_set(e, ERR_USAGE, "rule '%.*s': unknown codec '%s'; %s", shown, rule, codec, advice(codec, true, hint));
	struct override *grown = realloc(r->overrides, (r->count + 1) * sizeof *grown);
	if (!grown)
		return err_nomem(e);
	r->overrides = grown;
	char *copy = malloc((size_t)(stop - pattern) + 1);
	if (!copy)
		return err_nomem(e);
	memcpy(copy, pattern, (size_t)(stop - pattern));
	copy[stop - pattern] = '\0';
	r->overrides[r->count++] = (struct override){ copy, c };
	strbuf_printf(&r->name, ",%s=%s", copy, c ? c->name : "keep");
	return r->name.failed ? err_nomem(e) : ERR_OK;
}

int recipe_override(struct recipe *r, const char *rule, struct err *e)
{
	return add_override(r, rule, strlen(rule), e);
}

int recipe_read(struct recipe *r, const char *text, size_t len, struct err *e)
{
	unsigned long number = 1;
	if (memchr(text, 0, len))
		return err_set(e, ERR_INPUT, "the recipe is not a text file");
	for (const char *p = text, *end = text + len; p < end; number++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end, *next = nl ? nl + 1 : end;
		const char *hash = memchr(p, '#', (size_t)(stop - p));
		if (hash)
			stop = hash;
		p = trim(p, &stop);
		if (stop > p && add_override(r, p, (size_t)(stop - p), e)) {
			err_prefix(e, "line %lu", number);
			return e ? e->code = ERR_INPUT : ERR_INPUT;
		}
		p = next;
	}
	return ERR_OK;
}

/* One element of a pattern against one character; *p moves past the element. An unclosed '[' stands for itself. */
static bool match_one(const char **p, char c)
{
	const char *s = *p;
	const char *close = *s == '[' && s[1] ? strchr(s + 2, ']') : NULL;
	if (!close) {
		*p = s + 1;
		return *s == '?' || *s == c;
	}
	bool negate = s[1] == '!', found = false;
	for (s += 1 + negate; s < close; s++) {
		if (s[1] == '-' && s + 2 < close) {
			found |= c >= s[0] && c <= s[2];
			s += 2;
		} else
			found |= c == *s;
	}
	*p = close + 1;
	return found != negate;
}

/* Only the last '*' needs to be tried again, so the time is at most the product of the lengths. */
static bool glob(const char *p, const char *s)
{
	const char *star = NULL, *resume = s;
	while (*s) {
		const char *next = p;
		if (*p == '*') {
			star = ++p;
			resume = s;
		} else if (*p && match_one(&next, *s)) {
			p = next;
			s++;
		} else if (star) {
			p = star;
			s = ++resume;
		} else
			return false;
	}
	while (*p == '*')
		p++;
	return !*p;
}

static bool layer_rule(enum recipe_when when, const struct recipe_query *q)
{
	uint32_t i = role_layer(q->role, q->layer), n = q->config ? q->config->layers : 0;
	switch (when) {
	case WHEN_ALWAYS: return true;
	case WHEN_MORE: return i < n / 8 || i >= 7 * (uint64_t)n / 8 || (i - n / 8) % 3 == 2;
	case WHEN_FIRST_2: return i < 2;
	case WHEN_FIRST_4: return i < 4;
	case WHEN_FIRST_16TH: return i < n / 16;
	case WHEN_FIRST_8TH: return i < n / 8;
	case WHEN_FIRST_8TH_WITH_IMPORTANCE: return q->has_importance && i < n / 8;
	case WHEN_FIRST_8TH_WITHOUT_IMPORTANCE: return !q->has_importance && i < n / 8;
	case WHEN_GQA_4: return q->config && q->config->kv_heads && q->config->heads / q->config->kv_heads >= 4;
	case WHEN_SHARED: return layer_rule(WHEN_GQA_4, q) || (q->config && q->config->experts >= 4);
	case WHEN_MIDDLE: return i >= n / 8 && i < 7 * (uint64_t)n / 8;
	case WHEN_WITHOUT_IMPORTANCE: return !q->has_importance;
	case WHEN_EXPERTS: return q->role < ROLE_COUNT && role_rows[q->role].per_expert;
	}
	return false;
}

static bool contains(const char *s, const char *part)
{
	return strstr(s, part) != NULL;
}

/* Without an architecture the name decides; the two families that matter are the Hugging Face and GGUF spellings. */
static enum role effective_role(const struct recipe_query *q)
{
	const char *name = q->tensor->name;
	if (q->role != ROLE_UNKNOWN)
		return q->role;
	if (contains(name, "embed_tokens") || contains(name, "token_embd") || contains(name, "wte."))
		return ROLE_EMBED;
	return contains(name, "lm_head") ? ROLE_HEAD : ROLE_UNKNOWN;
}

/* Matrices that methods may quantize; everything else is a vector, a norm or a small special table. */
static bool is_matrix(const struct recipe_query *q, enum role role)
{
	const char *name = q->tensor->name;
	size_t n = strlen(name);
	if (q->tensor->ndim < 2)
		return false;
	if (role != ROLE_UNKNOWN)
		return role == ROLE_EMBED || role == ROLE_HEAD || role_rows[role].linear;
	return q->tensor->ndim == 2 && n >= 6 && !strcmp(name + n - 6, "weight") && !contains(name, "norm");
}

bool recipe_is_float(const struct recipe *r)
{
	return r->codec && r->codec->kind == CODEC_FLOAT;
}

const char *recipe_head(const struct codec *c)
{
	/* llama.cpp: one step lower under the codebooks of up to three bits */
	if (c->together && strcmp(c->name, "iq3_s"))
		return "q5_k";
	return !codec_quantizes(c) ? c->name : c->bits >= 8 ? "q8_0" : "q6_k";
}

/* llama.cpp, of mixtures of eight (Mixtral): what all experts share is small beside them. */
static const char *of_eight(const struct recipe *r, enum role role)
{
	static const char *const output[] = { "Q2_K", "Q3_K_S", "Q3_K_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "Q4_K_S",
					      "Q4_K_M" };
	bool two_bits = r->codec->together && r->codec->bits < 4;
	if (!codec_quantizes(r->codec) || !strcmp(r->row->name, "MXFP4_MOE"))
		return NULL;
	if (role == ROLE_V || role == ROLE_K)
		return two_bits ? "q4_k" : "q8_0";
	if (role == ROLE_O && two_bits)
		return "q5_k";
	for (size_t i = 0; role == ROLE_O && i < sizeof output / sizeof *output; i++)
		if (!strcmp(r->row->name, output[i]))
			return "q5_k";
	return NULL;
}

static const struct codec *preset_codec(const struct recipe *r, const struct recipe_query *q, enum role role, const char **why)
{
	const struct recipe_row *row = r->row;
	bool tied = q->config && q->config->tied;
	*why = "default of the scheme";
	if (codec_quantizes(r->codec) && (role == ROLE_HEAD || (role == ROLE_EMBED && tied))) {
		bool fits = codec_row_bytes(r->codec, tensor_cols(q->tensor)) != 0;
		*why = role == ROLE_HEAD ? "output head" : "embedding that is also the output head";
		return codec_find(fits ? recipe_head(r->codec) : "q8_0");
	}
	const char *shared = q->config && q->config->experts == 8 ? of_eight(r, role) : NULL;
	if (shared) {
		*why = "shared by all experts: more bits";
		return codec_find(shared);
	}
	role = role < ROLE_COUNT ? role_rows[role].like : role;
	/* llama.cpp: Q, K and V in one tensor are judged as V alone would be */
	if ((role == ROLE_Q || role == ROLE_K) && q->config && stored_together(q->config->arch, role))
		role = ROLE_V;
	for (const struct recipe_rule *rule = row->rules; rule && rule->codec; rule++)
		if (rule->role == role && layer_rule(rule->when, q)) {
			*why = rule->why;
			return codec_find(rule->codec);
		}
	/* llama.cpp: 80 layers with grouped heads have small value matrices that many heads share */
	if (role == ROLE_V && q->config && q->config->layers == 80 && q->config->kv_heads < q->config->heads &&
	    (!strcmp(r->codec->name, "q3_k") || !strcmp(r->codec->name, "q4_k"))) {
		*why = "values of a 70B shape: more bits";
		return codec_find("q5_k");
	}
	return r->codec;
}

static const struct codec *fit_row(const struct codec *c, const struct tensor *t, const char **why)
{
	const struct codec *fitting = codec_for_row(c, tensor_cols(t));
	if (fitting != c)
		*why = "rows do not divide by the block: fallback";
	return fitting;
}

void recipe_folder(struct recipe *r, const struct recipe_folder *f)
{
	r->folder = true;
	r->as = *f;
}

bool recipe_activations(const struct recipe *r)
{
	return r->activations;
}

/* Whether its blocks divide the rows is another question. */
static const struct codec *wanted(const struct recipe *r, const struct recipe_query *q, const char **why)
{
	const char *reason = "as in the source";
	const struct codec *c = q->tensor->codec;
	enum role role = effective_role(q);
	bool matrix = is_matrix(q, role);
	*why = reason;
	if (c->kind == CODEC_INTEGER)
		return c;
	for (size_t i = r->count; i-- > 0;) {
		const struct override *o = &r->overrides[i];
		if (!glob(o->pattern, q->tensor->name) && !(role < ROLE_COUNT && glob(o->pattern, role_rows[role].name)))
			continue;
		if (o->codec && codec_quantizes(o->codec) && q->tensor->ndim < 2)
			continue;
		*why = "rule of the recipe";
		return o->codec ? o->codec : c;
	}
	if (!r->codec && !r->vectors)
		return c;
	if (!matrix) {
		if (r->vectors)
			*why = "not a matrix to quantize";
		return r->vectors ? r->vectors : c;
	}
	if (!r->codec)
		return c;
	if (r->row)
		return preset_codec(r, q, role, why);
	*why = role == ROLE_EMBED || role == ROLE_HEAD ? "embedding and output head: 8 bits" : "default of the scheme";
	return role == ROLE_EMBED || role == ROLE_HEAD ? r->wide : r->codec;
}

/* The codec of the same bits and groups that the folder holds, with its type of scales; c where there is none. */
static const struct codec *kind_of(const struct recipe *r, const struct codec *c)
{
	static const char *const offsets[] = { "", "-zp", "-bias" };
	char span[16] = "row", name[64];
	if (c->block)
		snprintf(span, sizeof span, "g%u", (unsigned)c->block);
	for (int bf16 = r->as.bf16 || c->group_scale; bf16 >= 0; bf16--)
		for (size_t i = c->group_bias ? 2 : c->has_offset; i < sizeof offsets / sizeof *offsets; i++) {
			snprintf(name, sizeof name, "int%d-%s%s%s", c->bits, span, offsets[i], bf16 ? "-bf16" : "");
			const struct codec *twin = codec_find(name);
			if (twin && (!r->as.holds || r->as.holds(twin)))
				return twin;
		}
	return c;
}

/* Tools that load folders expect 16 bits wherever there is no linear layer, whole groups, and scales in the model's type. */
static const struct codec *for_folder(const struct recipe *r, const struct recipe_query *q, const struct codec *c, const char **why)
{
	enum role role = effective_role(q);
	bool rule = !strcmp(*why, "rule of the recipe"), end = role == ROLE_EMBED || role == ROLE_HEAD;
	if (!rule && ((end && !r->as.ends) || (role == ROLE_UNKNOWN && q->config))) {
		*why = "kept in a folder: not a linear layer";
		return q->tensor->codec;
	}
	if (!rule && end && r->as.holds && c->kind == CODEC_BLOCK && !r->as.holds(c)) {
		*why = "kept: the folder has no such codes in 8 bits";
		return q->tensor->codec;
	}
	if (c->kind == CODEC_GROUP && c->block && tensor_cols(q->tensor) % c->block) {
		*why = "kept: rows do not divide into whole groups";
		return q->tensor->codec;
	}
	return c->kind == CODEC_GROUP ? kind_of(r, c) : c;
}

const struct codec *recipe_choose(const struct recipe *r, const struct recipe_query *q, const char **why)
{
	const char *reason;
	if (!why)
		why = &reason;
	const struct codec *c = fit_row(wanted(r, q, why), q->tensor, why);
	return r->folder && codec_quantizes(c) ? for_folder(r, q, c, why) : c;
}

const struct codec *recipe_refused(const struct recipe *r, const struct recipe_query *q)
{
	const char *why;
	const struct codec *c = wanted(r, q, &why);
	enum role role = effective_role(q);
	if (r->folder && !r->as.ends && (role == ROLE_EMBED || role == ROLE_HEAD)) /* they stay as they are */
		return NULL;
	bool whole = c->ragged && !(r->folder && c->block && tensor_cols(q->tensor) % c->block);
	return codec_quantizes(c) && !whole && tensor_cols(q->tensor) % (c->block ? c->block : 1) ? c : NULL;
}

const char *recipe_name(const struct recipe *r)
{
	return r->name.data ? r->name.data : "";
}

int recipe_file_type(const struct recipe *r)
{
	if (r->row)
		return r->row->gguf_file_type;
	for (size_t i = 0; r->codec && i < pure_type_count; i++)
		if (!strcmp(r->codec->name, pure_types[i].codec))
			return pure_types[i].type;
	return -1;
}

void recipe_free(struct recipe *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->count; i++)
		free(r->overrides[i].pattern);
	free(r->overrides);
	strbuf_release(&r->name);
	free(r);
}
