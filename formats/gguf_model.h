#ifndef QUIRE_FORMATS_GGUF_MODEL_H
#define QUIRE_FORMATS_GGUF_MODEL_H
/* Parts of gguf.c: a language model in GGUF, taken apart into the side files of a Hugging Face folder and put together again. */
#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "model/arch.h"

/* The normalizer of tokenizer.json, for quire only, where it is not that of the family that tokenizer.ggml.pre names. */
#define GGUF_NORMALIZER "quire.tokenizer.normalizer"

/* One file; a model may be split over several, of which the first has the metadata. */
struct gguf_part {
	const uint8_t *data;
	size_t size;
	struct gguf g;
	struct mapped map;
};

struct gguf_model {
	struct gguf_part *part;
	size_t parts;
	const struct gguf *meta;      /* of the first part */
	const struct arch *arch;      /* NULL: unknown, or not a model */
	char arch_name[64];           /* general.architecture; the prefix of its keys */
};

/* n f32 values at src, plus `by`, to dst. */
void gguf_shift(const uint8_t *src, uint8_t *dst, uint64_t n, float by);

/* Fills meta, arch and arch_name from the parts. */
int gguf_model_init(struct gguf_model *m, struct err *e);
/* Keys of another type, missing where a model needs them, lists that are not as long as the vocabulary. ERR_INPUT. */
int gguf_check_keys(const struct gguf_model *m, struct err *e);
/* Is "{arch}.suffix" a hyper-parameter, which config.json says as well? */
bool gguf_key_of_config(const struct arch *a, const char *suffix);
/* Is "{arch}.key" one of those that only its loader needs (gguf_beside.c)? */
bool gguf_beside(const char *arch, const char *key);
void gguf_put_beside(struct gguf_writer *w, const struct config *c);
/* text: the config.json made of the other keys. ERR_UNSUPPORTED when one says something else than follows from them. */
int gguf_check_beside(const struct gguf_model *m, const char *text, size_t len, struct err *e);
/* "{arch}.suffix" */
const struct gguf_kv *gguf_model_key(const struct gguf_model *m, const char *suffix);
const struct gguf_tensor *gguf_model_tensor(const struct gguf_model *m, const char *name, const uint8_t **data);
/* Query or key/value heads of a layer; 0 when the metadata does not say. */
uint32_t gguf_model_heads(const struct gguf_model *m, uint32_t layer, bool kv);

/* Appends config.json. An architecture quire does not know gives one with its model_type only. */
int gguf_config(const struct gguf_model *m, struct strbuf *out, struct err *e);
/* Appends tokenizer.model or tokenizer.json (the other stays empty), and tokenizer_config.json; all empty without a vocabulary. */
int gguf_vocabulary(const struct gguf_model *m, struct strbuf *model, struct strbuf *json, struct strbuf *config, struct err *e);
/* The row that tokenizer.ggml.pre names; NULL: unknown. name gets the name, "default" where the file has none. */
struct pre_known;
const struct pre_known *gguf_pre_find(const struct gguf *g, char name[64]);
/* The members "normalizer" and "pre_tokenizer" of tokenizer.json; without a row its reader refuses the name. */
int gguf_write_pre(struct json_writer *w, const struct gguf *g, const struct pre_known *row, const char *name, bool prefix_space,
		   struct err *e);

/* The other way. Divisors of llama3 frequency scaling, [dims / 2]. */
void gguf_rope_divisors(const struct rope *r, float *out);
/* Tensors that say how positions turn: keys of config.json. rope_freqs.weight, and those of longrope. */
enum { ROPE_TENSORS = 3 };
extern const char *const gguf_rope_tensors[ROPE_TENSORS];
bool gguf_rope_tensor(const char *name);
/* ERR_UNSUPPORTED for a model that no program would load from GGUF, or that it cannot say; notes for what runs otherwise. */
int gguf_expressible(const struct config *c, struct notes *n, struct err *e);
int gguf_put_config(struct gguf_writer *w, const struct config *c, struct err *e);
/* Of a byte-level vocabulary; named: as it was called in GGUF before, or NULL. What the name does not say is noted. */
int gguf_put_pre(struct gguf_writer *w, const struct tokenizer *t, const char *named, struct err *e);
/*
 * t may be NULL: a model without a vocabulary. settings: tokenizer_config.json, or NULL. pre: the name the pre-tokenizer
 * had in GGUF before, or NULL.
 */
int gguf_put_vocabulary(struct gguf_writer *w, const struct config *c, const struct tokenizer *t, const char *pre,
			const struct side_file *settings, struct err *e);
/* Chat templates of a folder's files to keys, and of keys to tokenizer_config.json. */
int gguf_put_chat_templates(struct gguf_writer *w, const struct checkpoint *c, struct err *e);
struct json_writer;
void gguf_chat_templates(const struct gguf *g, struct json_writer *w);
int gguf_create(const char *path, const struct write_request *r, struct tensor_sink **out, struct err *e);
extern const struct format format_gguf;

#endif
