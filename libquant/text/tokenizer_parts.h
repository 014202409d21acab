#ifndef QUIRE_TEXT_TOKENIZER_PARTS_H
#define QUIRE_TEXT_TOKENIZER_PARTS_H
/*
 * The parts of a tokenizer, private to the files of this room.
 *
 * A text goes through: added tokens that match the raw text, normalizer, added
 * tokens that match the normalized text, pre-tokenizer, BPE, post-processor.
 * Between the stages it is a list of splits.
 */
#include "base/arena.h"
#include "base/json.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "text/bpe.h"
#include "text/regex.h"
#include "text/tokenizer.h"

#define TOKENIZER_MAX_ID (1 << 24)

/* What a small file must not make large; real ones stay far below. */
enum {
	MAX_STEPS = 1000,       /* of a normalizer, a pre-tokenizer, a decoder */
	MAX_AFFIX = 64,         /* bytes of a subword prefix or suffix */
	MAX_AROUND = 1024,      /* tokens that a post-processor puts around a text */
	MAX_REPLACEMENT = 4096, /* bytes that a charsmap has for one character */
	MAX_GROWTH = 256,       /* what steps may make of a text, in its own lengths, beside a KiB */
};
size_t growth_limit(size_t len);
int growth_error(const char *what, size_t len, struct err *e);

/* ---- spans: a text cut into matches of a pattern and what lies between them ---- */

struct span {
	size_t start, end;
	bool match;
};

struct spans {
	struct span *at;
	size_t count, cap;
	bool failed;
};
void spans_add(struct spans *s, size_t start, size_t end, bool match);

/* {"String": ...} or {"Regex": ...}, or a test on characters. */
struct pattern {
	const char *text; /* a literal, when there is no regex */
	size_t len;
	struct regex *regex;
};
int pattern_parse(const struct json *j, struct arena *a, struct pattern *p, struct err *e);

/* A pattern in use: what the search needs is made once for many texts. Zero-initialise. */
struct pattern_use {
	struct regex_search search;
	bool started;
};
/* Replaces s by the spans of the text; they cover it. */
int pattern_spans(const struct pattern *p, struct pattern_use *use, const char *text, size_t len, struct spans *s, struct err *e);
void pattern_use_release(struct pattern_use *use);

/* ---- splits ---- */

struct split {
	size_t start, len; /* in the text of its list */
	int32_t id;        /* an added token, or NO_TOKEN */
	bool first;        /* begins where the original text begins */
};

struct splits {
	struct split *at;
	size_t count, cap;
	struct strbuf text;
	bool failed;
};
void splits_add(struct splits *s, struct split one);
void splits_release(struct splits *s);

/* ---- normalizers, pre-tokenizers, decoders: one row per kind, a list of steps per tokenizer ---- */

struct norm_step;
struct norm_row {
	const char *type;
	int (*parse)(const struct json *j, struct arena *a, struct norm_step *step, struct err *e); /* NULL: nothing to read */
	int (*apply)(const struct norm_step *step, const char *s, size_t n, struct strbuf *out, struct err *e);
	int arg;
};
struct norm_step {
	const struct norm_row *row;
	struct pattern pattern;
	const char *text;
	size_t text_len;
	bool left, right, clean, chinese, accents, lower;
	struct charsmap *charsmap;
};
struct norm_steps {
	struct norm_step *at;
	size_t count;
};
int norm_parse(const struct json *j, struct arena *a, struct norm_steps *out, struct err *e);
void norm_release(struct norm_steps *n);
/* Appends the normalized text. *stripped: a leading part was removed. */
int norm_apply(const struct norm_steps *n, const char *s, size_t len, struct strbuf *out, bool *stripped, struct err *e);

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };
struct pre_step;
struct pre_row {
	const char *type;
	int (*parse)(const struct json *j, struct arena *a, struct pre_step *step, struct err *e);
	int (*apply)(const struct pre_step *step, struct splits *s, struct err *e); /* in place */
};
struct pre_step {
	const struct pre_row *row;
	struct pattern pattern;
	const char *regex_text; /* the pattern as written */
	enum split_behavior behavior;
	bool invert, prefix_space, use_regex, split, individual;
	int prepend; /* Metaspace: 0 never, 1 first, 2 always */
	const char *text;
	size_t text_len;
	size_t length;
};
struct pre_steps {
	struct pre_step *at;
	size_t count;
};
int pre_parse(const struct json *j, struct arena *a, struct pre_steps *out, struct err *e);
void pre_release(struct pre_steps *p);
int pre_apply(const struct pre_steps *p, struct splits *s, struct err *e);
/* GPT-2's map from bytes to printable characters. */
void byte_level_encode(const char *s, size_t n, struct strbuf *out);
/* The byte a character stands for, or -1. */
int byte_level_byte(uint32_t code);

