/* Recipes. The presets follow llama.cpp's llama-quant.cpp (dense models), so that users get what the names promise. */
#include "plan/recipe.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "model/stored.h"

#define END { ROLE_UNKNOWN, WHEN_ALWAYS, NULL, NULL }
static const char sensitive[] = "sensitive layer: more bits", values[] = "values: more bits", outputs[] = "attention output: more bits";
static const char downs[] = "down projection: more bits";

static const struct recipe_rule q2_k_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q3_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q3_k", outputs },
	{ ROLE_DOWN, WHEN_ALWAYS, "q3_k", downs },
	END,
};
static const struct recipe_rule q3_k_m_rules[] = {
	{ ROLE_V, WHEN_FIRST_2, "q5_k", sensitive },
	{ ROLE_V, WHEN_ALWAYS, "q4_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q4_k", outputs },
	{ ROLE_DOWN, WHEN_FIRST_16TH, "q5_k", sensitive },
	{ ROLE_DOWN, WHEN_ALWAYS, "q4_k", downs },
	END,
};
static const struct recipe_rule q3_k_l_rules[] = {
	{ ROLE_V, WHEN_ALWAYS, "q5_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q5_k", outputs },
	{ ROLE_DOWN, WHEN_ALWAYS, "q5_k", downs },
	END,
};
static const struct recipe_rule q4_k_s_rules[] = {
	{ ROLE_V, WHEN_FIRST_4, "q5_k", sensitive },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q5_k", sensitive },
	END,
};
static const struct recipe_rule k_m_rules[] = {
	{ ROLE_V, WHEN_MORE, "q6_k", sensitive },
	{ ROLE_DOWN, WHEN_MORE, "q6_k", sensitive },
	END,
};
static const struct recipe_rule iq4_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q5_k", "values shared by many heads: more bits" },
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITHOUT_IMPORTANCE, "q5_k", sensitive },
	END,
};
/* Of iq1 and the smaller iq2: what tells most has a plain grid. */
static const struct recipe_rule iq2_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q2_k", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q2_k", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q2_k", sensitive },
	END,
};
static const struct recipe_rule iq1_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q2_k", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "q2_k", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q2_k", sensitive },
	{ ROLE_O, WHEN_ALWAYS, "iq2_xxs", outputs },
	END,
};
static const struct recipe_rule iq2_s_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "iq3_s", "embedding" },
	{ ROLE_V, WHEN_SHARED, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_ALWAYS, "iq3_s", values },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "iq3_s", sensitive },
	{ ROLE_O, WHEN_ALWAYS, "iq3_s", outputs },
	END,
};
static const struct recipe_rule iq3_xxs_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "iq3_s", "embedding" },
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_V, WHEN_WITHOUT_IMPORTANCE, "iq3_s", values },
	{ ROLE_Q, WHEN_ALWAYS, "iq2_s", "queries and keys: fewer bits" },
	{ ROLE_K, WHEN_ALWAYS, "iq2_s", "queries and keys: fewer bits" },
	{ ROLE_O, WHEN_ALWAYS, "iq3_s", outputs },
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITHOUT_IMPORTANCE, "q4_k", sensitive },
	{ ROLE_DOWN, WHEN_WITHOUT_IMPORTANCE, "q3_k", downs },
	END,
};
static const struct recipe_rule iq3_xs_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	{ ROLE_Q, WHEN_ALWAYS, "iq3_xxs", "queries and keys: fewer bits" },
	{ ROLE_K, WHEN_ALWAYS, "iq3_xxs", "queries and keys: fewer bits" },
	{ ROLE_GATE, WHEN_MIDDLE, "iq3_xxs", "middle layers: fewer bits" },
	{ ROLE_UP, WHEN_MIDDLE, "iq3_xxs", "middle layers: fewer bits" },
	END,
};
static const struct recipe_rule iq3_s_rules[] = {
	{ ROLE_V, WHEN_GQA_4, "q4_k", "values shared by many heads: more bits" },
	END,
};
static const struct recipe_rule iq3_m_rules[] = {
	{ ROLE_V, WHEN_ALWAYS, "q4_k", values },
	{ ROLE_O, WHEN_ALWAYS, "q4_k", outputs },
	{ ROLE_DOWN, WHEN_FIRST_8TH, "q4_k", sensitive },
	END,
};
static const struct recipe_rule ternary_rules[] = {
	{ ROLE_EMBED, WHEN_ALWAYS, "q4_k", "embedding" },
	END,
};
static const struct recipe_rule mxfp4_moe_rules[] = {
	{ ROLE_GATE, WHEN_EXPERTS, "mxfp4", "experts" },
	{ ROLE_UP, WHEN_EXPERTS, "mxfp4", "experts" },
	{ ROLE_DOWN, WHEN_EXPERTS, "mxfp4", "experts" },
	END,
};
static const struct recipe_rule q4_0_rules[] = {
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITH_IMPORTANCE, "q4_1", sensitive },
	END,
};
static const struct recipe_rule q5_0_rules[] = {
	{ ROLE_DOWN, WHEN_FIRST_8TH_WITH_IMPORTANCE, "q5_1", sensitive },
	END,
};

