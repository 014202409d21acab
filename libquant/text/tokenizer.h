#ifndef QUIRE_TEXT_TOKENIZER_H
#define QUIRE_TEXT_TOKENIZER_H
/*
 * Tokenizers: byte-level BPE and SentencePiece-style BPE from tokenizer.json,
 * or SentencePiece BPE from tokenizer.model. Equal to Hugging Face's
 * `tokenizers` on any text.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

struct tokenizer;

struct token_ids {
	int32_t *id;   /* malloc'ed */
	size_t count, cap;
};

/*
 * Any of the texts may be NULL: tokenizer.json, tokenizer_config.json, tokenizer.model, added_tokens.json.
 * tokenizer.json wins over tokenizer.model and says itself what was added. ERR_UNSUPPORTED names the part that is not handled.
 */
struct tokenizer_files {
	const char *json, *config, *model, *added;
	size_t json_len, config_len, model_len, added_len;
};
int tokenizer_open(const struct tokenizer_files *f, struct tokenizer **out, struct err *e);
void tokenizer_close(struct tokenizer *t);

/* Appends ids. `special`: let the post-processor add its tokens (BOS). The text may hold any bytes; invalid UTF-8 is replaced by U+FFFD as Hugging Face does on input. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, struct token_ids *out, struct err *e);
/* Appends text. skip_special leaves out special tokens. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct strbuf *out, struct err *e);
void token_ids_release(struct token_ids *ids);

size_t tokenizer_size(const struct tokenizer *t);               /* highest id + 1 */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len); /* as in the vocabulary; NULL when unused */
int32_t tokenizer_id(const struct tokenizer *t, const char *piece, size_t len);  /* -1 when unknown */
/* The BOS that encoding with `special` puts in front, or -1. llama.cpp's add_bos: this is >= 0. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);               /* -1 when unknown */

/* What a GGUF writer needs of a vocabulary. */
enum tokenizer_kind { TOKENIZER_SPM, TOKENIZER_BYTE_BPE };
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };
extern const char *const token_type_names[TOKEN_BYTE + 1];
/* Text like <|end|>, which loaders of GGUF treat as control even if its flag says otherwise. */
bool token_looks_special(const char *s, size_t n);
/* The types (and for byte-level BPE the scores) are those that a GGUF file listed, not guessed. */
bool tokenizer_listed(const struct tokenizer *t);
bool tokenizer_scored(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);             /* encoding with `special` ends in EOS */
enum tokenizer_kind tokenizer_kind(const struct tokenizer *t);
enum token_type tokenizer_type(const struct tokenizer *t, int32_t id);
float tokenizer_score(const struct tokenizer *t, int32_t id);   /* SPM: the model's score, or -rank of the merge that makes it */
size_t tokenizer_merges(const struct tokenizer *t);
/* Merge i as two pieces (byte-level BPE). */
void tokenizer_merge(const struct tokenizer *t, size_t i, const char **left, const char **right);
/*
 * GGUF's name (tokenizer.ggml.pre) for the pre-tokenizer of a byte-level BPE, and what whoever goes by the name alone does
 * otherwise. A pre-tokenizer spelled as none in the table is tried on PRE_PROBES short texts.
 */
enum { PRE_PROBES = 6000 };
struct pre_known;
struct pre_match {
	const struct pre_known *known;   /* NULL: no name */
	bool probed;                     /* found by its cuts, not by its spelling */
	bool prefix_space;               /* puts a space in front of text, which the name does not say */
	size_t unreachable;              /* pieces that merges do not make, where the name and the tokenizer differ about them */
	int32_t unreachable_id;          /* the first of them */
};
int tokenizer_pre(const struct tokenizer *t, struct pre_match *out, struct err *e);
/* The normalizer of tokenizer.json as JSON; false: none. Then the types in it, with commas. */
bool tokenizer_normalizer(const struct tokenizer *t, struct strbuf *json);
void tokenizer_normalizer_types(const struct tokenizer *t, struct strbuf *out);
/* What encoding with `special` puts around a text. */
struct token_frame {
	const int32_t *head, *tail;
	size_t heads, tails;
};
void tokenizer_frame(const struct tokenizer *t, struct token_frame *out);
bool tokenizer_has_affixes(const struct tokenizer *t);          /* continuing_subword_prefix or end_of_word_suffix */
bool tokenizer_space_prefix(const struct tokenizer *t);
bool tokenizer_space_always(const struct tokenizer *t);         /* and after special tokens in the text too */
/* Appends a tokenizer.json that encodes as the tokenizer.model that t was opened from. */
int tokenizer_write_json(const struct tokenizer *t, struct strbuf *out, struct err *e);
/* The member "post_processor" of a tokenizer.json that puts a token before or behind a text (text NULL: not there), or both. */
struct json_writer;
struct text_end {
	const char *text;
	int64_t id;
};
void tokenizer_write_template(struct json_writer *w, const struct text_end ends[2]);

#endif
