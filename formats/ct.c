/* The layout of pack-quantized weights, and which codecs it holds. */
#include "formats/ct.h"

#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"

bool ct_holds(const struct codec *c)
{
	return c->kind == CODEC_GROUP && (c->bits == 4 || c->bits == 8);
}

int ct_layout_of(const struct tensor *t, struct ct_layout *out, struct err *e)
{
	const struct codec *c = t->codec;
	uint64_t rows = t->ndim ? t->dim[0] : 0, cols = tensor_cols(t), block = c->block ? c->block : cols;
	if (t->ndim != 2 || !ct_holds(c))
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: %s is not a matrix that compressed-tensors holds", t->name, c->name);
	if (cols % block)
		return err_set(e, ERR_UNSUPPORTED, "tensor %.200s: rows of %llu do not divide into groups of %llu, which compressed-tensors "
			       "needs", t->name, (unsigned long long)cols, (unsigned long long)block);
	*out = (struct ct_layout){ .codec = c, .rows = rows, .cols = cols, .groups = cols / block };
	out->words = (cols * (uint64_t)c->bits + 31) / 32;
	out->zero_words = c->has_offset ? (rows * (uint64_t)c->bits + 31) / 32 : 0;
	return ERR_OK;
}

/* Bytes of a group: scale, zero point if there is one, codes. Codes of 4 and 8 bits are in the order of a packed row. */
static size_t header(const struct ct_layout *l)
{
	return l->codec->has_offset ? 3 : 2;
}

static size_t code_bytes(const struct ct_layout *l)
{
	return (size_t)((l->cols / l->groups * (uint64_t)l->codec->bits + 7) / 8);
}

static uint8_t *zero_word(const struct ct_layout *l, uint8_t *zero, uint64_t row, uint64_t group, unsigned *shift)
{
	uint64_t bit = row * (uint64_t)l->codec->bits;
	*shift = (unsigned)(bit % 32);
	return zero + 4 * (bit / 32 * l->groups + group);
}

void ct_split(const struct ct_layout *l, const uint8_t *bytes, uint8_t *packed, uint8_t *scale, uint8_t *zero)
{
	size_t head = header(l), codes = code_bytes(l);
	unsigned shift;
	memset(packed, 0, (size_t)(l->rows * l->words * 4));
	if (l->zero_words)
		memset(zero, 0, (size_t)(l->zero_words * l->groups * 4));
	for (uint64_t r = 0; r < l->rows; r++)
		for (uint64_t g = 0; g < l->groups; g++, bytes += head + codes) {
			memcpy(scale + 2 * (r * l->groups + g), bytes, 2);
			memcpy(packed + r * l->words * 4 + g * codes, bytes + head, codes);
			if (!l->zero_words)
				continue;
			uint8_t *word = zero_word(l, zero, r, g, &shift);
			store_u32(word, load_u32(word) | (uint32_t)bytes[2] << shift);
		}
}

void ct_join(const struct ct_layout *l, const uint8_t *packed, const uint8_t *scale, const uint8_t *zero, uint8_t *bytes)
{
	size_t head = header(l), codes = code_bytes(l);
	uint32_t mask = (1u << l->codec->bits) - 1;
	for (uint64_t r = 0; r < l->rows; r++)
		for (uint64_t g = 0; g < l->groups; g++, bytes += head + codes) {
			uint64_t bit = r * (uint64_t)l->codec->bits;
			memcpy(bytes, scale + 2 * (r * l->groups + g), 2);
			memcpy(bytes + head, packed + r * l->words * 4 + g * codes, codes);
			if (l->zero_words)
				bytes[2] = (uint8_t)(load_u32(zero + 4 * (bit / 32 * l->groups + g)) >> bit % 32 & mask);
		}
}

bool ct_wanted(const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (ct_holds(p->items[i].out.codec))
			return true;
	return false;
}
