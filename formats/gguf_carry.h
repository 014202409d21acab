#ifndef QUIRE_FORMATS_GGUF_CARRY_H
#define QUIRE_FORMATS_GGUF_CARRY_H
/* Parts of gguf.c: the keys of a GGUF, kept through other formats. */
#include "formats/checkpoint.h"
#include "formats/gguf.h"

/* The side file that holds them: a GGUF without tensors. Folders of Hugging Face have no place for it. */
#define GGUF_KEYS_FILE "metadata.gguf"

/* Appends such a file with all keys but those of the container itself. */
int gguf_carry_all(const struct gguf *g, struct strbuf *out, struct err *e);
/*
 * The same with what is true of what will be written; nothing when src has none. c: that model, or NULL. same_values: tensors
 * keep their codecs and values.
 */
int gguf_carry(const struct checkpoint *src, const struct config *c, bool same_values, struct strbuf *out, struct err *e);
bool gguf_carries(const struct strbuf *carried, const char *key);
/* All keys of own, with the value they had where they are carried, then what else is carried. */
int gguf_merge(struct gguf_writer *w, struct gguf_writer *own, const struct strbuf *carried, struct err *e);
/* Names the keys of src that a folder does not keep. */
int gguf_note_lost(const struct checkpoint *src, struct notes *n, struct err *e);

#endif
