#ifndef QUIRE_FORMATS_GGUF_VOCAB_H
#define QUIRE_FORMATS_GGUF_VOCAB_H
/* A vocabulary as GGUF lists it, on its way into tokenizer files. Private to formats/. */
#include "base/arena.h"
#include "base/json.h"
#include "formats/gguf_model.h"

struct token {
	const char *text;
	size_t len;
	float score;
	enum token_type type;
};

/* Tokens with a job: "tokenizer.ggml.<gguf>_token_id", and the key of tokenizer_config.json that has their text (NULL: none). */
enum special { SPECIAL_BOS, SPECIAL_EOS, SPECIAL_UNK, SPECIAL_PAD, SPECIAL_EOT, SPECIAL_EOM, SPECIAL_COUNT = 17 };
struct special_row {
	const char *gguf, *settings;
	int64_t spm;                 /* what a SentencePiece vocabulary has when the key is missing; -1: nothing */
};
extern const struct special_row gguf_special_rows[SPECIAL_COUNT];

/* The token that tokenizer_config.json gives the job: by id where a GGUF file said so, else by text. -1: none. */
int64_t gguf_special(const struct tokenizer *t, const struct json *settings, const struct special_row *row);

struct vocabulary {
	const struct gguf *g;
	struct token *token;
	size_t count;
	int64_t id[SPECIAL_COUNT];   /* -1: none */
	bool spm, add_bos, add_eos, space_prefix, scores;
	bool rstrip;                 /* special tokens take the white space behind them */
	struct arena arena;
};

/* Appends a tokenizer.model with the pieces, scores and types of a SentencePiece vocabulary. */
int gguf_vocab_spm(const struct vocabulary *v, struct strbuf *out, struct err *e);

#endif
