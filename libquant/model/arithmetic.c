#include "model/arithmetic.h"

#include <string.h>

#include "codec/codec.h"
#include "model/model_impl.h"

const struct arithmetic_row arithmetic_rows[] = {
	{ ARITHMETIC_EXACT, "exact", "f32 activations, keys and values" },
	{ ARITHMETIC_LLAMA, "llama.cpp", "activations rounded by the weights' type, keys and values in f16" },
};
const unsigned arithmetic_row_count = sizeof arithmetic_rows / sizeof *arithmetic_rows;

int arithmetic_find(const char *name, enum arithmetic *out, struct err *e)
{
	for (unsigned i = 0; i < arithmetic_row_count; i++)
		if (!strcmp(name, arithmetic_rows[i].name)) {
			*out = arithmetic_rows[i].arithmetic;
			return ERR_OK;
		}
	return err_set(e, ERR_USAGE, "'%.40s' is no arithmetic that can be followed; use exact or llama.cpp", name);
}

int model_set_arithmetic(struct model *m, enum arithmetic arithmetic, struct err *e)
{
	const struct codec *f16 = codec_find("f16");
	for (size_t i = 0; arithmetic == ARITHMETIC_LLAMA && i < site_count(m->config); i++) {
		const struct tensor *t = m->weight[i].tensor;
		if (t && t->codec->gguf_type < 0)
			return err_set(e, ERR_UNSUPPORTED, "%s is in %s, which llama.cpp has not", t->name, t->codec->name);
	}
	m->arithmetic = arithmetic;
	m->kv = (struct kv_codecs){ 0 };
	if (arithmetic == ARITHMETIC_LLAMA)
		m->kv.k.codec = m->kv.v.codec = f16;
	return ERR_OK;
}

enum arithmetic model_arithmetic(const struct model *m)
{
	return m->arithmetic;
}