const struct recipe_row recipe_rows[] = {
	{ "IQ1_S", "1.6 bits from a codebook, values and first layers 2.6", 24, "iq1_s", iq1_rules },
	{ "IQ1_M", "1.75 bits from a codebook, values and first layers 2.6", 31, "iq1_m", iq1_rules },
	{ "TQ1_0", "1.7 bits, for models trained with ternary weights", 36, "tq1_0", ternary_rules },
	{ "TQ2_0", "2.1 bits, for models trained with ternary weights", 37, "tq2_0", ternary_rules },
	{ "IQ2_XXS", "2.1 bits from a codebook, values and first layers 2.6", 19, "iq2_xxs", iq2_rules },
	{ "IQ2_XS", "2.3 bits from a codebook, values and first layers 2.6", 20, "iq2_xs", iq2_rules },
	{ "IQ2_S", "2.3 bits from a codebook, sensitive tensors 3.4", 28, "iq2_xs", iq2_s_rules },
	{ "IQ2_M", "2.6 bits from a codebook, sensitive tensors 3.4", 29, "iq2_s", iq2_s_rules },
	{ "IQ3_XXS", "3.1 bits from a codebook, queries and keys 2.6", 23, "iq3_xxs", iq3_xxs_rules },
	{ "IQ3_XS", "3.1 or 3.4 bits from a codebook", 22, "iq3_s", iq3_xs_rules },
	{ "IQ3_S", "3.4 bits from a codebook", 26, "iq3_s", iq3_s_rules },
	{ "IQ3_M", "3.4 bits from a codebook, sensitive tensors 4.5", 27, "iq3_s", iq3_m_rules },
	{ "Q2_K", "2.6 bits, values and down projections 3.4", 10, "q2_k", q2_k_rules },
	{ "Q3_K_S", "3.4 bits everywhere", 11, "q3_k", NULL },
	{ "Q3_K_M", "3.4 bits, sensitive tensors 4.5 or 5.5", 12, "q3_k", q3_k_m_rules },
	{ "Q3_K_L", "3.4 bits, sensitive tensors 5.5", 13, "q3_k", q3_k_l_rules },
	{ "IQ4_XS", "4.25 bits on a non-uniform grid", 30, "iq4_xs", iq4_rules },
	{ "IQ4_NL", "4.5 bits on a non-uniform grid, blocks of 32", 25, "iq4_nl", iq4_rules },
	{ "Q4_0", "4.5 bits, blocks of 32: the fastest to decode", 2, "q4_0", q4_0_rules },
	{ "Q4_1", "5 bits, blocks of 32 with an offset", 3, "q4_1", NULL },
	{ "Q4_K_S", "4.5 bits, first layers 5.5", 14, "q4_k", q4_k_s_rules },
	{ "Q4_K_M", "4.5 bits, sensitive tensors 6.6: a good first choice", 15, "q4_k", k_m_rules },
	{ "Q5_0", "5.5 bits, blocks of 32", 8, "q5_0", q5_0_rules },
	{ "Q5_1", "6 bits, blocks of 32 with an offset", 9, "q5_1", NULL },
	{ "Q5_K_S", "5.5 bits everywhere", 16, "q5_k", NULL },
	{ "Q5_K_M", "5.5 bits, sensitive tensors 6.6", 17, "q5_k", k_m_rules },
	{ "Q6_K", "6.6 bits: close to lossless", 18, "q6_k", NULL },
	{ "MXFP4_MOE", "experts 4.25 bits as OCP MX, all else 8.5", 38, "q8_0", mxfp4_moe_rules },
	{ "Q8_0", "8.5 bits: nearly lossless, fast", 7, "q8_0", NULL },
	{ "F16", "half precision, vectors f32", 1, "f16", NULL },
	{ "BF16", "bfloat16, vectors f32", 32, "bf16", NULL },
	{ "F32", "single precision", 0, "f32", NULL },
};
const unsigned recipe_row_count = sizeof recipe_rows / sizeof *recipe_rows;

/* Names of other tools for schemes that are one codec throughout. */
static const struct { const char *name, *codec; bool activations; } codec_aliases[] = {
	{ "W4A16", "int4-g128", false }, { "W4A16_ASYM", "int4-g128-zp", false }, { "W8A16", "int8-row", false },
	{ "W8A8", "int8-row", true },
};

/* general.file_type of a file with one k-quant throughout: llama.cpp's name for it. */
static const struct { const char *codec; int type; } pure_types[] = {
	{ "f32", 0 }, { "f16", 1 }, { "q4_0", 2 }, { "q4_1", 3 }, { "q8_0", 7 }, { "q5_0", 8 }, { "q5_1", 9 }, { "q2_k", 10 },
	{ "q3_k", 11 }, { "q4_k", 14 }, { "q5_k", 16 }, { "q6_k", 18 }, { "iq4_nl", 25 }, { "iq4_xs", 30 }, { "bf16", 32 },
	{ "mxfp4", 38 }, { "nvfp4", 39 }, { "q1_0", 40 }, { "q2_0", 41 }, { "tq1_0", 36 }, { "tq2_0", 37 },
	{ "iq2_xxs", 19 }, { "iq2_xs", 20 }, { "iq3_xxs", 23 }, { "iq1_s", 24 }, { "iq3_s", 26 }, { "iq2_s", 28 }, { "iq1_m", 31 },
};

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
	const size_t alias_count = sizeof codec_aliases / sizeof *codec_aliases;
	if (i < recipe_row_count)
		return recipe_rows[i].name;
	if ((i -= recipe_row_count) < alias_count)
		return codec_aliases[i].name;
	i -= alias_count;
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
	for (size_t i = 0; i < sizeof codec_aliases / sizeof *codec_aliases && !codecs; i++)
		nearer(&n, codec_aliases[i].name);
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
		for (size_t i = 0; i < sizeof codec_aliases / sizeof *codec_aliases; i++)
			if (same_name(name, codec_aliases[i].name, strlen(name))) {
				r->activations = codec_aliases[i].activations;
				name = codec_aliases[i].codec;
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
	for (size_t i = 0; r->codec && i < sizeof pure_types / sizeof *pure_types; i++)
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
