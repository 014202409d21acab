/* A SentencePiece vocabulary of GGUF as tokenizer.model: the protocol buffer of sentencepiece_model.proto. */
#include <string.h>

#include "base/bytes.h"
#include "formats/gguf_vocab.h"

static void put_varint(struct strbuf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		strbuf_putc(b, (char)(v | 0x80));
	strbuf_putc(b, (char)v);
}

/* Protocol buffer fields: wire type 0 varint, 2 bytes, 5 a 32-bit float. */
static void put_field(struct strbuf *b, unsigned field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

static void put_bytes(struct strbuf *b, unsigned field, const void *data, size_t len)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, len);
	strbuf_add(b, data, len);
}

static void put_float32(struct strbuf *b, unsigned field, float v)
{
	uint32_t u;
	uint8_t raw[4];
	memcpy(&u, &v, 4);
	store_u32(raw, u);
	put_varint(b, field << 3 | 5);
	strbuf_add(b, raw, 4);
}

static void put_name(struct strbuf *b, unsigned field, const struct vocabulary *v, int64_t id)
{
	if (id >= 0)
		put_bytes(b, field, v->token[id].text, v->token[id].len);
}

/* ModelProto of sentencepiece_model.proto: 1 pieces, 2 trainer_spec, 3 normalizer_spec. */
int gguf_vocab_spm(const struct vocabulary *v, struct strbuf *out, struct err *e)
{
	struct strbuf part = { 0 };
	for (size_t i = 0; i < v->count; i++) {
		strbuf_clear(&part);
		put_bytes(&part, 1, v->token[i].text, v->token[i].len);
		put_float32(&part, 2, v->token[i].score);
		put_field(&part, 3, v->token[i].type);
		put_bytes(out, 1, part.data ? part.data : "", part.len);
	}
	strbuf_clear(&part);
	put_field(&part, 3, 2);            /* model_type: BPE */
	put_field(&part, 4, v->count);     /* vocab_size */
	put_field(&part, 35, 1);           /* byte_fallback */
	put_field(&part, 40, (uint64_t)v->id[SPECIAL_UNK]);
	put_field(&part, 41, (uint64_t)v->id[SPECIAL_BOS]);
	put_field(&part, 42, (uint64_t)v->id[SPECIAL_EOS]);
	put_field(&part, 43, (uint64_t)v->id[SPECIAL_PAD]);
	put_name(&part, 45, v, v->id[SPECIAL_UNK]);
	put_name(&part, 46, v, v->id[SPECIAL_BOS]);
	put_name(&part, 47, v, v->id[SPECIAL_EOS]);
	put_bytes(out, 2, part.data ? part.data : "", part.len);
	strbuf_clear(&part);
	put_bytes(&part, 1, "identity", 8);
	put_field(&part, 3, v->space_prefix);
	put_field(&part, 4, 0);            /* remove_extra_whitespaces: whoever reads GGUF keeps them */
	put_field(&part, 5, 1);            /* escape_whitespaces */
	put_bytes(out, 3, part.data ? part.data : "", part.len);
	bool failed = part.failed || out->failed;
	strbuf_release(&part);
	return failed ? err_nomem(e) : 0;
}