/* A list of strings in one buffer. */
struct pieces {
	struct strbuf text;
	size_t *end;
	size_t count, cap;
	bool failed;
};
void pieces_close(struct pieces *p); /* ends the piece being written to text */
void pieces_release(struct pieces *p);

struct dec_step;
struct dec_row {
	const char *type;
	int (*parse)(const struct json *j, struct arena *a, struct dec_step *step, struct err *e);
	int (*apply)(const struct dec_step *step, const struct pieces *in, struct pieces *out, struct err *e);
};
struct dec_step {
	const struct dec_row *row;
	struct pattern pattern;
	const char *text;
	size_t text_len;
	uint32_t code;
	int64_t start, stop;
	bool prepended;
};
struct dec_steps {
	struct dec_step *at;
	size_t count;
	bool present;
};
int dec_parse(const struct json *j, struct arena *a, struct dec_steps *out, struct err *e);
void dec_release(struct dec_steps *d);
int dec_apply(const struct dec_steps *d, struct pieces *p, struct strbuf *out, struct err *e);

/* ---- added tokens ---- */

struct added_token {
	const char *content;
	size_t len;
	const char *normal; /* after the normalizer, when it is matched there */
	size_t normal_len;
	int32_t id;
	bool special, lstrip, rstrip, single_word, normalized;
};

struct trie_node {
	uint32_t child, sibling;
	int32_t token; /* index of an added token, or -1 */
	unsigned char byte;
};
struct trie {
	struct trie_node *node;
	size_t count, cap;
	uint32_t root[256];
	bool any;
};
int trie_add(struct trie *t, const char *s, size_t n, int32_t value);
void trie_release(struct trie *t);
/* The longest entry that s begins with: its value, or -1. */
int32_t trie_longest(const struct trie *t, const char *s, size_t n, size_t *len);

struct added {
	struct added_token *at;
	size_t count;
	struct trie raw, normal;
};
/* Cuts one split into more, added to out (whose text is not touched). text: of the split, whose `start` is its place in out's text. */
int added_split(const struct added *a, const struct trie *t, const char *text, struct split one, struct splits *out);

/* The list of tokenizer.json. */
int added_from_json(struct tokenizer *t, const struct json *list, struct err *e);
/* Special pieces of tokenizer.model, added_tokens_decoder of tokenizer_config.json, added_tokens.json. */
int added_from_model(struct tokenizer *t, const struct tokenizer_files *f, const struct json *config, struct err *e);

/* ---- the whole ---- */

struct spm;
struct tokenizer {
	struct arena arena;
	struct json *json;
	struct piece *pieces;
	size_t size, cap, puts; /* puts: how often an id was given a text */
	struct bpe bpe;
	struct norm_steps norm;
	struct pre_steps pre;
	struct dec_steps dec;
	struct added added;
	int32_t *head, *tail;  /* what the post-processor puts around */
	size_t head_count, tail_count;
	int32_t bos, eos;
	enum tokenizer_kind kind;
	struct spm *spm;       /* set for tokenizer.model */
	bool listed, scored;   /* tokenizer_config.json has types and scores from a GGUF file */
};
/* Gives an id its text. ERR_INPUT when it is out of range. */
int tokenizer_put(struct tokenizer *t, int64_t id, const char *text, size_t len, struct err *e);
int token_ids_add(struct token_ids *ids, int32_t id, struct err *e);
/* How many steps a tree of sequences has, each with its parts under the key `list`. ERR_INPUT beyond MAX_STEPS. */
int part_steps(const struct json *j, const char *list, size_t *count, struct err *e);
/* A copy of the string member, or *out NULL when missing. */
int part_string(const struct json *j, const char *key, struct arena *a, const char **out, size_t *len, struct err *e);
bool part_bool(const struct json *j, const char *key, bool missing);

/* post-processor */
int post_parse(const struct json *j, struct tokenizer *t, struct err *e);

/* tokenizer.model */
int spm_open(const struct tokenizer_files *f, const struct json *config, struct tokenizer *t, struct err *e);
int spm_scores(const void *data, size_t len, struct tokenizer *t); /* takes over scores and types where the pieces agree */
int spm_encode(const struct tokenizer *t, const char *s, size_t n, struct token_ids *out, struct err *e);
int spm_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct strbuf *out, struct err *e);
bool spm_space_prefix(const struct tokenizer *t);
bool spm_legacy(const struct tokenizer *t);
void spm_close(struct spm *s);

/* SentencePiece's compiled normalization: a double-array trie and the strings it leads to. */
struct charsmap;
int charsmap_open(const void *data, size_t len, struct charsmap **out, struct err *e);
/* The longest prefix of s that has a replacement: its length (0: none), *to NUL-terminated. */
size_t charsmap_longest(const struct charsmap *c, const char *s, size_t n, const char **to);
/* The replacement HF's normalizer takes for s: that of its shortest prefix; NULL when there is none. */
const char *charsmap_first(const struct charsmap *c, const char *s, size_t n);
void charsmap_free(struct charsmap *c);

#endif
