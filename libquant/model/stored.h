#ifndef QUIRE_MODEL_STORED_H
#define QUIRE_MODEL_STORED_H
/*
 * Tensors that lie otherwise in files than the model sees them: several matrices in one, or transposed. Readers show the
 * parts, each under a name of its own and with whole rows; writers put them together again. In between there are parts only.
 */
#include "model/arch.h"

enum { STORED_PARTS = 3 };
struct stored {
	const char *hf, *gguf;        /* its name; NULL: there the parts are tensors of their own */
	enum role part[STORED_PARTS]; /* in the order of their rows; ended by ROLE_UNKNOWN where there are fewer */
	bool heads;                   /* hf: the rows of a head lie together, those of each part one after the other */
	bool groups;                  /* the same of a KV head and the query heads that read it, which there may be several of */
	bool transposed;              /* hf: [in, out] */
	bool experts;                 /* hf: that of each expert, one behind the other: [experts, rows, columns] */
	bool pairs;                   /* hf: of one part; dimensions of a head that turn together are neighbours, as in LAYOUT_ROPE_PAIRS */
};
#define STORED_ONE(role) { role, ROLE_UNKNOWN, ROLE_UNKNOWN }
#define STORED_QKV { ROLE_Q, ROLE_K, ROLE_V }
#define STORED_QKV_BIAS { ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS }

/* By the name in a file; NULL: no such tensor holds others. */
const struct stored *stored_find(const struct arch *a, const char *name, bool gguf, uint32_t *layer);
/* What holds this role in such files, and its place among the parts; NULL: it is a tensor of its own. */
const struct stored *stored_of(const struct arch *a, enum role r, bool gguf, unsigned *part);
/* Does the family store this role together with others, in any file? */
bool stored_together(const struct arch *a, enum role r);
unsigned stored_count(const struct stored *s);
/* The name of the tensor of GGUF that holds the role, by itself or with others (the first of these: part 0); NULL: none does. */
char *stored_gguf_name(const struct arch *a, enum role r, uint32_t layer, char *buf, unsigned *part);
/* Writes the name into buf (>= 96 bytes) and returns it. */
char *stored_name(const struct stored *s, bool gguf, uint32_t layer, char *buf);
/* Where each part's rows begin, one after the other, and where the last ends. false: they cannot be so many. */
bool stored_rows(const struct stored *s, uint64_t rows, uint32_t heads, uint32_t kv_heads, uint64_t first[STORED_PARTS + 1]);

#endif
